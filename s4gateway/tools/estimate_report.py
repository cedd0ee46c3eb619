"""What an estimate is asked for, and what it says: figures by kind, their margin, the bill, advice.

Rule: what is concluded from a sample is said to be, with how far it may be off.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from s4gateway.tools.figures import DEFAULT_PRICE, GIB
from s4gateway.tools.objects import Making
from s4gateway.tools.projection import NORMAL_95, Projection, Sample
from s4gateway.tools.storage_classes import CLASSES, KIB, STANDARD, StorageClass
from s4gateway.tools.strata import Stratum
from s4gateway.tools.target import Target

_BOUNDS: Final = (KIB, 4 * KIB, 16 * KIB, 64 * KIB, 128 * KIB)
_SMALL: Final = 16 * KIB  # average size below which objects of a kind gain by a dictionary
_MANY: Final = 100  # objects from which training one pays
_NO_GAIN: Final = 0.97


@dataclass(frozen=True, slots=True)
class Estimate:
    """What to estimate and how closely; sizes in bytes.

    `max_sample_bytes` are read of an object at most, from its start. `part_size` models uploads in
    parts of that size, which decides how large frames are. `making` is how the gateway would
    compress.
    """

    target: Target
    making: Making
    max_list_keys: int = 100_000
    samples_per_stratum: int = 8
    max_sample_bytes: int = 8 * 1024 * 1024
    seed: int = 42
    price_per_gb_month: float = DEFAULT_PRICE
    storage_class: StorageClass = CLASSES[STANDARD]
    part_size: int | None = None
    concurrency: int = 8


@dataclass(frozen=True, slots=True)
class StratumEstimate:
    """One kind of objects; `ratio` is projected over present bytes, `codecs` counts the picks."""

    stratum: str
    objects: int
    bytes: int
    sampled: int
    already_s4: int
    sampled_bytes_read: int
    codecs: Mapping[str, int]
    ratio: float
    projected_bytes: int
    advice: str


@dataclass(frozen=True, slots=True)
class SizeBand:
    """Objects that would be stored in fewer bytes than `below`, None for all larger ones."""

    below: int | None
    objects: int
    projected_bytes: int


@dataclass(frozen=True, slots=True)
class EstimateReport:
    """The projection; money in USD a month for what is stored.

    In 19 of 20 draws the projection is off by no more than `margin_bytes`.
    """

    bucket: str
    prefix: str
    total_objects: int
    total_bytes: int
    listing_truncated: bool
    max_list_keys: int
    sampled_objects: int
    sampled_bytes_read: int
    sampled_fraction_of_total_bytes: float
    strata: tuple[StratumEstimate, ...]
    overall_ratio: float
    projected_total_bytes: int
    margin_bytes: int
    sizes_after: tuple[SizeBand, ...]
    storage_class: str
    billed_bytes: int
    projected_billed_bytes: int
    price_per_gb_month: float
    current_monthly_cost_usd: float
    projected_monthly_cost_usd: float
    seed: int
    notes: tuple[str, ...]


@dataclass(slots=True)
class Facts:
    """What was measured of a stratum; `read` in bytes, `cut` objects were read in part.

    `threshold` is the rank of the first object that was not looked at, None when there is none.
    """

    stratum: Stratum
    sample: Sample = field(default_factory=Sample)
    threshold: float | None = None
    sampled: int = 0
    already: int = 0
    read: int = 0
    cut: int = 0
    codecs: Counter[str] = field(default_factory=Counter)

    def project(self) -> Projection:
        """What the stratum would be stored in."""
        return self.sample.project(self.stratum.size, self.threshold)


def report(wanted: Estimate, measured: Sequence[Facts], *, truncated: bool) -> EstimateReport:
    """Say what was measured; `truncated`: the listing was cut."""
    strata, rows = [each.stratum for each in measured], tuple(map(_row, measured))
    total, projected = sum(row.bytes for row in rows), sum(row.projected_bytes for row in rows)
    bands, billed_after = _after(strata, rows, wanted.storage_class)
    billed = sum(each.billed for each in strata)
    margin = round(NORMAL_95 * math.sqrt(sum(each.project().variance for each in measured)))
    read = sum(row.sampled_bytes_read for row in rows)
    return EstimateReport(
        bucket=wanted.target.bucket,
        prefix=wanted.target.prefix,
        total_objects=sum(row.objects for row in rows),
        total_bytes=total,
        listing_truncated=truncated,
        max_list_keys=wanted.max_list_keys,
        sampled_objects=sum(row.sampled for row in rows),
        sampled_bytes_read=read,
        sampled_fraction_of_total_bytes=read / total if total else 0.0,
        strata=rows,
        overall_ratio=projected / total if total else 1.0,
        projected_total_bytes=projected,
        margin_bytes=margin,
        sizes_after=bands,
        storage_class=wanted.storage_class.name,
        billed_bytes=billed,
        projected_billed_bytes=billed_after,
        price_per_gb_month=wanted.price_per_gb_month,
        current_monthly_cost_usd=billed / GIB * wanted.price_per_gb_month,
        projected_monthly_cost_usd=billed_after / GIB * wanted.price_per_gb_month,
        seed=wanted.seed,
        notes=_notes(wanted, rows, sum(each.cut for each in measured), truncated=truncated),
    )


def _row(facts: Facts) -> StratumEstimate:
    stratum = facts.stratum
    projected = round(facts.project().stored)
    ratio = projected / stratum.size if stratum.size else 1.0
    return StratumEstimate(
        stratum.name,
        stratum.objects,
        stratum.size,
        facts.sampled,
        facts.already,
        facts.read,
        dict(facts.codecs.most_common()),
        ratio,
        projected,
        _advice(facts, ratio),
    )


def _advice(facts: Facts, ratio: float) -> str:
    """What to do about a stratum: compress, dictionary, leave, or look closer."""
    stratum = facts.stratum
    if not facts.sampled:
        return "leave" if facts.already or not stratum.size else "unknown"
    if ratio >= _NO_GAIN:
        return "leave"
    small = stratum.size / stratum.objects < _SMALL
    return "dictionary" if small and stratum.objects >= _MANY else "compress"


def _after(
    strata: Sequence[Stratum], rows: Sequence[StratumEstimate], storage: StorageClass
) -> tuple[tuple[SizeBand, ...], int]:
    """Sizes after compression, from those before; and what they are on the bill."""
    objects, sizes = Counter[int | None](), Counter[int | None]()
    billed = 0
    for stratum, row in zip(strata, rows, strict=True):
        for each in stratum.classes.values():
            size = round(each.size / each.objects * row.ratio)
            below = next((bound for bound in _BOUNDS if size < bound), None)
            objects[below] += each.objects
            sizes[below] += round(each.size * row.ratio)
            billed += each.objects * storage.billed(size)
    bounds: tuple[int | None, ...] = (*_BOUNDS, None)
    return tuple(SizeBand(each, objects[each], sizes[each]) for each in bounds), billed


def _notes(
    wanted: Estimate, rows: Sequence[StratumEstimate], cut: int, *, truncated: bool
) -> tuple[str, ...]:
    drawn = (
        "extrapolated from objects drawn in proportion to their size, more of them where they"
        " differ; the margin holds in 19 of 20 draws, for what was read in part as far as the rest"
        f" is alike; the same bucket and seed ({wanted.seed}) give the same figures"
    )
    notes = ["storage only: requests, traffic and the gateway's own machine cost extra", drawn]
    if not rows:
        return (f"no objects were found under {wanted.target}", *notes)
    if cut:
        notes.append(
            f"of {cut} large objects only the first {wanted.max_sample_bytes} bytes were read"
        )
    blind = [row.stratum for row in rows if row.bytes and not row.sampled and not row.already_s4]
    if blind:
        notes.append(f"nothing could be read of {', '.join(blind)}: counted as not compressible")
    if already := sum(row.already_s4 for row in rows):
        notes.append(
            f"{already} objects drawn are stored by a gateway already: counted as they are"
        )
    if truncated:
        notes.append(f"the listing was cut after {wanted.max_list_keys} keys (--max-list-keys)")
    if any(row.advice == "dictionary" for row in rows):
        notes.append("small objects of one kind compress better with a dictionary: s4 train-dict")
    if not wanted.storage_class.verbatim:
        notes.append(
            f"billed as {wanted.storage_class.name}: sizes after compression are averages of size"
            " classes, and a sidecar of a large object is billed as an object of its own"
        )
    return tuple(notes)
