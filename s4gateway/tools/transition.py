"""Objects moved into another storage class where they are, and their sidecars with them.

    HEAD -> CopyObject onto itself, pinned to that ETag, with all the HEAD showed -> the sidecar

Rule: bytes never pass through here, and nothing but the class changes that a client could see. The
copy is of the version that was looked at or there is none; one that a client replaced meanwhile is
left as it is. A sidecar follows its object and is never moved on its own; where the copy has
another ETag, which S3 gives to a copy of what was uploaded in parts, it is bound to the new one.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/sc-howtoset.html
"""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum

from s4gateway.backend.base import Backend, BackendError
from s4gateway.objects.copying import LARGEST
from s4gateway.objects.footprint import is_accounted
from s4gateway.tools import walk as walking
from s4gateway.tools.failure import Bounded, Failure
from s4gateway.tools.moving import Left, Moved, MoveFailed, MoveLeft, Mover, stored_size
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.transition_report import (
    Findings,
    TransitionParams,
    TransitionReport,
    notes,
)
from s4gateway.tools.walk import Listed
from s4gateway.wire import keys


async def transition(
    backend: Backend,
    params: TransitionParams,
    progress: Progress = SILENT,
    *,
    now: datetime | None = None,
) -> TransitionReport:
    """Move what is old enough; raises BackendError when the target cannot be listed.

    Everything that concerns one object only is in the report. `now` is what ages are counted from.
    """
    running = _Run(backend, params, progress, now or datetime.now(UTC))
    await running.find_versioning()
    async with aclosing(running.work()) as items:
        await walking.each(items, running.do, params.concurrency)
    return running.report()


class _Verdict(Enum):
    """What is to become of an object, by what the listing says of it."""

    TOO_RECENT = "too-recent"
    ALREADY = "already-target-class"
    TOO_LARGE = "too-large"
    CANDIDATE = "candidate"


@dataclass(slots=True)
class _Above:
    """Verdicts on the listed keys that the current one begins with: as many as a key has bytes.

    Between an object and its sidecar stand only keys that begin with the object's.
    """

    verdicts: list[tuple[str, _Verdict]] = field(default_factory=list)

    def reach(self, key: str) -> None:
        while self.verdicts and not key.startswith(self.verdicts[-1][0]):
            self.verdicts.pop()

    def add(self, key: str, verdict: _Verdict) -> None:
        self.verdicts.append((key, verdict))

    def find(self, key: str) -> _Verdict | None:
        return next((verdict for above, verdict in self.verdicts if above == key), None)


@dataclass(frozen=True, slots=True)
class _Object:
    listed: Listed


@dataclass(frozen=True, slots=True)
class _LateSidecar:
    """The sidecar of an object that is in its class already."""

    owner: str
    listed: Listed


