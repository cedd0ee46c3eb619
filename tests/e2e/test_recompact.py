"""`s4 recompact` over what gateways stored, on a real store."""

import contextlib
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

QUICKLY = ("--target-zstd-level", "9")


@pytest.fixture
def operator(seaweedfs: live.Seaweedfs, tmp_path: Path) -> Operator:
    return Operator(seaweedfs, tmp_path)


def test_everything_becomes_smaller_and_reads_back_the_same(
    operator: Operator,
    bucket: str,
    direct: Any,
    s3: Any,
    fetch: Callable[..., bytes],
    tmp_path: Path,
):
    bodies = {"text": corpus.text(200_000), "large": corpus.log(6 * MIB)}
    for key, body in bodies.items():
        s3.put_object(Bucket=bucket, Key=key, Body=body, Tagging="a=1", **DESCRIBED)
    parts = {1: corpus.log(5 * MIB, seed=1), 2: corpus.log(5 * MIB, seed=2), 3: b"the end"}
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    complete(s3, bucket, "parts", upload_id, send_all(s3, bucket, "parts", upload_id, parts))
    bodies["parts"] = b"".join(parts.values())
    seen = {key: s3.head_object(Bucket=bucket, Key=key) for key in bodies}
    sizes = {key: each[2] for key, each in rewriting.times(direct, bucket).items()}
    dry = operator.s4("recompact", f"{bucket}/text", json=True)
    assert (dry.status, dry.report["recompacted"], dry.report["target_zstd_level"]) == (0, 1, 19)
    said = operator.s4("recompact", f"{bucket}/text", "--execute", json=True)
    assert said.report["recompacted_bytes_after"] == dry.report["recompacted_bytes_after"]
    said = operator.s4("recompact", bucket, "--execute", *QUICKLY, json=True)
    assert (said.status, said.report["recompacted"]) == (0, 2), said.report
    for key, body in bodies.items():
        stored = direct.get_object(Bucket=bucket, Key=key)
        assert stored["ContentLength"] < sizes[key]
        assert stored["Metadata"]["s4-zstd-level"] == ("19" if key == "text" else "9")
        assert fetch(bucket, key) == body
        now = s3.head_object(Bucket=bucket, Key=key)
        for name in ("ETag", "ContentLength", "ContentType", "Metadata"):
            assert now[name] == seen[key][name], (key, name)
        with stored["Body"] as stream:
            (tmp_path / "stored").write_bytes(stream.read())
        decoded = operator.offline("decode", str(tmp_path / "stored"))
        assert (decoded.status, decoded.out) == (0, body)
    part = s3.get_object(Bucket=bucket, Key="parts", PartNumber=2)
    assert (part["PartsCount"], part["Body"].read()) == (3, parts[2])
    assert operator.s4("verify", bucket, "--sidecars").status == 0
    again = operator.s4("recompact", bucket, "--execute", *QUICKLY, json=True).report
    assert (again["recompacted"], again["skipped_already_compacted"]) == (0, 3)


def test_what_gains_too_little_is_remembered(operator: Operator, bucket: str, s3: Any):
    s3.put_object(Bucket=bucket, Key="key", Body=corpus.text(200_000))
    wanted = ("recompact", bucket, *QUICKLY, "--min-gain-percent", "90", "--state-file", "state")
    reports = [operator.s4(*wanted, "--execute", json=True).report for _ in range(2)]
    assert [each["skipped_insufficient_gain"] for each in reports] == [1, 1]
    assert [each["remembered"] for each in reports] == [0, 1]


def test_a_state_file_of_something_else_is_one_line(operator: Operator, bucket: str):
    (operator.folder / "state").write_bytes(b"precious notes" * 100)
    said = operator.s4("recompact", bucket, "--state-file", "state")
    assert (said.status, said.out) == (1, b"")
    assert said.err == "s4: state: is no file of this tool\n"


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
    seaweedfs: live.Seaweedfs,
    gateway: live.Gateway,
    s3: Any,
    fetch: Callable[..., bytes],
    objects: int,
):
    """Each key has a writer, through the gateway or past it, while recompact replaces objects."""
    keys = [f"key-{number:04}" for number in range(objects)]
    bodies = {key: rewriting.signed_body(key, 0, 20_000) for key in keys}
    rewriting.fill(s3, bucket, bodies)
    wanted = ("recompact", bucket, "--execute", *QUICKLY, "--min-gain-percent", "0")
    with contextlib.ExitStack() as stack:
        ends = [gateway, seaweedfs, gateway, gateway]
        writing = [stack.enter_context(contextlib.closing(clients.boto3_client(e))) for e in ends]
        with rewriting.Writers(writing, bucket, dict(bodies)) as writers:
            for _ in range(3 if objects == 100 else 1):
                said = operator.s4(*wanted, json=True)
                assert (said.status, said.report["failed"]) == (0, 0), said.report["failures"]
    assert not writers.failures
    assert writers.writes > objects / 2
    for key in keys:
        body = fetch(bucket, key)
        assert rewriting.is_whole(body), key
        assert body == writers.last[key], key
