"""`s4 migrate` over objects that were stored before there was a gateway, on a real store."""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import clients, corpus, live
from tests.e2e import rewriting
from tests.e2e.operators import Operator
from tests.e2e.rewriting import DESCRIBED, MIB
from tests.e2e.uploads import complete, send_all

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


def test_what_others_uploaded_in_parts_comes_back_with_the_md5_as_its_etag(
    operator: Operator, bucket: str, direct: Any, s3: Any
):
    """The store does not tell where its parts began; all else is as it was."""
    parts = {1: corpus.log(5 * MIB, seed=1), 2: b"the end"}
    key = "dir/ä b+%2F"
    upload_id = direct.create_multipart_upload(
        Bucket=bucket, Key=key, **DESCRIBED, Tagging="a=1&b=x%20y"
    )["UploadId"]
    complete(direct, bucket, key, upload_id, send_all(direct, bucket, key, upload_id, parts))
    before = rewriting.state(direct, bucket, [key])[key]
    assert before["ETag"].endswith('-2"')
    assert operator.s4("migrate", bucket, "--execute", json=True).report["migrated"] == 1
    assert s3.head_object(Bucket=bucket, Key=key)["ETag"] == before["ETag"]
    said = operator.s4("migrate", bucket, "--undo", "--execute", json=True)
    assert (said.status, said.report["migrated"]) == (0, 1)
    after = rewriting.state(direct, bucket, [key])[key]
    assert after.pop("ETag") == f'"{hashlib.md5(b"".join(parts.values())).hexdigest()}"'
    del before["ETag"]
    assert after == before


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
    bodies = {"empty": b"", "noise": corpus.noise(300_000), "ä b+%2F": corpus.log(5 * MIB)}
    rewriting.fill(s3, bucket, bodies, **DESCRIBED, Tagging="a=1&b=x%20y")
    rewriting.fill(direct, bucket, {f"plain/{key}": each for key, each in bodies.items()},
                   **DESCRIBED, Tagging="a=1&b=x%20y")  # fmt: skip
    said = operator.s4("migrate", bucket, "--undo", "--execute", json=True)
    assert (said.status, said.report["migrated"]) == (0, 4), said.report
    (stored,) = rewriting.state(direct, bucket, ["parts"]).values()
    assert (stored["Body"], stored["ETag"]) == (b"".join(parts), seen)
    assert stored["Metadata"] == {"a": "b"}
    state = rewriting.state(direct, bucket, bodies)
    plain = rewriting.state(direct, bucket, [f"plain/{key}" for key in bodies])
    assert list(state.values()) == list(plain.values())  # as if it had been put at the store
    left = {key for key in rewriting.times(direct, bucket) if not key.startswith(".s4mpu/")}
    assert left == {"parts", *state, *plain}


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


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param(100, marks=pytest.mark.slow),
        pytest.param(1000, marks=pytest.mark.huge),
    ],
)
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
