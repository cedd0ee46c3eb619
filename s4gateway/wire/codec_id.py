"""The frozen numbers and names of the codecs.

A number stands in every frame header, a name in the object's metadata; both are stored for ever, so
neither is ever changed or given a second meaning. The GPU codecs are known here in order to be
refused by name, which is another answer than "written by a newer version".
"""

from enum import IntEnum
from typing import Final

from s4gateway.wire import errors


class CodecId(IntEnum):
    """A codec as frames and metadata name it.

    >>> CodecId.CPU_ZSTD.label, CodecId.from_label("nvcomp-gans")
    ('cpu-zstd', <CodecId.NVCOMP_GANS: 4>)
    """

    PASSTHROUGH = 0
    CPU_ZSTD = 1
    NVCOMP_ZSTD = 2
    NVCOMP_BITCOMP = 3
    NVCOMP_GANS = 4
    DIETGPU_ANS = 5
    NVCOMP_GDEFLATE = 6
    CPU_GZIP = 7
    CPU_ZSTD_DICT = 8

    # Looked up for every frame; an Enum's own hash is a function in Python.
    __hash__ = int.__hash__

    @property
    def label(self) -> str:
        """The name in metadata, for example ``cpu-zstd``."""
        return _LABELS[self]

    @property
    def needs_gpu(self) -> bool:
        """Whether this codec is recognised but cannot be read or written here."""
        return CodecId.NVCOMP_ZSTD <= self <= CodecId.NVCOMP_GDEFLATE

    @classmethod
    def from_label(cls, label: str) -> "CodecId | None":
        """Return the codec of exactly this name, or None; names are case-sensitive."""
        return _BY_LABEL.get(label)

    @classmethod
    def from_number(cls, number: int) -> "CodecId":
        """Return the codec of this number; CodecIdError when it is unassigned."""
        if 0 <= number < len(_BY_NUMBER):
            return _BY_NUMBER[number]
        raise errors.CodecIdError(number)


# The numbers are dense from 0, so a tuple is the table.
_BY_NUMBER: Final = tuple(CodecId)
_LABELS: Final = tuple(codec.name.lower().replace("_", "-") for codec in CodecId)
_BY_LABEL: Final = dict(zip(_LABELS, _BY_NUMBER, strict=True))
