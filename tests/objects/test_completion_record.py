"""The record of a completion: written and read back, and nothing odd believed."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.objects.completion_record import CompletionRecord
from s4gateway.objects.errors import DamagedObject

RECORD = CompletionRecord(
    "an/upload", "a/key", "0" * 16, "a" * 64, "b" * 32 + "-7", ("crc32c", "AAAAAA==", "FULL_OBJECT")
)


@given(
    st.sampled_from([None, ("sha256", "a" * 43 + "=-9", "COMPOSITE"), RECORD.checksum]),
    st.booleans(),
    st.none() | st.from_regex("[!-~]{1,40}", fullmatch=True),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
)
def test_what_is_encoded_is_decoded(
    checksum: tuple[str, str, str] | None, committed: bool, version_id: str | None, key: str
):
    record = replace(RECORD, checksum=checksum, committed=committed, version_id=version_id, key=key)
    assert CompletionRecord.decode(record.encode()) == record


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("v", 2),
        ("upload_id", 7),
        ("key", None),
        ("token", "0" * 15),
        ("manifest", "a" * 63),
        ("manifest", [[1, "x"]]),
        ("etag", "b" * 32),
        ("etag", '"><script>'),
        ("checksum", ["crc32c", "AAAAAA=="]),
        ("checksum", ["rot13", "AAAAAA==", "COMPOSITE"]),
        ("checksum", ["crc32c", "<x>", "COMPOSITE"]),
        ("checksum", ["crc32c", "AAAAAA==", "SOMETIMES"]),
        ("checksum", ["crc32c", 1, "COMPOSITE"]),
        ("checksum", {}),
        ("committed", "true"),
        ("committed", None),
        ("version_id", "a\r\nb"),
        ("version_id", 1),
        ("version_id", ""),
    ],
)
def test_a_field_that_encode_would_not_write_makes_it_no_record(name: str, value: object):
    fields = json.loads(RECORD.encode()) | {name: value}
    with pytest.raises(DamagedObject):
        CompletionRecord.decode(json.dumps(fields).encode())


@given(st.binary(max_size=100))
def test_any_other_bytes_are_no_record(data: bytes):
    with pytest.raises(DamagedObject):
        CompletionRecord.decode(data)
