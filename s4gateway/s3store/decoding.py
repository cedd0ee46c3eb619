"""From the files of one partition to the rows a reader sees.

Rule: files are taken in the order of their keys and rows in the order of the file; which columns
are decoded is decided once for a read, and what only deduplication needs does not leave here. At
any time as much is worked on as there are cores, in threads; files that a transport's own threads
decode on arrival are beside that.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from s4gateway.s3store import parquet
from s4gateway.s3store.dedup import Dedup
from s4gateway.s3store.errors import DecodeError
from s4gateway.s3store.fetching import Fetched, Fetcher, SparseFile
from s4gateway.s3store.partitions import HivePartition
from s4gateway.s3store.records import RecordSpec
from s4gateway.s3store.telemetry import Method

T = TypeVar("T")
_Result = TypeVar("_Result")
Arguments = ParamSpec("Arguments")

_SMALL_BYTES: Final = 32 * 1024
_SMALL_ROWS: Final = 1000


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

    def decode(self, file: Any, key: str, *, alone: bool) -> pa.Table:
        """Return the needed columns of one file; raises DecodeError."""
        return parquet.decode(file, key, self.spec, self.needed, alone=alone)

    def partition(self, key: str, tables: Sequence[pa.Table]) -> HivePartition[T]:
        """Return the rows of a partition out of its files' tables."""
        table = pa.concat_tables(tables) if tables else self.needed.empty_table()
        if self.dedup is not None:
            table = self.dedup.apply(table, history=self.history)
        return HivePartition(key, self.parts, self.spec, table.select(self.wanted.names))


class Decoder(Generic[T]):
    """Decodes the files of one read and puts its partitions together."""

    def __init__(
        self, view: View[T], fetcher: Fetcher, method: Method, files: int, *, frugal: bool
    ) -> None:
        cores = os.cpu_count() or 1
        self._view = view
        self._fetcher = fetcher
        self._method = method
        self._alone = files < cores
        self._frugal = frugal  # whether memory matters more than the time to get it anew
        self._cores = asyncio.Semaphore(cores)

    async def table(self, fetched: Fetched) -> pa.Table:
        """Return the rows of one file; raises DecodeError."""
        if fetched.table is not None:
            return fetched.table
        async with self._cores:
            table = await _worked(fetched.size <= _SMALL_BYTES, self.decode, fetched)
            if table is None:
                whole = await self._fetcher.whole(fetched.key)
                self._method.bytes += whole.size
                table = await _worked(False, self.decode, whole)
        assert table is not None
        return table

    async def partition(self, key: str, tables: Sequence[pa.Table]) -> HivePartition[T]:
        """Return the rows of a partition out of its files' tables."""
        rows = sum(table.num_rows for table in tables)
        # Without deduplication nothing is copied: the tables are put behind each other.
        small = self._view.dedup is None or rows <= _SMALL_ROWS
        async with self._cores:
            return await _worked(small, self._view.partition, key, tables)

    def decode(self, fetched: Fetched) -> pa.Table | None:
        """Return the rows, None when a part turned out to be missing that was not asked for.

        For any thread; raises DecodeError.
        """
        sparse = isinstance(fetched.source, SparseFile)
        try:
            file: pq.ParquetFile = parquet.open_file(fetched.source, fetched.key)
            if not sparse:
                self._fetcher.learn(file, fetched.size)
            table = self._view.decode(file, fetched.key, alone=self._alone)
        except DecodeError:
            if sparse and fetched.source.was_asked_for_more:
                return None
            raise
        if self._frugal and fetched.size > _SMALL_BYTES:
            pa.default_memory_pool().release_unused()
        return table


async def _worked(
    small: bool,
    work: Callable[Arguments, _Result],
    *arguments: Arguments.args,
    **options: Arguments.kwargs,
) -> _Result:
    """Do what may take long in a thread, and what takes less than the way there at once."""
    if small:
        return work(*arguments, **options)
    return await asyncio.to_thread(work, *arguments, **options)
