import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from s4gateway.state.flusher import Flusher

LONG = 600.0


class Work:
    """What a flusher runs: remembers, waits for `go`, answers `result`."""

    def __init__(self) -> None:
        self.runs: list[bool] = []
        self.go = threading.Event()
        self.go.set()
        self.result: bool | Exception = True

    def __call__(self, forced: bool) -> bool:
        self.runs.append(forced)
        self.go.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def work() -> Work:
    return Work()


@asynccontextmanager
async def running(
    work: Callable[[bool], bool], pause: float = LONG, limit: float = LONG
) -> AsyncIterator[Flusher]:
    flusher = Flusher(work, pause=pause, limit=limit)
    try:
        yield flusher
    finally:
        assert await flusher.stop()


async def _begun(work: Work, runs: int) -> None:
    while len(work.runs) < runs:  # noqa: ASYNC110 - it happens in another thread
        await asyncio.sleep(0.001)


async def test_many_who_ask_share_one_run(work: Work):
    async with running(work) as flusher:
        work.go.clear()
        first = asyncio.ensure_future(flusher.flush())
        await _begun(work, 1)
        others = [asyncio.ensure_future(flusher.flush()) for _ in range(100)]
        await asyncio.sleep(0)
        work.go.set()
        assert await asyncio.gather(first, *others) == [True] * 101
    assert len(work.runs) == 2  # the first one's, and one for all who came meanwhile


async def test_a_run_can_begin_without_anybody_who_waits_and_be_waited_for_later(work: Work):
    async with running(work) as flusher:
        await flusher.under_way()  # nothing is
        work.go.clear()
        flusher.begin()
        await _begun(work, 1)
        late = [asyncio.ensure_future(flusher.under_way()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in late)
        for _ in range(3):
            flusher.begin()
        work.go.set()
        await asyncio.gather(*late)
        await _begun(work, 2)
        await flusher.under_way()
    assert work.runs == [False, False]


async def test_a_run_that_nobody_asked_for_is_waited_for_like_any_other(work: Work):
    work.go.clear()
    async with running(work, pause=0.01) as flusher:
        await _begun(work, 1)
        waiting = asyncio.ensure_future(flusher.under_way())
        await asyncio.sleep(0)
        assert not waiting.done()
        work.go.set()
        await waiting


async def test_nobody_waits_longer_than_the_limit_for_a_run_that_was_begun_before(work: Work):
    work.go.clear()
    async with running(work, limit=0.5) as flusher:
        flusher.begin()
        await _begun(work, 1)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await flusher.under_way()
        work.go.set()


async def test_who_comes_after_others_were_let_go_waits_no_longer_than_the_limit_either(work: Work):
    work.go.clear()
    async with running(work, limit=0.5) as flusher:
        flusher.begin()
        await _begun(work, 1)
        batch = flusher._running
        assert batch is not None
        early = batch.join()
        batch.give_up()  # as when its timer ran out, begun behind the run before
        with pytest.raises(TimeoutError):
            await early
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batch.join(), 120)
        work.go.set()


async def test_who_forces_a_run_forces_it_for_all(work: Work):
    async with running(work) as flusher:
        await flusher.flush()
        await asyncio.gather(flusher.flush(), flusher.flush(forced=True), flusher.flush())
    assert work.runs[0] is False
    assert any(work.runs)


@pytest.mark.parametrize("result", [False, ValueError("a fault in the work")])
async def test_a_run_that_fails_lets_everybody_go(
    work: Work, result: bool | Exception, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.ERROR)
    async with running(work) as flusher:
        work.result = result
        assert await flusher.flush() is False
        work.result = True
        assert await flusher.flush() is True
    assert ("ledger-flush-broken" in caplog.messages) is isinstance(result, Exception)


async def test_nobody_waits_longer_than_the_limit_and_nobody_after_him_waits_at_all(work: Work):
    work.go.clear()
    async with running(work, limit=1.0) as flusher:
        with pytest.raises(TimeoutError):
            await flusher.flush()
        loop = asyncio.get_running_loop()
        asked = loop.time()
        await asyncio.sleep(0.01)
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await flusher.flush()
        assert loop.time() - asked < 20 * 1.0
        work.go.set()
        while not await _succeeds(flusher):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)


async def test_who_waits_behind_a_run_that_hangs_is_let_go_and_the_next_to_ask_gets_a_run(
    work: Work,
):
    work.go.clear()
    async with running(work, limit=0.5) as flusher:
        first = asyncio.ensure_future(flusher.flush())
        await _begun(work, 1)
        behind = asyncio.ensure_future(flusher.flush())
        ended = await asyncio.gather(first, behind, return_exceptions=True)
        assert [type(each) for each in ended] == [TimeoutError, TimeoutError]
        work.go.set()
        while not await _succeeds(flusher):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)


async def _succeeds(flusher: Flusher) -> bool:
    try:
        return await flusher.flush()
    except TimeoutError:
        return False


async def test_it_runs_by_itself_now_and_then(work: Work):
    async with running(work, pause=0.01):
        await _begun(work, 3)
    assert not any(work.runs)


async def test_who_left_disturbs_nobody(work: Work):
    async with running(work) as flusher:
        work.go.clear()
        leaving = asyncio.ensure_future(flusher.flush())
        await _begun(work, 1)
        staying = asyncio.ensure_future(flusher.flush())
        await asyncio.sleep(0)
        leaving.cancel()
        work.go.set()
        assert await staying is True
    assert leaving.cancelled()


async def test_who_waits_when_it_is_stopped_gets_his_run(work: Work):
    flusher = Flusher(work, pause=LONG, limit=LONG)
    work.go.clear()
    waiting = [asyncio.ensure_future(flusher.flush())]
    await _begun(work, 1)
    waiting.append(asyncio.ensure_future(flusher.flush()))
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(flusher.stop())
    await asyncio.sleep(0)
    work.go.set()
    assert await stopping is True
    assert await asyncio.gather(*waiting) == [True, True]
    assert await flusher.flush() is False
    assert len(work.runs) == 2
