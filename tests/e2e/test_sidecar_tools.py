"""The acceptance scenarios for sidecars: verify, repair, sweep, over what a gateway really wrote.

verify fresh multipart; repair after deletion; stale overwrite; sweep orphan; undecodable preserved;
race detection.
"""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from s4gateway.wire import keys
from s4gateway.wire.index import FrameIndex
from tests import clients, corpus, live
from tests.e2e import meddler, raw
from tests.e2e.operators import Operator
from tests.e2e.uploads import complete, send_all
from tests.rude_server import Exchange, Request

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
LARGE = corpus.log(9 * MIB)
PARTS = {1: corpus.log(6 * MIB, seed=1), 2: corpus.noise(5 * MIB, seed=2), 3: corpus.text(700_000)}


@pytest.fixture
def operator(seaweedfs: live.Seaweedfs, tmp_path: Path) -> Operator:
    return Operator(seaweedfs, tmp_path)


@pytest.fixture
def multipart(s3: Any, shared: str, key: str) -> bytes:
    """An object assembled from parts at (shared, key)."""
    upload_id = s3.create_multipart_upload(Bucket=shared, Key=key)["UploadId"]
    parts = send_all(s3, shared, key, upload_id, PARTS)
    complete(s3, shared, key, upload_id, parts)
    return b"".join(PARTS.values())


def sidecar(direct: Any, bucket: str, key: str) -> bytes | None:
    try:
        answer = direct.get_object(Bucket=bucket, Key=keys.sidecar_key(key))
    except ClientError:
        return None
    with answer["Body"] as body:
        data: bytes = body.read()
    return data


def verdict(operator: Operator, bucket: str, key: str) -> tuple[str, int]:
    said = operator.s4("verify-sidecar", f"{bucket}/{key}", json=True)
    return said.report["verdict"], said.status


def read_range(gateway: live.Gateway, bucket: str, key: str, span: tuple[int, int]) -> bytes:
    headers = {"Range": f"bytes={span[0]}-{span[1] - 1}"}
    answer = raw.ask(gateway, "GET", raw.path(bucket, key), headers)
    assert answer.status == 206
    return answer.body


def test_verify_fresh_multipart(operator: Operator, multipart: bytes, shared: str, key: str):
    said = operator.s4("verify-sidecar", f"{shared}/{key}")
    assert (said.status, said.text[:2]) == (0, "OK")
    assert f"{shared}/{key}" in said.text


def test_verify_of_what_needs_no_sidecar(operator: Operator, s3: Any, shared: str, key: str):
    for body in (b"", corpus.text(3_000), corpus.noise(2 * MIB)):
        s3.put_object(Bucket=shared, Key=key, Body=body)
        assert verdict(operator, shared, key) == ("MISSING_HARMLESS", 0)


@pytest.fixture(params=["multipart", "put"])
def indexed(request: pytest.FixtureRequest, s3: Any, shared: str, key: str) -> bytes:
    """An object of several frames at (shared, key), assembled from parts or not."""
    if request.param == "multipart":
        body: bytes = request.getfixturevalue("multipart")
        return body
    s3.put_object(Bucket=shared, Key=key, Body=LARGE)
    return LARGE


