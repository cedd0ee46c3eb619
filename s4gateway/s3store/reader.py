"""Reading a dataset: snapshots by partition, the change stream by time, rows or Arrow tables.

Rule: a snapshot shows exactly the files that are committed, and a file of it that cannot be fetched
is an error; the change stream shows each commit once it is final, and passes over files that are
gone. Patterns, offsets and entries are checked before the first request.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, Generic, TypeVar

import pyarrow as pa

from s4gateway.s3store import errors
from s4gateway.s3store.calls import is_transient
from s4gateway.s3store.change_stream import ChangeStream
from s4gateway.s3store.decoding import View
from s4gateway.s3store.dedup import Dedup, EntityKey, Version
from s4gateway.s3store.downloading import Wanted
from s4gateway.s3store.partitions import HivePartition
from s4gateway.s3store.pipeline import Pipeline
from s4gateway.s3store.read_ahead import EVERYTHING, ReadAhead
from s4gateway.s3store.record_page import RecordPage
from s4gateway.s3store.records import RecordSpec
from s4gateway.s3store.resolution import resolve
from s4gateway.s3store.results import DataFile, Offset, PollPage, StreamEntry
from s4gateway.s3store.sources import Files, Patterns, Sources
from s4gateway.s3store.streams import Feed, PartitionStream, RecordStream
from s4gateway.s3store.target import S3Target
from s4gateway.s3store.telemetry import Method

_log = logging.getLogger(__name__)
T = TypeVar("T")

_INLINE: Final = 1000  # rows up to which making records is not worth a thread


class AsyncReader(Generic[T]):
    """Reads records of one type. `record` is a dataclass, a pydantic model or a pyarrow.Schema.

    With `entity_key` and `version` a reader sees the latest version of each entity of a partition;
    with `columns` it fetches and hands over only those.
    """

    def __init__(
        self,
        target: S3Target,
        record: type[T] | pa.Schema,
        *,
        entity_key: EntityKey = None,
        version: Version = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        target.validate()
        self.target = target
        self.spec: RecordSpec[T] = RecordSpec(record)
        dedup = Dedup.of(self.spec, entity_key, version)
        self._view = View.of(self.spec, target.partition_key_parts, dedup, columns)
        self._stream = ChangeStream(target)
        self._sources = Sources(target, self._stream)

    # --- snapshots

    async def read(self, patterns: Patterns, *, history: bool = False) -> list[T]:
        """Return the rows of the partitions that match, by partition and then by entity.

        Costs the LIST pages of each different pattern, one HEAD for each token with several files,
        and one GET for each file, more for a large one of which only some columns are wanted.
        `history` keeps every version. Raises KeyPatternError before any request, MissingDataError
        for a file that is listed and gone, DecodeError, CommitMetadataError, TransportError.
        """
        partitions = await self._read(patterns, history=history)
        if sum(map(len, partitions)) <= _INLINE:
            return _rows(partitions)
        return await asyncio.to_thread(_rows, partitions)

    async def read_table(self, patterns: Patterns, *, history: bool = False) -> pa.Table:
        """Return what `read` returns as a table."""
        partitions = await self._read(patterns, history=history)
        return self._concatenated([partition.table for partition in partitions])

    async def _read(self, patterns: Patterns, *, history: bool) -> list[HivePartition[T]]:
        files = self._sources.snapshot(patterns)
        feed = self._feed("read", files, EVERYTHING, history=history, tolerant=False)
        return await _all_of(feed)

    def read_iter(
        self,
        patterns: Patterns,
        *,
        history: bool = False,
        read_ahead_partitions: int = 1,
        read_ahead_bytes: int = 0,
    ) -> RecordStream[T]:
        """Return what `read` returns while it arrives, partition by partition.

        `read_ahead_partitions` may be decoded before they are asked for, with `read_ahead_bytes`
        only as many as take that many bytes. Close the stream when you leave it early.
        """
        ahead = _ahead(read_ahead_partitions, read_ahead_bytes)
        files = self._sources.snapshot(patterns)
        return RecordStream(self._feed("read_iter", files, ahead, history=history, tolerant=False))

    def read_partition_iter(
        self,
        patterns: Patterns,
        *,
        history: bool = False,
        read_ahead_partitions: int = 1,
        read_ahead_bytes: int = 0,
    ) -> PartitionStream[T]:
        """`read_iter`, a `HivePartition` at a time."""
        ahead = _ahead(read_ahead_partitions, read_ahead_bytes)
        files = self._sources.snapshot(patterns)
        return PartitionStream(
            self._feed("read_partition_iter", files, ahead, history=history, tolerant=False)
        )

    async def committed_files(self, patterns: Patterns) -> list[DataFile]:
        """Return the files a snapshot consists of, for engines that read Parquet themselves.

        An engine pointed at the prefix would read uncommitted files, too. Costs what listing costs.
        """
        return await resolve(self.target, self._sources.plans(patterns))

    # --- the change stream

    async def poll(
        self,
        since: Offset | None = None,
        max_entries: int = 1000,
        *,
        until: Offset | None = None,
    ) -> PollPage:
        """Return entries of the change stream after `since`, in its order, below `until`.

        No entries means nothing more for now; `next_offset` may have moved all the same. Costs LIST
        pages and one HEAD for each different (partition, token). Raises CrossStoreError,
        CommitMetadataError, TransportError; `since` then stays where to continue.
        """
        return await self._stream.poll(since, max_entries, until)

    async def poll_range(self, since: datetime | None, until: datetime | None) -> list[StreamEntry]:
        """Return all entries stamped from `since` until before `until`, None being the ends."""
        start, end = self._sources.bounds(since, until)
        return await self._stream.between(start, end)

    async def poll_records(
        self,
        since: Offset | None = None,
        max_entries: int = 100,
        *,
        until: Offset | None = None,
    ) -> RecordPage[T]:
        """Return the rows of one `poll`, by partition: every version once, files that are gone not.

        Costs the poll and one GET for each different file. After an error continue at `since`.
        """
        method = self.target.telemetry.method("poll_records")
        page = PollPage([], Offset(since or ""))

        async def files() -> list[Wanted]:
            nonlocal page
            page = await self._stream.poll(since, max_entries, until)
            return self._sources.wanted(page.entries)

        feed = self._feed("", files, EVERYTHING, history=True, tolerant=True, method=method)
        partitions = await _all_of(feed)
        table = self._concatenated([partition.table for partition in partitions])
        rows = HivePartition("", self.target.partition_key_parts, self.spec, table)
        return RecordPage(rows, page.entries, page.next_offset)

    async def follow(
        self, since: Offset | None = None, *, max_entries: int = 100, interval: float = 1.0
    ) -> AsyncGenerator[RecordPage[T], None]:
        """Yield pages of rows as they become final, for ever; pages without rows are left out.

        Asks again after `interval` seconds when there is nothing, or when the store is in trouble
        for a moment. To continue later, keep the `next_offset` of the last page you are done with.
        """
        offset = since
        while True:
            try:
                page = await self.poll_records(offset, max_entries)
            except errors.TransportError as error:
                if not is_transient(error):
                    raise
                _log.warning("following %s: %s", self.target.prefix, error)
                await self.target.clock.sleep(interval)
                continue
            offset = page.next_offset
            if page.entries:
                yield page
            else:
                await self.target.clock.sleep(interval)

    def read_range_iter(
        self,
        since: datetime | None,
        until: datetime | None,
        *,
        history: bool = False,
        read_ahead_partitions: int = 1,
        read_ahead_bytes: int = 0,
    ) -> RecordStream[T]:
        """Return the rows committed from `since` until before `until`, by partition.

        None is the beginning, and what is final now: the moment of this call, not of the first row.
        Costs `poll_range` and one GET for each different file; files that are gone are passed over.
        """
        ahead = _ahead(read_ahead_partitions, read_ahead_bytes)
        files = self._sources.range(since, until)
        return RecordStream(
            self._feed("read_range_iter", files, ahead, history=history, tolerant=True)
        )

    def read_partition_range_iter(
        self,
        since: datetime | None,
        until: datetime | None,
        *,
        history: bool = False,
        read_ahead_partitions: int = 1,
        read_ahead_bytes: int = 0,
    ) -> PartitionStream[T]:
        """`read_range_iter`, a `HivePartition` at a time."""
        ahead = _ahead(read_ahead_partitions, read_ahead_bytes)
        files = self._sources.range(since, until)
        return PartitionStream(
            self._feed("read_partition_range_iter", files, ahead, history=history, tolerant=True)
        )

    def read_entries_iter(
        self,
        entries: Iterable[StreamEntry],
        *,
        history: bool = False,
        read_ahead_partitions: int = 1,
        read_ahead_bytes: int = 0,
    ) -> RecordStream[T]:
        """Return the rows of some entries, by partition: one GET for each different file.

        Files that are gone are passed over. Raises CrossStoreError for an entry of another dataset.
        """
        ahead = _ahead(read_ahead_partitions, read_ahead_bytes)
        files = self._sources.entries(entries)
        return RecordStream(
            self._feed("read_entries_iter", files, ahead, history=history, tolerant=True)
        )

    def read_partition_entries_iter(
        self,
        entries: Iterable[StreamEntry],
        *,
        history: bool = False,
        read_ahead_partitions: int = 1,
        read_ahead_bytes: int = 0,
    ) -> PartitionStream[T]:
        """`read_entries_iter`, a `HivePartition` at a time."""
        ahead = _ahead(read_ahead_partitions, read_ahead_bytes)
        files = self._sources.entries(entries)
        return PartitionStream(
            self._feed("read_partition_entries_iter", files, ahead, history=history, tolerant=True)
        )

    def offset_at(self, moment: datetime) -> Offset:
        """Return the offset below all entries stamped at `moment` or later, without a request."""
        return self._stream.offset_at(moment)

    def _feed(
        self,
        name: str,
        files: Files,
        ahead: ReadAhead,
        *,
        history: bool,
        tolerant: bool,
        method: Method | None = None,
    ) -> Feed[T]:
        method = method or self.target.telemetry.method(name)
        view = replace(self._view, history=history)

        async def opened() -> Pipeline[T]:
            return Pipeline(self.target, view, await files(), ahead, method, tolerant=tolerant)

        return Feed(opened, method)

    def _concatenated(self, tables: Sequence[pa.Table]) -> pa.Table:
        return pa.concat_tables(tables) if tables else self._view.wanted.empty_table()


def _rows(partitions: Sequence[HivePartition[T]]) -> list[T]:
    return [row for partition in partitions for row in partition.rows]


def _ahead(partitions: int, octets: int) -> ReadAhead:
    return ReadAhead(max(0, partitions), max(0, octets))


async def _all_of(feed: Feed[T]) -> list[HivePartition[T]]:
    """Every partition of a read that is wanted as a whole."""
    partitions = []
    while (partition := await feed.next()) is not None:
        feed.method.records += len(partition)
        partitions.append(partition)
    return partitions
