"""The verified plaintext of a frame or payload: in memory, or in a file without a name.

Rule: no byte is handed on before the CRC-32C over all of it was checked. Frames are 16 MiB at most
as this package writes them; other writers make frames of gigabytes, and those go through a file, so
that reading one takes no more memory than reading the others.
"""

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from typing import Final

from s4gateway.codecs import decoder
from s4gateway.codecs.base import Buffer, CodecError
from s4gateway.codecs.registry import Registry
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.s4fs.errors import damaged
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.frame import FrameHeader

LARGE: Final = 32 * 1024 * 1024  # bytes, stored or original, above which a frame goes into a file
_PIECE: Final = 1024 * 1024
# Bytes of a large payload decoded at a time. Four of zstd's can stand for 128 KiB.
_SLICE: Final = 32 * 1024
_ZSTD_SLICE: Final = 1024
_FILE_WEIGHT: Final = 8 * 1024 * 1024  # what a file counts for among plaintexts in memory

CODECS: Final = Registry()


class Plain:
    """Plaintext that is all there and verified."""

    __slots__ = ("__weakref__", "_data", "_descriptor", "length")

    def __init__(self, data: bytes, descriptor: int = -1, length: int = 0) -> None:
        self._data = data
        self._descriptor = descriptor
        self.length = length if descriptor >= 0 else len(data)
        if descriptor >= 0:
            weakref.finalize(self, os.close, descriptor)

    @property
    def weight(self) -> int:
        """What it counts for in a memory of plaintexts, in bytes."""
        return _FILE_WEIGHT if self._descriptor >= 0 else self.length

    @property
    def data(self) -> bytes | None:
        """All of it, unless it is in a file."""
        return None if self._descriptor >= 0 else self._data

    def read(self, low: int, high: int) -> bytes:
        """Return the bytes [low, high)."""
        if self._descriptor < 0:
            return self._data if (low, high) == (0, self.length) else self._data[low:high]
        pieces = []
        while low < high and (piece := os.pread(self._descriptor, high - low, low)):
            pieces.append(piece)
            low += len(piece)
        return b"".join(pieces)

    def view(self, low: int, high: int) -> Buffer:
        """Return the bytes [low, high), not copied unless they are in a file."""
        if self._descriptor >= 0 or (low, high) == (0, self.length):
            return self.read(low, high)
        return memoryview(self._data)[low:high]

    def pieces(self) -> Iterator[bytes]:
        """Yield all of it, in pieces of a MiB when it is in a file."""
        if self._descriptor < 0:
            yield self._data
            return
        for low in range(0, self.length, _PIECE):
            yield self.read(low, min(low + _PIECE, self.length))


def steps(payload: decoder.PayloadDecoder, codec: CodecId, data: Buffer) -> Iterator[list[bytes]]:
    """Feed a piece of a large payload; yield what comes out before there is too much of it."""
    view = memoryview(data)
    size = _ZSTD_SLICE if codec in {CodecId.CPU_ZSTD, CodecId.CPU_ZSTD_DICT} else _SLICE
    for position in range(0, len(view), size):
        yield payload.feed(view[position : position + size])


class LargePayload:
    """A payload decoded into a file while its stored bytes arrive; `close` in every path."""

    def __init__(self, payload: decoder.PayloadDecoder, codec: CodecId) -> None:
        self._payload = payload
        self._codec = codec
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this
        self._length = 0

    def feed(self, data: Buffer) -> None:
        """Take the next stored bytes; raises CodecError."""
        for pieces in steps(self._payload, self._codec, data):
            for piece in pieces:
                self._file.write(piece)
                self._length += len(piece)

    def finish(self) -> Plain:
        """Verify; return what came out. Raises CodecError."""
        self._payload.finish()
        self._file.flush()
        return Plain(b"", os.dup(self._file.fileno()), self._length)

    def close(self) -> None:
        """Drop the file; a Plain made of it stays."""
        self._file.close()


def is_large(header: FrameHeader) -> bool:
    """Whether a frame is to be decoded into a file."""
    return max(header.original_size, header.compressed_size) > LARGE


def decode(
    header: FrameHeader, payload: Iterable[Buffer], dictionary: ZstdDict | None, path: str
) -> list[bytes]:
    """Return the verified plaintext of a frame that is not large; raises as `damaged`."""
    try:
        return decoder.decode_frame(header, payload, CODECS, dictionary, at_once=LARGE)
    except CodecError as error:
        raise damaged(error, path) from error


def decode_into(
    header: FrameHeader, payload: Buffer, out: memoryview, dictionary: ZstdDict | None, path: str
) -> None:
    """Decode a frame that is not large into its place, verified; raises as `damaged`."""
    try:
        decoder.decode_frame_into(header, payload, out, CODECS, dictionary)
    except CodecError as error:
        raise damaged(error, path) from error


def large_frame(header: FrameHeader, dictionary: ZstdDict | None) -> LargePayload:
    """Open the decoding of a large frame; raises CodecError."""
    codec = CODECS.get(header.codec, dictionary)
    return LargePayload(decoder.FrameDecoder(header, codec), header.codec)
