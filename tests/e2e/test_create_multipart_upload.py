"""CreateMultipartUpload: what the answer says, and what it leaves in the bucket."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from s4gateway.objects.uploads import UploadRecord
from s4gateway.s3.multipart import InitiateResult
from s4gateway.wire import keys
from tests import live
from tests.e2e import raw, uploads

pytestmark = pytest.mark.e2e


def record_of(direct: Any, bucket: str, upload_id: str) -> UploadRecord:
    with direct.get_object(Bucket=bucket, Key=keys.create_key(upload_id))["Body"] as body:
        return UploadRecord.decode(body.read())


def test_the_upload_is_the_backends_own_and_has_a_record(
    s3: Any, direct: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key, ContentType="text/plain") as upload_id:
        known = direct.list_multipart_uploads(Bucket=shared)["Uploads"]
        assert upload_id in [each["UploadId"] for each in known]
        record = record_of(direct, shared, upload_id)
        assert (record.upload_id, record.key) == (upload_id, key)
        assert uploads.records(direct, shared, upload_id) == ["create"]
    assert uploads.records(direct, shared, upload_id) == []


@pytest.mark.parametrize(
    ("algorithm", "kind", "shown"),
    [
        ("CRC32", None, ("CRC32", "COMPOSITE")),
        ("CRC32", "FULL_OBJECT", ("CRC32", "FULL_OBJECT")),
        ("CRC32C", "COMPOSITE", ("CRC32C", "COMPOSITE")),
        ("CRC64NVME", None, ("CRC64NVME", "FULL_OBJECT")),
        ("SHA1", None, ("SHA1", "COMPOSITE")),
        ("SHA256", "COMPOSITE", ("SHA256", "COMPOSITE")),
    ],
)
def test_a_declared_checksum_is_echoed_and_recorded(
    algorithm: str,
    kind: str | None,
    shown: tuple[str, str],
    s3: Any,
    direct: Any,
    shared: str,
    key: str,
):
    more = {} if kind is None else {"ChecksumType": kind}
    answer = s3.create_multipart_upload(Bucket=shared, Key=key, ChecksumAlgorithm=algorithm, **more)
    assert (answer["ChecksumAlgorithm"], answer["ChecksumType"]) == shown
    record = record_of(direct, shared, answer["UploadId"])
    assert (record.checksum_algorithm, record.checksum_type) == (algorithm.lower(), shown[1])
    s3.abort_multipart_upload(Bucket=shared, Key=key, UploadId=answer["UploadId"])


def test_an_upload_without_a_declared_checksum_says_nothing_of_one(
    gateway: live.Gateway, s3: Any, shared: str, key: str
):
    answer = raw.ask(gateway, "POST", f"{raw.path(shared, key)}?uploads", body=b"")
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("x-amz-checksum")]
    result = InitiateResult.parse(answer.body)
    assert (result.bucket, result.key) == (shared, key)
    s3.abort_multipart_upload(Bucket=shared, Key=key, UploadId=result.upload_id)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-type": "FULL_OBJECT"},
        {"x-amz-checksum-algorithm": "SHA1", "x-amz-checksum-type": "FULL_OBJECT"},
        {"x-amz-checksum-algorithm": "CRC64NVME", "x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "HALF"},
        {"x-amz-checksum-algorithm": "ADLER"},
        {"x-amz-checksum-type": "FULL_OBJECT"},
    ],
)
def test_checksums_that_s3_does_not_combine_are_refused_and_begin_nothing(
    headers: dict[str, str], gateway: live.Gateway, direct: Any, shared: str, key: str
):
    answer = raw.ask(gateway, "POST", f"{raw.path(shared, key)}?uploads", headers, b"")
    assert answer.verdict == (400, "InvalidRequest")
    listed = direct.list_multipart_uploads(Bucket=shared, Prefix=key)
    assert "Uploads" not in listed


def test_a_reserved_key_cannot_be_uploaded(s3: Any, shared: str):
    for key in (".s4mpu/61/create", ".s4dict/0123456789abcdef", "a.s4index"):
        with pytest.raises(ClientError) as caught:
            s3.create_multipart_upload(Bucket=shared, Key=key)
        assert caught.value.response["Error"]["Code"] == "InvalidObjectName"


def test_a_bucket_that_is_not_there_is_the_backends_answer(s3: Any, key: str):
    with pytest.raises(ClientError) as caught:
        s3.create_multipart_upload(Bucket=f"none-{live.bucket_name()}", Key=key)
    assert caught.value.response["Error"]["Code"] == "NoSuchBucket"


def test_internal_keys_are_never_listed_as_uploads(s3: Any, direct: Any, shared: str, key: str):
    hidden = ".s4mpu/61/00001"
    own = direct.create_multipart_upload(Bucket=shared, Key=hidden)["UploadId"]
    try:
        with uploads.begun(s3, shared, f"seen/{key}") as upload_id:
            listed = s3.list_multipart_uploads(Bucket=shared)
            assert [each["UploadId"] for each in listed["Uploads"]] == [upload_id]
            assert listed["Uploads"][0]["Key"] == f"seen/{key}"
            cut = s3.list_multipart_uploads(Bucket=shared, Delimiter="/", EncodingType="url")
            prefixes = [each["Prefix"] for each in cut.get("CommonPrefixes", ())]
            assert not [each for each in prefixes if each.startswith(".s4")]
    finally:
        direct.abort_multipart_upload(Bucket=shared, Key=hidden, UploadId=own)
