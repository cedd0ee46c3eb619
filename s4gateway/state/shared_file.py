"""A ledger's state file that several gateway processes may share.

Rule: what a process brings is a change, not a total. Under the lock `<path>.lock` it reads what the
file says now, adds its change and replaces the file, so no process undoes another's work. A file
that is no state is set aside first and never overwritten.
"""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from s4gateway.state import files, ledger, owed
from s4gateway.state.ledger import Counters, Deltas

_LOCK_SECONDS: Final = 10.0  # for who may give up: at the start of a process, and tools


class SetAside(Protocol):
    """Told of a file that was no state: the error, and the name the file has now."""

    def __call__(self, error: files.StateFileError, moved_to: Path) -> None:
        """Tell of it; raises nothing."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The file's totals after a change; `failure` when they may not survive a power failure."""

    totals: dict[str, Counters]
    failure: files.StateFileWrite | None = None


class SharedFile:
    """One process's way to the file. Not for several threads at once.

    Opening raises StateFileError when the path cannot be used: no such directory, or something at
    the path that is not a file.
    """

    def __init__(
        self, path: Path, set_aside: SetAside, clock: Callable[[], float] = time.time
    ) -> None:
        if (what := files.odd(path)) is not None:
            raise files.StateFileRead(path, what)
        self.path = _real(path)
        self._set_aside = set_aside
        self._clock = clock
        self._lock = files.LockFile(lock_path(self.path))
        self._last = b""  # what the file held when this process last saw it
        self._totals: dict[str, Counters] = {}

    def load(self) -> dict[str, Counters]:
        """Read the totals for the first time; a file that is no state is set aside.

        Raises StateFileWrite when that, or any later write, is impossible.
        """
        with self._lock.held(_LOCK_SECONDS):
            files.remove_leftovers(self.path)
            files.check_writable(self.path)
            try:
                self._see()
            except files.StateFileError as error:
                self._aside(error)
            return self._totals

    def refresh(self) -> dict[str, Counters]:
        """The totals the file has now, or those last seen when it cannot tell."""
        with contextlib.suppress(files.StateFileError):  # who writes next finds it and says so
            self._see()
        return self._totals

    def merge(self, deltas: Deltas) -> Merged:
        """Add a change to the file. Raises StateFileError when the file was not replaced.

        A file that has gone, or is no state any more, is made anew from the totals last seen.
        """
        with self._lock.held() as descriptor:
            try:
                self._see()
            except files.StateFileParse as error:
                self._aside(error)
            now = self._clock()
            notes = owed.read(descriptor, now)
            totals, left = owed.merged(self._totals, deltas, notes, now)
            merged = self._replace(totals)
            owed.write(descriptor, left)
            return merged

    def _see(self) -> None:
        data = files.read(self.path, ledger.FILE_LIMIT)
        if data and not data.isspace() and data != self._last:
            self._totals = ledger.parse(data, self.path)
            self._last = data

    def _replace(self, totals: dict[str, Counters]) -> Merged:
        data = ledger.render(totals)
        failure = None
        try:
            files.write_atomic(self.path, data, ledger.FILE_LIMIT)
        except files.StateFileWrite as error:
            if not error.replaced:
                raise
            failure = error
        self._totals, self._last = totals, data
        return Merged(totals, failure)

    def _aside(self, error: files.StateFileError) -> None:
        moved_to = files.set_aside(self.path, datetime.fromtimestamp(self._clock(), UTC))
        self._set_aside(error, moved_to)

    def close(self) -> None:
        """Release the lock file."""
        self._lock.close()


def lock_path(path: Path) -> Path:
    """The lock file of a state file."""
    return path.with_name(path.name + ".lock")


def replace_bucket(
    path: Path, bucket: str, counters: Counters, *, expected: Counters | None = None
) -> bool:
    """Set one bucket's counters, under running gateways, too; raises StateFileError.

    With `expected` only where they are just that; returns whether they were set. A file that is no
    state is left as it is. Gateways show the new totals within seconds.
    """
    path = _real(path)
    lock = files.LockFile(lock_path(path))
    try:
        with lock.held(_LOCK_SECONDS) as descriptor:
            totals = ledger.load(path) or {}
            if expected is not None and totals.get(bucket, ledger.EMPTY) != expected:
                return False
            totals[bucket] = counters
            notes = owed.read(descriptor, time.time())
            notes.pop(bucket, None)
            files.write_atomic(path, ledger.render(totals), ledger.FILE_LIMIT)
            owed.write(descriptor, notes)
            return True
    finally:
        lock.close()


def _real(path: Path) -> Path:
    """Where a link leads to: a rename replaces the name it is given, not what that stands for."""
    return Path(os.path.realpath(path))
