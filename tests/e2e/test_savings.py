"""`s4 savings` as operators run it: the ledger of a live gateway, and the bucket it tells of."""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from s4gateway.state import ledger
from s4gateway.state.ledger import Counters
from tests import clients, corpus, live
from tests.e2e import metering
from tests.e2e.operators import Operator, Said

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
KIB = 1024


@dataclass(frozen=True, slots=True)
class Counted:
    """A gateway with its ledger on, a client of it, and the store behind it."""

    gateway: live.Gateway
    s3: Any
    store: live.Endpoint
    state: Path

    def savings(self, *arguments: str, json: bool = False, status: int = 0) -> Said:
        """Run `s4 savings` beside the gateway."""
        said = Operator(self.store, self.state.parent).s4("savings", *arguments, json=json)
        assert said.status == status, said.err
        return said

    def rescan(self, target: str, *arguments: str) -> dict[str, Any]:
        state = ("--state-file", str(self.state))
        return self.savings("--rescan", target, *state, *arguments, json=True).report

    def counters(self, bucket: str) -> Counters:
        totals = ledger.load(self.state)
        assert totals is not None
        return totals.get(bucket, ledger.EMPTY)


@pytest.fixture(scope="module")
def counted(
    seaweedfs: live.Seaweedfs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Counted]:
    folder = tmp_path_factory.mktemp("counted")
    state = folder / "ledger.json"
    with (
        live.gateway(seaweedfs, folder, "--savings-ledger-state-file", str(state)) as gateway,
        contextlib.closing(clients.boto3_client(gateway)) as s3,
    ):
        yield Counted(gateway, s3, seaweedfs, state)


def agreed(report: dict[str, Any]) -> None:
    assert report["difference"] == {"original_bytes": 0, "stored_bytes": 0, "objects": 0}
    assert report["failed"] == 0


def churn(s3: Any, bucket: str) -> int:
    """Objects of every kind; returns the bytes clients see in what is there at the end."""
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    s3.put_object(Bucket=bucket, Key="small", Body=corpus.text(30_000))
    s3.put_object(Bucket=bucket, Key="large", Body=corpus.text(9 * MIB, seed=2))
    s3.put_object(Bucket=bucket, Key="large-1", Body=corpus.text(1000))
    s3.put_object(Bucket=bucket, Key="over", Body=corpus.text(9 * MIB, seed=3))
    s3.put_object(Bucket=bucket, Key="over", Body=corpus.text(2000))
    s3.put_object(Bucket=bucket, Key="gone", Body=corpus.text(6 * MIB))
    s3.delete_object(Bucket=bucket, Key="gone")
    upload = {"Bucket": bucket, "Key": "parts"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    parts = []
    for number, size in ((1, 5 * MIB), (2, 100_000)):
        body = corpus.text(size, seed=number)
        etag = s3.upload_part(**upload, PartNumber=number, Body=body)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "parts"})
    return 30_000 + 9 * MIB + 1000 + 2000 + 2 * (5 * MIB + 100_000)


def test_the_ledger_of_every_kind_of_write_is_what_a_scan_finds(counted: Counted, bucket: str):
    original = churn(counted.s3, bucket)
    found = counted.rescan(bucket)
    agreed(found)
    assert found["measured"]["objects"] == 7
    assert found["measured"]["original_bytes"] == original
    assert found["measured"]["stored_bytes"] < original / 2
    assert found["sidecars"] == 3
    assert found["unaccounted_objects"] == found["unaccounted_sidecars"] == 0
    assert found["ledger"] == {
        "original_bytes": original,
        "stored_bytes": found["measured"]["stored_bytes"],
        "objects": 7,
        "skipped_unaccounted": 0,
    }


def test_every_version_is_in_the_ledger_and_in_the_scan(counted: Counted, bucket: str, direct: Any):
    versions = {"Status": "Enabled"}
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=versions)
    for seed in range(3):
        counted.s3.put_object(Bucket=bucket, Key="k", Body=corpus.text(6 * MIB, seed=seed))
    counted.s3.put_object(Bucket=bucket, Key="k", Body=corpus.text(1000))
    counted.s3.delete_object(Bucket=bucket, Key="k")
    found = counted.rescan(bucket)
    agreed(found)
    assert found["versioning"] == "Enabled"
    assert found["measured"]["objects"] == 4
    assert found["measured"]["original_bytes"] == 18 * MIB + 1000
    assert found["sidecars"] == 3


