"""The plaintext of a read, made of its decoded frames.

Rule: what is missing or out of order is noticed before the last byte is handed on, so a damaged
object never makes a complete answer. Each frame is closed before the next is asked for.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from s4gateway.objects.decoding import DecodedFrame
from s4gateway.objects.errors import DamagedObject
from s4gateway.wire.crc32c import combine


class Frames:
    """The frames of a read whose first one is at hand; `aclose` it in every path."""

    def __init__(
        self, first: DecodedFrame | None, rest: AsyncGenerator[DecodedFrame, None]
    ) -> None:
        self._first = first
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[DecodedFrame]:
        return self

    async def __anext__(self) -> DecodedFrame:
        first, self._first = self._first, None
        return await anext(self._rest) if first is None else first

    async def aclose(self) -> None:
        """Stop decoding and drop what was decoded, even if it was never asked for."""
        first, self._first = self._first, None
        if first is not None:
            first.close()
        await self._rest.aclose()


async def first_verified(frames: AsyncGenerator[DecodedFrame, None]) -> Frames:
    """Return the frames with the first one already decoded, so that a fault shows now."""
    return Frames(await anext(frames, None), frames)


async def plaintext(
    frames: Frames, skip: int, take: int
) -> AsyncGenerator[bytes | memoryview, None]:
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
                    async for piece in frame.plain.views(low, high):
                        yield piece
                position += frame.plain.length
            finally:
                frame.close()
            if position >= end:
                return
    msg = f"frames hold {position} of {end} bytes"
    raise DamagedObject(msg)


async def whole_plaintext(
    frames: Frames, size: int, crc: int | None
) -> AsyncGenerator[bytes | memoryview, None]:
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
                async for piece in frame.plain.views():
                    yield piece
            finally:
                frame.close()
        else:
            if length == size and crc in {None, running}:
                return
    msg = f"frames hold {length} bytes with CRC-32C {running}, not {size} with {crc}"
    raise DamagedObject(msg)
