"""Work beside other work: in order, to its end, and in a forked process too."""

import os
import threading
import warnings
from functools import partial

import pytest

from s4gateway.s4fs import threads


def test_results_come_in_the_order_of_the_work():
    assert threads.together([partial(pow, 2, each) for each in range(30)]) == [
        2**each for each in range(30)
    ]
    assert list(threads.in_order((partial(pow, 2, each) for each in range(30)), 3)) == [
        2**each for each in range(30)
    ]


def test_work_is_begun_no_further_ahead_than_allowed():
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        return number

    for number in threads.in_order((partial(work, each) for each in range(20)), 2):
        assert len(begun) <= number + 3


def test_after_a_failure_nothing_goes_on():
    begun = threading.Event()
    release = threading.Event()
    ended = threading.Event()

    def slow() -> None:
        begun.set()
        release.wait(10)
        ended.set()

    def fail() -> None:
        begun.wait(10)
        release.set()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        threads.together([fail, slow])
    assert ended.is_set()


def test_a_forked_process_has_threads_of_its_own():
    threads.together([partial(pow, 2, each) for each in range(4)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is what is tried here
        child = os.fork()
    if child == 0:  # pragma: no cover - another process
        done = threads.together([partial(pow, 2, each) for each in range(4)]) == [1, 2, 4, 8]
        os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
