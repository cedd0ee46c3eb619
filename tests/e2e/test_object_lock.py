"""Object Lock: what the gateway keeps for itself is locked as well, and no request fails for it."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import clients, corpus, live
from tests.e2e import meddler
from tests.rude_server import Request

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
LARGE = corpus.text(6 * MIB, seed=1)
OTHER = corpus.text(7 * MIB, seed=2)


@pytest.fixture
def locked(direct: Any) -> Iterator[Callable[..., str]]:
    """Buckets with Object Lock; whatever is locked is removed with the right to do so."""
    made: list[str] = []

    def make(**retention: Any) -> str:
        name = live.bucket_name()
        direct.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        made.append(name)
        if retention:
            direct.put_object_lock_configuration(
                Bucket=name,
                ObjectLockConfiguration={
                    "ObjectLockEnabled": "Enabled",
                    "Rule": {"DefaultRetention": retention},
                },
            )
        return name

    yield make
    for name in made:
        page = direct.list_object_versions(Bucket=name)
        for each in page.get("Versions", []) + page.get("DeleteMarkers", []):
            which = {"Bucket": name, "Key": each["Key"], "VersionId": each["VersionId"]}
            direct.delete_object(**which, BypassGovernanceRetention=True)
        direct.delete_bucket(Bucket=name)


def code(caught: pytest.ExceptionInfo[ClientError]) -> str:
    found: str = caught.value.response["Error"]["Code"]
    return found


def versions(client: Any, bucket: str) -> list[tuple[str, str]]:
    page = client.list_object_versions(Bucket=bucket)
    return [(each["Key"], each["VersionId"]) for each in page.get("Versions", ())]


def test_default_retention_locks_objects_and_fails_no_request_of_ours(
    front: live.Gateway, s3: Any, s3_https: Any, locked: Callable[..., str]
):
    client = s3_https if front.secure else s3
    bucket = locked(Mode="GOVERNANCE", Days=1)
    bodies = {}
    for body in (LARGE, OTHER, b"small", LARGE):
        bodies[client.put_object(Bucket=bucket, Key="k", Body=body)["VersionId"]] = body
    for version, body in bodies.items():
        with pytest.raises(ClientError) as caught:
            client.delete_object(Bucket=bucket, Key="k", VersionId=version)
        assert code(caught) == "AccessDenied"
        got = client.get_object(Bucket=bucket, Key="k", VersionId=version)
        assert got["ObjectLockMode"] == "GOVERNANCE"
        assert got["Body"].read() == body
    marker = client.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"]
    many = [{"Key": "k", "VersionId": each} for each in bodies]
    answer = client.delete_objects(Bucket=bucket, Delete={"Objects": many})
    assert {each["Code"] for each in answer["Errors"]} == {"AccessDenied"}
    assert sorted(versions(client, bucket)) == sorted(("k", each) for each in bodies)
    client.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    got = client.get_object(Bucket=bucket, Key="k", Range="bytes=5000000-5000999")
    assert got["Body"].read() == LARGE[5000000:5001000]
    with pytest.raises(ClientError) as caught:
        client.delete_bucket(Bucket=bucket)
    assert code(caught) == "BucketNotEmpty"


def test_whoever_may_bypass_retention_deletes_object_and_version(
    s3: Any, locked: Callable[..., str]
):
    bucket = locked(Mode="GOVERNANCE", Days=1)
    version = s3.put_object(Bucket=bucket, Key="k", Body=LARGE)["VersionId"]
    s3.delete_object(Bucket=bucket, Key="k", VersionId=version, BypassGovernanceRetention=True)
    assert versions(s3, bucket) == []


def test_a_lock_of_its_own_and_a_legal_hold_are_the_object_s(
    s3: Any, direct: Any, locked: Callable[..., str]
):
    bucket = locked()
    until = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    version = s3.put_object(
        Bucket=bucket,
        Key="k",
        Body=LARGE,
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=until,
        ObjectLockLegalHoldStatus="ON",
    )["VersionId"]
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ObjectLockMode"], head["ObjectLockLegalHoldStatus"]) == ("GOVERNANCE", "ON")
    assert head["ObjectLockRetainUntilDate"] == until
    kept = s3.get_object_retention(Bucket=bucket, Key="k")["Retention"]
    assert kept["RetainUntilDate"] == until
    assert "ObjectLockMode" not in direct.head_object(Bucket=bucket, Key="k.s4index")
    s3.put_object_legal_hold(Bucket=bucket, Key="k", LegalHold={"Status": "OFF"})
    with pytest.raises(ClientError) as caught:
        s3.delete_object(Bucket=bucket, Key="k", VersionId=version)
    assert code(caught) == "AccessDenied"


def _is_internal(request: Request) -> bool:
    return b".s4index" in request.target or b".s4index" in request.body


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "GET", "HEAD"])
def test_a_store_that_denies_what_is_ours_fails_no_client(
    start_gateway: Any, seaweedfs: live.Seaweedfs, make_bucket: Callable[..., str], method: str
):
    bucket = make_bucket()
    with meddler.between(seaweedfs) as meddling, start_gateway(backend=meddling.endpoint) as ours:
        client = clients.boto3_client(ours)
        if method != "PUT":
            client.put_object(Bucket=bucket, Key="k", Body=LARGE)
        denied = meddler.say(403, b"<Error><Code>AccessDenied</Code></Error>")
        with meddling.misbehaving(denied, lambda r: r.method == method and _is_internal(r)) as seen:
            client.put_object(Bucket=bucket, Key="k", Body=OTHER)
            part = client.get_object(Bucket=bucket, Key="k", Range="bytes=6000000-6000009")
            assert part["Body"].read() == OTHER[6000000:6000010]
            client.put_object(Bucket=bucket, Key="k", Body=b"small")
            assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"small"
            client.delete_object(Bucket=bucket, Key="k")
            client.put_object(Bucket=bucket, Key="k", Body=LARGE)
            objects = [{"Key": "k"}, {"Key": "other"}]
            answer = client.delete_objects(Bucket=bucket, Delete={"Objects": objects})
            assert "Errors" not in answer
            assert "Contents" not in client.list_objects_v2(Bucket=bucket)
        assert seen or method in {"GET", "HEAD"}
        client.close()


def test_what_is_written_for_ourselves_carries_an_integrity_header(
    start_gateway: Any, seaweedfs: live.Seaweedfs, bucket: str
):
    def watch(request: Request) -> bool:
        return request.method == "PUT"

    with meddler.between(seaweedfs) as meddling, start_gateway(backend=meddling.endpoint) as ours:
        client = clients.boto3_client(ours)
        with meddling.misbehaving(meddler.changed(lambda answer: answer), watch) as seen:
            client.put_object(Bucket=bucket, Key="k", Body=LARGE)
        client.close()
    assert {request.target.rpartition(b"/")[2].partition(b"?")[0] for request in seen} >= {
        b"k", b"k.s4index"
    }  # fmt: skip
    for request in seen:
        fields = {name.lower(): value for name, value in request.fields}
        md5 = fields.get("content-md5")
        assert md5 or any(name.startswith("x-amz-checksum-") for name in fields), request.target
        if md5:
            assert md5 == base64.b64encode(hashlib.md5(request.body).digest()).decode()
