"""Stored bytes on their way out: frames are gathered, decoded and verified one at a time.

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
        When `wanted` bytes are more than the first frame has, others are decoded meanwhile, as far
        as there is plenty of memory.
        """
        room = _Room(self._reservation, self._beside)
        scanner = FrameScanner(max_frame_original=min(largest, MAX_FRAME_ORIGINAL), offset=offset)
        try:
            async with aclosing(self._gathered(source, scanner, room)) as gathered:
                first = await anext(gathered, None)
                if first is None:
                    return
                is_ahead = INLINE_ORIGINAL < first.header.original_size < wanted
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
            return _LargeFrame(self._workshop, start, self._dictionary)
        await room.take(header.compressed_size)
        return _Frame(self._workshop, start, self._dictionary)


class _Room:
    """The memory that the frames of one read take of its reservation, `taken` bytes so far.

    Rule: a frame beside others waits until they are gone, unless there is plenty of memory. Alone
    it waits for its turn at the budget, so a read always goes on.
    """

    __slots__ = ("_beside", "_freed", "_reservation", "_taken")

    def __init__(self, reservation: Reservation, beside: int) -> None:
        self._reservation = reservation
        self._beside = self._taken = beside
        self._freed = asyncio.Event()

    async def take(self, count: int, held: int = 0) -> None:
        """Take `count` bytes more for a frame that has `held`; raises S3Error("SlowDown")."""
        while (missing := self._taken + count - self._reservation.held) > 0:
            if self._taken == self._beside + held:
                await self._reservation.grow(missing)
            elif not self._reservation.extend(missing):
                self._freed.clear()
                await self._freed.wait()
        self._taken += count

    def is_plenty(self) -> bool:
        """Whether most of the budget is free: only then may memory be spent on speed."""
        return self._reservation.extend(0)

    def give(self, count: int) -> None:
        """`count` bytes are free again."""
        self._taken -= count
        self._freed.set()


class _Frame:
    """A frame whose payload is gathered in memory and decoded at its end."""

    def __init__(self, workshop: Workshop, start: FrameStart, dictionary: ZstdDict | None) -> None:
        self._workshop = workshop
        self._dictionary = dictionary
        self._payload: list[bytes | memoryview] = []
        self._offset = start.offset
        self.header = start.header
        self.payload_held = start.header.compressed_size
        self.plain_held = start.header.original_size

    async def feed(self, piece: bytes | memoryview) -> None:
        self._payload.append(piece)

    def finish(self, *, at_one_go: bool) -> "_Decoding":
        """Decode; at one go takes less time, and small pieces leave less memory unused."""
        payload, self._payload = self._payload, []
        plain = Spool(self._workshop.lanes.disk, memory_limit=LARGE_FRAME)
        frame = DecodedFrame(self.header, self._offset, plain)
        decode = partial(
            decoder.decode_frame,
            self.header,
            payload,
            self._workshop.codecs,
            self._dictionary,
            at_once=LARGE_FRAME if at_one_go else INLINE_ORIGINAL,
        )
        if self.header.original_size <= INLINE_ORIGINAL:
            return _Decoding(frame, decode())
        loop = asyncio.get_running_loop()
        return _Decoding(frame, loop.run_in_executor(self._workshop.lanes.codec, decode))

    def close(self) -> None:
        self._payload = []


class _LargeFrame:
    """A frame decoded piece by piece into a spool, which holds next to nothing in memory."""

    payload_held = plain_held = 0

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
        if isinstance(self.pieces, asyncio.Future):
            self.pieces.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _decoding(frame: _OpenFrame, room: _Room) -> _Decoding:
    """Begin to decode a gathered frame once there is room for its plaintext."""
    try:
        await room.take(frame.plain_held, frame.payload_held)
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
        yield decoded
        room.give(frame.payload_held + frame.plain_held)
        frame = await anext(rest, None)


async def _ahead(
    first: _OpenFrame, rest: AsyncGenerator[_OpenFrame, None], room: _Room
) -> AsyncGenerator[DecodedFrame, None]:
    """Decode frames while those before them are being used; faults come in their place."""
    ready: asyncio.Queue[tuple[_OpenFrame, _Decoding] | Exception | None] = asyncio.Queue()
    places = asyncio.Semaphore(_FRAMES_AT_ONCE)

    async def fill() -> None:
        frame: _OpenFrame | None = first
        try:
            while frame is not None:
                await places.acquire()
                taken, frame = frame, None
                ready.put_nowait((taken, await _decoding(taken, room)))
                frame = await anext(rest, None)
            ready.put_nowait(None)
        except Exception as error:
            ready.put_nowait(error)
        finally:
            if frame is not None:
                frame.close()

    filling = asyncio.get_running_loop().create_task(fill())
    try:
        while (item := await ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            frame, decoding = item
            decoded = await decoding.result()
            room.give(frame.payload_held)
            yield decoded
            room.give(frame.plain_held)
            places.release()
    finally:
        filling.cancel()
        await asyncio.wait([filling])
        while not ready.empty():
            if isinstance(item := ready.get_nowait(), tuple):
                item[1].abandon()
