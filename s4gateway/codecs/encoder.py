"""Bytes as they were sent into frames as they are stored.

A body is cut into chunks and each chunk becomes one frame, so that a range can be read without what
comes before it. A frame never takes more than its chunk and 28 bytes: where the codec does not make
a chunk smaller, the chunk itself is stored in a passthrough frame.
"""

from typing import Final

from s4gateway.codecs import base, decoder, zstd_dict
from s4gateway.values import immutable
from s4gateway.wire import frame, index
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c as checksum

_MIB: Final = 1024 * 1024

SMALL_CHUNK: Final = 1 * _MIB
MEDIUM_CHUNK: Final = 4 * _MIB
LARGE_CHUNK: Final = 16 * _MIB

_SMALL_BODY: Final = 1 * _MIB
_MEDIUM_BODY: Final = 100 * _MIB


def pick_chunk_size(content_length: int | None) -> int:
    """Return how many original bytes a frame holds, for a body of `content_length` bytes.

    None for a body whose length nobody announced.

    >>> pick_chunk_size(5_000_000) // 1024**2, pick_chunk_size(None) // 1024**2
    (4, 4)
    """
    if content_length is None:
        return MEDIUM_CHUNK
    if content_length <= _SMALL_BODY:
        return SMALL_CHUNK
    return MEDIUM_CHUNK if content_length <= _MEDIUM_BODY else LARGE_CHUNK


@immutable
class EncodedFrame:
    """One frame ready to be stored: its header, and its payload in pieces.

    `crc32c` is that of its bytes, header included, where it was taken.
    """

    header: frame.FrameHeader
    payload: list[bytes]
    crc32c: int | None = None

    @property
    def stored_size(self) -> int:
        """Bytes the frame takes, header included."""
        return self.header.stored_size

    def pieces(self) -> list[bytes]:
        """Return the frame's bytes in order."""
        return [self.header.pack(), *self.payload]


@immutable
class EncodedBody:
    """A small body, encoded: one entry of `frames` and of `headers` per frame.

    `crc32c` is that of the whole original.
    """

    frames: list[bytes]
    headers: list[frame.FrameHeader]
    crc32c: int

    @property
    def original_size(self) -> int:
        """Bytes before encoding."""
        return sum(header.original_size for header in self.headers)

    @property
    def stored_size(self) -> int:
        """Bytes after encoding, headers included."""
        return sum(map(len, self.frames))

    @property
    def index(self) -> index.FrameIndex:
        """Where the frames stand; built on each call, for a single frame needs none."""
        entries = []
        original, stored = 0, 0
        for header in self.headers:
            entries.append(
                index.FrameEntry(original, header.original_size, stored, header.stored_size)
            )
            original += header.original_size
            stored += header.stored_size
        return index.FrameIndex.from_entries(entries)


class FrameEncoder:
    """Makes one frame of bytes fed in pieces. Only encoded bytes are held, never the chunk.

    >>> from s4gateway.codecs.zstd import Zstd
    >>> encoder = FrameEncoder(Zstd())
    >>> encoder.feed(b"a" * 500)
    >>> encoder.feed(b"a" * 500)
    >>> header = encoder.finish().header
    >>> header.codec.label, header.original_size, header.compressed_size
    ('cpu-zstd', 1000, 18)
    """

    __slots__ = ("_codec", "_compressor", "_crc", "_payload", "original_size", "pending_out")

    original_size: int  # bytes fed so far
    pending_out: int  # encoded bytes held

    def __init__(self, codec: base.Codec) -> None:
        self._codec = codec
        self._compressor = codec.compressor()
        self._crc = 0
        self._payload: list[bytes] = []
        self.original_size = 0
        self.pending_out = 0

    def feed(self, data: base.Buffer) -> None:
        """Take the next bytes of the chunk."""
        self._crc = checksum(data, self._crc)
        self.original_size += len(data)
        self._keep(self._compressor.compress(data))

    def finish(self) -> EncodedFrame:
        """Return the frame; the encoder is of no use afterwards."""
        self._keep(self._compressor.flush())
        codec, payload = self._codec.id, self._payload
        if self.pending_out >= self.original_size and codec is not CodecId.PASSTHROUGH:
            codec, payload = CodecId.PASSTHROUGH, self._plaintext()
        size = sum(map(len, payload))
        return EncodedFrame(frame.FrameHeader(codec, self.original_size, size, self._crc), payload)

    def _keep(self, out: bytes) -> None:
        if out:
            self._payload.append(out)
            self.pending_out += len(out)

    def _plaintext(self) -> list[bytes]:
        # Encoded pieces are let go while the original comes back, so the chunk is held once.
        original = decoder.PayloadDecoder(
            self._codec, self.original_size, self.pending_out, self._crc
        )
        pieces: list[bytes] = []
        self._payload.reverse()
        while self._payload:
            pieces += original.feed(self._payload.pop())
        original.finish()
        return pieces


def encode_body(body: bytes, codec: base.Codec, chunk_size: int) -> EncodedBody:
    """Encode a body that is in memory; an empty one has no frame.

    >>> from s4gateway.codecs.zstd import Zstd
    >>> encoded = encode_body(b"a" * 1000, Zstd(), chunk_size=400)
    >>> [header.original_size for header in encoded.headers]
    [400, 400, 200]
    """
    if len(body) <= chunk_size:
        chunks = [body] if body else []
    else:
        chunks = [body[start : start + chunk_size] for start in range(0, len(body), chunk_size)]
    frames, headers = [], []
    for chunk in chunks:
        header, payload = _encode_chunk(chunk, codec)
        frames.append(header.pack() + payload)
        headers.append(header)
    crc = headers[0].crc32c if len(headers) == 1 else checksum(body)
    return EncodedBody(frames, headers, crc)


@immutable
class Trial:
    """A body encoded with a dictionary and without: the smaller frame, and the bytes of both.

    `with_dictionary` and `without` are payloads, before their 28-byte headers.
    """

    frame: EncodedFrame
    with_dictionary: int
    without: int


def try_dictionary(body: bytes, plain: base.Codec, dictionary: zstd_dict.ZstdDict) -> Trial:
    """Encode a body as one frame, with the dictionary when that makes it smaller than without."""
    payload, payload_with = _compress(body, plain), _compress(body, dictionary)
    sizes = len(payload_with), len(payload)
    codec: base.Codec = plain
    if zstd_dict.dictionary_wins(*sizes):
        codec, payload = dictionary, payload_with
    header, payload = _frame(body, codec, payload, checksum(body))
    return Trial(EncodedFrame(header, [payload] if payload else []), *sizes)


def encode_smallest(
    body: bytes, plain: base.Codec, with_dictionary: zstd_dict.ZstdDict
) -> EncodedFrame:
    """Return the smaller frame of `try_dictionary`."""
    return try_dictionary(body, plain, with_dictionary).frame


def _encode_chunk(chunk: bytes, codec: base.Codec) -> tuple[frame.FrameHeader, bytes]:
    return _frame(chunk, codec, _compress(chunk, codec), checksum(chunk))


def _compress(chunk: bytes, codec: base.Codec) -> bytes:
    stream = codec.compressor()
    return stream.compress(chunk) + stream.flush()


def _frame(
    chunk: bytes, codec: base.Codec, payload: bytes, crc: int
) -> tuple[frame.FrameHeader, bytes]:
    if len(payload) >= len(chunk):
        return frame.FrameHeader(CodecId.PASSTHROUGH, len(chunk), len(chunk), crc), chunk
    return frame.FrameHeader(codec.id, len(chunk), len(payload), crc), payload
