"""The stored format for programs: encode, index and decode objects without a gateway.

This is the guaranteed face of the package: the names of `__all__` stay, with their meaning, from
release to release; more may come, told in the changelog. What `encode_s4_object` returns is what
the gateway stores for a single PUT that it compresses, byte for byte and entry for entry. All work
is synchronous, and the libraries behind it let other threads run meanwhile. The format itself is
docs/reference/wire-format.md.
"""

import hashlib
from typing import Final, TypedDict

from s4gateway import __version__
from s4gateway.codecs import base, decoder, encoder, gzip, zstd, zstd_dict
from s4gateway.codecs.encoder import pick_chunk_size
from s4gateway.codecs.face_errors import (
    S4BackendError,
    S4CodecMismatchError,
    S4CrcMismatchError,
    S4DictionaryError,
    S4Error,
    S4FrameError,
    S4IndexError,
    S4IoError,
    S4ManifestSizeExceedsLimitError,
    S4ManifestSizeMismatchError,
    S4SizeMismatchError,
    S4UnregisteredCodecError,
    translated,
)
from s4gateway.wire import errors, frame, keys
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c as _crc32c
from s4gateway.wire.index import FrameIndex, SseBinding
from s4gateway.wire.manifest import Manifest

__all__ = [
    "FRAME_HEADER_BYTES", "FRAME_MAGIC", "PADDING_MAGIC", "SIDECAR_SUFFIX", "CpuGzip", "CpuZstd",
    "CpuZstdDict", "S4BackendError", "S4CodecMismatchError", "S4CrcMismatchError",
    "S4DictionaryError", "S4Error", "S4FrameError", "S4IndexError", "S4IoError",
    "S4ManifestSizeExceedsLimitError", "S4ManifestSizeMismatchError", "S4SizeMismatchError",
    "S4UnregisteredCodecError", "__version__", "bind_index", "crc32c", "decode_index",
    "encode_s4_object", "frame_iter", "gpu_available", "pick_chunk_size", "read_frame",
]  # fmt: skip

FRAME_MAGIC: Final = frame.MAGIC
PADDING_MAGIC: Final = frame.PADDING_MAGIC
FRAME_HEADER_BYTES: Final = frame.HEADER_SIZE
SIDECAR_SUFFIX: Final = keys.SIDECAR_SUFFIX

# How streams of the two codecs begin, to tell a mistaken codec from a damaged stream.
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_GZIP_MAGIC: Final = b"\x1f\x8b"


class FrameFields(TypedDict):
    """A frame header; sizes in bytes, the CRC-32C that of the decoded chunk."""

    codec: str
    original_size: int
    compressed_size: int
    crc32c: int


class EntryFields(TypedDict):
    """Where one frame stands, in bytes; `compressed_size` counts its header."""

    original_offset: int
    original_size: int
    compressed_offset: int
    compressed_size: int


class SseFields(TypedDict):
    """The shape of an encryption envelope around the frames."""

    enc_chunk_size: int
    enc_chunk_count: int
    enc_key_id: int
    enc_salt: bytes
    enc_plaintext_len: int
    enc_header_bytes: int


class IndexFields(TypedDict):
    """A sidecar, decoded; None for what it does not say."""

    total_padded_size: int
    total_original_size: int
    source_etag: str | None
    source_compressed_size: int | None
    entries: list[EntryFields]
    sse: SseFields | None


class S4Object(TypedDict):
    """What to store: the body, its user metadata, and the sidecar, unbound, where one is due."""

    body: bytes
    sidecar: bytes | None
    metadata: dict[str, str]


