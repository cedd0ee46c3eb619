"""What an object's metadata says about its body, and how to read the body because of it.

Metadata decides, never the body's first bytes: a client may store a file that looks like frames.
The four manifest fields count together or not at all, a number is decimal digits in range, and a
flag is exactly its word. Clients neither see nor set names that start with ``s4-``: a forged one
would make the gateway decode what it never encoded.

Metadata here is a mapping of lower-case names without ``x-amz-meta-``.
"""

import enum
import re
from collections.abc import Mapping
from typing import Final

from s4gateway.values import immutable
from s4gateway.wire import errors, keys
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.tail import is_token

RESERVED_PREFIX: Final = "s4-"

CODEC: Final = "s4-codec"
ORIGINAL_SIZE: Final = "s4-original-size"
COMPRESSED_SIZE: Final = "s4-compressed-size"
CRC32C: Final = "s4-crc32c"
FRAMED: Final = "s4-framed"
MULTIPART: Final = "s4-multipart"
DICT_ID: Final = "s4-dict-id"
DICT_SHA256: Final = "s4-dict-sha256"
ENCRYPTED: Final = "s4-encrypted"
SSE_TYPE: Final = "s4-sse-type"
SSE_C_KEY_MD5: Final = "s4-sse-c-key-md5"
SSE_KMS_KEY_ID: Final = "s4-sse-kms-key-id"
ZSTD_LEVEL: Final = "s4-zstd-level"
LEDGER: Final = "s4-ledger"
LOGICAL_ETAG: Final = "s4-logical-etag"
OPAQUE_ETAG: Final = "s4-opaque-etag"
CHECKSUM: Final = "s4-checksum"
TAIL: Final = "s4-tail"
PARQUET_ZSTD_LEVEL: Final = "s4-parquet-zstd-level"
PARQUET_OP_ID: Final = "s4-parquet-op-id"

_TRUE: Final = "true"
_CIPHER: Final = "aes-256-gcm"
_LEDGERED: Final = "1"
_U32_MAX: Final = 2**32 - 1
_U64_MAX: Final = 2**64 - 1
_is_checksum: Final = re.compile("[a-z0-9]{1,16}:[A-Za-z0-9+/]{1,128}={0,2}").fullmatch
_etag: Final = re.compile("[0-9a-f]{32}(-[0-9]{1,5})?").fullmatch


def is_etag(text: str) -> bool:
    """Whether a manifest can say that clients see this ETag: an MD5, or a composite of several.

    >>> is_etag("d41d8cd98f00b204e9800998ecf8427e-2"), is_etag("d41d8cd9")
    (True, False)
    """
    return _etag(text) is not None


@immutable
class Manifest:
    """The full manifest of an object written in one piece.

    `original_size` and `crc32c` describe the whole original body, `compressed_size` the stored one
    with its frame headers but before encryption; sizes in bytes. `checksum` is what the client
    declared for the original body and was verified: algorithm and base64 value. `opaque_etag` says
    that the logical ETag, as much as it looks like one, is no MD5 of the original. ManifestError:
    out-of-range, bad-dict-id, bad-etag, bad-checksum.

    >>> manifest = Manifest(CodecId.CPU_ZSTD, 1234, 567, 0xDEADBEEF, framed=True)
    >>> manifest.to_metadata()["s4-crc32c"], parse(manifest.to_metadata()) == manifest
    ('3735928559', True)
    """

    codec: CodecId
    original_size: int
    compressed_size: int
    crc32c: int
    framed: bool = False
    multipart: bool = False
    dict_id: str | None = None
    encrypted: bool = False
    logical_etag: str | None = None
    ledger: bool = False
    checksum: tuple[str, str] | None = None
    opaque_etag: bool = False

    def __post_init__(self) -> None:
        _check_number(self.original_size, _U64_MAX)
        _check_number(self.compressed_size, _U64_MAX)
        _check_number(self.crc32c, _U32_MAX)
        if self.dict_id is not None and not keys.is_dictionary_id(self.dict_id):
            raise errors.ManifestError("bad-dict-id", f"{self.dict_id!r}")
        if self.logical_etag is not None:
            _check_etag(self.logical_etag)

    def to_metadata(self) -> dict[str, str]:
        """Return the metadata entries to store, those that say nothing left out."""
        entries = {
            CODEC: self.codec.label,
            ORIGINAL_SIZE: str(self.original_size),
            COMPRESSED_SIZE: str(self.compressed_size),
            CRC32C: str(self.crc32c),
        }
        if self.framed:
            entries[FRAMED] = _TRUE
        if self.multipart:
            entries[MULTIPART] = _TRUE
        if self.dict_id is not None:
            entries[DICT_ID] = self.dict_id
        if self.encrypted:
            entries[ENCRYPTED] = _CIPHER
        if self.logical_etag is not None:
            entries[LOGICAL_ETAG] = self.logical_etag
        if self.opaque_etag:
            entries[OPAQUE_ETAG] = _TRUE
        if self.ledger:
            entries[LEDGER] = _LEDGERED
        if self.checksum is not None:
            entries[CHECKSUM] = ":".join(self.checksum)
        return entries


