"""Writes that meet trouble. Acceptance 19 to 21, 25 to 27, 29, 30, 32, 33."""

import asyncio
import random
import signal
import threading
from datetime import timedelta
from typing import Any

import pytest

from s4gateway.s3store import (
    CommitAfterTimeoutError,
    CommitMetadataError,
    CrossStoreError,
    EncodeError,
    PartialWriteError,
    WriteError,
    errors,
)
from tests.s3store import transports, world
from tests.s3store.transports import calls, fails, lands_then, waits_for
from tests.s3store.world import KEY, World, order

only_async = pytest.mark.parametrize("face", ["async"], indirect=True)


@pytest.fixture
def face(request: pytest.FixtureRequest) -> type[world.Face]:
    return world.FACES[getattr(request, "param", "async")]


async def nothing_is_visible(dataset: World, orders: world.Face) -> None:
    dataset.settle()
    assert await orders.read("*") == []
    assert await orders.rows("read_iter", "*") == []
    assert (await orders.poll()).entries == []
    assert (await orders.poll_records()).records == []
    assert await orders.committed_files("*") == []


# --- optimistic commits


@pytest.mark.parametrize("status", [403, 412])
async def test_19_a_refused_marker_with_an_earlier_commit_is_that_commit(
    dataset: World, status: int
):
    kind = errors.AccessDenied if status == 403 else errors.PreconditionFailed
    async with dataset.open() as orders:
        first = await orders.write_with_key(KEY, [order("a")], token="t")
        dataset.store.forget()
        dataset.store.script("put", ".commit", fails(kind, status))
        again = await orders.write_with_key(KEY, [order("b")], token="t", optimistic=True)
        assert again == first
        assert dataset.store.counts() == {"put": 3, "head": 1}
        assert await orders.read("*") == [order("a")]


async def test_19_a_refused_marker_without_an_earlier_commit_is_a_refusal(dataset: World):
    async with dataset.open() as orders:
        dataset.store.script("put", ".commit", fails(errors.AccessDenied, 403))
        with pytest.raises(WriteError) as raised:
            await orders.write_with_key(KEY, [order()], token="t", optimistic=True)
        assert raised.value.phase == "commit"
        assert isinstance(raised.value.__cause__, errors.AccessDenied)
        assert (raised.value.partition, raised.value.token) == (KEY, "t")
        await nothing_is_visible(dataset, orders)


async def test_19_a_refusal_of_a_plain_write_is_not_asked_about(dataset: World):
    async with dataset.open() as orders:
        dataset.store.script("put", ".commit", fails(errors.AccessDenied, 403))
        with pytest.raises(WriteError):
            await orders.write([order()])
        assert dataset.store.counts() == {"put": 3}


async def test_20_a_412_caused_by_our_own_lost_answer_is_plain_success(dataset: World):
    async with dataset.open() as orders:
        dataset.store.script("put", ".commit", lands_then(errors.ServerError, 500))
        result = await orders.write_with_key(KEY, [order()], token="t", optimistic=True)
        assert dataset.store.counts() == {"put": 4, "head": 1}
        assert await orders.lookup_commit(KEY, "t") == result
        assert await orders.read("*") == [order()]


async def test_20_a_commit_that_was_late_although_its_answer_was_lost_is_late(dataset: World):
    async with dataset.open() as orders:

        async def slow(send: transports.Send) -> Any:
            await send()
            dataset.clock.advance(1.5)
            raise transports.failure(errors.ServerError, 500)

        dataset.store.script("put", ".commit", slow)
        with pytest.raises(CommitAfterTimeoutError):
            await orders.write_with_key(KEY, [order()], token="t", optimistic=True)
        assert await orders.read("*") == [order()]


@pytest.mark.parametrize("token", [None, "t"])
async def test_21_a_commit_whose_every_answer_was_lost_is_found(dataset: World, token: str | None):
    await dataset.seed()
    async with slow_dataset(dataset) as orders:
        dataset.store.script("put", ".commit", lands_then(errors.ConnectionFailed), times=5)
        result = await orders.write_with_key(KEY, [order()], token=token)
        assert result.row_count == 1
        assert dataset.store.counts(".commit") == {"put": 5, "head": 1 + (token is not None)}
        assert await orders.read("*") == [order()]


