"""What subtractions could not take from a counter yet, noted between processes.

A counter ends at zero, and that must lose nothing while two processes work on one object: the one
that replaces it may come to the state file before the one that wrote it. What a subtraction would
have taken below zero is noted here, and an addition that comes within OWED_SECONDS makes it good.
After that it is forgotten: it was of an object that had never been counted.

Rules: a note is read and written under the lock, in the lock file itself. It only matters while the
other process lives, so it need not survive a power failure; one that makes no sense, or cannot be
written, is as if there were none.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Final

from s4gateway.state import ledger
from s4gateway.state.ledger import Counters, Delta, Deltas, Totals

OWED_SECONDS: Final = 10.0
_LIMIT: Final = 1024 * 1024  # bytes of notes


@dataclass(frozen=True, slots=True)
class Owed:
    """One bucket's note: no field of `delta` is above 0, `until` is in seconds since 1970."""

    delta: Delta
    until: float


Notes = Mapping[str, Owed]


def read(descriptor: int, now: float) -> dict[str, Owed]:
    """Return the notes that hold at `now`."""
    try:
        size = os.fstat(descriptor).st_size
        if not 0 < size <= _LIMIT:
            return {}
        notes = {
            str(bucket): Owed(Delta(*(min(0, int(each)) for each in values)), float(until))
            for bucket, (until, *values) in json.loads(os.pread(descriptor, size, 0)).items()
        }
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}
    return {
        bucket: each for bucket, each in notes.items() if now < each.until <= now + OWED_SECONDS
    }


def write(descriptor: int, notes: Notes) -> None:
    """Replace the notes."""
    data = b""
    if notes:
        rows = {bucket: [each.until, *astuple(each.delta)] for bucket, each in notes.items()}
        data = json.dumps(rows).encode()
    with contextlib.suppress(OSError):
        if os.fstat(descriptor).st_size or data:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, data, 0)


def merged(
    totals: Totals, deltas: Deltas, notes: Notes, now: float
) -> tuple[dict[str, Counters], dict[str, Owed]]:
    """Totals after a change, and the notes after it.

    >>> totals, notes = merged({}, {"b": Delta(-5)}, {}, now=0.0)
    >>> totals, notes = merged(totals, {"b": Delta(+7)}, notes, now=1.0)
    >>> totals["b"].original_bytes, notes
    (2, {})
    """
    result = dict(totals)
    left = dict(notes)
    for bucket, delta in deltas.items():
        before = result.get(bucket, ledger.EMPTY)
        note = left.pop(bucket, None)
        whole = delta if note is None else delta + note.delta
        result[bucket] = ledger.changed(before, whole)
        beyond = whole.beyond_zero(before)
        if beyond != ledger.NOTHING:  # the oldest note says how long
            left[bucket] = Owed(beyond, now + OWED_SECONDS if note is None else note.until)
    return result, left
