"""A watch over a read: it says once when nothing moves for a minute, and never ends anything.

Rule: only a download or a decoder that stands still is a stall; a reader may take its time.
"""

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from s4gateway.s3store.clock import Clock
from s4gateway.s3store.telemetry import Method

_log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 30.0
STALL_SECONDS: Final = 60.0


class Standing(NamedTuple):
    """How a read stands: what is decoded next, how much has landed, whether nobody wants it yet."""

    partition: str
    places_taken: int
    paused: bool


class Watch:
    """Told of each movement; asks how the read stands when there was none for long."""

    def __init__(self, method: Method, clock: Clock, standing: Callable[[], Standing]) -> None:
        self._method = method
        self._clock = clock
        self._standing = standing
        self._moved_at: float | None = None
        self._said = False

    def moved(self) -> None:
        """Note that a file landed, a place became free, or the reader took a partition."""
        self._moved_at = self._clock.monotonic()
        self._said = False

    async def run(self) -> None:
        """Look every half minute, for ever."""
        while True:
            await self._clock.sleep(WATCH_SECONDS)
            if self._moved_at is None or self._said:
                continue
            stale = self._clock.monotonic() - self._moved_at
            standing = self._standing()
            if stale >= STALL_SECONDS and not standing.paused:
                self._say(stale, standing)

    def _say(self, stale: float, standing: Standing) -> None:
        self._said = True
        self._method.count("s3store.read.iter.stall.count")
        _log.warning(
            "%s: no data file landed for %.0f s, waiting for partition %r, %d places taken",
            self._method.name,
            stale,
            standing.partition,
            standing.places_taken,
        )
