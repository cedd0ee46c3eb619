"""The identity codec: a chunk that would not shrink is stored as it is.

Its stream has no end mark, so a cut cannot be seen here; the sizes and the CRC in the frame header
tell.
"""

from typing import Final

from s4gateway.codecs import base
from s4gateway.wire.codec_id import CodecId


class Passthrough:
    """Bytes as they are.

    >>> Passthrough().decompressor(limit=5).feed(b"as is")
    [b'as is']
    """

    __slots__ = ()

    id: Final = CodecId.PASSTHROUGH

    def compressor(self) -> base.Compressor:
        """Open a stream whose output is its input."""
        return _IdentityCompressor()

    def decompressor(self, limit: int) -> base.Decompressor:
        """Open a stream whose output is its input, at most `limit` bytes of it."""
        return _IdentityDecompressor(limit)


class _IdentityCompressor:
    __slots__ = ()

    def compress(self, data: base.Buffer, /) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""


class _IdentityDecompressor:
    __slots__ = ("_limit", "_produced")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._produced = 0

    def feed(self, data: base.Buffer, /) -> list[bytes]:
        self._produced += len(data)
        if self._produced > self._limit:
            raise base.CodecError("bomb", f"more than {self._limit} bytes")
        return _pieces(data)

    def finish(self) -> None:
        """Accept the stream: any bytes are complete."""


def _pieces(data: base.Buffer) -> list[bytes]:
    if len(data) <= base.MAX_PIECE:
        return [bytes(data)] if data else []
    return [
        bytes(data[start : start + base.MAX_PIECE]) for start in range(0, len(data), base.MAX_PIECE)
    ]
