"""Read one stored object, whole or a range of it, decoded and verified: the only way to read one.

    open_whole   one GET; classified by its metadata; small bodies are verified before anything is
                 returned, large ones frame by frame, the first before the caller sees the object
    open_range   sidecar (cached) -> plan -> one GET pinned with If-Match -> verify -> cut

Rule: every backend request after the first is pinned to the ETag the first one saw, so that no
answer is stitched from two versions. An object whose sidecar is missing or not to be trusted is
decoded from its start and cut; the result says so (`fallback`), because it is right but expensive.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from s4gateway.backend.base import Backend, HeaderList, ObjectStream
from s4gateway.codecs import decoder
from s4gateway.codecs.base import CodecError
from s4gateway.codecs.encoder import MEDIUM_CHUNK
from s4gateway.objects.attributes import Attributes, describe, measured
from s4gateway.objects.budget import Reservation
from s4gateway.objects.cache import AttributeCache, ObjectName
from s4gateway.objects.coalescing import Coalescer
from s4gateway.objects.decoding import (
    INLINE_ORIGINAL,
    DecodedFrame,
    FrameReader,
    ReadAhead,
    as_object_error,
    in_steps,
    plaintext,
    whole_plaintext,
)
from s4gateway.objects.encoding import SMALL_BODY, Workshop
from s4gateway.objects.errors import DamagedObject, UnreadableObject
from s4gateway.objects.frame_cache import FrameCache, FrameName
from s4gateway.objects.sidecar import Sidecars
from s4gateway.wire import frame as wire_frame
from s4gateway.wire import plan as planning
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.errors import WireError
from s4gateway.wire.index import FrameEntry, FrameIndex
from s4gateway.wire.manifest import Form, Manifest

_SHARE: Final = 1024 * 1024  # bytes a streamed read reserves before it knows its frames
# Ranges of at most so many bytes and frames are answered in one piece, from the frame cache.
_CACHED_RANGE: Final = 8 * 1024 * 1024
_CACHED_FRAMES: Final = 4
_CACHE_WORTHWHILE: Final = 128 * 1024  # bytes of plaintext below which decoding again is cheap
_ONE_FRAME: Final = MEDIUM_CHUNK  # writers store objects up to this size as one frame

Content = bytes | AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class Source:
    """Which stored object to read and how to ask for it.

    `query` (versionId=...) and `headers` (customer keys) go with every request for its body.
    """

    backend: Backend
    name: ObjectName
    query: str = ""
    headers: HeaderList = ()


@dataclass(frozen=True, slots=True)
class OpenObject:
    """Verified plaintext, or the beginning of it; `aclose` in every path.

    `content` is all of it, or yields it; a fault found late raises from the iteration.
    `backend_bytes` counts what was fetched so far. `fallback` names why a range was read from the
    start of the object.
    """

    attributes: Attributes
    start: int
    end: int
    content: Content
    counter: "Counter"
    fallback: str | None = None
    _resources: tuple["_Resource", ...] = field(default=(), repr=False)

    @property
    def backend_bytes(self) -> int:
        """Stored bytes fetched so far."""
        return self.counter.count

    async def aclose(self) -> None:
        """Stop reading and give back connection and memory."""
        if not isinstance(self.content, bytes):
            await self.content.aclose()
        await _close(*self._resources)


class Counter:
    """Counts the bytes of a stream as they pass."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    async def over(self, stream: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Yield the stream's pieces."""
        async for piece in stream:
            self.count += len(piece)
            yield piece


_Resource = ObjectStream | Reservation | ReadAhead


async def _close(*resources: _Resource) -> None:
    for resource in resources:
        if isinstance(resource, Reservation):
            resource.release()
        elif isinstance(resource, ReadAhead):
            await resource.aclose()
        else:
            await resource.close()


