"""Parquet files of many kinds, and what rewriting one in this process comes to."""

import datetime
import decimal
import io
import math
import random
import tempfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from s4gateway.tools import parquet_child, parquet_format
from s4gateway.tools.parquet_format import Footer, Read

COMPRESSIONS = ("none", "snappy", "gzip", "brotli", "lz4")


def table(rows: int) -> pa.Table:
    """Columns of every kind: nulls, NaN, both zeros, nested, dictionaries, zones, bytes."""
    draw = random.Random(rows)
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    numbers = range(rows)
    payloads = pa.py_buffer(b"".join(draw.choice(_FLOATS).to_bytes(8, "little") for _ in numbers))
    return pa.table(
        {
            "number": pa.array([n % 900 if n % 7 else None for n in numbers], pa.int64()),
            "float": pa.Array.from_buffers(pa.float64(), rows, [None, payloads]),
            "half": pa.array([1.5, None] * (rows // 2) + [0.5] * (rows % 2), pa.float16()),
            "text": [f"{draw.choice(('alpha', 'beta'))}-{n % 50}" for n in numbers],
            "bytes": [draw.randbytes(3) for _ in numbers],
            "decimal": pa.array([decimal.Decimal(n) / 100 for n in numbers], pa.decimal128(20, 2)),
            "zoned": pa.array(
                [begin + datetime.timedelta(seconds=n) for n in numbers],
                pa.timestamp("us", tz="Europe/Berlin"),
            ),
            "list": [[float(m) for m in range(n % 4)] if n % 5 else None for n in numbers],
            "struct": [{"a": n, "b": {"c": str(n)}} if n % 3 else None for n in numbers],
            "map": pa.array(
                [[("key", math.nan)] if n % 2 else None for n in numbers],
                pa.map_(pa.string(), pa.float64()),
            ),
            "category": pa.array([str(n % 3) for n in numbers]).dictionary_encode(),
            "with.dot": list(numbers),
        },
    ).replace_schema_metadata({"made": "by a test"})


# A quiet NaN with a payload, a negative one, both zeros, an infinity, a number.
_FLOATS = (
    0x7FF8_0000_0000_BEEF, 0xFFF8_0000_0000_0001, 0, 1 << 63, 0x7FF0_0000_0000_0000,
    0x3FF8_0000_0000_0000,
)  # fmt: skip


def written(data: pa.Table, compression: str = "snappy", **options: Any) -> bytes:
    """A file that pyarrow writes."""
    sink = io.BytesIO()
    pq.write_table(data, sink, compression=compression, **options)
    return sink.getvalue()


def indexed(data: pa.Table, compression: str = "snappy", **options: Any) -> bytes:
    """The same with everything a reader can plan by."""
    return written(
        data,
        compression,
        write_page_index=True,
        write_page_checksum=True,
        sorting_columns=[pq.SortingColumn(11)],
        bloom_filter_options={"text": {"ndv": 200}},
        **options,
    )


def rewritten(data: bytes, level: int = 3, row_group: int | None = None) -> bytes:
    """What becomes of a file, which is compared as the tool does; raises what it raises."""
    with tempfile.TemporaryFile() as old, tempfile.TemporaryFile() as new:
        old.write(data)
        old.flush()
        length = parquet_child.rewrite(old.fileno(), new.fileno(), level, row_group, lambda _: None)
        new.seek(0)
        found = new.read()
    assert len(found) == length
    return found


def reads(data: bytes) -> Read:
    return lambda offset, count: data[offset : offset + count]


def footer(data: bytes) -> Footer:
    return parquet_format.read_footer(reads(data), len(data))


def with_footer(data: bytes, changed: Footer) -> bytes:
    """The file with another footer behind its columns."""
    return data[: changed.start] + changed.pack()
