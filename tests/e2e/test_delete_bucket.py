"""DeleteBucket: what a client cannot see keeps no bucket from being deleted, and nothing else is.

A bucket that holds an object keeps its dictionaries, too: without them it could not be read. Of
buckets with versions SeaweedFS deletes whatever is in them, so there a store is put before it that
refuses, as S3 does.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import clients, corpus, live
from tests.e2e import meddler
from tests.rude_server import Request

pytestmark = pytest.mark.e2e

LARGE = corpus.text(5 * 1024 * 1024)
LEFTOVERS = [
    ".s4dict/0123456789abcdef",
    ".s4mpu/6162/00001",
    ".s4mpu/6162/create",
    "gone/k.s4index",
    f"old.__s4ver__/{'0' * 32}",
]
REFUSAL = meddler.say(409, b"<Error><Code>BucketNotEmpty</Code><Message>not</Message></Error>")


@pytest.fixture(scope="module")
def behind(
    seaweedfs: live.Seaweedfs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[meddler.Meddler, Any]]:
    """A store that can be made to refuse, and a client of a gateway over it."""
    with (
        meddler.between(seaweedfs) as meddling,
        live.gateway(meddling.endpoint, tmp_path_factory.mktemp("refusing")) as gateway,
    ):
        client = clients.boto3_client(gateway)
        yield meddling, client
        client.close()


@pytest.fixture
def versioned(make_bucket: Callable[..., str], direct: Any) -> str:
    bucket = make_bucket()
    status = {"Status": "Enabled"}
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=status)
    return bucket


def deletes_bucket(request: Request) -> bool:
    return request.method == "DELETE" and request.target.count(b"/") == 1


def left(direct: Any, bucket: str) -> set[str]:
    page = direct.list_object_versions(Bucket=bucket)
    return {each["Key"] for each in page.get("Versions", []) + page.get("DeleteMarkers", [])}


def refused(client: Any, bucket: str) -> None:
    with pytest.raises(ClientError) as caught:
        client.delete_bucket(Bucket=bucket)
    assert caught.value.response["Error"]["Code"] == "BucketNotEmpty"


def test_leftovers_go_with_the_bucket(s3: Any, direct: Any):
    bucket = live.bucket_name()
    direct.create_bucket(Bucket=bucket)
    for key in LEFTOVERS:
        direct.put_object(Bucket=bucket, Key=key, Body=b"x")
    s3.delete_bucket(Bucket=bucket)
    with pytest.raises(ClientError) as caught:
        direct.head_bucket(Bucket=bucket)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_leftovers_go_with_all_their_versions_and_markers(
    behind: tuple[meddler.Meddler, Any], direct: Any, versioned: str
):
    meddling, client = behind
    for key in LEFTOVERS:
        for _ in range(2):
            direct.put_object(Bucket=versioned, Key=key, Body=b"x")
    direct.delete_object(Bucket=versioned, Key=LEFTOVERS[3])
    with meddling.misbehaving(REFUSAL, deletes_bucket) as seen:
        refused(client, versioned)
    assert len(seen) == 2  # before and after
    assert left(direct, versioned) == set()


def test_null_versions_of_a_suspended_bucket_go_without_leaving_markers(
    behind: tuple[meddler.Meddler, Any], direct: Any, bucket: str
):
    meddling, client = behind
    status = {"Status": "Suspended"}
    for key in LEFTOVERS:
        direct.put_object(Bucket=bucket, Key=key, Body=b"x")
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=status)
    with meddling.misbehaving(REFUSAL, deletes_bucket):
        refused(client, bucket)
    assert left(direct, bucket) == set()


def test_an_object_keeps_the_bucket_and_everything_in_it(s3: Any, direct: Any, bucket: str):
    for key in LEFTOVERS:
        direct.put_object(Bucket=bucket, Key=key, Body=b"x")
    s3.put_object(Bucket=bucket, Key="zz/k", Body=LARGE)
    refused(s3, bucket)
    assert left(direct, bucket) == {*LEFTOVERS, "zz/k", "zz/k.s4index"}


def test_an_old_version_and_a_delete_marker_keep_the_bucket(
    behind: tuple[meddler.Meddler, Any], direct: Any, versioned: str
):
    meddling, client = behind
    direct.put_object(Bucket=versioned, Key=LEFTOVERS[0], Body=b"x")
    version = client.put_object(Bucket=versioned, Key="k", Body=LARGE)["VersionId"]
    marker = client.delete_object(Bucket=versioned, Key="k")["VersionId"]
    with meddling.misbehaving(REFUSAL, deletes_bucket) as seen:
        for remaining in (version, marker):
            refused(client, versioned)
            assert left(direct, versioned) == {LEFTOVERS[0], "k", "k.s4index"}
            client.delete_object(Bucket=versioned, Key="k", VersionId=remaining)
        assert len(seen) == 2
        refused(client, versioned)
    assert left(direct, versioned) == set()


def test_more_leftovers_than_a_page_hide_no_object(s3: Any, direct: Any):
    bucket = live.bucket_name()
    direct.create_bucket(Bucket=bucket)
    for number in range(1001):
        direct.put_object(Bucket=bucket, Key=f".s4dict/{number:016x}", Body=b"x")
    s3.put_object(Bucket=bucket, Key="zz", Body=b"x")
    refused(s3, bucket)
    assert direct.head_object(Bucket=bucket, Key=".s4dict/0000000000000000")
    s3.delete_object(Bucket=bucket, Key="zz")
    s3.delete_bucket(Bucket=bucket)


def test_an_unfinished_upload_ends_with_its_bucket(s3: Any, direct: Any):
    bucket = live.bucket_name()
    direct.create_bucket(Bucket=bucket)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    assert left(direct, bucket)
    s3.delete_bucket(Bucket=bucket)
    with pytest.raises(ClientError):
        direct.head_bucket(Bucket=bucket)


def test_a_bucket_that_is_not_there_is_the_backend_s_word(s3: Any):
    with pytest.raises(ClientError) as caught:
        s3.delete_bucket(Bucket="nowhere-to-be-found")
    assert caught.value.response["Error"]["Code"] == "NoSuchBucket"
