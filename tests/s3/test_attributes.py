"""GetObjectAttributes answers what was asked for, in AWS's words."""

import pytest

from s4gateway.s3 import xml
from s4gateway.s3.attributes import NAMES, AttributesRequest, ObjectAttributes, PartAttributes
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers

ALL = AttributesRequest(NAMES)
PARTS = [PartAttributes(number, 10 * number, f"sum{number}") for number in (1, 4, 9)]
COMPOSED = ObjectAttributes("e-3", 140, "GLACIER", ("sha256", "abc=-3", "COMPOSITE"), 3, PARTS)


def request(**fields: str) -> AttributesRequest:
    return AttributesRequest.parse(
        Headers([(f"x-amz-{name.replace('_', '-')}", value) for name, value in fields.items()])
    )


def document(found: ObjectAttributes, asked: AttributesRequest = ALL) -> xml.Element:
    root = xml.parse(found.serialize(asked))
    assert root.tag == "GetObjectAttributesResponse"
    return root


def test_everything_there_is_to_say_about_an_object_from_parts():
    root = document(COMPOSED)
    assert [(each.tag, each.text) for each in root.iter() if not each.children] == [
        ("ETag", "e-3"),
        ("ChecksumSHA256", "abc="),
        ("ChecksumType", "COMPOSITE"),
        ("IsTruncated", "false"),
        ("MaxParts", "1000"),
        ("NextPartNumberMarker", "9"),
        ("PartNumberMarker", "0"),
        *[
            leaf
            for number in (1, 4, 9)
            for leaf in (
                ("ChecksumSHA256", f"sum{number}"),
                ("PartNumber", str(number)),
                ("Size", str(10 * number)),
            )
        ],
        ("PartsCount", "3"),
        ("StorageClass", "GLACIER"),
        ("ObjectSize", "140"),
    ]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_only_what_was_asked_for_is_said(name: str):
    root = document(COMPOSED, AttributesRequest(frozenset({name})))
    assert [each.tag for each in root] == [name]


def test_what_an_object_has_not_is_left_out():
    root = document(ObjectAttributes("e", 0, "STANDARD"))
    assert [each.tag for each in root] == ["ETag", "StorageClass", "ObjectSize"]


def test_parts_that_are_not_listed_are_counted():
    parts = document(ObjectAttributes("e-2", 7, "STANDARD", None, 2)).find("ObjectParts")
    assert parts is not None
    assert [(each.tag, each.text) for each in parts] == [("PartsCount", "2")]


def test_parts_may_be_listed_without_checksums():
    listed = [PartAttributes(1, 3), PartAttributes(2, 4)]
    parts = document(ObjectAttributes("e-2", 7, "STANDARD", None, 2, listed)).find("ObjectParts")
    assert parts is not None
    found = [[(each.tag, each.text) for each in part] for part in parts.findall("Part")]
    assert found == [
        [("PartNumber", "1"), ("Size", "3")],
        [("PartNumber", "2"), ("Size", "4")],
    ]


@pytest.mark.parametrize(
    ("max_parts", "marker", "numbers", "truncated", "following"),
    [
        ("1", "0", ["1"], "true", "1"),
        ("2", "1", ["4", "9"], "false", "9"),
        ("1", "3", ["4"], "true", "4"),
        ("5000", "0", ["1", "4", "9"], "false", "9"),
        ("0", "0", [], "true", "0"),
        ("1", "9", [], "false", "9"),
    ],
)
def test_parts_come_in_pages(
    max_parts: str, marker: str, numbers: list[str], truncated: str, following: str
):
    asked = request(object_attributes="ObjectParts", max_parts=max_parts, part_number_marker=marker)
    parts = document(COMPOSED, asked).find("ObjectParts")
    assert parts is not None
    assert [part.findtext("PartNumber") for part in parts.findall("Part")] == numbers
    assert parts.findtext("IsTruncated") == truncated
    assert parts.findtext("NextPartNumberMarker") == following
    assert parts.findtext("PartNumberMarker") == marker
    assert parts.findtext("MaxParts") == str(min(int(max_parts), 1000))
    assert parts.findtext("PartsCount") == "3"


def test_attributes_are_separated_by_commas_and_perhaps_spaces():
    asked = request(object_attributes="ETag, ObjectSize,\tChecksum,")
    assert asked == AttributesRequest(frozenset({"ETag", "ObjectSize", "Checksum"}))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "InvalidRequest"),
        ({"object_attributes": ""}, "InvalidRequest"),
        ({"object_attributes": " , "}, "InvalidRequest"),
        ({"object_attributes": "ETag,Colour"}, "InvalidArgument"),
        ({"object_attributes": "etag"}, "InvalidArgument"),
        ({"object_attributes": "ETag", "max_parts": "-1"}, "InvalidArgument"),
        ({"object_attributes": "ETag", "max_parts": "many"}, "InvalidArgument"),
        ({"object_attributes": "ETag", "max_parts": "9" * 5000}, "InvalidArgument"),
        ({"object_attributes": "ETag", "part_number_marker": ""}, "InvalidArgument"),
        ({"object_attributes": "ETag", "part_number_marker": "2147483648"}, "InvalidArgument"),
    ],
)
def test_what_cannot_be_answered_is_refused(fields: dict[str, str], code: str):
    with pytest.raises(S3Error) as caught:
        request(**fields)
    assert (caught.value.code, caught.value.status) == (code, 400)
