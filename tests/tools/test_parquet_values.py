"""What an engine reads from two Parquet files, compared by value."""

import io
import math
import struct
from typing import Any

import pyarrow as pa
import pytest

from s4gateway.tools import parquet_values
from s4gateway.tools.parquet_values import Unreadable, ValueMismatch, is_same
from s4gateway.tools.parquet_verify import Mismatch
from tests.tools import parquet_made
from tests.tools.parquet_made import table, written

OTHER_NAN = struct.unpack("<d", (0x7FF8_0000_0000_0001).to_bytes(8, "little"))[0]
MAP = pa.map_(pa.string(), pa.float64())
PAIR = pa.struct([("a", pa.float32()), ("b", pa.string())])


def compared(old: bytes, new: bytes) -> None:
    parquet_values.compare(io.BytesIO(old), io.BytesIO(new), lambda _: None)


@pytest.mark.parametrize("rows", [0, 1, 500])
def test_all_kinds_of_columns_equal_themselves(rows: int):
    data = parquet_made.table(rows)
    old = written(data, "snappy", row_group_size=200)
    compared(old, written(data, "zstd", row_group_size=200))
    for column in data.columns:
        for chunk in column.chunks:
            assert is_same(chunk, chunk)


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        (pa.int64(), [1, None], [1, 0]),
        (pa.float64(), [0.0], [-0.0]),
        (pa.float32(), [0.0, None], [0.0, math.nan]),
        (pa.float16(), [1.5], [1.25]),
        (pa.list_(pa.float64()), [[1.0], [2.0]], [[1.0, 2.0], []]),
        (pa.list_(pa.float64()), [[], None], [None, []]),
        (pa.list_(pa.float64(), 2), [[1.0, 0.0]], [[1.0, -0.0]]),
        (MAP, [[("a", 1.0)], None], [[("b", 1.0)], None]),
        (MAP, [[("a", 0.0)]], [[("a", -0.0)]]),
        (PAIR, [{"a": 1.0, "b": "x"}], [{"a": 1.0, "b": "y"}]),
        (PAIR, [{"a": None, "b": None}], [None]),
        (pa.string(), ["a"], ["b"]),
    ],
)
def test_arrays_that_differ_are_told_apart(kind: Any, old: list[Any], new: list[Any]):
    mine, made = pa.array(old, kind), pa.array(new, kind)
    assert is_same(mine, mine)
    assert not is_same(mine, made)


def test_one_nan_is_not_another():
    bits = pa.array([0x7FF8_0000_0000_0000, 0x7FF8_0000_0000_0001], pa.int64()).view(pa.float64())
    assert is_same(bits[:1], bits[:1])
    assert not is_same(bits[:1], bits[1:])
    assert not is_same(bits[:1], pa.array([1.0]))


def test_another_value_anywhere_is_a_mismatch_with_its_place():
    numbers = list(range(1_000))
    old = written(pa.table({"n": numbers}), row_group_size=400)
    numbers[900] = -1
    with pytest.raises(ValueMismatch, match="row group 2, column 'n'"):
        compared(old, written(pa.table({"n": numbers}), row_group_size=400))


def test_another_shape_is_a_mismatch():
    data = table(50)
    old = written(data, row_group_size=25)
    for other in (
        written(data.slice(0, 40), row_group_size=25),
        written(data, row_group_size=50),
        written(data.replace_schema_metadata({"made": "otherwise"}), row_group_size=25),
        written(data.drop(["half"]), row_group_size=25),
        written(data, row_group_size=25, version="1.0"),
        b"PAR1 no file PAR1",
    ):
        with pytest.raises(Mismatch):
            compared(old, other)


def test_what_pyarrow_does_not_read_cannot_be_verified():
    with pytest.raises(Unreadable):
        compared(b"PAR1 no file PAR1", written(table(1)))


def test_columns_with_dots_in_their_names_are_compared():
    columns = {"a.b": [1, 2], "a": [{"b": 3}, {"b": 4}], "": [5, 6]}
    old = pa.table(columns)
    compared(written(old), written(old))
    for name, value in {"a.b": [1, 0], "a": [{"b": 3}, {"b": 0}], "": [5, 0]}.items():
        with pytest.raises(ValueMismatch):
            compared(written(old), written(pa.table(columns | {name: value})))


def test_batches_shrink_where_memory_does_not_suffice(monkeypatch: pytest.MonkeyPatch):
    asked = []
    real = parquet_values._check_batches

    def short_of_memory(*arguments: Any) -> None:
        rows = arguments[4]
        asked.append(rows)
        if rows > 10:
            raise MemoryError
        real(*arguments)

    monkeypatch.setattr(parquet_values, "_check_batches", short_of_memory)
    data = written(pa.table({"n": list(range(1_000))}))
    compared(data, data)
    assert asked == [65_536, 1_024, 16, 1]
