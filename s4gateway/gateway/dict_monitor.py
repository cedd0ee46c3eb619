"""Does each dictionary still help? Told from the last hundred objects below its prefix.

Data drifts away from what a dictionary was trained on, and nothing fails when it does: objects are
just stored without it, after having been compressed twice. Rule: a full window in which less than
half were made smaller is worth one warning an hour and prefix; a new dictionary begins with an
empty window, and what requests of an older generation still report of the old one is not counted.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from s4gateway.objects.encoding import Tried
from s4gateway.values import immutable

WINDOW: Final = 100  # objects
STALE_BELOW: Final = 0.5
QUIET_SECONDS: Final = 3600.0


@immutable
class Stale:
    """A dictionary that lost more often than it won; `win_rate` is between 0 and 1."""

    prefix: str
    dict_id: str
    win_rate: float


class _Window:
    __slots__ = ("dict_id", "outcomes", "wins")

    def __init__(self, dict_id: str) -> None:
        self.dict_id = dict_id
        self.outcomes: deque[bool] = deque(maxlen=WINDOW)
        self.wins = 0

    def add(self, won: bool) -> None:
        if len(self.outcomes) == WINDOW:
            self.wins -= self.outcomes[0]
        self.outcomes.append(won)
        self.wins += won

    @property
    def win_rate(self) -> float:
        return self.wins / len(self.outcomes)


class DictMonitor:
    """Rolling win rates by prefix. `present` returns the dictionary ids mapped now, by prefix.

    >>> monitor = DictMonitor(lambda: {"b/p": "0" * 16})
    >>> monitor.record(Tried("b/p", "0" * 16, True, 100, 40, 90)) is None
    True
    >>> monitor.win_rates()
    {'b/p': 1.0}
    """

    def __init__(
        self,
        present: Callable[[], Mapping[str, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._present = present
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._quiet_until: dict[str, float] = {}

    def record(self, tried: Tried) -> Stale | None:
        """Take note of one object; returns what there is to warn of."""
        prefix, dict_id = tried.label, tried.dict_id
        if self._present().get(prefix) != dict_id:
            return None
        window = self._windows.get(prefix)
        if window is None or window.dict_id != dict_id:
            window = self._windows[prefix] = _Window(dict_id)
        window.add(tried.won)
        if len(window.outcomes) < WINDOW or window.win_rate >= STALE_BELOW:
            return None
        now = self._clock()
        if now < self._quiet_until.get(prefix, now):
            return None
        self._quiet_until[prefix] = now + QUIET_SECONDS
        return Stale(prefix, dict_id, window.win_rate)

    def win_rates(self) -> dict[str, float]:
        """The share of the last objects, 100 at most, that were made smaller, by prefix."""
        present = self._present()
        return {
            prefix: window.win_rate
            for prefix, window in self._windows.items()
            if present.get(prefix) == window.dict_id
        }
