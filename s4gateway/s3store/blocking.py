"""Writers and readers for programs without an event loop.

Rule: these are the asynchronous ones, run on the event loop in the thread of their target; nothing
is done twice, so nothing can differ. The thread is entered once for a call, and when iterating once
for a partition. `timeout` is in seconds; it and Control-C wait until a commit that has begun is
finished.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Generic, Self, TypedDict, TypeVar, Unpack

import pyarrow as pa

from s4gateway.s3store.committing import MarkerSource, TokenSource
from s4gateway.s3store.dedup import EntityKey, Version
from s4gateway.s3store.errors import ConfigError
from s4gateway.s3store.loop_thread import LoopThread
from s4gateway.s3store.partitions import HivePartition, Records
from s4gateway.s3store.reader import AsyncReader
from s4gateway.s3store.record_page import RecordPage
from s4gateway.s3store.results import DataFile, Offset, PollPage, StreamEntry, WriteResult
from s4gateway.s3store.sources import Patterns
from s4gateway.s3store.streams import PartitionStream, RecordStream
from s4gateway.s3store.target import S3Target
from s4gateway.s3store.writer import AsyncWriter

T = TypeVar("T")
_Result = TypeVar("_Result")


class WriteOptions(TypedDict, Generic[T], total=False):
    """What `AsyncWriter.write` takes besides the rows."""

    token: TokenSource[T]
    inserted_at: datetime | None
    optimistic: bool


class WriterOptions(TypedDict, Generic[T], total=False):
    """What `AsyncWriter` takes besides target and record."""

    partition_by: Callable[[T], str] | None
    compression: str
    compression_level: int | None
    inserted_at_field: str | None
    views: Sequence[MarkerSource]


class ReaderOptions(TypedDict, total=False):
    """What `AsyncReader` takes besides target and record."""

    entity_key: EntityKey
    version: Version
    columns: Sequence[str] | None


class IterOptions(TypedDict, total=False):
    """What the iterating methods of `AsyncReader` take."""

    history: bool
    read_ahead_partitions: int
    read_ahead_bytes: int


def runner_of(target: S3Target) -> LoopThread:
    """Return the loop of a target opened for blocking callers; raises ConfigError."""
    if target.runner is None:
        raise ConfigError("this target belongs to an event loop: use S3Target.open_blocking()")
    return target.runner


class Writer(Generic[T]):
    """`AsyncWriter` for blocking callers; `target` comes from `S3Target.open_blocking`."""

    def __init__(
        self,
        target: S3Target,
        record: type[T] | pa.Schema,
        **options: Unpack[WriterOptions[T]],
    ) -> None:
        self.target = target
        self.asynchronous: AsyncWriter[T] = AsyncWriter(target, record, **options)
        self._runner = runner_of(target)
        self.group_by_partition = self.asynchronous.group_by_partition
        self.partition_key = self.asynchronous.partition_key

    def write(
        self,
        records: Records[T],
        *,
        timeout: float | None = None,
        **options: Unpack[WriteOptions[T]],
    ) -> list[WriteResult]:
        """See `AsyncWriter.write`."""
        return self._runner.run(self.asynchronous.write(records, **options), timeout)

    def write_with_key(
        self,
        key: str,
        records: Records[T],
        *,
        timeout: float | None = None,
        **options: Unpack[WriteOptions[T]],
    ) -> WriteResult | None:
        """See `AsyncWriter.write_with_key`."""
        return self._runner.run(self.asynchronous.write_with_key(key, records, **options), timeout)

    def lookup_commit(
        self, key: str, token: str, *, timeout: float | None = None
    ) -> WriteResult | None:
        """See `AsyncWriter.lookup_commit`."""
        return self._runner.run(self.asynchronous.lookup_commit(key, token), timeout)

    def restamp_ref(self, prior: WriteResult, *, timeout: float | None = None) -> WriteResult:
        """See `AsyncWriter.restamp_ref`."""
        return self._runner.run(self.asynchronous.restamp_ref(prior), timeout)


class BlockingPartitionStream(Generic[T]):
    """An iterator and context manager over the partitions of a read."""

    def __init__(self, stream: PartitionStream[T], runner: LoopThread) -> None:
        self._stream = stream
        self._runner = runner

    @property
    def files_done(self) -> int:
        """How many files the partitions taken so far consist of."""
        return self._stream.files_done

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> HivePartition[T]:
        partition = self._runner.run(_next_partition(self._stream))
        if partition is None:
            raise StopIteration
        return partition

    def close(self) -> None:
        """End the read; harmless when repeated."""
        self._runner.run(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._stream.__aexit__(kind, error, trace))


class BlockingRecordStream(Generic[T]):
    """An iterator and context manager over the records of a read."""

    def __init__(self, stream: RecordStream[T], runner: LoopThread) -> None:
        self._stream = stream
        self._runner = runner
        self._rows: Iterator[T] = iter(())

    @property
    def files_done(self) -> int:
        """How many files have been decoded and taken."""
        return self._stream.files_done

    @property
    def rows_yielded(self) -> int:
        """How many records have been handed over."""
        return self._stream.rows_yielded

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        for row in self._rows:
            self._stream.count(1)
            return row
        rows = self._runner.run(self._stream.next_rows())
        if rows is None:
            raise StopIteration
        self._rows = iter(rows)
        return next(self)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the same rows as one table for each partition."""
        while (table := self._runner.run(self._stream.next_table())) is not None:
            yield table

    def close(self) -> None:
        """End the read; harmless when repeated."""
        self._runner.run(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._stream.__aexit__(kind, error, trace))


