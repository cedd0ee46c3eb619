"""Work that goes on when whoever asked for it has left.

Rule: every task has an owner, and that is this process, not the request: what a client began and
cannot be told of is still finished. Who asks for the same work while it is under way waits for it
instead of doing it twice. Work under way when the process ends is given a time, then cancelled.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

_Result = TypeVar("_Result")


class Detached(Generic[_Result]):
    """Tasks by what they do; used on one event loop."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[_Result]] = {}

    def begin(
        self, key: Hashable, call: Callable[[], Coroutine[Any, Any, _Result]]
    ) -> asyncio.Task[_Result]:
        """Return the task for `key`, started now unless it is under way.

        Wait for it with `asyncio.wait`, which leaves it alone when the waiting is cancelled.
        """
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.get_running_loop().create_task(call())
            task.add_done_callback(lambda done: self._end(key, done))
        return task

    def _end(self, key: Hashable, done: "asyncio.Task[_Result]") -> None:
        del self._running[key]
        if not done.cancelled():
            done.exception()  # read here: perhaps nobody is waiting any more

    async def close(self, seconds: float) -> None:
        """Wait for what is under way, `seconds` at most, and cancel what is left."""
        if not self._running:
            return
        _, late = await asyncio.wait(list(self._running.values()), timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
