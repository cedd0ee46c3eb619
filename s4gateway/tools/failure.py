"""What went wrong for single keys while the run went on: counted without a bound, named within one.

Rule: one object's failure ends no run, and a run over ten million broken objects still has a report
that fits into memory.
"""

from typing import Final, Generic, Protocol, TypeVar

from s4gateway.values import immutable

NAMED: Final = 10_000  # entries of each kind that a report names; all of them are counted


@immutable
class Failure:
    """Something that could not be found out or done for one key; `op` says what."""

    key: str
    op: str
    cause: str


class _Keyed(Protocol):
    @property
    def key(self) -> str: ...


_Entry = TypeVar("_Entry", bound=_Keyed)


class Bounded(Generic[_Entry]):
    """The first entries of a kind, and how many there were.

    >>> found = Bounded[Failure](limit=1)
    >>> for key in ("b", "a"):
    ...     found.add(Failure(key, "read", "gone"))
    >>> found.count, [each.key for each in found.sorted()], found.is_cut
    (2, ['b'], True)
    """

    __slots__ = ("_limit", "_named", "count")

    def __init__(self, limit: int = NAMED) -> None:
        self._named: list[_Entry] = []
        self._limit = limit
        self.count = 0

    def add(self, entry: _Entry) -> None:
        """Count an entry, and keep it if there is room."""
        self.count += 1
        if len(self._named) < self._limit:
            self._named.append(entry)

    def sorted(self) -> tuple[_Entry, ...]:
        """The entries that were kept, by key."""
        return tuple(sorted(self._named, key=lambda each: each.key))

    @property
    def is_cut(self) -> bool:
        """Whether some are counted only."""
        return self.count > len(self._named)
