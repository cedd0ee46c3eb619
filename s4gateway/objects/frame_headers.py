"""Where the frames of a stored body stand, told from their headers alone.

Rule: payloads are not read. A body is walked from header to header in ascending windows: where
frames are large a window is one small request per frame, where they are small it grows, so that
neither many frames nor large ones make many requests or many bytes. Sizes in headers are hostile:
they are compared with what is left of the body before anything is added, and nothing is allocated
from them.
"""

from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final

from s4gateway.values import immutable
from s4gateway.wire import frame
from s4gateway.wire.errors import FrameError, SidecarError
from s4gateway.wire.index import MAX_SIDECAR_BYTES, Columns, FrameIndex

# Frames an index may have and still be read by a gateway; its head takes less than 8 KiB.
MOST_FRAMES: Final = (MAX_SIDECAR_BYTES - 8 * 1024) // 32

_FIRST_WINDOW: Final = 4 * 1024
_LARGEST_WINDOW: Final = 4 * 1024 * 1024
_GROWTH: Final = 4
_NEAR: Final = 64 * 1024  # bytes from header to header that cost less than another request

# Stored bytes [start, end); fewer only where the body ends.
ReadStored = Callable[[int, int], Awaitable[bytes]]


@immutable
class FoundFrame:
    """A frame at `offset` of the body; `header` is None for padding. Sizes in bytes."""

    offset: int
    stored_size: int
    header: frame.FrameHeader | None


async def walk(read: ReadStored, stored_size: int | None) -> AsyncGenerator[FoundFrame, None]:
    """Yield every frame of a body of `stored_size` bytes, None when only its end tells.

    In that case `read` raises FrameError when it is asked for bytes that begin behind the end.
    FrameError, with the place, ends the walk: too-short, bad-magic, unknown-codec,
    payload-truncated, manifest-size-exceeds-limit. Raises what `read` raises.
    """
    headers = _Headers(read, stored_size)
    offset = 0
    while head := await headers.at(offset):
        try:
            found = _parse(head, offset)
            _check(found, headers.end)
        except FrameError as error:
            raise FrameError(error.code, f"{error.detail}, at stored byte {offset}") from error
        yield found
        offset += found.stored_size


def _parse(head: bytes, offset: int) -> FoundFrame:
    if head[: frame.MAGIC_SIZE] == frame.PADDING_MAGIC:
        size = frame.PADDING_HEADER_SIZE + frame.parse_padding(head)
        return FoundFrame(offset, size, None)
    header = frame.FrameHeader.parse(head)
    return FoundFrame(offset, header.stored_size, header)


def _check(found: FoundFrame, end: int | None) -> None:
    header = found.header
    if header is not None and header.original_size > frame.MAX_FRAME_ORIGINAL:
        raise FrameError(
            "manifest-size-exceeds-limit",
            f"{header.original_size} > {frame.MAX_FRAME_ORIGINAL}",
        )
    if end is not None and found.stored_size > end - found.offset:
        raise FrameError(
            "payload-truncated", f"{end - found.offset} of {found.stored_size} bytes are there"
        )


class _Headers:
    """Reads ascending places of a body through windows; `end` is its length once known."""

    def __init__(self, read: ReadStored, end: int | None) -> None:
        self._read = read
        self.end = end
        self._window = _FIRST_WINDOW
        self._start = 0
        self._block = b""

    async def at(self, offset: int) -> bytes:
        """The bytes of a header at `offset`, fewer or none where the body ends."""
        head = self._cut(offset)
        if len(head) == frame.HEADER_SIZE or self._reaches_end():
            return head
        near = self._block and offset - self._start <= max(len(self._block), _NEAR)
        self._window = min(self._window * _GROWTH, _LARGEST_WINDOW) if near else _FIRST_WINDOW
        end = offset + self._window
        if self.end is not None:
            end = min(end, self.end)
        self._start = offset
        self._block = await self._read(offset, end) if offset < end else b""
        if len(self._block) < end - offset:
            self._close(offset + len(self._block))
        return self._cut(offset)

    def _cut(self, offset: int) -> bytes:
        start = offset - self._start
        return self._block[start : start + frame.HEADER_SIZE]

    def _reaches_end(self) -> bool:
        return self.end is not None and self._start + len(self._block) >= self.end

    def _close(self, end: int) -> None:
        if self.end is not None:
            raise FrameError("too-short", f"the body ends at {end} of {self.end} bytes")
        self.end = end


class IndexBuilder:
    """Columns of an index, gathered frame by frame; SidecarError (too-many-frames) beyond a bound.

    >>> builder = IndexBuilder()
    >>> builder.add(FoundFrame(0, 30, frame.FrameHeader(frame.CodecId.PASSTHROUGH, 2, 2, 0)))
    >>> builder.finish(30).total_original
    2
    """

    def __init__(self, most: int = MOST_FRAMES) -> None:
        self._most = most
        self._columns: Columns = (array("Q"), array("Q"), array("Q"), array("Q"))
        self.original = 0

    def __len__(self) -> int:
        return len(self._columns[0])

    def add(self, found: FoundFrame) -> None:
        """Take the next frame of the body; padding has no entry."""
        header = found.header
        if header is None:
            return
        if len(self) >= self._most:
            raise SidecarError("too-many-frames", f"more than {self._most}")
        for column, value in zip(
            self._columns,
            (self.original, header.original_size, found.offset, found.stored_size),
            strict=True,
        ):
            column.append(value)
        self.original += header.original_size

    def finish(self, stored_size: int) -> FrameIndex:
        """Return the index of a body of `stored_size` bytes, bound to nothing."""
        return FrameIndex(self._columns, total_padded=stored_size)


async def build_index(read: ReadStored, stored_size: int | None) -> FrameIndex:
    """Return the index of a body, `walk`ed; raises SidecarError beside what that does."""
    builder, end = IndexBuilder(), 0
    async with aclosing(walk(read, stored_size)) as frames:
        async for each in frames:
            builder.add(each)
            end = each.offset + each.stored_size
    return builder.finish(end)