class ObjectReader:
    """Opens stored objects over any Backend; shared by all requests of a process."""

    def __init__(
        self,
        workshop: Workshop,
        sidecars: Sidecars,
        attributes: AttributeCache,
        frames: FrameCache,
    ) -> None:
        self._workshop = workshop
        self._sidecars = sidecars
        self._attributes = attributes
        self._frames = frames
        self._looks: Coalescer[Attributes] = Coalescer()
        self._decoding: dict[tuple[str, str, str, int], asyncio.Future[None]] = {}

    async def attributes(self, source: Source) -> Attributes:
        """HEAD the object; raises BackendError.

        Readers of one object that come together share one HEAD, begun after the last of them came.
        """
        key = (source.backend, source.name, source.query, tuple(source.headers))
        return await self._looks.run(key, partial(self._look, source))

    async def _look(self, source: Source) -> Attributes:
        bucket, key = source.name
        head = await source.backend.head(bucket, key, query=source.query, headers=source.headers)
        return await self._measured(describe(head), source)

    async def _measured(self, attributes: Attributes, source: Source) -> Attributes:
        if attributes.size is None:
            read = partial(self._stored, source, attributes.head.etag)
            attributes = await measured(attributes, source.name, read, self._sidecars)
        known = attributes.known()
        if known is not None and not source.query:
            cache = self._attributes
            if cache.lookup(source.name, known.etag, known.stored_size) is None:
                cache.remember(source.name, known)
        return attributes

    async def open_whole(self, source: Source, *, if_match: str | None = None) -> OpenObject:
        """Open the whole object, of backend ETag `if_match` when given.

        Raises BackendError, ObjectError, S3Error("SlowDown").
        """
        bucket, key = source.name
        stream = await source.backend.get(
            bucket, key, if_match=if_match, query=source.query, headers=source.headers
        )
        try:
            attributes = await self._measured(describe(stream.head), source)
            return await self._open(stream, attributes)
        except BaseException:
            await stream.close()
            raise

    async def _open(self, stream: ObjectStream, attributes: Attributes) -> OpenObject:
        form = attributes.stored.form
        manifest = attributes.stored.manifest
        counter = Counter()
        size = attributes.size
        if form is Form.FOREIGN:
            content: Content = _through(stream, counter)
            return OpenObject(attributes, 0, size or 0, content, counter, None, (stream,))
        if form in {Form.ENCRYPTED, Form.DICTIONARY}:
            msg = f"stored as {form.value}, which this gateway cannot open"
            raise UnreadableObject(msg)
        if size is None:
            msg = "neither metadata nor frames tell the object's size"
            raise DamagedObject(msg)
        _check_length(attributes)
        if attributes.head.size <= SMALL_BODY and size <= INLINE_ORIGINAL:
            stored = await stream.read(SMALL_BODY)
            counter.count = len(stored)
            content = self._decode_small(stored, attributes, size)
            await stream.close()
            return OpenObject(attributes, 0, size, content, counter)
        reservation = self._workshop.budget.share(_SHARE)
        resources: tuple[_Resource, ...] = (stream, reservation)
        try:
            pieces = counter.over(stream)
            if form is Form.PASSTHROUGH:
                assert manifest is not None
                content = _verified(pieces, manifest)
            elif form is Form.UNFRAMED:
                assert manifest is not None
                content = self._payload(pieces, manifest)
            else:
                reader = FrameReader(self._workshop, reservation)
                crc = manifest.crc32c if manifest is not None else None
                frames = await _first_verified(reader.frames(pieces, largest=size), reader, size)
                content = whole_plaintext(frames, size, crc)
                resources = (frames, *resources)
        except BaseException:
            reservation.release()
            raise
        return OpenObject(attributes, 0, size, content, counter, None, resources)

    def _decode_small(self, stored: bytes, attributes: Attributes, size: int) -> bytes:
        codecs = self._workshop.codecs
        manifest = attributes.stored.manifest
        try:
            if attributes.stored.form is Form.FRAMED:
                pieces: list[bytes] = []
                room = size
                for _, header, payload in wire_frame.walk(stored):
                    room -= header.original_size
                    if room < 0:  # told before a few bytes become many
                        msg = f"frames claim more than the {size} bytes of the object"
                        raise DamagedObject(msg)
                    pieces += decoder.decode_frame(header, [payload], codecs)
                plain = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            elif attributes.stored.form is Form.PASSTHROUGH:
                plain = stored
            else:
                assert manifest is not None
                plain = self._decode_payload(stored, manifest)
        except (WireError, CodecError) as error:
            raise as_object_error(error) from error
        if len(plain) != size or (manifest is not None and crc32c(plain) != manifest.crc32c):
            msg = f"decodes to {len(plain)} bytes, the manifest says {size}, or the CRC differs"
            raise DamagedObject(msg)
        return plain

    def _decode_payload(self, stored: bytes, manifest: Manifest) -> bytes:
        payload = self._payload_decoder(manifest)
        pieces = payload.feed(stored)
        payload.finish()
        return b"".join(pieces)

    def _payload_decoder(self, manifest: Manifest) -> decoder.PayloadDecoder:
        return decoder.PayloadDecoder(
            self._workshop.codecs.get(manifest.codec),
            manifest.original_size,
            manifest.compressed_size,
            manifest.crc32c,
        )

    async def _payload(
        self, pieces: AsyncIterator[bytes], manifest: Manifest
    ) -> AsyncGenerator[bytes, None]:
        """Decode an unframed body; its last piece is held back until the checksum is known."""
        executor, codec = self._workshop.lanes.codec, manifest.codec
        held: bytes | None = None
        try:
            payload = self._payload_decoder(manifest)
            async for piece in pieces:
                async with aclosing(in_steps(executor, codec, payload, piece)) as steps:
                    async for decoded in steps:
                        for plain in decoded:
                            if held is not None:
                                yield held
                            held = plain
            payload.finish()
        except CodecError as error:
            raise as_object_error(error) from error
        if held is not None:
            yield held

    async def open_range(
        self, source: Source, attributes: Attributes, start: int, end: int
    ) -> OpenObject:
        """Open original bytes [start, end) of the version that `attributes` describe.

        Raises BackendError (412 when the object has changed since), ObjectError, S3Error.
        """
        form = attributes.stored.form
        head = attributes.head
        if attributes.is_verbatim:
            _check_length(attributes)
            stream = await self._get(source, head.etag, (start, end))
            counter = Counter()
            return OpenObject(
                attributes, start, end, _through(stream, counter), counter, None, (stream,)
            )
        if form is not Form.FRAMED:
            return await self._from_start(source, attributes, start, end, form.value)
        name, size = source.name, head.size
        guess = self._sidecars.known(name, head.etag) or _single_frame(attributes)
        if guess is not None:
            opened = await self._by_index(source, attributes, guess, (start, end))
            if opened is not None:
                return opened
        index = await self._sidecars.load(name, head.etag, size)
        if index is None:
            return await self._from_start(source, attributes, start, end, "no-index")
        opened = await self._by_index(source, attributes, index, (start, end))
        if opened is not None:
            return opened
        return await self._from_start(source, attributes, start, end, "index-mismatch")

    async def _by_index(
        self, source: Source, attributes: Attributes, index: FrameIndex, span: tuple[int, int]
    ) -> OpenObject | None:
        """Answer a range with the frames an index names; None when they are not as it says.

        The index may lie, and the object itself decides in the read from its start.
        """
        if index.total_original != attributes.size:
            return None
        plan = planning.plan(index, *span)
        if plan is None:
            return None
        try:
            if plan.take <= _CACHED_RANGE and _frame_count(plan) <= _CACHED_FRAMES:
                return await self._from_frames(source, attributes, index, plan, span)
            return await self._from_plan(source, attributes, index, plan, span)
        except DamagedObject:
            return None

    async def _stored(self, source: Source, etag: str, start: int, end: int) -> bytes:
        async with await self._get(source, etag, (start, end)) as stream:
            return await stream.read(end - start)

    async def _get(self, source: Source, etag: str, byte_range: tuple[int, int]) -> ObjectStream:
        bucket, key = source.name
        return await source.backend.get(
            bucket,
            key,
            byte_range=byte_range,
            if_match=etag,
            query=source.query,
            headers=source.headers,
        )

    async def _from_start(
        self, source: Source, attributes: Attributes, start: int, end: int, why: str
    ) -> OpenObject:
        whole = await self.open_whole(source, if_match=attributes.head.etag)
        opened = whole.content
        content = opened[start:end] if isinstance(opened, bytes) else _cut(opened, start, end)
        return OpenObject(
            whole.attributes, start, end, content, whole.counter, why, whole._resources
        )

    async def _from_plan(
        self,
        source: Source,
        attributes: Attributes,
        index: FrameIndex,
        plan: planning.RangePlan,
        span: tuple[int, int],
    ) -> OpenObject:
        """Stream the frames a plan names."""
        entries = [index[each] for each in range(plan.first_frame, plan.last_frame + 1)]
        stream = await self._get(source, attributes.head.etag, _extent(entries))
        reservation: Reservation | None = None
        try:
            reservation = self._workshop.budget.share(_SHARE)
            counter = Counter()
            reader = FrameReader(self._workshop, reservation)
            largest = max(entry.original_size for entry in entries)
            decoded = reader.frames(counter.over(stream), largest=largest, offset=plan.fetch_start)
            wanted = plan.skip + plan.take
            frames = await _first_verified(_as_indexed(decoded, entries), reader, wanted)
            content = plaintext(frames, plan.skip, plan.take)
        except BaseException:
            await stream.close()
            if reservation is not None:
                reservation.release()
            raise
        resources = (frames, stream, reservation)
        return OpenObject(attributes, *span, content, counter, None, resources)

    async def _from_frames(
        self,
        source: Source,
        attributes: Attributes,
        index: FrameIndex,
        plan: planning.RangePlan,
        span: tuple[int, int],
    ) -> OpenObject:
        """Answer a range over few frames, each from the frame cache or decoded now."""
        counter = Counter()
        reservation = self._workshop.budget.share(plan.take)
        read = _RangeRead(source, attributes, span, counter, reservation)
        try:
            pieces = await self._gather(read, index, plan)
        except BaseException:
            reservation.release()
            raise
        return OpenObject(attributes, *span, b"".join(pieces), counter, None, (reservation,))

    async def _gather(
        self, read: "_RangeRead", index: FrameIndex, plan: planning.RangePlan
    ) -> list[bytes]:
        pieces: list[bytes] = []
        position = plan.first_frame
        while position <= plan.last_frame:
            data = await self._cached(read, index[position])
            if data is not None:
                pieces.append(data)
                position += 1
                continue
            last = position
            while last < plan.last_frame and read.frame_name(index[last + 1]) not in self._frames:
                last += 1
            run = [index[each] for each in range(position, last + 1)]
            pieces += await self._decode_run(read, run)
            position = last + 1
        return pieces

    async def _cached(self, read: "_RangeRead", entry: FrameEntry) -> bytes | None:
        name = read.frame_name(entry)
        return await self._frames.read(name, entry.original_size, *read.within(entry))

    async def _decode_run(self, read: "_RangeRead", run: list[FrameEntry]) -> list[bytes]:
        """Fetch neighbouring frames with one request; keep those that were used in part.

        A second reader of the same frame waits for the first one and then finds it in the cache.
        """
        names = [read.frame_name(entry) for entry in run]
        waiting = self._decoding.get(names[0])
        if len(run) == 1 and waiting is not None:
            await asyncio.wait([waiting])
            if (data := await self._cached(read, run[0])) is not None:
                return [data]
        mine: list[asyncio.Future[None]] = []
        for name in names:
            if name not in self._decoding:
                future = self._decoding[name] = asyncio.get_running_loop().create_future()
                mine.append(future)
        try:
            return await self._fetch_run(read, run)
        finally:
            for name in names:
                if self._decoding.get(name) in mine:
                    self._decoding.pop(name).set_result(None)

    async def _fetch_run(self, read: "_RangeRead", run: list[FrameEntry]) -> list[bytes]:
        extent = _extent(run)
        pieces: list[bytes] = []
        largest = max(entry.original_size for entry in run)
        entries = iter(run)
        stream = await self._get(read.source, read.attributes.head.etag, extent)
        try:
            start, end = read.span
            reader = FrameReader(self._workshop, read.reservation, beside=end - start)
            decoded = reader.frames(read.counter.over(stream), largest=largest, offset=extent[0])
            async with aclosing(_as_indexed(decoded, run)) as frames:
                async for frame in frames:
                    entry = next(entries)
                    try:
                        low, high = read.within(entry)
                        pieces.extend([piece async for piece in frame.plain.read(low, high)])
                        await self._keep(read.frame_name(entry), frame, high - low)
                    finally:
                        frame.close()
        finally:
            await stream.close()
        return pieces

    async def _keep(self, name: FrameName, frame: DecodedFrame, used: int) -> None:
        size = frame.plain.length
        if used < size and size >= _CACHE_WORTHWHILE and frame.plain.in_memory:
            await self._frames.keep(name, frame.plain.pieces())