class _Payloads:
    """One codec, applied to whole payloads."""

    __slots__ = ("_codec",)

    _codec: base.Codec
    _foreign_magic: bytes = _GZIP_MAGIC

    def compress(self, data: base.Buffer) -> tuple[bytes, int, int]:
        """Return payload, original size in bytes and CRC-32C; S4BackendError when that fails."""
        view = _view(data)
        compressor = self._codec.compressor()
        try:
            payload = compressor.compress(view) + compressor.flush()
        except base.CodecError as error:
            raise S4BackendError(str(error)) from error
        return payload, len(view), _crc32c(view)

    def decompress(self, data: base.Buffer, original_size: int, crc32c: int) -> bytes:
        """Return the original, `original_size` bytes with that CRC-32C.

        Raises S4IoError for a damaged or cut stream, S4SizeMismatchError, S4CrcMismatchError,
        S4CodecMismatchError, S4ManifestSizeExceedsLimitError for a size over 5 GiB.
        """
        view = _view(data)
        try:
            payload = decoder.PayloadDecoder(self._codec, original_size, len(view), crc32c)
            pieces = payload.feed(view)
            payload.finish()
        except base.CodecError as error:
            if error.code == "codec-io" and bytes(view[:4]).startswith(self._foreign_magic):
                msg = f"this is no {self._codec.id.label} payload but one of another codec"
                raise S4CodecMismatchError(msg) from error
            raise translated(error) from error
        return b"".join(pieces)


class CpuZstd(_Payloads):
    """zstd payloads at a level from 1 to 22.

    >>> payload, size, crc = CpuZstd().compress(b"abc" * 1000)
    >>> len(payload) < 100, CpuZstd().decompress(payload, size, crc) == b"abc" * 1000
    (True, True)
    """

    __slots__ = ()

    def __init__(self, level: int = zstd.DEFAULT_LEVEL) -> None:
        self._codec = zstd.Zstd(level)


class CpuGzip(_Payloads):
    """gzip payloads, one member each, at a level from 1 to 9.

    >>> payload, size, crc = CpuGzip().compress(b"abc")
    >>> CpuGzip().decompress(payload, size, crc)
    b'abc'
    """

    __slots__ = ()

    _foreign_magic = _ZSTD_MAGIC

    def __init__(self, level: int = gzip.LEVEL) -> None:
        self._codec = gzip.Gzip(level)


class CpuZstdDict(_Payloads):
    """zstd payloads made with a dictionary of 1 byte to 1 MiB; S4DictionaryError for other bytes.

    `dict_id` is the name of the dictionary in a bucket: `.s4dict/<dict_id>`.

    >>> codec = CpuZstdDict(b"the quick brown fox jumps over the lazy dog")
    >>> codec.dict_id, codec.decompress(*codec.compress(b"the lazy dog"))
    ('05c6e08f1d9fdafa', b'the lazy dog')
    """

    __slots__ = ("dict_id",)

    dict_id: str

    def __init__(self, dict_bytes: bytes, level: int = zstd.DEFAULT_LEVEL) -> None:
        try:
            codec = zstd_dict.ZstdDict(bytes(dict_bytes), level)
        except base.CodecError as error:
            raise translated(error) from error
        self._codec = codec
        self.dict_id = codec.dict_id


def gpu_available() -> bool:
    """Return whether GPU codecs can be read and written here: never, they are only recognised."""
    return False


