"""Frames out of a body that arrives in pieces of any size.

The scanner knows where frames begin and end and touches nothing else: a payload piece is the piece
it was fed, or a view of it, and only a header split between two pieces is ever joined. What it
reports does not depend on where the pieces were cut, and agrees with `frame.walk` on the whole.
"""

from dataclasses import dataclass
from typing import Final

from s4gateway.wire import errors, frame

_U64_MAX: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class FrameStart:
    """A data frame begins; `offset` is that of its header in the body."""

    header: frame.FrameHeader
    offset: int


@dataclass(frozen=True, slots=True)
class FrameEnd:
    """The data frame at `offset` is complete; `stored_size` counts header and payload."""

    offset: int
    stored_size: int


Event = FrameStart | FrameEnd | bytes | memoryview


class FrameScanner:
    """Reports the data frames of one body: start, pieces of payload, end; padding is skipped.

    `max_frame_original` and `max_frame_stored` bound, in bytes, what a frame may claim to decode to
    and the payload it may carry; `offset` is where in the body the first byte to be fed stands.

    A fault found behind complete events is raised by the next call, so that no frame before it is
    lost: a body is sound only when `close` has returned.

    >>> body = frame.FrameHeader(frame.CodecId.PASSTHROUGH, 2, 2, 0).pack() + b"hi"
    >>> scanner = FrameScanner()
    >>> scanner.feed(body[:5]), [type(event).__name__ for event in scanner.feed(body[5:])]
    ([], ['FrameStart', 'memoryview', 'FrameEnd'])
    >>> scanner.close()
    """

    __slots__ = (
        "_fault",
        "_frame",
        "_held",
        "_max_original",
        "_max_stored",
        "_remaining",
        "offset",
        "total_original",
    )

    offset: int
    total_original: int

    def __init__(
        self,
        *,
        max_frame_original: int = frame.MAX_FRAME_ORIGINAL,
        max_frame_stored: int = _U64_MAX,
        offset: int = 0,
    ) -> None:
        self._max_original = max_frame_original
        self._max_stored = max_frame_stored
        self._fault: errors.FrameError | None = None
        self._frame: FrameStart | None = None  # the data frame whose payload is being read
        self._held = b""  # the beginning of a header
        self._remaining = 0  # bytes to come of the payload, or of the filler when not in a frame
        self.offset = offset  # where the header stands that is read now or next
        self.total_original = 0  # decoded bytes of all frames begun

    def feed(self, data: bytes | memoryview) -> list[Event]:
        """Take the next bytes of the body, return what they complete.

        FrameError: bad-magic, manifest-size-exceeds-limit, frame-size-exceeds-limit; CodecIdError.
        """
        size = len(data)
        if size < self._remaining:  # most pieces lie inside a payload
            self._remaining -= size
            return [data] if size and self._frame is not None else []
        if self._fault is not None:
            raise self._fault
        events: list[Event] = []
        try:
            self._scan(memoryview(data), events)
        except errors.FrameError as fault:
            self._fault = fault
            if not events:
                raise
        return events

    def close(self) -> None:
        """Say that the body ends here.

        FrameError: too-short or payload-truncated when it ends inside a frame; the fault itself
        when one was found.
        """
        if self._fault is not None:
            raise self._fault
        if self._held:
            raise errors.FrameError(
                "too-short", f"the body ends {len(self._held)} bytes into a header"
            )
        if self._remaining:
            raise errors.FrameError("payload-truncated", f"{self._remaining} bytes are missing")

    def _scan(self, view: memoryview, events: list[Event]) -> None:
        position, size = 0, len(view)
        while position < size:
            if not self._remaining:
                position = self._take_header(view, position, events)
                continue
            end = min(size, position + self._remaining)
            self._remaining -= end - position
            if self._frame is not None:
                events.append(view[position:end])
                if not self._remaining:
                    self._end_frame(self._frame, events)
            position = end

    def _take_header(self, view: memoryview, position: int, events: list[Event]) -> int:
        held = self._held
        head = held + bytes(view[position : position + frame.HEADER_SIZE - len(held)])
        is_padding = head.startswith(frame.PADDING_MAGIC)
        needed = frame.PADDING_HEADER_SIZE if is_padding else frame.HEADER_SIZE
        if len(head) < needed:
            self._held = head
            return len(view)
        self._held = b""
        if is_padding:
            self._remaining = frame.parse_padding(head)
            self.offset += frame.PADDING_HEADER_SIZE + self._remaining
        else:
            self._start_frame(frame.FrameHeader.parse(head), events)
        return position + needed - len(held)

    def _start_frame(self, header: frame.FrameHeader, events: list[Event]) -> None:
        if header.original_size > self._max_original:
            raise errors.FrameError(
                "manifest-size-exceeds-limit", f"{header.original_size} > {self._max_original}"
            )
        if header.compressed_size > self._max_stored:
            raise errors.FrameError(
                "frame-size-exceeds-limit", f"{header.compressed_size} > {self._max_stored}"
            )
        start = FrameStart(header, self.offset)
        events.append(start)
        self.offset += header.stored_size
        self.total_original += header.original_size
        self._remaining = header.compressed_size
        if self._remaining:
            self._frame = start
        else:
            self._end_frame(start, events)

    def _end_frame(self, start: FrameStart, events: list[Event]) -> None:
        self._frame = None
        events.append(FrameEnd(start.offset, start.header.stored_size))