def _frame_count(plan: planning.RangePlan) -> int:
    return plan.last_frame - plan.first_frame + 1


@dataclass(frozen=True, slots=True)
class _RangeRead:
    """A range being gathered: what is read, of which version, and what it holds meanwhile."""

    source: Source
    attributes: Attributes
    span: tuple[int, int]
    counter: Counter
    reservation: Reservation

    def frame_name(self, entry: FrameEntry) -> FrameName:
        bucket, key = self.source.name
        return bucket, key, self.attributes.head.etag, entry.compressed_offset

    def within(self, entry: FrameEntry) -> tuple[int, int]:
        """The part of a frame that belongs to the range."""
        start, end = self.span
        first = entry.original_offset
        return max(start - first, 0), min(end - first, entry.original_size)


def _single_frame(attributes: Attributes) -> FrameIndex | None:
    """The index of an object too small for a second frame, which has no sidecar."""
    size, stored_size = attributes.size, attributes.head.size
    if attributes.stored.multipart or size is None or not 0 < size <= _ONE_FRAME:
        return None
    return FrameIndex.from_entries([FrameEntry(0, size, 0, stored_size)])


def _extent(entries: list[FrameEntry]) -> tuple[int, int]:
    """Where neighbouring frames begin and end; DamagedObject when there is no room for them."""
    start = entries[0].compressed_offset
    end = entries[-1].compressed_offset + entries[-1].compressed_size
    if end - start < len(entries) * wire_frame.HEADER_SIZE:
        msg = f"the index names {len(entries)} frames in {end - start} bytes"
        raise DamagedObject(msg)
    return start, end


