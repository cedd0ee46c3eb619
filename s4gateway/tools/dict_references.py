"""Which dictionaries the objects of a bucket need, told by the metadata of every one of them.

Rule: only HEAD tells it, so all are asked, whatever their size and name, and noncurrent versions,
too. What could not be asked is a failure, and whoever wants to delete something stops at the first.
A listing that breaks off is raised, never taken for the whole.
"""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

from s4gateway.backend.base import Backend, BackendAnswer
from s4gateway.s3 import query
from s4gateway.tools import walk
from s4gateway.tools.failure import Bounded, Failure
from s4gateway.tools.progress import Progress
from s4gateway.tools.target import Target
from s4gateway.wire import keys
from s4gateway.wire.manifest import DICT_ID


@dataclass(frozen=True, slots=True)
class _Subject:
    """An object, or a version of one, whose metadata is to be looked at."""

    key: str
    modified: datetime | None
    version_id: str | None = None

    @property
    def query(self) -> str:
        """The query of requests about it."""
        return "" if self.version_id is None else f"versionId={query.quote(self.version_id)}"


Subjects = AsyncGenerator[_Subject, None]


@dataclass(slots=True)
class Seen:
    """What the scan has found so far."""

    references: Counter[str] = field(default_factory=Counter)
    scanned: int = 0
    failures: Bounded[Failure] = field(default_factory=Bounded)

    @property
    def failed(self) -> int:
        """How much could not be found out or done."""
        return self.failures.count

    def fail(self, key: str, op: str, error: object) -> None:
        """Count a failure and remember the first ones."""
        self.failures.add(Failure(key, op, str(error)))


class Scan:
    """Looks at objects and versions, each once, and at new ones again."""

    def __init__(
        self,
        backend: Backend,
        bucket: str,
        concurrency: int,
        progress: Progress,
        *,
        versioned: bool,
    ) -> None:
        self._backend = backend
        self._bucket = bucket
        self._versioned = versioned
        self._concurrency = concurrency
        self._progress = progress
        self.seen = Seen()

    async def everything(self) -> None:
        """Ask what every object needs; raises BackendError when a listing breaks off.

        Current objects come first: what is current when it is asked for and is replaced later is
        among the noncurrent ones afterwards.
        """
        await self._ask_all(self._current(None))
        if self._versioned:
            await self._ask_all(self._noncurrent(None))

    async def since(self, moment: datetime) -> None:
        """Ask again what was written at `moment` or later; what is known by then stays known."""
        known, self.seen.references = self.seen.references, Counter()
        scanned = self.seen.scanned
        try:
            await self._ask_all(self._current(moment))
            if self._versioned:
                await self._ask_all(self._noncurrent(moment))
        finally:
            self.seen.references |= known  # the larger count: most were counted before
            self.seen.scanned = scanned

    async def _ask_all(self, subjects: Subjects) -> None:
        async with aclosing(subjects):
            await walk.each(subjects, self._ask, self._concurrency)

    async def _current(self, since: datetime | None) -> Subjects:
        async with aclosing(
            walk.walk(self._backend, Target(self._bucket), internal=True)
        ) as listing:
            async for entry in listing:
                subject = _Subject(entry.key, entry.modified)
                if _matters(subject, since):
                    self._progress.found(1)
                    yield subject

    async def _noncurrent(self, since: datetime | None) -> Subjects:
        """Versions that are not the latest: those of clients' keys, then those of internal ones."""
        target = Target(self._bucket)
        for internal in (False, True):
            listing = walk.walk_versions(self._backend, target, internal=internal, required=True)
            async with aclosing(listing):
                async for entry in listing:
                    if entry.is_latest or entry.is_marker or keys.is_hidden(entry.key) != internal:
                        continue
                    subject = _Subject(entry.key, entry.modified, entry.version_id)
                    if _matters(subject, since):
                        self._progress.found(1)
                        yield subject

    async def _ask(self, subject: _Subject) -> None:
        """Count what one object or version needs; one that is gone needs nothing."""
        try:
            head = await self._backend.head(self._bucket, subject.key, query=subject.query)
        except BackendAnswer as error:
            if not error.missing:
                self.seen.fail(subject.key, "head", error)
            elif await self._is_listed(subject):
                self.seen.fail(subject.key, "head", f"{error}, though it is listed")
        else:
            needed = head.metadata.get(DICT_ID)
            if needed is not None:  # believed on any object: one too many does no harm
                self.seen.references[needed] += 1
        self.seen.scanned += 1
        self._progress.done(1)

    async def _is_listed(self, subject: _Subject) -> bool:
        """Whether what HEAD does not find is in the listing still, under exactly this name."""
        target = Target(self._bucket, subject.key)
        if subject.version_id is None:
            async with aclosing(
                walk.walk(self._backend, target, internal=True, limit=1)
            ) as listing:
                return any([entry.key == subject.key async for entry in listing])
        async with aclosing(walk.walk_versions(self._backend, target, internal=True)) as versions:
            async for entry in versions:
                if (entry.key, entry.version_id) == (subject.key, subject.version_id):
                    return True
        return False


def _matters(subject: _Subject, since: datetime | None) -> bool:
    """Whether to ask for it: dictionaries need none, and what is old was asked for already."""
    if dictionary_id(subject.key) is not None:
        return False
    return since is None or subject.modified is None or subject.modified >= since


def dictionary_id(key: str) -> str | None:
    """Return the id of the dictionary with this key; None for any other key."""
    found = key.removeprefix(keys.DICTIONARY_PREFIX)
    return found if found != key and keys.is_dictionary_id(found) else None