def slow_dataset(dataset: World) -> Any:
    """The same store with a budget that five tries fit in."""
    dataset.prefix = f"{dataset.prefix}-slow"

    class Opened:
        async def __aenter__(self) -> world.Face:
            await dataset.seed(commit_timeout="1m")
            self.opened = dataset.open()
            return await self.opened.__aenter__()

        async def __aexit__(self, *error: Any) -> None:
            await self.opened.__aexit__(*error)

    return Opened()


async def test_21_a_commit_that_never_landed_is_a_failure(dataset: World):
    async with slow_dataset(dataset) as orders:
        dataset.store.script("put", ".commit", fails(errors.ConnectionFailed), times=5)
        with pytest.raises(WriteError) as raised:
            await orders.write([order()])
        assert raised.value.phase == "commit"
        await nothing_is_visible(dataset, orders)


async def test_21_when_asking_fails_too_both_failures_are_told(dataset: World):
    async with slow_dataset(dataset) as orders:
        dataset.store.script("put", ".commit", fails(errors.ConnectionFailed, 0, "Reset"), times=5)
        dataset.store.script("head", ".commit", fails(errors.ServerError, 500, "Broken"), times=5)
        with pytest.raises(WriteError, match=r"Reset.*Broken") as raised:
            await orders.write([order()])
        assert raised.value.phase == "recover"


async def test_a_prior_marker_that_lies_is_an_error_naming_it(dataset: World):
    marker = dataset.layout.commit(KEY, "t")
    await dataset.inner.put(marker, b"", metadata={"attemptid": "x"})
    async with dataset.open() as orders:
        for optimistic in (False, True):
            with pytest.raises((CommitMetadataError, WriteError), match=marker):
                await orders.write_with_key(KEY, [order()], token="t", optimistic=optimistic)
        with pytest.raises(CommitMetadataError) as raised:
            await orders.lookup_commit(KEY, "t")
        assert (raised.value.key, raised.value.field) == (marker, "attemptid")


async def test_22_data_whose_answer_was_lost_is_stored_whole(dataset: World):
    async with dataset.open() as orders:
        dataset.store.script("put", ".parquet", lands_then(errors.ServerError, 500), times=2)
        (result,) = await orders.write([order("a"), order("b")])
        assert dataset.store.counts() == {"put": 3 + 2}
        (file,) = await orders.committed_files("*")
        assert len(await dataset.inner.get(result.data_path)) == file.size > 0
        assert await orders.read("*") == [order("a"), order("b")]


# --- steps that fail


class OneMarker:
    """A view that makes one marker for each partition."""

    name = "v"

    def bind(self, spec: Any, keys: Any) -> Any:
        return lambda partition: [keys.marker("v", ("c",), (partition.values["customer"],))] * 2


@pytest.mark.parametrize(
    ("step", "phase", "left"),
    [
        ("m.matview", "markers", set()),
        (".parquet", "data", {"m.matview"}),
        (".ref", "ref", {"m.matview", ".parquet"}),
        (".commit", "commit", {"m.matview", ".parquet", ".ref"}),
    ],
)
async def test_25_26_a_step_that_fails_ends_the_write_and_says_which(
    dataset: World, step: str, phase: str, left: set[str]
):
    async with dataset.open(views=[OneMarker()]) as orders:
        dataset.store.script("put", step, fails(errors.ClientError, 400, "No"))
        with pytest.raises(WriteError, match=rf"step '{phase}'.*No") as raised:
            await orders.write([order()])
        assert raised.value.phase == phase
        assert isinstance(raised.value.__cause__, errors.ClientError)
        found = {s for key in await dataset.keys("") for s in STEPS if key.endswith(s)}
        assert found == left
        await nothing_is_visible(dataset, orders)


STEPS = ("m.matview", ".parquet", ".ref", ".commit")


async def test_25_markers_are_stored_before_data_before_ref_before_commit(dataset: World):
    async with dataset.open(views=[OneMarker()]) as orders:
        await orders.write([order()])
        suffixes = [s for key in dataset.store.keys("put") for s in STEPS if key.endswith(s)]
        assert suffixes == list(STEPS)  # and a marker made twice is stored once


async def test_a_view_that_fails_ends_the_write_before_any_request(dataset: World):
    class Failing(OneMarker):
        def bind(self, spec: Any, keys: Any) -> Any:
            return lambda partition: 1 / 0

    async with dataset.open(views=[Failing()]) as orders:
        with pytest.raises(ZeroDivisionError):
            await orders.write([order()])
        assert dataset.store.counts() == {}


