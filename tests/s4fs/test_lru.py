"""The bounded memory of what was read."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s4fs.lru import Lru


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30))))
def test_its_weight_is_that_of_what_it_keeps_and_within_the_limit(puts: list[tuple[int, int]]):
    kept = Lru[int, bytes](50, len)
    for key, size in puts:
        kept.put(key, bytes(size))
        assert kept.get(key) == bytes(size)
        found = [kept.get(each) for each in range(10)]
        assert kept.weight == sum(len(each) for each in found if each is not None) <= 50


def test_the_least_recently_used_goes_first():
    kept = Lru[str, int](2)
    kept.put("a", 1)
    kept.put("b", 2)
    kept.get("a")
    kept.put("c", 3)
    assert [kept.get(each) for each in "abc"] == [1, None, 3]


def test_what_is_dropped_weighs_nothing():
    kept = Lru[str, int](10)
    for key in "abc":
        kept.put(key, 1)
    kept.drop("a")
    kept.drop("none")
    kept.drop_where(lambda key: key == "b")
    assert (len(kept), kept.weight, kept.get("c")) == (1, 1, 1)


def test_threads_may_share_it():
    kept = Lru[int, int](100)

    def work(start: int) -> None:
        for number in range(2000):
            kept.put((start + number) % 150, number)
            kept.get(number % 150)

    threads = [threading.Thread(target=work, args=(each,)) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept.weight == len(kept) == 100
