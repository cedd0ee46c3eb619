"""ListVersionsResult: the same page in and out, whatever its names hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3.errors import S3Error
from s4gateway.s3.versions import ListedVersion, VersionPage
from s4gateway.s3.xml import Element

AWS = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Name>bucket</Name><Prefix>a+</Prefix><KeyMarker>k</KeyMarker>
  <VersionIdMarker>v9</VersionIdMarker><NextKeyMarker>b%2B</NextKeyMarker>
  <NextVersionIdMarker>v1</NextVersionIdMarker><MaxKeys>2</MaxKeys>
  <Delimiter>%2F</Delimiter><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
  <Version><Key>a+1</Key><VersionId>v2</VersionId><IsLatest>true</IsLatest>
    <LastModified>2025-03-01T00:00:00.000Z</LastModified><ETag>"abc"</ETag>
    <ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>
    <Size>4</Size><StorageClass>STANDARD</StorageClass>
    <RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus>
    <Owner><ID>me</ID></Owner></Version>
  <DeleteMarker><Key>b%2B</Key><VersionId>v1</VersionId><IsLatest>false</IsLatest>
    <Owner><ID>me</ID></Owner></DeleteMarker>
  <CommonPrefixes><Prefix>a+%2F</Prefix></CommonPrefixes>
</ListVersionsResult>"""


def test_a_page_of_aws_is_read_and_written_without_loss():
    page = VersionPage.parse(AWS)
    version, marker = page.entries
    assert (version.key, version.version_id, version.size, version.etag) == ("a 1", "v2", 4, "abc")
    assert (version.is_latest, version.is_marker) == (True, False)
    assert (marker.key, marker.version_id, marker.size, marker.etag) == ("b+", "v1", None, None)
    assert (marker.is_latest, marker.is_marker) == (False, True)
    assert page.common_prefixes == ("a /",)
    assert (page.prefix, page.delimiter, page.max_keys, page.is_truncated) == ("a ", "/", 2, True)
    assert (page.key_marker, page.version_id_marker) == ("k", "v9")
    assert (page.next_key_marker, page.next_version_id_marker) == ("b+", "v1")
    text = page.serialize()
    assert VersionPage.parse(text) == page
    for kept in (b"RestoreStatus", b"<Owner><ID>me</ID></Owner>", b"ChecksumAlgorithm"):
        assert kept in text


def test_a_logical_view_carries_no_checksum_of_the_stored_bytes():
    shown = VersionPage.parse(AWS).entries[0].shown_as(100, "def")
    assert (shown.size, shown.etag) == (100, "def")
    assert [each.tag for each in shown.others] == [
        "IsLatest", "LastModified", "StorageClass", "RestoreStatus", "Owner"
    ]  # fmt: skip


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(TEXT, st.sampled_from([None, "url"]))
def test_any_name_survives_with_and_without_encoding(name: str, encoding_type: str | None):
    page = VersionPage(
        prefix=name,
        entries=(ListedVersion("Version", name, "v1", 1, "abc", (Element("IsLatest", "true"),)),),
        common_prefixes=(name,),
        encoding_type=encoding_type,
        next_key_marker=name,
    )
    assert VersionPage.parse(page.serialize()) == page


@pytest.mark.parametrize(
    "document",
    [
        b"<ListBucketResult/>",
        b"<ListVersionsResult><Version><Key>a</Key></Version></ListVersionsResult>",
        b"<ListVersionsResult><DeleteMarker/></ListVersionsResult>",
        b"<ListVersionsResult><MaxKeys>-1</MaxKeys></ListVersionsResult>",
        b"<ListVersionsResult>",
        b"",
    ],
)
def test_what_is_no_such_page_is_the_backend_s_fault(document: bytes):
    with pytest.raises(S3Error) as caught:
        VersionPage.parse(document)
    assert caught.value.code == "InternalError"
