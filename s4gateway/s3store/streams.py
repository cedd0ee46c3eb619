"""Partitions and rows while they arrive: what the iterating methods of a reader return.

Rule: nothing is requested before the first item is asked for. Whoever leaves early closes the
stream, best with `async with`; a stream that is dropped half way ends its downloads and says so
with a ResourceWarning.
"""

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

import pyarrow as pa

from s4gateway.s3store.partitions import HivePartition
from s4gateway.s3store.pipeline import Pipeline
from s4gateway.s3store.telemetry import Method

T = TypeVar("T")
_INLINE: Final = 1000  # rows up to which making records is not worth a thread
_BATCH: Final = 10_000  # records made at a time: these are all that there are at any time


class Feed(Generic[T]):
    """One read: opened by the first `next`, counted as a call until it has ended."""

    def __init__(self, opened: Callable[[], Awaitable[Pipeline[T]]], method: Method) -> None:
        self.method = method
        self.pipeline: Pipeline[T] | None = None
        self.closed = False
        self._opened = opened
        self._begun = False

    async def next(self) -> HivePartition[T] | None:
        """Return the next partition, None after the last; any failure ends the read."""
        if self.closed:
            return None
        try:
            if self.pipeline is None:
                self.pipeline = await self._open()
            partition = await self.pipeline.next()
        except BaseException as error:
            await self.aclose(error)
            raise
        if partition is None:
            await self.aclose()
        return partition

    async def _open(self) -> Pipeline[T]:
        self._begun = True
        self.method.begin()
        with self.method.traced():
            pipeline = await self._opened()
            pipeline.start()
        return pipeline

    async def aclose(self, error: BaseException | None = None) -> None:
        """End the downloads and the call; harmless when repeated."""
        if self.closed:
            return
        self.closed = True
        try:
            if self.pipeline is not None:
                await self.pipeline.aclose()
        finally:
            if self._begun:
                self.method.end(error)

    def abandon(self) -> None:
        """End the downloads without waiting, and say that nobody closed them."""
        if self._begun and not self.closed:
            self.closed = True
            if self.pipeline is not None:
                self.pipeline.abandon()
            self.method.end()
            warnings.warn("a stream of a dataset was not closed", ResourceWarning, stacklevel=3)


class PartitionStream(Generic[T]):
    """An asynchronous iterator of partitions, in the order of their keys."""

    def __init__(self, feed: Feed[T]) -> None:
        self._feed = feed

    @property
    def files_done(self) -> int:
        """How many files the partitions taken so far consist of."""
        pipeline = self._feed.pipeline
        return 0 if pipeline is None else pipeline.files_done

    async def next_partition(self) -> HivePartition[T] | None:
        """Return the next partition, None after the last."""
        return await self._feed.next()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> HivePartition[T]:
        partition = await self._feed.next()
        if partition is None:
            raise StopAsyncIteration
        self._feed.method.records += len(partition)
        return partition

    async def aclose(self) -> None:
        """End the read; harmless when repeated."""
        await self._feed.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._feed.aclose(error)

    def __del__(self) -> None:
        self._feed.abandon()


class RecordStream(Generic[T]):
    """An asynchronous iterator of records, partition by partition; `tables()` gives them as Arrow.

    `rows_yielded` counts the records handed over, `files_done` the files they come from.
    """

    def __init__(self, feed: Feed[T]) -> None:
        self._feed = feed
        self._partition: HivePartition[T] | None = None
        self._taken = 0  # rows of it
        self._rows: list[T] = []
        self._position = 0
        self.rows_yielded = 0

    @property
    def files_done(self) -> int:
        """How many files have been decoded and taken."""
        pipeline = self._feed.pipeline
        return 0 if pipeline is None else pipeline.files_done

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while self._position >= len(self._rows):
            rows = await self.next_rows()
            if rows is None:
                raise StopAsyncIteration
            self._rows, self._position = rows, 0
        row = self._rows[self._position]
        self._position += 1
        self.count(1)
        return row

    async def next_rows(self) -> list[T] | None:
        """Return the next records, never none, or None after the last; `count` those used."""
        while self._partition is None or self._taken >= len(self._partition):
            self._partition, self._taken = None, 0  # not held while the next is waited for
            self._partition = await self._feed.next()
            if self._partition is None:
                return None
        start, self._taken = self._taken, self._taken + (_BATCH if self._taken else _INLINE)
        if not start:
            return self._partition.rows_between(start, self._taken)
        return await asyncio.to_thread(self._partition.rows_between, start, self._taken)

    def count(self, rows: int) -> None:
        """Note that records were handed over."""
        self.rows_yielded += rows
        self._feed.method.records += rows

    async def next_table(self) -> pa.Table | None:
        """Return the next partition's rows as a table, None after the last."""
        partition = await self._feed.next()
        if partition is None:
            return None
        self.count(len(partition))
        return partition.table

    async def tables(self) -> AsyncIterator[pa.Table]:
        """Yield the same rows as one table for each partition."""
        while (table := await self.next_table()) is not None:
            yield table

    async def aclose(self) -> None:
        """End the read; harmless when repeated."""
        await self._feed.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._feed.aclose(error)

    def __del__(self) -> None:
        self._feed.abandon()
