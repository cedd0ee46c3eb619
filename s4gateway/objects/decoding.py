"""Stored bytes on their way out: frames are gathered, decoded and verified, some of them ahead.

Rule: no byte of a frame is handed on before the CRC-32C in its header has been checked over all of
it (wire format, section "Decoding one payload"). Ordinary frames are decoded in memory that the
request has reserved; larger ones go through a spool piece by piece, so that a frame of gigabytes,
which other writers may make, takes no more memory than one of 16 MiB.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

from s4gateway.codecs import decoder
from s4gateway.codecs.base import CodecError
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects.budget import Reservation
from s4gateway.objects.encoding import Workshop
from s4gateway.objects.errors import DamagedObject, UnreadableObject
from s4gateway.objects.spool import Spool
from s4gateway.wire.codec_id import CodecId
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
_FRAMES_AT_ONCE: Final = 4  # of a read that are decoded or being so, the one being sent included
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

    async def frames(
        self, source: AsyncIterable[bytes], *, largest: int, wanted: int = 0, offset: int = 0
    ) -> AsyncGenerator[DecodedFrame, None]:
        """Yield each data frame of `source`, whose first byte stands at `offset` of the body.

        A frame that claims more than `largest` bytes, those of the whole object, is damaged, and is
        told before any of it is decoded. Who asks for the next frame has closed the one before.
        When `wanted` bytes are many, and more than the first frame has, others are decoded ahead,
        as far as there is plenty of memory.
        """
        room = _Room(self._reservation, self._beside)
        scanner = FrameScanner(max_frame_original=min(largest, MAX_FRAME_ORIGINAL), offset=offset)
        try:
            async with aclosing(self._gathered(source, scanner, room)) as gathered:
                first = await anext(gathered, None)
                if first is None:
                    return
                is_ahead = wanted > max(INLINE_ORIGINAL, first.header.original_size)
                decoded = (_ahead if is_ahead else _in_turn)(first, gathered, room)
                async with aclosing(decoded):
                    async for frame in decoded:
                        yield frame
        except (WireError, CodecError) as error:
            raise as_object_error(error) from error

    async def _gathered(
        self, source: AsyncIterable[bytes], scanner: FrameScanner, room: "_Room"
    ) -> AsyncGenerator["_OpenFrame", None]:
        """Yield each frame as soon as its payload is there; who takes it closes it."""
        frame: _OpenFrame | None = None
        try:
            async for data in source:
                for event in scanner.feed(data):
                    if isinstance(event, FrameStart):
                        frame = await self._start(event, room)
                    elif isinstance(event, FrameEnd):
                        assert frame is not None
                        complete, frame = frame, None
                        yield complete
                    else:
                        assert frame is not None
                        await frame.feed(event)
            scanner.close()
        finally:
            if frame is not None:
                frame.close()

    async def _start(self, start: FrameStart, room: "_Room") -> "_OpenFrame":
        header = start.header
        if max(header.original_size, header.compressed_size) > LARGE_FRAME:
            await room.enter_alone()
            return _LargeFrame(self._workshop, start, self._dictionary)
        has_room = await room.enter(header.compressed_size, header.original_size)
        return _Frame(self._workshop, start, self._dictionary, has_room=has_room)


class _Room:
    """The memory that the frames of one read take of its reservation, `taken` bytes so far.

    Rule: a frame alone waits for its turn at the budget, for payload and plaintext together and
    before it holds anything. A frame beside others waits until they are gone, unless there is
    plenty of memory: reads that hold memory while they wait for more would starve each other.
    """

    __slots__ = ("_beside", "_freed", "_open", "_reservation", "_taken")

    def __init__(self, reservation: Reservation, beside: int) -> None:
        self._reservation = reservation
        self._beside = self._taken = beside
        self._open = 0  # frames
        self._freed = asyncio.Event()

    async def enter(self, payload: int, plain: int) -> bool:
        """Take room for a frame's payload; tell if that for its plaintext is taken as well.

        Raises S3Error("SlowDown").
        """
        while self._open and not self._fits(payload):
            await self._until_freed()
        is_alone = not self._open
        if is_alone:
            await self._grow(payload + plain)
        self._open += 1
        self._taken += payload + (plain if is_alone else 0)
        return is_alone

    async def enter_alone(self) -> None:
        """Wait until no other frame is there: this one goes through a file."""
        while self._open:
            await self._until_freed()
        self._open += 1

    async def take(self, count: int) -> None:
        """Take `count` bytes for the plaintext of a frame that has entered beside others."""
        while self._open > 1 and not self._fits(count):
            await self._until_freed()
        if self._open == 1:
            await self._grow(count)
        self._taken += count

    def give(self, count: int) -> None:
        """`count` bytes are free again."""
        self._taken -= count
        self._freed.set()

    def leave(self, count: int) -> None:
        """A frame is gone, and the last `count` bytes it took."""
        self._open -= 1
        self.give(count)

    def is_plenty(self) -> bool:
        """Whether most of the budget is free: only then may memory be spent on speed."""
        return self._reservation.extend(0)

    def _fits(self, count: int) -> bool:
        missing = self._taken + count - self._reservation.held
        return missing <= 0 or self._reservation.extend(missing)

    async def _grow(self, count: int) -> None:
        missing = self._taken + count - self._reservation.held
        if missing > 0:
            await self._reservation.grow(missing)

    async def _until_freed(self) -> None:
        self._freed.clear()
        await self._freed.wait()


class _Frame:
    """A frame whose payload is gathered in memory and decoded at its end.

    `has_room` says that room for its plaintext is taken.
    """

    def __init__(
        self,
        workshop: Workshop,
        start: FrameStart,
        dictionary: ZstdDict | None,
        *,
        has_room: bool,
    ) -> None:
        self._workshop = workshop
        self._dictionary = dictionary
        self._payload: bytes | bytearray | memoryview = b""
        self._filled = 0
        self._offset = start.offset
        self.header = start.header
        self.payload_held = start.header.compressed_size
        self.plain_held = start.header.original_size
        self.has_room = has_room

    async def feed(self, piece: bytes | memoryview) -> None:
        size = self.header.compressed_size
        if len(piece) == size:
            self._payload = piece
            return
        if not self._filled:
            self._payload = bytearray(size)
        end = self._filled + len(piece)
        memoryview(self._payload)[self._filled : end] = piece
        self._filled = end

    def finish(self, *, at_one_go: bool) -> "_Decoding":
        """Decode; at one go takes less time, and small pieces leave less memory unused."""
        payload, self._payload = self._payload, b""
        plain = Spool(self._workshop.lanes.disk, memory_limit=LARGE_FRAME)
        frame = DecodedFrame(self.header, self._offset, plain)
        decode = partial(
            decoder.decode_frame,
            self.header,
            [payload],
            self._workshop.codecs,
            self._dictionary,
            at_once=LARGE_FRAME if at_one_go else INLINE_ORIGINAL,
        )
        if self.header.original_size <= INLINE_ORIGINAL:
            return _Decoding(frame, decode())
        loop = asyncio.get_running_loop()
        return _Decoding(frame, loop.run_in_executor(self._workshop.lanes.codec, decode))

    def close(self) -> None:
        self._payload = b""


class _LargeFrame:
    """A frame decoded piece by piece into a spool, which holds next to nothing in memory."""

    payload_held = plain_held = 0
    has_room = True

    def __init__(self, workshop: Workshop, start: FrameStart, dictionary: ZstdDict | None) -> None:
        self._workshop = workshop
        self._offset = start.offset
        self.header = start.header
        codec = workshop.codecs.get(self.header.codec, dictionary)
        self._decoder = decoder.FrameDecoder(self.header, codec)
        self._plain = Spool(workshop.lanes.disk, directory=workshop.spool_directory)

    async def feed(self, piece: bytes | memoryview) -> None:
        executor, codec = self._workshop.lanes.codec, self.header.codec
        async with aclosing(in_steps(executor, codec, self._decoder, piece)) as steps:
            async for pieces in steps:
                await self._plain.append(pieces)

    def finish(self, *, at_one_go: bool) -> "_Decoding":
        self._decoder.finish()
        return _Decoding(DecodedFrame(self.header, self._offset, self._plain), [])

    def close(self) -> None:
        self._plain.close()


_OpenFrame = _Frame | _LargeFrame


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
        pieces = self.pieces
        if isinstance(pieces, asyncio.Future) and not pieces.cancel() and not pieces.cancelled():
            pieces.exception()  # read here: nobody else will


async def _decoding(frame: _OpenFrame, room: _Room) -> _Decoding:
    """Begin to decode a gathered frame once there is room for its plaintext."""
    try:
        if not frame.has_room:
            await room.take(frame.plain_held)
        return frame.finish(at_one_go=room.is_plenty())
    except BaseException:
        frame.close()
        raise


async def _in_turn(
    first: _OpenFrame, rest: AsyncGenerator[_OpenFrame, None], room: _Room
) -> AsyncGenerator[DecodedFrame, None]:
    """Decode each frame when it is asked for."""
    frame: _OpenFrame | None = first
    while frame is not None:
        decoded = await (await _decoding(frame, room)).result()
        room.give(frame.payload_held)
        yield decoded
        room.leave(frame.plain_held)
        frame = await anext(rest, None)


async def _ahead(
    first: _OpenFrame, rest: AsyncGenerator[_OpenFrame, None], room: _Room
) -> AsyncGenerator[DecodedFrame, None]:
    """Decode frames while those before them are being used; faults come in their place."""
    ready: asyncio.Queue[tuple[_OpenFrame, _Decoding] | BaseException | None] = asyncio.Queue()
    places = asyncio.Semaphore(_FRAMES_AT_ONCE)

    async def fill() -> None:
        frame: _OpenFrame | None = first
        try:
            while frame is not None:
                await places.acquire()
                taken, frame = frame, None
                ready.put_nowait((taken, await _decoding(taken, room)))
                del taken
                frame = await anext(rest, None)
            ready.put_nowait(None)
        except Exception as error:
            ready.put_nowait(error)
        except BaseException as error:
            ready.put_nowait(error)
            raise
        finally:
            if frame is not None:
                frame.close()

    filling = asyncio.get_running_loop().create_task(fill())
    try:
        while (item := await ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            frame, decoding = item
            decoded = await decoding.result()
            # The plaintext is the frame's alone: it goes when the reader closes that.
            item = decoding = None  # type: ignore[assignment]
            room.give(frame.payload_held)
            yield decoded
            room.leave(frame.plain_held)
            places.release()
    finally:
        item = None  # a failure that knew this place would keep all of it in memory
        filling.cancel()
        try:
            await asyncio.wait([filling])
        finally:
            while not ready.empty():
                if isinstance(left := ready.get_nowait(), tuple):
                    left[1].abandon()
