"""What each call costs in requests, to the last one, over any store."""

import asyncio
from typing import Any

import pytest

from s4gateway.s3store import (
    MaterializedView,
    S3Target,
    ViewLookup,
    backfill_view,
    backfill_view_blocking,
    init_dataset,
)
from tests.contracts.s3store_contract import DatasetContract
from tests.contracts.s3store_views import Sku, look
from tests.s3store import world
from tests.s3store.world import KEY, Order, World, order

VIEW: MaterializedView[Order] = MaterializedView("by_sku", ("sku", "customer"))
ROWS = [order("a"), order("b"), order("a", 2)]  # two markers
TOKEN: dict[str, Any] = {"token": "t"}
OPTIMISTIC: dict[str, Any] = {"token": "t", "optimistic": True}

WRITES = [
    pytest.param({}, False, {"put": 2 + 3}, id="without a token"),
    pytest.param({"optimistic": True}, False, {"put": 2 + 3}, id="optimistic without a token"),
    pytest.param(TOKEN, False, {"head": 1, "put": 2 + 3}, id="token"),
    pytest.param(TOKEN, True, {"head": 1}, id="committed token"),
    pytest.param(OPTIMISTIC, False, {"put": 2 + 3}, id="optimistic"),
    pytest.param(OPTIMISTIC, True, {"put": 2 + 3, "head": 1}, id="optimistic collision"),
]


class CostsContract(DatasetContract):
    @pytest.mark.parametrize(("options", "committed", "cost"), WRITES)
    async def test_a_write(
        self, dataset: World, options: dict[str, Any], committed: bool, cost: dict[str, int]
    ):
        async with dataset.open(views=[VIEW]) as orders:
            if committed:
                await orders.write(ROWS, token="t")
                await orders.write_with_key("period=x/customer=y", ROWS, token="t")
            dataset.store.forget()
            await orders.write(ROWS, **options)
            assert dataset.store.counts() == cost
            dataset.store.forget()
            await orders.write_with_key("period=x/customer=y", ROWS, **options)
            assert dataset.store.counts() == cost

    async def test_a_write_of_several_partitions_costs_each_of_them(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write([order(customer=name) for name in "abc"], token="t")
            assert dataset.store.counts() == {"head": 3, "put": 3 * 3}

    async def test_looking_a_commit_up_and_stamping_it_again(self, dataset: World):
        async with dataset.open() as orders:
            result = await orders.write_with_key(KEY, ROWS, token="t")
            for token in ("t", "nobody-s"):
                dataset.store.forget()
                await orders.lookup_commit(KEY, token)
                assert dataset.store.counts() == {"head": 1}
            dataset.store.forget()
            await orders.restamp_ref(result)
            assert dataset.store.counts() == {"put": 1}

    async def test_what_is_answered_without_the_store(self, dataset: World):
        async with dataset.open() as orders:
            store = orders.store
            store.group_by_partition(ROWS)
            store.partition_key(ROWS[0])
            store.offset_at(dataset.clock.now)
            store.narrow(Sku)
            await orders.write([])
            await orders.write_with_key(KEY, [], token="t")
            await orders.read([])
            assert dataset.store.counts() == {}

    async def test_opening_and_seeding(self, dataset: World):
        dataset.store.forget()
        await init_dataset(
            dataset.store, "bucket", dataset.prefix, commit_timeout="1s", max_clock_skew="0s"
        )
        assert dataset.store.counts() == {"get": 2}
        dataset.store.forget()
        await init_dataset(dataset.store, "bucket", f"{dataset.prefix}-new")
        assert dataset.store.counts() == {"get": 2, "put": 2}
        dataset.store.forget()
        async with await S3Target.open(dataset.config()):
            assert dataset.store.counts() == {"get": 2}

    async def test_a_snapshot(self, dataset: World):
        """A LIST a pattern, a HEAD for each token with several files, and a GET for each file."""
        async with dataset.open() as orders:
            await self._five_commits(dataset, orders)
            for patterns, lists, heads, files in (
                (["*", "*/customer=a", "*"], 2, 1, 5),
                ("*/customer=b", 1, 0, 2),
            ):
                listed = {"list": lists} | ({"head": heads} if heads else {})
                for method in ("read", "read_iter", "read_partition_iter"):
                    dataset.store.forget()
                    await orders.rows(method, patterns)
                    assert dataset.store.counts() == listed | {"get": files}
                dataset.store.forget()
                await orders.read_table(patterns)
                assert dataset.store.counts() == listed | {"get": files}
                dataset.store.forget()
                await orders.committed_files(patterns)
                assert dataset.store.counts() == listed

    async def test_the_change_stream(self, dataset: World):
        """A HEAD for each different (partition, token), and for rows a GET for each file."""
        async with dataset.open() as orders:
            await self._five_commits(dataset, orders)
            dataset.settle()
            dataset.store.forget()
            entries = (await orders.poll()).entries
            assert len(entries) == 6  # one of them was stamped twice
            assert dataset.store.counts() == {"list": 1, "head": 5}
            dataset.store.forget()
            await orders.poll_records()
            assert dataset.store.counts() == {"list": 1, "head": 5, "get": 5}
            dataset.store.forget()
            await orders.poll_range(None, None)
            assert dataset.store.counts() == {"list": 2, "head": 5}  # until there is no more
            for method in ("read_range_iter", "read_partition_range_iter"):
                dataset.store.forget()
                await orders.rows(method, None, None)
                assert dataset.store.counts() == {"list": 2, "head": 5, "get": 5}
            for method in ("read_entries_iter", "read_partition_entries_iter"):
                dataset.store.forget()
                await orders.rows(method, entries)
                assert dataset.store.counts() == {"get": 5}

    async def _five_commits(self, dataset: World, orders: Any) -> None:
        """In two partitions; one token has two attempts, one commit two refs."""
        for token in ("1", "2", "3"):
            await orders.write([order(token, customer="a")], token=token)
        await orders.write([order("twice", customer="a")], token="1", optimistic=True)
        await orders.write([order("4", customer="b")], token="1")
        (result,) = await orders.write([order("5", customer="b")])
        await orders.restamp_ref(result)

    async def test_views(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write(ROWS)
            await orders.write([order("c", customer="x")])
            await self._fill(orders)
            dataset.store.forget()
            await self._fill(orders)
            assert dataset.store.counts() == {"list": 1, "get": 2, "put": 3}
            dataset.store.forget()
            await self._fill(orders, skip_existing=True)
            assert dataset.store.counts() == {"list": 2, "get": 2}
        lookup = ViewLookup(VIEW.name, VIEW.columns, Sku)
        for patterns, lists in (("*", 1), (["sku=a/*", "sku=c/*", "sku=a/*"], 2)):
            await look(dataset, lookup, patterns)
            assert dataset.store.counts() == {"list": lists}

    async def _fill(self, orders: Any, **options: Any) -> None:
        if isinstance(orders, world.AsyncFace):
            await backfill_view(orders.target, Order, VIEW, "*", **options)
        else:
            fill = backfill_view_blocking
            await asyncio.to_thread(fill, orders.target, Order, VIEW, "*", **options)
