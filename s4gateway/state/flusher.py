"""Group commit: one thread does the writing, and everything that waits goes into its next write.

Rules: a write that began before somebody asked says nothing to him, so he waits for the next one;
however many ask meanwhile, they share it. Between two writes the thread rests for a multiple of the
CPU time the last one took, so writing never takes more than a fixed share of a core, and the more
it costs, the more events go into one. The event loop never touches the disk. Nobody waits without a
limit, and a write that fails lets everybody go who waited for it.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

WAIT_SECONDS: Final = 10.0  # what a disk may take before those who wait are let go
PAUSE_SECONDS: Final = 5.0  # between writes nobody asked for
_STOP_SECONDS: Final = 5.0
_RESTS: Final = 5  # CPU times of a write to rest after it: at most a sixth of a core
_LONGEST_REST: Final = 0.05

_log = logging.getLogger("s4.ledger")


@dataclass(frozen=True, slots=True)
class _Waiter:
    future: asyncio.Future[bool]
    forced: bool


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
        self._waiters: list[_Waiter] = []
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
        waiter = _Waiter(asyncio.get_running_loop().create_future(), forced)
        with self._wanted:
            if self._stopping:
                return False
            self._waiters.append(waiter)
            self._wanted.notify()
        async with asyncio.timeout(self._limit):
            return await waiter.future

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
                if not self._waiters and not self._stopping:
                    self._wanted.wait(self._pause)
                waiters, self._waiters = self._waiters, []
                if self._stopping and not waiters:
                    return
            busy = time.thread_time()
            result = self._do(any(waiter.forced for waiter in waiters))
            if waiters:
                with contextlib.suppress(RuntimeError):  # the loop has ended, and all who waited
                    loop = waiters[0].future.get_loop()
                    loop.call_soon_threadsafe(_release, waiters, result)
            time.sleep(min(_RESTS * (time.thread_time() - busy), _LONGEST_REST))

    def _do(self, forced: bool) -> bool:
        self._began = time.monotonic()
        try:
            return self._work(forced)
        except Exception:  # the thread outlives whatever goes wrong in it
            _log.exception("ledger-flush-broken")
            return False
        finally:
            self._began = None


def _release(waiters: list[_Waiter], result: bool) -> None:
    for waiter in waiters:
        if not waiter.future.done():
            waiter.future.set_result(result)
