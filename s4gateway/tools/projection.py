"""What a sample says about the whole it was drawn from, and how far that may be off.

Rule: a projection comes with its margin. Objects are drawn by random ranks, the larger the sooner
(tools/strata.py); with the smallest rank that was not looked at as a threshold t, each object of
size w was drawn with probability 1 - exp(-w t), independently of the others for all that sums over
them are concerned. Dividing by that probability estimates sums, the largest objects standing for
themselves; stored over present bytes is the quotient of two such sums.

Cohen and Kaplan, "Tighter estimation using bottom-k sketches", 2008
(https://doi.org/10.14778/1453856.1453884); Särndal et al., "Model Assisted Survey Sampling", 1992.
"""

import math
from dataclasses import dataclass, field
from typing import Final

NORMAL_95: Final = 1.96  # standard errors within which 19 of 20 estimates lie


@dataclass(slots=True)
class Sample:
    """Objects looked at: the bytes each has, and those it has or would have as stored."""

    pairs: list[tuple[int, float]] = field(default_factory=list)

    def add(self, size: int, stored: float) -> None:
        """Take an object."""
        self.pairs.append((size, stored))

    def project(self, total: int, threshold: float | None) -> "Projection":
        """What `total` bytes would be stored in; without a threshold everything was looked at."""
        if not self.pairs:
            return Projection(float(total), 0.0)
        shares = [1.0 if threshold is None else _share(size, threshold) for size, _ in self.pairs]
        sampled = list(zip(self.pairs, shares, strict=True))
        present = sum(size / share for (size, _), share in sampled)
        ratio = sum(stored / share for (_, stored), share in sampled) / present
        if threshold is None:
            return Projection(ratio * total, 0.0)
        count = len(self.pairs)
        if count == 1:
            return Projection(ratio * total, float(total) ** 2)  # one says nothing of the spread
        spread = sum(
            (1 - share) * ((stored - ratio * size) / share) ** 2
            for (size, stored), share in sampled
        )
        return Projection(ratio * total, spread * count / (count - 1) * (total / present) ** 2)


def _share(size: int, threshold: float) -> float:
    """The probability with which an object of that size was drawn."""
    return -math.expm1(-size * threshold)


@dataclass(frozen=True, slots=True)
class Projection:
    """Projected bytes, and the variance of that figure."""

    stored: float
    variance: float
