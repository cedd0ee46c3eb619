import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from s4gateway.objects.lanes import Lane, Lanes


async def test_pieces_are_worked_in_order_and_the_last_step_comes_last():
    source = random.Random(1)
    with ThreadPoolExecutor(3) as executor:
        for _ in range(50):
            done: list[bytes] = []
            progressed: list[int] = []
            lane = Lane(
                executor,
                lambda piece, done=done: done.append(bytes(piece)),
                progressed.append,
                lambda done=done: done.append(b"last"),
            )
            pieces = [source.randbytes(source.randrange(1, 50)) for _ in range(30)]
            for piece in pieces:
                lane.push(memoryview(piece))
                if source.random() < 0.3:
                    await asyncio.sleep(0)
            await lane.finish()
            assert done == [*pieces, b"last"]
            assert lane.done
            await asyncio.sleep(0)
            assert sum(progressed) == sum(map(len, pieces))


async def test_a_lane_without_pieces_still_takes_its_last_step():
    ran = []
    with ThreadPoolExecutor(1) as executor:
        lane = Lane(executor, lambda _: None, lambda _: None, lambda: ran.append(1))
        await lane.finish()
        assert ran == [1]
        empty = Lane(executor, lambda _: None, lambda _: None)
        await empty.finish()


@pytest.mark.parametrize("where", ["work", "last"])
async def test_a_failure_stops_the_lane_and_wakes_whoever_waits_for_progress(where: str):
    woken = asyncio.Event()

    def fail(*_: object) -> None:
        raise ValueError(where)

    with ThreadPoolExecutor(1) as executor:
        lane = Lane(
            executor,
            fail if where == "work" else lambda _: None,
            lambda _: woken.set(),
            fail,
        )
        lane.push(memoryview(b"x"))
        lane.close()
        await asyncio.wait_for(woken.wait(), 60)
        with pytest.raises(ValueError, match=where):
            await lane.finish()
        with pytest.raises(ValueError, match=where):
            lane.raise_failure()


async def test_an_abandoned_lane_works_no_further():
    started, go = threading.Event(), threading.Event()
    worked: list[bytes] = []

    def work(piece: memoryview) -> None:
        started.set()
        go.wait(60)
        worked.append(bytes(piece))

    with ThreadPoolExecutor(1) as executor:
        lane = Lane(executor, work, lambda _: None, lambda: worked.append(b"last"))
        for piece in (b"a", b"b", b"c"):
            lane.push(memoryview(piece))
        await asyncio.to_thread(started.wait, 60)
        lane.abandon()
        lane.abandon()
        go.set()
        await lane.finish()
    assert worked == [b"a"]


async def test_an_executor_that_is_shut_down_fails_the_lane():
    go = threading.Event()
    executor = ThreadPoolExecutor(1)
    executor.submit(go.wait, 60)
    lane = Lane(executor, lambda _: None, lambda _: None)
    lane.push(memoryview(b"x"))
    executor.shutdown(wait=False, cancel_futures=True)
    go.set()
    with pytest.raises(RuntimeError):
        await lane.finish()


async def test_many_lanes_share_few_threads():
    lanes = Lanes(2)
    totals = [0] * 40

    def adder(number: int):
        def add(piece: memoryview) -> None:
            totals[number] += len(piece)

        return add

    running = [Lane(lanes.codec, adder(number), lambda _: None) for number in range(40)]
    for _ in range(20):
        for lane in running:
            lane.push(memoryview(b"12345"))
    await asyncio.gather(*(lane.finish() for lane in running))
    assert totals == [100] * 40
    lanes.close()
