"""DeleteObjects: a verdict for each key, sidecars gone with their objects, nothing internal."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

import pytest
from botocore.exceptions import ClientError

from s4gateway.s3 import xml
from tests import corpus, live
from tests.e2e import raw

pytestmark = pytest.mark.e2e

LARGE = corpus.text(5 * 1024 * 1024)
ODD = ["a b", "a+b", "a%2Fb", "é", "日本", "<&>'\"", "tab\there", "\x01ctl", "line\nfeed", "k=:@$"]


def document(*objects: str, quiet: bool = False) -> bytes:
    switch = "<Quiet>true</Quiet>" if quiet else ""
    inner = "".join(f"<Object>{each}</Object>" for each in objects)
    return f"<Delete>{switch}{inner}</Delete>".encode()


def named(key: str, **more: str) -> str:
    text = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in more.items())
    control = "".join(f"&#x{ord(c):x};" if c < " " else escape(c) for c in key)
    return f"<Key>{control}</Key>{text}"


def post(
    endpoint: live.Endpoint, bucket: str, body: bytes, headers: dict[str, str] | None = None
) -> raw.Answer:
    if headers is None:
        headers = {"Content-MD5": base64.b64encode(hashlib.md5(body).digest()).decode()}
    return raw.ask(endpoint, "POST", f"/{bucket}?delete", headers, body)


def verdicts(answer: raw.Answer) -> tuple[list[str], dict[str, str]]:
    """Keys deleted, and the codes of those that were not."""
    assert answer.status == 200, answer.body
    root = xml.parse(answer.body)
    deleted = [each.findtext("Key") or "" for each in root.findall("Deleted")]
    failed = {e.findtext("Key") or "": e.findtext("Code") or "" for e in root.findall("Error")}
    return deleted, failed


def stored(direct: Any, bucket: str) -> list[str]:
    page = direct.list_objects_v2(Bucket=bucket, EncodingType="url")
    return [each["Key"] for each in page.get("Contents", ())]


def test_sidecars_are_gone_with_their_objects_when_the_answer_comes(
    s3: Any, direct: Any, bucket: str
):
    for key in ("d/large", "d/other", "d/small"):
        s3.put_object(Bucket=bucket, Key=key, Body=LARGE if key != "d/small" else b"small")
    assert len(stored(direct, bucket)) == 5
    objects = [{"Key": key} for key in ("d/large", "d/small", "d/never")]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert sorted(each["Key"] for each in answer["Deleted"]) == ["d/large", "d/never", "d/small"]
    assert "Errors" not in answer
    assert stored(direct, bucket) == ["d/other", "d/other.s4index"]
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "d/other"}], "Quiet": True})
    assert stored(direct, bucket) == []


def test_quiet_mode_tells_of_failures_only(front: live.Gateway, s3: Any, bucket: str):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    body = document(named("k"), named("x.s4index"), named(".s4mpu/ab/create"), quiet=True)
    deleted, failed = verdicts(post(front, bucket, body))
    assert deleted == []
    assert failed == {"x.s4index": "InvalidObjectName", ".s4mpu/ab/create": "InvalidObjectName"}


@pytest.mark.parametrize("algorithm", raw.CHECKSUMS)
def test_any_checksum_vouches_for_the_document(gateway: live.Gateway, bucket: str, algorithm: str):
    body = document(named("k"))
    name = f"x-amz-checksum-{algorithm}"
    right = post(gateway, bucket, body, {name: raw.checksum(algorithm, body)})
    assert verdicts(right) == (["k"], {})
    wrong = post(gateway, bucket, body, {name: raw.checksum(algorithm, body + b" ")})
    assert (wrong.status, wrong.code) == (400, "BadDigest")


@pytest.mark.parametrize("mode", [raw.UNSIGNED_CHUNKS_TRAILER, raw.SIGNED_CHUNKS_TRAILER])
@pytest.mark.parametrize("honest", [True, False])
def test_a_trailing_checksum_vouches_for_it_too(
    front: live.Gateway, bucket: str, mode: str, honest: bool
):
    body = document(named("k"))
    value = raw.checksum("crc32", body if honest else body + b" ")
    request = raw.put(
        front, f"/{bucket}?delete", body, mode, trailers={"x-amz-checksum-crc32": value},
        method="POST",
    )  # fmt: skip
    answer = raw.exchange(front, request)
    assert answer.status == (200 if honest else 400), answer.body


def test_a_document_nobody_vouches_for_deletes_nothing(s3: Any, gateway: live.Gateway, bucket: str):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    answer = post(gateway, bucket, document(named("k")), {})
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    assert b"Content-MD5" in answer.body
    wrong = {"Content-MD5": base64.b64encode(b"0" * 16).decode()}
    answer = post(gateway, bucket, document(named("k")), wrong)
    assert (answer.status, answer.code) == (400, "BadDigest")
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == 1


@pytest.mark.parametrize(
    "body",
    [
        document(*(named(f"k{n}") for n in range(1001))),
        document(),
        document("<VersionId>null</VersionId>"),
        document("<Key></Key>"),
        b"<Other/>",
        b"<Delete><Object>",
        b"",
    ],
    ids=["1001 keys", "no keys", "no key", "empty key", "other", "cut", "empty"],
)
def test_a_malformed_document_is_refused(gateway: live.Gateway, bucket: str, body: bytes):
    answer = post(gateway, bucket, body)
    assert (answer.status, answer.code) == (400, "MalformedXML"), answer.body


def test_a_thousand_keys_are_deleted_at_once(s3: Any, gateway: live.Gateway, bucket: str):
    s3.put_object(Bucket=bucket, Key="k0999", Body=b"x")
    body = document(*(named(f"k{n:04}") for n in range(1000)))
    deleted, failed = verdicts(post(gateway, bucket, body))
    assert (len(deleted), failed) == (1000, {})
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_keys_of_all_kinds_are_deleted_and_named_as_they_are(
    front: live.Gateway, s3: Any, bucket: str
):
    for key in ODD:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    deleted, failed = verdicts(post(front, bucket, document(*map(named, ODD))))
    assert (sorted(deleted), failed) == (sorted(ODD), {})
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_an_etag_is_the_one_the_client_knows(front: live.Gateway, s3: Any, bucket: str):
    body = corpus.text(5000)
    for key in ("right", "wrong", "any", "plain"):
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    objects = (
        named("right", ETag=f'"{hashlib.md5(body).hexdigest()}"'),
        named("wrong", ETag='"0123456789abcdef0123456789abcdef"'),
        named("any", ETag="*"),
        named("plain"),
        named("sized", Size="5000"),
    )
    deleted, failed = verdicts(post(front, bucket, document(*objects)))
    assert sorted(deleted) == ["any", "plain", "right"]
    assert failed == {"wrong": "PreconditionFailed", "sized": "NotImplemented"}
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["wrong"]


def test_versions_and_markers_are_deleted_by_name(
    s3: Any, make_bucket: Callable[..., str], direct: Any, fetch: Callable[..., bytes]
):
    bucket = make_bucket()
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    bodies = [LARGE, LARGE[::-1], b"small"]
    ids = [s3.put_object(Bucket=bucket, Key="d/k", Body=b)["VersionId"] for b in bodies]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "d/k"}]})
    (made,) = answer["Deleted"]
    assert made["DeleteMarker"]
    with pytest.raises(ClientError):
        s3.head_object(Bucket=bucket, Key="d/k")
    assert s3.list_objects_v2(Bucket=bucket, Delimiter="/")["KeyCount"] == 0
    marker = {"Key": "d/k", "VersionId": made["DeleteMarkerVersionId"]}
    wanted = {"Key": "d/k", "VersionId": ids[2]}
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [marker, wanted]})
    assert [each["Key"] for each in answer["Deleted"]] == ["d/k", "d/k"]
    assert fetch(bucket, "d/k", Range="bytes=4000000-4999999") == LARGE[::-1][4000000:5000000]
    left = [{"Key": "d/k", "VersionId": each} for each in ids[:2]]
    s3.delete_objects(Bucket=bucket, Delete={"Objects": left})
    page = direct.list_object_versions(Bucket=bucket)
    assert "Versions" not in page
    assert "DeleteMarkers" not in page


def test_a_bucket_that_is_not_there_is_the_backend_s_word(gateway: live.Gateway):
    answer = post(gateway, "nowhere-to-be-found", document(named("k")))
    assert (answer.status, answer.code) == (404, "NoSuchBucket")
