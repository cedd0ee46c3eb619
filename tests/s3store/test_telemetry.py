"""What dashboards see. Acceptance 67."""

import asyncio
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from s4gateway.s3store import (
    CommitAfterTimeoutError,
    DecodeError,
    MemoryTransport,
    MissingDataError,
    errors,
    instruments,
)
from s4gateway.s3store.calls import S3Calls
from s4gateway.s3store.telemetry import Telemetry, error_type
from tests.s3store import transports, world
from tests.s3store.transports import calls, fails, lands_then
from tests.s3store.world import KEY, World, order

Series = dict[frozenset[tuple[str, Any]], Any]


class Seen:
    """The metrics of one dataset, by name and attributes; what all of them carry left out."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def _metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def names(self) -> set[str]:
        return set(self._metrics())

    def metric(self, name: str) -> Any:
        return self._metrics()[name]

    def series(self, name: str) -> Series:
        found = {}
        for point in self.metric(name).data.data_points:
            attributes = dict(point.attributes)
            assert attributes.pop("s3store.bucket") == "bucket"
            assert attributes.pop("s3store.prefix").startswith("ds-")
            assert attributes.pop("s3store.consistency_level") == "strong-global"
            found[frozenset(attributes.items())] = point
        return found

    def counts(self, name: str) -> dict[str, Any]:
        """Counters that are not 0, as `"key=value,…": count`; histograms by their sum."""
        short = {}
        for attributes, point in self.series(name).items():
            value = getattr(point, "value", None)
            if value is None:
                value = point.sum
            if value:
                short[",".join(sorted(f"{k.split('.')[-1]}={v}" for k, v in attributes))] = value
        return short


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(params=[False, True], ids=["", "threaded"])
async def dataset(seen: Seen, request: pytest.FixtureRequest) -> World:
    made = World(
        world.Backing.memory(),
        world.AsyncFace,
        options={"meter_provider": seen.provider},
        threaded=request.param,
    )
    await made.seed()
    return made


ALL = {**instruments.HISTOGRAMS, **instruments.COUNTERS, **instruments.UP_DOWN_COUNTERS}


async def test_67_every_instrument_has_its_name_unit_and_buckets(dataset: World, seen: Seen):
    async with dataset.open(entity_key="sku", version="version") as orders:
        telemetry = orders.target.telemetry
        for name in instruments.HISTOGRAMS:
            telemetry.record(name, 1)
        for name in (*instruments.COUNTERS, *instruments.UP_DOWN_COUNTERS):
            telemetry.add(name, 0)
    assert seen.names() == set(ALL)
    for name, each in ALL.items():
        assert seen.metric(name).unit == each.unit
        assert seen.metric(name).description == each.description
    for name, histogram in instruments.HISTOGRAMS.items():
        (point, *_) = seen.metric(name).data.data_points
        assert point.explicit_bounds == tuple(histogram.bounds)


def test_67_names_and_buckets_are_the_documented_ones():
    assert len(instruments.HISTOGRAMS) == 17
    assert len(instruments.COUNTERS) == 14
    assert instruments.HISTOGRAMS["s3store.s3.request.duration"].bounds == (
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
    )  # fmt: skip
    assert instruments.HISTOGRAMS["s3store.read.bytes"].bounds[-2:] == (128 * 2**20, 2**30)
    assert instruments.HISTOGRAMS["s3store.fanout.workers"].bounds == (1, 2, 4, 8, 16, 32, 64, 128)


async def test_67_incidents_nobody_has_seen_are_there_at_zero(dataset: World, seen: Seen):
    async with dataset.open():
        pass
    for name in (*instruments.INCIDENTS, "s3store.read.malformed_refs"):
        (point,) = seen.series(name).values()
        assert point.value == 0
    methods = {dict(key)["s3store.method"] for key in seen.series("s3store.read.missing_data")}
    assert "poll_records" in methods
    requests = {
        (a["s3store.operation"], a["s3store.outcome"], a["s3store.attempts"])
        for a in map(dict, seen.series("s3store.s3.request.count"))
    }
    assert requests == {
        (op, "success", str(n)) for op in ("put", "get", "head", "list") for n in range(1, 6)
    }
    acquires = seen.series("s3store.target.semaphore.acquires")
    assert acquires[frozenset({("s3store.outcome", "canceled")})].value == 0


async def test_67_a_scenario_is_counted_exactly(dataset: World, seen: Seen):
    async with dataset.open(entity_key="sku", version="version") as orders:
        await orders.write([order("a"), order("b"), order("c", customer="d")])
        await orders.write_with_key(KEY, [order("a", 2)], token="t")
        await orders.write_with_key(KEY, [order("a", 2)], token="t")
        await orders.write_with_key(KEY, [order("a", 2)], token="t", optimistic=True)
        result = await orders.lookup_commit(KEY, "t")
        await orders.restamp_ref(result)
        dataset.store.script("get", "", fails(errors.ServerError, 503), times=2)
        assert len(await orders.read("*")) == 3
        dataset.settle()
        await dataset.inner.put(f"{dataset.layout.ref_root}1700000000000000-junk", b"")
        await orders.poll()
        await orders.poll_records()
        assert len(await orders.items("read_partition_iter", "*")) == 2
    assert seen.counts("s3store.method.calls") == {
        "method=write,outcome=success": 1,
        "method=write_with_key,outcome=success": 3,
        "method=lookup_commit,outcome=success": 1,
        "method=restamp_ref,outcome=success": 1,
        "method=read,outcome=success": 1,
        "method=poll,outcome=success": 2,
        "method=poll_records,outcome=success": 1,
        "method=read_partition_iter,outcome=success": 1,
    }
    assert seen.counts("s3store.write.records") == {"method=write": 3, "method=write_with_key": 1}
    assert seen.counts("s3store.write.partitions") == {
        "method=write": 2,
        "method=write_with_key": 1,
    }
    assert set(seen.counts("s3store.write.bytes")) == {"method=write", "method=write_with_key"}
    assert seen.counts("s3store.write.optimistic_commit.collisions") == {"": 1}
    assert seen.counts("s3store.read.records") == {
        "method=read": 3,
        "method=read_partition_iter": 3,
        "method=poll": 8,
        "method=poll_records": 4,
    }
    assert seen.counts("s3store.read.files") == {
        "method=read": 3,
        "method=read_partition_iter": 3,
        "method=poll_records": 3,
    }
    assert seen.counts("s3store.read.partitions") == {
        "method=read": 2,
        "method=read_partition_iter": 2,
        "method=poll_records": 2,
    }
    assert seen.counts("s3store.read.malformed_refs") == {"method=poll": 2}
    assert seen.counts("s3store.read.commit_head") == {"method=poll": 6}
    assert seen.counts("s3store.read.commit_head_cache_hit") == {"method=poll": 4}
    assert seen.counts("s3store.s3.request.count") == {
        # two timing objects; three reads of three files, two of them tried again
        "attempts=1,operation=get,outcome=success": 2 + 9 - 2,
        "attempts=2,operation=get,outcome=success": 2,
        # two partitions, one token, one optimistic write without its marker, one restamp
        "attempts=1,operation=put,outcome=success": 2 * 3 + 3 + 2 + 1,
        "attempts=1,operation=put,outcome=error,type=precondition_failed": 1,
        # tokens: looked up before, found committed, collided, looked up; two reads; two polls
        "attempts=1,operation=head,outcome=success": 1 + 1 + 1 + 1 + 2 + 6,
        "attempts=1,operation=list,outcome=success": 4,
    }
    assert seen.counts("s3store.s3.transient_error.count") == {
        "attempt=1,operation=get,type=server": 2
    }
    assert seen.counts("s3store.method.in_flight") == {}
    assert seen.counts("s3store.target.inflight") == {}
    assert seen.counts("s3store.target.waiting") == {}


async def test_67_what_went_wrong_is_counted_by_its_kind(dataset: World, seen: Seen):
    async with dataset.open() as orders:
        dataset.store.script("put", ".commit", calls(lambda: dataset.clock.advance(2)))
        with pytest.raises(CommitAfterTimeoutError):
            await orders.write([order()])
        dataset.store.script("get", "", fails(errors.NotFound, 404))
        with pytest.raises(MissingDataError):
            await orders.read("*")
        dataset.settle()
        dataset.store.script("get", "", fails(errors.NotFound, 404))
        await orders.poll_records()
        dataset.store.script("list", "", fails(errors.AccessDenied, 403))
        with pytest.raises(errors.AccessDenied):
            await orders.poll()
    assert seen.counts("s3store.write.commit_after_timeout") == {"": 1}
    assert seen.counts("s3store.write.records") == {"method=write": 1}  # it is durable
    assert seen.counts("s3store.read.missing_data") == {"method=poll_records": 1}
    assert seen.counts("s3store.method.calls") == {
        "method=write,outcome=error,type=other": 1,
        "method=read,outcome=error,type=not_found": 1,
        "method=poll_records,outcome=success": 1,
        "method=poll,outcome=success": 1,
        "method=poll,outcome=error,type=client": 1,
    }
    assert seen.counts("s3store.method.in_flight") == {}


async def test_20_a_commit_whose_answer_was_lost_is_no_collision(dataset: World, seen: Seen):
    async with dataset.open() as orders:
        dataset.store.script("put", ".commit", lands_then(errors.ServerError, 500))
        await orders.write_with_key(KEY, [order()], token="t", optimistic=True)
    assert seen.counts("s3store.write.optimistic_commit.collisions") == {}
    assert seen.counts("s3store.write.records") == {"method=write_with_key": 1}


async def test_49_a_read_that_stands_still_is_counted_once(dataset: World, seen: Seen):
    go, reached = asyncio.Event(), asyncio.Event()
    async with dataset.open() as orders:
        await orders.write([order()])
        await orders.write([order()])
        second = (await orders.committed_files("*"))[1].key
        dataset.store.script("get", second, transports.waits_for(go, reached))
        task = asyncio.ensure_future(orders.read("*"))
        await reached.wait()
        while "s3store.read.iter.stall.count" not in seen.names():
            dataset.clock.advance(30)
            await asyncio.sleep(0.001)
        for _ in range(10):
            dataset.clock.advance(30)
            await asyncio.sleep(0.001)
        go.set()
        assert len(await task) == 2
    assert seen.counts("s3store.read.iter.stall.count") == {"method=read": 1}


async def test_67_a_request_has_ended_when_its_body_is_there(seen: Seen):
    """What is made of the body on the same thread takes none of the request's time."""
    constants = {
        "s3store.bucket": "bucket",
        "s3store.prefix": "ds-",
        "s3store.consistency_level": "strong-global",
    }
    memory, clock = MemoryTransport(), world.ManualClock()
    store = transports.ThreadedScripted(memory)
    s3 = S3Calls(store, Telemetry(constants, clock, seen.provider), limit=1, headers={})
    await memory.put("k", b"body")
    store.script("get", "k", calls(lambda: clock.advance(2)))

    def work(_body: bytes) -> None:
        clock.advance(5)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await s3.get_then("k", work)
    ended = {"operation=get,outcome=success": 2.0}
    assert seen.counts("s3store.s3.request.duration") == ended
    assert seen.counts("s3store.s3.response.body.size") == {"operation=get": 4}


