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


def test_a_request_larger_than_everything_is_admitted_when_it_is_alone():
    budget = ByteBudget(100)
    alone = budget.share(500)
    assert budget.used == 500
    with pytest.raises(S3Error):
        budget.share(1)
    alone.grow(1000)
    alone.release()
    assert budget.used == 0


def test_growing_beside_others_is_bounded_by_the_limit():
    budget = ByteBudget(100)
    mine, other = budget.share(50), budget.share(10)
    mine.grow(40)
    with pytest.raises(S3Error):
        mine.grow(1)
    other.release()
    mine.grow(1)
    assert (mine.held, budget.used) == (91, 91)


def test_extra_is_granted_while_half_of_the_budget_stays_free():
    budget = ByteBudget(100)
    mine = budget.share(20)
    assert mine.extend(30)
    assert not mine.extend(1)
    assert budget.used == 50


@given(st.lists(st.tuples(st.sampled_from(["share", "extend", "grow", "shrink", "release"]),
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
