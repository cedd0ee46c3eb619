"""A watch over a read: it says once when nothing moves for a minute, and never ends anything.

Rule: only a download or a decoder that stands still is a stall; a reader may take its time.
"""

import logging
from collections.abc import Callable
from typing import Final

from s4gateway.s3store.clock import Clock
from s4gateway.s3store.telemetry import Method

_log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 30.0
STALL_SECONDS: Final = 60.0


class Watch:
    """Told of each movement; `partition` is what is decoded next, `paused` that nobody wants it."""

    def __init__(self, method: Method, clock: Clock, places_taken: Callable[[], int]) -> None:
        self.partition = ""
        self.paused = False
        self._method = method
        self._clock = clock
        self._places_taken = places_taken
        self._moved_at: float | None = None
        self._said = False

    def moved(self) -> None:
        """Note that a file landed or a place became free."""
        self._moved_at = self._clock.monotonic()
        self._said = False

    async def run(self) -> None:
        """Look every half minute, for ever."""
        while True:
            await self._clock.sleep(WATCH_SECONDS)
            if self._moved_at is None or self.paused or self._said:
                continue
            stale = self._clock.monotonic() - self._moved_at
            if stale >= STALL_SECONDS:
                self._say(stale)

    def _say(self, stale: float) -> None:
        self._said = True
        self._method.count("s3store.read.iter.stall.count")
        _log.warning(
            "%s: no data file landed for %.0f s, waiting for partition %r, %d places taken",
            self._method.name,
            stale,
            self.partition,
            self._places_taken(),
        )
