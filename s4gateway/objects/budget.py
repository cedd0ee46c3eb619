"""One budget for every byte that is held on behalf of a request.

Rule: memory that grows with a client's body is reserved here before it is filled and released when
it is gone. What a request cannot do without is a *share*, refused at admission (S3's 503 SlowDown,
which every SDK retries). A request that is under way and meets a larger frame *grows*, and waits
its turn for it. What would merely make a request faster is *extra*, granted only while less than a
quarter of the budget is in use, so that speed never starves another request.
"""

import asyncio
from collections import deque
from typing import Final, NamedTuple

from s4gateway.s3.errors import S3Error

DEFAULT_LIMIT: Final = 256 * 1024 * 1024
PATIENCE: Final = 10.0  # seconds a request under way waits for memory
_RETRY: Final = {"Retry-After": "1"}


class Reservation:
    """Bytes one request holds; released as a whole or in parts, never twice.

    >>> budget = ByteBudget(100)
    >>> mine = budget.share(60)
    >>> mine.extend(10), budget.used
    (False, 60)
    >>> mine.release()
    >>> budget.used
    0
    """

    __slots__ = ("_budget", "held")

    def __init__(self, budget: "ByteBudget", held: int) -> None:
        self._budget = budget
        self.held = held

    def extend(self, count: int) -> bool:
        """Take `count` more bytes when that leaves most of the budget free for others' shares.

        Each frame compressed beside another also costs a codec context of a few MiB, which is not
        counted: a quarter of the budget for what is not needed keeps a process within its bounds.
        """
        budget = self._budget
        if budget.waiters or budget.used + count > budget.limit // 4:
            return False
        budget.used += count
        self.held += count
        return True

    async def grow(self, count: int, patience: float = PATIENCE) -> None:
        """Take `count` more bytes that the request cannot do without, as soon as they are free.

        Raises SlowDown after `patience` seconds.
        """
        waiter = _Waiter(count, self, asyncio.get_running_loop().create_future())
        budget = self._budget
        budget.waiters.append(waiter)
        budget.serve()
        if waiter.granted.done():
            return
        try:
            async with asyncio.timeout(patience):
                await waiter.granted
        except BaseException as error:
            if waiter in budget.waiters:
                budget.waiters.remove(waiter)
                budget.serve()
            if isinstance(error, TimeoutError):
                raise S3Error("SlowDown", headers=_RETRY) from error
            raise

    def shrink(self, count: int) -> None:
        """Give back up to `count` bytes."""
        count = min(count, self.held)
        self._budget.used -= count
        self.held -= count
        self._budget.serve()

    def release(self) -> None:
        """Give everything back; harmless when repeated."""
        self.shrink(self.held)


class _Waiter(NamedTuple):
    need: int
    reservation: Reservation
    granted: asyncio.Future[None]


class ByteBudget:
    """Bytes in use out of `limit`, counted on the event loop's thread only."""

    __slots__ = ("limit", "used", "waiters")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self.used = 0
        self.waiters: deque[_Waiter] = deque()

    def serve(self) -> None:
        """Grant what fits to those who wait, first come first served.

        When everything in use belongs to those who wait, the first is served beyond the limit:
        otherwise they would wait for each other.
        """
        while self.waiters:
            need, reservation, granted = self.waiters[0]
            waiting = sum(each.reservation.held for each in self.waiters)
            if self.used + need > self.limit and self.used > waiting:
                return
            self.waiters.popleft()
            self.used += need
            reservation.held += need
            if not granted.done():
                granted.set_result(None)

    def share(self, count: int) -> Reservation:
        """Reserve what a request needs to make progress; raises S3Error("SlowDown") when full.

        A request that alone exceeds the budget is admitted when nothing else is in use: otherwise
        a small budget would refuse a large frame for ever.
        """
        if self.used + count > self.limit and self.used > 0:
            raise S3Error("SlowDown", headers=_RETRY)
        self.used += count
        return Reservation(self, count)
