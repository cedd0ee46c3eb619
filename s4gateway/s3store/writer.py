"""Writing to a dataset: rows or tables in, one commit for each partition out.

Rule: everything that can be known beforehand is checked before the first request: partition keys,
tokens, columns, key lengths. Partitions are committed independently of each other; there is no
commit across partitions, and what landed is always told, in an error too.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import pyarrow as pa

from s4gateway.s3store import layout
from s4gateway.s3store.committing import MarkerSource, Order, PartitionWriter, TokenSource
from s4gateway.s3store.errors import (
    CommitAfterTimeoutError,
    ConfigError,
    CrossStoreError,
    PartialWriteError,
    WriteError,
)
from s4gateway.s3store.fan_out import fan_out
from s4gateway.s3store.parquet import Encoder
from s4gateway.s3store.partitions import HivePartition, Partitioner, Records
from s4gateway.s3store.records import RecordSpec
from s4gateway.s3store.results import WriteResult
from s4gateway.s3store.target import S3Target
from s4gateway.s3store.telemetry import Method

T = TypeVar("T")
_INLINE: Final = 1000  # rows up to which grouping is not worth a thread


class AsyncWriter(Generic[T]):
    """Writes records of one type. `record` is a dataclass, a pydantic model or a pyarrow.Schema.

    `partition_by` makes a record's partition key; without it the columns named like the partition
    parts do. `inserted_at_field` names a column that every write fills with its insertion time.
    """

    def __init__(
        self,
        target: S3Target,
        record: type[T] | pa.Schema,
        *,
        partition_by: Callable[[T], str] | None = None,
        compression: str = "snappy",
        compression_level: int | None = None,
        inserted_at_field: str | None = None,
        views: Sequence[MarkerSource] = (),
    ) -> None:
        target.validate()
        self.target = target
        self.spec: RecordSpec[T] = RecordSpec(record)
        self._partitioner = Partitioner(self.spec, target.partition_key_parts, partition_by)
        self._write = PartitionWriter(
            target,
            self.spec,
            Encoder(compression, compression_level),
            _time_column(self.spec, inserted_at_field),
            _bound(views, self.spec, target.keys),
        )

    async def write(
        self,
        records: Records[T],
        *,
        token: TokenSource[T] = None,
        inserted_at: datetime | None = None,
        optimistic: bool = False,
    ) -> list[WriteResult]:
        """Write records to the partitions they belong to; results in the order of the keys.

        Each partition costs 3 PUTs, one more for each view marker, and with a token one HEAD unless
        `optimistic`; a token that is committed already costs the HEAD alone and returns what the
        first write returned. The first partition that fails stops those whose data is not stored
        yet. Raises PartialWriteError when others landed, CommitAfterTimeoutError when all landed
        and some too late, else the failure itself.
        """
        with self.target.telemetry.method("write") as method:
            partitions = await self._grouped(records)
            order = Order(token, inserted_at, optimistic)
            return await _ManyPartitions(self._write, order, method).write(partitions)

    async def write_with_key(
        self,
        key: str,
        records: Records[T],
        *,
        token: TokenSource[T] = None,
        inserted_at: datetime | None = None,
        optimistic: bool = False,
    ) -> WriteResult | None:
        """Write all records to one partition; None for no records, without a request.

        Costs what one partition of `write` costs. Raises WriteError and its kinds.
        """
        with self.target.telemetry.method("write_with_key") as method:
            parts = self.target.partition_key_parts
            layout.split_partition(parts, key)
            partition = HivePartition(key, parts, self.spec, records)
            if not len(partition):
                return None
            order = Order(token, inserted_at, optimistic)
            given = order.token_for(partition)
            return await self._write.write(partition, given, order, method, _nobody)

    async def lookup_commit(self, key: str, token: str) -> WriteResult | None:
        """Return what was committed under a token, None when nothing was: one HEAD.

        It tells of the first ref, also after `restamp_ref`. Raises CommitMetadataError.
        """
        with self.target.telemetry.method("lookup_commit"):
            layout.split_partition(self.target.partition_key_parts, key)
            return await self._write.lookup(key, layout.check_token(token))

    async def restamp_ref(self, prior: WriteResult) -> WriteResult:
        """Give a committed write another entry in the change stream, at its end: one PUT.

        For what CommitAfterTimeoutError reported; readers of the stream then see the rows, those
        that had seen them see them twice. Raises CrossStoreError, WriteError and its kinds.
        """
        with self.target.telemetry.method("restamp_ref"):
            keys = self.target.keys
            for path, root in ((prior.ref_path, keys.ref_root), (prior.data_path, keys.data_root)):
                if not path.startswith(root):
                    raise CrossStoreError(path, root)
            ref = layout.parse_ref(prior.ref_path)
            if ref is None:
                raise CrossStoreError(prior.ref_path, keys.ref_root)
            return await self._write.restamp(prior, ref)

    def group_by_partition(self, records: Records[T]) -> list[HivePartition[T]]:
        """Return what `write` would write, partition by partition in the order of the keys."""
        return self._partitioner.group(records)

    def partition_key(self, record: T) -> str:
        """Return the partition key of a record."""
        return self._partitioner.key(record)

    async def _grouped(self, records: Records[T]) -> list[HivePartition[T]]:
        if len(records) <= _INLINE:
            return self._partitioner.group(records)
        return await asyncio.to_thread(self._partitioner.group, records)


def _nobody(_: WriteResult) -> None:
    """Nobody else needs to hear of it."""


def _time_column(spec: RecordSpec[Any], name: str | None) -> str | None:
    if name is None:
        return None
    attribute = next((f.column for f in spec.fields if f.attribute == name), name)
    field = spec.field(attribute)
    if not pa.types.is_timestamp(field.kind.type):
        raise ConfigError(f"inserted_at_field: column {name!r} is {field.kind.type}, not a time")
    return field.column


def _bound(
    views: Sequence[MarkerSource], spec: RecordSpec[Any], keys: layout.Keys
) -> list[Callable[[HivePartition[Any]], Sequence[str]]]:
    names = [view.name for view in views]
    if len(set(names)) != len(names):
        raise ConfigError(f"views: two have the same name, {names}")
    return [view.bind(spec, keys) for view in views]


class _ManyPartitions(Generic[T]):
    """One call of `write`: what became of each partition."""

    def __init__(self, writer: PartitionWriter[T], order: Order[T], method: Method) -> None:
        self._writer = writer
        self._order = order
        self._method = method
        self._landed: dict[str, WriteResult] = {}
        self._late: dict[str, CommitAfterTimeoutError] = {}
        self._failed: dict[str, BaseException] = {}

    async def write(self, partitions: Sequence[HivePartition[T]]) -> list[WriteResult]:
        target = self._writer.target
        try:
            await fan_out(target.telemetry, partitions, self._one, target.calls.limit)
        except asyncio.CancelledError:
            raise
        except Exception:
            if not self._failed:
                raise
        keys = [partition.key for partition in partitions]
        results = [self._landed[key] for key in keys if key in self._landed]
        if self._failed:
            raise self._failure(keys, results)
        if self._late:
            first = next(iter(self._late.values()))
            first.results = results
            raise first
        return results

    async def _one(self, partition: HivePartition[T]) -> None:
        try:
            token = self._order.token_for(partition)
        except Exception as error:
            self._failed[partition.key] = error  # the caller's own function: others go on
            return

        def landed(result: WriteResult) -> None:
            self._landed[partition.key] = result

        try:
            result = await self._writer.write(partition, token, self._order, self._method, landed)
        except CommitAfterTimeoutError as late:
            self._late[partition.key] = late
        except Exception as error:
            self._failed[partition.key] = error
            raise
        else:
            landed(result)

    def _failure(self, keys: Sequence[str], results: Sequence[WriteResult]) -> BaseException:
        """The failure to raise; partitions that were stopped for it failed, too."""
        real = [key for key in keys if key in self._failed]
        first = self._failed[real[0]]
        if not results:
            return first
        stopped = f"stopped because partition {real[0]!r} failed"
        failures = {key: self._failed[key] for key in real} | {
            key: WriteError("data", key, "", stopped)
            for key in keys
            if key not in self._failed and key not in self._landed
        }
        late = [error.result for error in self._late.values()]
        partial = PartialWriteError(results, failures, late=late)
        partial.__cause__ = first
        return partial
