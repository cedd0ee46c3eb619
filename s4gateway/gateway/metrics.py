"""The names under /metrics, and nothing else: what is counted, in which unit, by which labels.

Names are a public interface (docs, dashboards, alerts). One request touches a dozen of them, always
on the event loop's thread; gauges are read when scraped and cost a request nothing. Histograms are
real histograms, in seconds. What a savings ledger and dictionaries add has modules of its own.
https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4)
"""

from collections.abc import Callable
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge

import s4gateway
from s4gateway.gateway import protocol
from s4gateway.gateway.dictionary_metrics import DictionaryMetrics
from s4gateway.gateway.metric_families import (
    OTHER,
    RELOAD_RESULTS,
    CounterFamily,
    HistogramFamily,
    Labels,
)
from s4gateway.s3.operations import Operation
from s4gateway.wire.codec_id import CodecId

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

DATA_OPS: Final = ("put", "get")
RESULTS: Final = ("ok", "err")
CODECS: Final = (*(codec.label for codec in CodecId), "multipart", "partial", "foreign", "none")
OPERATIONS: Final = tuple(operation.value for operation in Operation)
CODE_CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
FALLBACK_REASONS: Final = (
    "no-index",  # no sidecar, or none that is bound to this version and sound
    "no-plan",  # its entries leave holes in the object
    "index-mismatch",  # its entries are not the frames that are there
    "unframed",  # one payload, which no index can cut
)
SIDECAR_RESULTS: Final = ("ok", "err", "removed")
CACHE_RESULTS: Final = ("hit", "miss")
VERBS: Final = (
    "put", "get", "head", "delete", "delete_many", "list", "forward", "ping",
)  # fmt: skip
BACKEND_RESULTS: Final = ("ok", "answer", "unavailable", "protocol")
SLOWDOWN_REASONS: Final = ("memory", "connections", "backend")
_CLASSES: Final = {int(name[0]): name for name in CODE_CLASSES}


