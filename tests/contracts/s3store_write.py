"""Writing, acceptance 12 to 18, 28, 31 and 34 to 37, over any store."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import pyarrow as pa
import pytest

from s4gateway.s3store import (
    Column,
    ConfigError,
    PartialWriteError,
    PartitionKeyError,
    TokenError,
    layout,
)
from s4gateway.s3store.commit import Commit
from tests.contracts.s3store_contract import DatasetContract
from tests.s3store.world import KEY, World, order

NAIVE = datetime(2026, 3, 1)  # noqa: DTZ001
NAME = re.compile(r"data/(.*)/([^/]+)-([0-9a-f]{32})\.parquet")


@dataclass(frozen=True)
class Stamped:
    period: str
    customer: str
    sku: str
    at: datetime | None = None
    at_ns: Annotated[datetime | None, Column(type=pa.timestamp("ns", "UTC"))] = None


class WriteContract(DatasetContract):
    async def test_12_a_write_without_a_token_is_three_puts_and_nothing_else(self, dataset: World):
        async with dataset.open() as orders:
            (result,) = await orders.write([order("a"), order("b")])
            assert dataset.store.counts() == {"put": 3}
            ((data,), (ref,), (marker,)) = (
                [key for key in dataset.store.keys("put") if part in key]
                for part in (".parquet", ".ref", ".commit")
            )
            assert (result.data_path, result.ref_path, result.offset) == (data, ref, ref)
            assert result.row_count == 2
            found = NAME.search(data)
            assert found
            assert found[1] == KEY
            assert found[2] == found[3]  # the token is the attempt
            assert marker == dataset.layout.commit(KEY, found[2])
            assert len(await dataset.keys("")) == 3 + 2  # the timing objects
            head = await dataset.inner.head(marker)
            assert head is not None
            assert head.size == 0
            commit = Commit.parse(marker, head.metadata)
            assert commit.attempt == found[3]
            assert commit.result(dataset.layout, KEY, found[2]) == result
            assert layout.parse_ref(ref) == layout.Ref(commit.ref_us, found[2], found[3], KEY)

    async def test_13_a_repeated_token_costs_one_head_and_returns_the_first_result(
        self, dataset: World
    ):
        async with dataset.open() as orders:
            first = await orders.write_with_key(KEY, [order("a")], token="2026-04:batch-42")
            assert dataset.store.counts() == {"head": 1, "put": 3}
            dataset.store.forget()
            dataset.clock.advance(100)
            again = await orders.write_with_key(
                KEY, [order("b")], token="2026-04:batch-42", inserted_at=datetime.now(UTC)
            )
            assert dataset.store.counts() == {"head": 1}
            assert again == first
            assert await orders.lookup_commit(KEY, "2026-04:batch-42") == first
            assert await orders.lookup_commit(KEY, "another") is None
            assert await orders.read("*") == [order("a")]

    async def test_14_a_token_whose_marker_is_gone_is_written_under_a_new_name(
        self, dataset: World
    ):
        async with dataset.open(entity_key="sku", version="version") as orders:
            first = await orders.write_with_key(KEY, [order("a")], token="t")
            body = await dataset.inner.get(first.data_path)
            dataset.remove(dataset.layout.commit(KEY, "t"))
            second = await orders.write_with_key(KEY, [order("a")], token="t")
            assert second.data_path != first.data_path
            assert await dataset.inner.get(first.data_path) == body
            assert await orders.read("*") == [order("a")]

    async def test_15_the_same_token_in_two_partitions_is_two_commits(self, dataset: World):
        async with dataset.open() as orders:
            one, two = await orders.write(
                [order("a", customer="x"), order("b", customer="y")], token="t"
            )
            assert one.data_path != two.data_path
            assert await orders.lookup_commit("period=2026-03/customer=x", "t") == one
            assert await orders.lookup_commit("period=2026-03/customer=y", "t") == two

    @pytest.mark.parametrize("token", ["", "a/b", "a;b", "a..b", "a b", "é", "x" * 201])
    async def test_16_a_bad_token_is_refused_without_a_request(self, dataset: World, token: str):
        async with dataset.open() as orders:
            with pytest.raises(TokenError):
                await orders.write_with_key(KEY, [order()], token=token)
            with pytest.raises(TokenError):
                await orders.write_with_key(KEY, [order()], token=lambda _: token)
            with pytest.raises(TokenError):
                await orders.write([order()], token=token)
            with pytest.raises(TokenError):
                await orders.lookup_commit(KEY, token)
            assert dataset.store.counts() == {}

    async def test_16_a_token_function_that_fails_stops_only_its_partition(self, dataset: World):
        def token(partition):
            if partition.values["customer"] == "b":
                raise LookupError("no token for b")
            return "t"

        async with dataset.open() as orders:
            with pytest.raises(PartialWriteError) as raised:
                await orders.write([order(customer=name) for name in "abc"], token=token)
            assert list(raised.value.failures) == ["period=2026-03/customer=b"]
            assert isinstance(raised.value.__cause__, LookupError)
            assert len(raised.value.results) == 2
            assert len(await orders.read("*")) == 2

    async def test_16_a_token_function_is_not_called_for_a_bad_partition_key(self, dataset: World):
        called = []
        async with dataset.open() as orders:
            with pytest.raises(PartitionKeyError):
                await orders.write_with_key("period=1", [order()], token=called.append)
        assert called == []

    async def test_17_a_token_function_is_called_once_for_each_partition(self, dataset: World):
        seen = []

        def token(partition):
            seen.append((partition.key, len(partition), partition.rows[0].sku))
            return f"t-{partition.values['customer']}"

        rows = [order("a", customer="x"), order("b", customer="y"), order("c", customer="x")]
        async with dataset.open() as orders:
            first = await orders.write(rows, token=token)
            again = await orders.write(rows, token=token)
            assert again == first
            assert sorted(seen[:2]) == [
                ("period=2026-03/customer=x", 2, "a"),
                ("period=2026-03/customer=y", 1, "b"),
            ]
            assert len(seen) == 4
            assert await orders.lookup_commit("period=2026-03/customer=y", "t-y") == first[1]
            assert len(await orders.read("*")) == 3

    async def test_18_an_optimistic_write_asks_nothing_and_finds_out_by_412(self, dataset: World):
        async with dataset.open(entity_key="sku", version="version") as orders:
            first = await orders.write_with_key(KEY, [order()], token="t", optimistic=True)
            assert dataset.store.counts() == {"put": 3}
            assert [
                request.key.endswith(".commit")
                for request in dataset.store.requests
                if request.details["if_none_match"]
            ] == [True]
            dataset.store.forget()
            again = await orders.write_with_key(KEY, [order()], token="t", optimistic=True)
            assert dataset.store.counts() == {"put": 3, "head": 1}
            assert again == first
            stored = [key for key in await dataset.keys() if key.endswith(".parquet")]
            assert len(stored) == 2
            assert await orders.read("*") == [order()]

    async def test_18_without_a_token_there_is_nothing_to_collide_with(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write([order()], optimistic=True)
            assert not any(r.details["if_none_match"] for r in dataset.store.requests)

    async def test_28_a_restamped_write_comes_again_at_the_end_of_the_stream(self, dataset: World):
        async with dataset.open(entity_key="sku", version="version") as orders:
            first = await orders.write_with_key(KEY, [order()], token="t")
            dataset.settle()
            offset = (await orders.poll()).next_offset
            await orders.write_with_key(KEY, [order()], token="t")
            dataset.settle()
            assert (await orders.poll(offset)).entries == []
            dataset.store.forget()
            again = await orders.restamp_ref(first)
            assert dataset.store.counts() == {"put": 1}
            assert again.offset == again.ref_path > first.offset
            assert again.data_path == first.data_path
            assert again.inserted_at == first.inserted_at
            dataset.settle()
            (entry,) = (await orders.poll(offset)).entries
            assert (entry.offset, entry.data_path) == (again.offset, first.data_path)
            entries = (await orders.poll()).entries
            assert [entry.offset for entry in entries] == [first.offset, again.offset]
            page = await orders.poll_records()
            assert page.records == [order()]
            assert await orders.lookup_commit(KEY, "t") == first

    async def test_31_results_come_in_the_order_of_the_keys_and_rows_as_given(self, dataset: World):
        rows = [order(f"s{i:03}", customer=f"c{i % 10}") for i in range(200)][::-1]
        async with dataset.open() as orders:
            results = await orders.write(rows)
            assert dataset.store.counts() == {"put": 30}
            keys = [layout.parse_ref(result.ref_path).partition for result in results]
            assert keys == [f"period=2026-03/customer=c{i}" for i in range(10)]
            for partition in await orders.items("read_partition_iter", "*"):
                assert partition.rows == [
                    row for row in rows if row.customer == partition.values["customer"]
                ]

    async def test_34_one_bad_key_among_many_writes_nothing(self, dataset: World):
        rows = [order(), order(customer="a..b"), order(customer="c")]
        async with dataset.open() as orders:
            with pytest.raises(PartitionKeyError, match=r"a\.\.b"):
                await orders.write(rows)
            assert dataset.store.counts() == {}

    async def test_34_nothing_to_write_is_no_request(self, dataset: World):
        async with dataset.open() as orders:
            assert await orders.write([]) == []
            assert await orders.write_with_key(KEY, []) is None
            empty = orders.store.writer.group_by_partition([])
            assert empty == []
            assert dataset.store.counts() == {}

    async def test_35_the_insertion_time_is_the_same_everywhere(self, dataset: World):
        moment = datetime(2026, 3, 1, 2, 3, 4, 567891, tzinfo=UTC)
        rows = [Stamped("2026", "a", "s1"), Stamped("2026", "a", "s2", at=moment - timedelta(9))]
        before = list(rows)
        for column in ("at", "at_ns"):
            async with dataset.open(Stamped, inserted_at_field=column) as stamped:
                key = f"period={column}/customer=a"
                result = await stamped.write_with_key(key, rows, token="t", inserted_at=moment)
                assert result.inserted_at == moment
                assert await stamped.lookup_commit(key, "t") == result
                read = await stamped.read(f"period={column}/*")
                assert [getattr(row, column) for row in read] == [moment, moment]
                assert rows == before

    async def test_35_without_an_argument_the_clock_says_the_insertion_time(self, dataset: World):
        async with dataset.open(Stamped, inserted_at_field="at") as stamped:
            (result,) = await stamped.write([Stamped("2026", "a", "s1")])
            (row,) = await stamped.read("*")
            assert row.at == result.inserted_at
            assert abs(result.inserted_at - dataset.clock.now) < timedelta(seconds=2)

    async def test_35_an_insertion_time_without_a_zone_is_refused_without_a_request(
        self, dataset: World
    ):
        async with dataset.open() as orders:
            with pytest.raises(ConfigError, match="no time zone"):
                await orders.write([order()], inserted_at=NAIVE, token="t")
            with pytest.raises(ConfigError, match="no time zone"):
                await orders.write_with_key(KEY, [order()], inserted_at=NAIVE)
            assert dataset.store.counts() == {}

    async def test_37_what_would_be_written_can_be_seen_before(self, dataset: World):
        rows = [order(f"s{i}", customer=f"c{i % 3}") for i in range(10)][::-1]
        async with dataset.open() as orders:
            groups = orders.store.group_by_partition(rows)
            assert dataset.store.counts() == {}
            assert [group.key for group in groups] == sorted(group.key for group in groups)
            await orders.write(rows)
            written = await orders.items("read_partition_iter", "*")
            assert [(g.key, g.rows) for g in written] == [(g.key, g.rows) for g in groups]
            table = orders.store.writer.group_by_partition(
                pa.Table.from_pylist([vars(row) for row in rows])
            )
            assert [(g.key, g.rows) for g in table] == [(g.key, g.rows) for g in groups]
            assert orders.store.partition_key(rows[0]) == "period=2026-03/customer=c0"
