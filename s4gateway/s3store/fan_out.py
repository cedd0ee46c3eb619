"""The same work for many items, so many at a time, with the results in the order of the items.

Rule: the first failure ends the rest, which is cancelled and waited for before the failure is
raised, so that nothing works on behind the back of whoever was told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from s4gateway.s3store.telemetry import Telemetry

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


async def fan_out(
    telemetry: Telemetry,
    items: Sequence[_Item],
    work: Callable[[_Item], Awaitable[_Result]],
    limit: int,
) -> list[_Result]:
    """Return what `work` made of each item, `limit` of them under way at any time."""
    workers = min(limit, len(items))
    telemetry.fanned_out(len(items), workers)
    pending = list(enumerate(items))
    pending.reverse()
    results: dict[int, _Result] = {}

    async def run() -> None:
        while pending:
            position, item = pending.pop()
            results[position] = await work(item)

    if workers <= 1:
        await run()
    else:
        await _together(run, workers)
    return [results[position] for position in range(len(items))]


async def _together(run: Callable[[], Awaitable[None]], workers: int) -> None:
    async def task() -> None:
        await run()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(task())
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
        raise first from first.__cause__
