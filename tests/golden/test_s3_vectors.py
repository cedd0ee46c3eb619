"""Ranges and composite ETags against vectors of the format's first implementation.

One difference is on purpose: a Range whose last byte lies before its first is refused there and
ignored here, as RFC 9110 section 14.1.1 and AWS have it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from s4gateway.s3 import etag, ranges
from s4gateway.s3.errors import S3Error
from s4gateway.s3.ranges import From, FromTo, Suffix

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())
RANGES = VECTORS["resolve_range"]
COPY_RANGES = VECTORS["copy_source_range"]


def span_of(spec: list[Any]) -> ranges.ByteRange:
    match spec:
        case ["suffix", length]:
            return Suffix(length)
        case ["int", first, None]:
            return From(first)
        case ["int", first, last]:
            return FromTo(first, last)
    raise ValueError(spec)


@pytest.mark.parametrize("case", RANGES["cases"], ids=lambda case: str(case["spec"]))
def test_a_range_resolves_to_the_bytes_of_the_vector(case: dict[str, Any]):
    span = span_of(case["spec"])
    if case["result"] == "invalid-range":
        with pytest.raises(S3Error, match="InvalidRange"):
            ranges.resolve(span, RANGES["total"])
    else:
        assert list(ranges.resolve(span, RANGES["total"])) == case["result"]


@pytest.mark.parametrize("case", RANGES["cases"], ids=lambda case: str(case["spec"]))
def test_a_header_of_the_vector_is_read_unless_it_is_reversed(case: dict[str, Any]):
    span = span_of(case["spec"])
    is_reversed = isinstance(span, FromTo) and span.last < span.first
    assert ranges.parse(str(span)) == (None if is_reversed else span)


@pytest.mark.parametrize(("header", "ends"), COPY_RANGES["ok"].items())
def test_a_copy_source_range_names_both_ends(header: str, ends: list[int]):
    assert ranges.parse_copy_source(header) == FromTo(*ends)


@pytest.mark.parametrize("header", COPY_RANGES["bad"])
def test_any_other_copy_source_range_is_refused(header: str):
    with pytest.raises(S3Error) as caught:
        ranges.parse_copy_source(header)
    assert caught.value.code == "InvalidArgument"
    assert caught.value.fields["ArgumentValue"] == header


def multipart() -> dict[str, Any]:
    return next(each for each in VECTORS["multipart"] if "backend_composite_etag" in each)


def test_the_stored_composite_etag_is_the_md5_of_the_parts_md5s():
    md5s = [part["stored_md5"] for part in multipart()["parts"]]
    assert etag.composite(md5s) == multipart()["backend_composite_etag"]


def test_the_logical_composite_etag_is_that_of_the_original_parts():
    originals = {"fill('z',5242880)": b"z" * 5242880, "fill('x',204800)": b"x" * 204800}
    md5s = [hashlib.md5(originals[part["input"]]).hexdigest() for part in multipart()["parts"]]
    composite = etag.composite(md5s)
    assert composite == multipart()["v15_logical_composite_etag"]
    assert etag.part_count(composite) == len(md5s)
