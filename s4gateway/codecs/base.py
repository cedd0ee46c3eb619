"""What every codec is, and the one exception that leaves this package.

A codec turns bytes into other bytes and back, one stream at a time; it does no I/O and knows
nothing of frames or objects. Streams are independent: many may be open on one codec, each served by
one thread at a time, and the codec itself is shared between threads. Whatever decodes is told how
much may come out and holds no more, because stored sizes are hostile.
"""

from typing import Final, Protocol

from s4gateway.wire.codec_id import CodecId

Buffer = bytes | bytearray | memoryview  # one-dimensional, of single bytes

# Longest piece a decompressor returns.
MAX_PIECE: Final = 1024 * 1024


class CodecError(Exception):
    """Bytes that cannot be decoded to what their header promises, or a codec that is not here.

    `code` is stable and meant for tests, logs and tools:

    manifest-size-exceeds-limit  the promised original size is beyond what one payload may hold
    manifest-size-mismatch       the payload is not as long as its header says
    codec-io                     the codec refused the bytes, or they end inside the stream
    bomb                         more comes out than was promised
    size-mismatch                less comes out than was promised
    crc-mismatch                 the decoded bytes have another CRC-32C
    codec-unavailable            a known codec that needs a GPU build
    unknown-codec                a codec number without meaning here
    dictionary-missing           a dictionary frame without its dictionary
    dictionary-mismatch          a dictionary whose fingerprint is another
    dictionary-invalid           bytes that cannot serve as a dictionary
    unproven                     a frame just made does not decode to what it was made of

    >>> str(CodecError("bomb", "more than 10 bytes"))
    'bomb: more than 10 bytes'
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class Compressor(Protocol):
    """One stream being compressed."""

    def compress(self, data: Buffer, /) -> bytes:
        """Take original bytes; return what is ready, often nothing."""

    def flush(self) -> bytes:
        """End the stream and return its rest; the compressor is of no use afterwards."""


class Decompressor(Protocol):
    """One stream being decompressed. After an error it is of no use."""

    def feed(self, data: Buffer, /) -> list[bytes]:
        """Take stored bytes; return what they decode to, in pieces of at most 1 MiB.

        CodecError: bomb as soon as the whole stream exceeds its limit, codec-io for bytes the
        codec cannot read.
        """

    def finish(self) -> None:
        """Say that no more bytes come. CodecError (codec-io) when the stream is not complete."""


class Codec(Protocol):
    """A way to store bytes; safe to share between threads."""

    @property
    def id(self) -> CodecId:
        """The number written into frame headers."""

    def compressor(self) -> Compressor:
        """Open a stream to compress."""

    def decompressor(self, limit: int) -> Decompressor:
        """Open a stream to decompress, of which at most `limit` bytes may come out."""