class Metrics:
    """Every metric of one gateway process, in a registry of its own.

    >>> metrics = Metrics()
    >>> metrics.request("PutObject", 200)
    >>> b's4_http_requests_total{code="2xx",operation="PutObject"} 1.0' in metrics.render()
    True
    """

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        op_codec: Labels = {"op": DATA_OPS, "codec": CODECS}
        self._requests = CounterFamily(
            registry,
            "s4_requests_total",
            "Object bodies written (put) and read (get).",
            {**op_codec, "result": RESULTS},
        )
        self._bytes_in = CounterFamily(
            registry,
            "s4_bytes_in_total",
            "Bytes taken in: from the client on put, from the backend on get.",
            op_codec,
        )
        self._bytes_out = CounterFamily(
            registry,
            "s4_bytes_out_total",
            "Bytes given out: to the backend on put, to the client on get.",
            op_codec,
        )
        self._latency = HistogramFamily(
            registry,
            "s4_request_latency_seconds",
            "Time from the request's head to the end of its answer.",
            op_codec,
        )
        self._http = CounterFamily(
            registry,
            "s4_http_requests_total",
            "S3 requests answered, by operation and class of status.",
            {"operation": OPERATIONS, "code": CODE_CLASSES},
        )
        self._declare_internals(registry)
        self._declare_process(registry)
        self.dictionaries = DictionaryMetrics(registry)

    def _declare_internals(self, registry: CollectorRegistry) -> None:
        self._fallbacks = CounterFamily(
            registry,
            "s4_range_fallback_total",
            "Ranged reads that had to decode from the start of the object.",
            {"reason": FALLBACK_REASONS},
        )
        self._sidecars = CounterFamily(
            registry,
            "s4_sidecar_writes_total",
            "Sidecar updates.",
            {"result": SIDECAR_RESULTS},
            from_zero=True,
        )
        self._listing_cache = CounterFamily(
            registry,
            "s4_listing_cache_total",
            "Listed keys whose logical size was known (hit) or asked for (miss).",
            {"result": CACHE_RESULTS},
        )
        self._backend = CounterFamily(
            registry,
            "s4_backend_requests_total",
            "Requests to the backend, retries not counted.",
            {"verb": VERBS, "result": BACKEND_RESULTS},
        )
        self._slowdowns = CounterFamily(
            registry,
            "s4_slowdown_total",
            "Requests answered 503 SlowDown.",
            {"reason": SLOWDOWN_REASONS},
            from_zero=True,
        )
        self._faults = CounterFamily(
            registry,
            "s4_connection_faults_total",
            "Client connections ended early, and why.",
            {"reason": protocol.Listener.NOTES},
        )
        self._aborts = Counter(
            "s4_client_aborts_total", "Clients gone before their answer was.", registry=registry
        )

    def _declare_process(self, registry: CollectorRegistry) -> None:
        self._reloads = CounterFamily(
            registry,
            "s4_reload_total",
            "Reloads on SIGHUP.",
            {"result": RELOAD_RESULTS},
            from_zero=True,
        )
        self._tls_reloads = CounterFamily(
            registry,
            "s4_tls_cert_reload_total",
            "Reloads of the TLS certificate.",
            {"result": RELOAD_RESULTS},
        )
        self._in_flight = Gauge(
            "s4_in_flight_requests", "Requests being answered.", registry=registry
        )
        self._memory = Gauge(
            "s4_memory_budget_bytes",
            "Bytes held for requests, and how many may be.",
            ("state",),
            registry=registry,
        )
        Gauge("s4_build_info", "Always 1.", ("version",), registry=registry).labels(
            s4gateway.__version__
        ).set(1)

    # --- one call a request

    def request(self, operation: str, status: int) -> None:
        """Count an answered S3 request."""
        self._http.add((operation, _CLASSES.get(status // 100, OTHER)))

    def data(
        self, op: str, codec: str, *, ok: bool, bytes_in: int, bytes_out: int, seconds: float
    ) -> None:
        """Count an object body written (`put`) or read (`get`); `codec` is its label."""
        labels = (op, codec)
        self._requests.add((op, codec, "ok" if ok else "err"))
        self._bytes_in.add(labels, bytes_in)
        self._bytes_out.add(labels, bytes_out)
        self._latency.observe(labels, seconds)

    # --- facts that come by themselves

    def range_fallback(self, reason: str) -> None:
        """A ranged read without a usable index."""
        self._fallbacks.add((reason,))

    def sidecar_write(self, result: str) -> None:
        """A sidecar was written, failed to be, or was removed."""
        self._sidecars.add((result,))

    def listing_cache(self, result: str, count: int = 1) -> None:
        """Logical sizes of a listing page."""
        if count:
            self._listing_cache.add((result,), count)

    def backend_request(self, verb: str, result: str) -> None:
        """A request to the backend has ended."""
        self._backend.add((verb, result))

    def slowdown(self, reason: str) -> None:
        """A request was turned away."""
        self._slowdowns.add((reason,))

    def client_abort(self) -> None:
        """A client left before its answer was complete."""
        self._aborts.inc()

    def connection_fault(self, reason: str) -> None:
        """A connection was ended by the protocol's limits."""
        self._faults.add((reason,))
        if reason == "connection-cap":
            self._slowdowns.add(("connections",))

    def reload(self, *, ok: bool, tls: bool, dictionaries: bool = False) -> None:
        """A SIGHUP was handled; `tls` when a certificate was part of it, `dictionaries` a map."""
        result = ("ok" if ok else "err",)
        self._reloads.add(result)
        if tls:
            self._tls_reloads.add(result)
        if dictionaries:
            self.dictionaries.reload(ok=ok)

    # --- gauges, read at scrape time

    def watch_in_flight(self, read: Callable[[], float]) -> None:
        """Where the number of running requests is read."""
        self._in_flight.set_function(read)

    def watch_memory(self, used: Callable[[], float], limit: Callable[[], float]) -> None:
        """Where the byte budget is read."""
        self._memory.labels("used").set_function(used)
        self._memory.labels("limit").set_function(limit)

    def render(self) -> bytes:
        """The exposition, in CONTENT_TYPE."""
        return prometheus_client.generate_latest(self.registry)
