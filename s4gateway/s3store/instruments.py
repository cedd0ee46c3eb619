"""The OpenTelemetry instruments, by name: what dashboards for datasets are built on.

Rule: names, units and buckets are a contract. `{task}` counts callers that wait, `{request}` those
under way; durations are in seconds, sizes in bytes.
https://opentelemetry.io/docs/specs/otel/metrics/api/
"""

from typing import Final, NamedTuple

_WAITS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
_DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_BYTES: Final = (
    *(n * _KIB for n in (1, 4, 16, 64, 256)),
    *(n * _MIB for n in (1, 4, 8, 16, 32, 64, 128, 1024)),
)
_RECORDS: Final = (1, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000, 50_000, 250_000, 1_000_000)
_PARTITIONS: Final = (1, 2, 5, 10, 25, 50, 100, 500)
_FILES: Final = (1, 5, 10, 25, 50, 100, 500, 1000, 5000)


class Histogram(NamedTuple):
    """A distribution with the bucket bounds it advises."""

    unit: str
    bounds: tuple[float, ...]
    description: str


class Count(NamedTuple):
    """A counter, or a counter that also goes down."""

    unit: str
    description: str


HISTOGRAMS: Final = {
    "s3store.target.semaphore.wait.duration": Histogram(
        "s", _WAITS, "time a request waited for its turn"
    ),
    "s3store.fanout.workers": Histogram(
        "", (1, 2, 4, 8, 16, 32, 64, 128), "tasks at work on one fan-out"
    ),
    "s3store.fanout.items": Histogram(
        "", (1, 2, 5, 10, 25, 50, 100, 250, 1000, 5000), "items of one fan-out"
    ),
    "s3store.s3.request.duration": Histogram(
        "s", _DURATIONS, "time of a request, its retries included"
    ),
    "s3store.s3.request.body.size": Histogram("By", _BYTES, "size of bodies sent, empty ones not"),
    "s3store.s3.response.body.size": Histogram("By", _BYTES, "size of bodies received by GET"),
    "s3store.method.duration": Histogram("s", _DURATIONS, "time of a call of the library"),
    "s3store.write.records": Histogram("", _RECORDS, "rows that landed in one call"),
    "s3store.write.partitions": Histogram("", _PARTITIONS, "partitions that landed in one call"),
    "s3store.write.bytes": Histogram("By", _BYTES, "Parquet bytes that landed in one call"),
    "s3store.read.records": Histogram("", _RECORDS, "rows handed over by one call"),
    "s3store.read.partitions": Histogram("", _PARTITIONS, "partitions one call had to read"),
    "s3store.read.bytes": Histogram("By", _BYTES, "Parquet bytes fetched by one call"),
    "s3store.read.files": Histogram("", _FILES, "files one call visited"),
    "s3store.read.iter.body_slot.wait.duration": Histogram(
        "s", _WAITS, "time a download waited for a place for its body"
    ),
    "s3store.read.iter.byte_budget.wait.duration": Histogram(
        "s", _WAITS, "time decoding waited for read_ahead_bytes"
    ),
    "s3store.read.iter.partition.decode.duration": Histogram(
        "s", _DURATIONS, "time to decode one partition"
    ),
}

COUNTERS: Final = {
    "s3store.target.semaphore.acquires": Count("", "requests that got their turn, or gave up"),
    "s3store.s3.request.count": Count("", "requests by the attempts they took"),
    "s3store.s3.transient_error.count": Count("", "failures that were tried again"),
    "s3store.method.calls": Count("", "calls of the library"),
    "s3store.read.missing_data": Count("", "committed files that were gone and skipped"),
    "s3store.read.malformed_refs": Count("", "refs whose name says nothing"),
    "s3store.read.commit_head": Count("", "commit markers asked for by polls"),
    "s3store.read.commit_head_cache_hit": Count("", "refs whose commit marker was known"),
    "s3store.write.commit_after_timeout": Count("", "commits later than the budget"),
    "s3store.write.optimistic_commit.collisions": Count("", "commits that were there before"),
    "s3store.write.encode_buf_dropped": Count("", "always 0: Arrow keeps no encode buffers"),
    "s3store.read.iter.body_slot.exhausted": Count("", "downloads that waited for a place"),
    "s3store.read.iter.byte_budget.exhausted": Count("", "partitions that waited for bytes"),
    "s3store.read.iter.stall.count": Count("", "reads in which nothing moved for a minute"),
}

UP_DOWN_COUNTERS: Final = {
    "s3store.target.waiting": Count("{task}", "requests that wait for their turn"),
    "s3store.target.inflight": Count("{request}", "requests under way"),
    "s3store.method.in_flight": Count("", "calls of the library under way"),
}

# Incidents nobody has seen yet still have a series, at 0.
INCIDENTS: Final = (
    "s3store.write.commit_after_timeout",
    "s3store.write.optimistic_commit.collisions",
    "s3store.write.encode_buf_dropped",
    "s3store.read.iter.body_slot.exhausted",
    "s3store.read.iter.byte_budget.exhausted",
)
