"""What a bucket really holds, looked at object by object, and how far the ledger is from it.

Rule: the definition of what counts is that of the ledger itself (objects/footprint.py): objects
that carry its mark, and their sidecars. Every stored version counts, as it does on the bill. The
ledger is corrected only by a scan of the whole bucket in which nothing failed, and only if its
counters are the same after the scan as before it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer
from s4gateway.objects.cache import IndexCache
from s4gateway.objects.lanes import Lanes
from s4gateway.objects.sidecar import Sidecars
from s4gateway.state import ledger, shared_file
from s4gateway.state.ledger import Counters
from s4gateway.tools import savings, walk
from s4gateway.tools.counting import BucketCounter, Count
from s4gateway.tools.failure import Failure
from s4gateway.tools.figures import DEFAULT_PRICE, BucketSavings, Pricing, row
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.storage_classes import CLASSES, StorageClass
from s4gateway.tools.stored_keys import Internal, StoredKey, stored_keys
from s4gateway.tools.target import Target

AS_STORED: Final = "as stored"
_NOT_IMPLEMENTED: Final = 501  # a store without versions
_INDEX_BYTES: Final = 8 * 1024 * 1024

SCOPE: Final = (
    "Counted are the objects that carry the mark s4-ledger, which gateways with their ledger on"
    " write, and the sidecars of those objects. What was written or removed during the scan may be"
    " in the figures or not."
)


class LedgerMoved(Exception):
    """The ledger counted something for the bucket during the scan, so it was not replaced."""


@dataclass(frozen=True, slots=True)
class Rescan:
    """What to scan, how to price it, and the ledger to compare with.

    `storage_class` None takes every object's own. `write` replaces the bucket's counters in the one
    state file; ValueError for a prefix, of which a ledger knows nothing, or without that one file.
    """

    target: Target
    price_per_gb_month: float = DEFAULT_PRICE
    storage_class: StorageClass | None = None
    state_files: tuple[Path, ...] = ()
    write: bool = False
    concurrency: int = 32

    def __post_init__(self) -> None:
        if self.write and self.target.prefix:
            raise ValueError("a ledger counts whole buckets: a prefix cannot be written to it")
        if self.write and len(self.state_files) != 1:
            raise ValueError("one state file is needed to write to, and no more")

    @property
    def compares(self) -> bool:
        """Whether there is a ledger that has counters for the target."""
        return bool(self.state_files) and not self.target.prefix


@dataclass(frozen=True, slots=True)
class Difference:
    """What the scan found less what the ledger says."""

    original_bytes: int
    stored_bytes: int
    objects: int

    @property
    def none(self) -> bool:
        """Whether both say the same."""
        return not (self.original_bytes or self.stored_bytes or self.objects)


@dataclass(frozen=True, slots=True)
class ClassShare:
    """What lies in one storage class, sidecars included; bytes as stored and as billed."""

    storage_class: str
    objects: int
    stored_bytes: int
    billed_bytes: int


@dataclass(frozen=True, slots=True)
class RescanReport:
    """What was found. `ledger` and `difference` are None where there is nothing to compare with."""

    target: str
    versioning: str | None
    measured: BucketSavings
    sidecars: int
    sidecar_bytes: int
    unaccounted_objects: int
    unaccounted_bytes: int
    unaccounted_sidecars: int
    unaccounted_sidecar_bytes: int
    internal_objects: int
    internal_bytes: int
    storage_class: str
    storage_classes: tuple[ClassShare, ...]
    price_per_gb_month: float
    ledger: Counters | None
    difference: Difference | None
    written: bool
    failed: int
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]


async def rescan(backend: Backend, order: Rescan, progress: Progress = SILENT) -> RescanReport:
    """Scan, compare and, if so ordered, correct the ledger.

    Raises BackendError, state.files.StateFileError, savings.SameFileTwice, and LedgerMoved where
    the ledger was to be replaced and was not. Nothing is written about a bucket that may have
    versions nobody knows of.
    """
    before = _ledger(order)
    state, noted = await _versioning(backend, order)
    try:
        count = await _scan(backend, order, versions=state is not None, progress=progress)
    except BackendAnswer as error:
        if error.code != "NoSuchBucket" or before in {None, ledger.EMPTY}:
            raise
        count = Count()
        noted = ("The bucket does not exist, so nothing is stored in it.",)
    counters = Counters(count.original, count.stored + count.sidecar_bytes, count.objects)
    written = order.write and not count.failures.count
    if written and before is not None:
        _replace(order, counters, before)
    moved = _ledger(order) != before and not written
    return _report(order, state, count, before, (*noted, *_notes(order, count, moved)), written)


async def _versioning(backend: Backend, order: Rescan) -> tuple[str | None, tuple[str, ...]]:
    try:
        return await walk.versioning(backend, order.target.bucket), ()
    except BackendAnswer as error:
        if error.code == "NoSuchBucket" or error.status == _NOT_IMPLEMENTED:
            return None, ()
        if order.write:
            raise
        note = (
            f"Could not determine whether the bucket keeps versions ({error}); none were counted."
        )
        return None, (note,)


def _ledger(order: Rescan) -> Counters | None:
    if not order.compares:
        return None
    loaded = savings.load(order.state_files)
    return loaded.counters.get(order.target.bucket, ledger.EMPTY)


async def _scan(backend: Backend, order: Rescan, *, versions: bool, progress: Progress) -> Count:
    lanes = Lanes(1)
    sidecars = Sidecars(backend, IndexCache(_INDEX_BYTES), lanes)
    counter = BucketCounter(backend, order.target.bucket, order.storage_class, sidecars)

    async def one(entry: StoredKey | Internal) -> None:
        if isinstance(entry, Internal):
            counter.add_internal(entry)
            return
        progress.found(1, entry.size)
        await counter.add(entry)
        progress.done(1, entry.size)

    try:
        entries = stored_keys(backend, order.target, versions=versions)
        await walk.each(entries, one, order.concurrency)
    finally:
        await sidecars.close()
        lanes.close()
    return counter.count


def _replace(order: Rescan, counters: Counters, before: Counters) -> None:
    (path,) = order.state_files
    bucket = order.target.bucket
    if not shared_file.replace_bucket(path, bucket, counters, expected=before):
        raise LedgerMoved(
            f"{path}: {bucket} was written to while it was scanned, so its counters were left as"
            " they are; scan again while nothing writes to it"
        )


def _report(
    order: Rescan,
    state: str | None,
    count: Count,
    before: Counters | None,
    notes: tuple[str, ...],
    written: bool,
) -> RescanReport:
    chosen = order.storage_class
    pricing = Pricing(order.price_per_gb_month)
    measured = row(str(order.target), count.measured, pricing)
    difference = None
    if before is not None:
        difference = Difference(
            measured.original_bytes - before.original_bytes,
            measured.stored_bytes - before.stored_bytes,
            measured.objects - before.objects,
        )
    return RescanReport(
        target=str(order.target),
        versioning=state,
        measured=measured,
        sidecars=count.sidecars,
        sidecar_bytes=count.sidecar_bytes,
        unaccounted_objects=count.unaccounted,
        unaccounted_bytes=count.unaccounted_bytes,
        unaccounted_sidecars=count.unaccounted_sidecars,
        unaccounted_sidecar_bytes=count.unaccounted_sidecar_bytes,
        internal_objects=count.internal,
        internal_bytes=count.internal_bytes,
        storage_class=AS_STORED if chosen is None else chosen.name,
        storage_classes=tuple(
            ClassShare(name, share.objects, share.stored, share.billed)
            for name, share in sorted(count.classes.items())
        ),
        price_per_gb_month=order.price_per_gb_month,
        ledger=before,
        difference=difference,
        written=written,
        failed=count.failures.count,
        failures=count.failures.sorted(),
        notes=notes,
    )


def _notes(order: Rescan, count: Count, moved: bool) -> Iterable[str]:
    yield from (SCOPE, savings.NOT_COUNTED, savings.STORAGE_ONLY)
    if count.gone:
        yield f"{count.gone} objects were listed and gone when they were looked at."
    if count.stored + count.sidecar_bytes > count.original:
        yield "More bytes are stored than were uploaded: this data does not shrink."
    if order.state_files and order.target.prefix:
        yield "The ledger counts whole buckets, so there is nothing to compare a prefix with."
    if moved:
        yield (
            "The ledger counted something for this bucket during the scan, so the difference holds"
            " that, too."
        )
    if failed := count.failures.count:
        yield f"{failed} objects could not be looked at and are not in the figures." + (
            " The ledger was left as it is." if order.write else ""
        )
    yield from _about_classes(order, count)


def _about_classes(order: Rescan, count: Count) -> Iterable[str]:
    if order.storage_class is not None:
        yield from savings.about_class(order.storage_class)
        return
    if len(count.classes) > 1:
        yield (
            "Objects lie in several storage classes, each with a price of its own; all bytes are"
            " priced alike here."
        )
    for name in sorted(count.classes):
        if name in CLASSES:
            yield from savings.about_class(CLASSES[name])
        else:
            yield f"{name}: not a class whose bill is known; billed is taken to be what is stored."
