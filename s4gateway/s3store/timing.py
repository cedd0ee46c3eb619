"""The two durations every reader and writer of a dataset must agree on.

A commit counts when its marker is stored at most `commit_timeout` after its ref was stamped;
readers of the change stream keep `commit_timeout + max_clock_skew` behind their own clock, so that
what they read is final. Rule: the values are written once and never changed; a dataset without them
is not opened, because a wrong guess would lose rows silently.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from s4gateway.s3store import durations, errors, layout
from s4gateway.s3store.calls import S3Calls
from s4gateway.s3store.errors import TimingConfigError

_log = logging.getLogger(__name__)

COMMIT_TIMEOUT_FLOOR: Final = timedelta(milliseconds=1)
COMMIT_TIMEOUT_ADVISORY: Final = timedelta(seconds=8)
MAX_CLOCK_SKEW_FLOOR: Final = timedelta(0)

_FLOORS: Final = {
    layout.COMMIT_TIMEOUT: COMMIT_TIMEOUT_FLOOR,
    layout.MAX_CLOCK_SKEW: MAX_CLOCK_SKEW_FLOOR,
}
_SEED: Final = "seed the dataset with init_dataset() or `s4 dataset init`"


@dataclass(frozen=True, slots=True)
class Timing:
    """The two durations in nanoseconds."""

    commit_timeout_ns: int
    max_clock_skew_ns: int

    @property
    def settle_us(self) -> int:
        """How far readers keep behind their clock, in microseconds, rounded up."""
        return -(-(self.commit_timeout_ns + self.max_clock_skew_ns) // 1000)


def as_timedelta(nanoseconds: int) -> timedelta:
    """Return nanoseconds as Python has them, rounded down to microseconds."""
    return timedelta(microseconds=nanoseconds // 1000)


async def load(calls: S3Calls, bucket: str, keys: layout.Keys) -> Timing:
    """Return the timing of a dataset; raises TimingConfigError."""
    timeout, skew = await asyncio.gather(
        _load_one(calls, bucket, keys, layout.COMMIT_TIMEOUT),
        _load_one(calls, bucket, keys, layout.MAX_CLOCK_SKEW),
    )
    if as_timedelta(timeout) < COMMIT_TIMEOUT_ADVISORY:
        _log.warning(
            "commit-timeout of %s/%s is %s, below %s: writes that are slow for a moment will be"
            " reported as late",
            bucket,
            keys.prefix,
            durations.serialize(timeout),
            durations.serialize(nanoseconds_of(COMMIT_TIMEOUT_ADVISORY)),
        )
    return Timing(timeout, skew)


async def _load_one(calls: S3Calls, bucket: str, keys: layout.Keys, name: str) -> int:
    key = keys.config(name)
    try:
        body = await calls.get(key)
    except errors.NotFound:
        raise TimingConfigError(bucket, key, f"is absent: {_SEED}") from None
    try:
        return parse(name, body.decode().strip())
    except ValueError as problem:
        raise TimingConfigError(bucket, key, str(problem)) from None


def parse(name: str, text: str) -> int:
    """Return the nanoseconds of one of the two; raises ValueError."""
    value = durations.parse(text)
    floor = nanoseconds_of(_FLOORS[name])
    if value < floor:
        raise ValueError(f"{text!r} is below {durations.serialize(floor)}")
    return value


def nanoseconds_of(duration: timedelta) -> int:
    """Return the nanoseconds of a duration."""
    return duration // timedelta(microseconds=1) * 1000