def crc32c(data: base.Buffer) -> int:
    """Return the CRC-32C (Castagnoli) of any buffer.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    return _crc32c(_view(data))


def read_frame(data: base.Buffer) -> tuple[FrameFields, bytes, bytes]:
    """Read the frame at the start of `data`; return its header, its payload and what follows.

    S4FrameError when there is no complete data frame. A whole body is walked by `frame_iter`.

    >>> header, payload, rest = read_frame(encode_s4_object(b"hello" * 100)["body"])
    >>> header["codec"], header["original_size"], rest
    ('cpu-zstd', 500, b'')
    """
    view = _view(data)
    try:
        header = frame.FrameHeader.parse(view)
    except errors.FrameError as error:
        raise S4FrameError(str(error)) from error
    end = header.stored_size
    if end > len(view):
        msg = f"payload-truncated: {len(view)} of {end} bytes are there"
        raise S4FrameError(msg)
    return _fields(header), bytes(view[frame.HEADER_SIZE : end]), bytes(view[end:])


def frame_iter(data: base.Buffer) -> list[tuple[FrameFields, bytes]]:
    """Return header and payload of every data frame of a body; padding is skipped.

    S4FrameError for anything that is not frames from its first to its last byte.

    >>> frame_iter(b"")
    []
    """
    try:
        return [(_fields(header), bytes(payload)) for _, header, payload in frame.walk(_view(data))]
    except errors.FrameError as error:
        raise S4FrameError(str(error)) from error


def decode_index(data: base.Buffer) -> IndexFields:
    """Read a sidecar. S4IndexError for everything that is not one."""
    try:
        index = FrameIndex.decode(_view(data))
    except errors.SidecarError as error:
        raise translated(error) from error
    return {
        "total_padded_size": index.total_padded,
        "total_original_size": index.total_original,
        "source_etag": index.etag,
        "source_compressed_size": index.source_size,
        "entries": [
            {
                "original_offset": entry.original_offset,
                "original_size": entry.original_size,
                "compressed_offset": entry.compressed_offset,
                "compressed_size": entry.compressed_size,
            }
            for entry in index
        ],
        "sse": None if index.sse is None else _sse_fields(index.sse),
    }


def bind_index(
    sidecar: base.Buffer, source_compressed_size: int, source_etag: str | None = None
) -> bytes:
    """Return a sidecar bound to the stored object: its length in bytes and its ETag.

    To be done after the body was stored, with the ETag the store answered; quotes around it are
    dropped. An index that is bound to nothing is trusted by no reader. S4IndexError.

    >>> obj = encode_s4_object(bytes(9_000_000))
    >>> sidecar = bind_index(obj["sidecar"], len(obj["body"]), '"d41d8cd98f00b204e9800998ecf8427e"')
    >>> decode_index(sidecar)["source_etag"]
    'd41d8cd98f00b204e9800998ecf8427e'
    """
    try:
        index = FrameIndex.decode(_view(sidecar))
        return index.bind(source_etag, source_compressed_size).encode()
    except errors.SidecarError as error:
        raise translated(error) from error


def encode_s4_object(
    data: base.Buffer,
    codec: str = "cpu-zstd",
    level: int = zstd.DEFAULT_LEVEL,
) -> S4Object:
    r"""Return what the gateway stores for a single PUT of `data`.

    The metadata must be stored in the same request as the body: frames without it would be served
    as they are. A sidecar is due for more than one frame; store it at `<key>.s4index` after
    `bind_index`. A chunk that zstd does not make smaller becomes a passthrough frame. Codecs other
    than "cpu-zstd" and "passthrough" raise NotImplementedError: the gateway writes them.

    >>> obj = encode_s4_object(b"a line of a log\n" * 1000)
    >>> sorted(obj["metadata"])[:3], obj["metadata"]["s4-original-size"], obj["sidecar"]
    (['s4-codec', 's4-compressed-size', 's4-crc32c'], '16000', None)
    """
    original = data if isinstance(data, bytes) else bytes(_view(data))
    etag = hashlib.md5(original, usedforsecurity=False).hexdigest()
    if codec == "passthrough":
        manifest = Manifest(
            CodecId.PASSTHROUGH, len(original), len(original), _crc32c(original), logical_etag=etag
        )
        return {"body": original, "sidecar": None, "metadata": manifest.to_metadata()}
    if codec != "cpu-zstd":
        msg = f"{codec!r} is not written here: cpu-zstd and passthrough are, others by the gateway"
        raise NotImplementedError(msg)
    encoded = encoder.encode_body(original, zstd.Zstd(level), pick_chunk_size(len(original)))
    manifest = Manifest(
        CodecId.CPU_ZSTD,
        len(original),
        encoded.stored_size,
        encoded.crc32c,
        framed=True,
        logical_etag=etag,
    )
    sidecar = encoded.index.encode() if len(encoded.frames) > 1 else None
    return {
        "body": b"".join(encoded.frames),
        "sidecar": sidecar,
        "metadata": manifest.to_metadata(),
    }


def _view(data: base.Buffer) -> memoryview:
    """Any contiguous buffer as single bytes; TypeError for what is no buffer."""
    return memoryview(data).cast("B")


def _fields(header: frame.FrameHeader) -> FrameFields:
    return {
        "codec": header.codec.label,
        "original_size": header.original_size,
        "compressed_size": header.compressed_size,
        "crc32c": header.crc32c,
    }


def _sse_fields(sse: SseBinding) -> SseFields:
    return {
        "enc_chunk_size": sse.chunk_size,
        "enc_chunk_count": sse.chunk_count,
        "enc_key_id": sse.key_id,
        "enc_salt": sse.salt,
        "enc_plaintext_len": sse.plaintext_len,
        "enc_header_bytes": sse.header_bytes,
    }