class Form(enum.Enum):
    """How a stored body is to be read."""

    FOREIGN = "foreign"
    """Not ours: bytes and headers go through as they are."""
    PASSTHROUGH = "passthrough"
    """Ours, and the original bytes."""
    UNFRAMED = "unframed"
    """One codec payload, described by the manifest."""
    FRAMED = "framed"
    """A sequence of frames."""
    DICTIONARY = "dictionary"
    """A sequence of frames that needs the dictionary `Stored.dict_id`."""
    ENCRYPTED = "encrypted"
    """An envelope around any of the above."""


@immutable
class Stored:
    """What the metadata of a stored object amounts to.

    `logical_size` and `logical_etag` are what a client should see, None when the metadata does not
    say: always for a foreign object, and for a multipart object of an older writer. `md5` is the
    ETag where it is that of the original. `tail` is the
    token of the tail that says it instead, at the end of a body of frames. `ledger` is whether the
    savings ledger counts it.
    """

    form: Form
    manifest: Manifest | None = None
    logical_size: int | None = None
    logical_etag: str | None = None
    multipart: bool = False
    dict_id: str | None = None
    tail: str | None = None
    ledger: bool = False

    @property
    def md5(self) -> str | None:
        """The MD5 of the original in hex, None where the metadata does not tell it."""
        opaque = self.manifest is not None and self.manifest.opaque_etag
        known = self.logical_etag is not None and "-" not in self.logical_etag
        return self.logical_etag if known and not opaque else None


_FOREIGN: Final = Stored(Form.FOREIGN)
_FOREIGN_LEDGERED: Final = Stored(Form.FOREIGN, ledger=True)


def parse(metadata: Mapping[str, str]) -> Manifest | None:
    """Return the full manifest, None when a field of it is missing or bad.

    A bad optional entry counts as absent.
    """
    codec = CodecId.from_label(metadata.get(CODEC, ""))
    original_size = _number(metadata.get(ORIGINAL_SIZE), _U64_MAX)
    compressed_size = _number(metadata.get(COMPRESSED_SIZE), _U64_MAX)
    crc32c = _number(metadata.get(CRC32C), _U32_MAX)
    if codec is None or original_size is None or compressed_size is None or crc32c is None:
        return None
    return Manifest(
        codec,
        original_size,
        compressed_size,
        crc32c,
        framed=metadata.get(FRAMED) == _TRUE,
        multipart=metadata.get(MULTIPART) == _TRUE,
        dict_id=_dict_id(metadata),
        encrypted=metadata.get(ENCRYPTED) == _CIPHER,
        logical_etag=_logical_etag(metadata),
        ledger=metadata.get(LEDGER) == _LEDGERED,
        checksum=_checksum(metadata),
        opaque_etag=metadata.get(OPAQUE_ETAG) == _TRUE,
    )


def classify(metadata: Mapping[str, str]) -> Stored:
    """Decide from its metadata how an object is to be read.

    >>> classify({"s4-multipart": "true", "s4-codec": "cpu-zstd"}).form
    <Form.FRAMED: 'framed'>
    >>> classify({"s4-codec": "cpu-zstd", "color": "blue"}).form
    <Form.FOREIGN: 'foreign'>
    """
    multipart = metadata.get(MULTIPART) == _TRUE
    framed = multipart or metadata.get(FRAMED) == _TRUE
    # Encryption is believed without a manifest, too: ciphertext never leaves as data.
    encrypted = metadata.get(ENCRYPTED) == _CIPHER
    manifest = parse(metadata) if CODEC in metadata else None
    if manifest is None and not framed and not encrypted:
        return _FOREIGN if metadata.get(LEDGER) != _LEDGERED else _FOREIGN_LEDGERED
    if manifest is None:
        size = _number(metadata.get(ORIGINAL_SIZE), _U64_MAX)
        etag, dict_id = _logical_etag(metadata), _dict_id(metadata)
    else:
        size, etag, dict_id = manifest.original_size, manifest.logical_etag, manifest.dict_id
    return Stored(
        form=_form(manifest, dict_id, framed=framed, encrypted=encrypted),
        manifest=manifest,
        logical_size=size,
        logical_etag=etag,
        multipart=multipart,
        dict_id=dict_id,
        tail=_tail(metadata) if multipart else None,
        ledger=metadata.get(LEDGER) == _LEDGERED,
    )


