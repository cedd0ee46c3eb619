"""UploadPartCopy: whatever the source is stored as, the part is its plaintext."""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError

from s4gateway.s3.multipart import InitiateResult
from tests import corpus, live
from tests.conftest import StartGateway
from tests.e2e import raw, uploads

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
SOURCES = {
    "empty": b"",
    "small": corpus.text(3000, seed=31),
    "noise": corpus.noise(300_000, seed=32),
    "large": corpus.text(9 * MIB, seed=33),
}


def code_of(caught: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def copied(s3: Any, direct: Any, bucket: str, upload_id: str, key: str, **more: Any) -> bytes:
    """Copy into part 1 and return what it decodes to; the answer must agree with it."""
    answer = s3.upload_part_copy(Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=1, **more)
    listed = s3.list_parts(Bucket=bucket, Key=key, UploadId=upload_id)["Parts"]
    plain = uploads.decoded(uploads.stored_part(direct, bucket, upload_id, 1))
    assert answer["CopyPartResult"]["ETag"] == f'"{hashlib.md5(plain).hexdigest()}"'
    assert answer["CopyPartResult"]["LastModified"].tzinfo is not None
    assert [(each["ETag"], each["Size"]) for each in listed] == [
        (answer["CopyPartResult"]["ETag"], len(plain))
    ]
    return plain


@pytest.mark.parametrize("ours", [True, False], ids=["written-here", "raw"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_part_is_the_plaintext_of_its_source(
    name: str, ours: bool, s3: Any, direct: Any, shared: str, key: str
):
    body = SOURCES[name]
    (s3 if ours else direct).put_object(Bucket=shared, Key=f"{key}/source", Body=body)
    source = {"Bucket": shared, "Key": f"{key}/source"}
    with uploads.begun(s3, shared, key) as upload_id:
        assert copied(s3, direct, shared, upload_id, key, CopySource=source) == body
        for first, last in [(0, 0), (5, 2999), (len(body) // 2, len(body) - 1), (0, len(body) - 1)]:
            if last < len(body) and body:
                span = f"bytes={first}-{last}"
                part = copied(
                    s3, direct, shared, upload_id, key, CopySource=source, CopySourceRange=span
                )
                assert part == body[first : last + 1]


def test_a_large_incompressible_source_goes_direct(s3: Any, direct: Any, shared: str, key: str):
    body = corpus.noise(6 * MIB, seed=34)
    s3.put_object(Bucket=shared, Key=f"{key}/source", Body=body)
    with uploads.begun(s3, shared, key, ChecksumAlgorithm="CRC32") as upload_id:
        answer = s3.upload_part_copy(
            Bucket=shared,
            Key=key,
            UploadId=upload_id,
            PartNumber=2,
            CopySource={"Bucket": shared, "Key": f"{key}/source"},
        )["CopyPartResult"]
        assert answer["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        assert answer["ChecksumCRC32"] == raw.checksum("crc32", body)
        own = direct.list_parts(Bucket=shared, Key=key, UploadId=upload_id)["Parts"]
        assert [each["PartNumber"] for each in own] == [2]
        assert own[0]["Size"] >= len(body)


def test_a_version_of_the_source_is_copied_and_named(
    s3: Any, direct: Any, make_bucket: Any, key: str
):
    bucket = make_bucket()
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    source = f"{key}/?versionId=x +%2F"
    old = corpus.text(2 * MIB, seed=35)
    first = s3.put_object(Bucket=bucket, Key=source, Body=old)["VersionId"]
    second = s3.put_object(Bucket=bucket, Key=source, Body=b"new")["VersionId"]
    with uploads.begun(s3, bucket, key) as upload_id:
        for version, body in ((first, old), (second, b"new"), (None, b"new")):
            wanted = {"Bucket": bucket, "Key": source}
            if version is not None:
                wanted["VersionId"] = version
            answer = s3.upload_part_copy(
                Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=1, CopySource=wanted
            )
            assert answer["CopyPartResult"]["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
            assert answer["CopySourceVersionId"] == (version or second)


@pytest.mark.parametrize(
    ("span", "verdict"),
    [
        ("0-2", (400, "InvalidArgument")),
        ("bytes=0", (400, "InvalidArgument")),
        ("bytes=0-", (400, "InvalidArgument")),
        ("bytes=-5", (400, "InvalidArgument")),
        ("bytes=hello-world", (400, "InvalidArgument")),
        ("bytes=0-2,3-5", (400, "InvalidArgument")),
        ("bytes=5-2", (400, "InvalidArgument")),
        ("bytes=0-3000", (416, "InvalidRange")),
        ("bytes=9999-9999", (416, "InvalidRange")),
    ],
)
def test_a_range_must_name_bytes_inside_the_source(
    span: str, verdict: tuple[int, str], s3: Any, direct: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=f"{key}/source", Body=SOURCES["small"])
    with uploads.begun(s3, shared, key) as upload_id:
        with pytest.raises(ClientError) as caught:
            s3.upload_part_copy(
                Bucket=shared,
                Key=key,
                UploadId=upload_id,
                PartNumber=1,
                CopySource={"Bucket": shared, "Key": f"{key}/source"},
                CopySourceRange=span,
            )
        assert code_of(caught) == verdict
        assert uploads.records(direct, shared, upload_id) == ["create"]


def test_conditions_are_held_against_the_etag_clients_see(s3: Any, shared: str, key: str):
    body = SOURCES["small"]
    etag = s3.put_object(Bucket=shared, Key=f"{key}/source", Body=body)["ETag"]
    with uploads.begun(s3, shared, key) as upload_id:
        where = {
            "Bucket": shared,
            "Key": key,
            "UploadId": upload_id,
            "PartNumber": 1,
            "CopySource": {"Bucket": shared, "Key": f"{key}/source"},
        }
        s3.upload_part_copy(**where, CopySourceIfMatch=etag)
        s3.upload_part_copy(**where, CopySourceIfNoneMatch='"0"')
        for wrong in ({"CopySourceIfMatch": '"0"'}, {"CopySourceIfNoneMatch": etag}):
            with pytest.raises(ClientError) as caught:
                s3.upload_part_copy(**where, **wrong)
            assert code_of(caught) == (412, "PreconditionFailed")


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ("{bucket}/none", (404, "NoSuchKey")),
        ("{bucket}/.s4mpu/61/create", (404, "NoSuchKey")),
        ("{bucket}/.s4dict/0123456789abcdef", (404, "NoSuchKey")),
        ("{bucket}/a.s4index", (404, "NoSuchKey")),
        ("no-such-bucket-here/a", (404, "NoSuchBucket")),
        ("{bucket}", (400, "InvalidArgument")),
        ("{bucket}/", (400, "InvalidArgument")),
        ("/", (400, "InvalidArgument")),
        ("{bucket}/a?versionId=", (400, "InvalidArgument")),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(
    source: str,
    verdict: tuple[int, str],
    gateway: live.Gateway,
    s3: Any,
    direct: Any,
    shared: str,
    key: str,
):
    with uploads.begun(s3, shared, key) as upload_id:
        target = f"{raw.path(shared, key)}?partNumber=1&uploadId={quote(upload_id, safe='')}"
        headers = {"x-amz-copy-source": source.format(bucket=shared)}
        assert raw.ask(gateway, "PUT", target, headers).verdict == verdict
        assert uploads.records(direct, shared, upload_id) == ["create"]


def test_what_a_client_may_not_read_it_may_not_copy(
    start_gateway: StartGateway, direct: Any, make_bucket: Any, key: str, tmp_path: Path
):
    mine, other = make_bucket(), make_bucket()
    direct.put_object(Bucket=other, Key="secret", Body=b"secret")
    direct.put_object(Bucket=mine, Key="open", Body=b"open")
    file = tmp_path / "keys.toml"
    file.write_text(f'[keys.SCOPED]\nsecret = "scoped-secret-1"\nbuckets = ["{mine}"]\n')
    with start_gateway("--credentials", str(file)) as server:
        scoped = live.Endpoint(server.endpoint_url, "SCOPED", "scoped-secret-1")
        begun = raw.ask(scoped, "POST", f"{raw.path(mine, key)}?uploads", body=b"")
        upload_id = InitiateResult.parse(begun.body).upload_id
        about = f"uploadId={quote(upload_id, safe='')}"
        target = f"{raw.path(mine, key)}?partNumber=1&{about}"
        for source, verdict in (
            (f"{other}/secret", (403, "AccessDenied")),
            (f"{other}%2Fsecret", (403, "AccessDenied")),
            (f"{mine}/open", (200, None)),
        ):
            answer = raw.ask(scoped, "PUT", target, {"x-amz-copy-source": source})
            assert answer.verdict == verdict
        assert raw.ask(scoped, "DELETE", f"{raw.path(mine, key)}?{about}").status == 204


def test_a_copy_into_an_upload_of_the_backends_own_is_stored_as_plaintext(
    s3: Any, direct: Any, shared: str, key: str
):
    body = SOURCES["large"]
    s3.put_object(Bucket=shared, Key=f"{key}/source", Body=body)
    with uploads.begun(direct, shared, key) as upload_id:
        answer = s3.upload_part_copy(
            Bucket=shared,
            Key=key,
            UploadId=upload_id,
            PartNumber=1,
            CopySource={"Bucket": shared, "Key": f"{key}/source"},
        )
        assert answer["CopyPartResult"]["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        own = direct.list_parts(Bucket=shared, Key=key, UploadId=upload_id)["Parts"]
        assert [each["Size"] for each in own] == [len(body)]
        assert not uploads.records(direct, shared, upload_id)
