"""Which requests may be repeated, after what, and when.

Repeating is safe when doing it twice leaves what doing it once leaves (RFC 9110 section 9.2.2):
reads, deletions and unconditional writes whose body can be replayed. A conditional write is not,
since its own first attempt may be what fails the second; nor is a POST (CompleteMultipartUpload).
Those are repeated only when the store cannot have seen them. Waits have full jitter
(https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from s4gateway.backend import base

TRANSIENT = frozenset({500, 502, 503, 504})
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
_CONDITIONS = frozenset({"if-match", "if-none-match", "if-modified-since", "if-unmodified-since"})


def is_repeatable(method: str, headers: base.HeaderList, body: base.Body | None) -> bool:
    """Whether the request may be sent again although the store may have carried it out.

    >>> is_repeatable("GET", (), None), is_repeatable("PUT", [("If-None-Match", "*")], base.EMPTY)
    (True, False)
    """
    if method not in _IDEMPOTENT or not (body is None or body.replayable):
        return False
    if method in ("GET", "HEAD"):
        return True
    return not any(name.lower() in _CONDITIONS for name, _ in headers)


def parse_retry_after(value: str | None, now: datetime) -> float:
    """Seconds a Retry-After header asks for (RFC 9110 section 10.2.3); 0 when it says nothing.

    >>> parse_retry_after("3", datetime.max), parse_retry_after("soon", datetime.max)
    (3.0, 0.0)
    """
    if not value:
        return 0.0
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    moment = base.parse_date(value)
    return 0.0 if moment is None else max(0.0, (moment - now).total_seconds())


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long: `attempts` in all, waits up to `base_delay` * 2^n and `max_delay`.

    `deadline` bounds, in seconds since the first attempt began, when the last one may begin; a
    Retry-After beyond it ends the attempts. `jitter` draws from [0, 1).
    """

    attempts: int = 3
    base_delay: float = 0.1
    max_delay: float = 2.0
    deadline: float = 20.0
    jitter: Callable[[], float] = random.random

    def delay(self, failed: int, elapsed: float, retry_after: float = 0.0) -> float | None:
        """Seconds to wait after `failed` attempts that took `elapsed` seconds; None to give up.

        >>> RetryPolicy(attempts=2, jitter=lambda: 0.5).delay(1, 0.0)
        0.05
        >>> RetryPolicy(attempts=2).delay(2, 0.0) is None
        True
        """
        if failed >= self.attempts:
            return None
        ceiling = min(self.max_delay, self.base_delay * 2.0 ** min(failed - 1, 60))
        wait = max(retry_after, ceiling * self.jitter())
        return None if elapsed + wait > self.deadline else wait


NEVER = RetryPolicy(attempts=1)
