"""Structures of Thrift's compact protocol: kept byte for byte, and never trusted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4gateway.tools.parquet_thrift import Struct, ThriftError, Truncated, parse
from tests.tools import parquet_made

NESTED = {4: {1: {3: {}}}}


def test_what_is_not_taken_apart_stays_the_same_bytes():
    data = parquet_made.indexed(parquet_made.table(300))
    start = parquet_made.footer(data).start
    for shape in ({}, {4: {}}, NESTED):
        found, end = parse(data[start:-8], shape)
        assert end == len(data) - 8 - start
        assert found.pack() == data[start:-8]


def test_every_type_of_the_protocol_survives():
    data = bytes.fromhex(
        "11"  # 1: true
        "12"  # 2: false
        "13 7f"  # 3: i8
        "14 01"  # 4: i16, -1
        "15 feff03"  # 5: i32
        "16 ffffffffffffffffff01"  # 6: i64, the least
        "17 0102030405060708"  # 7: double
        "18 03 616263"  # 8: binary
        "19 f5 10 01010101010101010101010101010101"  # 9: a long list of i32
        "1a 23 0102"  # 10: set of i8
        "1b 02 81 03616263 01 00 02"  # 11: map of binary to boolean
        "1c 11 0d d20f 11 00"  # 12: a struct with a UUID as field 1001 would be cut off here
    )
    with pytest.raises(ThriftError):
        parse(data + b"\0", {})
    data = data[: data.index(b"\x1c\x11")] + b"\x1c\x11\x00" + b"\x0d\xd2\x0f" + bytes(16) + b"\0"
    found, end = parse(data, {})
    assert (end, found.pack()) == (len(data), data)
    assert (found.number(4), found.number(6)) == (-1, -(1 << 63))
    assert (found.flag(1, default=False), found.flag(2, default=True)) == (True, False)
    assert found.values[1001] == bytes(16)


def test_changed_fields_change_nothing_else():
    found, _ = parse(bytes.fromhex("15 02 18 01 61 00"), {})
    found.set_number(1, -70_000)
    found.set_flag(40, value=False)
    again, _ = parse(found.pack(), {})
    assert (again.number(1), again.values[2], again.flag(40, default=True)) == (
        -70_000, b"\x01a", False,
    )  # fmt: skip


def test_what_is_not_there_or_of_another_type_is_an_error():
    found, _ = parse(bytes.fromhex("18 01 61 15 02 00"), {})
    for wrong in (
        lambda: found.number(1),
        lambda: found.required(7),
        lambda: found.set_number(7, 1),
        lambda: found.flag(2, default=True),
        lambda: found.struct(1),
        lambda: found.structs(2),
    ):
        with pytest.raises(ThriftError):
            wrong()
    assert found.number(7) is None


def test_structures_are_the_same_but_for_the_fields_named():
    one, _ = parse(bytes.fromhex("15 02 15 04 00"), {})
    other, _ = parse(bytes.fromhex("15 02 15 06 00"), {})
    assert not one.is_same(other)
    assert one.is_same(other, {2})
    assert not one.is_same(Struct(), {1, 2})


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "goes on"),
        (bytes.fromhex("18 ff7f 61"), "goes on behind"),
        (bytes.fromhex("19 fc ffffff7f"), "elements"),
        (bytes.fromhex("1b ffffff7f 11"), "elements"),
        (bytes.fromhex("15 ffffffffffffffffffff01"), "64 bits"),
        (bytes.fromhex("15 02 05 02 04"), "twice"),
        (bytes.fromhex("1e 00"), "none of the protocol"),
        (b"\x1c" * 200, "deeper"),
        (b"\x19\x1c" + b"\x19\x19" * 400, "deeper"),
    ],
)
def test_what_lies_is_refused_before_it_is_believed(data: bytes, problem: str):
    with pytest.raises(ThriftError, match=problem):
        parse(data, {})


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_structure_or_an_error(data: bytes):
    try:
        found, end = parse(data, NESTED)
    except ThriftError:
        return
    again, _ = parse(found.pack(), NESTED)
    assert again.pack() == found.pack()
    assert end <= len(data)


def test_a_structure_cut_anywhere_is_told_as_cut():
    data = parquet_made.written(parquet_made.table(3))
    start = parquet_made.footer(data).start
    whole = data[start:-8]
    for end in range(0, len(whole) - 1, 7):
        with pytest.raises(Truncated):
            parse(whole[:end], NESTED)
