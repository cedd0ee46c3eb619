"""Documents and parameters of multipart uploads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import multipart, xml
from s4gateway.s3.errors import S3Error
from s4gateway.s3.multipart import CopiedPart, InitiateResult, PartsPage, ShownPart


@pytest.mark.parametrize("text", ["1", "7", "10000", "007"])
def test_a_part_number_is_1_to_10000(text: str):
    assert multipart.parse_part_number(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", "0", "10001", "-1", "+1", " 1", "1.0", "1e2", "٣", "9" * 5000]
)
def test_any_other_part_number_is_refused(text: str):
    with pytest.raises(S3Error) as caught:
        multipart.parse_part_number(text)
    assert (caught.value.code, caught.value.status) == ("InvalidArgument", 400)


def test_a_limit_is_a_number_or_its_default():
    assert multipart.parse_limit("max-parts", None, 1000) == 1000
    assert multipart.parse_limit("max-parts", "", 1000) == 1000
    assert multipart.parse_limit("max-parts", "0", 1000) == 0
    assert multipart.parse_limit("max-parts", "2147483647", 1000) == 2**31 - 1
    for wrong in ("-1", "x", "1.5", "2147483648", "9" * 5000, "²"):
        with pytest.raises(S3Error) as caught:
            multipart.parse_limit("max-parts", wrong, 1000)
        assert caught.value.fields["ArgumentName"] == "max-parts"


@pytest.mark.parametrize(
    ("algorithm", "kind", "expected"),
    [
        (None, None, (None, None)),
        ("CRC32", None, ("crc32", "COMPOSITE")),
        ("crc32c", "full_object", ("crc32c", "FULL_OBJECT")),
        ("CRC64NVME", "FULL_OBJECT", ("crc64nvme", "FULL_OBJECT")),
        ("SHA1", "COMPOSITE", ("sha1", "COMPOSITE")),
        ("SHA256", None, ("sha256", "COMPOSITE")),
    ],
)
def test_a_declared_checksum_has_a_type(
    algorithm: str | None, kind: str | None, expected: tuple[str | None, str | None]
):
    assert multipart.parse_checksum(algorithm, kind) == expected


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("SHA256", "FULL_OBJECT"),
        ("SHA1", "FULL_OBJECT"),
        ("CRC64NVME", "COMPOSITE"),
        ("CRC32", "WHOLE"),
        ("CRC32", ""),
        ("", None),
        ("ADLER32", None),
        (None, "FULL_OBJECT"),
    ],
)
def test_other_combinations_are_refused(algorithm: str | None, kind: str | None):
    with pytest.raises(S3Error) as caught:
        multipart.parse_checksum(algorithm, kind)
    assert caught.value.code == "InvalidRequest"


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1)


@given(TEXT, TEXT, TEXT)
def test_an_initiate_result_is_read_as_it_was_written(bucket: str, key: str, upload_id: str):
    result = InitiateResult(bucket, key, upload_id)
    assert InitiateResult.parse(result.serialize()) == result


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"text",
        b"<InitiateMultipartUploadResult/>",
        b"<InitiateMultipartUploadResult><UploadId></UploadId></InitiateMultipartUploadResult>",
        b"<Error><UploadId>1</UploadId></Error>",
    ],
)
def test_an_answer_that_names_no_upload_is_refused(document: bytes):
    with pytest.raises(ValueError, match=r"."):
        InitiateResult.parse(document)


def test_a_page_of_parts_is_written_as_aws_writes_it():
    people = multipart.parse_people(
        b"<ListPartsResult><Initiator><ID>i</ID></Initiator><Owner><ID>o</ID></Owner>"
        b"<StorageClass>STANDARD</StorageClass><Part><Size>9</Size></Part></ListPartsResult>"
    )
    part = ShownPart(7, "abc", 5, "2025-03-01T00:00:00.000Z", {"crc32c": "AAAAAA=="})
    page = PartsPage(
        InitiateResult("b", "a&b", "u"), 3, 2, True, (part,), people, "crc32c", "COMPOSITE"
    )
    assert page.serialize().decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ListPartsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        "<Bucket>b</Bucket><Key>a&amp;b</Key><UploadId>u</UploadId>"
        "<Initiator><ID>i</ID></Initiator><Owner><ID>o</ID></Owner>"
        "<StorageClass>STANDARD</StorageClass>"
        "<PartNumberMarker>3</PartNumberMarker><NextPartNumberMarker>7</NextPartNumberMarker>"
        "<MaxParts>2</MaxParts><IsTruncated>true</IsTruncated>"
        "<ChecksumAlgorithm>CRC32C</ChecksumAlgorithm><ChecksumType>COMPOSITE</ChecksumType>"
        "<Part><PartNumber>7</PartNumber><LastModified>2025-03-01T00:00:00.000Z</LastModified>"
        "<ETag>&quot;abc&quot;</ETag><Size>5</Size><ChecksumCRC32C>AAAAAA==</ChecksumCRC32C></Part>"
        "</ListPartsResult>"
    )


def test_a_copied_part_is_written_as_aws_writes_it():
    copied = CopiedPart("abc", "2025-03-01T00:00:00.000Z", {"sha256": "AA=="})
    root = xml.parse(copied.serialize())
    assert root.tag == "CopyPartResult"
    assert [(each.tag, each.text) for each in root] == [
        ("ETag", '"abc"'),
        ("LastModified", "2025-03-01T00:00:00.000Z"),
        ("ChecksumSHA256", "AA=="),
    ]
