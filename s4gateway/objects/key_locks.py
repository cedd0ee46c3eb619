"""Locks by name, made when they are asked for and dropped when nobody holds or awaits them.

Rule: who takes several takes them in one order, so that no two wait for each other. What is kept is
bounded by the work under way, not by the names ever seen.
"""

import asyncio
from collections.abc import AsyncGenerator, Hashable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

_Name = TypeVar("_Name", bound=Hashable)


class KeyLocks(Generic[_Name]):
    """One lock for each name; used on one event loop.

    >>> locks = KeyLocks()
    >>> async def work():
    ...     async with locks.hold("b", "a", "b"):
    ...         return len(locks)
    >>> asyncio.run(work()), len(locks)
    (2, 0)
    """

    __slots__ = ("_locks", "_users")

    def __init__(self) -> None:
        self._locks: dict[_Name, asyncio.Lock] = {}
        self._users: dict[_Name, int] = {}

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def hold(self, *names: _Name) -> AsyncGenerator[None, None]:
        """Hold the locks of all these names during the block; a name may come twice."""
        wanted = names if len(names) == 1 else _in_order(names)
        for name in wanted:
            self._users[name] = self._users.get(name, 0) + 1
            if name not in self._locks:
                self._locks[name] = asyncio.Lock()
        held: list[asyncio.Lock] = []
        try:
            for name in wanted:
                lock = self._locks[name]
                await lock.acquire()
                held.append(lock)
            yield
        finally:
            for lock in held:
                lock.release()
            for name in wanted:
                self._let_go(name)

    def _let_go(self, name: _Name) -> None:
        self._users[name] -= 1
        if not self._users[name]:
            del self._users[name], self._locks[name]


def _in_order(names: Iterable[_Name]) -> tuple[_Name, ...]:
    found: list[Any] = sorted(set(names))
    return tuple(found)