async def test_the_lookup_of_a_token_that_fails_is_told_as_such(dataset: World):
    async with dataset.open() as orders:
        dataset.store.script("head", ".commit", fails(errors.AccessDenied, 403))
        with pytest.raises(WriteError) as raised:
            await orders.write_with_key(KEY, [order()], token="t")
        assert raised.value.phase == "lookup"
        assert dataset.store.counts() == {"head": 1}


async def test_a_row_that_does_not_fit_is_told_before_any_request(dataset: World):
    async with dataset.open() as orders:
        with pytest.raises(EncodeError, match="'version'"):
            await orders.write([world.Order("p", "c", "s", "no number")])  # type: ignore[arg-type]
        assert dataset.store.counts() == {}


# --- too late


@pytest.mark.parametrize("face", world.FACES, indirect=True)
async def test_27_a_commit_after_its_time_is_durable_and_says_so(dataset: World):
    async with dataset.open() as orders:
        dataset.store.script("put", ".commit", calls(lambda: dataset.clock.advance(1.2)))
        with pytest.raises(CommitAfterTimeoutError, match="restamp_ref") as raised:
            await orders.write_with_key(KEY, [order()], token="t")
        late = raised.value
        assert late.results == [late.result]
        assert late.elapsed > timedelta(seconds=1.2)
        assert late.budget == timedelta(seconds=1)
        assert late.phase == "commit"
        assert await orders.read("*") == [order()]
        assert await orders.lookup_commit(KEY, "t") == late.result


async def test_27_slow_data_is_not_late(dataset: World):
    async with dataset.open(views=[OneMarker()]) as orders:
        for step in ("m.matview", ".parquet"):
            dataset.store.script("put", step, calls(lambda: dataset.clock.advance(60)))
        assert len(await orders.write([order()])) == 1


@pytest.mark.parametrize("step", [".ref", ".commit"])
async def test_27_a_clock_that_is_set_back_hides_no_late_commit(dataset: World, step: str):
    def back() -> None:
        dataset.clock.advance(5)
        dataset.clock.us -= 3600 * 10**6

    async with dataset.open() as orders:
        dataset.store.script("put", step, calls(back))
        with pytest.raises(CommitAfterTimeoutError):
            await orders.write([order()])


async def test_27_a_clock_that_jumps_ahead_counts_as_time(dataset: World):
    def ahead() -> None:
        dataset.clock.us += 3600 * 10**6

    async with dataset.open() as orders:
        dataset.store.script("put", ".commit", calls(ahead))
        with pytest.raises(CommitAfterTimeoutError):
            await orders.write([order()])


async def test_28_a_reader_past_a_late_commit_gets_it_by_a_restamp(dataset: World):
    async with dataset.open(entity_key="sku", version="version") as orders:
        dataset.store.script("put", ".commit", calls(lambda: dataset.clock.advance(3)))
        ref_seen: list[Any] = []

        async with dataset.open() as other:
            with pytest.raises(CommitAfterTimeoutError) as raised:
                await orders.write_with_key(KEY, [order()], token="t")
            await other.write([order("later", customer="z")])
            dataset.settle()
            past = (await other.poll(raised.value.result.offset)).next_offset
            ref_seen.append(past)
        assert (await orders.poll(past)).entries == []
        again = await orders.restamp_ref(raised.value.result)
        dataset.settle()
        assert [e.offset for e in (await orders.poll(past)).entries] == [again.offset]


async def test_29_a_result_of_another_dataset_is_refused_without_a_request(dataset: World):
    async with dataset.open() as orders:
        (result,) = await orders.write([order()])
    elsewhere = World(dataset.backing, dataset.face, clock=dataset.clock)
    await elsewhere.seed()
    async with elsewhere.open() as others:
        with pytest.raises(CrossStoreError):
            await others.restamp_ref(result)
        assert elsewhere.store.counts() == {}


async def test_29_a_late_restamp_is_told_with_the_new_result(dataset: World):
    async with dataset.open() as orders:
        (first,) = await orders.write([order()])
        dataset.store.script("put", ".ref", calls(lambda: dataset.clock.advance(1.2)))
        with pytest.raises(CommitAfterTimeoutError) as raised:
            await orders.restamp_ref(first)
        assert raised.value.phase == "ref"
        assert raised.value.result.offset > first.offset
        assert raised.value.result.data_path == first.data_path
        dataset.settle()
        assert len((await orders.poll()).entries) == 2


