"""Records as columns and columns as records. Acceptance 35, 36, 43, 45, 66."""

import enum
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3store import Column, ConfigError, DecodeError, EncodeError, parquet
from s4gateway.s3store.dedup import Dedup
from s4gateway.s3store.parquet import Encoder
from s4gateway.s3store.partitions import Partitioner
from s4gateway.s3store.records import RecordSpec
from tests.s3store.sales import SALES, sales

NOW = datetime(2026, 3, 17, 1, 2, 3, 456789, tzinfo=UTC)


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 0
    HIGH = 9


@dataclass(frozen=True)
class Inner:
    name: str
    count: int | None = None
    at: datetime = NOW


@dataclass
class Everything:
    text: str
    number: int
    ratio: float
    flag: bool
    blob: bytes
    at: datetime
    day: date
    id: uuid.UUID
    colour: Colour
    level: Level
    amount: Annotated[Decimal, Column("amt", type=pa.decimal128(18, 6))]
    tags: list[str]
    counts: dict[str, int]
    inner: Inner
    inners: list[Inner]
    by_name: dict[str, Inner]
    maybe: str | None = None
    maybe_at: datetime | None = None
    cents: Annotated[int, Column(type=pa.decimal128(9, 0))] = 0
    small: Annotated[int, Column(type=pa.int8())] = 0
    at_ns: Annotated[datetime, Column(type=pa.timestamp("ns", "UTC"))] = NOW
    renamed: str = field(default="x", metadata={"column": Column("stored_name")})


def everything(number: int = 1) -> Everything:
    return Everything(
        "é日本", number, 0.5, True, b"\0\xff", NOW, date(2026, 3, 17), uuid.UUID(int=number),
        Colour.BLUE, Level.HIGH, Decimal("1.250000"), ["a", ""], {"k": 1}, Inner("i", 2),
        [Inner("j"), Inner("k", 3)], {"m": Inner("n")},
    )  # fmt: skip


def through_a_file(spec: RecordSpec[Any], table: pa.Table, codec: str = "snappy") -> pa.Table:
    file = parquet.open_file(pa.BufferReader(Encoder(codec).encode(table)), "k")
    return parquet.decode(file, "k", spec, spec.schema)


@pytest.mark.parametrize("codec", list(parquet.Compression))
def test_every_type_comes_back_as_it_went(codec: str):
    spec = RecordSpec(Everything)
    rows = [everything(number) for number in range(5)]
    rows[3].maybe, rows[3].maybe_at = "there", NOW
    assert spec.to_rows(through_a_file(spec, spec.to_table(rows), codec)) == rows


def test_no_rows_are_a_table_too():
    spec = RecordSpec(Everything)
    table = through_a_file(spec, spec.to_table([]))
    assert (table.num_rows, spec.to_rows(table)) == (0, [])


class Model(pydantic.BaseModel):
    sku: str = pydantic.Field(alias="SKU")
    number: int = 7
    price: Annotated[Decimal, Column("price_eur", type=pa.decimal128(10, 2))] = Decimal(0)
    tags: list[str] = []
    at: datetime | None = None


def test_a_pydantic_model_is_stored_under_its_aliases_and_validated_on_read():
    spec = RecordSpec(Model)
    assert spec.schema.names == ["SKU", "number", "price_eur", "tags", "at"]
    rows = [Model(SKU="a", price=Decimal("1.25"), tags=["x"], at=NOW), Model(SKU="b")]
    assert spec.to_rows(through_a_file(spec, spec.to_table(rows))) == rows

    class Strict(pydantic.BaseModel):
        sku: Annotated[str, pydantic.Field(max_length=1), Column("SKU")]

    strict = RecordSpec(Strict)
    with pytest.raises(DecodeError, match="Strict"):
        strict.to_rows(pa.table({"SKU": ["long"]}))


