"""Billed bytes: exact for one object, and limits that no distribution over many leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.tools.storage_classes import CLASSES, Limits, StorageClass

KIB = 1024

_CLASSES = st.sampled_from([*CLASSES.values(), StorageClass("other", 64 * KIB, 100)])
_SIZES = st.lists(st.integers(0, 400 * KIB), max_size=12)


@pytest.mark.parametrize(
    ("name", "size", "billed"),
    [
        ("STANDARD", 1, 1),
        ("INTELLIGENT_TIERING", 1, 1),
        ("STANDARD_IA", 1, 128 * KIB),
        ("ONEZONE_IA", 128 * KIB, 128 * KIB),
        ("GLACIER_IR", 128 * KIB + 1, 128 * KIB + 1),
        ("GLACIER", 1000, 1000 + 40 * KIB),
        ("DEEP_ARCHIVE", 0, 40 * KIB),
    ],
)
def test_an_object_is_billed_as_its_class_does(name: str, size: int, billed: int):
    assert CLASSES[name].billed(size) == billed


@given(storage=_CLASSES, sizes=_SIZES, spare=st.integers(0, 5))
def test_what_many_objects_are_billed_lies_within_the_limits(
    storage: StorageClass, sizes: list[int], spare: int
):
    billed = sum(map(storage.billed, sizes))
    limits = storage.limits(sum(sizes), len(sizes), len(sizes) + spare)
    assert limits.at_least <= billed <= limits.at_most


@given(storage=_CLASSES, total=st.integers(0, 3000 * KIB), count=st.integers(1, 12))
def test_each_limit_is_what_some_distribution_is_billed(
    storage: StorageClass, total: int, count: int
):
    lopsided = [total] + [0] * (count - 1)
    even = [total // count + (number < total % count) for number in range(count)]
    limits = storage.limits(total, count)
    assert limits.at_most == sum(map(storage.billed, lopsided))
    assert limits.at_least == sum(map(storage.billed, even))


def test_a_class_that_bills_what_is_stored_is_exact_for_any_number_of_objects():
    assert CLASSES["STANDARD"].limits(1000, 3, 6) == Limits.exactly(1000)


def test_bytes_without_objects_are_not_lost():
    assert CLASSES["STANDARD_IA"].limits(1000, 0) == Limits.exactly(1000)
