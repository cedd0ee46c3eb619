"""Filling a view afterwards, acceptance 63, over any store."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from s4gateway.s3store import (
    BackfillProgress,
    BackfillStats,
    ConfigError,
    DecodeError,
    KeyPatternError,
    MaterializedView,
    ViewLookup,
    backfill_view,
    backfill_view_blocking,
    errors,
)
from tests.contracts.s3store_contract import DatasetContract
from tests.contracts.s3store_views import Sku, look
from tests.s3store import world
from tests.s3store.transports import fails
from tests.s3store.world import KEY, Order, World, order

SKUS: MaterializedView[Order] = MaterializedView("sku_idx", ("sku", "customer"))
BY_SKU = ViewLookup("sku_idx", ("sku", "customer"), Sku)


async def fill(orders: Any, patterns: Any = "*", view: Any = SKUS, **options: Any) -> BackfillStats:
    if isinstance(orders, world.AsyncFace):
        return await backfill_view(orders.target, Order, view, patterns, **options)
    return await asyncio.to_thread(
        backfill_view_blocking, orders.target, Order, view, patterns, **options
    )


def markers(dataset: World) -> list[str]:
    return [key for key in dataset.store.keys("put") if "/_matview/" in key]


class BackfillContract(DatasetContract):
    async def test_63_rows_written_before_the_view_are_found_after_a_backfill(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write([order("a"), order("b"), order("a", 2)])
            await orders.write([order("a", customer="x")])
            await orders.write([order("a", 3)])
            dataset.store.forget()
            stats = await fill(orders)
            assert stats == BackfillStats(data_objects=3, records=5, markers=4)
            assert dataset.store.counts() == {"list": 1, "get": 3, "put": 4}
            expected = [Sku("a", "abc"), Sku("a", "x"), Sku("b", "abc")]
            assert await look(dataset, BY_SKU, "*") == expected
            assert await fill(orders) == stats
            assert await look(dataset, BY_SKU, "*") == expected

    async def test_63_a_view_with_a_function_sees_whole_records(self, dataset: World):
        view: MaterializedView[Order] = MaterializedView(
            "v", ("sku", "version"), of=lambda r: (r.sku, f"{r.version}-{r.amount:g}")
        )
        async with dataset.open() as orders:
            await orders.write([order("a", 7)])
            await fill(orders, view=view)
        assert await dataset.keys("_matview/") == ["_matview/v/sku=a/version=7-7/m.matview"]

    async def test_63_patterns_are_over_the_partitions(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write([order("a", customer=name) for name in "xyz"])
            stats = await fill(orders, ["*/customer=x", "*/customer=x..z"])
            assert stats.data_objects == 2
        assert await look(dataset, BY_SKU, "*") == [Sku("a", "x"), Sku("a", "y")]

    async def test_63_until_leaves_later_files_out_and_is_exclusive(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write([order("a")])
            (file,) = await orders.committed_files("*")
            stored: datetime = file.last_modified
            assert (await fill(orders, until=stored)).data_objects == 0
            assert (await fill(orders, until=stored + timedelta(microseconds=1))).data_objects == 1
            with pytest.raises(ConfigError, match="zone"):
                await fill(orders, until=stored.replace(tzinfo=None))

    async def test_63_files_that_are_not_committed_are_ignored(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write_with_key(KEY, [order("a")], token="t")
            dataset.remove(dataset.layout.commit(KEY, "t"))
            await orders.write_with_key(KEY, [order("b")], token="t")
            stats = await fill(orders)
            assert stats.data_objects == 1
        assert await look(dataset, BY_SKU, "*") == [Sku("b", "abc")]

    async def test_63_a_file_that_vanishes_is_passed_over(
        self, dataset: World, caplog: pytest.LogCaptureFixture
    ):
        async with dataset.open() as orders:
            await orders.write([order("a", customer=name) for name in "xy"])
            dataset.store.script("get", "customer=x", fails(errors.NotFound, 404))
            stats = await fill(orders)
            assert stats == BackfillStats(data_objects=2, records=1, markers=1)
        assert await look(dataset, BY_SKU, "*") == [Sku("a", "y")]
        (told,) = [
            entry.getMessage()
            for entry in caplog.records
            if entry.levelname == "WARNING" and "passed over" in entry.getMessage()
        ]
        assert "customer=x" in told

    async def test_63_bad_definitions_are_refused_even_without_patterns(self, dataset: World):
        async with dataset.open() as orders:
            for view, wrong in (
                (MaterializedView("v", ("nothing",)), "no column"),
                (MaterializedView("v", ("version",)), "neither text nor time"),
            ):
                with pytest.raises(ConfigError, match=wrong):
                    await fill(orders, [], view=view)
            assert await fill(orders, []) == BackfillStats()
            with pytest.raises(KeyPatternError):
                await fill(orders, ["*", "sku=a"])
            assert dataset.store.counts() == {}
        async with dataset.open(config={"partition_key_parts": ("p",)}, partition_by=str) as orders:
            orders.target.config = dataset.config(partition_key_parts=())
            with pytest.raises(ConfigError, match="partition_key_parts"):
                await fill(orders, [])

    async def test_63_skip_existing_stores_only_what_is_absent(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write([order("a"), order("b")])
            await orders.write([order("b"), order("c")])
            await dataset.inner.put(
                dataset.layout.marker("sku_idx", SKUS.columns, ("a", "abc")), b""
            )
            dataset.store.forget()
            stats = await fill(orders, skip_existing=True)
            assert stats == BackfillStats(data_objects=2, records=4, markers=2)
            assert len(markers(dataset)) == 2
            dataset.store.forget()
            assert (await fill(orders, skip_existing=True)).markers == 0
            assert dataset.store.counts() == {"list": 2, "get": 2}

    async def test_a_large_file_is_read_for_the_columns_of_the_view_alone(self, dataset: World):
        noise = [f"{number * 2654435761 % 2**61:020d}" for number in range(60_000)]
        rows = pa.table(
            {
                "period": ["2026-03"] * len(noise),
                "customer": ["abc"] * len(noise),
                "sku": [f"s{number % 3}" for number in range(len(noise))],
                "noise": noise,
            }
        )
        async with dataset.open(rows.schema, compression="uncompressed") as store:
            await store.write(rows)
            dataset.store.forget()
            if isinstance(store, world.AsyncFace):
                stats = await backfill_view(store.target, rows.schema, SKUS, "*")
            else:
                work = backfill_view_blocking
                stats = await asyncio.to_thread(work, store.target, rows.schema, SKUS, "*")
            assert stats == BackfillStats(1, len(noise), 3)
            gets = [each.details for each in dataset.store.requests if each.op == "get"]
            assert gets
            assert all("length" in each for each in gets)

    async def test_a_value_no_marker_can_hold_names_the_file(self, dataset: World):
        async with dataset.open() as orders:
            (result,) = await orders.write([order("a/b")])
            with pytest.raises(ConfigError, match="'sku'") as raised:
                await fill(orders)
            assert str(raised.value).startswith(result.data_path)

    async def test_a_damaged_file_is_named(self, dataset: World):
        async with dataset.open() as orders:
            (result,) = await orders.write([order("a")])
            await dataset.inner.put(result.data_path, b"nothing")
            with pytest.raises(DecodeError) as raised:
                await fill(orders)
            assert raised.value.key == result.data_path

    async def test_progress_is_told_from_the_start_to_the_end(self, dataset: World):
        told: list[BackfillProgress] = []
        async with dataset.open() as orders:
            await orders.write([order("a", customer=name) for name in "xyz"])
            await fill(orders, on_progress=told.append)
            size = sum(file.size for file in await orders.committed_files("*"))
        assert told[0] == BackfillProgress(0, 3, 0, size)
        assert told[-1] == BackfillProgress(3, 3, size, size)
        assert [each.files for each in told] == [0, 1, 2, 3]
