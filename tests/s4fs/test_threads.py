"""Work beside other work: in order, to its end, and in a forked process too."""

import subprocess
import sys
import threading
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
        release.wait(60)
        ended.set()

    def fail() -> None:
        begun.wait(60)
        release.set()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        threads.together([fail, slow])
    assert ended.is_set()


FORKING = """
import os
from functools import partial
from s4gateway.s4fs import threads
work = [partial(pow, 2, each) for each in range(4)]
threads.together(work)
child = os.fork()
if child == 0:
    os._exit(0 if threads.together(work) == [1, 2, 4, 8] else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_has_threads_of_its_own():
    # In a program of its own: a fork of this process would take the locks of all its threads along.
    subprocess.run([sys.executable, "-c", FORKING], check=True, timeout=300)
