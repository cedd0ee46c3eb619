"""Stored bytes on their way out: frames are gathered, decoded and verified one at a time.

Rule: no byte of a frame is handed on before the CRC-32C in its header has been checked over all of
it (wire format, section "Decoding one payload"). Ordinary frames are decoded in memory that the
request has reserved; larger ones go through a spool piece by piece, so that a frame of gigabytes,
which other writers may make, takes no more memory than one of 16 MiB.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from s4gateway.codecs import decoder
from s4gateway.codecs.base import CodecError
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects.budget import Reservation
from s4gateway.objects.encoding import Workshop
from s4gateway.objects.errors import DamagedObject, UnreadableObject
from s4gateway.objects.spool import Spool
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import combine
from s4gateway.wire.errors import WireError
from s4gateway.wire.frame import MAX_FRAME_ORIGINAL, FrameHeader
from s4gateway.wire.scanner import FrameEnd, FrameScanner, FrameStart

INLINE_ORIGINAL: Final = 256 * 1024  # decoding up to this much is cheaper than a thread hop
LARGE_FRAME: Final = 32 * 1024 * 1024
# Bytes of a large payload decoded at a time. Four of zstd's can stand for 128 KiB.
_SLICE: Final = 32 * 1024
_ZSTD_SLICE: Final = 1024
_ZSTD: Final = frozenset({CodecId.CPU_ZSTD, CodecId.CPU_ZSTD_DICT})
_STEP: Final = 1024 * 1024  # decoded bytes after which a payload's decoding pauses
_UNAVAILABLE: Final = frozenset({"codec-unavailable", "unknown-codec", "dictionary-missing"})


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """The verified plaintext of one frame; `offset` is where its header stands in the body."""

    header: FrameHeader
    offset: int
    plain: Spool

    def close(self) -> None:
        """Drop the plaintext."""
        self.plain.close()


def as_object_error(error: WireError | CodecError) -> DamagedObject | UnreadableObject:
    """Tell an object that needs another build from one that is broken."""
    text = str(error)
    return UnreadableObject(text) if error.code in _UNAVAILABLE else DamagedObject(text)


async def in_steps(
    executor: Executor, codec: CodecId, payload: decoder.PayloadDecoder, data: bytes | memoryview
) -> AsyncGenerator[list[bytes], None]:
    """Decode a piece of a large payload, yielding what comes out before there is too much of it."""
    loop = asyncio.get_running_loop()
    view, position = memoryview(data), 0
    size = _ZSTD_SLICE if codec in _ZSTD else _SLICE
    while position < len(view):
        work = loop.run_in_executor(executor, _step, payload, view, position, size)
        position, pieces = await work
        yield pieces


def _step(
    payload: decoder.PayloadDecoder, view: memoryview, position: int, size: int
) -> tuple[int, list[bytes]]:
    pieces: list[bytes] = []
    held = 0
    while position < len(view) and held < _STEP:
        decoded = payload.feed(view[position : position + size])
        position += size
        held += sum(map(len, decoded))
        pieces += decoded
    return position, pieces


class FrameReader:
    """Turns stored bytes into decoded frames, for one request.

    `reservation` is the request's; it grows to the largest frame met, on top of `beside` bytes of
    it that are taken for something else. `dictionary` is the one the object names. Raises
    DamagedObject, UnreadableObject, S3Error("SlowDown"), and what iterating over the source raises.
    """

    def __init__(
        self,
        workshop: Workshop,
        reservation: Reservation,
        *,
        beside: int = 0,
        dictionary: ZstdDict | None = None,
    ) -> None:
        self._workshop = workshop
        self._reservation = reservation
        self._beside = beside
        self._dictionary = dictionary
        self._ahead = 0  # frames decoded beside the one that is wanted next

    async def frames(
        self, source: AsyncIterable[bytes], *, largest: int, offset: int = 0
    ) -> AsyncGenerator[DecodedFrame, None]:
        """Yield each data frame of `source`, whose first byte stands at `offset` of the body.

        A frame that claims more than `largest` bytes, those of the whole object, is damaged, and is
        told before any of it is decoded.
        """
        scanner = FrameScanner(max_frame_original=min(largest, MAX_FRAME_ORIGINAL), offset=offset)
        frame: _OpenFrame | None = None
        decoding: deque[_Decoding] = deque()
        try:
            async for data in source:
                for event in scanner.feed(data):
                    if isinstance(event, FrameStart):
                        frame = await self._start(event)
                    elif isinstance(event, FrameEnd):
                        assert frame is not None
                        decoding.append(frame.finish())
                        frame = None
                        while len(decoding) > self._ahead:
                            yield await _first(decoding)
                    else:
                        assert frame is not None
                        await frame.feed(event)
            scanner.close()
            while decoding:
                yield await _first(decoding)
        except (WireError, CodecError) as error:
            try:
                while decoding:  # what stands before the fault is sound, or the first fault
                    yield await _first(decoding)
            except CodecError as earlier:
                raise as_object_error(earlier) from earlier
            raise as_object_error(error) from error
        finally:
            if frame is not None:
                frame.close()
            for each in decoding:
                each.abandon()

    async def _start(self, start: FrameStart) -> "_OpenFrame":
        header = start.header
        if max(header.original_size, header.compressed_size) > LARGE_FRAME:
            return _LargeFrame(self._workshop, start, self._dictionary)
        need = self._beside + header.original_size + header.compressed_size
        if need > self._reservation.held:
            await self._reservation.grow(need - self._reservation.held)
        return _Frame(self._workshop, start, self._dictionary)

    def may_read_ahead(self) -> bool:
        """Decode two frames beside the one being sent, if there is plenty of memory."""
        if not self._reservation.extend(2 * self._reservation.held):
            return False
        self._ahead = 1
        return True


@dataclass(frozen=True, slots=True)
class _Decoding:
    """A frame whose plaintext is there, or on its way from a codec thread."""

    frame: DecodedFrame
    pieces: "list[bytes] | asyncio.Future[list[bytes]]"

    async def result(self) -> DecodedFrame:
        try:
            pieces = self.pieces
            if isinstance(pieces, asyncio.Future):
                pieces = await pieces
            await self.frame.plain.append(pieces)
        except BaseException:
            self.frame.close()
            raise
        return self.frame

    def abandon(self) -> None:
        """Nobody will ask for the result, nor for the failure."""
        self.frame.close()
        if isinstance(self.pieces, asyncio.Future):
            self.pieces.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _first(decoding: "deque[_Decoding]") -> DecodedFrame:
    """The frame decoded first; when it is damaged, those behind it are dropped."""
    try:
        return await decoding.popleft().result()
    except BaseException:
        while decoding:
            decoding.popleft().abandon()
        raise


class _Frame:
    """A frame whose payload is gathered in memory and decoded at its end."""

    def __init__(self, workshop: Workshop, start: FrameStart, dictionary: ZstdDict | None) -> None:
        self._workshop = workshop
        self._start = start
        self._dictionary = dictionary
        self._payload: list[bytes | memoryview] = []

    async def feed(self, piece: bytes | memoryview) -> None:
        self._payload.append(piece)

    def finish(self) -> "_Decoding":
        payload, self._payload = self._payload, []
        header = self._start.header
        plain = Spool(self._workshop.lanes.disk, memory_limit=LARGE_FRAME)
        frame = DecodedFrame(header, self._start.offset, plain)
        needs = header, payload, self._workshop.codecs, self._dictionary
        if header.original_size <= INLINE_ORIGINAL:
            return _Decoding(frame, decoder.decode_frame(*needs))
        loop = asyncio.get_running_loop()
        codec = self._workshop.lanes.codec
        return _Decoding(frame, loop.run_in_executor(codec, decoder.decode_frame, *needs))

    def close(self) -> None:
        self._payload = []


class _LargeFrame:
    """A frame decoded piece by piece into a spool."""

    def __init__(self, workshop: Workshop, start: FrameStart, dictionary: ZstdDict | None) -> None:
        self._workshop = workshop
        self._start = start
        header = start.header
        codec = workshop.codecs.get(header.codec, dictionary)
        self._decoder = decoder.FrameDecoder(header, codec)
        self._plain = Spool(workshop.lanes.disk, directory=workshop.spool_directory)

    async def feed(self, piece: bytes | memoryview) -> None:
        executor, codec = self._workshop.lanes.codec, self._start.header.codec
        async with aclosing(in_steps(executor, codec, self._decoder, piece)) as steps:
            async for pieces in steps:
                await self._plain.append(pieces)

    def finish(self) -> "_Decoding":
        self._decoder.finish()
        return _Decoding(DecodedFrame(self._start.header, self._start.offset, self._plain), [])

    def close(self) -> None:
        self._plain.close()


_OpenFrame = _Frame | _LargeFrame


class ReadAhead:
    """The frames of a read whose first one is at hand; `aclose` it in every path.

    With `ahead` the next frame is decoded while the one before is being sent.
    """

    def __init__(
        self,
        first: DecodedFrame | None,
        rest: AsyncGenerator[DecodedFrame, None],
        *,
        ahead: bool,
    ) -> None:
        self._first = first
        self._rest = rest
        self._ahead = ahead
        self._next: asyncio.Task[DecodedFrame | None] | None = None

    async def _advance(self) -> DecodedFrame | None:
        return await anext(self._rest, None)

    def __aiter__(self) -> AsyncIterator[DecodedFrame]:
        return self

    async def __anext__(self) -> DecodedFrame:
        frame, self._first = self._first, None
        if frame is None:
            frame = await self._awaited() if self._next is not None else await self._advance()
        if frame is None:
            raise StopAsyncIteration
        if self._ahead:
            self._next = asyncio.get_running_loop().create_task(self._advance())
        return frame

    async def _awaited(self) -> DecodedFrame | None:
        # The task stays ours while it is waited for: when this wait is cancelled, `aclose` finds
        # the frame that it may have decoded already.
        assert self._next is not None
        await asyncio.wait([self._next])
        task, self._next = self._next, None
        return task.result()

    async def aclose(self) -> None:
        """Stop decoding and drop what was decoded, even if it was never asked for."""
        first, self._first = self._first, None
        if first is not None:
            first.close()
        task, self._next = self._next, None
        if task is not None:
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(outcome, DecodedFrame):
                outcome.close()
        await self._rest.aclose()


async def first_verified(
    frames: AsyncGenerator[DecodedFrame, None], reader: FrameReader, wanted: int
) -> ReadAhead:
    """Return the frames with the first one already decoded, so that a fault shows now."""
    first = await anext(frames, None)
    ahead = first is not None and first.plain.length < wanted and reader.may_read_ahead()
    return ReadAhead(first, frames, ahead=ahead)


async def plaintext(frames: ReadAhead, skip: int, take: int) -> AsyncGenerator[bytes, None]:
    """Yield `take` bytes of the frames' plaintext after the first `skip`.

    Raises DamagedObject when the frames hold less.
    """
    position, end = 0, skip + take
    async with aclosing(frames):
        async for frame in frames:
            try:
                low = max(skip - position, 0)
                high = min(end - position, frame.plain.length)
                if low < high:
                    async for piece in frame.plain.read(low, high):
                        yield piece
                position += frame.plain.length
            finally:
                frame.close()
            if position >= end:
                return
    msg = f"frames hold {position} of {end} bytes"
    raise DamagedObject(msg)


async def whole_plaintext(
    frames: ReadAhead, size: int, crc: int | None
) -> AsyncGenerator[bytes, None]:
    """Yield a whole object of `size` bytes whose CRC-32C is `crc`, when that is known.

    The frame that completes the object is handed on only when length and checksum of everything
    agree, so frames that are missing, repeated or out of order never make a complete answer.
    Raises DamagedObject.
    """
    length = running = 0
    async with aclosing(frames):
        async for frame in frames:
            try:
                length += frame.plain.length
                running = combine(running, frame.header.crc32c, frame.plain.length)
                if length > size or (length == size and crc not in {None, running}):
                    break
                async for piece in frame.plain.read():
                    yield piece
            finally:
                frame.close()
        else:
            if length == size and crc in {None, running}:
                return
    msg = f"frames hold {length} bytes with CRC-32C {running}, not {size} with {crc}"
    raise DamagedObject(msg)
