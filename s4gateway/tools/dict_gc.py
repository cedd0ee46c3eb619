"""Dictionaries of a bucket that no object needs any more, found and, if asked for, deleted.

    dictionaries -> every object's metadata -> every noncurrent version's -> once more what is new

Rule: a dictionary that is lost takes every object with it that needs it, so nothing is deleted
unless everything was looked at and nothing failed. Only HEAD tells what an object needs: all of
them are asked, whatever their size and name, and noncurrent versions, too. What was written while
the scan ran is looked at once more just before anything is deleted. A scan cannot see what a
gateway is about to write: dictionaries that are still mapped are named by the caller and kept.
"""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer, BackendError, parse_date
from s4gateway.tools import walk
from s4gateway.tools.dict_references import Scan, Seen, dictionary_id
from s4gateway.tools.failure import Failure
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.target import Target
from s4gateway.wire import keys

# How far the clocks here and at the store may differ, and a write may take, in the second look.
_SLACK: Final = timedelta(minutes=15)
_ROUNDING: Final = timedelta(seconds=2)  # between a listing's and a HEAD's time of one object


class State(StrEnum):
    """What became of a dictionary."""

    REFERENCED = "referenced"
    """Objects need it."""
    KEPT = "kept"
    """Nothing needs it; the caller wants it kept, because it is mapped."""
    YOUNG = "young"
    """Nothing needs it yet; it is younger than what may be deleted."""
    UNREFERENCED = "unreferenced"
    """Nothing needs it; it was or would be left only because nothing is deleted in this run."""
    DELETED = "deleted"
    """Nothing needed it."""
    UNKNOWN = "unknown"
    """Nothing seen needs it, but not everything was seen."""


@dataclass(frozen=True, slots=True)
class FoundDictionary:
    """One dictionary: size in bytes, and how many objects and versions need it."""

    id: str
    size: int
    modified: datetime | None
    references: int
    state: State


@dataclass(frozen=True, slots=True)
class GcReport:
    """What a bucket's dictionaries are needed for, and what was deleted; sizes in bytes.

    `versioning` is None where the bucket never had versions; `scanned` counts objects and versions
    that were asked; `failed` counts all failures, of which `failures` names the first ones.
    """

    bucket: str
    executed: bool
    older_than: timedelta | None
    versioning: str | None
    scanned: int
    complete: bool
    dictionaries: tuple[FoundDictionary, ...]
    deleted: int
    deleted_bytes: int
    failed: int
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Options:
    """`execute` deletes what is older than `older_than`; `keep` are ids that stay."""

    execute: bool = False
    older_than: timedelta | None = None
    keep: frozenset[str] = frozenset()
    concurrency: int = 32

    def __post_init__(self) -> None:
        """Nothing is deleted without an age."""
        if self.execute and self.older_than is None:
            raise ValueError("to delete, say how old a dictionary must be")


async def run(
    backend: Backend,
    bucket: str,
    options: Options,
    progress: Progress = SILENT,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> GcReport:
    """Find what needs each dictionary of `bucket`, and delete old ones that nothing needs.

    Raises BackendError when a listing fails or the store does not answer; nothing is deleted then.
    """
    status = await walk.versioning(backend, bucket)
    found = await _dictionaries(backend, bucket)
    scan = Scan(backend, bucket, options.concurrency, progress, versioned=status is not None)
    if found:
        begun = await _begun(backend, bucket, found[0], now())
        await scan.everything()
        moment = now()
        found = [_judged(each, scan.seen, options, moment) for each in found]
        if options.execute and any(each.state is State.UNREFERENCED for each in found):
            await scan.since(begun - _SLACK)
            found = [_judged(each, scan.seen, options, moment) for each in found]
            found = [await _deleted(backend, bucket, each, scan.seen) for each in found]
    gone = [each for each in found if each.state is State.DELETED]
    return GcReport(
        bucket=bucket,
        executed=options.execute,
        older_than=options.older_than,
        versioning=status,
        scanned=scan.seen.scanned,
        complete=not scan.seen.failed,
        dictionaries=tuple(found),
        deleted=len(gone),
        deleted_bytes=sum(each.size for each in gone),
        failed=scan.seen.failed,
        failures=scan.seen.failures.sorted(),
        notes=tuple(_notes(status, found, options, scan.seen)),
    )


# --- dictionaries


async def _dictionaries(backend: Backend, bucket: str) -> list[FoundDictionary]:
    """Every dictionary of the bucket; other keys among them are nobody's business."""
    found = []
    target = Target(bucket, keys.DICTIONARY_PREFIX)
    async with aclosing(walk.walk(backend, target, internal=True)) as listing:
        async for entry in listing:
            if (dict_id := dictionary_id(entry.key)) is not None:
                unknown = State.UNKNOWN
                found.append(FoundDictionary(dict_id, entry.size, entry.modified, 0, unknown))
    return found


async def _begun(backend: Backend, bucket: str, first: FoundDictionary, here: datetime) -> datetime:
    """When the scan begins by the clock of the store, or by ours if that is behind."""
    try:
        head = await backend.head(bucket, keys.DICTIONARY_PREFIX + first.id)
    except BackendAnswer:  # the scan will tell what is wrong
        return here
    there = parse_date(head.headers.get("date"))
    return here if there is None else min(here, there)


def _judged(found: FoundDictionary, seen: Seen, options: Options, now: datetime) -> FoundDictionary:
    references = seen.references[found.id]
    if references:
        state = State.REFERENCED
    elif seen.failed:
        state = State.UNKNOWN
    elif found.id in options.keep:
        state = State.KEPT
    elif options.older_than is not None and (
        found.modified is None or now - found.modified < options.older_than
    ):
        state = State.YOUNG
    else:
        state = State.UNREFERENCED
    return replace(found, references=references, state=state)


async def _deleted(
    backend: Backend, bucket: str, found: FoundDictionary, seen: Seen
) -> FoundDictionary:
    """Delete a dictionary that nothing needs, unless anything failed so far."""
    if found.state is not State.UNREFERENCED or seen.failed:
        return found
    key = keys.DICTIONARY_PREFIX + found.id
    try:
        head = await backend.head(bucket, key)
        if _is_newer(head.last_modified, found.modified):
            return replace(found, state=State.YOUNG)
        await backend.delete(bucket, key)
    except BackendError as error:
        seen.fail(key, "delete", error)
        return found
    return replace(found, state=State.DELETED)


def _is_newer(now: datetime | None, listed: datetime | None) -> bool:
    """Whether a dictionary may have been published anew since it was listed."""
    return now is None or listed is None or now > listed + _ROUNDING


# --- telling


def _notes(
    status: str | None, found: list[FoundDictionary], options: Options, seen: Seen
) -> list[str]:
    notes = []
    if seen.failed:
        notes.append(
            f"{seen.failed} failures: what nothing was seen to need is unknown, and nothing is "
            "deleted after a failure; run again"
        )
    if status == "Enabled" and options.execute:
        notes.append(
            "the bucket keeps versions: a deleted dictionary stays as a noncurrent one, and comes "
            "back when its delete marker is removed"
        )
    states = {each.state for each in found}
    if State.UNREFERENCED in states and not options.execute:
        notes.append("nothing was deleted: give --execute and --older-than to delete")
    if states & {State.UNREFERENCED, State.DELETED} and not options.keep:
        notes.append(
            "a dictionary that a gateway still maps may have no objects yet: name the maps "
            "(--zstd-dict-map) or the ids (--keep), or objects written later cannot be read"
        )
    return notes
