"""Frames: the unit in which compressed bodies are stored, and the padding between them.

    body  = *( data-frame / padding-frame )
    S4F2  magic, codec u32, original_size u64, compressed_size u64, crc32c u32; then the payload
    S4P1  magic, length u64; then that many bytes that mean nothing

All little-endian. Frames stand back to back from offset 0 with nothing before, after or between
them, so garbage is always an error and never skipped. The CRC-32C is that of the decoded chunk. The
sizes are 64-bit and hostile: they are compared before they are added, and nothing is allocated from
them.
"""

import struct
from collections.abc import Iterator
from typing import Final

from s4gateway.values import immutable
from s4gateway.wire import errors
from s4gateway.wire.codec_id import CodecId

MAGIC: Final = b"S4F2"
PADDING_MAGIC: Final = b"S4P1"
HEADER_SIZE: Final = 28
PADDING_HEADER_SIZE: Final = 12
MAGIC_SIZE: Final = 4

# Decoded bytes one frame may hold.
MAX_FRAME_ORIGINAL: Final = 5 * 1024**3

_U32_MAX: Final = 2**32 - 1
_U64_MAX: Final = 2**64 - 1
_HEADER: Final = struct.Struct("<4sIQQI")
_PADDING: Final = struct.Struct("<4sQ")


@immutable
class FrameHeader:
    """The 28 bytes before a payload.

    `original_size` and `crc32c` describe the decoded chunk, `compressed_size` the payload without
    this header; sizes in bytes. FrameError (out-of-range) when a value does not fit its field.

    >>> header = FrameHeader(CodecId.CPU_ZSTD, 999, 19, 0xDEADBEEF)
    >>> FrameHeader.parse(header.pack()) == header
    True
    """

    codec: CodecId
    original_size: int
    compressed_size: int
    crc32c: int

    def __post_init__(self) -> None:
        if not (
            0 <= self.original_size <= _U64_MAX
            and 0 <= self.compressed_size <= _U64_MAX
            and 0 <= self.crc32c <= _U32_MAX
        ):
            raise errors.FrameError("out-of-range", f"{self} does not fit a frame header")

    @property
    def stored_size(self) -> int:
        """Bytes the whole frame takes: header and payload."""
        return HEADER_SIZE + self.compressed_size

    def pack(self) -> bytes:
        """Return the header as stored."""
        return _HEADER.pack(
            MAGIC, self.codec, self.original_size, self.compressed_size, self.crc32c
        )

    @classmethod
    def parse(cls, buf: bytes | bytearray | memoryview, offset: int = 0) -> "FrameHeader":
        """Read the header at `offset`; what follows it is not looked at.

        FrameError: too-short, bad-magic, in this order; CodecIdError for an unassigned codec.
        """
        if len(buf) - offset < HEADER_SIZE:
            raise _too_short(len(buf) - offset, HEADER_SIZE)
        magic, codec, original_size, compressed_size, crc = _HEADER.unpack_from(buf, offset)
        if magic != MAGIC:
            raise errors.FrameError("bad-magic", f"expected S4F2, found {magic!r}")
        return cls(CodecId.from_number(codec), original_size, compressed_size, crc)


def padding(pad_len: int) -> bytes:
    """Return a padding frame with `pad_len` zero bytes behind its 12-byte header."""
    return padding_header(pad_len) + bytes(pad_len)


def padding_header(pad_len: int) -> bytes:
    """Return the header of a padding frame whose `pad_len` bytes of filler follow."""
    return _PADDING.pack(PADDING_MAGIC, pad_len)


def parse_padding(buf: bytes | bytearray | memoryview, offset: int = 0) -> int:
    """Return the length of the filler behind the padding header at `offset`.

    The caller has seen the magic. FrameError (too-short) when the header is cut off.
    """
    if len(buf) - offset < PADDING_HEADER_SIZE:
        raise _too_short(len(buf) - offset, PADDING_HEADER_SIZE)
    pad_len: int = _PADDING.unpack_from(buf, offset)[1]
    return pad_len


def pad_to(current_len: int, minimum: int) -> bytes:
    """Return what to append to `current_len` stored bytes so that they are at least `minimum`.

    Nothing when they are already; otherwise one padding frame. It cannot be shorter than its
    header, so the result overshoots by up to 11 bytes when fewer than 12 are missing.

    >>> len(pad_to(20, 100)), len(pad_to(95, 100)), pad_to(100, 100)
    (80, 12, b'')
    """
    if current_len >= minimum:
        return b""
    return padding(max(0, minimum - current_len - PADDING_HEADER_SIZE))


def walk(
    body: bytes | bytearray | memoryview,
) -> Iterator[tuple[int, FrameHeader, memoryview]]:
    """Walk a complete body: (offset, header, payload) of each data frame, in stored order.

    The payload is a view of `body`. FrameError ends the walk: too-short, payload-truncated,
    bad-magic, or CodecIdError. A cut exactly between two frames cannot be seen here; compare the
    sum of original sizes with the manifest.

    >>> body = padding(7) + FrameHeader(CodecId.PASSTHROUGH, 2, 2, 0).pack() + b"hi"
    >>> [(offset, bytes(payload)) for offset, _, payload in walk(body)]
    [(19, b'hi')]
    """
    view = memoryview(body).cast("B")
    total = len(view)
    offset = 0
    while offset < total:
        if total - offset < MAGIC_SIZE:
            raise _too_short(total - offset, MAGIC_SIZE)
        if bytes(view[offset : offset + MAGIC_SIZE]) == PADDING_MAGIC:
            length = parse_padding(view, offset)
            offset += PADDING_HEADER_SIZE
            _require(length, total - offset)
        else:
            header = FrameHeader.parse(view, offset)
            length = header.compressed_size
            start = offset + HEADER_SIZE
            _require(length, total - start)
            yield offset, header, view[start : start + length]
            offset = start
        offset += length


def _require(length: int, available: int) -> None:
    if length > available:
        raise errors.FrameError("payload-truncated", f"{available} of {length} bytes are there")


def _too_short(available: int, needed: int) -> errors.FrameError:
    return errors.FrameError("too-short", f"{max(0, available)} of {needed} bytes are there")
