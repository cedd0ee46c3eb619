"""The state file against the store, byte for byte, while a real gateway is written to.

What the store holds is asked of the store itself: every version of every object that carries the
mark, and every sidecar that does. What clients sent is kept here.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from s4gateway.state import ledger
from tests import clients, corpus, live
from tests.conftest import StartGateway
from tests.e2e import metering, raw

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
NOTHING = (0, 0, 0)
PART = corpus.text(5 * MIB, seed=4)
BODIES = [
    b"",
    b"x",
    corpus.text(3000, seed=1),
    corpus.noise(40_000, seed=2),
    corpus.text(5 * MIB, seed=3),
    corpus.text(9 * MIB, seed=5),
]
KEYS = ("a", "dir/b", "dir/c d+é")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledger") / "state.json"


@pytest.fixture(scope="module")
def counting(
    seaweedfs: live.Seaweedfs, state: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[live.Gateway]:
    """A gateway that keeps a ledger."""
    folder = tmp_path_factory.mktemp("counting")
    with live.gateway(seaweedfs, folder, "--savings-ledger-state-file", str(state)) as server:
        yield server


@pytest.fixture(scope="module")
def ours(counting: live.Gateway) -> Iterator[Any]:
    with contextlib.closing(clients.boto3_client(counting)) as client:
        yield client


def told(state: Path, bucket: str) -> tuple[int, int, int]:
    """Original bytes, stored bytes and objects, as the file says."""
    found = (ledger.load(state) or {}).get(bucket, ledger.EMPTY)
    return found.original_bytes, found.stored_bytes, found.objects


def skipped(state: Path, bucket: str) -> int:
    return (ledger.load(state) or {}).get(bucket, ledger.EMPTY).skipped_unaccounted


def held(direct: Any, bucket: str) -> tuple[int, int]:
    """Stored bytes and number of what carries the mark, versions of all kinds among it."""
    stored = objects = 0
    for page in direct.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for each in page.get("Versions", ()):
            which = {} if each["VersionId"] == "null" else {"VersionId": each["VersionId"]}
            if each["Key"].startswith(".s4mpu/"):
                continue
            if each["VersionId"] == "null" and not each["IsLatest"]:
                which = {"VersionId": "null"}
            head = direct.head_object(Bucket=bucket, Key=each["Key"], **which)
            if head["Metadata"].get("s4-ledger") == "1":
                stored += head["ContentLength"]
                objects += not each["Key"].endswith(".s4index")
    return stored, objects


@dataclass
class Churn:
    """Random writes through the gateway; `sent` has the size of every version a client may read."""

    s3: Any
    bucket: str
    status: str | None
    dice: random.Random
    sent: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def original(self) -> int:
        return sum(self.sent.values())

    def switch(self, status: str) -> None:
        configuration = {"Status": status}
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration=configuration)
        self.status = status

    def stored(self, key: str, answer: dict[str, Any], size: int) -> None:
        self.sent[key, answer.get("VersionId", "null")] = size

    def step(self) -> None:
        key = self.dice.choice(KEYS)
        acts = [self.put, self.put, self.upload, self.copy, self.delete, self.delete_some]
        if self.status is not None:
            acts += [self.delete_version, self.delete_version]
        self.dice.choice(acts)(key)

    def put(self, key: str) -> None:
        body = self.dice.choices(BODIES, [4, 4, 6, 4, 3, 1])[0]
        self.stored(key, self.s3.put_object(Bucket=self.bucket, Key=key, Body=body), len(body))

    def upload(self, key: str) -> None:
        names = {"Bucket": self.bucket, "Key": key}
        upload = self.s3.create_multipart_upload(**names)["UploadId"]
        bodies = [PART] * self.dice.randrange(2) + [self.dice.choice(BODIES[1:4])]
        parts = []
        for number, body in enumerate([*bodies, b"never listed"], 1):
            sent = self.s3.upload_part(**names, UploadId=upload, PartNumber=number, Body=body)
            parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        if self.dice.random() < 0.2:
            self.s3.abort_multipart_upload(**names, UploadId=upload)
            return
        listed = {"Parts": parts[:-1]}
        done = self.s3.complete_multipart_upload(**names, UploadId=upload, MultipartUpload=listed)
        self.stored(key, done, sum(map(len, bodies)))

    def copy(self, key: str) -> None:
        source = self.dice.choice(KEYS)
        replaces = {"MetadataDirective": "REPLACE", "Metadata": {"new": "1"}}
        options = replaces if source == key or self.dice.random() < 0.5 else {}
        try:
            head = self.s3.head_object(Bucket=self.bucket, Key=source)
        except self.s3.exceptions.ClientError:
            return
        where = {"Bucket": self.bucket, "Key": source}
        done = self.s3.copy_object(Bucket=self.bucket, Key=key, CopySource=where, **options)
        self.stored(key, done, head["ContentLength"])

    def delete(self, key: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=key)
        self.gone(key)

    def gone(self, key: str) -> None:
        """A deletion that names no version takes the "null" one away, unless it is kept."""
        if self.status != "Enabled":
            self.sent.pop((key, "null"), None)

    def versions(self) -> list[tuple[str, str]]:
        page = self.s3.list_object_versions(Bucket=self.bucket)
        both = page.get("Versions", []) + page.get("DeleteMarkers", [])
        return [(each["Key"], each["VersionId"]) for each in both]

    def delete_version(self, _: str) -> None:
        versions = self.versions()
        if versions:
            key, version = self.dice.choice(versions)
            self.s3.delete_object(Bucket=self.bucket, Key=key, VersionId=version)
            self.sent.pop((key, version), None)

    def delete_some(self, key: str) -> None:
        doomed: list[dict[str, str]] = [{"Key": key}, {"Key": "never was"}, {"Key": key}]
        versions = self.versions() if self.status is not None else []
        named = self.dice.sample(versions, min(2, len(versions)))
        doomed += [{"Key": name, "VersionId": version} for name, version in named]
        self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": doomed})
        self.gone(key)
        for version in named:
            self.sent.pop(version, None)

    def delete_everything(self) -> None:
        for key, version in self.versions():
            which = {} if version == "null" and self.status is None else {"VersionId": version}
            self.s3.delete_object(Bucket=self.bucket, Key=key, **which)
        self.sent.clear()


@pytest.mark.parametrize("status", [None, "Enabled", "Suspended", "changing"])
def test_after_every_write_the_file_says_what_the_store_holds(
    state: Path, ours: Any, direct: Any, make_bucket: Callable[..., str], status: str | None
):
    bucket = make_bucket()
    churn = Churn(ours, bucket, None, random.Random(f"seed {status}"))
    if status is not None:
        churn.put(KEYS[0])
        churn.switch("Enabled")
    if status == "Suspended":
        churn.put(KEYS[0])
        churn.switch("Suspended")
    for number in range(40):
        if status == "changing" and number % 8 == 7:
            churn.switch("Enabled" if churn.status == "Suspended" else "Suspended")
        churn.step()
        original, stored, objects = told(state, bucket)
        assert (stored, objects) == held(direct, bucket)
        assert (original, objects) == (churn.original, len(churn.sent))
    churn.delete_everything()
    assert told(state, bucket) == NOTHING
    assert skipped(state, bucket) == 0
    assert held(direct, bucket) == (0, 0)


def test_two_gateways_that_write_the_same_keys_take_nothing_away_twice(
    state: Path, counting: live.Gateway, seaweedfs: live.Seaweedfs, direct: Any, bucket: str,
    tmp_path: Path,
):  # fmt: skip
    dice = random.Random(12)
    bodies = [corpus.text(size, seed=size) for size in (0, 10, 2000, 30_000)] + [PART]
    flag = ("--savings-ledger-state-file", str(state))
    with live.gateway(seaweedfs, tmp_path, *flag) as second, contextlib.ExitStack() as stack:
        fronts = [
            stack.enter_context(contextlib.closing(clients.boto3_client(each)))
            for each in (counting, second)
        ]

        def work(number: int) -> None:
            s3, key = fronts[number % 2], f"k{plan[number][0]}"
            body = plan[number][1]
            if body is None:
                s3.delete_object(Bucket=bucket, Key=key)
            else:
                s3.put_object(Bucket=bucket, Key=key, Body=body)

        plan = [
            (dice.randrange(4), dice.choices([None, *bodies], [4, 3, 3, 3, 3, 1])[0])
            for _ in range(300)
        ]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(len(plan))))
        assert told(state, bucket)[1:] == held(direct, bucket)
        sizes = [
            fronts[0].head_object(Bucket=bucket, Key=each["Key"])["ContentLength"]
            for each in fronts[0].list_objects_v2(Bucket=bucket).get("Contents", ())
        ]
        assert told(state, bucket)[0] == sum(sizes)
        for key in range(4):
            fronts[1].delete_object(Bucket=bucket, Key=f"k{key}")
    assert (told(state, bucket), skipped(state, bucket)) == (NOTHING, 0)
    assert held(direct, bucket) == (0, 0)


def test_what_a_lock_keeps_stays_counted(
    state: Path, ours: Any, direct: Any, make_bucket: Callable[..., str]
):
    bucket = make_bucket(ObjectLockEnabledForBucket=True)
    body = BODIES[2]
    until = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": "2099-01-01T00:00:00Z"}
    locked = ours.put_object(Bucket=bucket, Key="locked", Body=body, **until)
    before = told(state, bucket)
    assert before[1:] == held(direct, bucket)
    which = {"Bucket": bucket, "Key": "locked", "VersionId": locked["VersionId"]}
    with pytest.raises(ours.exceptions.ClientError, match="AccessDenied"):
        ours.delete_object(**which)
    refused = ours.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "locked", "VersionId": locked["VersionId"]}]}
    )
    assert [each["Key"] for each in refused["Errors"]] == ["locked"]
    assert told(state, bucket) == before
    ours.delete_object(**which, BypassGovernanceRetention=True)
    assert told(state, bucket) == NOTHING


def test_forms_and_conditional_writes_are_counted_like_any_other_write(
    state: Path, ours: Any, direct: Any, bucket: str
):
    def check(objects: int) -> None:
        assert told(state, bucket)[1:] == held(direct, bucket)
        assert told(state, bucket)[2] == objects

    body, larger = BODIES[2], BODIES[4]
    for file in (body, larger):
        form = ours.generate_presigned_post(bucket, "form")
        sent = httpx.post(
            form["url"], data=form["fields"], files={"file": file}, trust_env=False, timeout=120.0
        )
        assert sent.status_code == 204
        check(1)
    made = ours.put_object(Bucket=bucket, Key="k", Body=body, IfNoneMatch="*")
    check(2)
    ours.put_object(Bucket=bucket, Key="k", Body=larger, IfMatch=made["ETag"])
    check(2)
    for condition in ({"IfNoneMatch": "*"}, {"IfMatch": made["ETag"]}):
        with pytest.raises(ours.exceptions.ClientError, match="PreconditionFailed"):
            ours.put_object(Bucket=bucket, Key="k", Body=b"refused", **condition)
    with pytest.raises(ours.exceptions.ClientError, match="PreconditionFailed"):
        ours.delete_object(Bucket=bucket, Key="k", IfMatch=made["ETag"])
    check(2)
    ours.delete_object(Bucket=bucket, Key="k", IfMatch=f'"{hashlib.md5(larger).hexdigest()}"')
    check(1)
    ours.delete_object(Bucket=bucket, Key="form", IfMatch="*")
    check(0)
    assert told(state, bucket) == NOTHING


def test_a_thousand_keys_go_in_one_request(state: Path, ours: Any, direct: Any, bucket: str):
    names = [f"k{number:04}" for number in range(1000)]
    for name in names[::10]:
        ours.put_object(Bucket=bucket, Key=name, Body=name.encode())
    ours.put_object(Bucket=bucket, Key=names[7], Body=PART)
    direct.put_object(Bucket=bucket, Key=names[5], Body=b"behind our back")
    assert told(state, bucket)[1:] == held(direct, bucket)
    doomed = {"Objects": [{"Key": name} for name in names], "Quiet": True}
    ours.delete_objects(Bucket=bucket, Delete=doomed)
    assert (told(state, bucket), skipped(state, bucket)) == (NOTHING, 1)
    assert direct.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize("ledger", [True, False])
def test_no_client_can_mark_an_object(
    state: Path, counting: live.Gateway, gateway: live.Gateway, direct: Any, bucket: str,
    ledger: bool,
):  # fmt: skip
    front = counting if ledger else gateway
    forged = {"x-amz-meta-s4-ledger": "1", "x-amz-meta-S4-Original-Size": "99999999"}
    body = BODIES[2]
    with contextlib.closing(clients.boto3_client(front)) as s3:
        answer = raw.ask(front, "PUT", raw.path(bucket, "put"), forged, body)
        assert answer.status == 200
        direct.put_object(Bucket=bucket, Key="foreign", Body=b"behind our back")
        metadata = {"S4-Ledger": "1"}
        where = {"Bucket": bucket, "Key": "foreign"}
        s3.copy_object(
            Bucket=bucket, Key="copy", CopySource=where, MetadataDirective="REPLACE",
            Metadata=metadata,
        )  # fmt: skip
        names = {"Bucket": bucket, "Key": "parts"}
        upload = s3.create_multipart_upload(**names, Metadata=metadata)["UploadId"]
        part = s3.upload_part(**names, UploadId=upload, PartNumber=1, Body=body)
        listed = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        s3.complete_multipart_upload(**names, UploadId=upload, MultipartUpload=listed)
        for key in ("put", "copy", "parts"):
            assert "s4-ledger" not in s3.head_object(Bucket=bucket, Key=key)["Metadata"]
    marks = {
        key: direct.head_object(Bucket=bucket, Key=key)["Metadata"].get("s4-ledger")
        for key in ("put", "copy", "parts")
    }
    ours = "1" if ledger else None
    assert marks == {"put": ours, "copy": None, "parts": ours}
    size = direct.head_object(Bucket=bucket, Key="put")["Metadata"]["s4-original-size"]
    assert size == str(len(body))
    if ledger:
        assert told(state, bucket) == (2 * len(body), *held(direct, bucket))


def test_a_bucket_that_was_deleted_behind_our_back_is_written_to_again_when_it_is_back(
    state: Path, ours: Any, direct: Any, bucket: str
):
    ours.put_object(Bucket=bucket, Key="k", Body=BODIES[3])
    before = told(state, bucket)
    direct.delete_object(Bucket=bucket, Key="k")
    direct.delete_bucket(Bucket=bucket)
    for body in (b"small", PART):
        with pytest.raises(ours.exceptions.ClientError, match="NoSuchBucket"):
            ours.put_object(Bucket=bucket, Key="k", Body=body)
    assert told(state, bucket) == before
    direct.create_bucket(Bucket=bucket)
    ours.put_object(Bucket=bucket, Key="k", Body=b"small")
    original, stored, objects = before
    assert told(state, bucket) == (original + 5, stored + 5, objects + 1)


def test_without_the_flag_nothing_is_marked_asked_or_shown(
    start_gateway: StartGateway, direct: Any, bucket: str
):
    with start_gateway() as plain, contextlib.closing(clients.boto3_client(plain)) as s3:
        names = {"Bucket": bucket, "Key": "k"}

        def requests() -> collections.Counter[str]:
            found = metering.settled(plain)
            assert not any(name.startswith(("s4_ledger", "s4_state_file")) for name in found)
            kind = re.compile(r's4_backend_requests_total\{.*verb="(\w+)".*\}')
            asked: collections.Counter[str] = collections.Counter()
            for name, count in found.items():
                if (verb := kind.fullmatch(name)) is not None:
                    asked[verb[1]] += int(count)
            return asked

        def spent(verb: str, **options: Any) -> dict[str, int]:
            before = requests()
            getattr(s3, verb)(**options)
            return dict(requests() - before)

        s3.put_object(Bucket=bucket, Key="first", Body=b"the store is probed once")
        metering.until(lambda: requests()["delete_many"] == 1)  # what may stand beside it goes soon
        assert spent("put_object", **names, Body=BODIES[2]) == {"put": 1}
        assert spent("put_object", **names, Body=BODIES[3]) == {"put": 1}
        assert spent("put_object", **names, Body=BODIES[4]) == {"put": 2}
        copy = {"Bucket": bucket, "Key": "copy", "CopySource": names}
        for directive in ("COPY", "REPLACE"):
            asked = spent("copy_object", **copy, MetadataDirective=directive)
            assert asked == {"head": 1, "forward": 1, "put": 1}
        begun = spent("create_multipart_upload", Bucket=bucket, Key="parts")
        assert begun == {"forward": 1, "put": 1}
        stored = direct.list_objects_v2(Bucket=bucket)["Contents"]
        for each in stored:
            head = direct.head_object(Bucket=bucket, Key=each["Key"])
            assert "s4-ledger" not in head["Metadata"]
        assert spent("delete_object", **names) == {"delete": 2}
