"""Group commit: one thread does the writing, and everything that waits goes into its next write.

Rules: a write that began before somebody asked says nothing to him, so he waits for the next one;
however many ask meanwhile, they share it. After a write the thread rests, the longer the more have
asked for it: who asks alone hardly waits, and the more ask, the more of them go into one write, and
the less of a core that takes. The event loop never touches the disk. Nobody waits without a limit,
and a write that fails lets everybody go who waited for it.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

WAIT_SECONDS: Final = 10.0  # what a disk may take before those who wait are let go
PAUSE_SECONDS: Final = 5.0  # between writes nobody asked for
_STOP_SECONDS: Final = 5.0
_REST: Final = 0.5  # of the CPU time of a write, for each who asked for it
_LONGEST_REST: Final = 0.02  # seconds

_log = logging.getLogger("s4.ledger")


class _Batch:
    """Those who asked for one run, which is `forced` if one of them wants it so.

    One timer does for all who wait: the first is who waits longest.
    """

    __slots__ = ("_expired", "_limit", "_loop", "_timer", "_waiters", "asked", "forced")

    def __init__(self, limit: float, expired: Callable[["_Batch"], None]) -> None:
        self.asked = 0
        self.forced = False
        self._limit = limit
        self._expired = expired
        self._waiters: list[asyncio.Future[bool]] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # where somebody waits
        self._timer: asyncio.TimerHandle | None = None

    def join(self) -> asyncio.Future[bool]:
        """Wait, too: return what will hold the run's result."""
        self._loop = loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(self._limit, self._expired, self)
        future: asyncio.Future[bool] = loop.create_future()
        self._waiters.append(future)
        return future

    def release(self, result: bool) -> None:
        """Let everybody go, from another thread; nobody joins any more."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and all who waited
                self._loop.call_soon_threadsafe(self._release, result)

    def _release(self, result: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for future in self._waiters:
            if not future.done():
                future.set_result(result)

    def give_up(self) -> None:
        """Tell everybody who waits that it has taken too long; who comes now begins to wait."""
        self._timer = None
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            if not future.done():
                future.set_exception(TimeoutError())


class Flusher:
    """Runs `work(forced)` in a thread of its own when asked, and every `pause` seconds besides.

    `work` returns whether what it had to write is written; it is never run twice at once.
    """

    def __init__(
        self,
        work: Callable[[bool], bool],
        *,
        pause: float = PAUSE_SECONDS,
        limit: float = WAIT_SECONDS,
    ) -> None:
        self._work = work
        self._pause = pause
        self._limit = limit
        self._batch: _Batch | None = None  # who waits for the next run
        self._running: _Batch | None = None  # who waits for the one under way
        self._wanted = threading.Condition()
        self._stopping = False
        self._began: float | None = None  # when the run under way began
        # A daemon: a disk that hangs for ever must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="s4-ledger", daemon=True)
        self._thread.start()

    async def flush(self, *, forced: bool = False) -> bool:
        """Return the result of a run that began after this call; TimeoutError when it takes long.

        `forced` is handed to the work: write even when nothing has changed.
        """
        if self._overdue():
            raise TimeoutError
        with self._wanted:
            if self._stopping:
                return False
            batch = self._asked()
            batch.forced = batch.forced or forced
            future = batch.join()
        return await future

    def begin(self) -> None:
        """Have a run begin after this call, for which nobody waits yet."""
        with self._wanted:
            if not self._stopping:
                self._asked()

    def _asked(self) -> _Batch:
        if self._batch is None:
            self._batch = _Batch(self._limit, self._expired)
            self._wanted.notify()
        self._batch.asked += 1
        return self._batch

    async def under_way(self) -> None:
        """Return when no run is that began before this call; TimeoutError when it takes long."""
        if self._overdue():
            raise TimeoutError
        with self._wanted:
            future = None if self._running is None else self._running.join()
        if future is not None:
            await future

    def _expired(self, batch: _Batch) -> None:
        with self._wanted:
            if self._batch is batch:
                self._batch = None
        batch.give_up()

    async def stop(self) -> bool:
        """End the thread; returns whether it has ended. Who still waits gets his run first."""
        with self._wanted:
            self._stopping = True
            self._wanted.notify()
        await asyncio.to_thread(self._thread.join, _STOP_SECONDS)
        return not self._thread.is_alive()

    def _overdue(self) -> bool:
        """Whether the run under way has taken so long that waiting for the next one is no use."""
        began = self._began
        return began is not None and time.monotonic() - began > self._limit

    def _run(self) -> None:
        while True:
            with self._wanted:
                if self._batch is None and not self._stopping:
                    self._wanted.wait(self._pause)
                if self._batch is None and self._stopping:
                    return
                batch = self._batch or _Batch(self._limit, self._expired)
                self._batch, self._running = None, batch
            busy = time.thread_time()
            result = self._do(batch.forced)
            busy = time.thread_time() - busy
            with self._wanted:
                self._running = None
            batch.release(result)
            time.sleep(min(_REST * batch.asked * busy, _LONGEST_REST))

    def _do(self, forced: bool) -> bool:
        self._began = time.monotonic()
        try:
            return self._work(forced)
        except Exception:  # the thread outlives whatever goes wrong in it
            _log.exception("ledger-flush-broken")
            return False
        finally:
            self._began = None