def test_a_schema_s_rows_are_dicts():
    spec = RecordSpec(pa.schema([pa.field("a", pa.int64(), nullable=False), ("b", pa.string())]))
    assert spec.to_rows(spec.to_table([{"a": 1}, {"a": 2, "b": "x"}])) == [
        {"a": 1, "b": None},
        {"a": 2, "b": "x"},
    ]
    for row, problem in (({"b": "x"}, "'a', row 1: None"), ({"a": 1, "c": 2}, "no column 'c'")):
        with pytest.raises(EncodeError, match=problem):
            spec.to_table([{"a": 0}, row])


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        (pa.int32(), 5, 5.5),
        (pa.timestamp("ms", "UTC"), NOW.replace(microsecond=0), NOW.replace(tzinfo=None)),
        (pa.date32(), date(2026, 1, 1), NOW),
        (pa.list_(pa.int64()), [1, None], [1.5]),
        (pa.list_(pa.string()), ["a"], "a"),
        (pa.map_(pa.string(), pa.int64()), [("k", 1)], {"k": 1.5}),
        (pa.struct([("a", pa.int64())]), {"a": 1}, {"a": 1.5}),
        (pa.struct([("a", pa.int64())]), {"a": None}, {"b": 1}),
        (pa.uuid(), uuid.UUID(int=5), "5"),
        (pa.list_(pa.uuid()), [uuid.UUID(int=5)], ["5"]),
    ],
)
def test_a_value_that_arrow_would_change_is_refused_in_any_record(
    type_: pa.DataType, good: Any, bad: Any
):
    spec: RecordSpec[Any] = RecordSpec(pa.schema([("a", type_)]))
    rows = [{"a": good}, {"a": None}]
    assert spec.to_rows(through_a_file(spec, spec.to_table(rows))) == rows
    with pytest.raises(EncodeError, match="'a'"):
        spec.to_table([{"a": bad}])


@dataclass(kw_only=True)
class Keywords:
    b: int
    a: str = "x"
    made: int = field(init=False, default=5)


def test_fields_that_are_keywords_or_not_of_init_are_understood():
    spec = RecordSpec(Keywords)
    assert spec.schema.names == ["b", "a"]
    assert spec.to_rows(spec.to_table([Keywords(b=1)])) == [Keywords(b=1)]


# --- what cannot be a record


def local(annotation: Any) -> type:
    @dataclass
    class Local:
        x: annotation  # type: ignore[valid-type]

    return Local


@pytest.mark.parametrize(
    "annotation",
    [
        Decimal,
        int | str,
        object,
        Any,
        dict[int, str],
        complex,
        enum.Enum("Plain", "A B"),
        Annotated[Decimal, Column(type=pa.decimal128(20, 2))],
        Annotated[datetime, Column(type=pa.timestamp("us"))],
        "Nowhere",
    ],
)
def test_a_field_that_cannot_be_stored_is_refused_by_name(annotation: Any):
    with pytest.raises(ConfigError, match="Local"):
        RecordSpec(local(annotation))


@pytest.mark.parametrize(
    "record",
    [
        dict,
        5,
        pa.schema([]),
        pa.schema([("a", pa.int8()), ("a", pa.int8())]),
        pa.schema([("t", pa.timestamp("us"))]),
        pa.schema([("d", pa.list_(pa.decimal128(38, 2)))]),
        dataclass(type("Empty", (), {})),
    ],
)
def test_what_is_no_record_is_refused(record: Any):
    with pytest.raises(ConfigError):
        RecordSpec(record)


