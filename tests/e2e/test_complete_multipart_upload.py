"""CompleteMultipartUpload: the object is what its parts are, and nothing is left behind."""

import asyncio
import base64
import concurrent.futures
import hashlib
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError

from s4gateway.s3 import xml
from s4gateway.wire import frame, keys
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.index import FrameIndex
from tests import corpus, live
from tests.conftest import StartGateway
from tests.e2e import meddler, raw, uploads

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
SIZE = 5 * MIB + 4321
LOG = [corpus.log(SIZE, seed=seed) for seed in range(40, 43)]
NOISE = [corpus.noise(SIZE, seed=seed) for seed in range(43, 46)]
UPLOADS: dict[str, dict[int, bytes]] = {
    "empty": {1: b""},
    "byte": {7: b"x"},
    "two": {1: LOG[0], 2: b"the end"},
    "three": {1: NOISE[0], 2: NOISE[1], 3: NOISE[2]},
    "mixed, sparse": {3: LOG[0], 70: NOISE[0], 71: LOG[1], 9_000: NOISE[1], 10_000: LOG[2]},
    "ten": dict(enumerate([*LOG, *NOISE, LOG[0], NOISE[0], LOG[1], b"the end"], 1)),
}


def target(bucket: str, key: str, upload_id: str) -> str:
    return f"{raw.path(bucket, key)}?uploadId={quote(upload_id, safe='')}"


def document(parts: list[dict[str, Any]]) -> bytes:
    inner = "".join(
        f"<Part><ETag>{each['ETag']}</ETag><PartNumber>{each['PartNumber']}</PartNumber></Part>"
        for each in parts
    )
    return f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>".encode()


