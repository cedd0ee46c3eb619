"""One object's sidecar, checked against the object.

Rule: neither side is believed. The sidecar is decoded within bounds, and what it says is compared
with the headers of the object's frames, read pinned to the ETag of the HEAD before. A sidecar that
is wrong is never an object that is lost: readers ignore it and read from the start.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer, BackendProtocolError, Head
from s4gateway.objects import frame_headers
from s4gateway.objects.attributes import Attributes, describe
from s4gateway.objects.opening import Source
from s4gateway.s3 import query
from s4gateway.tools.sidecar_errors import FrameScan, MissingContentLength
from s4gateway.wire import keys
from s4gateway.wire.errors import FrameError, SidecarError
from s4gateway.wire.index import MAX_SIDECAR_BYTES, FrameEntry, FrameIndex
from s4gateway.wire.manifest import Form, Stored

LARGEST_OBJECT: Final = 50 * 1024**4  # bytes, S3's own limit
_ATTEMPTS: Final = 3  # versions to look at while a key is overwritten busily

ObjectName = tuple[str, str]


class Verdict(StrEnum):
    """What `verify_sidecar` found. Readers are right with each of them, only slower with some."""

    OK = "OK"
    """Bound to the live object, and its entries are the object's frames."""
    OK_LEGACY = "OK_LEGACY"
    """Its entries are the object's frames, but it is bound to nothing, so it is not used."""
    MISSING_HARMLESS = "MISSING_HARMLESS"
    """There is none, and none is needed."""
    MISSING_UNKNOWN = "MISSING_UNKNOWN"
    """There is none, and whether one is needed cannot be told."""
    MISSING_DIVERGENT = "MISSING_DIVERGENT"
    """There is none for an object of several frames."""
    STALE_ETAG = "STALE_ETAG"
    """Bound to an object of another ETag."""
    STALE_SIZE = "STALE_SIZE"
    """Bound to an object of another size."""
    DECODE_ERROR = "DECODE_ERROR"
    """Not a sidecar, or one that contradicts itself."""
    MISMATCH = "MISMATCH"
    """Bound to the live object, but its entries are not the object's frames."""
    ORPHAN = "ORPHAN"
    """There is a sidecar and no object."""

    @property
    def is_sound(self) -> bool:
        """Nothing is to be done, as far as can be told."""
        return self in {
            Verdict.OK,
            Verdict.OK_LEGACY,
            Verdict.MISSING_HARMLESS,
            Verdict.MISSING_UNKNOWN,
        }


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The verdict about one object's sidecar; sizes in bytes.

    `frames` counts the entries of the sidecar, None without one; `detail` says what was compared.
    """

    bucket: str
    key: str
    verdict: Verdict
    detail: str
    etag: str = ""
    stored_size: int | None = None
    frames: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedSidecar:
    """A sidecar as it stands in the store: its own ETag, and the index or why there is none."""

    etag: str
    index: FrameIndex | None
    problem: str = ""


async def load_sidecar(
    backend: Backend, name: ObjectName, version: str | None = None
) -> LoadedSidecar | None:
    """Read and decode the sidecar of an object, within bounds; None when there is none.

    Of several versions the one named, else the current one. Raises BackendError.
    """
    bucket, key = name
    asked = "" if version is None else query.format_query([("versionId", version)])
    try:
        stream = await backend.get(bucket, keys.sidecar_key(key), query=asked)
    except BackendAnswer as error:
        if error.code == "NoSuchBucket" or not error.missing:
            raise
        return None
    async with stream:
        tag, length = stream.head.etag, stream.head.content_length
        if length is None or length > MAX_SIDECAR_BYTES:
            problem = f"too-large: {length} bytes, no gateway reads more than {MAX_SIDECAR_BYTES}"
            return LoadedSidecar(tag, None, problem)
        data = await stream.read(MAX_SIDECAR_BYTES)
    try:
        return LoadedSidecar(tag, FrameIndex.decode(data))
    except SidecarError as error:
        return LoadedSidecar(tag, None, str(error))


@dataclass(frozen=True, slots=True)
class Indexed:
    """One version of an object as far as its frames go; `size` in stored bytes."""

    source: Source
    attributes: Attributes
    etag: str
    size: int

    @classmethod
    async def look(cls, backend: Backend, name: ObjectName) -> "Indexed":
        """HEAD the object; raises BackendError, MissingContentLength."""
        head = await backend.head(*name)
        return cls(Source(backend, name), describe(head), *identity(head))

    @property
    def stored(self) -> Stored:
        """What the metadata amounts to."""
        return self.attributes.stored

    @property
    def has_frames(self) -> bool:
        """Whether the metadata says that the body is a sequence of frames."""
        return self.stored.form in {Form.FRAMED, Form.DICTIONARY}

    async def read(self, start: int, end: int) -> bytes:
        """Stored bytes of exactly this version; raises BackendError."""
        return await self.source.read(self.etag, start, end)

    async def entries(self) -> AsyncGenerator[FrameEntry, None]:
        """Where each frame really stands; raises FrameScan, BackendError."""
        original = 0
        try:
            async with aclosing(frame_headers.walk(self.read, self.size)) as found:
                async for each in found:
                    if each.header is None:
                        continue
                    length = each.header.original_size
                    yield FrameEntry(original, length, each.offset, each.stored_size)
                    original += length
        except FrameError as error:
            raise FrameScan(f"the object is damaged: {error}") from error


def identity(head: Head) -> tuple[str, int]:
    """ETag and stored size of a version, to bind an index to; raises MissingContentLength."""
    try:
        size = head.size
    except BackendProtocolError as error:
        raise MissingContentLength(str(error)) from error
    if not head.etag:
        raise MissingContentLength("the store gives the object no ETag to bind an index to")
    return head.etag, size


async def verify_sidecar(
    backend: Backend, name: ObjectName, *, max_body_bytes: int = LARGEST_OBJECT
) -> VerifyReport:
    """Judge the sidecar of one object; raises BackendError, SidecarToolError.

    Of an object above `max_body_bytes` no frames are looked at. A finding that an overwrite in the
    middle could have made is reported only when the object is the same before and after.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            report = await _verify(backend, name, max_body_bytes)
            if report.verdict.is_sound or not report.etag or attempt == _ATTEMPTS:
                return report
            if identity(await backend.head(*name))[0] == report.etag:
                return report
        except BackendAnswer as error:
            if error.status != 412 or attempt == _ATTEMPTS:
                raise


