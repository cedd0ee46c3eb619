"""ListParts: parts as the client sent them, paged as S3 pages them."""

import hashlib
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError

from tests import corpus, live
from tests.e2e import raw, uploads

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
SIZES = {1: 5 * MIB, 2: 100, 5: 0, 7: 70_000, 300: 6 * MIB}


def body_of(number: int) -> bytes:
    size = SIZES[number]
    return corpus.noise(size, seed=number) if number == 300 else corpus.text(size, seed=number)


def test_parts_are_listed_with_the_sizes_and_etags_of_what_was_sent(
    s3: Any, direct: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key, ChecksumAlgorithm="CRC32C") as upload_id:
        for number in (300, 5, 1, 7, 2):
            s3.upload_part(
                Bucket=shared,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=body_of(number),
                ChecksumAlgorithm="CRC32C",
            )
        listed = s3.list_parts(Bucket=shared, Key=key, UploadId=upload_id)
        assert [each["PartNumber"] for each in listed["Parts"]] == list(SIZES)
        for each in listed["Parts"]:
            body = body_of(each["PartNumber"])
            assert each["Size"] == len(body)
            assert each["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
            assert each["ChecksumCRC32C"] == raw.checksum("crc32c", body)
            assert each["LastModified"].tzinfo is not None
        assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == ("CRC32C", "COMPOSITE")
        assert not listed["IsTruncated"]
        own = direct.list_parts(Bucket=shared, Key=key, UploadId=upload_id)
        for name in ("Initiator", "Owner", "StorageClass", "Bucket", "Key", "UploadId"):
            assert listed.get(name) == own.get(name), name


def test_pages_of_any_size_make_the_same_listing(s3: Any, shared: str, key: str):
    with uploads.begun(s3, shared, key) as upload_id:
        for number in range(1, 8):
            s3.upload_part(
                Bucket=shared, Key=key, UploadId=upload_id, PartNumber=number * 3, Body=b"x"
            )
        where = {"Bucket": shared, "Key": key, "UploadId": upload_id}
        for size in (1, 2, 3, 6, 7, 8):
            found, marker = [], 0
            while True:
                page = s3.list_parts(**where, MaxParts=size, PartNumberMarker=marker)
                found += [each["PartNumber"] for each in page["Parts"]]
                assert (page["MaxParts"], page["PartNumberMarker"]) == (size, marker)
                assert len(page["Parts"]) <= size
                if not page["IsTruncated"]:
                    break
                marker = page["NextPartNumberMarker"]
            assert found == [3, 6, 9, 12, 15, 18, 21]
        none = s3.list_parts(**where, MaxParts=0)
        assert ("Parts" not in none, none["IsTruncated"]) == (True, False)
        beyond = s3.list_parts(**where, PartNumberMarker=20_000)
        assert "Parts" not in beyond


def test_an_upload_without_parts_lists_none(s3: Any, shared: str, key: str):
    with uploads.begun(s3, shared, key) as upload_id:
        listed = s3.list_parts(Bucket=shared, Key=key, UploadId=upload_id)
        assert ("Parts" not in listed, listed["IsTruncated"]) == (True, False)


@pytest.mark.parametrize("query", ["max-parts=x", "max-parts=-1", "part-number-marker=1e3"])
def test_what_is_no_number_is_refused(
    query: str, gateway: live.Gateway, s3: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as upload_id:
        target = f"{raw.path(shared, key)}?{query}&uploadId={quote(upload_id, safe='')}"
        assert raw.ask(gateway, "GET", target).verdict == (400, "InvalidArgument")


def test_an_upload_that_is_not_there_has_no_parts_to_list(s3: Any, shared: str, key: str):
    with uploads.begun(s3, shared, key) as upload_id:
        for name, wanted in ((key, "none"), (f"{key}-other", upload_id)):
            with pytest.raises(ClientError) as caught:
                s3.list_parts(Bucket=shared, Key=name, UploadId=wanted)
            assert caught.value.response["Error"]["Code"] == "NoSuchUpload"