@dataclass(slots=True)
class _Run:
    backend: Backend
    params: TransitionParams
    progress: Progress
    now: datetime
    mover: Mover = field(init=False)
    versions: bool | None = None
    objects: int = 0
    size: int = 0
    moved: int = 0
    moved_size: int = 0
    sidecars: int = 0
    rebound: int = 0
    counted: int = 0  # of the objects moved, so many were in a ledger
    already: int = 0
    too_recent: int = 0
    too_large: int = 0
    left: Counter[Left] = field(default_factory=Counter)
    failures: Bounded[Failure] = field(default_factory=Bounded)

    def __post_init__(self) -> None:
        order = self.params
        self.mover = Mover(self.backend, order.target.bucket, order.storage_class, order.patience)

    async def find_versioning(self) -> None:
        try:
            state = await walking.versioning(self.backend, self.params.target.bucket)
        except BackendError:
            return  # the listing is the judge of whether the bucket can be worked on
        self.versions = state == "Enabled"

    async def work(self) -> AsyncGenerator[_Object | _LateSidecar, None]:
        """What is to be moved, in the order of the keys; everything else is counted here."""
        above = _Above()
        listing = walking.walk(self.backend, self.params.target, internal=True)
        async with aclosing(listing) as found:
            async for listed in found:
                above.reach(listed.key)
                if not keys.is_hidden(listed.key):
                    verdict = self._judge(listed)
                    above.add(listed.key, verdict)
                    if self._is_work(listed, verdict):
                        yield _Object(listed)
                    continue
                owner = listed.key.removesuffix(keys.SIDECAR_SUFFIX)
                if owner == listed.key or self._is_there(listed):
                    continue
                verdict_above = above.find(owner)
                if not self.params.execute:
                    known = verdict_above in {_Verdict.CANDIDATE, _Verdict.ALREADY}
                    self.sidecars += known
                elif verdict_above is _Verdict.ALREADY:
                    self.progress.found(1, listed.size)
                    yield _LateSidecar(owner, listed)

    def _judge(self, listed: Listed) -> _Verdict:
        self.objects += 1
        self.size += listed.size
        if self._is_recent(listed.modified):
            return _Verdict.TOO_RECENT
        if self._is_there(listed):
            return _Verdict.ALREADY
        return _Verdict.TOO_LARGE if listed.size > LARGEST else _Verdict.CANDIDATE

    def _is_recent(self, modified: datetime | None) -> bool:
        if self.params.older_than is None:
            return False
        return modified is None or modified > self.now - self.params.older_than

    def _is_there(self, listed: Listed) -> bool:
        return (listed.storage_class or walking.STANDARD) == self.params.storage_class

    def _is_work(self, listed: Listed, verdict: _Verdict) -> bool:
        """Count what is none, and in a dry run what would be."""
        self.too_recent += verdict is _Verdict.TOO_RECENT
        self.already += verdict is _Verdict.ALREADY
        self.too_large += verdict is _Verdict.TOO_LARGE
        if verdict is not _Verdict.CANDIDATE:
            return False
        self.progress.found(1, listed.size)
        if self.params.execute:
            return True
        self._count_moved(listed.size)
        self.progress.done(1, listed.size)
        return False

    def _count_moved(self, size: int) -> None:
        self.moved += 1
        self.moved_size += size

    async def do(self, item: _Object | _LateSidecar) -> None:
        """Move one object, or a sidecar that was left behind."""
        try:
            if isinstance(item, _Object):
                await self._move(item.listed)
            else:
                await self._realign(item)
        finally:
            self.progress.done(1, item.listed.size)

    async def _move(self, listed: Listed) -> None:
        try:
            head = await self.mover.look(listed.key, "HeadObject(pre-copy)")
            if listed.etag and head.etag != listed.etag:
                self.left[Left.RACED] += 1
                return
            if self.mover.is_there(head):
                self.already += 1
                return
            if stored_size(listed.key, head) > LARGEST:
                self.too_large += 1
                return
            after = await self.mover.move(listed.key, head)
        except MoveLeft as error:
            self.left[error.why] += 1
            return
        except MoveFailed as error:
            self.failures.add(error.failure)
            return
        self._count_moved(listed.size)
        self.counted += is_accounted(head.metadata)
        await self._sidecar(self.mover.follow(listed.key, head, after))

    async def _realign(self, late: _LateSidecar) -> None:
        try:
            head = await self.mover.look(late.owner, "HeadObject(realign)")
        except MoveLeft:
            return  # deleted meanwhile: an orphan, which is swept
        except MoveFailed as error:
            self.failures.add(error.failure)
            return
        if self.mover.is_there(head):
            await self._sidecar(self.mover.realign(late.owner, head))

    async def _sidecar(self, moving: Awaitable[Moved]) -> None:
        try:
            moved = await moving
        except MoveLeft:
            return  # it belongs to another version by now, whose writer has placed it
        except MoveFailed as error:
            self.failures.add(error.failure)
            return
        self.sidecars += moved is not Moved.NOTHING
        self.rebound += moved is Moved.REBOUND

    def report(self) -> TransitionReport:
        older_than = self.params.older_than
        report = TransitionReport(
            bucket=self.params.target.bucket,
            prefix=self.params.target.prefix,
            dry_run=not self.params.execute,
            storage_class=self.params.storage_class,
            older_than_secs=None if older_than is None else int(older_than.total_seconds()),
            total_objects=self.objects,
            total_bytes=self.size,
            transitioned=self.moved,
            transitioned_bytes=self.moved_size,
            transitioned_sidecars=self.sidecars,
            rebound_sidecars=self.rebound,
            skipped_already_target_class=self.already,
            skipped_too_recent=self.too_recent,
            skipped_etag_raced=self.left[Left.RACED],
            skipped_too_large=self.too_large,
            skipped_acl=self.left[Left.ACL],
            skipped_locked=self.left[Left.LOCKED],
            skipped_encrypted=self.left[Left.ENCRYPTED],
            skipped_archived=self.left[Left.ARCHIVED],
            failed=self.failures.count,
            failures=self.failures.sorted(),
            versioning_enabled=self.versions,
        )
        found = Findings(self.mover.conditional, self.mover.grants, self.counted)
        return replace(report, notes=tuple(notes(report, found)))
