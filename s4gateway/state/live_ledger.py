"""The savings ledger of a running gateway: every event counted at once, on disk before it is told.

`apply` and `snapshot` go by one lock, so what is shown is what was counted, all of one moment.
`settled` returns when the file holds what was applied before it was called, or what one write took:
each has a number, so that who had a write begun early waits for that and no later one. A disk that
fails is said and counted and fails no request: the change stays in memory and goes with the next
write, which comes by itself after a few seconds.
"""

import logging
import threading
import time
from pathlib import Path
from typing import Final, Protocol

from s4gateway.state import files, ledger
from s4gateway.state.flusher import PAUSE_SECONDS, WAIT_SECONDS, Flusher
from s4gateway.state.ledger import Counters, Delta
from s4gateway.state.shared_file import SharedFile

_HANGS: Final = "the disk, or who holds the lock, does not answer"
_REPEAT_SECONDS: Final = 60.0  # a failure that goes on is said again after so long

_log = logging.getLogger("s4.ledger")


class Observer(Protocol):
    """Told of what goes wrong, from any thread."""

    def flush_failed(self) -> None:
        """Events are not on disk."""

    def load_failed(self, reason: str) -> None:
        """A state file was set aside: `read_error` or `parse_error`."""


class LiveLedger:
    """Counters of one process over a file it may share with others; used on one event loop.

    Opening raises files.StateFileError when the file's place cannot be used.
    """

    def __init__(
        self,
        path: Path,
        observer: Observer,
        *,
        pause: float = PAUSE_SECONDS,
        limit: float = WAIT_SECONDS,
    ) -> None:
        self._observer = observer
        self._file = SharedFile(path, self._was_set_aside)
        self._lock = threading.Lock()
        self._pending: dict[str, Delta] = {}  # not in the file
        self._writing: dict[str, Delta] = {}  # on its way there
        self._unsynced = False  # in the file, which may not survive a power failure
        self._run = 1  # number of the write that takes what is applied now
        self._ended = 0  # number of the last write that is over, whatever came of it
        self._missed = 0  # number of the last one that did not bring to disk what it took
        self._said = ""
        self._said_at = 0.0
        try:
            self._totals = self._file.load()
        except files.StateFileError:
            self._file.close()
            raise
        self._flusher = Flusher(self._flush, pause=pause, limit=limit)

    def apply(
        self, bucket: str, *, original: int = 0, stored: int = 0, objects: int = 0, skipped: int = 0
    ) -> int:
        """Count one event by its signed changes: bytes, bytes, objects, objects passed over.

        Returns the number of the write that will take it.
        """
        delta = Delta(original, stored, objects, skipped)
        with self._lock:
            before = self._pending.get(bucket)
            self._pending[bucket] = delta if before is None else before + delta
            return self._run

    def holding(self, bucket: str) -> int:
        """Number of the write that takes what is not on disk yet of a bucket, 0 for nothing."""
        with self._lock:
            if bucket in self._pending:
                return self._run
            return self._run - 1 if bucket in self._writing else 0

    def begin(self) -> None:
        """Have what was applied so far written, without waiting for it."""
        self._flusher.begin()

    def snapshot(self) -> dict[str, Counters]:
        """The counters of all buckets, with everything this process knows."""
        with self._lock:
            buckets = self._totals.keys() | self._writing.keys() | self._pending.keys()
            return {bucket: self._now(bucket) for bucket in buckets}

    async def settled(self, run: int | None = None) -> None:
        """Return when every event applied so far is on disk, or the disk has failed it.

        With the number of a write, those that it took. What a write missed is tried once more.
        """
        if run is None:
            if self._pending or self._writing or self._unsynced:
                await self.flush()
        elif run >= self._run:
            await self.flush()
        else:
            try:
                if run > self._ended:
                    await self._flusher.under_way()
            except TimeoutError:
                self._failed(_HANGS)
            else:
                if run <= self._missed and (self._pending or self._unsynced):
                    await self.flush()

    async def flush(self, *, forced: bool = False) -> bool:
        """Write what is pending, `forced` also when nothing is; returns whether it is on disk."""
        try:
            return await self._flusher.flush(forced=forced)
        except TimeoutError:
            self._failed(_HANGS)
            return False

    async def close(self) -> bool:
        """Flush for the last time and end; returns whether everything is on disk."""
        await self.settled()
        if not await self._flusher.stop():
            return False
        self._file.close()
        return not self._pending

    # --- below here: the flusher's thread

    def _flush(self, forced: bool) -> bool:
        run, written = self._run, False
        try:
            written = self._write(forced)
        finally:
            if not written:
                self._missed = run
            self._ended = run
        return written

    def _write(self, forced: bool) -> bool:
        with self._lock:
            # In this order: `settled` looks at both without the lock, at `_pending` first.
            self._writing = deltas = self._pending
            self._pending = {}
            self._run += 1
        if not (deltas or forced or self._unsynced):
            totals = self._file.refresh()
            with self._lock:
                self._totals = totals
            return True
        try:
            merged = self._file.merge(deltas)
        except BaseException as error:
            with self._lock:
                self._pending = ledger.summed(deltas, self._pending)
                self._writing = {}
            if not isinstance(error, files.StateFileError):
                raise
            self._failed(str(error))
            return False
        with self._lock:
            self._unsynced = merged.failure is not None
            self._writing = {}
            self._totals = merged.totals
        if merged.failure is not None:
            self._failed(str(merged.failure))
            return False
        self._recovered()
        return True

    def _now(self, bucket: str) -> Counters:
        counters = self._totals.get(bucket, ledger.EMPTY)
        change = ledger.NOTHING
        for deltas in (self._writing, self._pending):
            if bucket in deltas:
                change += deltas[bucket]
        return ledger.changed(counters, change)

    def _failed(self, problem: str) -> None:
        """Count a failure; say it when it is new, and now and then while it lasts."""
        self._observer.flush_failed()
        now = time.monotonic()
        if problem != self._said or now - self._said_at >= _REPEAT_SECONDS:
            self._said, self._said_at = problem, now
            fields = {"problem": problem, "then": "counted in memory, written with the next flush"}
            _log.warning("ledger-flush-failed", extra={"fields": fields})

    def _recovered(self) -> None:
        if self._said:
            self._said = ""
            _log.info("ledger-flush-recovered", extra={"fields": {"path": str(self._file.path)}})

    def _was_set_aside(self, error: files.StateFileError, moved_to: Path) -> None:
        read = isinstance(error, files.StateFileRead)
        self._observer.load_failed("read_error" if read else "parse_error")
        fields = {"problem": str(error), "moved_to": str(moved_to)}
        _log.warning("state-file-set-aside", extra={"fields": fields})
