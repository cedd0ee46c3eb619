"""One wait for the disk for all who wait at once.

Rule: what is on disk when a wait ends was applied before that wait began, so whoever comes while
one is under way belongs to the next. Who gives up waiting leaves the others alone.
"""

import asyncio
from collections.abc import Awaitable, Callable


class Settling:
    """Shares calls of `settle` among all who want one; used on one event loop."""

    __slots__ = ("_settle", "_task", "_waiting")

    def __init__(self, settle: Callable[[], Awaitable[None]]) -> None:
        self._settle = settle
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    async def done(self) -> None:
        """Return when a call that began after this one was made has ended, however it ended."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if self._task is None:
            self._task = loop.create_task(self._run())
        await turn

    async def _run(self) -> None:
        turns: list[asyncio.Future[None]] = []
        try:
            while self._waiting:
                turns, self._waiting = self._waiting, []
                await self._settle()
                _release(turns)
        finally:
            self._task = None
            _release(turns)
            _release(self._waiting)


def _release(turns: list[asyncio.Future[None]]) -> None:
    for turn in turns:
        if not turn.done():
            turn.set_result(None)
    turns.clear()
