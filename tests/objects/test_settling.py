"""Waits for the disk, shared."""

import asyncio

import pytest

from s4gateway.objects.settling import Settling


class Disk:
    def __init__(self) -> None:
        self.began = self.ended = 0
        self.go = asyncio.Event()

    async def settle(self) -> None:
        self.began += 1
        await self.go.wait()
        self.ended += 1


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_comes_while_one_is_under_way_waits_for_the_next():
    disk = Disk()
    settling = Settling(disk.settle)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(settling.done())
        await turn()
        later = [group.create_task(settling.done()) for _ in range(20)]
        await turn()
        assert (disk.began, first.done()) == (1, False)
        disk.go.set()
        await first
        assert not any(each.done() for each in later)
    assert (disk.began, disk.ended) == (2, 2)
    await settling.done()
    assert disk.ended == 3


async def test_who_gives_up_leaves_the_others_alone():
    disk = Disk()
    settling = Settling(disk.settle)
    loop = asyncio.get_running_loop()
    one, other = loop.create_task(settling.done()), loop.create_task(settling.done())
    await turn()
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    disk.go.set()
    await other
    assert disk.ended == 1


async def test_a_wait_that_breaks_off_lets_everybody_go():
    disk = Disk()
    settling = Settling(disk.settle)
    loop = asyncio.get_running_loop()
    waiting = [loop.create_task(settling.done())]
    await turn()
    waiting.append(loop.create_task(settling.done()))
    await turn()
    running = next(each for each in asyncio.all_tasks() if "_run" in repr(each.get_coro()))
    running.cancel()
    async with asyncio.timeout(1):
        await asyncio.gather(*waiting)
