"""The names under /metrics, and nothing else: what is counted, in which unit, by which labels.

Names are a public interface (docs, dashboards, alerts). Every label has a small closed set of
values: a value that is not in it is counted as `other`, so no client can grow the exposition. One
request touches a dozen of them, always on the event loop's thread, so a count is one addition in a
dictionary and becomes a sample when scraped; gauges are read when scraped and cost a request
nothing. Histograms are real histograms, in seconds.
https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4)
"""

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

import s4gateway
from s4gateway.gateway import protocol
from s4gateway.objects.encoding import Tried
from s4gateway.s3.operations import Operation
from s4gateway.state.ledger import Counters
from s4gateway.wire.codec_id import CodecId

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

LATENCY_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip

_BUCKET_LABELS: Final = (*map(floatToGoString, LATENCY_BUCKETS), "+Inf")

OTHER: Final = "other"
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
RELOAD_RESULTS: Final = ("ok", "err")
LEDGER: Final = "savings_ledger"  # as the label `manager`
LOAD_FAILURES: Final = ("read_error", "parse_error")
DUMP_RESULTS: Final = ("ok", "err")

DICT_OUTCOMES: Final = ("win", "loss")
DICT_KINDS: Final = ("original", "dict", "plain")
DICT_FETCH_RESULTS: Final = ("ok", "err")

# None: the values are the operator's own, as many as the configuration names.
_Labels = Mapping[str, tuple[str, ...] | None]


