"""One budget for every byte that is held on behalf of a request.

Rule: memory that grows with a client's body is reserved here before it is filled and released when
it is gone. What a request cannot do without is a *share*, refused at admission (S3's 503 SlowDown,
which every SDK retries); what would merely make it faster is *extra*, granted only while less than
half of the budget is in use, so that speed never starves another request of its share.
"""

from typing import Final

from s4gateway.s3.errors import S3Error

DEFAULT_LIMIT: Final = 256 * 1024 * 1024
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
        """Take `count` more bytes when that leaves half of the budget free for others' shares."""
        budget = self._budget
        if budget.used + count > budget.limit // 2:
            return False
        budget.used += count
        self.held += count
        return True

    def grow(self, count: int) -> None:
        """Take `count` more bytes that the request cannot do without; raises SlowDown."""
        budget = self._budget
        if budget.used + count > budget.limit and budget.used > self.held:
            raise S3Error("SlowDown", headers=_RETRY)
        budget.used += count
        self.held += count

    def shrink(self, count: int) -> None:
        """Give back up to `count` bytes."""
        count = min(count, self.held)
        self._budget.used -= count
        self.held -= count

    def release(self) -> None:
        """Give everything back; harmless when repeated."""
        self.shrink(self.held)


class ByteBudget:
    """Bytes in use out of `limit`, counted on the event loop's thread only."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self.used = 0

    def share(self, count: int) -> Reservation:
        """Reserve what a request needs to make progress; raises S3Error("SlowDown") when full.

        A request that alone exceeds the budget is admitted when nothing else is in use: otherwise
        a small budget would refuse a large frame for ever.
        """
        if self.used + count > self.limit and self.used > 0:
            raise S3Error("SlowDown", headers=_RETRY)
        self.used += count
        return Reservation(self, count)
