"""Content compared with everything that is known about it, however it is cut."""

import base64
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import etag
from s4gateway.s3.checksums import Digests
from s4gateway.tools.content_check import ContentCheck, Expected

DATA = bytes(range(256)) * 40


def checksum(algorithm: str, data: bytes) -> str:
    digests = Digests((algorithm,))
    digests.update(data)
    return base64.b64encode(digests[algorithm]).decode()


def parts_of(sizes: tuple[int, ...]) -> list[bytes]:
    found, start = [], 0
    for size in sizes:
        found.append(DATA[start : start + size])
        start += size
    return found


def composed(sizes: tuple[int, ...], algorithm: str = "crc32c") -> Expected:
    parts = parts_of(sizes)
    own = tuple(checksum(algorithm, part) for part in parts)
    tag = etag.composite(hashlib.md5(part).hexdigest() for part in parts)
    return Expected(sum(sizes), tag, sizes, (algorithm, "x", "COMPOSITE"), own)


def problem(expected: Expected, data: bytes, cut: int = 7) -> str:
    check = ContentCheck(expected)
    for start in range(0, len(data), cut):
        check.update(data[start : start + cut])
    return check.problem()


@given(sizes=st.lists(st.integers(0, 200), min_size=1, max_size=6), cut=st.integers(1, 300))
def test_a_composite_etag_and_the_checksums_of_parts_agree_however_the_bytes_are_cut(
    sizes: list[int], cut: int
):
    expected = composed(tuple(sizes))
    data = DATA[: sum(sizes)]
    check = ContentCheck(expected)
    assert check.compared == ("size", "etag", "crc32c")
    assert problem(expected, data, cut) == ""
    if data:
        changed = bytes([data[0] ^ 1]) + data[1:]
        assert problem(expected, changed, cut).startswith("etag: ")
        other = replace(expected, etag=None)
        assert problem(other, changed, cut).startswith("crc32c: ")


@pytest.mark.parametrize("algorithm", ["crc32", "crc32c", "crc64nvme", "sha1", "sha256", "md5"])
def test_the_checksum_of_the_whole_is_compared(algorithm: str):
    declared = (algorithm, checksum(algorithm, DATA), "FULL_OBJECT")
    expected = Expected(checksum=declared)
    assert ContentCheck(expected).compared == (algorithm,)
    assert problem(expected, DATA) == ""
    assert problem(expected, DATA[:-1]).startswith(f"{algorithm}: ")


def test_the_etag_of_one_body_is_its_md5():
    expected = Expected(len(DATA), hashlib.md5(DATA).hexdigest())
    assert problem(expected, DATA) == ""
    assert problem(expected, DATA[1:]).startswith("size: ")
    assert problem(replace(expected, size=None), DATA[1:]).startswith("etag: ")


def test_an_empty_body_is_compared():
    expected = Expected(0, hashlib.md5(b"").hexdigest())
    assert problem(expected, b"") == ""
    assert problem(composed((0, 0)), b"") == ""


def test_what_cannot_be_computed_is_not_compared():
    expected = Expected(len(DATA), f"{'0' * 32}-3", (), ("future9", "AAAA", "FULL_OBJECT"))
    assert ContentCheck(expected).compared == ("size",)
    assert problem(expected, DATA) == ""


def test_bytes_behind_the_last_part_are_a_wrong_size():
    assert problem(composed((10, 20)), DATA[:31]) == "size: 31 bytes, should be 30"