class Reader(Generic[T]):
    """`AsyncReader` for blocking callers; `target` comes from `S3Target.open_blocking`."""

    def __init__(
        self, target: S3Target, record: type[T] | pa.Schema, **options: Unpack[ReaderOptions]
    ) -> None:
        self.target = target
        self.asynchronous: AsyncReader[T] = AsyncReader(target, record, **options)
        self._runner = runner_of(target)
        self.offset_at = self.asynchronous.offset_at

    def read(
        self, patterns: Patterns, *, history: bool = False, timeout: float | None = None
    ) -> list[T]:
        """See `AsyncReader.read`."""
        return self._runner.run(self.asynchronous.read(patterns, history=history), timeout)

    def read_table(
        self, patterns: Patterns, *, history: bool = False, timeout: float | None = None
    ) -> pa.Table:
        """See `AsyncReader.read_table`."""
        return self._runner.run(self.asynchronous.read_table(patterns, history=history), timeout)

    def committed_files(
        self, patterns: Patterns, *, timeout: float | None = None
    ) -> list[DataFile]:
        """See `AsyncReader.committed_files`."""
        return self._runner.run(self.asynchronous.committed_files(patterns), timeout)

    def read_iter(
        self, patterns: Patterns, **options: Unpack[IterOptions]
    ) -> BlockingRecordStream[T]:
        """See `AsyncReader.read_iter`."""
        return self._records(self.asynchronous.read_iter(patterns, **options))

    def read_partition_iter(
        self, patterns: Patterns, **options: Unpack[IterOptions]
    ) -> BlockingPartitionStream[T]:
        """See `AsyncReader.read_partition_iter`."""
        return self._partitions(self.asynchronous.read_partition_iter(patterns, **options))

    def read_range_iter(
        self, since: datetime | None, until: datetime | None, **options: Unpack[IterOptions]
    ) -> BlockingRecordStream[T]:
        """See `AsyncReader.read_range_iter`."""
        return self._records(self.asynchronous.read_range_iter(since, until, **options))

    def read_partition_range_iter(
        self, since: datetime | None, until: datetime | None, **options: Unpack[IterOptions]
    ) -> BlockingPartitionStream[T]:
        """See `AsyncReader.read_partition_range_iter`."""
        stream = self.asynchronous.read_partition_range_iter(since, until, **options)
        return self._partitions(stream)

    def read_entries_iter(
        self, entries: Iterable[StreamEntry], **options: Unpack[IterOptions]
    ) -> BlockingRecordStream[T]:
        """See `AsyncReader.read_entries_iter`."""
        return self._records(self.asynchronous.read_entries_iter(entries, **options))

    def read_partition_entries_iter(
        self, entries: Iterable[StreamEntry], **options: Unpack[IterOptions]
    ) -> BlockingPartitionStream[T]:
        """See `AsyncReader.read_partition_entries_iter`."""
        stream = self.asynchronous.read_partition_entries_iter(entries, **options)
        return self._partitions(stream)

    def poll(
        self,
        since: Offset | None = None,
        max_entries: int = 1000,
        *,
        until: Offset | None = None,
        timeout: float | None = None,
    ) -> PollPage:
        """See `AsyncReader.poll`."""
        return self._runner.run(self.asynchronous.poll(since, max_entries, until=until), timeout)

    def poll_range(
        self, since: datetime | None, until: datetime | None, *, timeout: float | None = None
    ) -> list[StreamEntry]:
        """See `AsyncReader.poll_range`."""
        return self._runner.run(self.asynchronous.poll_range(since, until), timeout)

    def poll_records(
        self,
        since: Offset | None = None,
        max_entries: int = 100,
        *,
        until: Offset | None = None,
        timeout: float | None = None,
    ) -> RecordPage[T]:
        """See `AsyncReader.poll_records`."""
        work = self.asynchronous.poll_records(since, max_entries, until=until)
        return self._runner.run(work, timeout)

    def follow(
        self, since: Offset | None = None, *, max_entries: int = 100, interval: float = 1.0
    ) -> Iterator[RecordPage[T]]:
        """See `AsyncReader.follow`."""
        pages = self.asynchronous.follow(since, max_entries=max_entries, interval=interval)
        try:
            while True:
                yield self._runner.run(_next_page(pages))
        finally:
            self._runner.run(pages.aclose())

    def _records(self, stream: RecordStream[T]) -> BlockingRecordStream[T]:
        return BlockingRecordStream(stream, self._runner)

    def _partitions(self, stream: PartitionStream[T]) -> BlockingPartitionStream[T]:
        return BlockingPartitionStream(stream, self._runner)


async def _next_partition(stream: PartitionStream[T]) -> HivePartition[T] | None:
    """A coroutine must not end with StopAsyncIteration."""
    async for partition in stream:
        return partition
    return None


async def _next_page(pages: AsyncIterator[_Result]) -> _Result:
    return await anext(pages)
