"""Staged parts on their way into the store's own upload, and the index of the whole.

    records ──blocks──> spool (memory, else a file) ──> UploadPart, its digest known
                 └── frame headers ──> index

Rule: each staged byte is read once, from the very version of the record that was looked at, and
must be part of a sound sequence of frames as long as its facts say. Segments are made beside each
other as far as the byte budget goes; one is always possible, because it needs no more than a block
and a file. What is held never depends on how many parts there are or how large they are.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from s4gateway.backend import multipart
from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendError,
    BackendProtocolError,
    Body,
    HeaderList,
)
from s4gateway.backend.multipart import Upload
from s4gateway.objects import spool as spooling
from s4gateway.objects.attributes import hop_frames
from s4gateway.objects.budget import Reservation
from s4gateway.objects.encoding import Workshop
from s4gateway.objects.errors import DamagedObject
from s4gateway.objects.fan_out import fan_out
from s4gateway.objects.part_facts import PartFacts
from s4gateway.objects.segments import PADDING, TAIL, TARGET, Segment, Slice
from s4gateway.objects.spool import Spool
from s4gateway.objects.uploads import PartRef, Uploads
from s4gateway.s3.checksums import Digests
from s4gateway.s3.completion import SMALLEST_PART
from s4gateway.wire import frame
from s4gateway.wire.errors import WireError
from s4gateway.wire.index import MAX_SIDECAR_BYTES, FrameEntry, FrameIndex
from s4gateway.wire.scanner import FrameScanner, FrameStart

_BLOCK: Final = SMALLEST_PART  # bytes read at a time; a staged part is seldom longer
_IN_FILE: Final = _BLOCK + spooling.MEMORY_LIMIT  # memory of a segment that is spooled to a file
_IN_MEMORY: Final = _BLOCK + TARGET + SMALLEST_PART  # of one that is not
_LANES: Final = 6  # segments made beside each other
_READS: Final = 8  # records read beside each other for one segment
_ATTEMPTS: Final = 3  # at reading a record whose transfer breaks off
_INDEX_ENTRY: Final = 32  # bytes of a frame in an index
_INDEX_HEAD: Final = 8 * 1024  # and of what stands before the frames, at most


@dataclass(frozen=True, slots=True)
class Material:
    """What an object is made of: its parts in order with their records, the plan, and the tail."""

    refs: Sequence[PartRef]
    facts: Sequence[PartFacts]
    segments: Sequence[Segment]
    tail: bytes

    @property
    def stored_size(self) -> int:
        """Bytes of the whole object in the store."""
        return sum(
            each.size if each.direct is None else self.facts[each.direct].stored_size
            for each in self.segments
        )

    @property
    def offsets(self) -> dict[int, int]:
        """Where each part begins in the whole, by its position."""
        found: dict[int, int] = {}
        offset = 0
        for segment in self.segments:
            if segment.direct is not None:
                found[segment.direct] = offset
                offset += self.facts[segment.direct].stored_size
            for each in segment.slices:
                if each.source >= 0 and each.start == 0:
                    found[each.source] = offset
                offset += each.size
        return found


Indexes = dict[int, FrameIndex]  # of parts, by position


class Sent(NamedTuple):
    """(number, ETag) of each part the store is to join, and the indexes of the staged parts."""

    parts: list[tuple[int, str]]
    indexes: Indexes


Read = Callable[[PartRef, int, int], Awaitable[bytes]]


class Assembler:
    """Reads the records of uploads in one bucket and sends what the store does not have yet.

    `records` carries the gateway's own identity.
    """

    def __init__(self, workshop: Workshop, records: Backend, uploads: Uploads, bucket: str) -> None:
        self._workshop = workshop
        self._records = records
        self._uploads = uploads
        self._bucket = bucket

    def index_bytes(self, material: Material) -> int:
        """Bytes to be read for the indexes of the direct parts; 0 when they are not worth it."""
        pairs = zip(material.refs, material.facts, strict=True)
        size = sum(ref.size for ref, facts in pairs if not facts.staged)
        return size if size <= MAX_SIDECAR_BYTES else 0

    async def direct_indexes(self, material: Material) -> Indexes | None:
        """Return the indexes of the direct parts; None when they are too large for a sidecar.

        Raises BackendError, 412 or 404 when a record was replaced or removed; DamagedObject.
        """
        chosen = [each for each, facts in enumerate(material.facts) if not facts.staged]
        if chosen and not self.index_bytes(material):
            return None

        async def load(position: int) -> FrameIndex:
            _, index = await self._uploads.load(self._bucket, material.refs[position])
            return index

        return dict(zip(chosen, await fan_out(chosen, load, _READS), strict=True))

    async def staged_indexes(self, material: Material, positions: Iterable[int]) -> Indexes:
        """Return the indexes of these staged parts, from their frame headers alone."""

        async def hop(position: int) -> FrameIndex:
            facts = material.facts[position]
            read = partial(self._read, material.refs[position])
            index = await hop_frames(read, facts.stored_size)
            if index is None or index.total_original != facts.size:
                raise _unsound(facts)
            return index

        chosen = list(positions)
        return dict(zip(chosen, await fan_out(chosen, hop, _READS), strict=True))

    async def send(
        self, backend: Backend, upload: Upload, material: Material, headers: HeaderList
    ) -> Sent:
        """Send all segments that are to be sent.

        Raises BackendError, 412 or 404 when a record was replaced or removed, DamagedObject,
        S3Error("SlowDown").
        """
        todo = [each for each in material.segments if each.direct is None]
        etags = {
            segment.number: material.facts[segment.direct].backend_etag or ""
            for segment in material.segments
            if segment.direct is not None
        }
        indexes: Indexes = {}
        reservation = self._workshop.budget.share(_IN_FILE)
        lanes, memory = _widen(reservation, len(todo))

        async def make(segment: Segment) -> None:
            making = _Making(self._workshop, self._read, material, segment, memory)
            try:
                body = await making.body()
                head = await multipart.put_part(backend, upload, segment.number, body, headers)
            finally:
                making.close()
            etags[segment.number] = head.etag
            indexes.update(making.indexes)

        try:
            await fan_out(todo, make, lanes)
        finally:
            reservation.release()
        staged = (each for each, facts in enumerate(material.facts) if facts.staged)
        cut = [each for each in staged if each not in indexes]
        indexes |= await self.staged_indexes(material, cut)
        return Sent(sorted(etags.items()), indexes)

    async def _read(self, ref: PartRef, start: int, end: int) -> bytes:
        """Read bytes [start, end) of a record, again when the transfer breaks off."""
        span = None if (start, end) == (0, ref.size) else (start, end)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                get = self._records.get(self._bucket, ref.key, byte_range=span, if_match=ref.etag)
                async with await get as stream:
                    data = await stream.read(end - start)
            except BackendAnswer:
                raise
            except BackendError:
                if attempt == _ATTEMPTS:
                    raise
                continue
            if len(data) == end - start:
                return data
        msg = f"record {ref.key} has fewer than {end} bytes"
        raise BackendProtocolError(msg)


def _widen(reservation: Reservation, wanted: int) -> tuple[int, int]:
    """Reserve for more segments at a time; return their number, and bytes of each in memory."""
    each, memory = _IN_FILE, spooling.MEMORY_LIMIT
    if reservation.extend(_IN_MEMORY - _IN_FILE):
        each, memory = _IN_MEMORY, _IN_MEMORY - _BLOCK
    lanes = 1
    while lanes < min(wanted, _LANES) and reservation.extend(each):
        lanes += 1
    return lanes, memory


class _Making:
    """One segment being made; `close` in every path."""

    def __init__(
        self, workshop: Workshop, read: Read, material: Material, segment: Segment, memory: int
    ) -> None:
        self._workshop = workshop
        self._read = read
        self._material = material
        self._segment = segment
        self._spool = Spool(
            workshop.lanes.disk, directory=workshop.spool_directory, memory_limit=memory
        )
        self._digests = Digests(("md5" if workshop.checksum is None else workshop.checksum,))
        self._scan: _PartScan | None = None
        self.indexes: Indexes = {}  # of the parts that lie in this segment as a whole

    async def body(self) -> Body:
        """Gather the bytes; raises BackendError, DamagedObject."""
        loop = asyncio.get_running_loop()
        for block in _blocks(self._segment.slices):
            pieces = await fan_out(block, self._fetch, _READS)
            await loop.run_in_executor(self._workshop.lanes.digest, self._look, block, pieces)
            await self._spool.append(pieces)
        algorithm = self._workshop.checksum
        if algorithm is None:
            return Body(self._spool.length, self._spool.read, md5=self._base64("md5"))
        checksum = algorithm, self._base64(algorithm)
        return Body(self._spool.length, self._spool.read, checksum=checksum)

    def _base64(self, algorithm: str) -> str:
        return base64.b64encode(self._digests[algorithm]).decode()

    async def _fetch(self, wanted: Slice) -> bytes:
        if wanted.source == TAIL:
            return self._material.tail[wanted.start : wanted.end]
        if wanted.source == PADDING:
            header = frame.padding_header(self._segment.padding - frame.PADDING_HEADER_SIZE)
            begin = header[wanted.start : wanted.end]
            return begin + bytes(wanted.size - len(begin))
        return await self._read(self._material.refs[wanted.source], wanted.start, wanted.end)

    def _look(self, block: Sequence[Slice], pieces: Sequence[bytes]) -> None:
        """Hash the bytes and read the frame headers among them; on a thread."""
        for wanted, piece in zip(block, pieces, strict=True):
            self._digests.update(piece)
            if wanted.source < 0:
                continue
            if wanted.start == 0:
                self._scan = _PartScan(self._material.facts[wanted.source])
            if self._scan is not None and self._scan.feed(wanted, piece):
                self.indexes[wanted.source] = self._scan.finish()
                self._scan = None

    def close(self) -> None:
        """Drop the bytes."""
        self._spool.close()


class _PartScan:
    """The frames of one part, found while its bytes go by from the first to the last."""

    def __init__(self, facts: PartFacts) -> None:
        self._facts = facts
        self._scanner = FrameScanner()
        self._entries: list[FrameEntry] = []
        self._original = 0

    def feed(self, wanted: Slice, piece: bytes) -> bool:
        """Take the next bytes; whether they were the last. Raises DamagedObject."""
        try:
            for event in self._scanner.feed(piece):
                if isinstance(event, FrameStart):
                    header = event.header
                    size = header.original_size
                    entry = FrameEntry(self._original, size, event.offset, header.stored_size)
                    self._entries.append(entry)
                    self._original += size
        except WireError as error:
            raise _unsound(self._facts) from error
        return wanted.end == self._facts.stored_size

    def finish(self) -> FrameIndex:
        """The index of the part; raises DamagedObject."""
        facts = self._facts
        try:
            self._scanner.close()
            index = FrameIndex.from_entries(self._entries, total_padded=facts.stored_size)
        except WireError as error:
            raise _unsound(facts) from error
        if index.total_original != facts.size:
            raise _unsound(facts)
        return index


def _blocks(slices: Iterable[Slice]) -> Iterator[list[Slice]]:
    """Slices in groups of at most _BLOCK bytes; only those longer than that are cut."""
    block: list[Slice] = []
    room = _BLOCK
    for each in slices:
        for start in range(each.start, each.end, _BLOCK):
            piece = Slice(each.source, start, min(each.end, start + _BLOCK))
            if piece.size > room:
                yield block
                block, room = [], _BLOCK
            block.append(piece)
            room -= piece.size
    if block:
        yield block


def join_indexes(material: Material, indexes: Indexes) -> FrameIndex | None:
    """Return the index of the whole from those of all its parts; None when it is too large.

    Takes as long as there are frames: call it on a thread. Raises SidecarError.
    """
    count = sum(map(len, indexes.values()))
    if count * _INDEX_ENTRY > MAX_SIDECAR_BYTES - _INDEX_HEAD:
        return None
    offsets = material.offsets

    def entries() -> Iterator[FrameEntry]:
        original = 0
        for position, facts in enumerate(material.facts):
            base = offsets[position]
            for each in indexes[position]:
                yield FrameEntry(
                    original + each.original_offset,
                    each.original_size,
                    base + each.compressed_offset,
                    each.compressed_size,
                )
            original += facts.size

    return FrameIndex.from_entries(entries(), total_padded=material.stored_size)


def _unsound(facts: PartFacts) -> DamagedObject:
    return DamagedObject(f"part {facts.number} as staged is no sequence of frames as it should be")
