"""`s4 migrate` over objects that were stored before there was a gateway, on a real store."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import clients, corpus, live
from tests.e2e import rewriting
from tests.e2e.operators import Operator
from tests.e2e.rewriting import DESCRIBED, MIB

pytestmark = pytest.mark.e2e


@pytest.fixture
def operator(seaweedfs: live.Seaweedfs, tmp_path: Path) -> Operator:
    return Operator(seaweedfs, tmp_path)


def test_everything_reads_back_the_same_through_the_gateway_and_without_it(
    operator: Operator,
    bucket: str,
    direct: Any,
    s3: Any,
    fetch: Callable[..., bytes],
    tmp_path: Path,
):
    bodies = rewriting.bodies()
    rewriting.fill(direct, bucket, bodies, **DESCRIBED, Tagging="a=1&b=x%20y")
    before = {key: direct.head_object(Bucket=bucket, Key=key) for key in bodies}
    dry = operator.s4("migrate", bucket, json=True)
    assert (dry.status, dry.report["migrated"], dry.report["dry_run"]) == (0, 4, True)
    said = operator.s4("migrate", bucket, "--execute", json=True)
    report = said.report
    assert (said.status, report["migrated"], report["skipped_not_compressible"]) == (0, 4, 2)
    assert report["migrated_bytes_after"] == dry.report["migrated_bytes_after"]
    assert report["conditional_writes"] is True
    for key, body in bodies.items():
        assert fetch(bucket, key) == body
        seen = s3.head_object(Bucket=bucket, Key=key)
        for name in ("ETag", "ContentLength", "ContentType", "CacheControl", "Metadata"):
            assert seen[name] == before[key][name], (key, name)
        stored = direct.get_object(Bucket=bucket, Key=key)
        if "s4-codec" in stored["Metadata"]:
            with stored["Body"] as stream:
                (tmp_path / "stored").write_bytes(stream.read())
            said = operator.offline("decode", str(tmp_path / "stored"))
            assert (said.status, said.out) == (0, body)
        tags = direct.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
        assert sorted(each["Value"] for each in tags) == ["1", "x y"]
    assert fetch(bucket, "large", Range="bytes=8000000-8000099") == bodies["large"][8000000:8000100]
    assert operator.s4("verify", bucket, "--sidecars").status == 0
    again = operator.s4("migrate", bucket, "--execute", json=True).report
    assert (again["migrated"], again["skipped_already_s4"]) == (0, 4)


def test_migrate_then_undo_restores_every_object(operator: Operator, bucket: str, direct: Any):
    bodies = rewriting.bodies()
    rewriting.fill(direct, bucket, bodies, **DESCRIBED, Tagging="a=1&b=x%20y")
    before = rewriting.state(direct, bucket, bodies)
    assert operator.s4("migrate", bucket, "--execute").status == 0
    assert rewriting.state(direct, bucket, bodies) != before
    said = operator.s4("migrate", bucket, "--undo", "--execute", json=True)
    assert (said.status, said.report["migrated"], said.report["undo"]) == (0, 4, True)
    assert rewriting.state(direct, bucket, bodies) == before
    assert set(rewriting.times(direct, bucket)) == set(bodies)


def test_undo_restores_what_was_uploaded_through_the_gateway(
    operator: Operator, bucket: str, direct: Any, s3: Any
):
    parts = [corpus.log(5 * MIB, seed=1), corpus.log(6 * MIB, seed=2), b"the end"]
    upload = {"Bucket": bucket, "Key": "parts"}
    upload["UploadId"] = s3.create_multipart_upload(**upload, Metadata={"a": "b"})["UploadId"]
    sent = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(**upload, PartNumber=number, Body=part)["ETag"],
        }
        for number, part in enumerate(parts, start=1)
    ]
    seen = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": sent})["ETag"]
    s3.put_object(Bucket=bucket, Key="plain", Body=corpus.log(5 * MIB), Metadata={"a": "b"})
    said = operator.s4("migrate", bucket, "--undo", "--execute", json=True)
    assert (said.status, said.report["migrated"]) == (0, 2), said.report
    state = rewriting.state(direct, bucket, ["parts", "plain"])
    assert (state["parts"]["Body"], state["parts"]["ETag"]) == (b"".join(parts), seen)
    assert state["plain"]["Body"] == corpus.log(5 * MIB)
    assert {each["Metadata"]["a"] for each in state.values()} == {"b"}
    assert all(list(each["Metadata"]) == ["a"] for each in state.values())
    left = [key for key in rewriting.times(direct, bucket) if not key.startswith(".s4mpu/")]
    assert left == ["parts", "plain"]


def test_a_person_sees_a_table(operator: Operator, bucket: str, direct: Any):
    rewriting.fill(direct, bucket, {"key": corpus.text(50_000)})
    said = operator.s4("migrate", bucket)
    assert said.status == 0
    lines = said.text.splitlines()
    assert lines[0] == f"S4 migrate {bucket} — dry-run (pass --execute to write)"
    assert lines[1].startswith("objects: 1   total: 48.8 KiB (50000 bytes)")
    assert lines[2].startswith("would migrate: 1   48.8 KiB -> ")
    assert "failed: 0" in lines
    assert "Notes:" in lines


def test_a_bucket_that_is_not_there_is_one_line(operator: Operator):
    said = operator.s4("migrate", "no-such-bucket", "--execute")
    assert (said.status, said.out) == (1, b"")
    assert said.err.startswith("s4: the store: 404 NoSuchBucket")


def test_a_bucket_with_versions_is_refused_and_written_to_when_wanted(
    operator: Operator, bucket: str, direct: Any, fetch: Callable[..., bytes]
):
    enabled = {"Status": "Enabled"}
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=enabled)
    rewriting.fill(direct, bucket, {"key": corpus.log(6 * MIB)})
    said = operator.s4("migrate", bucket, "--execute")
    assert (said.status, "--noncurrent-ok" in said.err) == (1, True)
    said = operator.s4("migrate", bucket, "--execute", "--noncurrent-ok", json=True)
    assert (said.status, said.report["migrated"]) == (0, 1), said.report
    assert fetch(bucket, "key") == corpus.log(6 * MIB)
    versions = direct.list_object_versions(Bucket=bucket, Prefix="key")["Versions"]
    assert [each["Key"] for each in versions].count("key") == 2


def test_killed_in_the_middle_it_finishes_the_next_time(
    operator: Operator, bucket: str, direct: Any, fetch: Callable[..., bytes]
):
    bodies = rewriting.many(40)
    rewriting.fill(direct, bucket, bodies, Metadata={"a": "b"})
    running = rewriting.start(operator, "migrate", bucket, "--execute", "--concurrency", "2")

    def changed() -> dict[str, Any]:
        found = rewriting.times(direct, bucket)
        return {key: found[key] for key in bodies if found[key][2] < MIB}

    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(changed()) < 5:
            pass
    finally:
        running.kill()
        running.wait()
    done = changed()
    assert 5 <= len(done) < len(bodies)
    said = operator.s4("migrate", bucket, "--execute", json=True)
    assert (said.status, said.report["failed"]) == (0, 0)
    assert said.report["skipped_already_s4"] == len(done)
    assert said.report["migrated"] == len(bodies) - len(done)
    after = rewriting.times(direct, bucket)
    assert all(after[key] == each for key, each in done.items())
    assert all(fetch(bucket, key) == body for key, body in bodies.items())
    assert operator.s4("verify", bucket).status == 0


@pytest.mark.parametrize("objects", [100, pytest.param(1000, marks=pytest.mark.huge)])
def test_no_write_of_a_client_is_lost_while_it_runs(
    operator: Operator,
    bucket: str,
    direct: Any,
    seaweedfs: live.Seaweedfs,
    gateway: live.Gateway,
    fetch: Callable[..., bytes],
    objects: int,
):
    """Each key has a writer, through the gateway or past it, while migrate replaces objects."""
    keys = [f"key-{number:04}" for number in range(objects)]
    bodies = {key: rewriting.signed_body(key, 0, 20_000) for key in keys}
    rewriting.fill(direct, bucket, bodies)
    with contextlib.ExitStack() as stack:
        ends = [gateway, seaweedfs, gateway, seaweedfs]
        writing = [stack.enter_context(contextlib.closing(clients.boto3_client(e))) for e in ends]
        with rewriting.Writers(writing, bucket, dict(bodies)) as writers:
            for _ in range(3 if objects == 100 else 1):
                said = operator.s4("migrate", bucket, "--execute", json=True)
                assert (said.status, said.report["failed"]) == (0, 0), said.report["failures"]
    assert not writers.failures
    assert writers.writes > objects / 2
    for key in keys:
        body = fetch(bucket, key)
        assert rewriting.is_whole(body), key
        assert body == writers.last[key], key
