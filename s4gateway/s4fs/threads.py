"""The threads of all filesystems of this process: a few for bodies, more for small requests.

Rule: work given to them never waits for other work of theirs. A process that was forked makes its
own, for threads do not come along.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Literal, TypeVar

_T = TypeVar("_T")

Kind = Literal["body", "look"]
_WORKERS: Final[dict[Kind, int]] = {"body": 8, "look": 32}
_pools: Final[dict[tuple[Kind, int], ThreadPoolExecutor]] = {}


def pool(kind: Kind = "body") -> ThreadPoolExecutor:
    """Return the threads for reading and coding bodies, or for looking at many objects."""
    key = (kind, os.getpid())
    found = _pools.get(key)
    if found is None:  # no lock, which a fork could leave closed; an executor unused has no threads
        new = ThreadPoolExecutor(_WORKERS[kind], thread_name_prefix=f"s4fs-{kind}")
        found = _pools.setdefault(key, new)
    return found


def together(work: Iterable[Callable[[], _T]], kind: Kind = "body") -> list[_T]:
    """Do everything beside each other; raise the first failure when all is over.

    >>> together([lambda: 1, lambda: 2])
    [1, 2]
    """
    todo = list(work)
    if len(todo) == 1:
        return [todo[0]()]
    futures = [pool(kind).submit(each) for each in todo]
    try:
        return [future.result() for future in futures]
    finally:
        settle(futures)


def in_order(work: Iterable[Callable[[], _T]], ahead: int) -> Iterator[_T]:
    """Yield the results in order, with `ahead` pieces of work under way before they are asked for.

    >>> from functools import partial
    >>> list(in_order(map(partial, [lambda: 1, lambda: 2]), 1))
    [1, 2]
    """
    running: deque[Future[_T]] = deque()
    try:
        for each in work:
            running.append(pool().submit(each))
            if len(running) > ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        settle(running)


def settle(futures: Iterable[Future[_T]]) -> None:
    """Cancel what has not begun and wait for the rest: nothing goes on behind a caller's back."""
    for future in [each for each in futures if not each.cancel()]:
        future.exception()
