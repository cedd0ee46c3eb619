"""A stored object as a file or a pipe, for tools that need no store.

Rule: a pipe is read once and forward, a file as the reader likes; neither is ever held whole. What
a pipe has given is kept for its last kilobytes, where a tail may stand. Reading blocks: nothing
else is going on in the process meanwhile but decoding, which has threads of its own.
"""

import json
import os
import stat
from collections.abc import AsyncGenerator, Mapping
from typing import Any, BinaryIO, Final

from s4gateway.values import immutable
from s4gateway.wire import tail as wire_tail
from s4gateway.wire.errors import FrameError, TailError
from s4gateway.wire.frame import PADDING_HEADER_SIZE
from s4gateway.wire.tail import Tail

PIECE: Final = 1024 * 1024
LARGEST_HEAD: Final = 1024 * 1024  # bytes of a file with the answer to HeadObject
_TOKEN: Final = 8
_ANSWERED: Final = frozenset({"ContentLength", "ETag", "LastModified"})


class OfflineError(Exception):
    """The input cannot be used; the message says why."""


class StoredInput:
    """The stored bytes behind `file`; `size` is None for a pipe until it has ended."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._seekable = _is_regular(file)
        self.size: int | None = os.fstat(file.fileno()).st_size if self._seekable else None
        self._position = 0  # of the pipe
        self._held = b""  # what was read of the pipe and may be asked for again
        self._last = b""  # the end of what the pipe has given

    def peek(self, count: int) -> bytes:
        """The first bytes, `count` at most, without taking them; before anything else is read."""
        if self._seekable:
            return self._at(0, count)
        if len(self._held) < count:
            self._held += self._pull(count - len(self._held))
        return self._held[:count]

    async def read(self, start: int, end: int) -> bytes:
        """Bytes [start, end), fewer at the end; of a pipe at ascending places only.

        FrameError (payload-truncated) when `start` lies behind the end.
        """
        if self._seekable:
            assert self.size is not None
            if start > self.size:
                raise _truncated(self.size, start)
            return self._at(start, end - start)
        self._skip(start)
        if len(self._held) < end - start:
            self._held += self._pull(end - start - len(self._held))
        return self._held[: end - start]

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """All bytes from the first, once."""
        position = 0
        while True:
            if self._seekable:
                piece = self._at(position, PIECE)
            else:
                piece = self._held or self._pull(PIECE)
                self._held = b""
            if not piece:
                self.size = position
                return
            position += len(piece)
            yield piece

    def tail(self) -> Tail | None:
        """The tail at the end of a file, or of a pipe that has been read; None when none is sound.

        Without the object's metadata nothing tells which token it should carry.
        """
        if self._seekable:
            assert self.size is not None
            suffix = self._at(max(self.size - wire_tail.PROBE, 0), wire_tail.PROBE)
        else:
            suffix = self._last
        try:
            needed = wire_tail.needed(suffix)
            if needed > len(suffix) and self._seekable and self.size is not None:
                suffix = self._at(max(self.size - needed, 0), needed)
            start = len(suffix) - needed + PADDING_HEADER_SIZE
            return Tail.decode(suffix, suffix[start : start + _TOKEN].hex()) if start > 0 else None
        except TailError:
            return None

    def _at(self, start: int, count: int) -> bytes:
        pieces: list[bytes] = []
        while count and (piece := os.pread(self._file.fileno(), count, start)):
            pieces.append(piece)
            start += len(piece)
            count -= len(piece)
        return b"".join(pieces)

    def _pull(self, count: int) -> bytes:
        """The next bytes of the pipe, fewer at its end."""
        data = self._file.read(count)
        self._last = (self._last + data)[-wire_tail.PROBE :]
        return data

    def _skip(self, start: int) -> None:
        """Go forward to `start`."""
        kept = self._held[start - self._position :]
        missing = start - self._position - len(self._held)
        while missing > 0:
            data = self._pull(min(missing, PIECE))
            if not data:
                raise _truncated(start - missing, start)
            missing -= len(data)
        self._position, self._held = start, kept


def _is_regular(file: BinaryIO) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _truncated(size: int, start: int) -> FrameError:
    return FrameError("payload-truncated", f"a frame goes on to {start}, the body ends at {size}")


@immutable
class StoredHead:
    """What HeadObject said about the input: user metadata, ETag without quotes, size in bytes."""

    metadata: Mapping[str, str]
    etag: str | None = None
    size: int | None = None


def parse_head(text: str | bytes) -> StoredHead:
    """Read the answer to `aws s3api head-object`, or its `Metadata` alone; raises OfflineError.

    >>> parse_head('{"ContentLength": 7, "Metadata": {"s4-framed": "true"}}').size
    7
    """
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        raise OfflineError(f"the metadata is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise OfflineError("the metadata is no JSON object")
    metadata = document.get("Metadata", {} if _ANSWERED & document.keys() else document)
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise OfflineError("the metadata is no map of names to texts")
    etag, size = document.get("ETag"), document.get("ContentLength")
    return StoredHead(
        {name.lower(): value for name, value in metadata.items()},
        etag.removeprefix("W/").strip('"') if isinstance(etag, str) else None,
        size if isinstance(size, int) and not isinstance(size, bool) else None,
    )
