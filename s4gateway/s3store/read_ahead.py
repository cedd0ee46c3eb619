"""How far a read may be ahead of its reader, and what of that is in use.

Rule: what counts is what is really held. A footer tells the size of pages, and repeated values are
many times larger once they are decoded, so what is expected of a file goes by what the ones before
it came to, and what is decoded counts with the size of its table.
"""

from dataclasses import dataclass
from typing import Final

_BODIES: Final = 64 * 1024 * 1024
_SHARE: Final = 4  # bodies may take a quarter of what tables may


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """How much may be decoded before it is asked for; 0 `bytes` is without limit."""

    partitions: int = 1
    bytes: int = 0

    @property
    def body_bytes(self) -> int:
        """How much may be fetched before it is decoded, 0 without limit."""
        return max(_BODIES, self.bytes // _SHARE) if self.bytes else 0


EVERYTHING: Final = ReadAhead(partitions=1 << 62)
"""For readers that hand over nothing before they have it all."""


class Budget:
    """The bytes of tables that are being decoded, or wait for the reader.

    >>> budget = Budget(100)
    >>> taken = budget.take(30)
    >>> budget.learn(30, 90)
    >>> taken = budget.settle(taken, 90)
    >>> budget.held, budget.fits(5)
    (90, False)
    """

    def __init__(self, limit: int) -> None:
        self.held = 0
        self._limit = limit
        self._pages = self._decoded = 0  # of what has been decoded

    def fits(self, pages: int) -> bool:
        """Whether there is room for the table these pages become; for one there always is."""
        return self.held == 0 or self.held + self._expected(pages) <= self._limit

    def take(self, pages: int) -> int:
        """Count a table that is to be decoded, and return what it counts for."""
        expected = self._expected(pages)
        self.held += expected
        return expected

    def learn(self, pages: int, decoded: int) -> None:
        """Take notice of what pages became."""
        self._pages += pages
        self._decoded += decoded

    def settle(self, counted: int, real: int) -> int:
        """Count what a table has, 0 once it is handed over, in place of what was counted."""
        self.held += real - counted
        return real

    def _expected(self, pages: int) -> int:
        return pages * self._decoded // self._pages if self._pages else pages
