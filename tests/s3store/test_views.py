"""Views over a store in memory; the same over real ones: tests/e2e/test_s3store_*.py."""

from dataclasses import dataclass
from typing import Annotated, Any

import pyarrow as pa
import pytest

from s4gateway.s3store import (
    AsyncMaterializedViewReader,
    Column,
    ConfigError,
    Layout,
    MaterializedView,
    MaterializedViewReader,
    S3Target,
    ViewLookup,
)
from s4gateway.s3store.layout import Keys
from s4gateway.s3store.partitions import HivePartition
from s4gateway.s3store.records import RecordSpec
from tests.contracts.s3store_interop import EXPECTED, MANIFEST, InteropContract
from tests.contracts.s3store_views import Day, Sku, ViewsContract, look
from tests.s3store import world
from tests.s3store.world import World


class TestViewsOverMemory(ViewsContract):
    @pytest.fixture
    def backing(self) -> world.Backing:
        return world.Backing.memory()


class TestViewsOfGo(InteropContract):
    """Acceptance 62 and 64: markers that a Go program wrote, and its texts for the same rows."""

    @pytest.fixture
    def backing(self) -> world.Backing:
        return world.Backing.memory()

    async def test_64_a_lookup_is_what_go_looks_up(self, golden: World):
        lookup = ViewLookup("sku_idx", ("sku", "customer"), Sku)
        assert await look(golden, lookup, "*") == [
            Sku(row["SKU"], row["Customer"]) for row in EXPECTED["lookup_sku_idx"]
        ]

    async def test_62_the_text_of_a_time_is_go_s(self, golden: World):
        there = {f"{MANIFEST['prefix']}/{key}" for key in await golden.keys("_matview/day_idx/")}
        daily = Layout("%Y-%m-%d")
        view: Any = MaterializedView("day_idx", ("ts", "sku"), layout=daily)
        async with self.open(golden) as store:
            make = view.bind(
                store.store.writer.spec
                if golden.face is world.AsyncFace
                else store.store.writer.asynchronous.spec,
                golden.layout,
            )
            partitions = await store.items("read_partition_iter", "*", history=True)
        assert {key for partition in partitions for key in make(partition)} == there
        found = await look(golden, ViewLookup("day_idx", ("ts", "sku"), Day, layout=daily), "*")
        assert {daily.format(day.ts) for day in found} == {"2026-03-17"}


@dataclass(frozen=True)
class Other:
    sku: str
    buyer: str


@dataclass(frozen=True)
class Number:
    sku: str
    customer: int


@dataclass(frozen=True)
class Renamed:
    """Fields whose columns have other names."""

    article: Annotated[str, Column("sku")]
    who: Annotated[str, Column("customer")]


COLUMNS = ("sku", "customer")


async def test_columns_by_another_name_fill_their_fields(dataset: World):
    view: Any = MaterializedView("sku_idx", COLUMNS)
    async with dataset.open(views=[view]) as orders:
        await orders.write([world.order("a")])
    found = await look(dataset, ViewLookup("sku_idx", COLUMNS, Renamed), "*")
    assert found == [Renamed("a", "abc")]


@pytest.mark.parametrize(
    ("lookup", "wrong"),
    [
        (lambda: ViewLookup("", COLUMNS, Sku), "name"),
        (lambda: ViewLookup("a/b", COLUMNS, Sku), "name"),
        (lambda: ViewLookup("v", ("a", "a"), Sku), "twice"),
        (lambda: ViewLookup("v", "sku", Sku), "sequence"),
        (lambda: ViewLookup("v", COLUMNS, Other), "parse"),
        (lambda: ViewLookup("v", ("sku",), Sku), "parse"),
        (lambda: ViewLookup("v", COLUMNS, Number), "neither text nor time"),
        (lambda: ViewLookup("v", ("ts", "sku"), Day), "layout"),
    ],
)
async def test_60_a_lookup_that_cannot_work_is_refused(dataset: World, lookup: Any, wrong: str):
    async with await S3Target.open(dataset.config(partition_key_parts=())) as target:
        with pytest.raises(ConfigError, match=wrong):
            AsyncMaterializedViewReader(target, lookup())


@pytest.mark.parametrize(
    ("name", "columns"), [("", ("a",)), ("a/b", ("a",)), ("v", ()), ("v", ("a=",))]
)
def test_60_a_view_without_a_usable_name_or_columns_is_refused(name: str, columns: Any):
    with pytest.raises(ConfigError):
        MaterializedView(name, columns)


async def test_a_blocking_reader_needs_a_blocking_target(dataset: World):
    async with await S3Target.open(dataset.config()) as target:
        with pytest.raises(ConfigError, match="open_blocking"):
            MaterializedViewReader(target, ViewLookup("v", COLUMNS, Sku))


def test_times_finer_than_a_microsecond_are_cut():
    table = pa.table({"ts": pa.array([1_773_000_000_123_456_789], pa.timestamp("ns", "UTC"))})

    spec = RecordSpec(table.schema)
    view: Any = MaterializedView("v", ("ts",), layout=Layout(Layout.RFC3339_NANO))
    (key,) = view.bind(spec, Keys("p"))(HivePartition("a=b", ("a",), spec, table))
    assert key == "p/_matview/v/ts=2026-03-08T20:00:00.123456Z/m.matview"


def test_views_may_name_their_record_class():
    assert MaterializedView[Sku]("sku_idx", ("sku",)).columns == ("sku",)
    assert ViewLookup[Sku]("sku_idx", ("sku",), into=Sku).into is Sku
