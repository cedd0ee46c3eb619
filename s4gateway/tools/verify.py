"""Every object of a bucket read whole and compared with everything that is known about it.

The reader checks the CRC-32C of every frame, and size and CRC of the whole; ContentCheck adds the
ETag and the checksum the client declared. Rule: an object is called damaged only when it was read
wrong twice, because what is reported here is acted upon; what vanished or could not be read is
told apart from what is damaged; and no object is held in memory, however large it is.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer, BackendError
from s4gateway.objects.attributes import describe
from s4gateway.objects.dictionaries import DictionaryUnavailable
from s4gateway.objects.errors import ObjectError, UnreadableObject
from s4gateway.objects.opening import OpenObject, Source
from s4gateway.s3 import query
from s4gateway.s3.errors import S3Error
from s4gateway.tools import sidecars
from s4gateway.tools.content_check import ContentCheck, Expected
from s4gateway.tools.failure import NAMED, Bounded, Failure
from s4gateway.tools.objects import Making, Objects, open_objects
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.sidecar_errors import SidecarToolError
from s4gateway.tools.target import Target
from s4gateway.tools.walk import each, walk, walk_versions
from s4gateway.wire.manifest import Form

MIB: Final = 1024 * 1024
_FOREIGN_READ: Final = MIB  # bytes of an object of others that are read rather than broken off
_ATTEMPTS: Final = 3
_INLINE: Final = 64 * 1024  # bytes digested without a thread
_EACH: Final = 64 * MIB  # memory for one object being read: two frames of 16 MiB, and ahead


class Outcome(StrEnum):
    """What became of one object."""

    SOUND = "sound"
    """Read whole; everything that is known about it agrees."""
    FOREIGN = "foreign"
    """Not written by a gateway: there is nothing to compare it with, and it was not read."""
    DAMAGED = "damaged"
    """Its bytes are not what its metadata and checksums say, or its dictionary is lost."""
    UNREADABLE = "unreadable"
    """Needs a codec that is not here."""
    ENCRYPTED = "encrypted"
    """Encrypted by a gateway key, which is not here."""
    ARCHIVED = "archived"
    """In a storage class that must be restored before it can be read."""
    VANISHED = "vanished"
    """Deleted since it was listed."""
    FAILED = "failed"
    """The store did not let it be read."""


_FINDINGS: Final = frozenset({Outcome.DAMAGED, Outcome.UNREADABLE, Outcome.FAILED})


@dataclass(frozen=True, slots=True)
class Finding:
    """An object that is not sound, and why."""

    key: str
    outcome: Outcome
    cause: str
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class Verify:
    """What to verify. `versions` reads noncurrent versions, too; `sidecars` judges indexes.

    `pause` is how many seconds pass before what was read wrong is read again.
    """

    target: Target
    concurrency: int = 8
    versions: bool = False
    sidecars: bool = False
    pause: float = 1.0


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was read and what was found; sizes in bytes, of sound objects only.

    `compared` counts the sound objects by what was compared beside the frames. `findings` names the
    first damaged, unreadable and failed objects, `indexes` those whose sidecar is not sound.
    """

    target: str
    objects: int
    original_bytes: int
    stored_bytes: int
    outcomes: dict[str, int]
    compared: dict[str, int]
    read_again: int
    findings: tuple[Finding, ...]
    verdicts: dict[str, int]
    indexes: tuple[Failure, ...]
    notes: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Nothing was found that somebody should look at."""
        found = any(self.outcomes[each.value] for each in _FINDINGS)
        return not found and not self.indexes


async def verify(backend: Backend, wanted: Verify, progress: Progress = SILENT) -> VerifyReport:
    """Read everything below a target; raises BackendError when it cannot be listed."""
    memory = max(256 * MIB, wanted.concurrency * _EACH)
    making = Making(threads=os.cpu_count() or 1, memory=memory, conditional_writes=False)
    async with open_objects(backend, making) as objects:
        run = _Run(objects, wanted, progress)
        await each(_subjects(backend, wanted), run.look, wanted.concurrency)
    return run.report()


@dataclass(frozen=True, slots=True)
class _Subject:
    key: str
    size: int
    version_id: str | None = None

    @property
    def query(self) -> str:
        return "" if self.version_id is None else f"versionId={query.quote(self.version_id)}"


async def _subjects(backend: Backend, wanted: Verify) -> AsyncGenerator[_Subject, None]:
    if not wanted.versions:
        async for listed in walk(backend, wanted.target):
            yield _Subject(listed.key, listed.size)
        return
    async for version in walk_versions(backend, wanted.target):
        if not version.is_marker:
            current = version.is_latest
            yield _Subject(version.key, version.size, None if current else version.version_id)


@dataclass(frozen=True, slots=True)
class _Result:
    """What came of reading one object once."""

    outcome: Outcome
    cause: str = ""
    compared: tuple[str, ...] = ()
    original: int = 0
    stored: int = 0
    form: Form = Form.FOREIGN
    again: bool = False  # reading it again may have another result


class _Run:
    def __init__(self, objects: Objects, wanted: Verify, progress: Progress) -> None:
        self._objects = objects
        self._wanted = wanted
        self._progress = progress
        self._outcomes: Counter[Outcome] = Counter()
        self._compared: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._findings: Bounded[Finding] = Bounded()
        self._indexes: Bounded[Failure] = Bounded()
        self._original = self._stored = self._again = 0

    async def look(self, subject: _Subject) -> None:
        """Read one object and count what came of it."""
        self._progress.found(1, subject.size)
        try:
            result = await self._read(subject)
            await self._record(subject, result)
        finally:
            self._progress.done(1, subject.size)

    async def _record(self, subject: _Subject, result: _Result) -> None:
        self._outcomes[result.outcome] += 1
        if result.outcome in _FINDINGS:
            finding = Finding(subject.key, result.outcome, result.cause, subject.version_id)
            self._findings.add(finding)
        if result.outcome is not Outcome.SOUND:
            return
        self._original += result.original
        self._stored += result.stored
        self._compared.update(result.compared)
        current = subject.version_id is None
        if self._wanted.sidecars and current and result.form is Form.FRAMED:
            await self._judge_index(subject.key)

    async def _judge_index(self, key: str) -> None:
        name = (self._wanted.target.bucket, key)
        try:
            report = await sidecars.verify_sidecar(self._objects.backend, name)
        except (BackendError, SidecarToolError) as error:
            self._indexes.add(Failure(key, type(error).__name__, str(error)))
            return
        self._verdicts[report.verdict] += 1
        if not report.verdict.is_sound:
            self._indexes.add(Failure(key, report.verdict, report.detail))

    async def _read(self, subject: _Subject) -> _Result:
        """Read an object, again where that may give another result; damage must show twice."""
        results: list[_Result] = []
        for attempt in range(1, _ATTEMPTS + 1):
            results.append(await self._read_once(subject))
            last = results[-1]
            twice = [each.outcome for each in results].count(Outcome.DAMAGED) == 2
            if not last.again or twice or attempt == _ATTEMPTS:
                self._again += attempt > 1 and last.outcome is Outcome.SOUND
                break
            await asyncio.sleep(self._wanted.pause)
        return results[-1]

    async def _read_once(self, subject: _Subject) -> _Result:
        name = (self._wanted.target.bucket, subject.key)
        source = Source(self._objects.backend, name, subject.query)
        try:
            return await self._open_and_read(source, subject.size)
        except DictionaryUnavailable as error:
            return _Result(Outcome.FAILED, str(error), again=True)
        except UnreadableObject as error:
            return await self._unreadable(source, error)
        except ObjectError as error:
            return _Result(Outcome.DAMAGED, str(error), again=True)
        except BackendAnswer as error:
            return _answered(error)
        except (BackendError, S3Error) as error:
            return _Result(Outcome.FAILED, str(error), again=True)

    async def _open_and_read(self, source: Source, listed_size: int) -> _Result:
        reader, etag = self._objects.reader, None
        if listed_size > _FOREIGN_READ:
            # Asked first: an object of others would be opened only to break the connection.
            attributes = await reader.attributes(source)
            etag = attributes.head.etag or None
            if attributes.stored.form is Form.FOREIGN:
                return _Result(Outcome.FOREIGN)
        opened = await reader.open_whole(source, if_match=etag)
        try:
            return await _compare(opened, self._objects.workshop.lanes.digest)
        finally:
            await opened.aclose()

    async def _unreadable(self, source: Source, error: UnreadableObject) -> _Result:
        """Tell what is encrypted from what needs another build."""
        try:
            head = await source.backend.head(*source.name, query=source.query)
        except BackendError as failure:
            return _Result(Outcome.FAILED, str(failure))
        encrypted = describe(head).stored.form is Form.ENCRYPTED
        return _Result(Outcome.ENCRYPTED if encrypted else Outcome.UNREADABLE, str(error))

    def report(self) -> VerifyReport:
        """What all of it came to."""
        return VerifyReport(
            target=str(self._wanted.target),
            objects=self._outcomes.total(),
            original_bytes=self._original,
            stored_bytes=self._stored,
            outcomes={each.value: self._outcomes[each] for each in Outcome},
            compared=dict(sorted(self._compared.items())),
            read_again=self._again,
            findings=self._findings.sorted(),
            verdicts=dict(sorted(self._verdicts.items())),
            indexes=self._indexes.sorted(),
            notes=tuple(self._notes()),
        )

    def _notes(self) -> list[str]:
        notes = []
        if self._outcomes[Outcome.FOREIGN]:
            notes.append("foreign objects were not written by a gateway, and were not read")
        if self._outcomes[Outcome.ENCRYPTED] or self._outcomes[Outcome.ARCHIVED]:
            notes.append("encrypted and archived objects could not be read, and prove nothing")
        if self._again:
            notes.append(
                f"{self._again} objects were right only when read again: look at the network or "
                "the store"
            )
        if self._findings.is_cut or self._indexes.is_cut:
            notes.append(f"only the first {NAMED} findings met are named")
        return notes


def _answered(error: BackendAnswer) -> _Result:
    if error.code == "InvalidObjectState":
        return _Result(Outcome.ARCHIVED)
    if error.missing and error.code != "NoSuchBucket":
        return _Result(Outcome.VANISHED)
    overwritten = error.status == 412
    return _Result(Outcome.FAILED, str(error), again=overwritten or error.status >= 500)


async def _compare(opened: OpenObject, executor: Executor) -> _Result:
    """Read an open object to its end, and compare."""
    attributes, content = opened.attributes, opened.content
    form, size = attributes.stored.form, attributes.head.size
    check = ContentCheck(Expected.of(attributes))
    if form is Form.FOREIGN:
        if not isinstance(content, bytes) and size <= _FOREIGN_READ:
            async for _ in content:  # the connection serves the next object
                pass
        return _Result(Outcome.FOREIGN)
    if isinstance(content, bytes):
        check.update(content)
    else:
        loop = asyncio.get_running_loop()
        async for piece in content:
            if len(piece) <= _INLINE:
                check.update(piece)
            else:
                await loop.run_in_executor(executor, check.update, piece)
    problem = check.problem()
    if attributes.stored.tail is not None and attributes.tail is None:
        # Without it nothing tells that frames are missing at the end.
        problem = problem or "the tail that the metadata names is not there, or is damaged"
    if problem:
        return _Result(Outcome.DAMAGED, problem, again=True)
    return _Result(Outcome.SOUND, "", check.compared, opened.end, size, form)
