import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.objects.budget import ByteBudget
from s4gateway.s3.errors import S3Error


def test_a_share_beyond_the_limit_is_turned_away_until_another_is_given_back():
    budget = ByteBudget(100)
    first = budget.share(60)
    with pytest.raises(S3Error) as caught:
        budget.share(41)
    assert (caught.value.code, caught.value.status) == ("SlowDown", 503)
    assert budget.used == 60
    first.release()
    assert budget.share(100).held == 100


async def test_a_request_larger_than_everything_is_admitted_when_it_is_alone():
    budget = ByteBudget(100)
    alone = budget.share(500)
    assert budget.used == 500
    with pytest.raises(S3Error):
        budget.share(1)
    await alone.grow(1000)
    alone.release()
    assert budget.used == 0


async def test_growing_beside_others_waits_until_they_give_back():
    budget = ByteBudget(100)
    mine, other = budget.share(50), budget.share(10)
    await mine.grow(40)
    with pytest.raises(S3Error) as caught:
        await mine.grow(1, patience=0.01)
    assert caught.value.code == "SlowDown"
    assert not budget.waiters
    growing = asyncio.get_running_loop().create_task(mine.grow(1))
    await asyncio.sleep(0)
    assert not growing.done()
    other.release()
    await growing
    assert (mine.held, budget.used) == (91, 91)


async def test_requests_that_wait_for_each_other_are_served_one_after_the_other():
    budget = ByteBudget(100)
    shares = [budget.share(20) for _ in range(5)]
    loop = asyncio.get_running_loop()
    growing = [loop.create_task(share.grow(90)) for share in shares]
    for share, task in zip(shares, growing, strict=True):
        await task
        assert budget.used <= 100 + 90
        share.release()
    assert budget.used == 0


async def test_a_cancelled_wait_holds_nothing_and_lets_the_next_one_through():
    budget = ByteBudget(100)
    first, second, third = budget.share(60), budget.share(20), budget.share(10)
    loop = asyncio.get_running_loop()
    large, small = loop.create_task(second.grow(50)), loop.create_task(third.grow(5))
    await asyncio.sleep(0)
    assert not small.done()
    large.cancel()
    await small
    assert (second.held, third.held, budget.used) == (20, 15, 95)
    assert not first.extend(1)


def test_extra_is_granted_while_three_quarters_of_the_budget_stay_free():
    budget = ByteBudget(100)
    mine = budget.share(10)
    assert mine.extend(15)
    assert not mine.extend(1)
    assert budget.used == 25


@given(st.lists(st.tuples(st.sampled_from(["share", "extend", "shrink", "release"]),
                          st.integers(0, 3), st.integers(0, 80))))  # fmt: skip
def test_what_is_used_is_what_is_held(steps: list[tuple[str, int, int]]):
    budget = ByteBudget(100)
    held = [budget.share(0) for _ in range(4)]
    for verb, which, count in steps:
        try:
            if verb == "share":
                held.append(budget.share(count))
            elif verb == "release":
                held[which].release()
            else:
                getattr(held[which], verb)(count)
        except S3Error:
            assert budget.used + count > budget.limit
        assert budget.used == sum(each.held for each in held)
        assert all(each.held >= 0 for each in held)
    for each in held:
        each.release()
    assert budget.used == 0
