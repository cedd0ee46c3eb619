"""What the savings ledger shows under /metrics; its families exist only where there is a ledger."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from s4gateway.gateway.metric_families import CounterFamily
from s4gateway.state.ledger import Counters

LEDGER: Final = "savings_ledger"  # as the label `manager`
LOAD_FAILURES: Final = ("read_error", "parse_error")
DUMP_RESULTS: Final = ("ok", "err")


class LedgerMetrics(Collector):
    """What the savings ledger shows; its families exist only in a registry that was given them.

    The label `bucket` is no closed set: there are as many as the ledger has buckets, and to be
    counted a bucket must exist. Gauges are read from the ledger when scraped, and are the sums over
    every process that shares the state file.

    >>> shown = LedgerMetrics(CollectorRegistry())
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
        self._load_failures = CounterFamily(
            registry,
            "s4_state_file_load_failures_total",
            "State files that were set aside.",
            {"manager": (LEDGER,), "reason": LOAD_FAILURES},
            from_zero=True,
        )
        self._dumps = CounterFamily(
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
