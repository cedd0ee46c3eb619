"""Locks by name: exclusion, order, and nothing kept."""

import asyncio
import random

import pytest

from s4gateway.objects.key_locks import KeyLocks


async def test_who_shares_a_name_comes_one_after_the_other_and_nobody_waits_for_ever():
    locks: KeyLocks[tuple[str, str]] = KeyLocks()
    dice = random.Random(5)
    names = [("b", each) for each in "abcdef"]
    inside: set[tuple[str, str]] = set()
    most = 0

    async def work() -> None:
        nonlocal most
        mine = dice.choices(names, k=dice.randrange(1, 5))
        async with locks.hold(*mine):
            assert inside.isdisjoint(mine)
            inside.update(mine)
            most = max(most, len(inside))
            await asyncio.sleep(0)
            inside.difference_update(mine)

    await asyncio.gather(*(work() for _ in range(200)))
    assert most > 1
    assert len(locks) == 0


async def test_who_gives_up_waiting_lets_go_of_what_it_holds():
    locks: KeyLocks[str] = KeyLocks()
    async with locks.hold("b"):
        waiting = asyncio.get_running_loop().create_task(_hold(locks, "a", "b"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(60):
            await _hold(locks, "a")
    assert len(locks) == 0


async def _hold(locks: KeyLocks[str], *names: str) -> None:
    async with locks.hold(*names):
        await asyncio.sleep(0)
