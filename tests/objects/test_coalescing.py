import asyncio
from collections.abc import Awaitable, Callable

import pytest

from s4gateway.objects.coalescing import Coalescer


class Clock:
    """A call that numbers itself when it begins and ends when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.gates: list[asyncio.Event] = []

    def call(self, fail: bool = False) -> Callable[[], Awaitable[int]]:
        async def run() -> int:
            self.begun += 1
            number = self.begun
            gate = asyncio.Event()
            self.gates.append(gate)
            await gate.wait()
            if fail:
                raise LookupError(number)
            return number

        return run


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def start(
    coalescer: Coalescer[int], clock: Clock, count: int, *, fail: bool = False
) -> list[asyncio.Task[int]]:
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(coalescer.run("k", clock.call(fail))) for _ in range(count)]
    await settle()
    return tasks


async def test_who_comes_during_a_call_gets_the_next_one_and_shares_it():
    coalescer: Coalescer[int] = Coalescer()
    clock = Clock()
    (first,) = await start(coalescer, clock, 1)
    later = await start(coalescer, clock, 15)
    assert clock.begun == 1
    clock.gates[0].set()
    await settle()
    assert clock.begun == 2
    clock.gates[1].set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 15


async def test_nobody_gets_a_result_of_a_call_that_began_before_they_asked():
    coalescer: Coalescer[int] = Coalescer()
    clock = Clock()
    asked_at: list[tuple[int, asyncio.Task[int]]] = []
    for _ in range(5):
        begun = clock.begun
        asked_at += [(begun, task) for task in await start(coalescer, clock, 3)]
        clock.gates[-1].set()
        await settle()
    while not all(task.done() for _, task in asked_at):
        for gate in clock.gates:
            gate.set()
        await settle()
    assert clock.begun < len(asked_at)
    for begun, task in asked_at:
        assert await task > begun


async def test_keys_do_not_wait_for_each_other():
    coalescer: Coalescer[int] = Coalescer()
    clock = Clock()
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(coalescer.run(key, clock.call())) for key in "abc"]
    await settle()
    assert clock.begun == 3
    for gate in clock.gates:
        gate.set()
    assert sorted(await asyncio.gather(*tasks)) == [1, 2, 3]


async def test_a_failure_is_everyones():
    coalescer: Coalescer[int] = Coalescer()
    clock = Clock()
    (first,) = await start(coalescer, clock, 1)
    later = await start(coalescer, clock, 3, fail=True)
    clock.gates[0].set()
    await settle()
    clock.gates[1].set()
    assert await first == 1
    for task in later:
        with pytest.raises(LookupError):
            await task


@pytest.mark.parametrize("begun", [False, True])
async def test_a_cancelled_leader_leaves_the_call_to_the_others(begun: bool):
    coalescer: Coalescer[int] = Coalescer()
    clock = Clock()
    (first,) = await start(coalescer, clock, 1)
    leader, *others = await start(coalescer, clock, 4)
    if begun:
        clock.gates[0].set()
        await settle()
    leader.cancel()
    await settle()
    while not all(task.done() for task in [first, *others]):
        for gate in clock.gates:
            gate.set()
        await settle()
    assert await first == 1
    assert min(await asyncio.gather(*others)) > 1
    with pytest.raises(asyncio.CancelledError):
        await leader
