"""Rows by partition: what a write is cut into, and what a read hands over.

Rule: partitions come in the order of their key's bytes, rows in the order they were given, and
every key is checked before anything is sent, so that one bad key writes nothing.
"""

import enum
from collections.abc import Callable, Sequence
from datetime import date, datetime
from operator import attrgetter
from typing import Any, Generic, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from s4gateway.s3store import layout
from s4gateway.s3store.dedup import numbered, ranked
from s4gateway.s3store.errors import ConfigError, PartitionKeyError
from s4gateway.s3store.records import RecordSpec

T = TypeVar("T")
Records: TypeAlias = Sequence[T] | pa.Table


class HivePartition(Generic[T]):
    """Rows of one partition, as `rows` and as `table`; each is made when it is first asked for."""

    def __init__(
        self, key: str, parts: Sequence[str], spec: RecordSpec[T], records: Records[T]
    ) -> None:
        self.key = key
        self._parts = parts
        self._spec = spec
        self._table: pa.Table | None = records if isinstance(records, pa.Table) else None
        self._rows: list[T] | None = None if isinstance(records, pa.Table) else list(records)

    @property
    def table(self) -> pa.Table:
        """The rows as a `pyarrow.Table` with the record's columns."""
        if self._table is None:
            self._table = self._spec.to_table(self._rows or [])
        return self._table

    @property
    def rows(self) -> list[T]:
        """The rows as records."""
        if self._rows is None:
            self._rows = self._spec.to_rows(self._table)
        return self._rows

    def rows_between(self, start: int, end: int) -> list[T]:
        """Return some of the rows as records, made for the caller and not kept."""
        return self._spec.to_rows(self.table.slice(start, end - start))

    @property
    def records(self) -> Records[T]:
        """The rows as they were given, without a conversion."""
        return self._table if self._rows is None else self._rows

    @property
    def values(self) -> dict[str, str]:
        """The value of each partition part."""
        found = layout.split_partition(self._parts, self.key)
        return dict(zip(self._parts, found, strict=True))

    def __len__(self) -> int:
        return len(self.rows) if self._table is None else int(self._table.num_rows)

    def __repr__(self) -> str:
        return f"<HivePartition {self.key!r}, {len(self)} rows>"


class Partitioner(Generic[T]):
    """Which partition a record belongs to: a callable, or the columns named like the parts."""

    def __init__(
        self,
        spec: RecordSpec[T],
        parts: Sequence[str],
        partition_by: Callable[[T], str] | None,
    ) -> None:
        self._spec = spec
        self._parts = tuple(parts)
        self._by = partition_by
        self._columns = None if partition_by else self._part_columns()

    def _part_columns(self) -> list[str] | None:
        """The record's fields that the parts are named after; None when it lacks one."""
        if not set(self._parts) <= set(self._spec.schema.names):
            return None
        for part in self._parts:
            type_ = self._spec.field(part).kind.type
            plain = pa.types.is_string(type_) or pa.types.is_integer(type_)
            if not (plain or pa.types.is_date(type_)):
                raise ConfigError(
                    f"partition part {part!r}: a column of type {type_} has no obvious text;"
                    " give partition_by"
                )
        return list(self._parts)

    def key(self, record: T) -> str:
        """Return the partition key of one record; raises ConfigError, PartitionKeyError."""
        if self._by is not None:
            key = self._by(record)
        else:
            read = self._reader()
            key = self._join([text(value) for value in read(record)])
        layout.split_partition(self._parts, key)
        return key

    def group(self, records: Records[T]) -> list[HivePartition[T]]:
        """Return the records by partition; raises before anything is sent."""
        if isinstance(records, pa.Table):
            groups = self._group_table(records)
        else:
            groups = self._group_rows(list(records))
        for key in groups:
            layout.split_partition(self._parts, key)
        return [
            HivePartition(key, self._parts, self._spec, groups[key])
            for key in sorted(groups, key=str.encode)
        ]

    def _group_rows(self, rows: list[T]) -> dict[str, Records[T]]:
        groups: dict[Any, list[T]] = {}
        key_of: Callable[[T], Any] = self._by or self._reader()
        for row in rows:
            groups.setdefault(key_of(row), []).append(row)
        if self._by is not None:
            return dict(groups)
        joined: dict[str, list[T]] = {}
        for values, members in groups.items():
            joined.setdefault(self._join([text(value) for value in values]), []).extend(members)
        return dict(joined)

    def _reader(self) -> Callable[[T], tuple[Any, ...]]:
        """What takes the parts' values out of a record."""
        columns = self._needed_columns()
        if self._spec.is_schema:
            return lambda row: tuple(row.get(column) for column in columns)  # type: ignore[attr-defined]
        attributes = [self._spec.field(column).attribute for column in columns]
        read = attrgetter(*attributes)
        return (lambda row: (read(row),)) if len(attributes) == 1 else read

    def _needed_columns(self) -> list[str]:
        if self._columns is None:
            raise ConfigError(
                f"the record has no columns {', '.join(self._parts)}: give partition_by"
            )
        return self._columns

    def _group_table(self, table: pa.Table) -> dict[str, Records[T]]:
        if self._by is not None:
            keys = pa.array(map(self._by, self._spec.to_rows(self._spec.for_writing(table))))
        else:
            keys = self._joined_column(table)
        if not table.num_rows:
            return {}
        places = pa.table({"key": ranked(keys), "row": numbered(table.num_rows)})
        order = pc.sort_indices(places, sort_keys=[("key", "ascending"), ("row", "ascending")])
        runs = (
            pc.run_end_encode(keys.take(order)).combine_chunks()
            if isinstance(keys, pa.ChunkedArray)
            else pc.run_end_encode(keys.take(order))
        )
        ordered = table.take(order)
        groups: dict[str, Records[T]] = {}
        start = 0
        for key, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            groups[key] = ordered.slice(start, end - start)
            start = end
        return groups

    def _joined_column(self, table: pa.Table) -> Any:
        """The partition key of every row of a table."""
        pieces: list[Any] = []
        for part in self._needed_columns():
            if part not in table.column_names:
                raise PartitionKeyError("", f"the table has no column {part!r}")
            column = table.column(part).combine_chunks()
            if column.null_count:
                raise PartitionKeyError("", f"column {part!r} holds nulls", part)
            slash = "/" if pieces else ""
            pieces += [pa.scalar(f"{slash}{part}="), pc.cast(column, pa.string())]
        return pc.binary_join_element_wise(*pieces, "")

    def _join(self, values: Sequence[str]) -> str:
        return "/".join(f"{p}={v}" for p, v in zip(self._parts, values, strict=True))


def text(value: Any) -> str:
    """Return the text of a partition value: str, int or date."""
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, str):
        return value
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise PartitionKeyError(repr(value), "is no text, integer or date")