async def _as_indexed(
    frames: AsyncGenerator[DecodedFrame, None], entries: list[FrameEntry]
) -> AsyncGenerator[DecodedFrame, None]:
    """Yield the frames, which must be those of an index, no more and no fewer."""
    position = 0
    async with aclosing(frames):
        async for frame in frames:
            if position == len(entries) or not _matches(frame, entries[position]):
                frame.close()
                msg = "the index does not describe the frames"
                raise DamagedObject(msg)
            position += 1
            yield frame
    if position < len(entries):
        msg = "the index names frames that are not there"
        raise DamagedObject(msg)


def _matches(frame: DecodedFrame, entry: FrameEntry) -> bool:
    return (
        frame.offset == entry.compressed_offset
        and frame.header.stored_size == entry.compressed_size
        and frame.header.original_size == entry.original_size
    )


def _check_length(attributes: Attributes) -> None:
    """Refuse a body stored as it came that has another length than its manifest says."""
    if attributes.is_verbatim and attributes.size != attributes.head.size:
        msg = f"{attributes.head.size} bytes are stored, the manifest says {attributes.size}"
        raise DamagedObject(msg)


async def _through(stream: ObjectStream, counter: Counter) -> AsyncGenerator[bytes, None]:
    async for piece in stream:
        counter.count += len(piece)
        yield piece


