"""zstd with a dictionary shared by many small objects of one shape.

A dictionary is named by the first 16 hex digits of the SHA-256 of its bytes and never changes. The
zstd payload names at most libzstd's own 32-bit id, and with a raw-content dictionary nothing at
all, so a wrong dictionary can decode to wrong bytes without a word: fingerprints are verified
before a dictionary is used, and the CRC-32C of the frame afterwards.

libzstd digests the bytes into tables before it can use them, which takes as long as coding dozens
of small bodies. The tables for reading are made once, here, and shared by all threads; those for
writing belong to a compression context, and contexts are used again.
"""

import hashlib
from typing import Final, Self

import zstandard

from s4gateway.codecs import base, zstd
from s4gateway.wire.codec_id import CodecId

MAX_DICTIONARY_SIZE: Final = 1024 * 1024
ID_LENGTH: Final = 16


def fingerprint(dictionary: bytes) -> str:
    """Return the SHA-256 of a dictionary in hex; its first 16 digits are the dictionary's id."""
    return hashlib.sha256(dictionary).hexdigest()


def dictionary_wins(with_dictionary: int, without: int) -> bool:
    """Whether a payload made with a dictionary is worth it; sizes in bytes."""
    return with_dictionary < without


class ZstdDict(zstd.Zstd):
    """zstd with one dictionary: a trained one, or any bytes as raw content.

    CodecError (dictionary-invalid) for bytes that are empty, over 1 MiB or a broken dictionary.

    >>> codec = ZstdDict(b"the quick brown fox jumps over the lazy dog")
    >>> compressor = codec.compressor()
    >>> stored = compressor.compress(b"the lazy dog jumps") + compressor.flush()
    >>> codec.dict_id, b"".join(codec.decompressor(limit=18).feed(stored))
    ('05c6e08f1d9fdafa', b'the lazy dog jumps')
    """

    __slots__ = ("_dictionary", "sha256", "size")

    size: int  # bytes of the dictionary

    def __init__(self, dictionary: bytes, level: int = zstd.DEFAULT_LEVEL) -> None:
        if not 0 < len(dictionary) <= MAX_DICTIONARY_SIZE:
            raise base.CodecError("dictionary-invalid", f"{len(dictionary)} bytes")
        self._dictionary = zstandard.ZstdCompressionDict(dictionary)
        super().__init__(level, self._dictionary)
        self.sha256 = fingerprint(dictionary)
        self.size = len(dictionary)
        try:
            self.decompressor(0).finish()  # libzstd digests the dictionary for the first stream
        except zstandard.ZstdError as error:
            raise base.CodecError("dictionary-invalid", f"{self.dict_id}: {error}") from error

    @classmethod
    def verified(
        cls,
        dictionary: bytes,
        dict_id: str,
        sha256: str | None = None,
        level: int = zstd.DEFAULT_LEVEL,
    ) -> Self:
        """Return the codec of a dictionary that was fetched by its id.

        `sha256` is the whole fingerprint where one is known. CodecError: dictionary-mismatch when
        the bytes have another fingerprint, dictionary-invalid.
        """
        actual = fingerprint(dictionary)
        if actual[:ID_LENGTH] != dict_id or (sha256 is not None and actual != sha256):
            raise base.CodecError("dictionary-mismatch", f"{dict_id} has SHA-256 {actual}")
        return cls(dictionary, level)

    @property
    def id(self) -> CodecId:
        """The number written into frame headers."""
        return CodecId.CPU_ZSTD_DICT

    @property
    def dict_id(self) -> str:
        """The 16 hex digits objects name this dictionary by."""
        return self.sha256[:ID_LENGTH]

    @property
    def is_trained(self) -> bool:
        """Whether payloads say which dictionary they need; with raw content they do not."""
        return self._dictionary.dict_id() != 0

    @property
    def data(self) -> bytes:
        """The dictionary itself, a copy on each call."""
        return self._dictionary.as_bytes()
