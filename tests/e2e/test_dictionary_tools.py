"""Train, map, watch, rotate, collect: the tools as operators run them, over a real store."""

from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests import clients, events, live
from tests.conftest import StartGateway
from tests.e2e.operators import Operator

pytestmark = pytest.mark.e2e

RETRAIN = "dictionary may be stale; consider retraining (s4 train-dict)"


@pytest.fixture
def operator(seaweedfs: live.Seaweedfs, tmp_path: Path) -> Operator:
    return Operator(seaweedfs, tmp_path)


def put_all(client: Any, bucket: str, prefix: str, bodies: list[bytes]) -> None:
    for number, body in enumerate(bodies):
        client.put_object(Bucket=bucket, Key=f"{prefix}{number:04}", Body=body)


def train(operator: Operator, target: str, *more: str) -> dict[str, Any]:
    said = operator.s4("train-dict", target, "--max-dict-bytes", "8192", *more, json=True)
    assert (said.status, said.err) == (0, "")
    return said.report


def mapping(report: dict[str, Any]) -> str:
    """The value of the flag as it is printed, quotes taken off."""
    name, _, quoted = report["flag"].partition(" ")
    assert name == "--zstd-dict"
    return str(quoted.strip("'"))


def read(client: Any, bucket: str, key: str) -> bytes:
    with client.get_object(Bucket=bucket, Key=key)["Body"] as body:
        data: bytes = body.read()
    return data


def dictionaries_of(direct: Any, bucket: str) -> set[str]:
    listed = direct.list_objects_v2(Bucket=bucket, Prefix=".s4dict/").get("Contents", ())
    return {each["Key"].removeprefix(".s4dict/") for each in listed}


def test_a_trained_dictionary_wins_on_its_kind_and_goes_stale_on_another(
    operator: Operator, direct: Any, bucket: str, start_gateway: StartGateway
):
    put_all(direct, bucket, "good/", events.orders(100))
    report = train(operator, f"{bucket}/good/")
    assert report["held_out"]["win_rate"] > 0.9
    good = mapping(report)
    bad = good.replace("/good/=", "/bad/=")
    with start_gateway("--zstd-dict", good, "--zstd-dict", bad) as gateway:
        url = f"{gateway.endpoint_url}/metrics"
        client = clients.boto3_client(gateway)
        unused = operator.s4("dict-status", "--metrics-url", url)
        assert (unused.status, unused.err) == (0, "")
        matching = events.orders(30, seed=9)
        put_all(client, bucket, "good/new/", matching)
        healthy = operator.s4("dict-status", "--metrics-url", url, json=True)
        put_all(client, bucket, "bad/", events.strangers(20))
        stale = operator.s4("dict-status", "--metrics-url", url)
        assert [read(client, bucket, f"good/new/{each:04}") for each in range(30)] == matching
        client.close()
    assert (healthy.status, healthy.err) == (0, "")
    (status,) = healthy.report["prefixes"]
    assert status["prefix"] == f"{bucket}/good/"
    assert status["win_rate"] > 0.5
    assert 0 < status["dict_ratio"] < 1
    assert status["dict_bytes"] < status["plain_bytes"] < status["original_bytes"]
    assert stale.status == 1
    (warning,) = stale.err.splitlines()
    assert warning.startswith(f"WARN prefix {bucket}/bad/: ")
    assert RETRAIN in warning
    rows = {line.split()[0]: line.endswith("STALE") for line in stale.text.splitlines()[1:3]}
    assert rows == {f"{bucket}/bad/": True, f"{bucket}/good/": False}


def test_objects_written_with_an_old_dictionary_train_the_next_one(
    operator: Operator, direct: Any, bucket: str, start_gateway: StartGateway
):
    put_all(direct, bucket, "raw/", events.orders(60))
    first = train(operator, f"{bucket}/raw/")
    with start_gateway("--zstd-dict", f"{bucket}/stored/={first['dict_id']}") as gateway:
        client = clients.boto3_client(gateway)
        put_all(client, bucket, "stored/", events.orders(60, seed=4))
        client.close()
    codecs = {
        direct.head_object(Bucket=bucket, Key=f"stored/{each:04}")["Metadata"]["s4-codec"]
        for each in range(60)
    }
    assert codecs == {"cpu-zstd-dict"}
    second = train(operator, f"{bucket}/stored/")
    assert (second["samples"], second["decoded_samples"]) == (60, 60)
    assert second["dict_id"] != first["dict_id"]