def visible_etag(backend_etag: str, stored: Stored) -> str:
    """Return the ETag shown for an object that carries no logical one; both without quotes.

    That of a compressed object gets `-1` behind it, which every client reads as "not an MD5".

    >>> visible_etag("0123", classify({"s4-multipart": "true"})), visible_etag("0123", _FOREIGN)
    ('0123-1', '0123')
    """
    if stored.form in {Form.FOREIGN, Form.PASSTHROUGH} or "-" in backend_etag:
        return backend_etag
    return f"{backend_etag}-1"


def multipart_metadata(
    codec: CodecId,
    *,
    original_size: int | None = None,
    logical_etag: str | None = None,
    tail: str | None = None,
) -> dict[str, str]:
    """Return the metadata of a multipart object: size and ETag once they are known.

    The codec is informational, the frames decide; `tail` is the token of the tail to come. This is
    no manifest: no checksum of the whole exists. ManifestError: out-of-range, bad-etag, bad-tail.
    """
    entries = {MULTIPART: _TRUE, CODEC: codec.label}
    if original_size is not None:
        _check_number(original_size, _U64_MAX)
        entries[ORIGINAL_SIZE] = str(original_size)
    if logical_etag is not None:
        _check_etag(logical_etag)
        entries[LOGICAL_ETAG] = logical_etag
    if tail is not None:
        if not is_token(tail):
            raise errors.ManifestError("bad-tail", f"{tail!r}")
        entries[TAIL] = tail
    return entries


def strip_reserved(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata without any ``s4-`` entry, in whatever case it is written.

    >>> strip_reserved({"S4-Codec": "cpu-zstd", "s4ish": "kept"})
    {'s4ish': 'kept'}
    """
    return {
        name: value
        for name, value in metadata.items()
        if not name.lower().startswith(RESERVED_PREFIX)
    }


def _check_number(value: int, maximum: int) -> None:
    if not 0 <= value <= maximum:
        raise errors.ManifestError("out-of-range", f"{value} is not in 0..{maximum}")


def _check_etag(etag: str) -> None:
    if not is_etag(etag):
        raise errors.ManifestError("bad-etag", f"{etag!r}")


def _form(manifest: Manifest | None, dict_id: str | None, *, framed: bool, encrypted: bool) -> Form:
    if encrypted:
        return Form.ENCRYPTED
    if dict_id is not None:
        return Form.DICTIONARY
    if framed or manifest is None:
        return Form.FRAMED
    return Form.PASSTHROUGH if manifest.codec is CodecId.PASSTHROUGH else Form.UNFRAMED


def _number(text: str | None, maximum: int) -> int | None:
    # int() alone would also take signs, spaces, underscores and the digits of other scripts.
    if text is None or not (text.isascii() and text.isdigit()):
        return None
    if len(text) > len(str(_U64_MAX)):
        # One digit more than fits is enough to know; int() of thousands of digits is not free.
        text = text.lstrip("0")[: len(str(_U64_MAX)) + 1] or "0"
    value = int(text)
    return value if value <= maximum else None


def _dict_id(metadata: Mapping[str, str]) -> str | None:
    # A stray id on another codec means nothing.
    dict_id = metadata.get(DICT_ID)
    if dict_id is None or metadata.get(CODEC) != CodecId.CPU_ZSTD_DICT.label:
        return None
    return dict_id if keys.is_dictionary_id(dict_id) else None


def _logical_etag(metadata: Mapping[str, str]) -> str | None:
    etag = metadata.get(LOGICAL_ETAG)
    return etag if etag is not None and is_etag(etag) else None


def _tail(metadata: Mapping[str, str]) -> str | None:
    token = metadata.get(TAIL)
    return token if token is not None and is_token(token) else None


def _checksum(metadata: Mapping[str, str]) -> tuple[str, str] | None:
    text = metadata.get(CHECKSUM)
    if text is None or _is_checksum(text) is None:
        return None
    algorithm, _, value = text.partition(":")
    return algorithm, value