class _Counters(Collector):
    """A labelled counter whose label values are closed sets; `name` ends in `_total`.

    Series appear with their first event; `from_zero`, for those that alerts watch, they are there
    before it, because Prometheus sees no increase in a series that begins.
    """

    __slots__ = ("_allowed", "_labels", "_name", "_text", "_values")

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        text: str,
        labels: _Labels,
        *,
        from_zero: bool = False,
    ) -> None:
        self._name = name.removesuffix("_total")
        self._text = text
        self._labels = tuple(labels)
        self._allowed = _closed_sets(labels)
        all_series = itertools.product(*(values or () for values in labels.values()))
        self._values = dict.fromkeys(all_series if from_zero else (), 0.0)
        registry.register(self)

    def add(self, labels: tuple[str, ...], amount: float = 1) -> None:
        """Count; a label value outside its set counts as `other`."""
        values = self._values
        if labels not in values:
            labels = _bounded(labels, self._allowed)
            values.setdefault(labels, 0.0)
        values[labels] += amount

    def describe(self) -> Iterable[Metric]:
        """The family without samples, by which the registry finds names given twice."""
        yield CounterMetricFamily(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterable[Metric]:
        """The family as it stands."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in list(self._values.items()):
            family.add_metric(labels, value)
        yield family


class _Histograms(Collector):
    """The same for a histogram over LATENCY_BUCKETS, in seconds."""

    __slots__ = ("_allowed", "_labels", "_name", "_text", "_values")

    def __init__(self, registry: CollectorRegistry, name: str, text: str, labels: _Labels) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._allowed = _closed_sets(labels)
        self._values: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        registry.register(self)

    def observe(self, labels: tuple[str, ...], seconds: float) -> None:
        """Count one observation; a label value outside its set counts as `other`."""
        held = self._values.get(labels)
        if held is None:
            labels = _bounded(labels, self._allowed)
            held = self._values.setdefault(labels, ([0] * (len(LATENCY_BUCKETS) + 1), [0.0]))
        counts, total = held
        counts[bisect_left(LATENCY_BUCKETS, seconds)] += 1
        total[0] += seconds

    def describe(self) -> Iterable[Metric]:
        """The family without samples, by which the registry finds names given twice."""
        yield HistogramMetricFamily(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterable[Metric]:
        """The family as it stands; buckets are cumulative."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, (counts, total) in list(self._values.items()):
            sums = itertools.accumulate(counts)
            buckets = list(zip(_BUCKET_LABELS, map(float, sums), strict=True))
            family.add_metric(labels, buckets, total[0])
        yield family


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
        op_codec: _Labels = {"op": DATA_OPS, "codec": CODECS}
        self._requests = _Counters(
            registry,
            "s4_requests_total",
            "Object bodies written (put) and read (get).",
            {**op_codec, "result": RESULTS},
        )
        self._bytes_in = _Counters(
            registry,
            "s4_bytes_in_total",
            "Bytes taken in: from the client on put, from the backend on get.",
            op_codec,
        )
        self._bytes_out = _Counters(
            registry,
            "s4_bytes_out_total",
            "Bytes given out: to the backend on put, to the client on get.",
            op_codec,
        )
        self._latency = _Histograms(
            registry,
            "s4_request_latency_seconds",
            "Time from the request's head to the end of its answer.",
            op_codec,
        )
        self._http = _Counters(
            registry,
            "s4_http_requests_total",
            "S3 requests answered, by operation and class of status.",
            {"operation": OPERATIONS, "code": CODE_CLASSES},
        )
        self._declare_internals(registry)
        self._declare_process(registry)
        self.dictionaries = DictionaryMetrics(registry)

    def _declare_internals(self, registry: CollectorRegistry) -> None:
        self._fallbacks = _Counters(
            registry,
            "s4_range_fallback_total",
            "Ranged reads that had to decode from the start of the object.",
            {"reason": FALLBACK_REASONS},
        )
        self._sidecars = _Counters(
            registry,
            "s4_sidecar_writes_total",
            "Sidecar updates.",
            {"result": SIDECAR_RESULTS},
            from_zero=True,
        )
        self._listing_cache = _Counters(
            registry,
            "s4_listing_cache_total",
            "Listed keys whose logical size was known (hit) or asked for (miss).",
            {"result": CACHE_RESULTS},
        )
        self._backend = _Counters(
            registry,
            "s4_backend_requests_total",
            "Requests to the backend, retries not counted.",
            {"verb": VERBS, "result": BACKEND_RESULTS},
        )
        self._slowdowns = _Counters(
            registry,
            "s4_slowdown_total",
            "Requests answered 503 SlowDown.",
            {"reason": SLOWDOWN_REASONS},
            from_zero=True,
        )
        self._faults = _Counters(
            registry,
            "s4_connection_faults_total",
            "Client connections ended early, and why.",
            {"reason": protocol.Listener.NOTES},
        )
        self._aborts = Counter(
            "s4_client_aborts_total", "Clients gone before their answer was.", registry=registry
        )

    def _declare_process(self, registry: CollectorRegistry) -> None:
        self._reloads = _Counters(
            registry,
            "s4_reload_total",
            "Reloads on SIGHUP.",
            {"result": RELOAD_RESULTS},
            from_zero=True,
        )
        self._tls_reloads = _Counters(
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


class LedgerMetrics(Collector):
    """What the savings ledger shows; its families exist only in a registry that was given them.

    The label `bucket` is no closed set: there are as many as the ledger has buckets, and to be
    counted a bucket must exist. Gauges are read from the ledger when scraped, and are the sums over
    every process that shares the state file.

    >>> shown = LedgerMetrics(Metrics().registry)
    >>> shown.show(lambda: {"b": Counters(original_bytes=10, stored_bytes=4)})
    >>> [family.samples[0].value for family in shown.collect()]
    [10, 4, 0, 0]
    """

    _GAUGES: Final = (
        ("original_bytes", "Bytes of accounted objects as clients uploaded them."),
        ("stored_bytes", "Bytes of accounted objects and their sidecars at the backend."),
        ("objects", "Accounted objects."),
        ("skipped_unaccounted", "Objects removed or overwritten that had never been counted."),
    )

    def __init__(self, registry: CollectorRegistry) -> None:
        self._read: Callable[[], Mapping[str, Counters]] = dict
        registry.register(self)
        self._flush_failures = Counter(
            "s4_ledger_flush_failures_total",
            "Times the ledger's state file was not written in time.",
            registry=registry,
        )
        self._load_failures = _Counters(
            registry,
            "s4_state_file_load_failures_total",
            "State files that were set aside.",
            {"manager": (LEDGER,), "reason": LOAD_FAILURES},
            from_zero=True,
        )
        self._dumps = _Counters(
            registry,
            "s4_sigusr1_dump_total",
            "State written on SIGUSR1.",
            {"manager": (LEDGER,), "result": DUMP_RESULTS},
            from_zero=True,
        )

    def show(self, read: Callable[[], Mapping[str, Counters]]) -> None:
        """The ledger is open; `read` returns the counters by bucket, all of one moment."""
        self._read = read

    def flush_failed(self) -> None:
        """Events are not on disk."""
        self._flush_failures.inc()

    def load_failed(self, reason: str) -> None:
        """A state file was set aside."""
        self._load_failures.add((LEDGER, reason))

    def dumped(self, *, ok: bool) -> None:
        """A SIGUSR1 was handled."""
        self._dumps.add((LEDGER, "ok" if ok else "err"))

    def describe(self) -> Iterable[Metric]:
        """The families without samples."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """The families, all of one moment."""
        counters = sorted(self._read().items())
        for family, (name, _) in zip(self._families(), self._GAUGES, strict=True):
            for bucket, each in counters:
                family.add_metric((bucket,), getattr(each, name))
            yield family

    def _families(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(f"s4_ledger_{name}", text, labels=("bucket",))
            for name, text in self._GAUGES
        ]


class DictionaryMetrics:
    """What is counted about dictionaries; families exist from `show` on.

    That of the fetches exists from the first one on, too: objects compressed with a dictionary are
    read wherever they are met. The label `prefix` is as it stands in the configuration.

    >>> DictionaryMetrics(CollectorRegistry()).fetch(ok=True)
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._fetches: _Counters | None = None
        self._puts: _Counters | None = None
        self._bytes: _Counters | None = None
        self._reloads: _Counters | None = None

    def show(self, win_rates: Callable[[], Mapping[str, float]]) -> None:
        """Dictionaries are configured; `win_rates`, by prefix, is read when scraped."""
        registry = self._registry
        self._puts = _Counters(
            registry,
            "s4_dict_put_total",
            "Objects stored that a dictionary was tried on.",
            {"prefix": None, "outcome": DICT_OUTCOMES},
        )
        self._bytes = _Counters(
            registry,
            "s4_dict_put_bytes_total",
            "Their bytes: as sent, compressed with the dictionary, and without.",
            {"prefix": None, "kind": DICT_KINDS},
        )
        self._reloads = _Counters(
            registry,
            "s4_dict_reload_total",
            "Reloads of the dictionary map.",
            {"result": RELOAD_RESULTS},
        )
        _WinRates(registry, win_rates)
        self._shown_fetches()

    def put(self, tried: Tried) -> None:
        """A dictionary was tried on an object that is stored now."""
        if self._puts is None or self._bytes is None:
            return
        prefix = tried.label
        self._puts.add((prefix, "win" if tried.won else "loss"))
        self._bytes.add((prefix, "original"), tried.original)
        self._bytes.add((prefix, "dict"), tried.with_dictionary)
        self._bytes.add((prefix, "plain"), tried.plain)

    def fetch(self, *, ok: bool) -> None:
        """A dictionary that was not at hand was fetched for a read."""
        self._shown_fetches().add(("ok" if ok else "err",))

    def reload(self, *, ok: bool) -> None:
        """The map was read again on SIGHUP."""
        if self._reloads is not None:
            self._reloads.add(("ok" if ok else "err",))

    def _shown_fetches(self) -> _Counters:
        if self._fetches is None:
            self._fetches = _Counters(
                self._registry,
                "s4_dict_fetch_total",
                "Dictionaries fetched because an object that was read needs them.",
                {"result": DICT_FETCH_RESULTS},
            )
        return self._fetches


class _WinRates(Collector):
    """A gauge for each prefix whose dictionary was tried lately, read when scraped."""

    def __init__(
        self, registry: CollectorRegistry, read: Callable[[], Mapping[str, float]]
    ) -> None:
        self._read = read
        registry.register(self)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The family without samples."""
        text = "Share of the last 100 objects that their dictionary made smaller."
        yield GaugeMetricFamily("s4_dict_win_rate", text, labels=("prefix",))

    def collect(self) -> Iterable[Metric]:
        """The family as it stands."""
        for family in self.describe():
            for prefix, rate in sorted(self._read().items()):
                family.add_metric((prefix,), rate)
            yield family


_CLASSES: Final = {int(name[0]): name for name in CODE_CLASSES}


_ClosedSets = tuple[frozenset[str] | None, ...]


def _closed_sets(labels: _Labels) -> _ClosedSets:
    return tuple(None if values is None else frozenset(values) for values in labels.values())


def _bounded(labels: tuple[str, ...], allowed: _ClosedSets) -> tuple[str, ...]:
    return tuple(
        value if values is None or value in values else OTHER
        for value, values in zip(labels, allowed, strict=True)
    )
