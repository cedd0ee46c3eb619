"""From header to header: where the frames of a stored object stand, told from 28 bytes of each.

An object without a trusted sidecar is measured by reading frame headers and skipping what is
between them. This says what to read next and makes the index; who reads it, and how, is not its
affair. Claims of a header are believed for the next hop only: a hop beyond the object ends the
walk, and the index says whether the walk came to the object's end.
"""

from typing import Final

from s4gateway.wire import errors, frame
from s4gateway.wire.index import FrameEntry, FrameIndex

MAX_HOPS: Final = 20_000  # headers that are read one by one


class FrameHops:
    """One walk over an object of `stored_size` bytes; feed what `wanted` names until it is None.

    >>> header = frame.FrameHeader(frame.CodecId.PASSTHROUGH, 2, 2, 0).pack()
    >>> body = frame.padding(7) + header + b"hi"
    >>> hops = FrameHops(len(body))
    >>> while (span := hops.wanted) is not None:
    ...     hops.feed(body[slice(*span)])
    >>> hops.index().total_original, hops.is_complete
    (2, True)
    """

    __slots__ = ("_entries", "_hops", "_offset", "_original", "_size", "fault")

    fault: errors.WireError | None

    def __init__(self, stored_size: int, *, max_hops: int = MAX_HOPS) -> None:
        self._size = stored_size
        self._hops = max_hops
        self._offset = 0
        self._original = 0
        self._entries: list[FrameEntry] = []
        self.fault = None  # what ended the walk before the object's end

    @property
    def wanted(self) -> tuple[int, int] | None:
        """Stored bytes [start, end) to be fed next; None when the walk is over."""
        if self.fault is not None or self._hops == 0 or self._offset >= self._size:
            return None
        return self._offset, min(self._offset + frame.HEADER_SIZE, self._size)

    @property
    def is_complete(self) -> bool:
        """Whether frames and padding fill the object exactly."""
        return self.fault is None and self._offset == self._size

    def feed(self, data: bytes) -> None:
        """Take the bytes `wanted` named. What is no frame ends the walk and becomes `fault`."""
        self._hops -= 1
        try:
            if data[: frame.MAGIC_SIZE] == frame.PADDING_MAGIC:
                self._skip(frame.PADDING_HEADER_SIZE + frame.parse_padding(data))
                return
            header = frame.FrameHeader.parse(data)
            entry = FrameEntry(
                self._original, header.original_size, self._offset, header.stored_size
            )
            self._skip(header.stored_size)
        except errors.WireError as fault:
            self.fault = fault
            return
        self._entries.append(entry)
        self._original += header.original_size

    def index(self) -> FrameIndex:
        """Return where the frames met so far stand. SidecarError: entry-overflow."""
        return FrameIndex.from_entries(self._entries, total_padded=self._offset)

    def _skip(self, length: int) -> None:
        if length > self._size - self._offset:
            raise errors.FrameError(
                "payload-truncated", f"{self._size - self._offset} of {length} bytes are there"
            )
        self._offset += length
