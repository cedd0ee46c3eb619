"""Append-only, versioned Parquet datasets on S3 with a change stream: a client library.

It needs a bucket and knows nothing of the gateway, behind which it is as much at home as in front
of any other S3. Extra: `pip install s4gateway[s3store]`. Asynchronous classes begin with `Async`;
those without are for blocking callers, as are the functions that end in `_blocking`.

    from s4gateway.s3store import S3TargetConfig, Store, init_dataset_blocking, new_client

    client = new_client("http://127.0.0.1:8014")
    init_dataset_blocking(client, "bucket", "orders")
    config = S3TargetConfig(
        bucket="bucket", prefix="orders", client=client, partition_key_parts=("period",)
    )
    with Store.open(config, Order, entity_key="id", version="revision") as orders:
        orders.write([Order(...)], token="import-42")
        orders.read("period=2026-03-*")

The format: docs/reference/dataset-format.md.
"""

from s4gateway.s3store.backfill import (
    BackfillProgress,
    BackfillStats,
    backfill_view,
    backfill_view_blocking,
)
from s4gateway.s3store.blocking import (
    BlockingPartitionStream,
    BlockingRecordStream,
    Reader,
    Writer,
)
from s4gateway.s3store.boto3_transport import Boto3Transport, new_client
from s4gateway.s3store.clock import Clock
from s4gateway.s3store.columns import Column
from s4gateway.s3store.committing import MarkerSource, TokenSource
from s4gateway.s3store.errors import (
    AccessDenied,
    ClientError,
    CommitAfterTimeoutError,
    CommitMetadataError,
    ConfigError,
    ConnectionFailed,
    CrossStoreError,
    DecodeError,
    EncodeError,
    IntegrityError,
    KeyPatternError,
    MissingDataError,
    NotFound,
    PartialWriteError,
    PartitionKeyError,
    PreconditionFailed,
    S3StoreError,
    ServerError,
    Throttled,
    TimingConfigError,
    TokenError,
    TransportError,
    WriteError,
)
from s4gateway.s3store.marker_time import Layout
from s4gateway.s3store.memory_transport import MemoryTransport
from s4gateway.s3store.parquet import Compression
from s4gateway.s3store.partitions import HivePartition
from s4gateway.s3store.patterns import Prefix
from s4gateway.s3store.reader import AsyncReader
from s4gateway.s3store.record_page import RecordPage
from s4gateway.s3store.results import (
    DataFile,
    Offset,
    PollPage,
    StreamEntry,
    WriteResult,
    partition_keys_of,
)
from s4gateway.s3store.seeding import (
    commit_overwrite_deny_policy,
    init_dataset,
    init_dataset_blocking,
)
from s4gateway.s3store.store import AsyncStore, Store
from s4gateway.s3store.streams import PartitionStream, RecordStream
from s4gateway.s3store.target import (
    DEFAULT_MAX_INFLIGHT,
    Consistency,
    S3Target,
    S3TargetConfig,
)
from s4gateway.s3store.timing import (
    COMMIT_TIMEOUT_ADVISORY,
    COMMIT_TIMEOUT_FLOOR,
    MAX_CLOCK_SKEW_FLOOR,
)
from s4gateway.s3store.transport import (
    HeadInfo,
    Listed,
    ListPage,
    PutInfo,
    RangeInfo,
    ThreadedTransport,
    Transport,
)
from s4gateway.s3store.views import (
    AsyncMaterializedViewReader,
    MaterializedView,
    MaterializedViewReader,
    ViewLookup,
)
from s4gateway.s3store.writer import AsyncWriter

__all__ = [
    "COMMIT_TIMEOUT_ADVISORY",
    "COMMIT_TIMEOUT_FLOOR",
    "DEFAULT_MAX_INFLIGHT",
    "MAX_CLOCK_SKEW_FLOOR",
    "AccessDenied",
    "AsyncMaterializedViewReader",
    "AsyncReader",
    "AsyncStore",
    "AsyncWriter",
    "BackfillProgress",
    "BackfillStats",
    "BlockingPartitionStream",
    "BlockingRecordStream",
    "Boto3Transport",
    "ClientError",
    "Clock",
    "Column",
    "CommitAfterTimeoutError",
    "CommitMetadataError",
    "Compression",
    "ConfigError",
    "ConnectionFailed",
    "Consistency",
    "CrossStoreError",
    "DataFile",
    "DecodeError",
    "EncodeError",
    "HeadInfo",
    "HivePartition",
    "IntegrityError",
    "KeyPatternError",
    "Layout",
    "ListPage",
    "Listed",
    "MarkerSource",
    "MaterializedView",
    "MaterializedViewReader",
    "MemoryTransport",
    "MissingDataError",
    "NotFound",
    "Offset",
    "PartialWriteError",
    "PartitionKeyError",
    "PartitionStream",
    "PollPage",
    "PreconditionFailed",
    "Prefix",
    "PutInfo",
    "RangeInfo",
    "Reader",
    "RecordPage",
    "RecordStream",
    "S3StoreError",
    "S3Target",
    "S3TargetConfig",
    "ServerError",
    "Store",
    "StreamEntry",
    "ThreadedTransport",
    "Throttled",
    "TimingConfigError",
    "TokenError",
    "TokenSource",
    "Transport",
    "TransportError",
    "ViewLookup",
    "WriteError",
    "WriteResult",
    "Writer",
    "backfill_view",
    "backfill_view_blocking",
    "commit_overwrite_deny_policy",
    "init_dataset",
    "init_dataset_blocking",
    "new_client",
    "partition_keys_of",
]
