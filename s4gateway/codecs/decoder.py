"""Stored payloads back into what was sent, verified.

A payload comes with three numbers, from its frame header or from the object's metadata: how long it
is, how long the original was, and the original's CRC-32C. They are hostile until they have been
compared, so nothing is allocated from them and no more comes out than they allow. Decoded bytes may
leave the gateway only after `finish` has accepted the whole payload.
"""

from collections.abc import Iterable
from typing import Final

from s4gateway.codecs import base, registry, zstd, zstd_dict
from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c as checksum

MAX_ORIGINAL: Final = frame.MAX_FRAME_ORIGINAL
_SMALL: Final = 256 * 1024  # bytes up to which a payload may be decoded into one buffer


class PayloadDecoder:
    """Decodes one payload fed in pieces.

    `original_size` and `crc32c` describe what must come out, `compressed_size` what must go in, in
    bytes; None where it is not known. CodecError on construction: manifest-size-exceeds-limit when
    `original_size` is over `max_original`; size-mismatch when identity bytes claim to change size.

    One `feed` returns all its input decodes to. That is at most what a frame holds; of a whole body
    without frames feed small pieces, for zstd can grow them a thousandfold.
    """

    __slots__ = (
        "_compressed_size",
        "_consumed",
        "_crc",
        "_decompressor",
        "_expected_crc",
        "_original_size",
        "_produced",
    )

    def __init__(
        self,
        codec: base.Codec,
        original_size: int,
        compressed_size: int | None,
        crc32c: int,
        *,
        max_original: int = MAX_ORIGINAL,
    ) -> None:
        if original_size > max_original:
            raise base.CodecError(
                "manifest-size-exceeds-limit", f"{original_size} bytes, at most {max_original}"
            )
        if codec.id is CodecId.PASSTHROUGH and compressed_size not in {None, original_size}:
            raise base.CodecError(
                "size-mismatch", f"{compressed_size} bytes stand for {original_size}"
            )
        self._decompressor = codec.decompressor(original_size)
        self._original_size = original_size
        self._compressed_size = compressed_size
        self._expected_crc = crc32c
        self._consumed = 0
        self._produced = 0
        self._crc = 0

    def feed(self, data: base.Buffer) -> list[bytes]:
        """Take stored bytes; return what they decode to, not yet verified.

        CodecError: manifest-size-mismatch when the payload is longer than announced; codec-io;
        bomb.
        """
        self._consumed += len(data)
        if self._compressed_size is not None and self._consumed > self._compressed_size:
            raise self._wrong_length()
        pieces = self._decompressor.feed(data)
        for piece in pieces:
            self._crc = checksum(piece, self._crc)
            self._produced += len(piece)
        return pieces

    def finish(self) -> None:
        """Accept the payload, or raise.

        CodecError, in this order: manifest-size-mismatch, codec-io, size-mismatch, crc-mismatch.
        """
        if self._compressed_size not in {None, self._consumed}:
            raise self._wrong_length()
        self._decompressor.finish()
        if self._produced != self._original_size:
            raise base.CodecError(
                "size-mismatch", f"{self._produced} of {self._original_size} bytes came out"
            )
        if self._crc != self._expected_crc:
            raise base.CodecError(
                "crc-mismatch", f"CRC-32C is {self._crc:08x}, not {self._expected_crc:08x}"
            )

    def _wrong_length(self) -> base.CodecError:
        return base.CodecError(
            "manifest-size-mismatch", f"{self._consumed} payload bytes, not {self._compressed_size}"
        )


class FrameDecoder(PayloadDecoder):
    """Decodes the payload of one frame; `codec` is the one its header names."""

    __slots__ = ()

    def __init__(
        self, header: frame.FrameHeader, codec: base.Codec, *, max_original: int = MAX_ORIGINAL
    ) -> None:
        super().__init__(
            codec,
            header.original_size,
            header.compressed_size,
            header.crc32c,
            max_original=max_original,
        )


def decode_frame(
    header: frame.FrameHeader,
    payload: Iterable[base.Buffer],
    codecs: registry.Registry,
    dictionary: zstd_dict.ZstdDict | None = None,
    *,
    at_once: int = _SMALL,
) -> list[bytes]:
    """Return the verified original of one frame whose payload is at hand.

    Up to `at_once` original bytes come in one piece, for a caller who has reserved them.
    CodecError as for `Registry.get`, `PayloadDecoder.feed` and `PayloadDecoder.finish`.
    """
    codec = codecs.get(header.codec, dictionary)
    if header.original_size <= at_once and isinstance(codec, zstd.Zstd):
        payload = tuple(payload)
        plain = _whole(header, payload, codec)
        if plain is not None:
            return [plain]
    decoder = FrameDecoder(header, codec)
    pieces: list[bytes] = []
    for piece in payload:
        pieces += decoder.feed(piece)
    decoder.finish()
    return pieces


def _whole(
    header: frame.FrameHeader, payload: tuple[base.Buffer, ...], codec: zstd.Zstd
) -> bytes | None:
    """A sound frame decoded at one go; None for any other, whose fault is told elsewhere."""
    if len(payload) != 1 or len(payload[0]) != header.compressed_size:
        return None
    plain = codec.decode_whole(payload[0], header.original_size)
    return plain if plain is not None and checksum(plain) == header.crc32c else None


def decode_frame_into(
    header: frame.FrameHeader,
    payload: base.Buffer,
    out: memoryview,
    codecs: registry.Registry,
    dictionary: zstd_dict.ZstdDict | None = None,
) -> None:
    """Decode a frame into the room kept for it, which is as long as its header says.

    What is in `out` is verified when this returns, and nothing when it raises. CodecError as for
    `decode_frame`.
    """
    codec = codecs.get(header.codec, dictionary)
    if (
        isinstance(codec, zstd.Zstd)
        and len(payload) == header.compressed_size
        and codec.decode_into(payload, out) == header.crc32c
    ):
        return
    position = 0
    for piece in decode_frame(header, [payload], codecs, dictionary):
        out[position : position + len(piece)] = piece
        position += len(piece)


def decode_body(
    body: base.Buffer,
    codecs: registry.Registry,
    dictionary: zstd_dict.ZstdDict | None = None,
) -> bytes:
    """Return the verified original of a whole framed body in memory.

    WireError when the body is not a sequence of frames, CodecError as for `decode_frame`.
    """
    pieces: list[bytes] = []
    for _, header, payload in frame.walk(body):
        pieces += decode_frame(header, (payload,), codecs, dictionary)
    return b"".join(pieces)
