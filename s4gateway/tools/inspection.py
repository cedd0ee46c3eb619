"""What stored bytes are: frames, padding, tail, or a sidecar, told from headers alone.

Rule: nothing is decoded and no payload read, so an object of any size is looked at in moments; what
a report names is bounded, what it counts is everything. A fault is part of the report, with what
stands before it.
"""

from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer
from s4gateway.objects import frame_headers
from s4gateway.objects.attributes import with_tail
from s4gateway.objects.cache import TailCache
from s4gateway.objects.frame_headers import FoundFrame, ReadStored
from s4gateway.tools import sidecars
from s4gateway.tools.offline_input import StoredInput
from s4gateway.tools.sidecar_errors import SidecarToolError
from s4gateway.tools.sidecars import Indexed, ObjectName
from s4gateway.wire import envelope, frame
from s4gateway.wire import index as frame_index
from s4gateway.wire.errors import SidecarError, WireError
from s4gateway.wire.index import FrameEntry, FrameIndex
from s4gateway.wire.manifest import DICT_ID, LEDGER, Form
from s4gateway.wire.tail import Tail

NAMED: Final = 100  # frames a report names unless told otherwise

FRAMES: Final = "frames"
SIDECAR: Final = "sidecar"
OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """One frame; `codec` is "padding" for padding, sizes in bytes, `crc32c` of the decoded bytes.

    `stored_size` counts the header.
    """

    offset: int
    codec: str
    original_offset: int
    original_size: int
    stored_size: int
    crc32c: str | None


@dataclass(frozen=True, slots=True)
class CodecTotal:
    """All frames of one codec; sizes in bytes."""

    frames: int
    original_size: int
    stored_size: int


@dataclass(frozen=True, slots=True)
class ShownTail:
    """What the tail says about an object assembled from parts; sizes in bytes."""

    token: str
    etag: str
    original_size: int
    parts: int
    first_part_size: int
    checksum: tuple[str, str, str] | None


@dataclass(frozen=True, slots=True)
class ShownIndex:
    """A decoded sidecar; `entries` names the first ones."""

    frames: int
    original_size: int
    body_size: int
    etag: str | None
    source_size: int | None
    encrypted: bool
    entries: tuple[FrameEntry, ...]


@dataclass(frozen=True, slots=True)
class BodyReport:
    """Stored bytes: what they are, all that was counted, and the first frames; sizes in bytes.

    `fault` says why nothing behind the last frame could be read, None when the end was reached.
    """

    kind: str
    stored_size: int
    original_size: int = 0
    frames: int = 0
    padding: CodecTotal = field(default_factory=lambda: CodecTotal(0, 0, 0))
    codecs: dict[str, CodecTotal] = field(default_factory=dict)
    tail: ShownTail | None = None
    index: ShownIndex | None = None
    listed: tuple[ShownFrame, ...] = ()
    fault: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectReport:
    """An object in a store: what clients see, what is stored, and how; sizes in bytes.

    `sidecar` is the verdict about its index, `body` is None where there are no frames to look at.
    """

    bucket: str
    key: str
    form: str
    codec: str
    original_size: int | None
    stored_size: int
    ratio: float | None
    etag: str
    backend_etag: str
    dict_id: str | None
    in_ledger: bool
    storage_class: str
    sidecar: str
    sidecar_detail: str
    body: BodyReport | None
    notes: tuple[str, ...] = ()


async def inspect_input(stored: StoredInput, *, named: int = NAMED) -> BodyReport:
    """Look at a file or a pipe; raises nothing that is the input's fault."""
    begin = stored.peek(frame.MAGIC_SIZE)
    if begin == frame_index.MAGIC:
        return await _sidecar(stored, named)
    if begin and begin not in {frame.MAGIC, frame.PADDING_MAGIC}:
        return await _other(stored, begin)
    report = await inspect_body(stored.read, stored.size, named=named)
    tail = stored.tail()
    return _with_tail(report, tail)


async def inspect_body(
    read: ReadStored, stored_size: int | None, *, named: int = NAMED
) -> BodyReport:
    """Walk a body of frames by their headers; raises what `read` raises beside WireError."""
    counting = _Counting(named)
    fault: str | None = None
    try:
        async with aclosing(frame_headers.walk(read, stored_size)) as frames:
            async for each in frames:
                counting.add(each)
    except WireError as error:
        fault = str(error)
    return counting.report(stored_size, fault)