async def test_67_the_bytes_of_a_file_that_cannot_be_decoded_are_counted(
    dataset: World, seen: Seen
):
    async with dataset.open() as orders:
        await orders.write([order("a")])
        (key,) = [each for each in await dataset.keys() if each.endswith(".parquet")]
        await dataset.inner.put(f"{dataset.prefix}/{key}", b"PAR1" + bytes(700))
        with pytest.raises(DecodeError, match="is no Parquet file"):
            await orders.read("*")
    assert seen.counts("s3store.read.bytes") == {"method=read": 704}
    counted = seen.counts("s3store.s3.request.count")
    assert not any("error" in series for series in counted if "get" in series)


@pytest.mark.parametrize("how", ["break", "cancel", "error", "drop"])
async def test_67_nothing_stays_in_flight_however_a_read_ends(dataset: World, seen: Seen, how: str):
    async with dataset.open() as orders:
        await orders.write([order(customer=f"c{n}") for n in range(9)])
        if how == "error":
            dataset.store.script("get", "c7", fails(errors.ClientError, 400))
            with pytest.raises(errors.ClientError):
                await orders.items("read_iter", "*")
        elif how == "cancel":
            dataset.store.script("get", "c7", transports.waits_for(asyncio.Event()))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await orders.items("read_iter", "*")
        elif how == "break":
            async with orders.read_iter("*") as stream:
                async for _ in stream:
                    break
        else:
            with pytest.warns(ResourceWarning):
                await anext(orders.read_iter("*"))
    outcome = {"error": "error,type=client", "cancel": "canceled,type=canceled"}.get(how, "success")
    calls_seen = seen.counts("s3store.method.calls")
    assert calls_seen[f"method=read_iter,outcome={outcome}"] == 1
    assert seen.counts("s3store.method.in_flight") == {}
    if how == "break":
        assert seen.counts("s3store.read.records") == {"method=read_iter": 1}


