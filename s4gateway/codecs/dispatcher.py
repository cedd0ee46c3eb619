"""Is a body worth compressing? Decided from its first 4 KiB.

    1  a magic number of a compressed format, and the bytes behind it look random   passthrough
    2  fewer than 128 bytes                                                         default codec
    3  the bytes look random                                                        passthrough
    4  otherwise                                                                    default codec

"Look random" means a Shannon entropy of at least 7.5 bits per byte. Names and Content-Types are not
asked: they lie. A wrong pick costs a little space or time, never data.
"""

import collections
import math
from typing import Final, Literal

from s4gateway.wire.codec_id import CodecId

SAMPLE_SIZE: Final = 4096
ENTROPY_THRESHOLD: Final = 7.5

Mode = Literal["sampling", "always"]

_MIN_SAMPLE: Final = 128
# Behind a magic number the format's own header is not looked at.
_MAGIC_SKIP: Final = 16
_MIN_MAGIC_SAMPLE: Final = 48

_MAGICS: Final = (
    b"\x1f\x8b",  # gzip
    b"\x28\xb5\x2f\xfd",  # zstd
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",  # JPEG
    b"%PDF-",
    b"PK\x03\x04",  # ZIP
    b"7z\xbc\xaf\x27\x1c",
    b"\xfd7zXZ\x00",
    b"BZh",
    b"\x1a\x45\xdf\xa3",  # EBML: Matroska, WebM
)

# c * log2(c) for every count a sample can have.
_C_LOG_C: Final = (0.0, *(count * math.log2(count) for count in range(1, SAMPLE_SIZE + 1)))

# Text is told from its printable share, without counting every byte: when at most one byte in six
# is none of these 98, no distribution reaches 7.43 bits, not even behind the first 16 bytes.
_PRINTABLE: Final = bytes(range(0x20, 0x7F)) + b"\t\n\r"
_TEXT_SHARE: Final = 6


class Dispatcher:
    """Picks the codec for a body.

    `default` is the codec of what compresses; in mode "always" the sample is not looked at.

    >>> dispatcher = Dispatcher(CodecId.CPU_ZSTD)
    >>> dispatcher.pick(b"the quick brown fox " * 50).label
    'cpu-zstd'
    >>> dispatcher.pick(bytes(range(256)) * 16).label
    'passthrough'
    """

    __slots__ = ("_default", "_looks")

    def __init__(self, default: CodecId, mode: Mode = "sampling") -> None:
        self._default = default
        self._looks = mode == "sampling"

    def pick(self, sample: bytes) -> CodecId:
        """Return the codec for the body that starts with `sample`; 4096 bytes are looked at."""
        if self._looks and looks_random(sample[:SAMPLE_SIZE]):
            return CodecId.PASSTHROUGH
        return self._default


def looks_random(sample: bytes) -> bool:
    """Whether a sample of at most 4096 bytes is not worth compressing."""
    if _is_text(sample):
        return False
    if (
        len(sample) > _MIN_MAGIC_SAMPLE
        and has_magic(sample)
        and entropy(sample[_MAGIC_SKIP:]) >= ENTROPY_THRESHOLD
    ):
        return True
    return len(sample) >= _MIN_SAMPLE and entropy(sample) >= ENTROPY_THRESHOLD


def has_magic(sample: bytes) -> bool:
    """Whether a sample starts as one of the compressed formats does."""
    return (
        sample.startswith(_MAGICS)
        or sample[4:8] == b"ftyp"  # MP4, HEIC, AVIF
        or (sample.startswith(b"RIFF") and sample[8:12] == b"WEBP")
    )


def entropy(sample: bytes) -> float:
    """Return the Shannon entropy of at most 4096 bytes, in bits per byte; 0.0 for none.

    >>> entropy(b"aabb"), entropy(b"")
    (1.0, 0.0)
    """
    if not sample:
        return 0.0
    counts = collections.Counter(sample).values()
    return math.log2(len(sample)) - sum(map(_C_LOG_C.__getitem__, counts)) / len(sample)


def _is_text(sample: bytes) -> bool:
    return len(sample.translate(None, _PRINTABLE)) * _TEXT_SHARE <= len(sample)
