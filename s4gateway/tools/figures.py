"""One bucket's figures: bytes before and after, what both are on the bill, and the money between.

Rule: ratio, saved bytes and money never go below zero. Where a storage class counts small objects
as larger, counters alone give two limits of the bill, and the lower one is what is claimed.
"""

from dataclasses import dataclass
from typing import Final

from s4gateway.state.ledger import Counters
from s4gateway.tools.storage_classes import CLASSES, STANDARD, ZERO, Limits, StorageClass

GIB: Final = 1 << 30
DEFAULT_PRICE: Final = 0.023  # USD for a GB-month, S3 Standard in us-east-1, first 50 TB


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one bucket, bytes before and after, and what both are on the bill."""

    objects: int
    original: int
    stored: int
    billed_original: Limits
    billed_stored: Limits

    @property
    def saved(self) -> int:
        """Bytes less than without a gateway; negative where there are more."""
        return self.original - self.stored

    @property
    def billed_saved(self) -> Limits:
        """Bytes less on the bill, not below 0.

        The upper limit counts on every object being stored no larger than it was: then no rounding
        up makes the bill's difference larger than the difference in size.
        """
        least = self.billed_original.at_least - self.billed_stored.at_most
        most = self.billed_original.at_most - self.billed_stored.at_least
        if not (self.billed_original.exact and self.billed_stored.exact):
            most = max(least, min(most, self.saved))
        return Limits(max(0, least), max(0, most))

    def __add__(self, other: "Measured") -> "Measured":
        return Measured(
            self.objects + other.objects,
            self.original + other.original,
            self.stored + other.stored,
            self.billed_original + other.billed_original,
            self.billed_stored + other.billed_stored,
        )


NOTHING: Final = Measured(0, 0, 0, ZERO, ZERO)


def of_counters(counters: Counters, storage: StorageClass) -> Measured:
    """What counters alone say, if everything lies in one storage class.

    An object has at most one sidecar, which is billed as an object of its own.

    >>> of_counters(Counters(4000, 1000, 10), CLASSES["STANDARD"]).billed_stored
    Limits(at_least=1000, at_most=1000)
    """
    count, original, stored = counters.objects, counters.original_bytes, counters.stored_bytes
    if storage.verbatim:
        billed = Limits.exactly(original), Limits.exactly(stored)
    else:
        billed = storage.limits(original, count), storage.limits(stored, count, 2 * count)
    return Measured(count, original, stored, *billed)


@dataclass(frozen=True, slots=True)
class Pricing:
    """What storing costs: USD for a GB-month (2**30 bytes), and the class all objects lie in."""

    price_per_gb_month: float = DEFAULT_PRICE
    storage_class: StorageClass = CLASSES[STANDARD]

    def monthly(self, count: int) -> float:
        """USD a month for so many bytes on the bill; 0 for a negative number.

        >>> Pricing(0.02).monthly(50 * GIB), Pricing().monthly(-1)
        (1.0, 0.0)
        """
        return max(0, count) / GIB * self.price_per_gb_month


@dataclass(frozen=True, slots=True)
class BucketSavings:
    """One bucket's row; bytes, and USD a month of which `monthly_savings_usd` is certain."""

    bucket: str
    objects: int
    original_bytes: int
    stored_bytes: int
    saved_bytes: int
    savings_ratio: float
    billed_original_bytes: Limits
    billed_stored_bytes: Limits
    monthly_savings_usd: float
    monthly_savings_usd_at_most: float
    skipped_unaccounted: int


def ratio(original: int, stored: int) -> float:
    """The share of the original bytes that is saved, 0 where none are or nothing was counted.

    >>> ratio(1000, 250), ratio(0, 10), ratio(10, 20)
    (0.75, 0.0, 0.0)
    """
    return max(0.0, 1 - stored / original) if original else 0.0


def row(bucket: str, measured: Measured, pricing: Pricing, skipped: int = 0) -> BucketSavings:
    """A bucket's row of the report."""
    billed = measured.billed_saved
    return BucketSavings(
        bucket,
        measured.objects,
        measured.original,
        measured.stored,
        max(0, measured.saved),
        ratio(measured.original, measured.stored),
        measured.billed_original,
        measured.billed_stored,
        pricing.monthly(billed.at_least),
        pricing.monthly(billed.at_most),
        skipped,
    )