async def test_67_waits_for_places_and_bytes_are_counted_only_when_there_were_any(
    dataset: World, seen: Seen
):
    async with dataset.open() as orders:
        await orders.write([order(customer=f"c{n}") for n in range(9)])
        await orders.rows("read_iter", "*")
        assert seen.counts("s3store.read.iter.byte_budget.exhausted") == {}
        await orders.rows("read_iter", "*", read_ahead_bytes=1)
        assert seen.counts("s3store.read.iter.byte_budget.exhausted")[""] > 0
        assert "s3store.read.iter.byte_budget.wait.duration" in seen.names()
    async with dataset.open(config={"max_inflight_requests": 2}) as orders:
        await orders.read("*")
    assert seen.counts("s3store.read.iter.body_slot.exhausted")[""] > 0
    (point,) = seen.series("s3store.read.iter.partition.decode.duration").values()
    assert point.count == 27


async def test_67_a_request_cancelled_while_it_waits_is_counted_without_attempts(
    dataset: World, seen: Seen
):
    go, reached = asyncio.Event(), asyncio.Event()
    async with dataset.open(config={"max_inflight_requests": 1}) as orders:
        dataset.store.script("head", "", transports.waits_for(go, reached))
        running = asyncio.ensure_future(orders.lookup_commit(KEY, "a"))
        await reached.wait()
        waiting = asyncio.ensure_future(orders.lookup_commit(KEY, "b"))
        while not seen.counts("s3store.target.waiting"):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        waiting.cancel()
        go.set()
        await running
        with pytest.raises(asyncio.CancelledError):
            await waiting
    requests = seen.counts("s3store.s3.request.count")
    assert requests["attempts=0,operation=head,outcome=canceled,type=canceled"] == 1
    assert seen.counts("s3store.target.semaphore.acquires")["outcome=canceled"] == 1
    assert seen.counts("s3store.target.waiting") == {}


