"""Locks by name, made when they are asked for and dropped when nobody holds or awaits them.

Rule: who takes several takes them in one order, so that no two wait for each other. What is kept is
bounded by the work under way, not by the names ever seen.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

_Name = TypeVar("_Name", bound=Hashable)


class KeyLocks(Generic[_Name]):
    """One lock for each name, given in the order it was asked for; used on one event loop.

    >>> locks = KeyLocks()
    >>> async def work():
    ...     async with locks.hold("b", "a", "b"):
    ...         return len(locks)
    >>> asyncio.run(work()), len(locks)
    (2, 0)
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[_Name, deque[asyncio.Future[None]] | None] = {}  # who waits, if anybody

    def __len__(self) -> int:
        return len(self._held)

    async def acquire(self, name: _Name) -> None:
        """Wait for the lock of this name; costs nothing where nobody holds it."""
        if name not in self._held:
            self._held[name] = None
            return
        waiting = self._held[name]
        if waiting is None:
            waiting = self._held[name] = deque()
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(name)  # it was this one's turn already
            raise

    def release(self, name: _Name) -> None:
        """Give the lock to who has waited longest, or drop it."""
        waiting = self._held[name]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._held[name]

    @asynccontextmanager
    async def hold(self, *names: _Name) -> AsyncGenerator[None, None]:
        """Hold the locks of all these names during the block; a name may come twice."""
        wanted: list[Any] = sorted(set(names))
        held: list[_Name] = []
        try:
            for name in wanted:
                await self.acquire(name)
                held.append(name)
            yield
        finally:
            for name in held:
                self.release(name)