async def test_29_a_restamp_in_the_same_microsecond_is_another_entry(dataset: World):
    async with dataset.open() as orders:
        (first,) = await orders.write([order()])
        stamp = int(first.offset.rpartition("/")[2][:16])
        dataset.clock.us = stamp - 1
        again = await orders.restamp_ref(first)
        assert int(again.offset.rpartition("/")[2][:16]) == stamp + 1


# --- cancellation


async def test_30_a_write_cancelled_before_its_data_is_stored_leaves_nothing_visible(
    dataset: World,
):
    go, reached = asyncio.Event(), asyncio.Event()
    async with dataset.open() as orders:
        dataset.store.script("put", ".parquet", waits_for(go, reached))
        task = asyncio.ensure_future(orders.write([order()]))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert dataset.store.counts() == {"put": 1}
        await nothing_is_visible(dataset, orders)


@pytest.mark.parametrize("step", [".ref", ".commit"])
async def test_30_a_write_cancelled_later_is_finished_first(dataset: World, step: str):
    go, reached = asyncio.Event(), asyncio.Event()
    async with dataset.open() as orders:
        dataset.store.script("put", step, waits_for(go, reached))
        task = asyncio.ensure_future(orders.write_with_key(KEY, [order()], token="t"))
        await reached.wait()
        task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()  # nor does a second one help
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await orders.lookup_commit(KEY, "t") is not None
        assert await orders.read("*") == [order()]


async def test_30_a_time_limit_behaves_like_one(dataset: World):
    go = asyncio.Event()

    async def after_the_limit(send: transports.Send) -> Any:
        limit.reschedule(asyncio.get_running_loop().time())
        while not limit.expired():  # noqa: ASYNC110 - the event loop's doing
            await asyncio.sleep(0)
        return await send()

    async with dataset.open() as orders:
        dataset.store.script("put", ".parquet", waits_for(go))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await orders.write([order()])
        dataset.store.script("put", ".commit", after_the_limit)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                await orders.write([order()])
        assert await orders.read("*") == [order()]


def test_30_a_blocking_write_that_is_interrupted_is_finished_first():
    """Control-C while the commit marker is on its way."""
    assert threading.current_thread() is threading.main_thread()
    with blocking_orders() as (dataset, orders):
        dataset.store.script("put", ".commit", interrupting(seconds=0.1))
        with pytest.raises(KeyboardInterrupt):
            orders.store.write_with_key(KEY, [order()], token="t")
        assert orders.store.lookup_commit(KEY, "t") is not None
        assert orders.store.read("*") == [order()]


def test_30_a_blocking_write_that_is_interrupted_early_leaves_nothing_visible():
    with blocking_orders() as (dataset, orders):
        dataset.store.script("put", ".parquet", interrupting(seconds=60))
        with pytest.raises(KeyboardInterrupt):
            orders.store.write([order()])
        assert orders.store.read("*") == []


def test_30_a_blocking_write_takes_a_time_limit():
    with blocking_orders() as (dataset, orders):

        async def never(send: transports.Send) -> Any:
            await asyncio.sleep(60)

        dataset.store.script("put", ".parquet", never)
        with pytest.raises(TimeoutError):
            orders.store.write([order()], timeout=0.01)
        assert orders.store.read("*") == []


class blocking_orders:  # noqa: N801 - a context manager
    def __enter__(self) -> tuple[World, world.Face]:
        self.dataset = World(world.Backing.memory(), world.BlockingFace)
        asyncio.run(self.dataset.seed())
        self.face = asyncio.run(world.BlockingFace.open(self.dataset.config(), world.Order))
        return self.dataset, self.face

    def __exit__(self, *error: object) -> None:
        self.face.store.close()


def interrupting(seconds: float) -> transports.Fault:
    """Control-C, and after so long the request, unless it has been cancelled."""
    main = threading.main_thread().ident
    assert main is not None

    async def fault(send: transports.Send) -> Any:
        signal.pthread_kill(main, signal.SIGINT)
        await asyncio.sleep(seconds)
        return await send()

    return fault


# --- many partitions

NAMES = [f"c{number}" for number in range(5)]


@pytest.mark.parametrize("face", world.FACES, indirect=True)
async def test_31_results_are_in_order_whatever_arrives_first(dataset: World):
    rng = random.Random(7)

    async def late(send: transports.Send) -> Any:
        await asyncio.sleep(rng.random() / 100)
        return await send()

    async with dataset.open() as orders:
        dataset.store.script("put", "", late, times=30)
        results = await orders.write([order(customer=f"c{i}") for i in range(10)])
        assert [result.data_path for result in results] == sorted(r.data_path for r in results)