def test_repair_after_deletion(
    operator: Operator, gateway: live.Gateway, direct: Any, indexed: bytes, shared: str, key: str
):
    written = sidecar(direct, shared, key)
    assert written is not None
    direct.delete_object(Bucket=shared, Key=keys.sidecar_key(key))
    assert verdict(operator, shared, key) == ("MISSING_DIVERGENT", 1)
    said = operator.s4("repair-sidecar", f"{shared}/{key}", json=True)
    assert (said.status, said.report["action"]) == (0, "rebuilt")
    assert said.report["original_size"] == len(indexed)
    repaired = sidecar(direct, shared, key)
    assert repaired is not None
    assert list(FrameIndex.decode(repaired)) == list(FrameIndex.decode(written))
    assert verdict(operator, shared, key) == ("OK", 0)
    span = (len(indexed) // 2, len(indexed) // 2 + 70_000)
    assert read_range(gateway, shared, key, span) == indexed[slice(*span)]


def test_stale_overwrite(
    operator: Operator, gateway: live.Gateway, direct: Any, s3: Any, shared: str, key: str
):
    """Something that knows no sidecars replaced the stored object: a restore, another tool."""
    other = corpus.log(7 * MIB, seed=5)
    s3.put_object(Bucket=shared, Key=f"{key}.other", Body=other)
    s3.put_object(Bucket=shared, Key=key, Body=LARGE)
    source = {"Bucket": shared, "Key": f"{key}.other"}
    direct.copy_object(Bucket=shared, Key=key, CopySource=source)
    found, status = verdict(operator, shared, key)
    assert (found in {"STALE_ETAG", "STALE_SIZE"}, status) == (True, 1)
    assert read_range(gateway, shared, key, (5 * MIB, 6 * MIB)) == other[5 * MIB : 6 * MIB]
    assert operator.s4("repair-sidecar", f"{shared}/{key}").status == 0
    assert verdict(operator, shared, key) == ("OK", 0)


def test_a_broken_sidecar_is_told_and_repaired(
    operator: Operator, direct: Any, s3: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=LARGE)
    written = sidecar(direct, shared, key)
    assert written is not None
    for broken, said in ((written[:-5], "DECODE_ERROR"), (written[:-8] + bytes(8), "MISMATCH")):
        direct.put_object(Bucket=shared, Key=keys.sidecar_key(key), Body=broken)
        assert verdict(operator, shared, key) == (said, 1)
    assert operator.s4("repair-sidecar", f"{shared}/{key}").status == 0
    assert sidecar(direct, shared, key) == written


def test_sweep_orphan_and_undecodable_preserved(
    operator: Operator, direct: Any, s3: Any, bucket: str
):
    for name in ("kept", "gone", "overwritten"):
        s3.put_object(Bucket=bucket, Key=f"{name} ä+%2F", Body=LARGE)
    direct.delete_object(Bucket=bucket, Key="gone ä+%2F")
    direct.put_object(Bucket=bucket, Key="overwritten ä+%2F", Body=b"by something else")
    direct.put_object(Bucket=bucket, Key="notes.s4index", Body=b"a client's own file")
    said = operator.s4("sweep-orphan-sidecars", bucket, json=True)
    assert said.status == 1
    kinds = {each["key"]: each["kind"] for each in said.report["orphans"]}
    assert kinds == {
        "gone ä+%2F.s4index": "PairedMissing",
        "overwritten ä+%2F.s4index": "PairedSizeMismatch",
        "notes.s4index": "SidecarUndecodable",
    }
    assert said.report["paired"] == 1
    assert sidecar(direct, bucket, "gone ä+%2F") is not None  # it was a dry run
    said = operator.s4("sweep-orphan-sidecars", bucket, "--delete")
    assert said.status == 0
    assert "deleted: 2" in said.text
    left = {each["Key"] for each in direct.list_objects_v2(Bucket=bucket)["Contents"]}
    assert left == {
        "kept ä+%2F", "kept ä+%2F.s4index", "overwritten ä+%2F", "notes.s4index",
    }  # fmt: skip
    said = operator.s4("sweep-orphan-sidecars", bucket, "--delete", "--delete-undecodable")
    assert said.status == 0
    assert sidecar(direct, bucket, "notes") is None
    assert verdict(operator, bucket, "kept ä+%2F") == ("OK", 0)


def test_race_detection(
    seaweedfs: live.Seaweedfs, tmp_path: Path, direct: Any, s3: Any, shared: str, key: str
):
    """The object is overwritten through the gateway in the moment its new index is written."""
    s3.put_object(Bucket=shared, Key=key, Body=LARGE)
    direct.delete_object(Bucket=shared, Key=keys.sidecar_key(key))
    after = corpus.log(8 * MIB, seed=9)

    def writes_index(request: Request) -> bool:
        return request.method == "PUT" and request.target.endswith(b".s4index")

    async def overwrite_first(exchange: Exchange, ask: meddler.Ask) -> None:
        with contextlib.closing(clients.boto3_client(seaweedfs)) as client:
            client.put_object(Bucket=shared, Key=key, Body=after)
        await exchange.send((await ask()).wire)

    with meddler.between(seaweedfs) as meddling:
        operator = Operator(meddling.endpoint, tmp_path)
        with meddling.misbehaving(overwrite_first, writes_index) as seen:
            said = operator.s4("repair-sidecar", f"{shared}/{key}")
    assert len(seen) == 1
    assert said.status == 1
    assert said.err.startswith("s4: OverwrittenDuringRepair: ")
    assert sidecar(direct, shared, key) is None


def test_a_versioned_bucket_keeps_one_sidecar_for_its_current_version(
    operator: Operator, direct: Any, s3: Any, make_bucket: Callable[..., str], key: str
):
    bucket = make_bucket()
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for seed in (1, 2):
        s3.put_object(Bucket=bucket, Key=key, Body=corpus.log(9 * MIB, seed=seed))
    assert verdict(operator, bucket, key) == ("OK", 0)
    direct.delete_object(Bucket=bucket, Key=keys.sidecar_key(key))
    assert verdict(operator, bucket, key) == ("MISSING_DIVERGENT", 1)
    assert operator.s4("repair-sidecar", f"{bucket}/{key}").status == 0
    assert verdict(operator, bucket, key) == ("OK", 0)
    said = operator.s4("sweep-orphan-sidecars", bucket)
    assert said.status == 0
    assert "versioning is Enabled" in said.text


@pytest.mark.parametrize("command", ["verify-sidecar", "repair-sidecar"])
def test_what_is_not_there_is_one_line(operator: Operator, shared: str, command: str):
    for name in (f"{shared}/no/such/key", "no-such-bucket/key"):
        said = operator.s4(command, name)
        assert (said.status, said.out) == (1, b"")
        assert said.err.startswith("s4: the store: 404")
        assert len(said.err.splitlines()) == 1


def test_what_cannot_be_repaired_names_its_kind(
    operator: Operator, direct: Any, shared: str, key: str
):
    direct.put_object(Bucket=shared, Key=key, Body=b"foreign")
    assert operator.s4("repair-sidecar", f"{shared}/{key}").err.startswith("s4: NotFramed: ")
    direct.put_object(
        Bucket=shared, Key=key, Body=b"S4E6", Metadata={"s4-encrypted": "aes-256-gcm"}
    )
    said = operator.s4("repair-sidecar", f"{shared}/{key}")
    assert said.err.startswith("s4: EncryptedSidecarUnsupported: ")
    direct.put_object(Bucket=shared, Key=key, Body=b"GARBAGE" * 9, Metadata={"s4-framed": "true"})
    said = operator.s4("repair-sidecar", f"{shared}/{key}")
    assert said.err.startswith("s4: FrameScan: ")
    said = operator.s4("repair-sidecar", f"{shared}/{key}", "--max-body-bytes", "10")
    assert said.err.startswith("s4: BodyTooLarge: ")


def test_objects_are_untouched_by_all_of_it(
    operator: Operator, direct: Any, s3: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=LARGE)
    before = direct.head_object(Bucket=shared, Key=key)
    for command in ("verify-sidecar", "repair-sidecar"):
        assert operator.s4(command, f"{shared}/{key}").status == 0
    after = direct.head_object(Bucket=shared, Key=key)
    assert [before[name] for name in ("ETag", "LastModified", "Metadata")] == [
        after[name] for name in ("ETag", "LastModified", "Metadata")
    ]
    with s3.get_object(Bucket=shared, Key=key)["Body"] as body:
        assert hashlib.sha256(body.read()).digest() == hashlib.sha256(LARGE).digest()
