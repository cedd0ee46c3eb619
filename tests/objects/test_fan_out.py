"""The same work for many items: bounded, in order, and over at the first failure."""

import asyncio

import pytest

from s4gateway.objects.fan_out import fan_out


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_results_come_in_the_order_of_the_items(limit: int):
    async def work(number: int) -> int:
        await asyncio.sleep(0.001 * (number % 3))
        return number * number

    assert await fan_out(range(20), work, limit) == [number * number for number in range(20)]


async def test_no_items_are_no_results():
    async def work(number: int) -> int:
        raise AssertionError(number)

    assert await fan_out([], work, 4) == []


async def test_so_many_and_no_more_are_under_way():
    running = most = 0

    async def work(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await fan_out(range(50), work, 7)
    assert most == 7


async def test_the_first_failure_is_raised_as_it_is_and_the_rest_has_ended():
    ended: list[int] = []

    async def work(number: int) -> None:
        try:
            if number == 3:
                raise ValueError(number)
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(ValueError, match="3") as caught:
        await fan_out(range(1000), work, 5)
    assert caught.value.args == (3,)
    assert sorted(ended) == [0, 1, 2, 3, 4]


async def test_whoever_is_cancelled_takes_the_work_along():
    ended: list[int] = []

    async def work(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    task = asyncio.ensure_future(fan_out(range(10), work, 3))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [0, 1, 2]