async def test_spans_of_requests_belong_to_the_call_that_made_them():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    dataset = World(world.Backing.memory(), world.AsyncFace, options={"tracer_provider": provider})
    await dataset.seed()
    async with dataset.open() as orders:
        await orders.write([order()])
        await orders.rows("read_iter", "*")
    spans = exporter.get_finished_spans()
    by_id = {span.context.span_id: span.name for span in spans}
    parents = [
        (span.name, by_id.get(span.parent.span_id) if span.parent else None) for span in spans
    ]
    assert parents.count(("s3store.s3.put", "s3store.write")) == 3
    assert parents.count(("s3store.s3.list", "s3store.read_iter")) == 1
    assert parents.count(("s3store.s3.get", "s3store.read_iter")) == 1
    assert ("s3store.write", None) in parents
    (write,) = [span for span in spans if span.name == "s3store.write"]
    assert write.attributes["s3store.bucket"] == "bucket"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.NotFound("get", "k"), "not_found"),
        (errors.Throttled("get", "k"), "slowdown"),
        (errors.PreconditionFailed("put", "k"), "precondition_failed"),
        (errors.ServerError("get", "k"), "server"),
        (errors.AccessDenied("get", "k"), "client"),
        (errors.ClientError("get", "k"), "client"),
        (errors.ConnectionFailed("get", "k"), "transport"),
        (errors.IntegrityError("get", "k"), "transport"),
        (asyncio.CancelledError(), "canceled"),
        (TimeoutError(), "canceled"),
        (errors.MissingDataError("k"), "not_found"),
        (ValueError(), "other"),
    ],
)
def test_67_each_error_has_its_type(error: BaseException, kind: str):
    assert error_type(error) == kind


def test_67_a_failed_write_has_the_type_of_its_cause():
    error = errors.WriteError("data", "p", "t", "told")
    error.__cause__ = errors.ServerError("put", "k")
    assert error_type(error) == "server"


def test_without_an_sdk_all_of_it_does_nothing():
    telemetry = Telemetry({}, world.ManualClock())
    telemetry.add("s3store.method.calls")
    with telemetry.method("read"):
        telemetry.record("s3store.read.bytes", 5)
