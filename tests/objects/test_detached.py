"""Work that outlives whoever asked for it."""

import asyncio

import pytest

from s4gateway.objects.detached import Detached


async def test_who_asks_for_the_same_work_gets_the_same_task():
    detached: Detached[str] = Detached()
    begun: list[str] = []
    gate = asyncio.Event()

    async def work(name: str) -> str:
        begun.append(name)
        await gate.wait()
        return name

    first = detached.begin("a", lambda: work("first"))
    second = detached.begin("a", lambda: work("second"))
    other = detached.begin("b", lambda: work("other"))
    assert first is second
    gate.set()
    assert await asyncio.gather(first, other) == ["first", "other"]
    assert begun == ["first", "other"]
    again = detached.begin("a", lambda: work("again"))
    assert await again == "again"


async def test_a_failure_nobody_waits_for_is_no_fault():
    detached: Detached[int] = Detached()

    async def work() -> int:
        raise ValueError

    task = detached.begin("a", work)
    await asyncio.wait([task])
    with pytest.raises(ValueError):  # noqa: PT011 - a bare one
        await task
    await detached.close(0.0)


async def test_closing_waits_and_then_cancels():
    detached: Detached[str] = Detached()
    gate = asyncio.Event()

    async def quick() -> str:
        await asyncio.sleep(0.01)
        return "done"

    async def endless() -> str:
        await gate.wait()
        return "never"

    done, late = detached.begin("a", quick), detached.begin("b", endless)
    await detached.close(0.1)
    assert done.result() == "done"
    assert late.cancelled()
