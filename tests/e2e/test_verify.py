"""`s4 verify` over what a gateway wrote: all of it sound, and every damaged object found."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import corpus, live
from tests.e2e.operators import Operator
from tests.e2e.uploads import complete, send_all

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
BODIES = {
    "empty": b"",
    "small": corpus.text(3_000),
    "noise": corpus.noise(700_000),
    "large": corpus.log(9 * MIB),
    "dir/ä+%2F b": corpus.text(200_000),
}
PARTS = {1: corpus.log(6 * MIB, seed=1), 2: corpus.noise(5 * MIB, seed=2), 3: corpus.text(70_000)}


@dataclass(frozen=True, slots=True)
class Filled:
    bucket: str
    operator: Operator


@pytest.fixture
def filled(
    s3: Any, direct: Any, seaweedfs: live.Seaweedfs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filled]:
    """A bucket with an object of each kind."""
    bucket = live.bucket_name()
    direct.create_bucket(Bucket=bucket)
    for key, body in BODIES.items():
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="multipart")["UploadId"]
    complete(
        s3, bucket, "multipart", upload_id, send_all(s3, bucket, "multipart", upload_id, PARTS)
    )
    direct.put_object(Bucket=bucket, Key="foreign", Body=corpus.text(5_000))
    yield Filled(bucket, Operator(seaweedfs, tmp_path_factory.mktemp("operator")))
    live.remove_bucket(direct, bucket)


def test_everything_a_gateway_wrote_is_sound(filled: Filled):
    said = filled.operator.s4("verify", filled.bucket, "--sidecars", json=True)
    report = said.report
    assert said.status == 0, report
    found = {name: count for name, count in report["outcomes"].items() if count}
    assert found == {"sound": len(BODIES) + 1, "foreign": 1}
    assert report["compared"]["etag"] == len(BODIES) + 1
    assert report["original_bytes"] == sum(map(len, [*BODIES.values(), *PARTS.values()]))
    assert set(report["verdicts"]) <= {"OK", "MISSING_HARMLESS"}


def test_a_person_sees_a_table(filled: Filled):
    said = filled.operator.s4("verify", f"{filled.bucket}/dir/")
    assert said.status == 0
    assert f"S4 verify {filled.bucket}/dir/" in said.text
    assert "found: sound 1" in said.text
    said = filled.operator.s4("verify", f"{filled.bucket}/none/")
    assert (said.status, "no objects under" in said.text) == (0, True)


def test_damage_at_random_places_is_found(filled: Filled, direct: Any):
    """One bit of each object, in places of its frames where only a checksum can tell."""
    draw = random.Random(17)
    spans = {
        "small": (28, 900), "noise": (0, 700_000), "large": (28, 300_000),
        "dir/ä+%2F b": (28, 30_000), "multipart": (28, 200_000),
    }  # fmt: skip
    kept = {}
    for key, span in spans.items():
        answer = direct.get_object(Bucket=filled.bucket, Key=key)
        kept[key] = answer["Body"].read(), answer["Metadata"]
        damaged = bytearray(kept[key][0])
        damaged[draw.randrange(*span)] ^= 1 << draw.randrange(8)
        direct.put_object(Bucket=filled.bucket, Key=key, Body=bytes(damaged), Metadata=kept[key][1])
    try:
        said = filled.operator.s4("verify", filled.bucket, json=True)
        table = filled.operator.s4("verify", f"{filled.bucket}/large")
    finally:
        for key, (data, metadata) in kept.items():
            direct.put_object(Bucket=filled.bucket, Key=key, Body=data, Metadata=metadata)
    assert said.status == 1
    assert {each["key"] for each in said.report["findings"]} == set(spans)
    assert {each["outcome"] for each in said.report["findings"]} == {"damaged"}
    assert table.status == 1
    assert "- large [damaged]: " in table.text


def test_a_bucket_that_is_not_there_is_one_line(filled: Filled):
    said = filled.operator.s4("verify", "no-such-bucket")
    assert (said.status, said.out) == (1, b"")
    assert said.err.startswith("s4: the store: 404 NoSuchBucket")
    assert len(said.err.splitlines()) == 1


def test_wrong_credentials_are_one_line_with_advice(filled: Filled, tmp_path: Path):
    store = filled.operator.store
    stranger = live.Endpoint(store.endpoint_url, "stranger", "wrong")
    said = Operator(stranger, tmp_path).s4("verify", filled.bucket)
    assert said.status == 1
    assert "are the credentials those of this store" in said.err
    assert len(said.err.splitlines()) == 1
