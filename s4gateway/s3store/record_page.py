"""Rows of one poll of the change stream, as records and as a table."""

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import pyarrow as pa

from s4gateway.s3store.partitions import HivePartition
from s4gateway.s3store.results import Offset, StreamEntry

T = TypeVar("T")


class RecordPage(Generic[T]):
    """Rows of one poll and the offset to continue at; unpacks to `(records, next_offset)`."""

    def __init__(
        self, rows: HivePartition[T], entries: list[StreamEntry], next_offset: Offset
    ) -> None:
        self._rows = rows
        self.entries = entries
        self.next_offset = next_offset

    @property
    def records(self) -> list[T]:
        """The rows as records, made when first asked for."""
        return self._rows.rows

    @property
    def table(self) -> pa.Table:
        """The rows as a table."""
        return self._rows.table

    def __iter__(self) -> Iterator[Any]:
        yield self.records
        yield self.next_offset

    def __len__(self) -> int:
        return len(self._rows)
