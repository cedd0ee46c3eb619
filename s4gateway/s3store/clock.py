"""Time as a dataset uses it: microseconds since 1970 in UTC, and a clock that tests can hold still.

Rule: stamps come from this process's wall clock, never from the store's; durations are measured by
the monotonic clock beside it, because a wall clock may be set back.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from s4gateway.s3store.errors import ConfigError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Clock(Protocol):
    """What a target asks for the time."""

    def now_us(self) -> int:
        """Return microseconds since 1970 by the wall clock."""

    def monotonic(self) -> float:
        """Return seconds since some moment, never fewer than before."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The clock of this machine."""

    def now_us(self) -> int:
        """Return microseconds since 1970."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


SYSTEM_CLOCK: Final = SystemClock()


def to_us(moment: datetime) -> int:
    """Return microseconds since 1970; a time without a zone is a ConfigError.

    >>> to_us(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    if moment.utcoffset() is None:
        raise ConfigError(f"{moment!r} has no time zone: say which, datetime.now(UTC) for one")
    return (moment - _EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """Return the moment in UTC; raises OverflowError outside of the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=microseconds)
