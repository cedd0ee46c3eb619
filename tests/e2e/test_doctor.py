"""`s4 doctor` over a real SeaweedFS, and over one that a meddler makes strange."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import live
from tests.e2e import meddler
from tests.e2e.operators import Operator
from tests.rude_server import Request

pytestmark = pytest.mark.e2e


@pytest.fixture
def operator(seaweedfs: live.Seaweedfs, tmp_path: Path) -> Operator:
    return Operator(seaweedfs, tmp_path)


def left(direct: Any, bucket: str) -> list[str]:
    versions = direct.list_object_versions(Bucket=bucket)
    found = [each["Key"] for each in versions.get("Versions", [])]
    found += [each["Key"] for each in versions.get("DeleteMarkers", [])]
    uploads = direct.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return found + [each["Key"] for each in uploads]


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["verdict"] for each in report["findings"]}


def test_seaweedfs_is_fit_and_its_ways_are_known(operator: Operator, direct: Any, bucket: str):
    said = operator.s4("doctor", bucket, json=True)
    assert said.status == 0
    found = verdicts(said.report)
    assert "broken" not in found.values()
    assert "unknown" not in found.values()
    for name in (
        "objects", "bodies", "pinned reads", "conditional writes", "Content-MD5",
        "checksum headers", "part sizes", "smallest part", "listings", "DeleteObjects", "clock",
    ):  # fmt: skip
        assert found[name] == "works", name
    # It stores a body whose SHA-256 is not the signed one, and aws-chunked as Content-Encoding.
    assert found["signed payloads"] == "note"
    assert found["checksum trailers"] == "note"
    assert said.report["flags"] == ["--backend-profile", "conditional-writes"]
    assert left(direct, bucket) == []


def test_the_flags_it_gives_are_flags_of_the_gateway(
    operator: Operator, bucket: str, seaweedfs: live.Seaweedfs, tmp_path: Path
):
    said = operator.s4("doctor", bucket)
    assert said.status == 0
    (line,) = [line for line in said.text.splitlines() if line.startswith("Start the gateway")]
    flags = line.partition(operator.store.endpoint_url)[2].split()
    with live.gateway(seaweedfs, tmp_path, *flags) as gateway:
        assert gateway.process.poll() is None


def test_a_versioned_bucket_keeps_no_version_of_what_was_tried(
    operator: Operator, direct: Any, make_bucket: Callable[..., str]
):
    bucket = make_bucket()
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    said = operator.s4("doctor", bucket, json=True)
    assert said.status == 0
    assert verdicts(said.report)["versioning"] == "note"
    assert left(direct, bucket) == []


def test_where_everything_is_retained_nothing_is_written(operator: Operator, direct: Any):
    bucket = live.bucket_name()
    direct.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    direct.put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
    )
    try:
        said = operator.s4("doctor", bucket, json=True)
        assert said.status == 0
        found = verdicts(said.report)
        assert (found["object lock"], found["writes"]) == ("bites", "skipped")
        assert left(direct, bucket) == []
    finally:
        live.remove_bucket(direct, bucket)


def test_lifecycle_rules_are_read(operator: Operator, direct: Any, bucket: str):
    rule = {
        "ID": "old", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30},
    }  # fmt: skip
    direct.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
    )
    said = operator.s4("doctor", bucket)
    assert said.status == 0
    assert "rule 'old' deletes dictionaries" in " ".join(said.text.split())


def _completes_uneven(request: Request) -> bool:
    return (
        request.method == "POST"
        and b"uploadId=" in request.target
        and request.body.count(b"<Part>") == 3
    )


def test_a_store_that_wants_equal_parts_gets_its_flag(
    seaweedfs: live.Seaweedfs, tmp_path: Path, direct: Any, bucket: str
):
    refusal = (
        b"<Error><Code>InvalidPart</Code>"
        b"<Message>All non-trailing parts must have the same length.</Message></Error>"
    )
    with (
        meddler.between(seaweedfs) as meddling,
        meddling.misbehaving(meddler.say(400, refusal), _completes_uneven) as seen,
    ):
        said = Operator(meddling.endpoint, tmp_path).s4("doctor", bucket)
    assert len(seen) == 1
    assert said.status == 0
    assert "--backend-profile uniform-parts,conditional-writes" in said.text
    assert left(direct, bucket) == []


def test_a_clock_that_is_off_makes_it_unfit(seaweedfs: live.Seaweedfs, tmp_path: Path, bucket: str):
    late = meddler.changed(lambda each: each.with_field("Date", "Sun, 06 Nov 1994 08:49:37 GMT"))
    with (
        meddler.between(seaweedfs) as meddling,
        meddling.misbehaving(late, lambda request: b"max-keys=1" in request.target),
    ):
        said = Operator(meddling.endpoint, tmp_path).s4("doctor", bucket)
    assert said.status == 1
    assert "A gateway cannot work over this bucket." in said.text


@pytest.mark.parametrize("fault", ["no bucket", "no store", "wrong keys"])
def test_what_cannot_be_reached_is_said_in_a_line(
    operator: Operator, tmp_path: Path, bucket: str, fault: str
):
    store = operator.store
    if fault == "no bucket":
        said = operator.s4("doctor", "no-such-bucket")
        assert "404 NoSuchBucket" in said.text
    elif fault == "wrong keys":
        stranger = live.Endpoint(store.endpoint_url, "stranger", "wrong")
        said = Operator(stranger, tmp_path).s4("doctor", bucket)
        assert "broken  reach" in said.text
    else:
        nowhere = live.Endpoint("http://127.0.0.1:1", store.access_key, store.secret_key)
        said = Operator(nowhere, tmp_path).s4("doctor", bucket)
        assert said.err.startswith("s4: the store: ")
    assert said.status == 1