async def _verify(backend: Backend, name: ObjectName, max_body_bytes: int) -> VerifyReport:
    report = partial(VerifyReport, *name)
    try:
        found = await Indexed.look(backend, name)
    except BackendAnswer as error:
        if not error.missing or await load_sidecar(backend, name) is None:
            raise
        return report(Verdict.ORPHAN, "a sidecar without an object: see sweep-orphan-sidecars")
    report = partial(report, etag=found.etag, stored_size=found.size)
    sidecar = await load_sidecar(backend, name)
    if sidecar is None:
        return report(*await _judge_missing(found, max_body_bytes))
    if sidecar.index is None:
        return report(Verdict.DECODE_ERROR, sidecar.problem)
    return await _judge(found, sidecar.index, max_body_bytes, report)


async def _judge(
    found: Indexed,
    index: FrameIndex,
    max_body_bytes: int,
    report: "partial[VerifyReport]",
) -> VerifyReport:
    report = partial(report, frames=len(index))
    bound = [
        word
        for word, value in (("ETag", index.etag), ("size", index.source_size))
        if value is not None
    ]
    if bound and not index.is_bound_to(found.etag, found.size):
        return report(*_judge_stale(index, found.size))
    note = _not_compared(found, max_body_bytes)
    try:
        problem = "" if note else await _difference(found, index)
    except BackendAnswer as error:
        problem, note = "", _archived(error)
    if problem:
        return report(Verdict.MISMATCH, problem)
    notes = (note,) if note else ()
    if not bound:
        detail = "bound to nothing, so no gateway uses it: repair-sidecar binds it"
        return report(Verdict.OK_LEGACY, detail, notes=notes)
    agreed = " and ".join([*bound, *([] if note else [f"{len(index)} frames"])])
    return report(Verdict.OK, f"{agreed} agree with the object", notes=notes)


def _judge_stale(index: FrameIndex, size: int) -> tuple[Verdict, str]:
    if index.source_size not in {None, size}:
        return Verdict.STALE_SIZE, f"bound to {index.source_size} bytes, the object has {size}"
    return Verdict.STALE_ETAG, f"bound to ETag {index.etag}"


async def _judge_missing(found: Indexed, max_body_bytes: int) -> tuple[Verdict, str]:
    form = found.stored.form
    if form is not Form.ENCRYPTED and not found.has_frames:
        return Verdict.MISSING_HARMLESS, f"the object is stored as {form.value}, without frames"
    if note := _not_compared(found, max_body_bytes):
        return Verdict.MISSING_UNKNOWN, note
    try:
        count = await _count_to_two(found)
    except BackendAnswer as error:
        return Verdict.MISSING_UNKNOWN, _archived(error)
    if count == 2:
        detail = "an object of several frames: ranges of it are read from its start"
        return Verdict.MISSING_DIVERGENT, detail
    return Verdict.MISSING_HARMLESS, f"{count} frames need no index"


async def _count_to_two(found: Indexed) -> int:
    """No frame, one, or more."""
    count = 0
    async with aclosing(found.entries()) as entries:
        async for _ in entries:
            count += 1
            if count == 2:
                break
    return count


def _archived(error: BackendAnswer) -> str:
    """Why the frames of an archived object are not looked at; raises any other answer."""
    if error.code != "InvalidObjectState":
        raise error
    return "the object is archived: its frames were not looked at"


def _not_compared(found: Indexed, max_body_bytes: int) -> str:
    """Why frames are not looked at; empty when they are."""
    if found.stored.form is Form.ENCRYPTED:
        return "the object is encrypted: its frames were not looked at"
    if found.has_frames and found.size > max_body_bytes:
        return f"the object has {found.size} bytes: its frames were not looked at"
    return ""


async def _difference(found: Indexed, index: FrameIndex) -> str:
    """What the index says wrong about the frames of a readable object; empty when nothing."""
    if not found.has_frames:
        return f"the object is stored as {found.stored.form.value}, without frames"
    if index.sse is not None or index.total_padded > found.size:
        return "it describes another body, encrypted or longer"
    said = iter(index)
    number = 0
    async with aclosing(found.entries()) as entries:
        async for actual in entries:
            entry = next(said, None)
            if entry != actual:
                return f"frame {number} is {_words(actual)}, the sidecar says {_words(entry)}"
            number += 1
    if number < len(index):
        return f"the object has {number} frames, the sidecar {len(index)}"
    return "" if number else "it has no entries"


def _words(entry: FrameEntry | None) -> str:
    if entry is None:
        return "that there is none"
    return (
        f"{entry.original_size} bytes from {entry.original_offset} in "
        f"{entry.compressed_size} from {entry.compressed_offset}"
    )
