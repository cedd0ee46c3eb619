"""What is counted about dictionaries; families exist from their first use on."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from s4gateway.gateway.metric_families import RELOAD_RESULTS, CounterFamily
from s4gateway.objects.encoding import Tried

DICT_OUTCOMES: Final = ("win", "loss")
DICT_KINDS: Final = ("original", "dict", "plain")
DICT_FETCH_RESULTS: Final = ("ok", "err")


class DictionaryMetrics:
    """What is counted about dictionaries; families exist from `show` on.

    That of the fetches exists from the first one on, too: objects compressed with a dictionary are
    read wherever they are met. The label `prefix` is as it stands in the configuration.

    >>> DictionaryMetrics(CollectorRegistry()).fetch(ok=True)
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._fetches: CounterFamily | None = None
        self._puts: CounterFamily | None = None
        self._bytes: CounterFamily | None = None
        self._reloads: CounterFamily | None = None

    def show(self, win_rates: Callable[[], Mapping[str, float]]) -> None:
        """Dictionaries are configured; `win_rates`, by prefix, is read when scraped."""
        registry = self._registry
        self._puts = CounterFamily(
            registry,
            "s4_dict_put_total",
            "Objects stored that a dictionary was tried on.",
            {"prefix": None, "outcome": DICT_OUTCOMES},
        )
        self._bytes = CounterFamily(
            registry,
            "s4_dict_put_bytes_total",
            "Their bytes: as sent, compressed with the dictionary, and without.",
            {"prefix": None, "kind": DICT_KINDS},
        )
        self._reloads = CounterFamily(
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

    def _shown_fetches(self) -> CounterFamily:
        if self._fetches is None:
            self._fetches = CounterFamily(
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
