import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import etag

OPAQUE = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"'))


@given(OPAQUE.filter(lambda tag: not tag.startswith("W/")))
def test_quoting_and_stripping_are_inverse(tag: str):
    assert etag.strip(etag.quote(tag)) == tag


@pytest.mark.parametrize("tag", ['"a"', 'W/"a"', '""'])
def test_a_quoted_tag_is_not_quoted_twice(tag: str):
    assert etag.quote(tag) == tag


@pytest.mark.parametrize(
    ("tag", "bare"),
    [('"a"', "a"), ('W/"a"', "a"), ("a", "a"), ('"', '"'), ('""', ""), ("", ""), ('a"', 'a"')],
)
def test_stripping_takes_quotes_only_in_pairs(tag: str, bare: str):
    assert etag.strip(tag) == bare


def test_weakness_is_the_prefix():
    assert etag.is_weak('W/"a"')
    assert not etag.is_weak('"W/a"')


def test_a_composite_hashes_binary_digests_and_counts_parts():
    md5s = [hashlib.md5(part).hexdigest() for part in (b"a", b"b")]
    expected = hashlib.md5(b"".join(map(bytes.fromhex, md5s))).hexdigest()
    assert etag.composite(iter(md5s)) == f"{expected}-2"


@pytest.mark.parametrize(
    ("tag", "count"),
    [
        ('"0678a5c0864e58f1854f042ceb36b1c4-2"', 2),
        ("0678a5c0864e58f1854f042ceb36b1c4-10000", 10000),
        ("0678a5c0864e58f1854f042ceb36b1c4", None),
        ("a-", None),
        ("a-x", None),
        ("a-٣", None),
        ("a-123456", None),
    ],
)
def test_part_count_of_a_tag(tag: str, count: int | None):
    assert etag.part_count(tag) == count