async def inspect_object(backend: Backend, name: ObjectName, *, named: int = NAMED) -> ObjectReport:
    """Look at an object in a store; raises BackendError, SidecarToolError."""
    found = await Indexed.look(backend, name)
    attributes = found.attributes
    body: BodyReport | None = None
    if found.has_frames:
        try:
            attributes = await with_tail(attributes, name, found.read, TailCache())
            body = await inspect_body(found.read, found.size, named=named)
            body = _with_tail(body, attributes.tail)
        except BackendAnswer as error:
            if error.code != "InvalidObjectState":
                raise
    size = attributes.size
    if size is None and body is not None and body.fault is None:
        size = body.original_size
    verdict, detail = await _index_verdict(backend, name)
    metadata = attributes.head.metadata
    return ObjectReport(
        *name,
        form=attributes.stored.form.value,
        codec=attributes.codec,
        original_size=size,
        stored_size=found.size,
        ratio=round(found.size / size, 4) if size else None,
        etag=attributes.etag,
        backend_etag=found.etag,
        dict_id=metadata.get(DICT_ID) if attributes.stored.dict_id is not None else None,
        in_ledger=metadata.get(LEDGER) == "1",
        storage_class=attributes.head.headers.get("x-amz-storage-class", "STANDARD"),
        sidecar=verdict,
        sidecar_detail=detail,
        body=body,
        notes=() if attributes.stored.form is not Form.FOREIGN else ("not written by a gateway",),
    )


async def _index_verdict(backend: Backend, name: ObjectName) -> tuple[str, str]:
    try:
        report = await sidecars.verify_sidecar(backend, name)
    except SidecarToolError as error:
        return type(error).__name__, str(error)
    return report.verdict.value, report.detail


class _Counting:
    """Frames as they are met."""

    def __init__(self, named: int) -> None:
        self._named = named
        self._totals: Counter[tuple[str, str]] = Counter()
        self._listed: list[ShownFrame] = []
        self._original = self._end = self._frames = 0

    def add(self, found: FoundFrame) -> None:
        header = found.header
        label, size = (
            ("padding", 0) if header is None else (header.codec.label, header.original_size)
        )
        if len(self._listed) < self._named:
            crc = None if header is None else f"{header.crc32c:08x}"
            shown = ShownFrame(found.offset, label, self._original, size, found.stored_size, crc)
            self._listed.append(shown)
        self._totals[label, "frames"] += 1
        self._totals[label, "original"] += size
        self._totals[label, "stored"] += found.stored_size
        self._frames += header is not None
        self._original += size
        self._end = found.offset + found.stored_size

    def _total(self, label: str) -> CodecTotal:
        return CodecTotal(*(self._totals[label, each] for each in ("frames", "original", "stored")))

    def report(self, stored_size: int | None, fault: str | None) -> BodyReport:
        labels = sorted({label for label, _ in self._totals} - {"padding"})
        padding = self._total("padding")
        beyond = self._frames + padding.frames - len(self._listed)
        notes = (f"{beyond} more frames are counted and not named",) if beyond else ()
        return BodyReport(
            FRAMES,
            self._end if stored_size is None else stored_size,
            self._original,
            self._frames,
            padding,
            {label: self._total(label) for label in labels},
            listed=tuple(self._listed),
            fault=fault,
            notes=notes,
        )


def _with_tail(report: BodyReport, tail: Tail | None) -> BodyReport:
    if tail is None:
        return report
    fault = report.fault
    if fault is None and tail.original_size != report.original_size:
        fault = f"the tail says {tail.original_size} bytes, the frames {report.original_size}"
    sizes = [size for _, size in tail.parts]
    shown = ShownTail(
        tail.token, tail.etag, tail.original_size, len(sizes), sizes[0], tail.checksum
    )
    return replace(report, tail=shown, fault=fault)


async def _sidecar(stored: StoredInput, named: int) -> BodyReport:
    data = await stored.read(0, frame_index.MAX_SIDECAR_BYTES + 1)
    size = len(data) if stored.size is None else stored.size
    if len(data) > frame_index.MAX_SIDECAR_BYTES:
        return BodyReport(SIDECAR, size, fault="too-large: no gateway reads a sidecar of this size")
    try:
        index = FrameIndex.decode(data)
    except SidecarError as error:
        return BodyReport(SIDECAR, size, fault=str(error))
    entries = tuple(index[position] for position in range(min(named, len(index))))
    beyond = len(index) - len(entries)
    return BodyReport(
        SIDECAR,
        size,
        index=ShownIndex(
            len(index),
            index.total_original,
            index.total_padded,
            index.etag,
            index.source_size,
            index.sse is not None,
            entries,
        ),
        notes=(f"{beyond} more entries are counted and not named",) if beyond else (),
    )


async def _other(stored: StoredInput, begin: bytes) -> BodyReport:
    size = stored.size
    if size is None:
        async with aclosing(stored.pieces()) as pieces:
            async for _ in pieces:
                pass
        size = stored.size or 0
    if name := envelope.recognise(begin):
        return BodyReport(f"envelope {name}", size, notes=("encrypted by a gateway key",))
    return BodyReport(OTHER, size, notes=("no frames: perhaps an object stored as it came",))
