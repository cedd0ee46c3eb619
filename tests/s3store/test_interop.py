"""Data that Go programs wrote. Acceptance 64 and 65; 66 is in test_records.py."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pytest

from s4gateway.s3store import Column, parquet
from s4gateway.s3store.records import RecordSpec
from tests.contracts.s3store_interop import InteropContract
from tests.s3store import world

FILES = Path(__file__).parent / "fixtures" / "parquet_go"


class TestInteropOverMoto(InteropContract):
    @pytest.fixture
    async def backing(self, moto: Any) -> AsyncIterator[world.Backing]:
        made = world.Backing.boto3(moto.client, moto.bucket)
        yield made
        await made.transport.aclose()


@dataclass
class Basic:
    period: str
    customer: str
    value: int
    amount: float
    ok: bool
    ts_def: datetime
    ts_ms: datetime
    ts_us: datetime
    ts_ns: Annotated[datetime, Column(type=pa.timestamp("ns", "UTC"))]
    dec: Annotated[Decimal, Column(type=pa.decimal128(18, 6))]
    i8: Annotated[int, Column(type=pa.int8())]
    i16: int
    i32: int
    u32: int
    u64: Annotated[int, Column(type=pa.uint64())]
    f32: float
    blob: bytes
    uuid: uuid.UUID
    opt_s: str | None
    ptr_s: str | None
    enm: str
    dict_s: str
    added_later: str = "default"


def read(name: str, record: Any) -> list[Any]:
    spec: RecordSpec[Any] = RecordSpec(record)
    file = parquet.open_file(str(FILES / name), name)
    return spec.to_rows(parquet.decode(file, name, spec, spec.schema))


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd"])
def test_65_files_of_go_hold_the_documented_values(codec: str):
    rows = read(f"go_basic_{codec}.parquet", Basic)
    micros = datetime(2026, 3, 17, 12, 34, 56, 123456, tzinfo=UTC)
    millis = micros.replace(microsecond=123000)
    assert len(rows) == 5
    assert rows[1] == Basic(
        "p1", "c1", 1, 0.5, False, micros, millis, micros, micros, Decimal(1), -1, 1, 1, 1, 1 << 63,
        1.5, b"\1\2\3", uuid.UUID("01020300-0000-0000-0000-000000000000"), "x", "ptr", "E", "d",
    )  # fmt: skip
    assert (rows[0].opt_s, rows[0].ptr_s) == ("", None)
    # Go's zero time: year 1 in ms and us, what wraps around in ns
    zero = rows[2]
    assert zero.ts_ms == zero.ts_us == datetime(1, 1, 1, tzinfo=UTC)
    assert zero.ts_ns.year == zero.ts_def.year == 1754


@dataclass
class Log:
    processor: str
    field: int
    attrs: dict[str, str]


@dataclass
class Nested:
    id: str
    tags: list[str]
    tag_l: list[str]
    logs: list[Log]


def test_65_nested_lists_and_maps_of_go_are_read():
    assert read("go_nested.parquet", Nested) == [
        Nested("a", ["x", "y"], ["l1"], [Log("p", 3, {"k": "v"})]),
        Nested("b", [], [], []),
    ]


def test_65_the_table_lane_keeps_nanoseconds():
    spec: RecordSpec[Any] = RecordSpec(pa.schema([("ts_ns", pa.timestamp("ns", "UTC"))]))
    file = parquet.open_file(str(FILES / "go_basic_zstd.parquet"), "k")
    table = parquet.decode(file, "k", spec, spec.schema)
    assert table["ts_ns"].cast(pa.int64())[0].as_py() == 1773750896123456789