def test_two_fields_of_one_column_are_refused():
    @dataclass
    class Twice:
        a: int
        b: Annotated[int, Column("a")]

    with pytest.raises(ConfigError, match="same column"):
        RecordSpec(Twice)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"number": "x"}, "'number'"),
        ({"number": 1 << 63}, "'number'"),
        ({"number": 1.5}, "'number'"),
        ({"small": 300}, "'small'"),
        ({"text": None}, "'text', row 1: None"),
        ({"at": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001
        ({"inners": [Inner("x", at=datetime(2026, 1, 1))]}, "no time zone"),  # noqa: DTZ001
        ({"colour": "green"}, "'colour'"),
        ({"amount": Decimal("0.0000001")}, "'amt'"),
        ({"id": "no uuid"}, "'id'"),
        ({"tags": "x"}, "'tags'"),
        ({"counts": [1]}, "'counts'"),
        ({"counts": {"k": 1.5}}, "'counts'"),
        ({"day": NOW}, "'day'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_column(changes: dict[str, Any], problem: str):
    row = everything()
    for name, value in changes.items():
        setattr(row, name, value)
    with pytest.raises(EncodeError, match=problem):
        RecordSpec(Everything).to_table([everything(), row])


# --- 36: the same bytes


@pytest.mark.parametrize("codec", list(parquet.Compression))
def test_36_the_same_rows_are_the_same_bytes_however_they_come(codec: str):
    spec: RecordSpec[Any] = RecordSpec(SALES)
    encode = Encoder(codec).encode
    whole = encode(spec.to_table(sales()))
    table = spec.to_table(sales())
    chunked = pa.concat_tables([table.slice(0, 100), table.slice(100, 7), table.slice(107)])
    described = chunked.replace_schema_metadata({"made": "yesterday"})
    assert encode(spec.for_writing(described)) == whole
    cores = pa.cpu_count()
    try:
        for count in (1, 2):
            pa.set_cpu_count(count)
            assert encode(spec.to_table(sales())) == whole
    finally:
        pa.set_cpu_count(cores)


def test_36_another_process_makes_the_same_bytes():
    program = """
import sys
from tests.s3store.sales import SALES, sales
from s4gateway.s3store.parquet import Encoder
from s4gateway.s3store.records import RecordSpec
from tests.s3store.sales import SALES, sales
sys.stdout.buffer.write(Encoder().encode(RecordSpec(SALES).to_table(sales())))
"""
    made = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
    ).stdout
    assert made == Encoder().encode(RecordSpec(SALES).to_table(sales()))


def test_columns_whose_values_repeat_get_a_dictionary_and_others_do_not():
    file = pq.ParquetFile(pa.BufferReader(Encoder().encode(pa.Table.from_pylist(sales(), SALES))))
    group = file.metadata.row_group(0)
    dictionaries = {
        group.column(i).path_in_schema: group.column(i).has_dictionary_page
        for i in range(group.num_columns)
    }
    assert dictionaries == {"id": False, "kind": True, "n": True, "at": True}


@pytest.mark.parametrize(
    ("codec", "level"), [("lz4", None), ("", None), ("snappy", 1), ("uncompressed", 1)]
)
def test_a_codec_that_readers_lack_is_refused(codec: str, level: int | None):
    with pytest.raises(ConfigError):
        Encoder(codec, level)


# --- 66: what Go readers would read wrongly is never written


def test_66_files_hold_no_int96_integers_for_decimals_and_times_in_utc():
    spec = RecordSpec(Everything)
    file = pq.ParquetFile(pa.BufferReader(Encoder().encode(spec.to_table([everything()]))))
    assert file.metadata.metadata is None or b"ARROW:schema" not in file.metadata.metadata
    columns = {
        file.schema.column(i).path: file.schema.column(i) for i in range(len(file.schema.names))
    }
    assert "INT96" not in {column.physical_type for column in columns.values()}
    assert columns["amt"].physical_type == "INT64"
    assert columns["cents"].physical_type == "INT32"
    for name in ("at", "maybe_at", "inner.at", "at_ns"):
        assert "isAdjustedToUTC=true" in str(columns[name].logical_type)
    assert "microseconds" in str(columns["at"].logical_type)
    assert str(columns["id"].logical_type) == "UUID"
    assert str(columns["text"].logical_type) == "String"
    text = str(file.schema)
    for line in (
        "required binary field_id=-1 text (String)",
        "optional binary field_id=-1 maybe (String)",
        "required int64 field_id=-1 number",
        "required group field_id=-1 tags (List)",
        "required group field_id=-1 counts (Map)",
        "required binary field_id=-1 stored_name",
    ):
        assert line in text


# --- 45: files of other writers


def test_45_other_types_of_the_same_meaning_are_brought_to_the_record_s():
    schema = pa.schema([
        ("s", pa.string()), ("e", pa.string()), ("n", pa.int64()), ("t", pa.timestamp("us", "UTC")),
        ("u", pa.uuid()), ("l", pa.list_(pa.string())),
    ])  # fmt: skip
    spec: RecordSpec[Any] = RecordSpec(schema)
    stored = pa.table(
        {
            "s": pa.array(["a", "b"]).dictionary_encode(),
            "e": pa.array([b"x", "é".encode()]),
            "n": pa.array([1, 2], pa.int32()),
            "t": pa.array([1_000_000_001, 5], pa.timestamp("ns")),
            "u": pa.array([bytes(16), None], pa.binary(16)),
            "l": pa.array([["x"], None], pa.list_(pa.large_string())),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(stored, sink)
    file = parquet.open_file(pa.BufferReader(sink.getvalue()), "k")
    rows = spec.to_rows(parquet.decode(file, "k", spec, spec.schema))
    assert rows[0] == {
        "s": "a", "e": "x", "n": 1, "t": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        "u": uuid.UUID(int=0), "l": ["x"],
    }  # fmt: skip
    assert (rows[1]["e"], rows[1]["u"], rows[1]["l"]) == ("é", None, None)


def test_45_what_is_absent_or_null_takes_the_default_or_zero():
    @dataclass
    class Wider:
        n: int
        text: str
        at: datetime
        when: date
        flag: bool
        blob: bytes
        id: uuid.UUID
        colour: Colour
        level: Level
        inner: Inner
        tags: list[str]
        counts: dict[str, int]
        optional: int | None
        given: int = 5
        made: list[int] = field(default_factory=lambda: [1])
        at_ns: Annotated[datetime, Column(type=pa.timestamp("ns", "UTC"))] = NOW

    spec = RecordSpec(Wider)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": [None, 3], "ignored": ["x", "y"]}), sink)
    file = parquet.open_file(pa.BufferReader(sink.getvalue()), "k")
    first, second = spec.to_rows(parquet.decode(file, "k", spec, spec.schema))
    year_one = datetime(1, 1, 1, tzinfo=UTC)
    assert first == Wider(
        0, "", year_one, date(1, 1, 1), False, b"", uuid.UUID(int=0), Colour.RED, Level.LOW,
        Inner("", None, NOW), [], {}, None, 5, [1], NOW,
    )  # fmt: skip
    assert second.n == 3
    assert first.made is not second.made


def test_45_a_column_of_another_meaning_is_an_error_naming_file_and_column():
    spec: RecordSpec[Any] = RecordSpec(pa.schema([("n", pa.int64()), ("s", pa.string())]))
    for wrong in ({"n": ["x"]}, {"n": [1.5]}, {"s": [b"\xff"]}, {"n": [[1]]}):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(wrong), sink)
        file = parquet.open_file(pa.BufferReader(sink.getvalue()), "some/key")
        with pytest.raises(DecodeError, match=f"some/key: column '{next(iter(wrong))}'"):
            parquet.decode(file, "some/key", spec, spec.schema)


@pytest.mark.parametrize("body", [b"", b"PAR1", b"x" * 100, b"PAR1" + b"\xff" * 50 + b"PAR1"])
def test_a_file_that_is_no_parquet_is_an_error_naming_it(body: bytes):
    with pytest.raises(DecodeError, match="some/key"):
        parquet.open_file(pa.BufferReader(body), "some/key")


def test_structs_gain_and_lose_members_like_records():
    @dataclass
    class Old:
        inners: list[Inner]
        one: Inner | None

    @dataclass
    class NewInner:
        count: int
        extra: str
        name: str

    @dataclass
    class New:
        inners: list[NewInner]
        one: NewInner | None

    old, new = RecordSpec(Old), RecordSpec(New)
    table = old.to_table([Old([Inner("a", 1), Inner("b")], None), Old([], Inner("c"))])
    assert new.to_rows(through_a_file(new, table)) == [
        New([NewInner(1, "", "a"), NewInner(0, "", "b")], None),
        New([], NewInner(0, "", "c")),
    ]


# --- tables to be written


WRITTEN = pa.schema([
    pa.field("a", pa.int64(), nullable=False), ("b", pa.string()), ("t", pa.timestamp("us", "UTC")),
])  # fmt: skip


def test_a_table_may_lack_what_may_be_null_and_have_its_columns_in_any_order():
    spec: RecordSpec[Any] = RecordSpec(WRITTEN)
    table = spec.for_writing(pa.table({"b": ["x"], "a": pa.array([1], pa.int32())}))
    assert table.schema.equals(WRITTEN)
    assert table.to_pylist() == [{"a": 1, "b": "x", "t": None}]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"b": ["x"]}, "'a' is missing"),
        ({"a": [None]}, "'a' holds nulls"),
        ({"a": [1], "c": [1]}, "no column 'c'"),
        ({"a": ["x"]}, "'a' does not fit"),
        ({"a": [1], "t": pa.array([5], pa.timestamp("us"))}, "without a time zone"),
        ({"a": [1], "t": pa.array([5], pa.timestamp("ns", "UTC"))}, "'t' does not fit"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_column(table: dict[str, Any], problem: str):
    spec: RecordSpec[Any] = RecordSpec(WRITTEN)
    with pytest.raises(EncodeError, match=problem):
        spec.for_writing(pa.table(table))


def test_times_of_other_zones_are_the_same_moments():
    spec: RecordSpec[Any] = RecordSpec(WRITTEN)
    east = NOW.astimezone(timezone(timedelta(hours=5)))
    assert spec.to_table([{"a": 1, "t": east}]).equals(spec.to_table([{"a": 1, "t": NOW}]))
    zoned = pa.table({"a": [1], "t": pa.array([NOW], pa.timestamp("us", "+05:00"))})
    (row,) = spec.to_rows(spec.for_writing(zoned))
    assert row["t"] == NOW


# --- partitions


def test_partition_columns_become_text_and_others_need_a_function():
    @dataclass
    class Part:
        day: date
        number: int
        colour: Colour
        x: str | None = None

    spec = RecordSpec(Part)
    rows = [Part(date(2026, 3, 1), 7, Colour.RED), Part(date(2026, 2, 1), 7, Colour.RED)]
    by_columns = Partitioner(spec, ("day", "number", "colour"), None)
    keys = ["day=2026-02-01/number=7/colour=red", "day=2026-03-01/number=7/colour=red"]
    assert [group.key for group in by_columns.group(rows)] == keys
    assert [group.key for group in by_columns.group(spec.to_table(rows))] == keys
    assert by_columns.key(rows[0]) == keys[1]
    assert by_columns.group(rows)[0].values == {
        "day": "2026-02-01", "number": "7", "colour": "red",
    }  # fmt: skip
    by_function = Partitioner(spec, ("p",), lambda row: f"p={row.number}")
    assert [len(group) for group in by_function.group(spec.to_table(rows))] == [2]
    with pytest.raises(ConfigError, match="give partition_by"):
        Partitioner(spec, ("p",), None).key(rows[0])
    with pytest.raises(ConfigError, match="give partition_by"):
        Partitioner(RecordSpec(Everything), ("ratio",), None)
    for bad in (None, ""):
        with pytest.raises(ValueError, match="partition key"):
            Partitioner(spec, ("x",), None).group([Part(date(2026, 3, 1), 7, Colour.RED, bad)])


# --- 43: deduplication, against the obvious way to do it

ROW = st.tuples(st.sampled_from(["a", "b", "é", "A", ""]), st.integers(-3, 3), st.booleans())


@given(rows=st.lists(ROW, max_size=40), chunk=st.integers(1, 9), history=st.booleans())
def test_43_deduplication_is_the_obvious_one(
    rows: list[tuple[str, int, bool]],
    chunk: int,
    history: bool,
):
    schema = pa.schema([("e", pa.string()), ("v", pa.int64()), ("place", pa.int64())])
    spec: RecordSpec[Any] = RecordSpec(schema)
    numbered = [
        {"e": e or None, "v": None if gone and v == 0 else v, "place": place}
        for place, (e, v, gone) in enumerate(rows)
    ]
    table = spec.to_table(numbered)
    pieces = [table.slice(at, chunk) for at in range(0, len(rows), chunk)]
    chunked = pa.concat_tables(pieces) if pieces else table
    ordered = sorted(numbered, key=lambda row: ((row["e"] or "").encode(), row["v"] or 0))
    kept: dict[Any, dict[str, Any]] = {}
    for row in ordered:
        key = (row["e"] or "", row["v"] or 0) if history else (row["e"] or "")
        if not history or key not in kept:
            kept[key] = row
    by_columns = Dedup.of(spec, "e", "v")
    by_functions = Dedup.of(spec, lambda row: row["e"] or "", lambda row: row["v"] or 0)
    for dedup in (by_columns, by_functions):
        assert dedup is not None
        assert dedup.apply(chunked, history=history).to_pylist() == list(kept.values())


def test_43_an_entity_of_several_columns_and_a_version_in_time():
    schema = pa.schema([("a", pa.string()), ("b", pa.uuid()), ("t", pa.timestamp("us", "UTC"))])
    spec: RecordSpec[Any] = RecordSpec(schema)
    rows = [
        {"a": a, "b": uuid.UUID(int=b), "t": NOW + timedelta(seconds=t)}
        for a, b, t in (("x", 1, 5), ("x", 2, 1), ("x", 1, 9), ("w", 2, 0))
    ]
    dedup = Dedup.of(spec, ["a", "b"], "t")
    assert dedup is not None
    assert dedup.apply(spec.to_table(rows), history=False).to_pylist() == [
        rows[3], rows[2], rows[1],
    ]  # fmt: skip


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_moments_become_what_arrow_makes_of_them(unit: str):
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    seconds = [0, 1, -1, 2**33, -(2**33)]
    if unit != "ns":  # reaches neither
        seconds += [-62_135_596_800, 253_402_300_799]  # the first of year 1, the last of 9999
    counts = [second * per_second for second in seconds] + [per_second // 7, -per_second // 7, None]
    stored = pa.array(counts, pa.timestamp(unit, "UTC"))
    spec: RecordSpec[Any] = RecordSpec(pa.schema([("at", stored.type)]))
    found = [row["at"] for row in spec.to_rows(pa.table({"at": stored}))]
    whole = stored.cast(pa.timestamp("us", "+00:00"), safe=False)
    assert found == whole.to_pylist()
    assert {moment.utcoffset() for moment in found if moment} == {timedelta(0)}


def test_a_moment_python_does_not_have_is_told():
    stored = pa.array([2**62], pa.timestamp("us", "UTC"))
    spec: RecordSpec[Any] = RecordSpec(pa.schema([("at", stored.type)]))
    with pytest.raises(DecodeError, match="no dict can be made"):
        spec.to_rows(pa.table({"at": stored}))
