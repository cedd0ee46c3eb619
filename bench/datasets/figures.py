"""What a bar is held against: pairs of times, and the table they end up in.

Rule: both sides of a pair run one after the other, each in its turn first, and what is compared is
the median of the ratios of the pairs: whatever slows the machine for a while slows both. Beside the
ratio of wall times stands that of the CPU seconds of this process, which others disturb less.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench import bench


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: what was measured, both sides as text, and the number the bar is about."""

    bar: int
    what: str
    ours: str
    plain: str
    value: float
    limit: float | None  # None: shown, held against nothing
    at_least: bool = False
    unit: str = ""
    cpu: float | None = None  # ours / plain in CPU seconds

    @property
    def held(self) -> bool | None:
        """Whether the bar holds, None without one."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def row(self) -> str:
        """The row as markdown."""
        sign = "at least" if self.at_least else "at most"
        bar = "" if self.limit is None else f"{sign} {_number(self.limit)}{self.unit}"
        verdict = {None: "", True: "held", False: "missed"}[self.held]
        shown = f"{_number(self.value)}{self.unit}"
        cpu = "" if self.cpu is None else f"{self.cpu:.2f}"
        cells = (self.bar, self.what, self.ours, self.plain, cpu, shown, bar, verdict)
        return f"| {' | '.join(map(str, cells))} |"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def table(figures: Sequence[Figure]) -> str:
    """All rows as markdown."""
    head = [
        "| bar | what | library | plain | figure | limit | |",
        "|---:|---|---:|---:|---:|---|---|",
    ]
    return "\n".join([*head, *(figure.row() for figure in figures)])


def seconds(value: float) -> str:
    """A duration for the table."""
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1e3:.1f} ms" if value < 0.1 else f"{value * 1e3:.0f} ms"


def wall(work: Callable[[], object]) -> float:
    """Seconds of one call, with no garbage of an earlier one to collect."""
    return _cost(work).wall


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    return _cost(work).cpu


class _Cost(NamedTuple):
    wall: float
    cpu: float


def _cost(work: Callable[[], object]) -> _Cost:
    gc.collect()
    time.sleep(0.1)
    began, used = time.perf_counter(), time.process_time()
    kept = work()
    cost = _Cost(time.perf_counter() - began, time.process_time() - used)
    del kept
    return cost


@dataclass(frozen=True, slots=True)
class Paired:
    """What both sides cost, repetition by repetition."""

    ours: list[_Cost]
    plain: list[_Cost]

    @property
    def ratio(self) -> float:
        """Median of ours / plain, in wall seconds."""
        return statistics.median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        """That of each pair."""
        return [a.wall / b.wall for a, b in zip(self.ours, self.plain, strict=True)]

    @property
    def cpu_ratio(self) -> float:
        """Median of ours / plain, in CPU seconds of this process."""
        return statistics.median(a.cpu / b.cpu for a, b in zip(self.ours, self.plain, strict=True))

    @property
    def walls(self) -> tuple[float, float]:
        """The median wall seconds of both."""
        ours, plain = ([cost.wall for cost in side] for side in (self.ours, self.plain))
        return statistics.median(ours), statistics.median(plain)

    def figure(self, bar: int, what: str, limit: float | None) -> Figure:
        """The row that says how much longer the library takes."""
        shown = map(seconds, self.walls)
        return Figure(bar, what, *shown, self.ratio, limit, cpu=self.cpu_ratio)

    def faster(self, bar: int, what: str, limit: float) -> Figure:
        """The row that says how many times faster the library is."""
        shown, times = map(seconds, self.walls), 1 / self.ratio
        return Figure(bar, what, *shown, times, limit, at_least=True, cpu=self.cpu_ratio)


def paired(
    what: str, repetitions: int, ours: Callable[[], object], plain: Callable[[], object]
) -> Paired:
    """Both sides in turn, after one round that is not counted."""
    wall(ours)
    wall(plain)
    found = Paired([], [])
    for repetition in range(repetitions):
        sides = [(ours, found.ours), (plain, found.plain)]
        for work, kept in sides if repetition % 2 else reversed(sides):
            kept.append(_cost(work))
    took, took_plain = map(seconds, found.walls)
    bench.progress(
        f"  {what}: library {took}, plain {took_plain}, ratio {found.ratio:.2f} "
        f"({min(found.ratios):.2f} to {max(found.ratios):.2f}), CPU {found.cpu_ratio:.2f}"
    )
    return found
