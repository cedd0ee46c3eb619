"""Labelled counters and histograms that cost a request one addition in a dictionary.

Rule: every label has a small closed set of values, or is the operator's own; a value that is not in
its set is counted as `other`, so no client can grow the exposition. What is counted becomes samples
when it is scraped. Used on the event loop's thread.
https://prometheus.io/docs/instrumenting/writing_clientlibs/
"""

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

OTHER: Final = "other"
RELOAD_RESULTS: Final = ("ok", "err")
LATENCY_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
_BUCKET_LABELS: Final = (*map(floatToGoString, LATENCY_BUCKETS), "+Inf")

# None: the values are the operator's own, as many as the configuration names.
Labels = Mapping[str, tuple[str, ...] | None]
_ClosedSets = tuple[frozenset[str] | None, ...]


class CounterFamily(Collector):
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
        labels: Labels,
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


class HistogramFamily(Collector):
    """The same for a histogram over LATENCY_BUCKETS, in seconds."""

    __slots__ = ("_allowed", "_labels", "_name", "_text", "_values")

    def __init__(self, registry: CollectorRegistry, name: str, text: str, labels: Labels) -> None:
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


def _closed_sets(labels: Labels) -> _ClosedSets:
    return tuple(None if values is None else frozenset(values) for values in labels.values())


def _bounded(labels: tuple[str, ...], allowed: _ClosedSets) -> tuple[str, ...]:
    return tuple(
        value if values is None or value in values else OTHER
        for value, values in zip(labels, allowed, strict=True)
    )
