"""Bad input, records that lie and stores in trouble: typed, naming the object, with a next step."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from s4gateway.s3store import S3StoreError, errors
from tests.s3store import world
from tests.s3store.transports import calls, fails
from tests.s3store.world import KEY, World, order

Act = Callable[[World, Any], Awaitable[Any]]


@pytest.fixture
def face() -> type[world.Face]:
    return world.AsyncFace


def writing(*rows: Any, **options: Any) -> Act:
    return lambda _, orders: orders.write(rows or [order()], **options)


def reading(patterns: Any) -> Act:
    return lambda _, orders: orders.read(patterns)


def writing_to(key: str) -> Act:
    return lambda _, orders: orders.write_with_key(key, [order()])


# Kind, what the message names, what it says to do.
ARGUMENTS: dict[str, tuple[Act, type[S3StoreError], str, str]] = {
    "an empty token": (writing(token=""), errors.TokenError, "token ''", "1 to 200 characters"),
    "a long token": (writing(token="x" * 201), errors.TokenError, "token 'x", "200 are allowed"),
    "a token with a slash": (
        writing(token="a/b"), errors.TokenError, "token 'a/b'", "may hold visible ASCII except",
    ),
    "a token that is no text": (writing(token=5), errors.TokenError, "token 5", "must be a text"),
    "a pattern with too few segments": (
        reading(["*", "x"]), errors.KeyPatternError, "pattern 1, 'x'", "2 are needed",
    ),
    "a pattern with a bracket": (
        reading("period=[a]/*"), errors.KeyPatternError, "pattern 0, 'period=[a]/*'", "holds '['",
    ),
    "a pattern of another part": (
        reading("customer=a/*"), errors.KeyPatternError, "segment 'customer=a'", "with period=",
    ),
    "a mapping of another part": (
        reading({"perio": "x"}), errors.KeyPatternError, "no part 'perio'", "are period, customer",
    ),
    "a pattern that is none": (
        reading(5), errors.KeyPatternError, "pattern 0, 5", "neither a text nor a mapping",
    ),
    "a partition key without its parts": (
        writing_to("period=1"), errors.PartitionKeyError, "'period=1'", "write period=...",
    ),
    "a partition value with two dots": (
        writing_to("period=a..b/customer=c"), errors.PartitionKeyError, "'period=a..b'", "holds",
    ),
    "a row of no partition": (
        writing(order(customer="a/b")), errors.PartitionKeyError, "customer=a/b", "write period=",
    ),
    "a row that does not fit": (
        writing(world.Order("p", "c", "s", "many")),  # type: ignore[arg-type]
        errors.EncodeError, "'version'", "cannot be interpreted as an integer",
    ),
    "an offset of another dataset": (
        lambda _, orders: orders.poll("x/_ref/1"), errors.CrossStoreError, "'x/_ref/1'", "/_ref/",
    ),
    "a moment without a zone": (
        lambda _, orders: orders.poll_range(datetime(2026, 1, 1), None),  # noqa: DTZ001
        errors.ConfigError, "datetime.datetime(2026, 1, 1", "datetime.now(UTC)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
async def test_an_argument_that_cannot_be_is_told_before_any_request(dataset: World, case: str):
    act, kind, named, step = ARGUMENTS[case]
    async with dataset.open() as orders:
        with pytest.raises(kind) as raised:
            await act(dataset, orders)
        assert dataset.store.counts() == {}
    assert type(raised.value) is kind
    assert named in str(raised.value)
    assert step in str(raised.value)


async def test_a_dataset_nobody_seeded_is_named_with_what_seeds_it(backing: world.Backing):
    nobody_s = World(backing, world.AsyncFace)
    with pytest.raises(errors.TimingConfigError) as raised:
        async with nobody_s.open():
            raise AssertionError
    assert f"bucket/{nobody_s.prefix}/_config/commit-timeout" in str(raised.value)
    assert "init_dataset()" in str(raised.value)


@pytest.mark.parametrize("said", [{}, {"rowcount": "many"}, {"attemptid": "X"}, {"insertedat": ""}])
async def test_a_marker_that_lies_stops_everybody_who_needs_it(
    dataset: World, said: dict[str, str]
):
    marker = dataset.layout.commit(KEY, "t")
    async with dataset.open() as orders:
        await orders.write_with_key(KEY, [order("a")], token="t")
        await orders.write_with_key(KEY, [order("a")], token="t", optimistic=True)
        true = await dataset.inner.head(marker)
        assert true is not None
        await dataset.inner.put(marker, b"", metadata=said and {**true.metadata, **said})
        dataset.settle()
        for need in (
            orders.lookup_commit(KEY, "t"),
            orders.write_with_key(KEY, [order("b")], token="t"),
            orders.read("*"),
            orders.committed_files("*"),
            orders.poll(),
            orders.poll_records(),
            orders.poll_range(None, None),
            orders.rows("read_range_iter", None, None),
        ):
            with pytest.raises(errors.CommitMetadataError, match="restore it, or delete") as raised:
                await need
            assert raised.value.key == marker


async def test_a_ref_that_says_nothing_is_told_and_passed_over(
    dataset: World, caplog: pytest.LogCaptureFixture
):
    key = f"{dataset.layout.ref_root}{dataset.clock.now_us()}-nonsense.ref"
    await dataset.inner.put(key, b"")
    dataset.settle()
    async with dataset.open() as orders:
        with caplog.at_level(logging.WARNING):
            assert await orders.poll() == ([], key)
    (told,) = [each.getMessage() for each in caplog.records if key in each.getMessage()]
    assert "passed over; remove it" in told


TROUBLE = [
    pytest.param(errors.AccessDenied, 403, "AccessDenied", "GetObject", id="refused"),
    pytest.param(errors.ClientError, 404, "NoSuchBucket", "bucket's name", id="no bucket"),
    pytest.param(errors.Throttled, 503, "SlowDown", "max_inflight_requests", id="throttled"),
    pytest.param(errors.ServerError, 500, "InternalError", "try again later", id="broken"),
    pytest.param(errors.ConnectionFailed, 0, "ReadTimeoutError", "the endpoint", id="cut off"),
    pytest.param(errors.IntegrityError, 200, "ETagMismatch", "verify_etag", id="garbled"),
]


@pytest.mark.parametrize(("kind", "status", "code", "step"), TROUBLE)
async def test_a_store_in_trouble_is_told_by_request_object_and_answer(
    dataset: World, kind: type[errors.TransportError], status: int, code: str, step: str
):
    async with dataset.open() as orders:
        (result,) = await orders.write([order()])

        async def broken(_send: Any) -> Any:
            raise kind("get", result.data_path, status=status, code=code)

        dataset.store.script("get", ".parquet", broken, times=5)
        with pytest.raises(kind) as raised:
            await orders.read("*")
    assert (raised.value.op, raised.value.key) == ("get", result.data_path)
    assert raised.value.attempts == (1 if status in {403, 404} else 5)
    for part in (f"get {result.data_path}: ", code, step):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("op", "part", "phase", "step"),
    [
        ("head", ".commit", "lookup", "writing with the same token"),
        ("put", ".parquet", "data", "write again, with the same token"),
        ("put", ".ref", "ref", "write again, with the same token"),
        ("put", ".commit", "commit", "write again, with the same token"),
    ],
)
async def test_a_write_that_fails_says_what_is_safe_to_do(
    dataset: World, op: str, part: str, phase: str, step: str
):
    async with dataset.open() as orders:
        dataset.store.script(op, part, fails(errors.ClientError, 400), times=5)
        with pytest.raises(errors.WriteError, match=step) as raised:
            await orders.write_with_key(KEY, [order()], token="t")
        assert (raised.value.phase, raised.value.partition, raised.value.token) == (phase, KEY, "t")
        dataset.store.script(op, part, fails(errors.ClientError, 400), times=0)
    async with dataset.open() as orders:
        dataset.store._scripts.clear()
        assert await orders.write_with_key(KEY, [order()], token="t") is not None
        assert await orders.read("*") == [order()]


async def test_a_file_that_vanished_is_named_and_the_next_read_does_without(dataset: World):
    async with dataset.open() as orders:
        gone, _ = await orders.write([order("a"), order("b", customer="x")])
        dataset.store.script("get", gone.data_path, calls(lambda: dataset.remove(gone.data_path)))
        with pytest.raises(errors.MissingDataError, match="read again") as raised:
            await orders.read("*")
        assert raised.value.key == gone.data_path
        assert await orders.read("*") == [order("b", customer="x")]


# --- clocks that jump


async def test_a_reader_whose_clock_is_set_back_neither_repeats_nor_loses_an_entry(dataset: World):
    async with dataset.open() as orders:
        (first,) = await orders.write([order("a")])
        dataset.settle()
        page = await orders.poll()
        assert [entry.offset for entry in page.entries] == [first.offset]
        (second,) = await orders.write([order("b")])
        dataset.clock.advance(-3600)
        assert await orders.poll(page.next_offset) == ([], page.next_offset)
        dataset.clock.advance(3600)
        dataset.settle()
        later = await orders.poll(page.next_offset)
        assert [entry.offset for entry in later.entries] == [second.offset]


async def test_a_write_during_which_the_clock_jumps_is_late_and_says_how_to_go_on(dataset: World):
    async with dataset.open() as orders:
        for jump in (3600.0, -3600.0):

            def jumped(jump: float = jump) -> None:
                dataset.clock.advance(1.5)  # more than a commit may take, whatever the clock says
                dataset.clock.us += int(jump * 1e6)

            dataset.store.script("put", ".commit", calls(jumped))
            with pytest.raises(errors.CommitAfterTimeoutError, match=r"restamp_ref\(\)") as raised:
                await orders.write([order(f"jump {jump}")])
            assert raised.value.partition == KEY
            again = await orders.restamp_ref(raised.value.result)
            assert again.data_path == raised.value.result.data_path
        assert len(await orders.read("*")) == 2


async def test_a_write_with_a_time_limit_tells_that_it_ran_out(dataset: World):
    async with dataset.open() as orders:
        never = asyncio.Event()

        async def stuck(_send: Any) -> Any:
            await never.wait()

        dataset.store.script("put", ".parquet", stuck)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await orders.write([order()])
        assert await orders.read("*") == []
