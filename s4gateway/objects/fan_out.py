"""The same work for many items, so many at a time, with the results in the order of the items.

Rule: the first failure ends the rest, which is cancelled and waited for before it is raised, so
that nothing works on behind the back of whoever has been told that it failed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


async def fan_out(
    items: Iterable[_Item], work: Callable[[_Item], Awaitable[_Result]], limit: int
) -> list[_Result]:
    """Return what `work` made of each item, `limit` of them under way at any time.

    >>> async def double(number):
    ...     return 2 * number
    >>> asyncio.run(fan_out([1, 2, 3], double, 2))
    [2, 4, 6]
    """
    pending = list(enumerate(items))
    pending.reverse()
    results: dict[int, _Result] = {}

    async def run() -> None:
        while pending:
            position, item = pending.pop()
            results[position] = await work(item)

    if limit == 1 or len(pending) <= 1:
        await run()
    else:
        await _all(run, min(limit, len(pending)))
    return [results[position] for position in range(len(results))]


async def _all(run: Callable[[], Awaitable[None]], count: int) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(_as_coroutine(run))
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
        raise first from first.__cause__


async def _as_coroutine(run: Callable[[], Awaitable[None]]) -> None:
    await run()