@pytest.mark.parametrize("face", world.FACES, indirect=True)
async def test_32_one_partition_that_fails_stops_those_without_data_and_no_others(dataset: World):
    rows = [order(customer=name) for name in NAMES]
    tokens = {"token": "t"}
    async with dataset.open(config={"max_inflight_requests": 2}) as orders:
        dataset.store.script("put", "customer=c2", fails(errors.ClientError, 400))
        with pytest.raises(PartialWriteError, match="c2") as raised:
            await orders.write(rows, **tokens)
        partial = raised.value
        landed = {result.data_path.split("/")[-2] for result in partial.results}
        failed = {key.split("/")[-1] for key in partial.failures}
        assert landed | failed == {f"customer={name}" for name in NAMES}
        assert not landed & failed
        assert "customer=c2" in failed
        assert isinstance(partial.__cause__, WriteError)
        assert isinstance(partial.__cause__.__cause__, errors.ClientError)
        assert {f"customer={row.customer}" for row in await orders.read("*")} == landed
        again = [
            row for row in rows if f"period=2026-03/customer={row.customer}" in partial.failures
        ]
        await orders.write(again, **tokens)
        assert await orders.read("*") == rows


async def test_32_when_nothing_landed_the_failure_itself_is_raised(dataset: World):
    async with dataset.open() as orders:
        dataset.store.script("put", ".parquet", fails(errors.ClientError, 400), times=5)
        with pytest.raises(WriteError) as raised:
            await orders.write([order(customer=name) for name in NAMES])
        assert not isinstance(raised.value, PartialWriteError)


async def test_32_a_partition_past_its_data_is_committed_although_another_failed(dataset: World):
    """The one that fails does so while the other's commit marker is on its way."""
    go, reached = asyncio.Event(), asyncio.Event()

    async def fail_then(send: transports.Send) -> Any:
        await reached.wait()
        asyncio.get_running_loop().call_later(0.02, go.set)
        raise transports.failure(errors.ClientError, 400)

    async with dataset.open() as orders:
        dataset.store.script("put", "customer=a/", fail_then)
        dataset.store.script("put", "customer=b/", calls(lambda: None))
        dataset.store.script("put", ".commit", waits_for(go, reached))
        with pytest.raises(PartialWriteError) as raised:
            await orders.write([order(customer="a"), order(customer="b")])
        assert [result.row_count for result in raised.value.results] == [1]
        assert await orders.read("*") == [order(customer="b")]


@pytest.mark.parametrize("face", world.FACES, indirect=True)
async def test_33_one_late_commit_does_not_stop_the_others(dataset: World):
    slow = "customer=c3/"

    async def late(send: transports.Send) -> Any:
        await asyncio.sleep(0.01)
        dataset.clock.advance(1.2)
        return await send()

    # One request at a time: nobody else is under way while the clock moves.
    async with dataset.open(config={"max_inflight_requests": 1}) as orders:
        dataset.store.script("put", slow, calls(lambda: None))
        dataset.store.script("put", slow, late)
        with pytest.raises(CommitAfterTimeoutError) as raised:
            await orders.write([order(customer=name) for name in NAMES])
        assert len(raised.value.results) == 5
        assert slow in raised.value.result.data_path
        assert len(await orders.read("*")) == 5


async def test_33_a_failure_beside_a_late_commit_tells_of_both(dataset: World):
    async with dataset.open(config={"max_inflight_requests": 1}) as orders:
        dataset.store.script("put", "customer=a/", calls(lambda: None))
        dataset.store.script("put", "customer=a/", calls(lambda: dataset.clock.advance(2)))
        dataset.store.script("put", "customer=b/", fails(errors.ClientError, 400))
        with pytest.raises(PartialWriteError) as raised:
            await orders.write([order(customer="a"), order(customer="b")])
        assert raised.value.late == raised.value.results
        assert len(raised.value.late) == 1


async def test_cancelling_a_write_of_many_partitions_cancels_all_of_it(dataset: World):
    go, reached = asyncio.Event(), asyncio.Event()
    async with dataset.open() as orders:
        dataset.store.script("put", ".parquet", waits_for(go, reached), times=5)
        task = asyncio.ensure_future(orders.write([order(customer=name) for name in NAMES]))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await nothing_is_visible(dataset, orders)