def refusal(call: Callable[..., Any], *args: Any, **options: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(*args, **options)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def check_stored(direct: Any, bucket: str, key: str, whole: bytes) -> bytes:
    """The stored bytes are frames of `whole`, and the sidecar describes exactly them."""
    answer = direct.get_object(Bucket=bucket, Key=key)
    with answer["Body"] as stream:
        stored: bytes = stream.read()
    assert uploads.decoded(stored) == whole
    if whole:
        with direct.get_object(Bucket=bucket, Key=keys.sidecar_key(key))["Body"] as stream:
            index = FrameIndex.decode(stream.read())
        assert index.is_bound_to(answer["ETag"], len(stored))
        assert [each.compressed_offset for each in index] == [
            offset for offset, _, _ in frame.walk(stored)
        ]
        assert index.total_original == len(whole)
    return stored


@pytest.mark.parametrize("name", UPLOADS)
def test_the_object_reads_back_byte_for_byte_under_the_etag_of_its_parts(
    name: str, front: live.Gateway, direct: Any, shared: str, key: str, fetch: Any
):
    bodies = UPLOADS[name]
    whole, etag = b"".join(bodies.values()), uploads.whole_etag(bodies.values())
    with uploads.client_of(front) as s3:
        options = {"ContentType": "text/x", "Metadata": {"a": "b"}, "CacheControl": "no-store"}
        upload_id = s3.create_multipart_upload(Bucket=shared, Key=key, **options)["UploadId"]
        parts = uploads.send_all(s3, shared, key, upload_id, bodies)
        answer = uploads.complete(s3, shared, key, upload_id, parts)
        assert (answer["ETag"], answer["Bucket"], answer["Key"]) == (etag, shared, key)
        assert answer["Location"] == f"{front.endpoint_url}/{shared}/{key}"
        head = s3.head_object(Bucket=shared, Key=key)
        assert (head["ContentLength"], head["ETag"]) == (len(whole), etag)
        assert (head["ContentType"], head["Metadata"], head["CacheControl"]) == (
            "text/x",
            {"a": "b"},
            "no-store",
        )
        [listed] = s3.list_objects_v2(Bucket=shared, Prefix=key)["Contents"]
        assert (listed["Size"], listed["ETag"]) == (len(whole), etag)
    assert fetch(shared, key) == whole
    middle = len(whole) // 2
    if middle > 5:
        got = fetch(shared, key, Range=f"bytes={middle - 5}-{middle + 5}")
        assert got == whole[middle - 5 : middle + 6]
    check_stored(direct, shared, key, whole)
    assert uploads.records(direct, shared, upload_id) == ["completion"]


def test_parts_of_logs_store_like_one_put_of_them(s3: Any, direct: Any, shared: str, key: str):
    bodies = {number: corpus.log(5 * MIB, seed=number) for number in range(1, 9)}
    upload_id = s3.create_multipart_upload(Bucket=shared, Key=key)["UploadId"]
    parts = uploads.send_all(s3, shared, key, upload_id, bodies)
    uploads.complete(s3, shared, key, upload_id, parts)
    s3.put_object(Bucket=shared, Key=f"{key}.once", Body=b"".join(bodies.values()))
    whole = direct.head_object(Bucket=shared, Key=f"{key}.once")["ContentLength"]
    assert direct.head_object(Bucket=shared, Key=key)["ContentLength"] < whole * 1.05
    assert whole < 8 * 5 * MIB / 3


def test_parts_sent_through_one_process_are_completed_by_another(
    s3: Any, start_gateway: StartGateway, direct: Any, shared: str, key: str, fetch: Any
):
    bodies = UPLOADS["mixed, sparse"]
    upload_id = s3.create_multipart_upload(Bucket=shared, Key=key)["UploadId"]
    half = uploads.send_all(s3, shared, key, upload_id, dict(list(bodies.items())[:3]))
    with start_gateway() as other, uploads.client_of(other) as second:
        rest = uploads.send_all(second, shared, key, upload_id, dict(list(bodies.items())[3:]))
        answer = uploads.complete(second, shared, key, upload_id, half + rest)
    assert answer["ETag"] == uploads.whole_etag(bodies.values())
    assert fetch(shared, key) == b"".join(bodies.values())
    # The one that did not complete it knows that it is done, too.
    again = uploads.complete(s3, shared, key, upload_id, half + rest)
    assert again["ETag"] == answer["ETag"]


def test_of_a_part_sent_again_the_last_counts(s3: Any, shared: str, key: str, fetch: Any):
    upload_id = s3.create_multipart_upload(Bucket=shared, Key=key)["UploadId"]
    stale = uploads.send_all(s3, shared, key, upload_id, {1: LOG[0], 2: NOISE[0], 3: b"old"})
    fresh = uploads.send_all(s3, shared, key, upload_id, {1: NOISE[1], 2: LOG[1], 3: b"new"})
    assert refusal(uploads.complete, s3, shared, key, upload_id, stale) == (400, "InvalidPart")
    uploads.complete(s3, shared, key, upload_id, fresh)
    assert fetch(shared, key) == NOISE[1] + LOG[1] + b"new"


def test_boto3_and_its_transfers_agree_on_the_checksum(
    front: live.Gateway, shared: str, key: str, tmp_path: Any
):
    body = corpus.text(20 * MIB, seed=50)
    path = tmp_path / "body"
    path.write_bytes(body)
    with uploads.client_of(front) as s3:
        for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA256"):
            s3.upload_file(str(path), shared, key, ExtraArgs={"ChecksumAlgorithm": algorithm})
            head = s3.head_object(Bucket=shared, Key=key, ChecksumMode="ENABLED")
            assert f"Checksum{algorithm}" in head, algorithm
            s3.download_file(shared, key, str(tmp_path / "back"))
            assert (tmp_path / "back").read_bytes() == body


def test_a_full_object_checksum_is_computed_and_compared(
    front: live.Gateway, shared: str, key: str
):
    whole = LOG[0] + b"the end"
    value = base64.b64encode(crc32c(whole).to_bytes(4, "big")).decode()
    with uploads.client_of(front) as s3:
        upload_id = s3.create_multipart_upload(
            Bucket=shared, Key=key, ChecksumAlgorithm="CRC32C", ChecksumType="FULL_OBJECT"
        )["UploadId"]
        parts = uploads.send_all(
            s3, shared, key, upload_id, {1: LOG[0], 2: b"the end"}, ChecksumAlgorithm="CRC32C"
        )
        wrong = {"ChecksumCRC32C": "AAAAAA==", "ChecksumType": "FULL_OBJECT"}
        asked = refusal(uploads.complete, s3, shared, key, upload_id, parts, **wrong)
        assert asked == (400, "BadDigest")
        size = refusal(uploads.complete, s3, shared, key, upload_id, parts, MpuObjectSize=1)
        assert size == (400, "InvalidRequest")
        answer = uploads.complete(
            s3,
            shared,
            key,
            upload_id,
            parts,
            ChecksumCRC32C=value,
            ChecksumType="FULL_OBJECT",
            MpuObjectSize=len(whole),
        )
        assert (answer["ChecksumCRC32C"], answer["ChecksumType"]) == (value, "FULL_OBJECT")


def test_what_s3_refuses_is_refused_in_its_words(s3: Any, direct: Any, shared: str, key: str):
    bodies = {1: LOG[0], 2: LOG[1][: 5 * MIB - 1], 3: b"the end"}
    with uploads.begun(s3, shared, key) as upload_id:
        parts = uploads.send_all(s3, shared, key, upload_id, bodies)

        def asked(*chosen: dict[str, Any]) -> tuple[int, str]:
            return refusal(uploads.complete, s3, shared, key, upload_id, list(chosen))

        one, small, last = parts
        assert asked(*parts) == (400, "EntityTooSmall")
        assert asked(last, one) == (400, "InvalidPartOrder")
        assert asked(one, last | {"ETag": one["ETag"]}) == (400, "InvalidPart")
        assert asked(one, last | {"PartNumber": 4}) == (400, "InvalidPart")
        assert asked(one | {"PartNumber": 0}) == (400, "InvalidPart")
        assert asked(one | {"PartNumber": 10_001}) == (400, "InvalidPart")
        assert asked() == (400, "MalformedXML")
        nothing = refusal(s3.complete_multipart_upload, Bucket=shared, Key=key, UploadId=upload_id)
        assert nothing == (400, "MalformedXML")
        other = refusal(uploads.complete, s3, shared, f"{key}.other", upload_id, [one])
        assert other == (404, "NoSuchUpload")
        missing = refusal(direct.head_object, Bucket=shared, Key=key)
        assert missing == (404, "404")
        answer = uploads.complete(s3, shared, key, upload_id, [one, small])
        assert answer["ETag"] == uploads.whole_etag([bodies[1], bodies[2]])
    unknown = refusal(uploads.complete, s3, shared, key, "unknown", [one])
    assert unknown == (404, "NoSuchUpload")


def test_documents_that_are_none_are_malformed(
    gateway: live.Gateway, s3: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as upload_id:
        where = target(shared, key, upload_id)
        good = document(uploads.send_all(s3, shared, key, upload_id, {1: b"x"}))
        for body in (b"{}", good[:-5], b"<!DOCTYPE a []>" + good, b"<a>" * 100_000, b"\x00"):
            answer = raw.ask(gateway, "POST", where, {}, body)
            assert (answer.status, xml.parse(answer.body).findtext("Code")) == (
                400,
                "MalformedXML",
            ), body[:40]
        long = raw.ask(gateway, "POST", where, {}, b" " * (9 * MIB))
        assert long.status == 400
        assert raw.ask(gateway, "POST", where, {}, good).status == 200


def test_ten_thousand_parts_may_be_named(gateway: live.Gateway, s3: Any, shared: str, key: str):
    with uploads.begun(s3, shared, key) as upload_id:
        named = [{"PartNumber": each, "ETag": "0" * 32} for each in range(1, 10_001)]
        where = target(shared, key, upload_id)
        answer = raw.ask(gateway, "POST", where, {}, document(named))
        assert xml.parse(answer.body).findtext("Code") == "InvalidPart"
        more = document([*named, {"PartNumber": 10_001, "ETag": "0" * 32}])
        answer = raw.ask(gateway, "POST", where, {}, more)
        assert xml.parse(answer.body).findtext("Code") == "MalformedXML"


def test_conditions_are_about_what_clients_see(s3: Any, shared: str, key: str, fetch: Any):
    def attempt(body: bytes, **conditions: str) -> str:
        with uploads.begun(s3, shared, key) as upload_id:
            parts = uploads.send_all(s3, shared, key, upload_id, {1: body})
            answer = uploads.complete(s3, shared, key, upload_id, parts, **conditions)
            repeated = uploads.complete(s3, shared, key, upload_id, parts, **conditions)
            assert repeated["ETag"] == answer["ETag"]
            return str(answer["ETag"])

    assert refusal(attempt, b"no", IfMatch='"none"') == (404, "NoSuchKey")
    first = attempt(LOG[0], IfNoneMatch="*")
    assert refusal(attempt, b"no", IfNoneMatch="*") == (412, "PreconditionFailed")
    assert refusal(attempt, b"no", IfMatch='"none"') == (412, "PreconditionFailed")
    second = attempt(LOG[1], IfMatch=first)
    assert refusal(attempt, b"no", IfMatch=first) == (412, "PreconditionFailed")
    assert fetch(shared, key) == LOG[1]
    assert second != first


def test_of_many_who_complete_if_nothing_is_there_one_wins(
    s3: Any, start_gateway: StartGateway, direct: Any, shared: str, key: str, fetch: Any
):
    with start_gateway() as other, uploads.client_of(other) as second:
        bodies = [corpus.text(3000, seed=60 + each) for each in range(12)]
        begun = []
        for body in bodies:
            upload_id = s3.create_multipart_upload(Bucket=shared, Key=key)["UploadId"]
            parts = uploads.send_all(s3, shared, key, upload_id, {1: body})
            begun.append((upload_id, parts))

        def run(number: int) -> str:
            upload_id, parts = begun[number]
            through = (s3, second)[number % 2]
            try:
                uploads.complete(through, shared, key, upload_id, parts, IfNoneMatch="*")
            except ClientError as error:
                return str(error.response["Error"]["Code"])
            return "won"

        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            outcomes = list(pool.map(run, range(12)))
        assert outcomes.count("won") == 1, outcomes
        assert set(outcomes) <= {"won", "PreconditionFailed", "ConditionalRequestConflict"}
        assert fetch(shared, key) == bodies[outcomes.index("won")]
        for upload_id, _ in begun:
            if uploads.records(direct, shared, upload_id) != ["completion"]:
                s3.abort_multipart_upload(Bucket=shared, Key=key, UploadId=upload_id)


@pytest.mark.parametrize("through", ["one process", "two processes"])
def test_those_who_complete_the_same_upload_at_once_all_succeed(
    through: str,
    s3: Any,
    start_gateway: StartGateway,
    direct: Any,
    shared: str,
    key: str,
    fetch: Any,
):
    bodies = UPLOADS["mixed, sparse"]
    upload_id = s3.create_multipart_upload(Bucket=shared, Key=key)["UploadId"]
    parts = uploads.send_all(s3, shared, key, upload_id, bodies)
    with start_gateway() as other, uploads.client_of(other) as second:
        chosen = (s3, s3) if through == "one process" else (s3, second)

        def run(number: int) -> str:
            answer = uploads.complete(chosen[number % 2], shared, key, upload_id, parts)
            return str(answer["ETag"])

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            etags = set(pool.map(run, range(6)))
    assert etags == {uploads.whole_etag(bodies.values())}
    assert fetch(shared, key) == b"".join(bodies.values())
    check_stored(direct, shared, key, b"".join(bodies.values()))


def test_a_completion_and_an_abort_at_once_leave_an_object_or_nothing(
    s3: Any, seaweedfs: live.Seaweedfs, direct: Any, bucket: str, fetch: Any
):
    bodies = {1: LOG[0], 2: NOISE[0], 3: b"the end"}
    for number in range(6):
        key = f"race-{number}"
        upload_id = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        parts = uploads.send_all(s3, bucket, key, upload_id, bodies)

        def abort(key: str = key, upload_id: str = upload_id, wait: float = number * 0.02) -> None:
            time.sleep(wait)
            s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            completing = pool.submit(uploads.complete, s3, bucket, key, upload_id, parts)
            aborting = pool.submit(abort)
            failures = [each.exception() for each in (completing, aborting)]
        if failures[0] is None:
            assert fetch(bucket, key) == b"".join(bodies.values())
        else:
            assert isinstance(failures[0], ClientError)
            assert failures[0].response["Error"]["Code"] in {"NoSuchUpload", "InvalidPart"}
            assert refusal(direct.head_object, Bucket=bucket, Key=key)[0] == 404
    uploads.collect(seaweedfs, bucket)
    left = direct.list_objects_v2(Bucket=bucket).get("Contents", ())
    assert [each["Key"] for each in left if each["Key"].startswith(".s4mpu/")] == []


def test_a_part_sent_again_meanwhile_never_mixes(s3: Any, shared: str, key: str, fetch: Any):
    for number in range(6):
        name = f"{key}-{number}"
        upload_id = s3.create_multipart_upload(Bucket=shared, Key=name)["UploadId"]
        bodies = {1: LOG[0], 2: NOISE[0], 3: b"the end"}
        parts = uploads.send_all(s3, shared, name, upload_id, bodies)
        again = {1: NOISE[1]} if number % 2 else {2: LOG[1]}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            completing = pool.submit(uploads.complete, s3, shared, name, upload_id, parts)
            pool.submit(uploads.send_all, s3, shared, name, upload_id, again).exception()
            failure = completing.exception()
        if failure is None:
            assert fetch(shared, name) == b"".join(bodies.values())
        else:
            assert isinstance(failure, ClientError)
            assert failure.response["Error"]["Code"] == "InvalidPart"


def test_an_upload_the_gateway_did_not_begin_is_the_stores_own(
    s3: Any, direct: Any, shared: str, key: str, fetch: Any
):
    s3.put_object(Bucket=shared, Key=key, Body=corpus.text(9 * MIB, seed=70))
    upload_id = direct.create_multipart_upload(Bucket=shared, Key=key)["UploadId"]
    parts = uploads.send_all(s3, shared, key, upload_id, {1: NOISE[0], 2: b"end"})
    uploads.complete(s3, shared, key, upload_id, parts)
    assert fetch(shared, key) == NOISE[0] + b"end"
    assert uploads.records(direct, shared, upload_id) == []
    assert "Metadata" not in direct.head_object(Bucket=shared, Key=key) or not any(
        name.startswith("s4-") for name in direct.head_object(Bucket=shared, Key=key)["Metadata"]
    )


def test_versions_of_a_key_are_each_their_own(s3: Any, direct: Any, make_bucket: Any):
    bucket = make_bucket()
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    made = []
    for body in (LOG[0], LOG[1]):
        upload_id = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
        parts = uploads.send_all(s3, bucket, "k", upload_id, {1: body, 2: b"end"})
        answer = uploads.complete(s3, bucket, "k", upload_id, parts)
        again = uploads.complete(s3, bucket, "k", upload_id, parts)
        assert again["VersionId"] == answer["VersionId"]
        made.append((answer["VersionId"], body + b"end"))
    for version, body in made:
        with s3.get_object(Bucket=bucket, Key="k", VersionId=version)["Body"] as stream:
            assert stream.read() == body
        with s3.get_object(Bucket=bucket, Key="k", VersionId=version, Range="bytes=5-9")[
            "Body"
        ] as stream:
            assert stream.read() == body[5:10]
    listed = direct.list_object_versions(Bucket=bucket, Prefix=".s4mpu/")
    names = {each["Key"].rpartition("/")[2] for each in listed.get("Versions", ())}
    assert names == {"completion"}
    assert "DeleteMarkers" not in listed


# --- answers that take their time, and clients that do not wait


@pytest.fixture(scope="module")
def meddling(seaweedfs: live.Seaweedfs) -> Any:
    with meddler.between(seaweedfs) as running:
        yield running


@pytest.fixture(scope="module")
def slow(meddling: meddler.Meddler, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A gateway whose store the test can make slow."""
    with live.gateway(meddling.endpoint, tmp_path_factory.mktemp("slow")) as running:
        yield running


def is_commit(request: Any) -> bool:
    return request.method == "POST" and b"uploadId=" in request.target


def late(seconds: float, *, then: meddler.Rule | None = None) -> meddler.Rule:
    async def rule(exchange: Any, ask: Any) -> None:
        await asyncio.sleep(seconds)
        if then is not None:
            await then(exchange, ask)
        else:
            await exchange.send((await ask()).wire)

    return rule


def test_an_answer_that_takes_long_begins_early_and_stays_alive(
    slow: live.Gateway, meddling: meddler.Meddler, s3: Any, shared: str, key: str, fetch: Any
):
    with uploads.begun(s3, shared, key) as upload_id:
        parts = uploads.send_all(s3, shared, key, upload_id, {1: LOG[0], 2: b"end"})
        with meddling.misbehaving(late(11.0), is_commit):
            answer = raw.ask(slow, "POST", target(shared, key, upload_id), {}, document(parts))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/xml")
    assert "content-length" not in answer.headers
    declaration, _, rest = answer.body.partition(b"\n")
    assert declaration.startswith(b"<?xml")
    assert rest.startswith(b" <CompleteMultipartUploadResult")
    assert xml.parse(answer.body).findtext("ETag") == uploads.whole_etag([LOG[0], b"end"])
    assert fetch(shared, key) == LOG[0] + b"end"


def test_a_failure_that_comes_late_is_an_error_document_that_boto3_raises(
    slow: live.Gateway, meddling: meddler.Meddler, s3: Any, shared: str, key: str
):
    said = b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>"
    rule = late(6.0, then=meddler.say(200, said))
    with uploads.begun(s3, shared, key) as upload_id:
        parts = uploads.send_all(s3, shared, key, upload_id, {1: b"x"})
        with meddling.misbehaving(rule, is_commit), uploads.client_of(slow) as client:
            found = refusal(uploads.complete, client, shared, key, upload_id, parts)
        assert found[1] == "SlowDown"
        uploads.complete(s3, shared, key, upload_id, parts)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (meddler.say(200, b"<Error><Code>InternalError</Code></Error>"), "InternalError"),
        (meddler.say(200, b"<Error><Code>InvalidPart</Code></Error>"), "InvalidPart"),
        (meddler.say(200, b"<html>hello</html>"), "InternalError"),
        (meddler.say(503, b"<Error><Code>SlowDown</Code></Error>"), "SlowDown"),
    ],
    ids=["error", "refusal", "nonsense", "busy"],
)
def test_an_answer_of_the_store_that_is_no_result_is_no_success(  # noqa: PLR0917 - fixtures
    answer: meddler.Rule,
    code: str,
    slow: live.Gateway,
    meddling: meddler.Meddler,
    s3: Any,
    direct: Any,
    shared: str,
    key: str,
):
    with uploads.begun(s3, shared, key) as upload_id:
        parts = uploads.send_all(s3, shared, key, upload_id, {1: b"x"})
        with meddling.misbehaving(answer, is_commit), uploads.client_of(slow) as client:
            assert refusal(uploads.complete, client, shared, key, upload_id, parts)[1] == code
        assert refusal(direct.head_object, Bucket=shared, Key=key)[0] == 404
        with uploads.client_of(slow) as client:
            again = uploads.complete(client, shared, key, upload_id, parts)
        assert again["ETag"] == uploads.whole_etag([b"x"])


@pytest.mark.parametrize("rule", [meddler.reset, meddler.cut_after(10)], ids=["reset", "cut"])
def test_a_lost_answer_of_the_store_is_made_up_for(
    rule: meddler.Rule,
    slow: live.Gateway,
    meddling: meddler.Meddler,
    s3: Any,
    direct: Any,
    shared: str,
    key: str,
):
    upload_id = s3.create_multipart_upload(Bucket=shared, Key=key)["UploadId"]
    parts = uploads.send_all(s3, shared, key, upload_id, {1: LOG[0], 2: b"end"})
    with meddling.misbehaving(rule, is_commit), uploads.client_of(slow) as client:
        answer = uploads.complete(client, shared, key, upload_id, parts)
    assert answer["ETag"] == uploads.whole_etag([LOG[0], b"end"])
    check_stored(direct, shared, key, LOG[0] + b"end")
    assert uploads.records(direct, shared, upload_id) == ["completion"]


def test_a_client_that_leaves_finds_the_work_done(
    slow: live.Gateway, meddling: meddler.Meddler, s3: Any, direct: Any, shared: str, key: str
):
    upload_id = s3.create_multipart_upload(Bucket=shared, Key=key)["UploadId"]
    parts = uploads.send_all(s3, shared, key, upload_id, {1: LOG[0], 2: b"end"})
    where, body = target(shared, key, upload_id), document(parts)
    with meddling.misbehaving(late(1.0), is_commit) as seen:
        with raw.Connection(slow) as connection:
            connection.send(raw.plain(slow, "POST", where, {}, body).wire)
            deadline = time.monotonic() + 120
            while not seen:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        # Gone. Whoever asks again joins what is under way, or is told what came of it.
        answer = raw.ask(slow, "POST", where, {}, body)
        assert answer.status == 200
        assert len(seen) == 1
    assert xml.parse(answer.body).findtext("ETag") == uploads.whole_etag([LOG[0], b"end"])
    check_stored(direct, shared, key, LOG[0] + b"end")
    assert hashlib.md5(LOG[0]).hexdigest() in parts[0]["ETag"]
