"""Materialized views, acceptance 60 to 62, over any store."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from s4gateway.s3store import (
    AsyncMaterializedViewReader,
    ConfigError,
    DecodeError,
    KeyPatternError,
    Layout,
    MaterializedView,
    MaterializedViewReader,
    S3Target,
    ViewLookup,
    errors,
)
from s4gateway.s3store.errors import WriteError
from tests.contracts.s3store_contract import DatasetContract
from tests.s3store import world
from tests.s3store.transports import fails
from tests.s3store.world import Order, World, order


@dataclass(frozen=True)
class Sku:
    sku: str
    customer: str


@dataclass(frozen=True)
class Timed:
    period: str
    customer: str
    sku: str
    ts: datetime
    inserted_at: datetime = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Day:
    ts: datetime
    sku: str


@dataclass(frozen=True)
class Seen:
    inserted_at: datetime


SKUS: MaterializedView[Order] = MaterializedView("sku_idx", ("sku", "customer"))
BY_SKU = ViewLookup("sku_idx", ("sku", "customer"), Sku)
NOON = datetime(2026, 3, 17, 12, 30, 15, 250000, UTC)


async def look(dataset: World, lookup: ViewLookup[Any], patterns: Any) -> list[Any]:
    """Look up through the dataset's face, over a target that knows no partition parts."""
    config = dataset.config(partition_key_parts=())
    if dataset.face is world.AsyncFace:
        async with await S3Target.open(config) as target:
            dataset.store.forget()
            return await AsyncMaterializedViewReader(target, lookup).lookup(patterns)
    return await asyncio.to_thread(_look_blocking, dataset, config, lookup, patterns)


def _look_blocking(dataset: World, config: Any, lookup: ViewLookup[Any], patterns: Any) -> Any:
    with S3Target.open_blocking(config) as target:
        dataset.store.forget()
        return MaterializedViewReader(target, lookup).lookup(patterns)


def markers(dataset: World) -> list[str]:
    return [key for key in dataset.store.keys("put") if "/_matview/" in key]


