"""A dataset as one object: a writer and a reader over one target.

Rule: a store adds nothing of its own; its methods are those of its writer and its reader.

    async with await AsyncStore.open(config, Order, entity_key="id", version="rev") as orders:
        await orders.write(batch, token="import-42")
        latest = await orders.read("period=2026-03-*/customer=*")
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

import pyarrow as pa

from s4gateway.s3store.blocking import Reader, Writer
from s4gateway.s3store.committing import MarkerSource
from s4gateway.s3store.dedup import EntityKey, Version
from s4gateway.s3store.reader import AsyncReader
from s4gateway.s3store.target import S3Target, S3TargetConfig
from s4gateway.s3store.writer import AsyncWriter

T = TypeVar("T")
U = TypeVar("U")


class AsyncStore(Generic[T]):
    """An open dataset of one record type; `open` makes it."""

    def __init__(self, writer: AsyncWriter[T], reader: AsyncReader[T]) -> None:
        self.writer = writer
        self.reader = reader
        self.target = writer.target
        self.write = writer.write
        self.write_with_key = writer.write_with_key
        self.lookup_commit = writer.lookup_commit
        self.restamp_ref = writer.restamp_ref
        self.group_by_partition = writer.group_by_partition
        self.partition_key = writer.partition_key
        self.read = reader.read
        self.read_table = reader.read_table
        self.read_iter = reader.read_iter
        self.read_partition_iter = reader.read_partition_iter
        self.read_range_iter = reader.read_range_iter
        self.read_partition_range_iter = reader.read_partition_range_iter
        self.read_entries_iter = reader.read_entries_iter
        self.read_partition_entries_iter = reader.read_partition_entries_iter
        self.poll = reader.poll
        self.poll_range = reader.poll_range
        self.poll_records = reader.poll_records
        self.follow = reader.follow
        self.offset_at = reader.offset_at
        self.committed_files = reader.committed_files

    @classmethod
    async def open(  # noqa: PLR0913 - one dataset
        cls,
        config: S3TargetConfig,
        record: type[T] | pa.Schema,
        *,
        partition_by: Callable[[T], str] | None = None,
        entity_key: EntityKey = None,
        version: Version = None,
        inserted_at_field: str | None = None,
        compression: str = "snappy",
        views: Sequence[MarkerSource] = (),
    ) -> "AsyncStore[T]":
        """Open a dataset: two GETs. Raises ConfigError, TimingConfigError, TransportError."""
        target = await S3Target.open(config)
        try:
            writer = AsyncWriter(
                target,
                record,
                partition_by=partition_by,
                compression=compression,
                inserted_at_field=inserted_at_field,
                views=views,
            )
            reader = AsyncReader(target, record, entity_key=entity_key, version=version)
        except BaseException:
            await target.aclose()
            raise
        return cls(writer, reader)

    def narrow(
        self, record: type[U], *, entity_key: EntityKey = None, version: Version = None
    ) -> AsyncReader[U]:
        """Return a reader of another record type over the same target: fewer columns, say."""
        return AsyncReader(self.target, record, entity_key=entity_key, version=version)

    async def aclose(self) -> None:
        """Close the target; the client stays open."""
        await self.target.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class Store(Generic[T]):
    """`AsyncStore` for blocking callers."""

    def __init__(self, writer: Writer[T], reader: Reader[T]) -> None:
        self.writer = writer
        self.reader = reader
        self.target = writer.target
        self.write = writer.write
        self.write_with_key = writer.write_with_key
        self.lookup_commit = writer.lookup_commit
        self.restamp_ref = writer.restamp_ref
        self.group_by_partition = writer.group_by_partition
        self.partition_key = writer.partition_key
        self.read = reader.read
        self.read_table = reader.read_table
        self.read_iter = reader.read_iter
        self.read_partition_iter = reader.read_partition_iter
        self.read_range_iter = reader.read_range_iter
        self.read_partition_range_iter = reader.read_partition_range_iter
        self.read_entries_iter = reader.read_entries_iter
        self.read_partition_entries_iter = reader.read_partition_entries_iter
        self.poll = reader.poll
        self.poll_range = reader.poll_range
        self.poll_records = reader.poll_records
        self.follow = reader.follow
        self.offset_at = reader.offset_at
        self.committed_files = reader.committed_files

    @classmethod
    def open(  # noqa: PLR0913 - one dataset
        cls,
        config: S3TargetConfig,
        record: type[T] | pa.Schema,
        *,
        partition_by: Callable[[T], str] | None = None,
        entity_key: EntityKey = None,
        version: Version = None,
        inserted_at_field: str | None = None,
        compression: str = "snappy",
        views: Sequence[MarkerSource] = (),
        timeout: float | None = None,
    ) -> "Store[T]":
        """Open a dataset: two GETs. Raises ConfigError, TimingConfigError, TransportError."""
        target = S3Target.open_blocking(config, timeout=timeout)
        try:
            writer = Writer(
                target,
                record,
                partition_by=partition_by,
                compression=compression,
                inserted_at_field=inserted_at_field,
                views=views,
            )
            reader = Reader(target, record, entity_key=entity_key, version=version)
        except BaseException:
            target.close()
            raise
        return cls(writer, reader)

    def narrow(
        self, record: type[U], *, entity_key: EntityKey = None, version: Version = None
    ) -> Reader[U]:
        """Return a reader of another record type over the same target: fewer columns, say."""
        return Reader(self.target, record, entity_key=entity_key, version=version)

    def close(self) -> None:
        """Close the target and end its thread; the client stays open."""
        self.target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
