"""Downloading, decoding and delivering, and leaving early. Acceptance 46 to 49."""

import asyncio
import gc
import logging
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from s4gateway.s3store import AsyncStore, MissingDataError, Store, errors, read_ahead
from s4gateway.s3store.pipeline import Pipeline
from tests.s3store import transports, world
from tests.s3store.transports import fails, waits_for
from tests.s3store.world import KEY, World, order


@pytest.fixture
def face() -> type[world.Face]:
    return world.AsyncFace


@pytest.fixture(params=[False, True], ids=["", "threaded"])
def threaded(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def written(dataset: World, partitions: int, files: int = 1) -> list[Any]:
    """Rows in many partitions and files, in the order a read gives them."""
    async with dataset.open() as orders:
        rows = [
            order(f"s{file}", customer=f"c{partition:04}")
            for file in range(files)
            for partition in range(partitions)
        ]
        for file in range(files):
            await orders.write(rows[file * partitions : (file + 1) * partitions])
        return sorted(rows, key=lambda row: row.customer)


def late(rng: random.Random, longest: float = 0.002) -> transports.Fault:
    async def fault(send: transports.Send) -> Any:
        await asyncio.sleep(rng.random() * longest)
        return await send()

    return fault


# --- 46


@pytest.mark.parametrize("method", ["read_iter", "read_partition_iter", "read"])
async def test_46_the_failure_of_the_last_file_of_all_is_not_lost(dataset: World, method: str):
    """However it races with the delivery of what came before."""
    await written(dataset, 5, files=3)
    async with dataset.open() as orders:
        last = [key for key in await dataset.keys() if key.endswith(".parquet")][-1]
        for attempt in range(30):
            fault = fails(errors.NotFound, 404, "NoSuchKey")
            if attempt % 2:
                go = asyncio.Event()
                dataset.store.script("get", last, late_failure(go))
            else:
                dataset.store.script("get", last, fault)
            with pytest.raises(MissingDataError) as raised:
                await orders.rows(method, "*")
            assert raised.value.key.endswith(last)


def late_failure(_: asyncio.Event) -> transports.Fault:
    async def fault(send: transports.Send) -> Any:
        await asyncio.sleep(0.002)
        raise transports.failure(errors.NotFound, 404, "NoSuchKey")

    return fault


async def test_46_the_first_failure_is_the_one_that_is_told(dataset: World):
    await written(dataset, 10)
    async with dataset.open() as orders:
        dataset.store.script("get", "c0003", fails(errors.AccessDenied, 403))
        dataset.store.script("get", "c0005", late_failure(asyncio.Event()))
        with pytest.raises(errors.AccessDenied):
            await orders.read("*")


# --- 47


async def test_47_the_first_row_comes_before_the_last_file(dataset: World):
    rows = await written(dataset, 40)
    go = asyncio.Event()
    async with dataset.open(config={"max_inflight_requests": 4}) as orders:
        dataset.store.script("get", "c0039", waits_for(go))
        async with orders.read_iter("*") as stream:
            assert await anext(stream) == rows[0]
            go.set()
            assert [row async for row in stream] == rows[1:]
            assert (stream.rows_yielded, stream.files_done) == (40, 40)


@pytest.mark.parametrize("how", ["break", "close", "raise", "cancel"])
async def test_47_whoever_leaves_early_ends_the_downloads(dataset: World, how: str):
    await written(dataset, 60)
    async with dataset.open(config={"max_inflight_requests": 2}) as orders:
        before = asyncio.all_tasks()
        await LEAVING[how](orders)
        seen = dataset.store.counts()["get"]
        assert seen < 60
        for _ in range(20):
            await asyncio.sleep(0)
        assert dataset.store.counts()["get"] == seen
        assert asyncio.all_tasks() == before


async def leave_by_break(orders: Any) -> None:
    async with orders.read_iter("*") as stream:
        async for _ in stream:
            break


async def leave_by_close(orders: Any) -> None:
    stream = orders.read_partition_iter("*")
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def leave_by_raise(orders: Any) -> None:
    async def read() -> None:
        async with orders.read_iter("*") as stream:
            async for _ in stream:
                raise LookupError

    with pytest.raises(LookupError):
        await read()


async def leave_by_cancel(orders: Any) -> None:
    reached = asyncio.Event()

    async def read() -> None:
        async with orders.read_iter("*") as stream:
            async for _ in stream:
                reached.set()
                await asyncio.sleep(60)

    task = asyncio.ensure_future(read())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


LEAVING: dict[str, Callable[[Any], Any]] = {
    "break": leave_by_break,
    "close": leave_by_close,
    "raise": leave_by_raise,
    "cancel": leave_by_cancel,
}


async def test_47_cancelling_a_read_that_waits_for_a_file_ends_it(dataset: World):
    await written(dataset, 5)
    go, reached = asyncio.Event(), asyncio.Event()
    async with dataset.open() as orders:
        before = asyncio.all_tasks()
        dataset.store.script("get", "c0000", waits_for(go, reached))
        task = asyncio.ensure_future(orders.read("*"))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == before


async def test_47_nothing_is_asked_for_before_the_first_item(dataset: World):
    await written(dataset, 2)
    async with dataset.open() as orders:
        orders.read_iter("*")
        orders.read_partition_range_iter(None, None)
        await asyncio.sleep(0)
        assert dataset.store.counts() == {}


async def test_47_a_stream_that_is_dropped_says_so_and_ends(dataset: World):
    await written(dataset, 60)
    async with dataset.open(config={"max_inflight_requests": 2}) as orders:
        before = asyncio.all_tasks()
        streams = [orders.read_iter("*")]
        await anext(streams[0])
        with pytest.warns(ResourceWarning, match="not closed"):
            streams.clear()
        gc.collect()
        async with asyncio.timeout(60):
            while asyncio.all_tasks() != before:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


def test_47_a_blocking_stream_that_is_left_is_closed_by_its_block():
    dataset = World(world.Backing.memory(), world.AsyncFace)

    async def prepare() -> None:
        await dataset.seed()
        await written(dataset, 30)

    asyncio.run(prepare())
    with Store.open(dataset.config(max_inflight_requests=2), world.Order) as orders:
        dataset.store.forget()
        with orders.read_iter("*") as stream:
            assert next(stream).customer == "c0000"
        seen = dataset.store.counts()["get"]
        assert seen < 30
        assert list(stream) == []
        assert dataset.store.counts()["get"] == seen
        with orders.read_partition_iter("*") as partitions:
            assert next(partitions).rows[0].customer == "c0000"
            assert partitions.files_done == 1
        assert len(list(orders.read_iter("*"))) == 30
        with pytest.raises(StopIteration):
            next(iter(orders.read_iter([])))


# --- 48


@pytest.mark.parametrize("ahead", [0, 1, 8, -3])
@pytest.mark.parametrize("octets", [0, 1, 2000])
async def test_48_rows_come_in_order_whatever_is_read_ahead(
    dataset: World, ahead: int, octets: int
):
    rows = await written(dataset, 12, files=2)
    async with dataset.open() as orders:
        dataset.store.script("get", "", late(random.Random(3)), times=999)
        most = 0
        got: list[Any] = []
        async with orders.read_iter(
            "*", read_ahead_partitions=ahead, read_ahead_bytes=octets
        ) as stream:
            async for row in stream:
                got.append(row)
                pipeline: Pipeline[Any] = stream._feed.pipeline
                await asyncio.sleep(0.001)
                most = max(most, len(pipeline._ready) + 1)
        assert got == rows
        assert most <= max(ahead, 0) + 2
        if octets == 1:
            assert most <= 2


@pytest.mark.parametrize(("partitions", "files"), [(1500, 1), (1, 500), (20, 20)])
async def test_48_no_schedule_of_downloads_starves_the_decoder(
    dataset: World, partitions: int, files: int
):
    await fabricated(dataset, partitions, files)
    async with dataset.open(config={"max_inflight_requests": 4}) as orders:
        dataset.store.script("get", "", late(random.Random(5), 0.001), times=9999)
        async with asyncio.timeout(600):
            read = await orders.items("read_partition_iter", "*", read_ahead_bytes=1)
        assert [len(partition) for partition in read] == [files] * partitions
        assert dataset.store.most_under_way <= 4


async def fabricated(dataset: World, partitions: int, files: int) -> None:
    """Committed files, all of the same bytes, without writing each."""
    async with dataset.open() as orders:
        (result,) = await orders.write([order(customer="c0000")])
    body = await dataset.inner.get(result.data_path)
    for partition in range(partitions):
        key = f"period=2026-03/customer=c{partition:04}"
        for file in range(files):
            await dataset.inner.put(dataset.layout.data(key, f"t{file:04}", 32 * "a"), body)
            await dataset.inner.put(dataset.layout.commit(key, f"t{file:04}"), b"")
    token = result.data_path.rpartition("-")[0].rpartition("/")[2]
    dataset.remove(result.data_path)
    dataset.remove(dataset.layout.commit("period=2026-03/customer=c0000", token))


async def test_48_later_files_are_fetched_while_an_early_one_is_slow(dataset: World):
    await written(dataset, 10)
    go = asyncio.Event()
    async with dataset.open(config={"max_inflight_requests": 4}) as orders:
        dataset.store.script("get", "c0000", waits_for(go))
        task = asyncio.ensure_future(orders.read("*"))
        async with asyncio.timeout(30):
            while dataset.store.counts().get("get", 0) < 10:  # noqa: ASYNC110 - no event of ours
                await asyncio.sleep(0)
        assert dataset.store.most_under_way <= 4
        assert not task.done()
        go.set()
        assert [row.customer for row in await task] == [f"c{n:04}" for n in range(10)]


async def test_48_no_more_bodies_are_held_than_there_are_places(dataset: World):
    """However long the partition takes that is next; it is fetched alone when it is the first."""
    await written(dataset, 10)
    go, reached = asyncio.Event(), asyncio.Event()
    async with dataset.open(config={"max_inflight_requests": 4}) as orders:
        dataset.store.script("get", "c0001", waits_for(go, reached))
        async with orders.read_partition_iter("*", read_ahead_partitions=0) as stream:
            assert (await anext(stream)).key.endswith("c0000")
            await reached.wait()
            for _ in range(100):
                await asyncio.sleep(0)
            assert dataset.store.counts()["get"] == 5  # the first, and four that have a place
            go.set()
            assert len([partition async for partition in stream]) == 9


async def test_48_the_first_partition_is_fetched_alone(dataset: World):
    """So that it comes as soon as if nothing else was wanted."""
    await written(dataset, 10, files=2)
    go, reached = asyncio.Event(), asyncio.Event()
    async with dataset.open() as orders:
        dataset.store.script("get", "c0000", waits_for(go, reached))
        async with orders.read_partition_iter("*") as stream:
            first = asyncio.ensure_future(anext(stream))
            await reached.wait()
            for _ in range(100):
                await asyncio.sleep(0)
            assert dataset.store.counts()["get"] == 2
            go.set()
            assert (await first).key.endswith("c0000")
            assert len([partition async for partition in stream]) == 9


# --- what is held

REPEATING = pa.schema([("word", pa.string()), ("number", pa.int64())])
LIMIT = 3_000_000


async def repeating(dataset: World, partitions: int) -> int:
    """Partitions of a few hundred bytes, a dictionary of one word; what one holds when decoded."""
    table = pa.table({"word": ["a word of twenty bytes"] * 30_000, "number": [7] * 30_000})
    key = "period=2026-03/customer=c{:04}".format
    store = await AsyncStore.open(dataset.config(), REPEATING, partition_by=lambda row: "")
    async with store:
        for number in range(partitions):
            await store.write_with_key(key(number), table)
    return int(table.nbytes)


@pytest.mark.parametrize("lane", ["rows", "tables"])
async def test_the_bytes_read_ahead_are_those_of_decoded_tables(dataset: World, lane: str):
    """Whatever the footers say: a column of one word is a few bytes there."""
    each = await repeating(dataset, 12)
    assert each < LIMIT < 4 * each
    ahead = {"read_ahead_partitions": 100, "read_ahead_bytes": LIMIT}
    store = await AsyncStore.open(dataset.config(), REPEATING, partition_by=lambda row: "")
    async with store, store.read_iter("*", **ahead) as stream:
        rows = await anext(stream) if lane == "rows" else await stream.next_table()
        assert rows is not None
        most = 0
        while most < 12 - 1:
            pipeline: Pipeline[Any] = stream._feed.pipeline
            async with asyncio.timeout(30):
                while not (pipeline._standing().paused or pipeline._done):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            held = [taken.decoded.table.nbytes for taken in pipeline._ready if taken.decoded]
            assert held
            assert sum(held) <= LIMIT
            assert pipeline._budget.held <= LIMIT
            most += len(held)
            for _ in held:
                assert await stream.next_table() is not None
        assert await stream.next_table() is None


async def test_bodies_are_bounded_in_bytes_where_tables_are(
    dataset: World, monkeypatch: pytest.MonkeyPatch
):
    """The partition that is next is fetched all the same."""
    await written(dataset, 10, files=2)
    sizes = [listed.size for listed in await listed_files(dataset)]
    monkeypatch.setattr(read_ahead, "_BODIES", 4 * max(sizes) + max(sizes) // 2)
    go, reached = asyncio.Event(), asyncio.Event()
    async with dataset.open() as orders:
        dataset.store.script("get", "c0001", waits_for(go, reached))
        async with orders.read_partition_iter("*", read_ahead_bytes=1) as stream:
            assert (await anext(stream)).key.endswith("c0000")
            await reached.wait()
            for _ in range(200):
                await asyncio.sleep(0)
            assert dataset.store.counts()["get"] == 2 + 4  # the first, and what fits
            monkeypatch.setattr(read_ahead, "_BODIES", 1)
            go.set()
            assert len([partition async for partition in stream]) == 9


async def listed_files(dataset: World) -> list[Any]:
    page = await dataset.inner.list_page(f"{dataset.prefix}/data/")
    return [listed for listed in page.objects if listed.key.endswith(".parquet")]


async def test_a_body_larger_than_all_bodies_may_be_is_fetched_when_it_is_next(
    dataset: World, monkeypatch: pytest.MonkeyPatch
):
    rows = await written(dataset, 6, files=3)
    monkeypatch.setattr(read_ahead, "_BODIES", 1)
    async with dataset.open(config={"max_inflight_requests": 4}) as orders:
        dataset.store.script("get", "", late(random.Random(7)), times=999)
        async with asyncio.timeout(60):
            assert await orders.items("read_iter", "*", read_ahead_bytes=1) == rows


async def test_a_stream_makes_the_records_of_a_large_partition_piece_by_piece(dataset: World):
    store = await AsyncStore.open(dataset.config(), REPEATING, partition_by=lambda row: "")
    table = pa.table({"word": [str(n) for n in range(25_000)], "number": range(25_000)})
    async with store:
        await store.write_with_key(KEY, table)
        async with store.read_iter("*") as stream:
            pieces = []
            while (rows := await stream.next_rows()) is not None:
                pieces.append(len(rows))
                assert rows[0]["number"] == sum(pieces[:-1])
        assert sum(pieces) == 25_000
        assert max(pieces) <= 10_000


# --- 49


async def test_49_a_read_that_stands_still_says_so_once_and_is_not_ended(
    dataset: World, caplog: pytest.LogCaptureFixture
):
    await written(dataset, 2)
    go, reached = asyncio.Event(), asyncio.Event()
    async with dataset.open(config={"max_inflight_requests": 1}) as orders:
        dataset.store.script("get", "c0001", waits_for(go, reached))
        async with orders.read_iter("*") as stream:
            assert (await anext(stream)).customer == "c0000"
            task = asyncio.ensure_future(anext(stream))
            await reached.wait()
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                for _ in range(10):
                    await asyncio.sleep(0.001)
                    dataset.clock.advance(30)
            said = [record.getMessage() for record in caplog.records]
            assert len(said) == 1
            assert "read_iter: no data file landed for" in said[0]
            assert "c0001" in said[0]
            assert not task.done()
            go.set()
            assert (await task).customer == "c0001"


async def test_49_a_reader_that_takes_its_time_is_no_stall(
    dataset: World, caplog: pytest.LogCaptureFixture
):
    await written(dataset, 10)
    async with dataset.open(config={"max_inflight_requests": 1}) as orders:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            async with orders.read_iter("*") as stream:
                await anext(stream)
                while not stream._feed.pipeline._standing().paused:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                for _ in range(10):
                    await asyncio.sleep(0.001)
                    dataset.clock.advance(30)
                assert len([row async for row in stream]) == 9
        assert caplog.records == []


async def test_the_table_lane_of_a_stream_makes_no_records(dataset: World):
    await written(dataset, 3, files=2)
    target = dataset.config()
    schema = pa.schema([("sku", pa.string())])
    store = await AsyncStore.open(target, schema, partition_by=lambda row: "")
    async with store, store.read_iter("*") as stream:
        tables = [table async for table in stream.tables()]
        assert [table.num_rows for table in tables] == [2, 2, 2]
        assert stream.rows_yielded == 6
        assert tables[0].schema.equals(schema)