class ViewsContract(DatasetContract):
    async def test_60_what_was_written_is_looked_up_at_once(self, dataset: World):
        async with dataset.open(views=[SKUS]) as orders:
            await orders.write([order("a"), order("b", customer="é;x =1"), order("a")])
            assert len(markers(dataset)) == 2
        assert await look(dataset, BY_SKU, "*") == [Sku("a", "abc"), Sku("b", "é;x =1")]
        assert dataset.store.counts() == {"list": 1}

    async def test_60_of_makes_the_row_and_none_makes_no_marker(self, dataset: World):
        def of(record: Order) -> tuple[str, str] | None:
            return None if record.sku == "b" else (record.sku.upper(), str(record.version))

        view: MaterializedView[Order] = MaterializedView("versions", ("name", "version"), of)

        def parse(values: Any) -> tuple[str, int]:
            return values[0], int(values[1])

        async with dataset.open(views=[view]) as orders:
            await orders.write([order("a", 2), order("b"), order("c", 10)])
        found = await look(dataset, ViewLookup("versions", ("name", "version"), tuple, parse), "*")
        assert found == [("A", 2), ("C", 10)]

    async def test_60_markers_see_the_stamped_insertion_time(self, dataset: World):
        daily = Layout("%Y-%m-%d")
        stamped: MaterializedView[Timed] = MaterializedView("seen", ("inserted_at",), layout=daily)
        computed: MaterializedView[Timed] = MaterializedView(
            "computed", ("day",), of=lambda record: [daily.format(record.inserted_at)]
        )
        rows = [Timed("2026-03", "abc", "a", NOON)]
        views = [stamped, computed]
        async with dataset.open(Timed, views=views, inserted_at_field="inserted_at") as store:
            await store.write(rows, inserted_at=NOON)
            await store.write(pa.Table.from_pylist([vars(rows[0])]), inserted_at=NOON)
        day = datetime(2026, 3, 17, tzinfo=UTC)
        lookup = ViewLookup("seen", ("inserted_at",), Seen, layout=daily)
        assert await look(dataset, lookup, "*") == [Seen(day)]
        assert {key.split("/")[-2] for key in await dataset.keys("_matview/computed/")} == {
            "day=2026-03-17"
        }

    @pytest.mark.parametrize(
        ("of", "wrong"),
        [
            (lambda r: (r.sku,), "not 2 texts"),
            (lambda r: r.sku, "not 2 texts"),
            (lambda r: (r.sku, r.version), "not 2 texts"),
            (lambda r: (r.sku, ""), "empty"),
            (lambda r: (r.sku, "a/b"), "'/'"),
            (lambda r: (r.sku, "a..b"), r"'\.\.'"),
            (lambda r: (r.sku, "x" * 1000), "1000 bytes"),
        ],
    )
    async def test_60_a_row_that_is_none_is_refused_before_a_request(
        self, dataset: World, of: Any, wrong: str
    ):
        view = MaterializedView("sku_idx", ("sku", "customer"), of)
        async with dataset.open(views=[view]) as orders:
            with pytest.raises(ConfigError, match=wrong):
                await orders.write([order("ab")])
            assert dataset.store.counts() == {}

    async def test_60_a_record_without_a_value_is_refused_before_a_request(self, dataset: World):
        schema = pa.schema([(name, pa.string()) for name in ("period", "customer", "sku")])
        view: Any = MaterializedView("by_sku", ("sku",))
        async with dataset.open(schema, views=[view]) as store:
            with pytest.raises(ConfigError, match=r"'sku'.*None"):
                await store.write([{"period": "x", "customer": "y", "sku": None}])
            assert dataset.store.counts() == {}

    @pytest.mark.parametrize(
        ("record", "views", "wrong"),
        [
            (Order, [SKUS, SKUS], "same name"),
            (Order, [MaterializedView("v", ("nothing",))], "no column 'nothing'"),
            (Order, [MaterializedView("v", ("version",))], "'version'.*neither text nor time"),
            (Timed, [MaterializedView("v", ("ts",))], "'ts'.*layout"),
        ],
    )
    async def test_60_a_view_that_cannot_work_is_refused_at_construction(
        self, dataset: World, record: Any, views: Any, wrong: str
    ):
        with pytest.raises(ConfigError, match=wrong):
            async with dataset.open(record, views=views):
                raise AssertionError
        assert dataset.store.counts("data/") == {}

    async def test_60_a_failed_write_leaves_its_markers_visible(self, dataset: World):
        dataset.store.script("put", ".parquet", fails(errors.ClientError, 400))
        async with dataset.open(views=[SKUS]) as orders:
            with pytest.raises(WriteError):
                await orders.write([order("a")])
            assert await orders.read("*") == []
        assert await look(dataset, BY_SKU, "*") == [Sku("a", "abc")]

    async def test_61_one_marker_for_each_row_of_a_batch_and_the_same_when_repeated(
        self, dataset: World
    ):
        rows = [order(sku, version) for sku in "ab" for version in range(50)]
        async with dataset.open(views=[SKUS]) as orders:
            await orders.write(rows)
            first = markers(dataset)
            assert len(first) == 2
            assert dataset.store.counts() == {"put": 3 + 2}
            dataset.store.forget()
            await orders.write(rows)
            assert sorted(markers(dataset)) == sorted(first)
        assert len(await dataset.keys("_matview/")) == 2

    async def test_61_patterns_are_over_the_columns_and_cost_a_list_each(self, dataset: World):
        rows = [order(sku, customer=who) for sku in ("s1", "s2", "s3", "t1") for who in "xyz"]
        async with dataset.open(views=[SKUS]) as orders:
            await orders.write(rows)
        cases: list[tuple[Any, list[tuple[str, str]], int]] = [
            ("sku=s1/customer=y", [("s1", "y")], 1),
            ("sku=s1..s3/customer=x", [("s1", "x"), ("s2", "x")], 1),
            ({"sku": "t1"}, [("t1", "x"), ("t1", "y"), ("t1", "z")], 1),
            ("*/customer=z", [(sku, "z") for sku in ("s1", "s2", "s3", "t1")], 1),
            (
                ["sku=s3/customer=z", "sku=s1/customer=x", "sku=s3/*"],
                [("s3", "z"), ("s1", "x"), ("s3", "x"), ("s3", "y")],
                3,
            ),
            ([], [], 0),
        ]
        for patterns, expected, lists in cases:
            found = await look(dataset, BY_SKU, patterns)
            assert found == [Sku(*row) for row in expected]
            assert dataset.store.counts() == ({"list": lists} if lists else {})
        with pytest.raises(KeyPatternError) as raised:
            await look(dataset, BY_SKU, ["*", "customer=x/sku=s1"])
        assert raised.value.index == 1
        assert dataset.store.counts() == {}

    async def test_62_times_round_trip_through_their_layout(self, dataset: World):
        exact: Any = MaterializedView("exact", ("ts", "sku"), layout=Layout(Layout.RFC3339_NANO))
        daily: Any = MaterializedView("day_idx", ("ts", "sku"), layout=Layout("%Y-%m-%d"))
        rows = [
            Timed("2026-03", "abc", sku, NOON.replace(hour=hour))
            for sku, hour in (("a", 1), ("a", 23), ("b", 1))
        ]
        async with dataset.open(Timed, views=[exact, daily]) as store:
            await store.write(rows)
        found = await look(
            dataset, ViewLookup("exact", ("ts", "sku"), Day, layout=exact.layout), "*"
        )
        assert found == [Day(row.ts, row.sku) for row in (rows[0], rows[2], rows[1])]
        day = datetime(2026, 3, 17, tzinfo=UTC)
        lookup = ViewLookup("day_idx", ("ts", "sku"), Day, layout=daily.layout)
        assert await look(dataset, lookup, "ts=2026-03-17/*") == [Day(day, "a"), Day(day, "b")]

    async def test_62_a_key_that_is_no_row_is_named_with_its_column(self, dataset: World):
        root = dataset.layout.view_root("day_idx")
        lookup = ViewLookup("day_idx", ("ts", "sku"), Day, layout=Layout("%Y-%m-%d"))
        for key, wrong in (
            (f"{root}ts=yesterday/sku=a/m.matview", "column 'ts'"),
            (f"{root}ts=2026-03-17/name=a/m.matview", "sku="),
            (f"{root}notes.txt", "no marker"),
        ):
            await dataset.inner.put(key, b"")
            with pytest.raises(DecodeError, match=wrong) as raised:
                await look(dataset, lookup, "*")
            assert raised.value.key == key
            dataset.remove(key)

    async def test_62_what_a_caller_s_parse_refuses_is_named(self, dataset: World):
        async with dataset.open(views=[SKUS]) as orders:
            await orders.write([order("a")])
        lookup = ViewLookup("sku_idx", ("sku", "customer"), int, lambda values: int(values[0]))
        with pytest.raises(DecodeError, match="sku=a/customer=abc"):
            await look(dataset, lookup, "*")
