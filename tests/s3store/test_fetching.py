"""How much of a large file is fetched, and that it makes no difference to what is read."""

import itertools
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3store import DecodeError, MemoryTransport, fetching, parquet
from s4gateway.s3store.calls import S3Calls
from s4gateway.s3store.fetching import Fetcher, Span, SparseFile, merge
from s4gateway.s3store.records import RecordSpec
from s4gateway.s3store.telemetry import Telemetry
from tests.s3store import transports, world

ROWS = 30_000
COLUMNS = 20
SCHEMA = pa.schema([(f"c{number:02}", pa.float64()) for number in range(COLUMNS)])


@pytest.fixture(scope="module")
def wide() -> bytes:
    """Twenty columns that do not compress, 4.8 MB, three row groups."""
    rng = random.Random(1)
    columns = [[rng.random() for _ in range(ROWS)] for _ in range(COLUMNS)]
    sink = pa.BufferOutputStream()
    table = pa.table(columns, schema=SCHEMA)
    pq.write_table(table, sink, row_group_size=ROWS // 3, compression="snappy")
    return bytes(sink.getvalue())


class Harness:
    def __init__(self, *columns: str) -> None:
        self.memory = MemoryTransport()
        self.store = transports.ScriptedTransport(self.memory)
        telemetry = Telemetry({}, world.ManualClock())
        calls = S3Calls(self.store, telemetry, limit=8, headers={})
        self.schema = pa.schema([SCHEMA.field(name) for name in columns])
        self.fetcher = Fetcher(calls, telemetry, list(columns))

    async def read(self, key: str, size: int | None) -> pa.Table:
        fetched = await self.fetcher.fetch(key, size)
        file = parquet.open_file(fetched.source, key)
        return parquet.decode(file, key, RecordSpec(self.schema), self.schema)

    @property
    def ranges(self) -> list[tuple[int | None, int]]:
        return [(r.details["start"], r.details["length"]) for r in self.store.requests if r.details]


async def test_45_few_columns_of_a_large_file_cost_their_bytes_and_little_more(wide: bytes):
    harness = Harness("c03", "c17")
    await harness.memory.put("k", wide)
    table = await harness.read("k", len(wide))
    assert table.equals(pq.read_table(pa.BufferReader(wide), columns=["c03", "c17"]))
    metadata = pq.ParquetFile(pa.BufferReader(wide)).metadata
    chunks = [
        (chunk.dictionary_page_offset or chunk.data_page_offset, chunk.total_compressed_size)
        for group in range(3)
        for chunk in (metadata.row_group(group).column(c) for c in (3, 17))
    ]
    needed = sum(size for _, size in chunks)
    assert harness.ranges[0] == (None, 64 * 1024)
    assert sum(length for _, length in harness.ranges) <= needed * 1.1 + 64 * 1024
    for number in range(COLUMNS):
        if number in (3, 17):
            continue
        column = metadata.row_group(0).column(number)
        start = column.dictionary_page_offset or column.data_page_offset
        middle = start + column.total_compressed_size // 2
        assert not any(
            at is not None and at <= middle < at + length for at, length in harness.ranges
        )


async def test_most_columns_of_a_large_file_cost_two_requests_and_then_one(wide: bytes):
    harness = Harness(*(f"c{number:02}" for number in range(15)))
    for key in ("a", "b"):
        await harness.memory.put(key, wide)
    expected = pq.read_table(pa.BufferReader(wide), columns=harness.schema.names)
    assert (await harness.read("a", len(wide))).equals(expected)
    assert harness.ranges == [(None, 64 * 1024), (0, len(wide) - 64 * 1024)]
    harness.store.forget()
    assert (await harness.read("b", len(wide))).equals(expected)
    assert harness.store.counts() == {"get": 1}
    assert harness.ranges == []


@pytest.mark.parametrize("size", [True, False])
async def test_a_small_file_is_fetched_at_one_go(size: bool):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: [1.0] for name in SCHEMA.names}), sink)
    body = bytes(sink.getvalue())
    harness = Harness("c00")
    await harness.memory.put("k", body)
    assert (await harness.read("k", len(body) if size else None)).num_rows == 1
    assert harness.store.counts() == {"get": 1}
    assert harness.ranges == []


async def test_files_of_unknown_size_are_fetched_in_parts_once_one_has_shown_that_it_pays(
    wide: bytes,
):
    harness = Harness("c03")
    await harness.memory.put("k", wide)
    expected = pq.read_table(pa.BufferReader(wide), columns=["c03"])
    assert (await harness.read("k", None)).equals(expected)
    assert harness.ranges == []
    harness.fetcher.learn(parquet.open_file(pa.BufferReader(wide), "k"), len(wide))
    assert (await harness.read("k", None)).equals(expected)
    assert sum(length for _, length in harness.ranges) < len(wide) / 4


