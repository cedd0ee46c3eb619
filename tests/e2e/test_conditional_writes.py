"""Conditions on writes and deletions, over http and through two gateways at once.

What the backend must decide is decided by it: two gateway processes know nothing of each other, so
a check made in one of them would let two writers win.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import corpus, live
from tests.conftest import StartGateway
from tests.e2e import meddler, raw
from tests.e2e.meddler import Meddler
from tests.rude_server import Exchange, Request

pytestmark = pytest.mark.e2e

ROUNDS = 6
WRITERS = 64
REFUSED = {409, 412}
BODIES = {
    "small": corpus.text(3000, seed=21),
    "large": corpus.text(300_000, seed=22),
    "noise": corpus.noise(5000, seed=23),
    "empty": b"",
}


@pytest.fixture(scope="module")
def pair(
    seaweedfs: live.Seaweedfs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[live.Gateway, live.Gateway]]:
    """Two gateway processes over one backend."""
    with contextlib.ExitStack() as stack:
        folder = tmp_path_factory.mktemp("pair")
        one, other = (stack.enter_context(live.gateway(seaweedfs, folder)) for _ in range(2))
        yield one, other


def stored(gateway: live.Gateway, target: str, body: bytes) -> str:
    answer = raw.ask(gateway, "PUT", target, None, body)
    assert answer.status == 200
    return answer.headers["etag"]


# --- one client


@pytest.mark.parametrize("body", BODIES)
def test_every_condition_gets_the_status_s3_gives_it(
    body: str, front: live.Gateway, shared: str, key: str
):
    data = BODIES[body]
    wrong = '"0123456789abcdef0123456789abcdef"'
    ok, failed, missing = (200, None), (412, "PreconditionFailed"), (404, "NoSuchKey")
    gone, refused = (204, None), (501, "NotImplemented")
    there, absent = raw.path(shared, f"{key}/there"), raw.path(shared, f"{key}/absent")
    right = stored(front, there, data)
    for method, name, value, on_there, on_absent in (
        ("PUT", "If-Match", right, ok, missing),
        ("PUT", "If-Match", right.strip('"'), ok, missing),
        ("PUT", "If-Match", f"{wrong}, {right}", ok, missing),
        ("PUT", "If-Match", "*", ok, missing),
        ("PUT", "If-Match", wrong, failed, missing),
        ("PUT", "If-Match", f"W/{right}", failed, missing),
        ("PUT", "If-None-Match", "*", failed, ok),
        ("PUT", "If-None-Match", right, failed, ok),
        ("PUT", "If-None-Match", wrong, ok, ok),
        (
            "DELETE",
            "If-Match",
            wrong,
            failed,
            failed,
        ),  # the backend's own opinion of what is absent
        ("DELETE", "If-Match", right, gone, failed),
        ("DELETE", "If-Match", "*", gone, failed),
        ("DELETE", "If-None-Match", "*", refused, refused),
        ("DELETE", "x-amz-if-match-size", "1", refused, refused),
    ):
        sent = data if method == "PUT" else None
        for target, expected in ((there, on_there), (absent, on_absent)):
            answer = raw.ask(front, method, target, {name: value}, sent)
            assert answer.verdict == expected, (method, name, value, target)
            exists = target is there or (method == "PUT" and expected == ok)
            if expected == gone:
                exists = False
            assert raw.ask(front, "HEAD", target).status == (200 if exists else 404)
            if target is absent and exists:
                assert raw.ask(front, "DELETE", target).status == 204
            if target is there and not exists:
                assert stored(front, there, data) == right
    both = {"If-Match": right, "If-None-Match": "*"}
    assert raw.ask(front, "PUT", there, both, data).verdict == refused


def test_a_refused_write_changes_nothing(front: live.Gateway, witness: Any):
    for condition in ({"If-None-Match": "*"}, {"If-Match": '"0"'}):
        for body in BODIES.values():
            assert raw.ask(front, "PUT", witness.target, condition, body).status == 412
    assert raw.ask(front, "DELETE", witness.target, {"If-Match": '"0"'}).status == 412


def test_versioned_buckets_keep_to_conditions_too(
    front: live.Gateway, direct: Any, make_bucket: Callable[..., str]
):
    bucket = make_bucket()
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    target, body = raw.path(bucket, "k"), BODIES["small"]
    assert raw.ask(front, "PUT", target, {"If-None-Match": "*"}, body).status == 200
    assert raw.ask(front, "PUT", target, {"If-None-Match": "*"}, body).status == 412
    etag = raw.ask(front, "HEAD", target).headers["etag"]
    assert raw.ask(front, "PUT", target, {"If-Match": etag}, BODIES["large"]).status == 200
    assert raw.ask(front, "PUT", target, {"If-Match": etag}, body).status == 412
    assert raw.ask(front, "DELETE", target, {"If-Match": etag}).status == 412
    etag = raw.ask(front, "HEAD", target).headers["etag"]
    assert raw.ask(front, "DELETE", target, {"If-Match": etag}).status == 204
    assert raw.ask(front, "PUT", target, {"If-Match": etag}, body).verdict == (404, "NoSuchKey")
    assert raw.ask(front, "PUT", target, {"If-None-Match": "*"}, body).status == 200


# --- races


@pytest.mark.parametrize("body", ["small", "large"])
def test_of_many_creators_exactly_one_wins(
    body: str, pair: tuple[live.Gateway, live.Gateway], shared: str, key: str
):
    suffix = BODIES[body]
    with ThreadPoolExecutor(WRITERS) as pool:
        for number in range(ROUNDS):
            target = raw.path(shared, f"{key}/{number}")
            bodies = [b"%04d %b" % (writer, suffix) for writer in range(WRITERS)]

            def create(writer: int, target: str = target, bodies: list[bytes] = bodies) -> int:
                headers = {"If-None-Match": "*"}
                return raw.ask(pair[writer % 2], "PUT", target, headers, bodies[writer]).status

            statuses = list(pool.map(create, range(WRITERS)))
            assert statuses.count(200) == 1
            assert set(statuses) <= {200} | REFUSED
            for gateway in pair:
                answer = raw.ask(gateway, "GET", target)
                assert (answer.status, answer.body) == (200, bodies[statuses.index(200)])


@pytest.mark.parametrize("body", ["small", "large"])
def test_a_counter_loses_no_increment(
    body: str, pair: tuple[live.Gateway, live.Gateway], shared: str, key: str
):
    target, suffix = raw.path(shared, key), BODIES[body]
    stored(pair[0], target, b"0 " + suffix)

    def increment(writer: int) -> set[int]:
        gateway, lost = pair[writer % 2], set()
        while True:
            read = raw.ask(gateway, "GET", target)
            assert read.status == 200
            following = b"%d %b" % (int(read.body.split(b" ", 1)[0]) + 1, suffix)
            headers = {"If-Match": read.headers["etag"]}
            status = raw.ask(gateway, "PUT", target, headers, following).status
            if status == 200:
                return lost
            lost.add(status)

    with ThreadPoolExecutor(WRITERS if body == "small" else 16) as pool:
        lost = set().union(*pool.map(increment, range(WRITERS)))
    assert lost <= REFUSED
    assert raw.ask(pair[0], "GET", target).body == b"%d %b" % (WRITERS, suffix)


def test_of_many_deleters_exactly_one_wins(
    pair: tuple[live.Gateway, live.Gateway], shared: str, key: str
):
    target = raw.path(shared, key)
    etag = stored(pair[0], target, BODIES["small"])

    def delete(writer: int) -> int:
        return raw.ask(pair[writer % 2], "DELETE", target, {"If-Match": etag}).status

    with ThreadPoolExecutor(WRITERS) as pool:
        statuses = list(pool.map(delete, range(WRITERS)))
    assert statuses.count(204) == 1
    assert set(statuses) <= {204} | REFUSED


def begun(client: Any, bucket: str, key: str, body: bytes) -> dict[str, Any]:
    """What completes an upload of one part that has been sent."""
    named = {"Bucket": bucket, "Key": key}
    named["UploadId"] = client.create_multipart_upload(**named)["UploadId"]
    tag = client.upload_part(**named, PartNumber=1, Body=body)["ETag"]
    return named | {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": tag}]}}


def status_of(call: Callable[..., Any], **arguments: Any) -> int:
    try:
        status: int = call(**arguments)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status


@pytest.mark.parametrize("way", ["complete", "copy"])
def test_completions_and_copies_keep_to_conditions_too(way: str, s3: Any, shared: str, key: str):
    s3.put_object(Bucket=shared, Key=f"{key}/source", Body=BODIES["large"])

    def write(name: str, **condition: str) -> int:
        if way == "complete":
            upload = begun(s3, shared, f"{key}/{name}", BODIES["small"])
            return status_of(s3.complete_multipart_upload, **upload, **condition)
        source = {"Bucket": shared, "Key": f"{key}/source"}
        named = {"Bucket": shared, "Key": f"{key}/{name}", "CopySource": source}
        return status_of(s3.copy_object, **named, **condition)

    assert write("k", IfMatch='"x"') == 404
    assert write("k", IfNoneMatch="*") == 200
    assert write("k", IfNoneMatch="*") == 412
    assert write("k", IfMatch='"x"') == 412
    etag = s3.head_object(Bucket=shared, Key=f"{key}/k")["ETag"]
    assert write("k", IfMatch=etag) == 200
    assert write("k", IfMatch="*") == 200
    s3.put_object(Bucket=shared, Key=f"{key}/k", Body=b"")
    assert write("k", IfMatch=etag) == 412


# --- backends that cannot


def is_conditional(request: Request) -> bool:
    return request.method in {"PUT", "DELETE"} and not {"if-match", "if-none-match"}.isdisjoint(
        request.headers
    )


@pytest.fixture
def meddling(seaweedfs: live.Seaweedfs) -> Iterator[Meddler]:
    with meddler.between(seaweedfs) as between:
        yield between


async def pretend(exchange: Exchange, ask: meddler.Ask) -> None:
    """A condition that does not hold is answered as if it had."""
    answer = await ask()
    if answer.status == 412:
        await exchange.answer(200, headers={"ETag": '"pretended"'})
    else:
        await exchange.send(answer.wire)


def test_a_backend_that_ignores_conditions_is_found_out(
    meddling: Meddler, start_gateway: StartGateway, direct: Any, bucket: str
):
    target = raw.path(bucket, "k")
    with (
        meddling.misbehaving(pretend, is_conditional) as seen,
        start_gateway(backend=meddling.endpoint) as gateway,
    ):
        for headers in ({"If-None-Match": "*"}, {"If-Match": '"x"'}):
            answer = raw.ask(gateway, "PUT", target, headers, b"data")
            assert answer.verdict == (501, "NotImplemented")
            assert "did not refuse" in (answer.field("Message") or "")
        stored(gateway, target, b"data")
        answer = raw.ask(gateway, "DELETE", target, {"If-Match": '"x"'})
        assert answer.verdict == (501, "NotImplemented")
        asked = len(seen)
        assert stored(gateway, target, b"other")
        assert raw.ask(gateway, "PUT", target, {"If-None-Match": "*"}, b"").status == 501
        assert len(seen) == asked  # neither clients nor the gateway itself ask in vain
        assert "conditional writes probed" in gateway.read_log()
    assert all("/.s4mpu/" in request.target.decode() for request in seen)
    listed = direct.list_objects_v2(Bucket=bucket)["Contents"]
    assert [each["Key"] for each in listed] == ["k"]


def test_the_probe_leaves_nothing_in_a_versioned_bucket(
    start_gateway: StartGateway, direct: Any, make_bucket: Callable[..., str]
):
    bucket = make_bucket()
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with start_gateway() as gateway:
        headers = {"If-None-Match": "*"}
        assert raw.ask(gateway, "PUT", raw.path(bucket, "k"), headers, b"x").status == 200
    listed = direct.list_object_versions(Bucket=bucket)
    assert [each["Key"] for each in listed["Versions"]] == ["k"]
    assert not listed.get("DeleteMarkers")


@pytest.mark.parametrize("how", ["flag", "environment", "file"])
def test_an_operator_says_that_there_are_no_conditional_writes(
    how: str, start_gateway: StartGateway, tmp_path: Path, shared: str, meddling: Meddler
):
    word = "no-conditional-writes"
    file = tmp_path / "s4.toml"
    file.write_text(f'backend-profile = "{word}"\n')
    flags, env = {
        "flag": (("--backend-profile", word), {}),
        "environment": ((), {"S4_BACKEND_PROFILE": word}),
        "file": (("--config", str(file)), {}),
    }[how]
    target = raw.path(shared, uuid.uuid4().hex)
    with (
        meddling.misbehaving(pretend, is_conditional) as seen,
        start_gateway(*flags, env=env, backend=meddling.endpoint) as gateway,
    ):
        answer = raw.ask(gateway, "PUT", target, {"If-None-Match": "*"}, b"data")
        assert answer.verdict == (501, "NotImplemented")
        assert word in (answer.field("Message") or "")
        for body in (b"first", b"second", BODIES["large"]):
            stored(gateway, target, body)
        assert raw.ask(gateway, "GET", target).body == BODIES["large"]
        assert seen == []


# --- what uploads carry


@pytest.mark.parametrize(
    ("word", "header"),
    [
        ("none", None),
        ("md5", "content-md5"),
        ("crc32", "x-amz-checksum-crc32"),
        ("crc32c", "x-amz-checksum-crc32c"),
        ("crc64nvme", "x-amz-checksum-crc64nvme"),
    ],
)
def test_uploads_carry_the_checksum_of_the_profile(
    word: str, header: str | None, meddling: Meddler, start_gateway: StartGateway, shared: str
):
    async def relay(exchange: Exchange, ask: meddler.Ask) -> None:
        await exchange.send((await ask()).wire)

    profile = f"conditional-writes,checksums={word}"
    bodies = {"text": corpus.text(9_000_000, seed=31), "noise": corpus.noise(400_000, seed=32)}
    with start_gateway("--backend-profile", profile, backend=meddling.endpoint) as gateway:
        for name, body in bodies.items():
            target = raw.path(shared, f"{uuid.uuid4().hex}/{name}")
            with meddling.misbehaving(relay, lambda request: request.method == "PUT") as seen:
                stored(gateway, target, body)
            assert raw.ask(gateway, "GET", target).body == body
            sent = next(each for each in seen if not each.target.endswith(b".s4index"))
            found = {
                name: text
                for name, text in sent.headers.items()
                if name.startswith(("content-md5", "x-amz-checksum-"))
            }
            assert set(found) == ({header} if header else set())
            if header and header.startswith("x-amz"):
                assert found[header] == raw.checksum(word, sent.body)