async def _verified(
    pieces: AsyncIterator[bytes], manifest: Manifest
) -> AsyncGenerator[bytes, None]:
    """Yield a body stored as it came; its last piece is held back until the CRC is known."""
    held = b""
    length = crc = 0
    async for piece in pieces:
        length += len(piece)
        crc = crc32c(piece, crc)
        if held:
            yield held
        held = piece
    if length != manifest.original_size or crc != manifest.crc32c:
        msg = f"body of {length} bytes has CRC-32C {crc}, the manifest says {manifest.crc32c}"
        raise DamagedObject(msg)
    if held:
        yield held


async def _first_verified(
    frames: AsyncGenerator[DecodedFrame, None], reader: FrameReader, wanted: int
) -> ReadAhead:
    """Return the frames with the first one already decoded, so that a fault shows now."""
    first = await anext(frames, None)
    ahead = first is not None and first.plain.length < wanted and reader.may_read_ahead()
    return ReadAhead(first, frames, ahead=ahead)


async def _cut(
    content: AsyncGenerator[bytes, None], start: int, end: int
) -> AsyncGenerator[bytes, None]:
    position = 0
    async with aclosing(content):
        async for piece in content:
            low, high = max(start - position, 0), min(end - position, len(piece))
            if low < high:
                yield piece[low:high]
            position += len(piece)
            if position >= end:
                return
