"""A bounded memory of what was read: the least recently used goes first.

Rule: whatever is kept is kept by a name that includes the version of the object, so that nothing
here can be out of date, only superfluous. Safe between threads.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Lru(Generic[_K, _V]):
    """At most `limit` in total, of what `weigh` says each value weighs; 1 each by default.

    >>> kept = Lru[str, bytes](10, len)
    >>> kept.put("a", b"12345678"); kept.put("b", b"123"); kept.put("huge", b"0" * 11)
    >>> kept.get("a"), kept.get("b"), kept.get("huge"), kept.weight
    (None, b'123', None, 3)
    """

    def __init__(self, limit: int, weigh: Callable[[_V], int] = lambda _: 1) -> None:
        self._limit = limit
        self._weigh = weigh
        self._kept: OrderedDict[_K, tuple[_V, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.weight = 0

    def get(self, key: _K) -> _V | None:
        """Return what is kept under `key`, None when nothing is."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: _K, value: _V) -> None:
        """Keep `value`, unless it alone exceeds the limit."""
        weight = self._weigh(value)
        with self._lock:
            self._drop(key)
            if weight > self._limit:
                return
            self._kept[key] = (value, weight)
            self.weight += weight
            while self.weight > self._limit:
                _, (_, oldest) = self._kept.popitem(last=False)
                self.weight -= oldest

    def drop(self, key: _K) -> None:
        """Forget `key`."""
        with self._lock:
            self._drop(key)

    def drop_where(self, doomed: Callable[[_K], bool]) -> None:
        """Forget every key that is `doomed`."""
        with self._lock:
            for key in [key for key in self._kept if doomed(key)]:
                self._drop(key)

    def __len__(self) -> int:
        return len(self._kept)

    def _drop(self, key: _K) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.weight -= found[1]
