"""One call for all who asked before it began.

Sixteen readers of one object would ask the store sixteen times whether it is still the same. They
share the answer, under one rule that keeps reads as fresh as if each had asked: nobody is given
the result of a call that began before they asked. Who comes while a call is under way waits for
the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

_Result = TypeVar("_Result")


class Coalescer(Generic[_Result]):
    """Calls by key, whose result is never None; used on one event loop.

    A failure of the call is everyone's. A leader that is cancelled leaves the call to the others.
    """

    __slots__ = ("_next", "_running")

    def __init__(self) -> None:
        self._running: dict[Hashable, list[asyncio.Future[None]]] = {}
        self._next: dict[Hashable, list[asyncio.Future[_Result | None]]] = {}

    async def run(self, key: Hashable, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Return the result of a call for `key` that begins after this one was made."""
        while True:
            followers = self._next.get(key)
            if followers is None:
                if key not in self._running:
                    return await self._call(key, call)
                return await self._lead(key, call)
            future = asyncio.get_running_loop().create_future()
            followers.append(future)
            result: _Result | None = await future
            if result is not None:
                return result

    async def _call(self, key: Hashable, call: Callable[[], Awaitable[_Result]]) -> _Result:
        waiting = self._running[key] = []
        try:
            return await call()
        finally:
            del self._running[key]
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def _lead(self, key: Hashable, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Wait for the call under way, then make the next one for all who are waiting by then."""
        followers = self._next[key] = []
        result: _Result | None = None  # None sends the followers round again: this leader has left
        fault: Exception | None = None
        try:
            try:
                while (waiting := self._running.get(key)) is not None:
                    future = asyncio.get_running_loop().create_future()
                    waiting.append(future)
                    await future
            finally:
                del self._next[key]
            result = await self._call(key, call)
        except Exception as error:
            fault = error
            raise
        finally:
            for follower in followers:
                if follower.done():
                    continue
                if fault is not None:
                    follower.set_exception(fault)
                else:
                    follower.set_result(result)
        return result
