"""The change stream, acceptance 50 to 58, over any store."""

from datetime import timedelta

import pytest

from s4gateway.s3store import (
    CommitMetadataError,
    ConfigError,
    CrossStoreError,
    DecodeError,
    layout,
    partition_keys_of,
)
from tests.contracts.s3store_contract import DatasetContract
from tests.s3store.world import KEY, World, flat, order

ATTEMPT = "0190a1b23c4d7e5f8a9bcdef01234567"
ENTRIES = ("read_entries_iter", "read_partition_entries_iter")
RANGES = ("read_range_iter", "read_partition_range_iter")


class StreamContract(DatasetContract):
    async def test_50_entries_come_in_the_order_of_their_stamps_once_they_are_final(
        self, dataset: World
    ):
        async with dataset.open() as orders:
            written = []
            for number in (3, 1, 2):
                written += await orders.write([order(customer=f"c{number}")])
            page = await orders.poll()
            assert page == ([], "")
            dataset.settle()
            page = await orders.poll()
            assert [entry.offset for entry in page.entries] == [w.offset for w in written]
            assert page.next_offset == written[-1].offset
            for entry, result in zip(page.entries, written, strict=True):
                assert entry.offset == entry.ref_path == result.ref_path
                assert entry.data_path == result.data_path
                assert entry.row_count == 1
                assert layout.parse_ref(entry.offset).partition == entry.key
                stamp = orders.store.offset_at(entry.inserted_at)
                assert entry.offset.startswith(f"{stamp}-")

    async def test_50_a_ref_stamped_exactly_at_the_edge_stays_out(self, dataset: World):
        async with dataset.open() as orders:
            (result,) = await orders.write([order()])
            stamp = int(result.offset.rpartition("/")[2][:16])
            dataset.clock.us = stamp + 1_000_000 - 1  # the clock ticks once when it is read
            assert (await orders.poll()).entries == []
            dataset.clock.us = stamp + 1_000_000
            assert len((await orders.poll()).entries) == 1

    async def test_51_replaying_gives_the_same_sequence_whatever_the_page(self, dataset: World):
        async with dataset.open() as orders:
            for number in range(7):
                await orders.write([order(f"s{number}", customer=f"c{number % 2}")])
            dataset.settle()
            sequences = [await replay(orders, size) for size in (1, 3, 1000, 1000)]
            assert len(sequences[0]) == 7
            assert all(sequence == sequences[0] for sequence in sequences)

    async def test_52_refs_that_do_not_count_are_passed_over_and_the_offset_moves(
        self, dataset: World
    ):
        keys = dataset.layout
        async with dataset.open() as orders:
            await orders.write_with_key(KEY, [order()], token="t")
            us = dataset.clock.now_us()
            odd = [
                keys.ref(us + 1, "uncommitted", ATTEMPT, KEY),
                keys.ref(us + 2, "t", ATTEMPT, KEY),
                keys.ref_root + f"{us + 3}-malformed",
                keys.ref_root + f"{us + 4}-t-{ATTEMPT};bad%escape.ref",
                keys.ref(us + 5, "t", ATTEMPT, ""),
            ]
            for key in odd:
                await dataset.inner.put(key, b"")
            dataset.settle()
            page = await orders.poll()
            assert len(page.entries) == 1
            assert page.next_offset == odd[-1]
            again = await orders.poll(page.next_offset)
            assert again == ([], odd[-1])
            only_odd = await orders.poll(page.entries[0].offset, 1)
            assert only_odd == ([], odd[-1])
            records = await orders.poll_records(page.entries[0].offset, 1)
            assert (records.records, records.next_offset) == ([], odd[-1])

    async def test_53_each_partition_and_token_is_asked_about_once(self, dataset: World):
        async with dataset.open() as orders:
            first = await orders.write_with_key(KEY, [order()], token="t")
            await orders.restamp_ref(first)
            await orders.write_with_key(KEY, [order()], token="u")
            dataset.settle()
            dataset.store.forget()
            assert len((await orders.poll()).entries) == 3
            assert dataset.store.counts() == {"list": 1, "head": 2}
            dataset.store.forget()
            assert len((await orders.poll(None, 2)).entries) == 2
            assert dataset.store.counts() == {"list": 1, "head": 1}

    async def test_54_a_window_is_half_open(self, dataset: World):
        async with dataset.open() as orders:
            moments, written = [], []
            for number in range(3):
                dataset.clock.advance(10)
                moments.append(dataset.clock.now)
                written += await orders.write([order(f"s{number}")])
            dataset.settle()
            at = orders.store.offset_at
            page = await orders.poll(at(moments[1]), until=at(moments[2]))
            assert [entry.offset for entry in page.entries] == [written[1].offset]
            empty = await orders.poll(at(moments[1]), until=at(moments[1]))
            assert empty == ([], at(moments[1]))
            upto = await orders.poll(written[0].offset, until=written[1].offset)
            assert upto == ([], written[0].offset)

    async def test_55_a_range_is_the_pages_together(self, dataset: World):
        async with dataset.open() as orders:
            moments = []
            for number in range(4):
                dataset.clock.advance(10)
                moments.append(dataset.clock.now)
                await orders.write([order(f"s{number}")])
            dataset.settle()
            everything = await replay(orders, 2)
            assert await orders.poll_range(None, None) == everything
            assert await orders.poll_range(moments[1], moments[3]) == everything[1:3]
            assert await orders.poll_range(moments[2], None) == everything[2:]
            assert await orders.poll_range(None, moments[2]) == everything[:2]
            assert await orders.poll_range(moments[2], moments[1]) == []
            assert await orders.poll_range(None, moments[3] + timedelta(days=9)) == everything

    @pytest.mark.parametrize("method", RANGES)
    async def test_55_a_range_ends_where_the_stream_ended_when_it_was_asked_for(
        self, dataset: World, method: str
    ):
        async with dataset.open() as orders:
            await orders.write([order("before")])
            dataset.settle()
            stream = getattr(orders.store, method)(None, None)
            dataset.store.forget()
            await orders.write([order("after")])
            dataset.settle()
            assert dataset.store.counts() == {"put": 3}
            rows = flat(await orders.collected(stream))
            assert [row.sku for row in rows] == ["before"]
            assert len(await orders.rows(method, None, None)) == 2

    async def test_55_ranges_read_the_latest_version_of_what_was_committed_in_them(
        self, dataset: World
    ):
        async with dataset.open(entity_key="sku", version="version") as orders:
            moments = []
            for version in (1, 2, 3):
                dataset.clock.advance(10)
                moments.append(dataset.clock.now)
                await orders.write([order("a", version)])
            dataset.settle()
            dataset.store.forget()
            for method in RANGES:
                rows = await orders.rows(method, moments[0], moments[2])
                assert [row.version for row in rows] == [2]
                rows = await orders.rows(method, moments[0], moments[2], history=True)
                assert [row.version for row in rows] == [1, 2]

    async def test_56_polled_records_keep_versions_and_lose_replicas(self, dataset: World):
        async with dataset.open(entity_key="sku", version="version") as orders:
            await orders.write_with_key(KEY, [order("a", 1), order("a", 2)], token="1")
            again = await orders.write_with_key(KEY, [order("a", 2)], token="2")
            await orders.restamp_ref(again)
            dataset.settle()
            dataset.store.forget()
            page = await orders.poll_records()
            assert [row.version for row in page.records] == [1, 2]
            assert dataset.store.counts() == {"list": 1, "head": 2, "get": 2}
            records, offset = page
            assert records == page.records
            assert offset == page.next_offset == page.entries[-1].offset
            assert page.table.num_rows == len(page) == 2

    async def test_56_without_an_entity_key_a_restamped_write_comes_twice(self, dataset: World):
        async with dataset.open() as orders:
            (result,) = await orders.write([order()])
            await orders.restamp_ref(result)
            dataset.settle()
            dataset.store.forget()
            assert (await orders.poll_records()).records == [order()] * 2
            assert dataset.store.counts()["get"] == 1

    async def test_56_a_file_that_cannot_be_decoded_leaves_the_offset(self, dataset: World):
        async with dataset.open() as orders:
            (result,) = await orders.write([order()])
            await dataset.inner.put(result.data_path, b"no parquet at all")
            dataset.settle()
            with pytest.raises(DecodeError) as raised:
                await orders.poll_records()
            assert raised.value.key == result.data_path

    async def test_56_a_file_that_is_gone_is_passed_over(self, dataset: World):
        async with dataset.open() as orders:
            (gone,) = await orders.write([order("a")])
            await orders.write([order("b")])
            dataset.remove(gone.data_path)
            dataset.settle()
            page = await orders.poll_records()
            assert page.records == [order("b")]
            assert len(page.entries) == 2
            for method in RANGES:
                assert await orders.rows(method, None, None) == [order("b")]

    @pytest.mark.parametrize("method", ENTRIES)
    async def test_57_entries_are_read_without_listing_or_asking(self, dataset: World, method: str):
        async with dataset.open(entity_key="sku", version="version") as orders:
            for version in (1, 2):
                await orders.write([order("a", version, customer=c) for c in ("y", "x")])
            dataset.settle()
            entries = (await orders.poll()).entries
            dataset.store.forget()
            rows = await orders.rows(method, entries[::-1] + entries[:1])
            assert [(row.customer, row.version) for row in rows] == [("x", 2), ("y", 2)]
            assert dataset.store.counts() == {"get": 4}
            ranged = await orders.rows("read_range_iter", None, None)
            assert ranged == rows
            dataset.remove(entries[-1].data_path)
            assert len(await orders.rows(method, entries)) == 2
            assert await orders.rows(method, []) == []

    @pytest.mark.parametrize("method", ENTRIES)
    async def test_57_an_entry_of_another_dataset_is_refused_without_a_request(
        self, dataset: World, method: str
    ):
        async with dataset.open() as orders:
            await orders.write([order()])
            dataset.settle()
            (entry,) = (await orders.poll()).entries
            foreign = type(entry)(
                entry.offset, entry.key, "elsewhere/data/x", entry.ref_path, entry.inserted_at, 1
            )
            dataset.store.forget()
            with pytest.raises(CrossStoreError) as raised:
                await orders.rows(method, [entry, foreign])
            assert raised.value.index == 1
            assert dataset.store.counts() == {}

    async def test_57_two_datasets_are_joined_by_the_partitions_both_have(self, dataset: World):
        other = World(dataset.backing, dataset.face, clock=dataset.clock)
        await other.seed()
        async with dataset.open() as ours, other.open() as theirs:
            await ours.write([order(customer=c) for c in "abc"])
            await theirs.write([order(customer=c) for c in "bcd"])
            dataset.settle()
            entries = (await ours.poll()).entries
            shared = set(partition_keys_of(entries)) & set(
                partition_keys_of((await theirs.poll()).entries)
            )
            wanted = [entry for entry in entries if entry.key in shared]
            rows = await ours.rows("read_entries_iter", wanted)
            assert [row.customer for row in rows] == ["b", "c"]

    async def test_58_a_marker_that_lies_is_an_error_naming_it(self, dataset: World):
        async with dataset.open() as orders:
            await orders.write_with_key(KEY, [order()], token="t")
            marker = dataset.layout.commit(KEY, "t")
            await dataset.inner.put(marker, b"", metadata={"attemptid": ATTEMPT})
            dataset.settle()
            for poll in (orders.poll, orders.poll_records):
                with pytest.raises(CommitMetadataError, match="refmicrots") as raised:
                    await poll()
                assert raised.value.key == marker

    async def test_an_offset_of_another_dataset_or_no_entries_wanted_is_refused(
        self, dataset: World
    ):
        async with dataset.open() as orders:
            for since, until in (("x/_ref/1", None), (None, "x/_ref/1")):
                with pytest.raises(CrossStoreError):
                    await orders.poll(since, until=until)
            for count in (0, -1):
                with pytest.raises(ConfigError):
                    await orders.poll(None, count)
            assert dataset.store.counts() == {}


async def replay(orders, size: int) -> list:
    """All entries from the beginning, `size` at a time."""
    entries, offset = [], None
    while True:
        page = await orders.poll(offset, size)
        if not page.entries:
            return entries
        assert len(page.entries) <= size
        entries += page.entries
        offset = page.next_offset
