"""What a store puts on its bill for an object: storage classes that count small objects as larger.

Rule: what was measured and what was concluded stay apart. Of one object, the billed bytes are
known. Of many of which only the number and the sum are known, two limits are: convexity gives both,
and no distribution of the sum over the objects leaves them.

Minimum billable sizes and the 40 KB an archived object costs besides its own size (32 KB at its
class's rate, 8 KB at S3 Standard's):
https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html#sc-compare
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Self

KIB: Final = 1024
STANDARD: Final = "STANDARD"


@dataclass(frozen=True, slots=True)
class Limits:
    """A number of bytes of which it is known that it lies between two, both included.

    >>> Limits(1, 2) + Limits.exactly(10)
    Limits(at_least=11, at_most=12)
    """

    at_least: int
    at_most: int

    @classmethod
    def exactly(cls, count: int) -> Self:
        """A number that is known."""
        return cls(count, count)

    @property
    def exact(self) -> bool:
        """Whether the number is known."""
        return self.at_least == self.at_most

    def __add__(self, other: "Limits") -> "Limits":
        return Limits(self.at_least + other.at_least, self.at_most + other.at_most)


ZERO: Final = Limits(0, 0)


@dataclass(frozen=True, slots=True)
class StorageClass:
    """A storage class as its bill sees it; sizes in bytes.

    An object is billed as `minimum` bytes if it is smaller, and as `overhead` bytes more in any
    case.
    """

    name: str
    minimum: int = 0
    overhead: int = 0

    @property
    def verbatim(self) -> bool:
        """Whether the bill counts exactly the bytes stored."""
        return not self.minimum and not self.overhead

    def billed(self, size: int) -> int:
        """Bytes on the bill for one object of `size` bytes.

        >>> CLASSES["STANDARD_IA"].billed(1000), CLASSES["GLACIER"].billed(1000)
        (131072, 41960)
        """
        return max(size, self.minimum) + self.overhead

    def limits(self, total: int, fewest: int, most: int | None = None) -> Limits:
        """Bytes on the bill for `fewest` to `most` objects of together `total` bytes.

        >>> CLASSES["STANDARD_IA"].limits(1_000_000, 10)
        Limits(at_least=1310720, at_most=2179648)
        """
        most = fewest if most is None else most
        least = max(total, fewest * self.minimum) + fewest * self.overhead
        if not most:
            return Limits(least, max(least, total))
        # The sum is largest when all bytes are one object's and every other one is empty.
        largest = max(total, self.minimum) + (most - 1) * self.minimum + most * self.overhead
        return Limits(least, largest)


_INFREQUENT: Final = 128 * KIB
_ARCHIVED: Final = 40 * KIB

CLASSES: Final[Mapping[str, StorageClass]] = MappingProxyType(
    {
        each.name: each
        for each in (
            StorageClass(STANDARD),
            StorageClass("REDUCED_REDUNDANCY"),
            StorageClass("INTELLIGENT_TIERING"),
            StorageClass("EXPRESS_ONEZONE"),
            StorageClass("STANDARD_IA", minimum=_INFREQUENT),
            StorageClass("ONEZONE_IA", minimum=_INFREQUENT),
            StorageClass("GLACIER_IR", minimum=_INFREQUENT),
            StorageClass("GLACIER", overhead=_ARCHIVED),
            StorageClass("DEEP_ARCHIVE", overhead=_ARCHIVED),
        )
    }
)
