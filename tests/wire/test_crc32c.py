import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.wire.crc32c import combine, crc32c


def bitwise(data: bytes) -> int:
    """The definition: reflected polynomial 0x82F63B78, all ones before and after."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@given(st.binary(max_size=200))
def test_agrees_with_the_definition(data: bytes):
    assert crc32c(data) == bitwise(data)


@given(st.lists(st.binary(max_size=100), max_size=8))
def test_continues_over_pieces(pieces: list[bytes]):
    value = 0
    for piece in pieces:
        value = crc32c(piece, value)
    assert value == crc32c(b"".join(pieces))


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_144, 262_145, 1_000_003])
def test_every_kind_of_buffer_has_the_same_sum(size: int):
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    expected = crc32c(data)
    assert crc32c(bytearray(data)) == expected
    assert crc32c(memoryview(data)) == expected
    assert crc32c(memoryview(b"x" + data)[1:]) == expected
    assert crc32c(memoryview(data), 7) == crc32c(data, 7)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_sums_of_two_runs_are_combined_without_the_bytes(first: bytes, second: bytes):
    combined = combine(crc32c(first), crc32c(second), len(second))
    assert combined == crc32c(first + second)


def test_runs_longer_than_32_bits_are_combined():
    half = 5 * 1024**3
    quarter = combine(1, 2, half)
    assert combine(combine(quarter, 3, half), 4, half) == combine(
        quarter, combine(3, 4, half), 2 * half
    )
