"""gzip (RFC 1952), for objects that any tool at hand must be able to read.

One member is written, with the header every writer of this format uses: no name, no time, unknown
operating system. Of what is read only the first member counts; bytes behind it are ignored. zlib
checks the member's own CRC-32 and length.
"""

import zlib
from typing import Final

from s4gateway.codecs import base
from s4gateway.wire.codec_id import CodecId

LEVEL: Final = 6
MAX_LEVEL: Final = 9

_HEADER: Final = bytes.fromhex("1f8b08000000000000ff")
_GZIP_WRAPPER: Final = 16 + zlib.MAX_WBITS


class Gzip:
    """gzip streams at one level, clamped to 1..9.

    zlib state cannot be reused, so there is nothing to pool.

    >>> compressor = Gzip().compressor()
    >>> stored = compressor.compress(b"hello") + compressor.flush()
    >>> stored[:10].hex(), Gzip().decompressor(limit=5).feed(stored)
    ('1f8b08000000000000ff', [b'hello'])
    """

    __slots__ = ("level",)

    id: Final = CodecId.CPU_GZIP

    def __init__(self, level: int = LEVEL) -> None:
        self.level = min(max(level, 1), MAX_LEVEL)

    def compressor(self) -> base.Compressor:
        """Open a stream that becomes one gzip member."""
        return _GzipCompressor(self.level)

    def decompressor(self, limit: int) -> base.Decompressor:
        """Open a gzip stream of which at most `limit` bytes may come out."""
        return _GzipDecompressor(limit)


class _GzipCompressor:
    """Writes our ten header bytes in the place of zlib's, which name the operating system."""

    __slots__ = ("_header_due", "_zlib")

    def __init__(self, level: int) -> None:
        self._zlib = zlib.compressobj(level, zlib.DEFLATED, _GZIP_WRAPPER)
        self._header_due = True

    def compress(self, data: base.Buffer, /) -> bytes:
        return self._stamped(self._zlib.compress(data))

    def flush(self) -> bytes:
        return self._stamped(self._zlib.flush())

    def _stamped(self, out: bytes) -> bytes:
        # zlib hands its header over whole, at the start of its first output.
        if self._header_due and out:
            self._header_due = False
            return _HEADER + out[len(_HEADER) :]
        return out


class _GzipDecompressor:
    __slots__ = ("_limit", "_produced", "_zlib")

    def __init__(self, limit: int) -> None:
        self._zlib = zlib.decompressobj(_GZIP_WRAPPER)
        self._limit = limit
        self._produced = 0

    def feed(self, data: base.Buffer, /) -> list[bytes]:
        pieces: list[bytes] = []
        rest: base.Buffer = data
        while not self._zlib.eof:
            # One byte more than allowed is enough to know that there is more.
            most = min(base.MAX_PIECE, self._limit - self._produced + 1)
            try:
                piece = self._zlib.decompress(rest, most)
            except zlib.error as error:
                raise base.CodecError("codec-io", str(error)) from error
            if piece:
                pieces.append(piece)
                self._count(len(piece))
            if len(piece) < most:
                break
            rest = self._zlib.unconsumed_tail
        return pieces

    def finish(self) -> None:
        if not self._zlib.eof:
            raise base.CodecError("codec-io", "the gzip member is cut off")

    def _count(self, produced: int) -> None:
        self._produced += produced
        if self._produced > self._limit:
            raise base.CodecError("bomb", f"more than {self._limit} bytes")
