"""How long a tool waits for a store that says "later", before it says that it failed.

The store's client repeats a request for seconds; a run over a whole bucket can wait for minutes.
Waits double and are drawn at random, so that the objects of a run do not come back all at once.
https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from s4gateway.backend.base import (
    BackendAnswer,
    BackendError,
    BackendProtocolError,
    BackendUnavailable,
)

_Result = TypeVar("_Result")
_LATER = frozenset({429, 500, 502, 503, 504})


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later.

    >>> is_passing(BackendAnswer(503, "SlowDown")), is_passing(BackendAnswer(403, "AccessDenied"))
    (True, False)
    """
    if isinstance(error, BackendAnswer):
        return error.status in _LATER
    if isinstance(error, BackendUnavailable):
        return error.retryable
    return isinstance(error, BackendProtocolError)


@dataclass(frozen=True, slots=True)
class Patience:
    """`attempts` in all, with waits up to `first` * 2^n and `longest` seconds in between."""

    attempts: int = 6
    first: float = 1.0
    longest: float = 30.0

    async def wait(self, failed: int) -> bool:
        """Wait after `failed` attempts; False, at once, when there is to be no other."""
        if failed >= self.attempts:
            return False
        ceiling = min(self.longest, self.first * 2.0 ** (failed - 1))
        await asyncio.sleep(ceiling * (0.5 + random.random() / 2))
        return True

    async def ask(self, request: Callable[[], Awaitable[_Result]]) -> _Result:
        """The answer to a request that may be repeated; raises what the last attempt raised."""
        failed = 0
        while True:
            try:
                return await request()
            except BackendError as error:
                failed += 1
                if not is_passing(error) or not await self.wait(failed):
                    raise