def test_after_a_rotation_gc_removes_the_old_dictionary_once_no_object_needs_it(
    operator: Operator, direct: Any, bucket: str, start_gateway: StartGateway, tmp_path: Path
):
    put_all(direct, bucket, "samples/", events.orders(80))
    old = train(operator, f"{bucket}/samples/")["dict_id"]
    new = train(operator, f"{bucket}/samples/", "--seed", "7", "--max-samples", "40")["dict_id"]
    bodies = events.orders(8, seed=5)
    for dict_id, prefix in ((old, "a/"), (new, "b/")):
        with start_gateway("--zstd-dict", f"{bucket}/={dict_id}") as gateway:
            client = clients.boto3_client(gateway)
            put_all(client, bucket, prefix, bodies)
            client.close()
    execute = ("dict", "gc", bucket, "--execute", "--older-than", "0s")

    kept = operator.s4(*execute, json=True)
    assert (kept.status, kept.err) == (0, "")
    assert kept.report["deleted"] == 0
    assert dictionaries_of(direct, bucket) == {old, new}

    exported = operator.s4("dict", "export", bucket, old, "--to", str(tmp_path))
    assert (exported.status, exported.err) == (0, "")
    stored = read(direct, bucket, "a/0000")
    shared = zstandard.ZstdCompressionDict((tmp_path / f"{old}.dict").read_bytes())
    stock = zstandard.ZstdDecompressor(dict_data=shared)
    assert stock.decompressobj().decompress(stored[28:]) == bodies[0]

    for number in range(len(bodies)):
        direct.delete_object(Bucket=bucket, Key=f"a/{number:04}")
    young = operator.s4("dict", "gc", bucket, "--execute", "--older-than", "1h")
    assert dictionaries_of(direct, bucket) == {old, new}
    assert f"{old}  young" in young.text
    collected = operator.s4(*execute, json=True).report
    assert {each["id"]: each["state"] for each in collected["dictionaries"]} == {
        old: "deleted",
        new: "referenced",
    }
    assert dictionaries_of(direct, bucket) == {new}
    with start_gateway() as gateway:
        client = clients.boto3_client(gateway)
        assert [read(client, bucket, f"b/{each:04}") for each in range(8)] == bodies
        client.close()


def test_a_dictionary_that_only_an_old_version_needs_stays(
    operator: Operator, direct: Any, bucket: str, start_gateway: StartGateway
):
    put_all(direct, bucket, "samples/", events.orders(60))
    dict_id = train(operator, f"{bucket}/samples/")["dict_id"]
    for number in range(60):
        direct.delete_object(Bucket=bucket, Key=f"samples/{number:04}")
    body = events.orders(1, seed=6)[0]
    with start_gateway("--zstd-dict", f"{bucket}/={dict_id}") as gateway:
        client = clients.boto3_client(gateway)
        client.put_object(Bucket=bucket, Key="before", Body=body)
        direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        for key in ("replaced", "deleted"):
            client.put_object(Bucket=bucket, Key=key, Body=body)
        client.close()
    for key in ("before", "replaced"):
        direct.put_object(Bucket=bucket, Key=key, Body=b"x")
    direct.delete_object(Bucket=bucket, Key="deleted")
    execute = ("dict", "gc", bucket, "--execute", "--older-than", "0s")
    report = operator.s4(*execute, json=True).report
    assert [each["references"] for each in report["dictionaries"]] == [3]
    assert (report["versioning"], report["complete"]) == ("Enabled", True)
    for page in direct.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for each in page.get("Versions", ()):
            if not each["IsLatest"]:
                direct.delete_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])
    assert operator.s4(*execute, json=True).report["deleted"] == 1
    assert dictionaries_of(direct, bucket) == set()
    direct.delete_object(Bucket=bucket, Key=f".s4dict/{dict_id}", VersionId="null")
