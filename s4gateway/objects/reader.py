"""Read one stored object, whole or a range of it, decoded and verified: the only way to read one.

    open_whole   one GET; classified by its metadata; small bodies are verified before anything is
                 returned, large ones frame by frame, the first before the caller sees the object
    open_range   sidecar (cached) -> plan -> one GET pinned with If-Match -> verify -> cut

Rule: every backend request after the first is pinned to the ETag the first one saw, so that no
answer is stitched from two versions. An object whose sidecar is missing or not to be trusted is
decoded from its start and cut; the result says so (`fallback`), because it is right but expensive.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from s4gateway.backend.base import Backend, HeaderList, ObjectStream
from s4gateway.codecs import decoder
from s4gateway.codecs.base import CodecError
from s4gateway.objects.attributes import Attributes, describe, measured
from s4gateway.objects.budget import Reservation
from s4gateway.objects.cache import AttributeCache, ObjectName
from s4gateway.objects.decoding import (
    INLINE_ORIGINAL,
    DecodedFrame,
    FrameReader,
    Frames,
    ReadAhead,
    as_object_error,
    plaintext,
    whole_plaintext,
)
from s4gateway.objects.encoding import SMALL_BODY, Workshop
from s4gateway.objects.errors import DamagedObject, UnreadableObject
from s4gateway.objects.frame_cache import FrameCache
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
_ONE_FRAME: Final = 1024 * 1024  # every writer stores objects up to this size as one frame

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
    _resources: tuple[ObjectStream | Reservation, ...] = field(default=(), repr=False)

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


async def _close(*resources: ObjectStream | Reservation) -> None:
    for resource in resources:
        if isinstance(resource, Reservation):
            resource.release()
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
        self._decoding: dict[tuple[str, str, str, int], asyncio.Future[None]] = {}

    async def attributes(self, source: Source) -> Attributes:
        """HEAD the object; raises BackendError."""
        bucket, key = source.name
        head = await source.backend.head(bucket, key, query=source.query, headers=source.headers)
        return await self._measured(describe(head), source)

    async def _measured(self, attributes: Attributes, source: Source) -> Attributes:
        if attributes.size is None:
            attributes = await measured(attributes, source.name, source.backend, self._sidecars)
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
        if attributes.head.size <= SMALL_BODY and size <= INLINE_ORIGINAL:
            stored = await stream.read(SMALL_BODY)
            counter.count = len(stored)
            content = self._decode_small(stored, attributes, size)
            await stream.close()
            return OpenObject(attributes, 0, size, content, counter)
        reservation = self._workshop.budget.share(_SHARE)
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
                content = await _first_verified(
                    reader.frames(pieces),
                    reader,
                    size,
                    partial(whole_plaintext, size=size, crc=crc),
                )
        except BaseException:
            reservation.release()
            raise
        return OpenObject(attributes, 0, size, content, counter, None, (stream, reservation))

    def _decode_small(self, stored: bytes, attributes: Attributes, size: int) -> bytes:
        codecs = self._workshop.codecs
        manifest = attributes.stored.manifest
        try:
            if attributes.stored.form is Form.FRAMED:
                pieces = [
                    piece
                    for _, header, payload in wire_frame.walk(stored)
                    for piece in decoder.decode_frame(header, [payload], codecs)
                ]
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
        loop = asyncio.get_running_loop()
        executor = self._workshop.lanes.codec
        held: bytes | None = None
        try:
            payload = self._payload_decoder(manifest)
            async for piece in pieces:
                for plain in await loop.run_in_executor(executor, payload.feed, piece):
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
            stream = await self._get(source, head.etag, (start, end))
            counter = Counter()
            return OpenObject(
                attributes, start, end, _through(stream, counter), counter, None, (stream,)
            )
        if form is not Form.FRAMED:
            return await self._from_start(source, attributes, start, end, form.value)
        index = await self._index(source, attributes)
        if index is None or index.total_original != attributes.size:
            return await self._from_start(source, attributes, start, end, "no-index")
        plan = planning.plan(index, start, end)
        if plan is None:
            return await self._from_start(source, attributes, start, end, "no-plan")
        try:
            if plan.take <= _CACHED_RANGE and _frame_count(plan) <= _CACHED_FRAMES:
                return await self._from_frames(source, attributes, index, plan, (start, end))
            return await self._from_plan(source, attributes, plan, (start, end))
        except DamagedObject:
            # The index may lie; the object itself decides in the read from its start.
            return await self._from_start(source, attributes, start, end, "index-mismatch")

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

    async def _index(self, source: Source, attributes: Attributes) -> FrameIndex | None:
        head = attributes.head
        size = attributes.size
        if size is not None and 0 < size <= _ONE_FRAME and not attributes.stored.multipart:
            return FrameIndex.from_entries(
                [FrameEntry(0, size, 0, head.size)], total_padded=head.size
            )
        return await self._sidecars.load(source.name, head.etag, head.size)

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
        plan: planning.RangePlan,
        span: tuple[int, int],
    ) -> OpenObject:
        """Stream the frames a plan names."""
        stream = await self._get(source, attributes.head.etag, (plan.fetch_start, plan.fetch_end))
        reservation: Reservation | None = None
        try:
            reservation = self._workshop.budget.share(_SHARE)
            counter = Counter()
            reader = FrameReader(self._workshop, reservation)
            frames = reader.frames(counter.over(stream), offset=plan.fetch_start)
            content = await _first_verified(
                frames,
                reader,
                plan.skip + plan.take,
                partial(plaintext, skip=plan.skip, take=plan.take),
            )
        except BaseException:
            await stream.close()
            if reservation is not None:
                reservation.release()
            raise
        return OpenObject(attributes, *span, content, counter, None, (stream, reservation))

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
        try:
            pieces = await self._gather(source, attributes, index, plan, span, counter)
        except BaseException:
            reservation.release()
            raise
        return OpenObject(attributes, *span, b"".join(pieces), counter, None, (reservation,))

    async def _gather(
        self,
        source: Source,
        attributes: Attributes,
        index: FrameIndex,
        plan: planning.RangePlan,
        span: tuple[int, int],
        counter: Counter,
    ) -> list[bytes]:
        start, end = span
        pieces: list[bytes] = []
        position = plan.first_frame
        while position <= plan.last_frame:
            entry = index[position]
            low = max(start - entry.original_offset, 0)
            high = min(end - entry.original_offset, entry.original_size)
            data = await self._frames.read(_frame_name(source, attributes, entry), low, high)
            if data is not None:
                pieces.append(data)
                position += 1
                continue
            last = self._missing_run(source, attributes, index, position, plan.last_frame)
            run = [index[each] for each in range(position, last + 1)]
            pieces += await self._decode_run(source, attributes, run, span, counter)
            position = last + 1
        return pieces

    def _missing_run(
        self, source: Source, attributes: Attributes, index: FrameIndex, first: int, last: int
    ) -> int:
        position = first
        while (
            position < last
            and _frame_name(source, attributes, index[position + 1]) not in self._frames
        ):
            position += 1
        return position

    async def _decode_run(
        self,
        source: Source,
        attributes: Attributes,
        run: list[FrameEntry],
        span: tuple[int, int],
        counter: Counter,
    ) -> list[bytes]:
        """Fetch neighbouring frames with one request; keep those that were used in part.

        A second reader of the same frame waits for the first one and then finds it in the cache.
        """
        names = [_frame_name(source, attributes, entry) for entry in run]
        waiting = self._decoding.get(names[0])
        if len(run) == 1 and waiting is not None:
            await asyncio.wait([waiting])
            entry = run[0]
            low = max(span[0] - entry.original_offset, 0)
            high = min(span[1] - entry.original_offset, entry.original_size)
            if (data := await self._frames.read(names[0], low, high)) is not None:
                return [data]
        mine: list[asyncio.Future[None]] = []
        for name in names:
            if name not in self._decoding:
                future = self._decoding[name] = asyncio.get_running_loop().create_future()
                mine.append(future)
        try:
            return await self._fetch_run(source, attributes, run, span, counter)
        finally:
            for name in names:
                if self._decoding.get(name) in mine:
                    self._decoding.pop(name).set_result(None)

    async def _fetch_run(
        self,
        source: Source,
        attributes: Attributes,
        run: list[FrameEntry],
        span: tuple[int, int],
        counter: Counter,
    ) -> list[bytes]:
        start, end = span
        fetch = (run[0].compressed_offset, run[-1].compressed_offset + run[-1].compressed_size)
        pieces: list[bytes] = []
        need = max(entry.original_size + entry.compressed_size for entry in run)
        reservation = self._workshop.budget.share(min(need, _SHARE))
        stream = None
        try:
            stream = await self._get(source, attributes.head.etag, fetch)
            reader = FrameReader(self._workshop, reservation)
            expected = iter(run)
            async with aclosing(reader.frames(counter.over(stream), offset=fetch[0])) as frames:
                async for frame in frames:
                    entry = next(expected, None)
                    if entry is None or not _matches(frame, entry):
                        msg = "the index does not describe the frames"
                        raise DamagedObject(msg)
                    low = max(start - entry.original_offset, 0)
                    high = min(end - entry.original_offset, entry.original_size)
                    pieces.extend([piece async for piece in frame.plain.read(low, high)])
                    await self._keep(_frame_name(source, attributes, entry), frame, high - low)
                    frame.close()
            if next(expected, None) is not None:
                msg = "the index names frames that are not there"
                raise DamagedObject(msg)
        finally:
            reservation.release()
            if stream is not None:
                await stream.close()
        return pieces

    async def _keep(self, name: tuple[str, str, str, int], frame: DecodedFrame, used: int) -> None:
        size = frame.plain.length
        if used < size and size >= _CACHE_WORTHWHILE and frame.plain.in_memory:
            await self._frames.keep(name, frame.plain.pieces())


def _frame_count(plan: planning.RangePlan) -> int:
    return plan.last_frame - plan.first_frame + 1


def _frame_name(
    source: Source, attributes: Attributes, entry: FrameEntry
) -> tuple[str, str, str, int]:
    bucket, key = source.name
    return bucket, key, attributes.head.etag, entry.compressed_offset


def _matches(frame: DecodedFrame, entry: FrameEntry) -> bool:
    return (
        frame.offset == entry.compressed_offset
        and frame.header.stored_size == entry.compressed_size
        and frame.header.original_size == entry.original_size
    )


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
    frames: AsyncGenerator[DecodedFrame, None],
    reader: FrameReader,
    wanted: int,
    consume: Callable[[Frames], AsyncGenerator[bytes, None]],
) -> AsyncGenerator[bytes, None]:
    """Return the plaintext with its first frame already decoded, so that a fault shows now."""
    first = await anext(frames, None)
    rest = _chained(first, frames)
    if first is not None and first.plain.length < wanted and reader.may_read_ahead():
        return consume(ReadAhead(rest))
    return consume(rest)


async def _chained(
    first: DecodedFrame | None, rest: AsyncGenerator[DecodedFrame, None]
) -> AsyncGenerator[DecodedFrame, None]:
    async with aclosing(rest):
        if first is not None:
            yield first
        async for frame in rest:
            yield frame


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
