"""What a listing holds, kind by kind, in memory that does not grow with it.

Rule: a stratum is what shares a key's extension, for that is what tells kinds of data apart before
one byte is read. Of each stratum the sizes are kept as a histogram, and a sample is drawn while
the listing goes by: the larger an object, the likelier it is drawn, because bytes are what is
estimated. The draw depends on the seed and the keys only, so the same bucket gives the same sample.

Weighted sampling without replacement: Efraimidis and Spirakis, "Weighted random sampling with a
reservoir", 2006 (https://doi.org/10.1016/j.ipl.2005.11.003).
"""

import hashlib
import heapq
import math
import re
from dataclasses import dataclass, field
from typing import Final

from s4gateway.tools.storage_classes import StorageClass
from s4gateway.tools.walk import Listed

NO_EXTENSION: Final = "(none)"
OTHERS: Final = "(others)"
_MOST_STRATA: Final = 500
_extension: Final = re.compile(r"[^/.][^/]*(\.[A-Za-z0-9]{1,12})$").search


def stratum_of(key: str) -> str:
    """Return a key's extension with its dot, in lower case.

    >>> stratum_of("logs/2026/a.JSON"), stratum_of("a/.hidden"), stratum_of("a.b/c")
    ('.json', '(none)', '(none)')
    """
    match = _extension(key.rpartition("/")[2])
    return match[1].lower() if match else NO_EXTENSION


@dataclass(slots=True)
class SizeClass:
    """Objects of sizes between two powers of two: how many, and their bytes."""

    objects: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Drawn:
    """An object, and the rank by which it was drawn."""

    rank: float
    entry: Listed


@dataclass(slots=True)
class Stratum:
    """The objects of one kind; `billed` are their bytes on the bill as they lie there."""

    name: str
    objects: int = 0
    size: int = 0
    billed: int = 0
    classes: dict[int, SizeClass] = field(default_factory=dict)
    _drawn: list[tuple[float, str, Listed]] = field(default_factory=list)

    def add(self, entry: Listed, storage: StorageClass, seed: int, keep: int) -> None:
        """Count an object, and have it among the `keep` that were drawn, perhaps."""
        self.objects += 1
        self.size += entry.size
        self.billed += storage.billed(entry.size)
        sizes = self.classes.setdefault(entry.size.bit_length(), SizeClass())
        sizes.objects += 1
        sizes.size += entry.size
        if entry.size:
            ranked = (-_rank(seed, entry), entry.key, entry)
            if len(self._drawn) < keep:
                heapq.heappush(self._drawn, ranked)
            else:
                heapq.heappushpop(self._drawn, ranked)

    @property
    def drawn(self) -> list[Drawn]:
        """What was drawn, first drawn first."""
        return [Drawn(-rank, entry) for rank, _, entry in sorted(self._drawn, reverse=True)]


def _rank(seed: int, entry: Listed) -> float:
    """Exponentially distributed with the size as its rate: the smallest ranks are the sample."""
    digest = hashlib.blake2b(f"{seed}/{entry.key}".encode(errors="surrogateescape"), digest_size=8)
    uniform = (int.from_bytes(digest.digest()) + 1) / (2**64 + 1)
    return -math.log(uniform) / entry.size


class Strata:
    """All strata of a listing, those beyond a number of kinds in one."""

    def __init__(self, storage: StorageClass, seed: int, keep: int) -> None:
        self._storage = storage
        self._seed = seed
        self._keep = keep
        self._found: dict[str, Stratum] = {}

    def add(self, entry: Listed) -> None:
        """Count an object."""
        name = stratum_of(entry.key)
        if name not in self._found and len(self._found) >= _MOST_STRATA:
            name = OTHERS
        stratum = self._found.setdefault(name, Stratum(name))
        stratum.add(entry, self._storage, self._seed, self._keep)

    def sorted(self) -> list[Stratum]:
        """The strata by name."""
        return sorted(self._found.values(), key=lambda each: each.name)