def test_a_scan_of_many_pages_and_of_a_prefix(counted: Counted, bucket: str, direct: Any):
    names = [f"{'ab'[number % 2]}/{number:04}" for number in range(1010)]
    with ThreadPoolExecutor(16) as pool:
        put = counted.s3.put_object
        list(pool.map(lambda name: put(Bucket=bucket, Key=name, Body=name.encode() * 100), names))
    found = counted.rescan(bucket)
    agreed(found)
    assert (found["measured"]["objects"], found["measured"]["original_bytes"]) == (1010, 606_000)
    part = counted.rescan(f"{bucket}/b/")
    assert (part["measured"]["objects"], part["ledger"]) == (505, None)
    for first in range(0, len(names), 1000):  # faster than one by one afterwards
        batch = [{"Key": name} for name in names[first : first + 1000]]
        direct.delete_objects(Bucket=bucket, Delete={"Objects": batch})


def test_what_was_not_counted_is_told_and_writing_sets_the_ledger_right(
    counted: Counted, bucket: str, direct: Any
):
    counted.s3.put_object(Bucket=bucket, Key="ours", Body=corpus.text(5 * MIB))
    direct.put_object(Bucket=bucket, Key="theirs", Body=b"x" * 1000)
    counted.s3.put_object(Bucket=bucket, Key="lost", Body=corpus.text(50_000))
    direct.delete_object(Bucket=bucket, Key="lost")
    before = counted.rescan(bucket)
    assert before["difference"]["objects"] == -1
    assert before["difference"]["original_bytes"] == -50_000
    assert (before["unaccounted_objects"], before["unaccounted_bytes"]) == (1, 1000)
    assert not before["written"]
    assert counted.rescan(bucket, "--write")["written"]
    agreed(counted.rescan(bucket))
    gauge = f's4_ledger_original_bytes{{bucket="{bucket}"}}'
    _until(lambda: metering.scrape(counted.gateway)[gauge] == 5 * MIB)
    counted.s3.delete_object(Bucket=bucket, Key="ours")
    assert counted.counters(bucket) == ledger.EMPTY


def _until(check: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def test_the_report_tells_what_the_running_gateway_has_saved(counted: Counted, bucket: str):
    counted.s3.put_object(Bucket=bucket, Key="k", Body=corpus.text(4 * MIB))
    said = counted.savings("--state-file", str(counted.state), json=True)
    (row,) = [each for each in said.report["buckets"] if each["bucket"] == bucket]
    assert (row["objects"], row["original_bytes"]) == (1, 4 * MIB)
    stored = counted.counters(bucket).stored_bytes
    assert (row["stored_bytes"], row["saved_bytes"]) == (stored, 4 * MIB - stored)
    table = counted.savings("--state-file", str(counted.state)).text
    assert f"\n{bucket}  " in table
    assert "\nNotes:\n" in table


def test_small_objects_are_billed_as_their_class_does(counted: Counted, bucket: str):
    for number in range(4):
        counted.s3.put_object(Bucket=bucket, Key=f"k{number}", Body=corpus.text(100 * KIB))
    found = counted.rescan(bucket, "--storage-class", "STANDARD_IA")
    assert found["measured"]["saved_bytes"] > 200 * KIB
    assert found["measured"]["billed_stored_bytes"] == {
        "at_least": 4 * 128 * KIB,
        "at_most": 4 * 128 * KIB,
    }
    assert found["measured"]["monthly_savings_usd"] == 0.0


def test_a_bucket_that_is_not_there_is_one_line(counted: Counted):
    err = counted.savings("--rescan", "no-such-bucket-at-all", status=1).err
    assert err.startswith("s4: the store: 404 NoSuchBucket")
    assert err.count("\n") == 1


def test_a_store_that_is_not_there_is_one_line(counted: Counted):
    with live.reserved_port() as port:
        url = f"http://127.0.0.1:{port}"
        err = counted.savings("--rescan", "b", "--endpoint-url", url, status=1).err
    assert err.startswith("s4: the store: ")
    assert err.count("\n") == 1
