"""What a store can and cannot do, as its operator states it.

The S3 API is one and its implementations differ in three ways that a gateway has to know: whether
the parts of a multipart upload must be equally long, whether a write is refused when its If-Match
or If-None-Match does not hold, and which checksum header of an upload is understood. Rule: what is
not stated is found out, or the careful choice is made; nothing here is guessed from a host name.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Self

FLAG: Final = "--backend-profile"  # as operators know it, for messages


class Checksum(StrEnum):
    """The integrity header that uploads to the store carry."""

    NONE = "none"
    MD5 = "md5"
    CRC32 = "crc32"
    CRC32C = "crc32c"
    CRC64NVME = "crc64nvme"

    @property
    def algorithm(self) -> str | None:
        """The x-amz-checksum-* algorithm, None where none is sent."""
        return None if self in (Checksum.NONE, Checksum.MD5) else self.value


_WORDS: Final[Mapping[str, tuple[str, Any]]] = MappingProxyType(
    {
        "uniform-parts": ("uniform_parts", True),
        "conditional-writes": ("conditional_writes", True),
        "no-conditional-writes": ("conditional_writes", False),
        **{f"checksums={each}": ("checksums", each) for each in Checksum},
    }
)

_NOT_TAKEN: Final = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest"})


@dataclass(frozen=True, slots=True)
class BackendProfile:
    """One store.

    `uniform_parts`: all parts of an upload but the last must have the same length (Cloudflare R2).
    `conditional_writes`: whether it refuses a write whose condition does not hold; None asks it.

    >>> str(BackendProfile.parse("uniform-parts, checksums=crc32c"))
    'uniform-parts,checksums=crc32c'
    """

    uniform_parts: bool = False
    conditional_writes: bool | None = None
    checksums: Checksum = Checksum.MD5

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse words between commas or spaces; ValueError names everything that is wrong."""
        values: dict[str, Any] = {}
        problems: list[str] = []
        for word in re.split(r"[\s,]+", text.lower().strip(" ,")):
            field, value = _WORDS.get(word, (None, None))
            if field is None:
                problems.append(_unknown(word))
            elif values.setdefault(field, value) != value:
                problems.append(f"says two things about {field.replace('_', '-')}")
        if problems:
            raise ValueError("; ".join(dict.fromkeys(problems)))
        return cls(**values)

    def __str__(self) -> str:
        words = ["uniform-parts"] if self.uniform_parts else []
        if self.conditional_writes is not None:
            words.append(("" if self.conditional_writes else "no-") + "conditional-writes")
        return ",".join([*words, f"checksums={self.checksums}"])


def _unknown(word: str) -> str:
    if not word:
        return "is empty"
    close = difflib.get_close_matches(word, _WORDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(_WORDS)}"
    return f"names {word!r}, which is nothing known ({hint})"


def advice(code: str, message: str) -> str | None:
    """Return the word of the profile that a store's refusal of an upload asks for, if it does.

    >>> advice("InvalidPart", "All non-trailing parts must have the same length.")
    'uniform-parts'
    """
    text = message.lower()
    if code == "InvalidPart" and "same length" in text:
        return "uniform-parts"
    if "content-md5" in text and "required" in text:
        return f"checksums={Checksum.CRC32C}"  # which small bodies carry, too
    if code in _NOT_TAKEN and "x-amz-checksum" in text:
        return "checksums=md5"
    return None
