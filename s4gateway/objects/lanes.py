"""The threads that code and hash, and the lanes that feed them in order.

Rule: the event loop never codes more than a small body. Compression and decompression run on one
executor with as many threads as cores (more were slower), digests on another, so that MD5 runs
beside the codec instead of after it, and file writes on a third. None of them is asyncio's default
executor, which resolves host names.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import Final

_QUANTUM: Final = 4 * 1024 * 1024  # bytes one lane may work off before others get the thread


class Lanes:
    """The executors of one process.

    >>> lanes = Lanes(codec_threads=2)
    >>> lanes.codec.submit(len, b"abc").result()
    3
    >>> lanes.close()
    """

    __slots__ = ("codec", "digest", "disk")

    def __init__(self, codec_threads: int = 0) -> None:
        threads = codec_threads or cpu_count() or 1
        self.codec = ThreadPoolExecutor(threads, "s4-codec")
        self.digest = ThreadPoolExecutor(max(1, threads // 2), "s4-digest")
        self.disk = ThreadPoolExecutor(2, "s4-disk")

    def close(self) -> None:
        """Stop the threads once their current work is done."""
        for executor in (self.codec, self.digest, self.disk):
            executor.shutdown(wait=False, cancel_futures=True)


class Lane:
    """Pieces go through `work` one after another on an executor, in the order they were pushed.

    `progress(count)` is called on the loop when `count` bytes are done; `last` runs on the executor
    after the last piece. A failure in either stops the lane and is raised by `finish`. After
    `abandon` no more pieces are worked and `last` does not run.
    """

    __slots__ = (
        "_closing", "_done", "_executor", "_last", "_loop", "_progress", "_queue", "_running",
        "_work",
    )  # fmt: skip

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        work: Callable[[memoryview], None],
        progress: Callable[[int], None],
        last: Callable[[], None] | None = None,
    ) -> None:
        self._executor = executor
        self._work = work
        self._progress = progress
        self._last = last
        self._loop = asyncio.get_running_loop()
        self._queue: deque[memoryview] = deque()
        self._running = False
        self._closing = False
        self._done: asyncio.Future[None] = self._loop.create_future()

    def push(self, piece: memoryview) -> None:
        """Hand over a piece; its bytes must not change until they are worked."""
        self._queue.append(piece)
        if not self._running:
            self._start()

    def close(self) -> None:
        """No more pieces will come."""
        self._closing = True
        if not self._running:
            self._advance()

    async def finish(self) -> None:
        """Wait until every piece is worked; raises what `work` or `last` raised."""
        self.close()
        await self._done

    def raise_failure(self) -> None:
        """Raise what `work` or `last` raised so far, if anything."""
        if self._done.done():
            self._done.result()

    @property
    def done(self) -> bool:
        """Closed and worked off, or failed."""
        return self._done.done()

    def abandon(self) -> None:
        """Drop what is queued; work under way on the thread ends by itself."""
        self._queue.clear()
        self._last = None
        self.close()

    def _start(self) -> None:
        self._running = True
        future = self._loop.run_in_executor(self._executor, self._work_off)
        future.add_done_callback(self._worked)

    def _work_off(self) -> int:
        count = 0
        queue = self._queue
        while queue and count < _QUANTUM:
            try:
                piece = queue.popleft()
            except IndexError:  # abandoned between the test and the pop
                break
            self._work(piece)
            count += len(piece)
        if self._closing and not queue and (last := self._last) is not None:
            self._last = None
            last()
        return count

    def _worked(self, future: "asyncio.Future[int]") -> None:
        self._running = False
        if future.cancelled():
            self._settle(RuntimeError("the executor was shut down"))
        elif (error := future.exception()) is not None:
            self._queue.clear()
            self._settle(error)
        else:
            self._advance()
            self._progress(future.result())

    def _advance(self) -> None:
        if self._done.done():
            return
        if self._queue or (self._closing and self._last is not None):
            self._start()
        elif self._closing:
            self._settle(None)

    def _settle(self, error: BaseException | None) -> None:
        if self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)
            self._done.exception()  # read here: an abandoned lane must not warn about it
            self._progress(0)
