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
    """Calls by key; used on one event loop.

    A failure of the call is everyone's. A leader that is cancelled leaves the call to the others.
    """

    __slots__ = ("_next", "_running")

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Future[None]] = {}
        self._next: dict[Hashable, asyncio.Future[_Result]] = {}

    async def run(self, key: Hashable, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Return the result of a call for `key` that begins after this one was made."""
        while True:
            shared = self._next.get(key)
            if shared is None:
                if key not in self._running:
                    return await self._call(key, call)
                return await self._lead(key, call)
            await asyncio.wait([shared])
            if not shared.cancelled():
                return shared.result()

    async def _call(self, key: Hashable, call: Callable[[], Awaitable[_Result]]) -> _Result:
        done = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            return await call()
        finally:
            del self._running[key]
            done.set_result(None)

    async def _lead(self, key: Hashable, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Wait for the call under way, then make the next one for all who are waiting by then."""
        shared = self._next[key] = asyncio.get_running_loop().create_future()
        try:
            try:
                while (running := self._running.get(key)) is not None:
                    await asyncio.wait([running])
            finally:
                del self._next[key]
            result = await self._call(key, call)
        except Exception as error:
            shared.set_exception(error)
            shared.exception()  # read here: perhaps nobody else is waiting
            raise
        except BaseException:
            shared.cancel()
            raise
        shared.set_result(result)
        return result
