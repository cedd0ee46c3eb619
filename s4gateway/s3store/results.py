"""What calls return: plain values, times in UTC.

Rule: an offset is opaque to callers and ordered as text; everything in a `WriteResult` can be told
again from the commit marker alone, so a repeated write returns an equal one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, NewType

Offset = NewType("Offset", str)


@dataclass(frozen=True, slots=True)
class WriteResult:
    """One committed partition: where its rows lie, and where the change stream tells of them."""

    offset: Offset
    data_path: str
    ref_path: str
    inserted_at: datetime
    row_count: int


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry of the change stream: `row_count` rows of partition `key` lie at `data_path`.

    `inserted_at` is when the entry was stamped, which for a restamped one is later than the write.
    """

    offset: Offset
    key: str
    data_path: str
    ref_path: str
    inserted_at: datetime
    row_count: int


class PollPage(NamedTuple):
    """Entries of the change stream, and the offset to continue at."""

    entries: list[StreamEntry]
    next_offset: Offset


@dataclass(frozen=True, slots=True)
class DataFile:
    """A committed data file; `size` in bytes."""

    key: str
    partition: str
    token: str
    attempt: str
    size: int
    last_modified: datetime


def partition_keys_of(entries: Iterable[StreamEntry]) -> list[str]:
    """Return the different partition keys of the entries, sorted by their bytes.

    >>> partition_keys_of([])
    []
    """
    return sorted({entry.key for entry in entries}, key=str.encode)
