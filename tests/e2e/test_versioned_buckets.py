"""Versioned buckets: every version reads as it was written, whatever became of the sidecar."""

import hashlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import clients, corpus, live

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
KEY = "dir/k"
# Two of several frames and about the same size, whose indexes would be good for each other.
BODIES = [
    corpus.text(6 * MIB, seed=1),
    corpus.text(6 * MIB, seed=2),
    b"small",
    corpus.noise(5 * MIB + 3),
    b"",
    corpus.text(9 * MIB, seed=3),
]


@pytest.fixture
def versioned(make_bucket: Callable[..., str], direct: Any) -> str:
    bucket = make_bucket()
    switch(direct, bucket, "Enabled")
    return bucket


def switch(client: Any, bucket: str, status: str) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


@pytest.fixture
def check(s3: Any, fetch: Callable[..., bytes]) -> Callable[..., None]:
    """Whole, ranged and conditional reads of a version, or of the current one."""

    def read(bucket: str, body: bytes, version: str | None = None) -> None:
        which = {} if version is None else {"VersionId": version}
        head = s3.head_object(Bucket=bucket, Key=KEY, **which)
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        assert (head["ContentLength"], head["ETag"]) == (len(body), tag)
        assert fetch(bucket, KEY, **which) == body
        for _ in range(3 if body else 0):
            first = random.randrange(len(body))
            last = min(len(body) - 1, first + random.choice([0, 1000, 3 * MIB]))
            part = fetch(bucket, KEY, Range=f"bytes={first}-{last}", IfMatch=tag, **which)
            assert part == body[first : last + 1]

    return read


def sidecars(direct: Any, bucket: str) -> list[str]:
    page = direct.list_objects_v2(Bucket=bucket)
    return [each["Key"] for each in page.get("Contents", ()) if each["Key"].endswith(".s4index")]


def put(client: Any, bucket: str, body: bytes) -> str:
    version: str = client.put_object(Bucket=bucket, Key=KEY, Body=body)["VersionId"]
    return version


def test_every_version_is_read_as_it_was_written(
    s3: Any, versioned: str, check: Callable[..., None]
):
    ids = [put(s3, versioned, body) for body in BODIES]
    for version, body in zip(ids, BODIES, strict=True):
        check(versioned, body, version)
    check(versioned, BODIES[-1])


def test_another_instance_reads_old_versions_as_well(
    s3: Any, versioned: str, start_gateway: Any, seaweedfs: live.Seaweedfs
):
    ids = [put(s3, versioned, body) for body in BODIES]
    with start_gateway() as gateway:
        client = clients.boto3_client(gateway)
        for version, body in zip(ids, BODIES, strict=True):
            if len(body) < MIB:
                continue
            span = f"bytes={len(body) - MIB}-{len(body) - 1}"
            got = client.get_object(Bucket=versioned, Key=KEY, VersionId=version, Range=span)
            assert got["Body"].read() == body[-MIB:]
        client.close()


def test_versions_deleted_in_any_order_leave_the_others_right(
    s3: Any, direct: Any, versioned: str, check: Callable[..., None]
):
    kept = {put(s3, versioned, body): body for body in BODIES}
    order = list(kept)
    for version in (order[-1], order[0], order[3], order[4]):
        s3.delete_object(Bucket=versioned, Key=KEY, VersionId=version)
        del kept[version]
        for left, body in kept.items():
            check(versioned, body, left)
        check(versioned, kept[list(kept)[-1]])
    for version in kept:
        s3.delete_object(Bucket=versioned, Key=KEY, VersionId=version)
    page = direct.list_object_versions(Bucket=versioned)
    assert page.get("Versions", []) + page.get("DeleteMarkers", []) == []
    with pytest.raises(ClientError):
        s3.head_object(Bucket=versioned, Key=KEY)


def test_removing_the_delete_marker_brings_object_and_sidecar_back(
    s3: Any, direct: Any, versioned: str, check: Callable[..., None]
):
    version = put(s3, versioned, BODIES[0])
    marker = s3.delete_object(Bucket=versioned, Key=KEY)
    assert marker["DeleteMarker"]
    assert sidecars(direct, versioned) == []
    with pytest.raises(ClientError) as caught:
        s3.head_object(Bucket=versioned, Key=KEY)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    check(versioned, BODIES[0], version)
    gone = s3.delete_object(Bucket=versioned, Key=KEY, VersionId=marker["VersionId"])
    assert gone["DeleteMarker"]
    assert sidecars(direct, versioned) == [f"{KEY}.s4index"]
    check(versioned, BODIES[0])


def test_deleting_an_old_version_keeps_the_sidecar_of_the_current_one(
    s3: Any, direct: Any, versioned: str, check: Callable[..., None]
):
    old = put(s3, versioned, BODIES[0])
    put(s3, versioned, BODIES[1])
    s3.delete_object(Bucket=versioned, Key=KEY, VersionId=old)
    assert sidecars(direct, versioned) == [f"{KEY}.s4index"]
    check(versioned, BODIES[1])


def test_small_objects_leave_no_marker_for_a_sidecar_they_never_had(
    s3: Any, direct: Any, versioned: str
):
    put(s3, versioned, b"small")
    s3.delete_object(Bucket=versioned, Key=KEY)
    page = direct.list_object_versions(Bucket=versioned)
    found = page.get("Versions", []) + page.get("DeleteMarkers", [])
    assert {each["Key"] for each in found} == {KEY}


def test_null_versions_stay_right_as_versioning_begins_and_is_suspended(
    s3: Any, direct: Any, bucket: str, check: Callable[..., None]
):
    s3.put_object(Bucket=bucket, Key=KEY, Body=BODIES[0])
    switch(direct, bucket, "Enabled")
    check(bucket, BODIES[0], "null")
    version = put(s3, bucket, BODIES[1])
    check(bucket, BODIES[0], "null")
    switch(direct, bucket, "Suspended")
    for body in (BODIES[5], BODIES[2], BODIES[0]):
        s3.put_object(Bucket=bucket, Key=KEY, Body=body)
        check(bucket, body)
        check(bucket, body, "null")
        check(bucket, BODIES[1], version)
    s3.delete_object(Bucket=bucket, Key=KEY)
    check(bucket, BODIES[1], version)
    page = s3.list_object_versions(Bucket=bucket)
    assert [each["VersionId"] for each in page["Versions"]] == [version]
    assert [each["VersionId"] for each in page["DeleteMarkers"]] == ["null"]


def test_conditions_are_about_the_version_that_is_asked_for(s3: Any, versioned: str):
    ids = [put(s3, versioned, body) for body in BODIES[:2]]
    tags = [f'"{hashlib.md5(body).hexdigest()}"' for body in BODIES[:2]]
    for version, right, wrong in ((ids[0], tags[0], tags[1]), (ids[1], tags[1], tags[0])):
        which = {"Bucket": versioned, "Key": KEY, "VersionId": version}
        assert s3.head_object(**which, IfMatch=right)["ETag"] == right
        with pytest.raises(ClientError) as caught:
            s3.head_object(**which, IfMatch=wrong)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
