"""One event loop in one thread: where blocking callers have their asynchronous work done.

Rule: a caller's interrupt or time limit cancels the work and waits for its end before it is told
to the caller, so that a write is never left half way without anybody knowing how it went.
"""

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class LoopThread:
    """An event loop that runs in a daemon thread until it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="s3store-loop", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_end_the_rest())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, _Result], timeout: float | None = None) -> _Result:
        """Return what the coroutine returns; raises TimeoutError after `timeout` seconds.

        Whatever ends the waiting early, Control-C for one, cancels the work first and waits for it:
        a commit that has begun is finished. A second interrupt does not wait any more.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a blocking call from its own event loop would wait for itself")
        ended = threading.Event()
        started: list[asyncio.Task[_Result]] = []
        context = contextvars.copy_context()

        def start() -> None:
            task = self._loop.create_task(_limited(work, timeout), context=context)
            started.append(task)
            task.add_done_callback(lambda _: ended.set())

        def stop() -> None:
            if started:
                started[0].cancel()
            else:  # the interrupt came before the work did
                work.close()
                ended.set()

        try:
            self._loop.call_soon_threadsafe(start)
            ended.wait()
        except BaseException:
            try:
                self._loop.call_soon_threadsafe(stop)
            except RuntimeError:  # the loop is closed
                work.close()
            else:
                ended.wait()
                _read(started)
            raise
        return started[0].result()

    def close(self) -> None:
        """End the loop; harmless when repeated."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


async def _limited(work: Coroutine[Any, Any, _Result], timeout: float | None) -> _Result:
    if timeout is None:
        return await work
    async with asyncio.timeout(timeout):
        return await work


def _read(tasks: "list[asyncio.Task[Any]]") -> None:
    """Take notice of outcomes nobody waits for any more."""
    for task in tasks:
        if not task.cancelled():
            task.exception()


async def _end_the_rest() -> None:
    """Cancel what nobody waits for any more, and wait for its end."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
