"""From the files of one partition to the rows a reader sees.

Rule: files are taken in the order of their keys and rows in the order of the file; which columns
are decoded is decided once for a read, and what only deduplication needs does not leave here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa

from s4gateway.s3store import parquet
from s4gateway.s3store.dedup import Dedup
from s4gateway.s3store.partitions import HivePartition
from s4gateway.s3store.records import RecordSpec

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """What a reader makes of files: `wanted` columns are handed over, `needed` ones decoded."""

    spec: RecordSpec[T]
    parts: Sequence[str]
    wanted: pa.Schema
    needed: pa.Schema
    dedup: Dedup | None
    history: bool

    @classmethod
    def of(
        cls,
        spec: RecordSpec[T],
        parts: Sequence[str],
        dedup: Dedup | None,
        columns: Sequence[str] | None,
    ) -> "View[T]":
        """Return the view with the latest version of each entity; raises ConfigError."""
        wanted = spec.schema if columns is None else spec.narrowed(columns)
        more = dedup.columns if dedup else []
        needed = spec.narrowed([*wanted.names, *more])
        return cls(spec, parts, wanted, needed, dedup, history=False)

    def decode(self, file: Any, key: str) -> pa.Table:
        """Return the needed columns of one file; raises DecodeError."""
        return parquet.decode(file, key, self.spec, self.needed)

    def partition(self, key: str, tables: Sequence[pa.Table]) -> HivePartition[T]:
        """Return the rows of a partition out of its files' tables."""
        table = pa.concat_tables(tables) if tables else self.needed.empty_table()
        if self.dedup is not None:
            table = self.dedup.apply(table, history=self.history)
        return HivePartition(key, self.parts, self.spec, table.select(self.wanted.names))