def described(body: bytes, more: int) -> bytes:
    """The same file with a longer footer."""
    table = pq.read_table(pa.BufferReader(body))
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"note": "x" * more}), sink)
    return bytes(sink.getvalue())


async def test_a_footer_longer_than_the_tail_is_fetched_too(wide: bytes):
    harness = Harness("c03")
    body = described(wide, 100_000)
    await harness.memory.put("k", body)
    table = await harness.read("k", len(body))
    assert table.equals(pq.read_table(pa.BufferReader(body), columns=["c03"]))
    (_, (start, length), *_) = harness.ranges
    assert start is not None
    assert start + length == len(body) - fetching.TAIL
    assert length > 100_000 - fetching.TAIL


async def test_a_footer_that_needs_more_than_was_fetched_costs_the_whole_file(
    wide: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fetching, "TAIL", 20_000)  # less than a Parquet reader looks at
    harness = Harness("c03")
    await harness.memory.put("k", wide)
    table = await harness.read("k", len(wide))
    assert table.equals(pq.read_table(pa.BufferReader(wide), columns=["c03"]))
    assert harness.store.counts() == {"get": 2}


@pytest.mark.parametrize("tail", [b"x" * 100, b"PAR1", b"\xff\xff\xff\x7fPAR1", b""])
async def test_a_large_file_that_is_no_parquet_is_an_error_naming_it(tail: bytes):
    harness = Harness("c00")
    body = bytes(2 * fetching.WHOLE) + tail
    await harness.memory.put("k", body)
    with pytest.raises(DecodeError, match="k: is no Parquet"):
        await harness.read("k", len(body))


async def test_columns_no_file_has_cost_the_footer_only(wide: bytes):
    harness = Harness("c00")
    harness.schema = pa.schema([("other", pa.int64())])
    harness.fetcher._columns = ["other"]
    await harness.memory.put("k", wide)
    table = await harness.read("k", len(wide))
    assert table["other"].null_count == ROWS
    assert harness.store.counts() == {"get": 1}


SPANS = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 50)), max_size=60)


@given(spans=SPANS)
def test_merged_spans_hold_every_byte_and_little_more(spans: list[tuple[int, int]]):
    wanted = [Span(start, start + length) for start, length in spans]
    merged = merge(wanted)
    assert all(any(m.start <= s.start and s.end <= m.end for m in merged) for s in wanted)
    assert all(a.end < b.start for a, b in itertools.pairwise(merged))
    needed = len({byte for span in wanted for byte in range(*span)})
    fetched = sum(end - start for start, end in merged)
    assert len(merged) <= fetching.REQUESTS
    if len(merged) < fetching.REQUESTS:
        assert fetched <= needed * 1.1


def test_many_small_spans_become_few_and_far_ones_stay_apart():
    near = [Span(start, start + 10) for start in range(0, 4_000_000, 40_000)]
    assert len(merge(near)) == fetching.REQUESTS
    far = [Span(start, start + 10) for start in range(0, 40 * fetching.GAP, fetching.GAP + 10)]
    assert merge(far) == far


def test_a_sparse_file_gives_what_it_has_and_says_what_it_has_not():
    file = SparseFile(10)
    file.add(6, b"6789")
    file.add(0, b"01")
    file.add(2, b"23")
    assert file.filled == 8
    file.seek(1)
    assert file.read(3) == b"123"
    file.seek(-4, 2)
    assert file.read() == b"6789"
    assert file.read(5) == b""
    file.seek(3)
    with pytest.raises(OSError, match="not fetched"):
        file.read(2)
    assert file.was_asked_for_more


async def test_a_hole_that_is_needed_after_all_costs_the_whole_file(
    wide: bytes, monkeypatch: pytest.MonkeyPatch
):
    """Where a footer does not tell all that a decoder reads."""
    dataset = world.World(world.Backing.memory(), world.AsyncFace)
    await dataset.seed()
    async with dataset.open(
        SCHEMA, {"partition_key_parts": ("p",)}, partition_by=lambda row: "p=1"
    ) as store:
        await store.write(pq.read_table(pa.BufferReader(wide)))
        monkeypatch.setattr(fetching, "_chunks", lambda metadata, columns: [Span(4, 5)])
        reader: Any = store.narrow(pa.schema([("c05", pa.float64())]))
        table = await reader.read_table("*")
        assert table["c05"].equals(pq.read_table(pa.BufferReader(wide))["c05"])
