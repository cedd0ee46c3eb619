"""Two columns of forty, of a Parquet file of 200 MB that the gateway stored.

What is counted are the bytes that come from the store. The measure is what s3fs fetches for the
same read of the same file stored uncompressed, times the share of its size that is left after
compression. s3fs reads ahead by 50 MiB; so the bytes of the columns themselves are printed, too.
"""

import io
import sys
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Counting

from s4gateway.s4fs import S4FileSystem

ROWS = 820_000
BAR = 1.3
PAIRS = [("time", "f3"), ("t0", "t1"), ("f0", "f1"), ("c1", "i5"), ("t0", "f5")]
MOST_REQUESTS = 15


def table() -> pa.Table:
    """Requests of a service: times, measurements, counts, categories and texts."""
    draw = np.random.default_rng(1)
    words = np.array(["alpha", "beta", "gamma", "delta", "checkout", "cart", "eu-west-1", "us"])
    columns = {"time": pa.array(np.cumsum(draw.integers(0, 50, ROWS)) + 1_700_000_000_000)}
    for number in range(12):
        columns[f"f{number}"] = pa.array(np.round(draw.normal(100, 15, ROWS), 2))
        columns[f"i{number}"] = pa.array(draw.integers(0, 10 ** (1 + number % 6), ROWS))
    for number in range(10):
        columns[f"c{number}"] = pa.array(words[draw.integers(0, len(words), ROWS)])
    for number in range(5):
        items = draw.integers(0, 100_000, ROWS).tolist()
        sessions = draw.integers(0, 2**32, ROWS).tolist()
        texts = [f"/v1/items/{a}?session={b:08x}" for a, b in zip(items, sessions, strict=True)]
        columns[f"t{number}"] = pa.array(texts)
    return pa.table(columns)


@pytest.fixture(scope="module")
def parquet() -> bytes:
    written = io.BytesIO()
    pq.write_table(table(), written, compression="none")
    return written.getvalue()


def exact(parquet: bytes, columns: Sequence[str]) -> int:
    """Bytes of the pages of some columns."""
    group = pq.ParquetFile(io.BytesIO(parquet)).metadata.row_group(0)
    chunks = [group.column(number) for number in range(group.num_columns)]
    return sum(each.total_compressed_size for each in chunks if each.path_in_schema in columns)


@pytest.mark.parametrize("chunksize", [1 << 30, 8 << 20], ids=["one PUT", "parts of 8 MiB"])
def test_two_columns_of_forty_cost_their_share(
    store: Counting, gateway: Counting, folder: str, parquet: bytes, chunksize: int
):
    assert 190e6 < len(parquet) < 220e6
    store.pipe_file(f"{folder}/raw.parquet", parquet, chunksize=1 << 30)
    gateway.pipe_file(f"{folder}/stored.parquet", parquet, chunksize=chunksize)
    share = store.info(f"{folder}/stored.parquet")["size"] / len(parquet)
    for columns in map(list, PAIRS):
        fs = S4FileSystem(fs=store, skip_instance_cache=True)
        store.calls.clear()
        found = pq.read_table(f"{folder}/stored.parquet", columns=columns, filesystem=fs)
        ours, requests = store.fetched(), len(store.calls)
        store.calls.clear()
        expected = pq.read_table(f"{folder}/raw.parquet", columns=columns, filesystem=store)
        theirs, their_requests = store.fetched(), len(store.calls)
        assert found.equals(expected)
        assert requests <= MOST_REQUESTS
        assert ours <= BAR * theirs * share
        sys.stdout.write(
            f"{'+'.join(columns)}: {ours / 1e6:.1f} MB in {requests} requests; s3fs "
            f"{theirs / 1e6:.1f} MB in {their_requests}, of which {share:.2f}: "
            f"{ours / theirs / share:.2f}; the columns alone "
            f"{exact(parquet, columns) * share / 1e6:.1f} MB\n"
        )
