"""Snapshot reads, acceptance 38 to 46, over any store."""

import random
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from s4gateway.s3store import (
    ConfigError,
    KeyPatternError,
    MissingDataError,
    Prefix,
    errors,
    layout,
)
from tests.contracts.s3store_contract import DatasetContract
from tests.s3store.transports import fails
from tests.s3store.world import KEY, World, flat, order

ATTEMPT = "0190a1b23c4d7e5f8a9bcdef01234567"
READS = ("read", "read_iter", "read_partition_iter")


@dataclass
class Narrow:
    sku: str
    note: str = "none"
    count: int | None = None


class SnapshotContract(DatasetContract):
    async def test_38_what_was_written_is_read_at_once(self, dataset: World):
        written = []
        async with dataset.open() as writer, dataset.open() as reader:
            for number in range(6):
                row = order(f"s{number}", customer=f"c{random.randrange(3)}")
                await writer.write([row])
                written.append(row)
                assert sorted(await reader.read("*"), key=vars_of) == sorted(written, key=vars_of)

    async def test_39_rows_whose_marker_is_gone_are_gone_and_their_file_is_not(
        self, dataset: World
    ):
        async with dataset.open() as orders:
            result = await orders.write_with_key(KEY, [order()], token="t")
            for method in READS:
                assert await orders.rows(method, "*") == [order()]
            dataset.remove(dataset.layout.commit(KEY, "t"))
            for method in READS:
                assert await orders.rows(method, "*") == []
            assert await orders.lookup_commit(KEY, "t") is None
            assert await dataset.inner.get(result.data_path)

    async def test_40_of_two_attempts_the_committed_one_is_read(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write_with_key(KEY, [order("a")], token="t", optimistic=True)
            await orders.write_with_key(KEY, [order("b")], token="t", optimistic=True)
            await orders.write_with_key(KEY, [order("c")], token="other")
            dataset.store.forget()
            assert {row.sku for row in await orders.read("*")} == {"a", "c"}
            assert dataset.store.counts() == {"list": 1, "head": 1, "get": 2}
            assert dataset.store.keys("head") == [dataset.layout.commit(KEY, "t")]
            dataset.store.forget()
            files = await orders.committed_files("*")
            assert [file.token for file in files] == ["other", "t"]
            assert all(file.size and file.last_modified.tzinfo for file in files)
            assert dataset.store.counts() == {"list": 1, "head": 1}

    async def test_40_an_attempt_that_is_not_listed_hides_the_others(self, dataset: World):
        async with dataset.open() as orders:
            result = await orders.write_with_key(KEY, [order("a")], token="t")
            for attempt in (ATTEMPT, ATTEMPT.replace("0", "1")):
                orphan = dataset.layout.data(KEY, "t", attempt)
                await dataset.inner.put(orphan, b"never decoded")
            dataset.remove(result.data_path)
            assert await orders.read("*") == []

    async def test_41_what_is_no_data_file_is_nobody_s(self, dataset: World):
        keys, root = dataset.layout, dataset.layout.data_root
        strays = [
            f"{root}{KEY}/x.parquet",
            f"{root}{KEY}/.commit",
            f"{root}{KEY}/notes.txt",
            f"{root}{KEY}/t-{ATTEMPT.upper()}.parquet",
            f"{root}top.parquet",
            f"{root}top.commit",
            keys.data("period=2026-03", "t", ATTEMPT),
            keys.commit("period=2026-03", "t"),
            keys.data(f"{KEY}/more=1", "t", ATTEMPT),
            keys.commit(f"{KEY}/more=1", "t"),
            keys.data(KEY, "uncommitted", ATTEMPT),
            keys.commit(KEY, "without-data"),
        ]
        async with dataset.open() as orders:
            await orders.write([order()])
            for stray in strays:
                await dataset.inner.put(stray, b"stray")
            for pattern in ("*/*", "period=*/customer=*", KEY):
                assert await orders.read(pattern) == [order()]

    PATTERNS = (
        ("*", {"a1", "a2", "b1", "b2"}, ""),
        ("", {"a1", "a2", "b1", "b2"}, ""),
        ("*/*", {"a1", "a2", "b1", "b2"}, ""),
        ("period=a/customer=1", {"a1"}, "period=a/customer=1/"),
        ("period=a/*", {"a1", "a2"}, "period=a/"),
        ("*/customer=2", {"a2", "b2"}, ""),
        ("period=*/customer=2*", {"a2", "b2"}, "period="),
        ("period=a..b/*", {"a1", "a2"}, ""),
        ("period=b../customer=..2", {"b1"}, ""),
        ("period=a/customer=1..11", {"a1"}, "period=a/customer=1"),
        ("period=z/*", set(), "period=z/"),
    )

    @pytest.mark.parametrize(("pattern", "found", "prefix"), PATTERNS)
    async def test_42_a_pattern_chooses_partitions_and_where_to_list(
        self, dataset: World, pattern: str, found: set[str], prefix: str
    ):
        async with dataset.open() as orders:
            await orders.write([order(f"{p}{c}", period=p, customer=c) for p in "ab" for c in "12"])
            dataset.store.forget()
            assert {row.sku for row in await orders.read(pattern)} == found
            root = dataset.layout.data_root
            assert dataset.store.keys("list") == [root + prefix]
            assert dataset.store.counts().get("get", 0) == len(found)

    async def test_42_patterns_that_overlap_fetch_a_file_once_and_repeated_ones_list_once(
        self, dataset: World
    ):
        async with dataset.open() as orders:
            await orders.write([order(f"{p}{c}", period=p, customer=c) for p in "ab" for c in "12"])
            dataset.store.forget()
            rows = await orders.read(["period=a/*", "*/customer=1", "period=a/*"])
            assert [row.sku for row in rows] == ["a1", "a2", "b1"]
            assert dataset.store.counts() == {"list": 2, "get": 3}

    async def test_42_no_patterns_are_no_rows_and_no_request(self, dataset: World):
        async with dataset.open() as orders:
            for method in READS:
                assert await orders.rows(method, []) == []
            assert (await orders.read_table([])).num_rows == 0
            assert dataset.store.counts() == {}

    async def test_42_the_first_bad_pattern_is_told_before_any_request(self, dataset: World):
        async with dataset.open() as orders:
            for method in READS:
                with pytest.raises(KeyPatternError) as raised:
                    await orders.rows(method, ["*", "period=[a]/*", "x"])
                error = raised.value
                assert (error.index, error.pattern) == (1, "period=[a]/*")
                assert "'['" in error.reason
            with pytest.raises(KeyPatternError) as raised:
                await orders.read([{"perio": "x"}])
            assert raised.value.index == 0
            assert dataset.store.counts() == {}

    @pytest.mark.parametrize(
        ("mapping", "text"),
        [
            ({}, "*/*"),
            ({"period": "a"}, "period=a/*"),
            ({"customer": "2"}, "*/customer=2"),
            ({"period": ("a", "b"), "customer": None}, "period=a..b/*"),
            ({"period": ("b", None)}, "period=b../*"),
            ({"period": (None, "b")}, "period=..b/*"),
            ({"customer": Prefix("2"), "period": "*"}, "*/customer=2*"),
        ],
    )
    async def test_42_a_mapping_means_what_its_text_means(
        self, dataset: World, mapping: dict, text: str
    ):
        async with dataset.open() as orders:
            await orders.write([order(f"{p}{c}", period=p, customer=c) for p in "ab" for c in "12"])
            dataset.store.forget()
            by_text = await orders.read(text)
            by_mapping = await orders.read(mapping)
            assert by_mapping == by_text
            (first, second) = dataset.store.keys("list")
            assert first == second

    async def test_43_each_entity_s_latest_version_is_read_and_ties_go_to_the_later_file(
        self, dataset: World
    ):
        async with dataset.open(entity_key="sku", version="version") as orders:
            await orders.write_with_key(KEY, [order("a", 1), order("b", 7)], token="1")
            await orders.write_with_key(KEY, [order("a", 3), order("b", 5)], token="2")
            tie = [replaced(order("a", 3), amount=n) for n in (31.0, 32.0)]
            await orders.write_with_key(KEY, tie, token="3")
            for method in READS:
                rows = await orders.rows(method, "*")
                assert [(r.sku, r.version, r.amount) for r in rows] == [("a", 3, 32), ("b", 7, 7)]
            history = await orders.read("*", history=True)
            assert [(r.sku, r.version, r.amount) for r in history] == [
                ("a", 1, 1),
                ("a", 3, 3),
                ("b", 5, 5),
                ("b", 7, 7),
            ]

    async def test_43_without_an_entity_key_rows_come_as_they_were_written(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write_with_key(KEY, [order("b"), order("a"), order("b")], token="1")
            await orders.write_with_key(KEY, [order("a")], token="2")
            for options in ({}, {"history": True}):
                rows = await orders.read("*", **options)
                assert [row.sku for row in rows] == ["b", "a", "b", "a"]

    async def test_43_keys_and_versions_may_be_functions(self, dataset: World):
        async with dataset.open(
            entity_key=lambda row: row.sku.lower(), version=lambda row: -row.version
        ) as orders:
            await orders.write([order("A", 1), order("a", 2), order("B", 1), order("a", 3)])
            assert [(r.sku, r.version) for r in await orders.read("*")] == [("A", 1), ("B", 1)]

    @pytest.mark.parametrize(
        "half",
        [
            {"entity_key": "sku"},
            {"version": "version"},
            {"entity_key": "nothing", "version": "version"},
            {"entity_key": "sku", "version": "customer"},
            {"entity_key": [], "version": "version"},
        ],
    )
    async def test_43_half_a_configuration_is_none(self, dataset: World, half: dict):
        with pytest.raises(ConfigError):
            async with dataset.open(**half):
                pass
        assert set(dataset.store.counts()) == {"get"}  # what opening a target costs

    async def test_44_the_order_is_the_same_every_time_and_everywhere(self, dataset: World):
        rng = random.Random(5)
        rows = [
            order(f"s{rng.randrange(9)}", rng.randrange(9), customer=rng.choice("aBc-é+"))
            for _ in range(100)
        ]
        async with dataset.open(entity_key="sku", version="version") as orders:
            for start in range(0, 100, 25):
                await orders.write(rows[start : start + 25])
            expected = await orders.read("*", history=True)
            assert expected == sorted(
                {(r.period, r.customer, r.sku, r.version): r for r in expected}.values(),
                key=lambda r: (r.customer.encode(), r.sku, r.version),
            )
            for turn in range(20):
                method = READS[turn % len(READS)]
                assert await orders.rows(method, "*", history=True) == expected
            table = await orders.read_table("*", history=True)
            assert table.to_pylist() == [vars(row) for row in expected]
            tables = await orders.tables(orders.store.read_iter("*", history=True))
            assert pa.concat_tables(tables).equals(table)

    async def test_45_columns_come_and_go(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write([order("a")])
        async with dataset.open(Narrow, partition_by=lambda _: KEY) as narrow:
            assert await narrow.read("*") == [Narrow("a", "none", None)]
            await narrow.write([Narrow("b", "new", 3)])
            assert {row.note for row in await narrow.read("*")} == {"none", "new"}
        async with dataset.open() as orders:
            rows = await orders.read("*")
            assert {(row.sku, row.version, row.customer) for row in rows} == {
                ("a", 1, "abc"),
                ("b", 1, ""),
            }

    @pytest.mark.parametrize("method", READS)
    async def test_46_a_listed_file_that_is_gone_is_an_error(self, dataset: World, method: str):
        async with dataset.open() as orders:
            results = await orders.write([order(customer=f"c{i}") for i in range(4)])
            for gone in (results[0], results[-1]):
                dataset.store.script(
                    "get", gone.data_path, fails(errors.NotFound, 404, "NoSuchKey")
                )
                with pytest.raises(MissingDataError) as raised:
                    await orders.rows(method, "*")
                assert raised.value.key == gone.data_path
            assert len(await orders.rows(method, "*")) == 4

    async def test_47_leaving_early_is_clean_in_every_way(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write([order(customer=f"c{i}") for i in range(4)])
            for method in ("read_iter", "read_partition_iter"):
                first = await orders.first_of(getattr(orders.store, method)("*"))
                assert flat([first]) == [order(customer="c0")]

    async def test_the_table_lane_takes_and_gives_tables(self, dataset: World):
        schema = pa.schema(
            [
                pa.field("period", pa.string(), nullable=False),
                pa.field("customer", pa.string(), nullable=False),
                pa.field("n", pa.int64()),
            ]
        )
        table = pa.table(
            {"period": ["1", "2", "1"], "customer": ["a", "a", "a"], "n": [1, None, 3]}, schema
        )
        async with dataset.open(schema) as orders:
            results = await orders.write(table)
            assert [result.row_count for result in results] == [2, 1]
            read = await orders.read_table("*")
            assert read.schema.equals(schema)
            assert read["n"].to_pylist() == [1, 3, None]
            assert await orders.read("period=2/*") == [{"period": "2", "customer": "a", "n": None}]
            assert layout.parse_ref(results[1].ref_path).partition == "period=2/customer=a"


def vars_of(row) -> tuple:
    return tuple(vars(row).values())


def replaced(row, **changes: Any):
    return type(row)(**vars(row) | changes)
