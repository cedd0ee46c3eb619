"""Facts about a part as they are written, and as strangers would write them."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.objects.errors import DamagedObject
from s4gateway.objects.part_facts import PartFacts
from s4gateway.s3.checksums import ALGORITHMS, Digests

HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
SIZES = st.integers(0, 5 * 1024**3)


def checksums(names: set[str]) -> dict[str, str]:
    digests = Digests(names)
    digests.update(b"body")
    return {name: base64.b64encode(digests[name]).decode() for name in names}


FACTS = st.builds(
    PartFacts,
    number=st.integers(1, 10_000),
    md5=HEX,
    size=SIZES,
    stored_size=SIZES,
    stored_md5=st.none() | HEX,
    backend_etag=st.none() | st.text("abcdef0123-", min_size=1, max_size=64),
    checksums=st.sets(st.sampled_from(sorted(ALGORITHMS))).map(checksums),
)


@given(FACTS)
def test_what_is_written_is_read_again_and_fits_a_header(facts: PartFacts):
    text = facts.encode()
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert len(text) < 1024
    assert PartFacts.decode(text) == facts


GOOD: dict[str, Any] = json.loads(PartFacts(3, "a" * 32, 10, 38, "b" * 32, "e-1").encode())
WRONG: list[tuple[str, Any]] = [
    ("v", 2),
    ("v", None),
    ("number", 0),
    ("number", 10_001),
    ("number", "3"),
    ("number", True),
    ("number", 3.0),
    ("md5", "A" * 32),
    ("md5", "a" * 31),
    ("md5", None),
    ("size", -1),
    ("size", 2**63),
    ("size", [1]),
    ("stored", 10**40),
    ("stored_md5", 1),
    ("kind", "staged"),
    ("kind", "other"),
    ("kind", ["direct"]),
    ("kind", {}),
    ("etag", ""),
    ("etag", 'a"b'),
    ("etag", "a\r\nb"),
    ("etag", "e" * 129),
    ("etag", ["e"]),
    ("checksums", []),
    ("checksums", {"crc32": "AAAA"}),
    ("checksums", {"crc32": 5}),
    ("checksums", {"crc32": "AAAAAA== "}),
    ("checksums", {"adler": "AAAAAA=="}),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=str)
def test_a_field_that_is_not_as_written_makes_the_record_damaged(name: str, value: Any):
    assert PartFacts.decode(json.dumps(GOOD)).backend_etag == "e-1"
    with pytest.raises(DamagedObject):
        PartFacts.decode(json.dumps(GOOD | {name: value}))
    if name not in ("checksums", "stored_md5"):
        with pytest.raises(DamagedObject):
            PartFacts.decode(json.dumps({key: GOOD[key] for key in GOOD if key != name}))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 5000, "{}" + " " * 5000, "\ud800"])
def test_what_is_no_record_is_refused(text: str):
    with pytest.raises(DamagedObject):
        PartFacts.decode(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_value_in_any_field_is_anything_but_read_or_refused(value: Any):
    for name in (*GOOD, "checksums"):
        try:
            PartFacts.decode(json.dumps(GOOD | {name: value}))
        except DamagedObject:
            continue
