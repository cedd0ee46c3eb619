"""How much the ledger's counters say is saved, in bytes and in money, and what they cannot say.

Rule: nothing is claimed that was not measured. A bucket that takes more than it was given is named,
and the limits of the method stand in every report as notes, also in an empty one.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from s4gateway.state import ledger
from s4gateway.state.ledger import Counters, Delta
from s4gateway.tools.figures import NOTHING, BucketSavings, Pricing, of_counters, ratio, row
from s4gateway.tools.storage_classes import Limits, StorageClass

SCOPE: Final = (
    "Counted is what was written through a gateway with its ledger on. Objects written to the store"
    " directly, or by migrate or recompact, are not, until the gateway writes them anew."
)
NOT_COUNTED: Final = (
    "Parts of unfinished or aborted multipart uploads, replicas and dictionaries are not counted."
)
MARKER: Final = (
    "Removing an object subtracts what a look at it just before said, if it carries the marker"
    " s4-ledger. The marker says that the ledger was on, not that the object was added: where it"
    " was not, counters stop at zero."
)
STORAGE_ONLY: Final = (
    "Money is for storage only: no requests, transfer, retrieval, minimum storage duration or"
    " compute."
)
SAVED: Final = (
    "saved = original - stored, not below 0. The total is the difference of the sums, so buckets"
    " that grew make it smaller than the sum of its rows."
)
HONESTY: Final = (SCOPE, NOT_COUNTED, MARKER, STORAGE_ONLY, SAVED)


@dataclass(frozen=True, slots=True)
class StateFile:
    """A file the counters come from; `written_at` is None where there is no file."""

    path: str
    written_at: datetime | None


@dataclass(frozen=True, slots=True)
class SavingsReport:
    """Every bucket's row, the totals from the sums, the files they come from, and the notes."""

    state_files: tuple[StateFile, ...]
    buckets: tuple[BucketSavings, ...]
    total_objects: int
    total_original_bytes: int
    total_stored_bytes: int
    total_saved_bytes: int
    total_savings_ratio: float
    storage_class: str
    price_per_gb_month: float
    total_billed_original_bytes: Limits
    total_billed_stored_bytes: Limits
    total_monthly_savings_usd: float
    total_monthly_savings_usd_at_most: float
    total_skipped_unaccounted: int
    notes: tuple[str, ...]


class SameFileTwice(ValueError):
    """Two names of one state file would count its bytes twice."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: given twice; gateways that share a state file are in it together"
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """The sum of some state files, by bucket."""

    files: tuple[StateFile, ...]
    counters: Mapping[str, Counters]


def load(paths: Sequence[Path]) -> Loaded:
    """Add up state files, one for each gateway or for several that share it; changes nothing.

    A file that is not there adds nothing. Raises SameFileTwice, and state.files.StateFileRead and
    StateFileParse.
    """
    total: dict[str, Counters] = {}
    found = []
    seen = set()
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            raise SameFileTwice(path)
        seen.add(real)
        counters = ledger.load(path)
        found.append(StateFile(str(path), None if counters is None else _written_at(path)))
        for bucket, more in (counters or {}).items():
            total[bucket] = _added(total.get(bucket, ledger.EMPTY), more)
    return Loaded(tuple(found), total)


def _written_at(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None


def _added(one: Counters, other: Counters) -> Counters:
    more = Delta(other.original_bytes, other.stored_bytes, other.objects, other.skipped_unaccounted)
    return ledger.changed(one, more)


def report(loaded: Loaded, pricing: Pricing) -> SavingsReport:
    """What the counters amount to: rows in the order of the buckets' names, totals and notes.

    >>> report(load([]), Pricing()).total_objects
    0
    """
    storage = pricing.storage_class
    measured = {each: of_counters(loaded.counters[each], storage) for each in loaded.counters}
    skipped = {each: loaded.counters[each].skipped_unaccounted for each in loaded.counters}
    rows = tuple(row(each, measured[each], pricing, skipped[each]) for each in sorted(measured))
    total = sum(measured.values(), NOTHING)
    billed = total.billed_saved
    passed_over = sum(skipped.values())
    return SavingsReport(
        state_files=loaded.files,
        buckets=rows,
        total_objects=total.objects,
        total_original_bytes=total.original,
        total_stored_bytes=total.stored,
        total_saved_bytes=max(0, total.saved),
        total_savings_ratio=ratio(total.original, total.stored),
        storage_class=storage.name,
        price_per_gb_month=pricing.price_per_gb_month,
        total_billed_original_bytes=total.billed_original,
        total_billed_stored_bytes=total.billed_stored,
        total_monthly_savings_usd=pricing.monthly(billed.at_least),
        total_monthly_savings_usd_at_most=pricing.monthly(billed.at_most),
        total_skipped_unaccounted=passed_over,
        notes=(
            *about_files(loaded.files),
            *HONESTY,
            *conditional(rows, passed_over, pricing.storage_class),
        ),
    )


def about_files(found: Sequence[StateFile]) -> Iterable[str]:
    """A note on each file that is not there."""
    for each in found:
        if each.written_at is None:
            yield (
                f"There is no state file {each.path}: nothing was counted. Was the gateway started"
                " with --savings-ledger-state-file and this path?"
            )


def conditional(
    rows: Sequence[BucketSavings], skipped: int, storage: StorageClass
) -> Iterable[str]:
    """Notes that only some reports need."""
    if skipped:
        yield (
            f"{skipped} objects without the marker were removed or overwritten. Their bytes were"
            " NOT subtracted, because they had never been added."
        )
    if drifted := [each.bucket for each in rows if each.stored_bytes > each.original_bytes]:
        yield (
            f"Drift: {', '.join(drifted)}: more bytes are stored than were uploaded. Data that does"
            " not shrink costs a little; more than that means that removals were not seen."
            " s4 savings --rescan tells which."
        )
    if residue := [each.bucket for each in rows if _is_residue(each)]:
        yield (
            f"Residue: {', '.join(residue)}: 0 objects but bytes. A write was interrupted and"
            " repeated, or objects went behind the gateway's back. s4 savings --rescan corrects it."
        )
    yield from _about_billing(rows, storage)


def _is_residue(each: BucketSavings) -> bool:
    return not each.objects and bool(each.original_bytes or each.stored_bytes)


def _about_billing(rows: Sequence[BucketSavings], storage: StorageClass) -> Iterable[str]:
    yield from about_class(storage)
    exact = all(
        each.billed_original_bytes.exact and each.billed_stored_bytes.exact for each in rows
    )
    if not exact:
        yield (
            "Counters give the number of objects and the sum of their sizes, which limits the bill"
            " from both sides and does not tell it. The money claimed is the lower limit;"
            " s4 savings --rescan looks at every object and gives the exact figure."
        )


def about_class(storage: StorageClass) -> Iterable[str]:
    """Notes on how a class bills."""
    if storage.minimum:
        yield (
            f"{storage.name} bills every stored object, sidecars included, as at least"
            f" {storage.minimum} bytes."
        )
    if storage.overhead:
        yield (
            f"{storage.name} bills {storage.overhead} bytes more for every stored object, sidecars"
            " included. A part of them is billed at another class's price, which this report"
            " does not know."
        )
