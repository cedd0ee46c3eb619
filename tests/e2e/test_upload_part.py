"""UploadPart: what a client is told, what reaches the store, and what never does."""

import base64
import contextlib
import hashlib
import json
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError

from s4gateway.objects.parts import uniform_size
from s4gateway.wire import keys
from tests import clients, corpus, live
from tests.conftest import StartGateway
from tests.e2e import raw, uploads

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
BODIES = {
    "empty": b"",
    "one-byte": b"x",
    "text-60k": corpus.text(60_000, seed=21),
    "noise-60k": corpus.noise(60_000, seed=22),
    "text-5m": corpus.text(5 * MIB, seed=23),
    "noise-5m": corpus.noise(5 * MIB, seed=24),
    "noise-then-text": corpus.noise(5000, seed=25) + corpus.text(6 * MIB, seed=26),
}
TRAILED = {raw.SIGNED_CHUNKS_TRAILER, raw.UNSIGNED_CHUNKS_TRAILER}
MODES = ("sha256", raw.UNSIGNED, raw.SIGNED_CHUNKS, *sorted(TRAILED))


def part_target(bucket: str, key: str, upload_id: str, number: object) -> str:
    return f"{raw.path(bucket, key)}?partNumber={number}&uploadId={quote(upload_id, safe='')}"


def facts_of(direct: Any, bucket: str, upload_id: str, number: int) -> dict[str, Any]:
    head = direct.head_object(Bucket=bucket, Key=keys.part_key(upload_id, number))
    facts: dict[str, Any] = json.loads(head["Metadata"]["s4-part"])
    return facts


def test_parts_have_the_md5_of_what_was_sent_and_lie_staged_or_direct(
    s3: Any, direct: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as upload_id:
        for number, body in enumerate(BODIES.values(), start=1):
            answer = s3.upload_part(
                Bucket=shared, Key=key, UploadId=upload_id, PartNumber=number, Body=body
            )
            assert answer["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
            assert "VersionId" not in answer
        own = direct.list_parts(Bucket=shared, Key=key, UploadId=upload_id)["Parts"]
        assert [each["PartNumber"] for each in own] == [6]  # noise alone does not shrink
        for number, (name, body) in enumerate(BODIES.items(), start=1):
            facts = facts_of(direct, shared, upload_id, number)
            assert facts["kind"] == ("direct" if name == "noise-5m" else "staged")
            assert (facts["size"], facts["md5"]) == (len(body), hashlib.md5(body).hexdigest())
            if facts["kind"] == "staged":
                stored = uploads.stored_part(direct, shared, upload_id, number)
                assert uploads.decoded(stored) == body
                assert hashlib.md5(stored).hexdigest() == facts["stored_md5"]
                assert len(stored) == facts["stored"] <= len(body) + 28 * (len(body) // MIB + 1)
        assert own[0]["Size"] == facts_of(direct, shared, upload_id, 6)["stored"]


@pytest.mark.parametrize("word", ["crc32c", "crc64nvme", "none"])
def test_parts_become_the_same_object_whatever_checksum_the_store_is_sent(
    word: str, start_gateway: StartGateway, s3: Any, direct: Any, shared: str, key: str
):
    bodies = [BODIES[name] for name in ("text-5m", "noise-5m", "text-5m", "text-60k")]
    with (
        start_gateway("--backend-profile", f"checksums={word}") as other,
        contextlib.closing(clients.boto3_client(other)) as client,
        uploads.begun(client, shared, key) as upload_id,
    ):
        names = {"Bucket": shared, "Key": key, "UploadId": upload_id}
        parts, known = [], []
        for number, body in enumerate(bodies, start=1):
            front = s3 if number == 3 else client  # any gateway may take a part
            answer = front.upload_part(**names, PartNumber=number, Body=body)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            facts = facts_of(direct, shared, upload_id, number)
            assert facts["kind"] == ("direct" if number == 2 else "staged")
            known.append("stored_md5" in facts)
        # Bodies that are encoded at once, such as the last, bring their MD5 along.
        assert known == [word == "none", word == "none", True, True]
        client.complete_multipart_upload(**names, MultipartUpload={"Parts": parts})
        with s3.get_object(Bucket=shared, Key=key)["Body"] as stream:
            assert stream.read() == b"".join(bodies)


@pytest.mark.parametrize("mode", MODES)
def test_every_payload_mode_stores_the_part(
    mode: str, front: live.Gateway, s3: Any, direct: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as upload_id:
        for number, body in enumerate((b"", corpus.text(300_000, seed=3)), start=1):
            trailers = {}
            if mode in TRAILED:
                trailers = {"x-amz-checksum-crc32c": raw.checksum("crc32c", body)}
            target = part_target(shared, key, upload_id, number)
            answer = raw.exchange(front, raw.put(front, target, body, mode, trailers=trailers))
            assert answer.status == 200, answer
            assert answer.headers["etag"] == f'"{hashlib.md5(body).hexdigest()}"'
            for name, value in trailers.items():
                assert answer.headers[name] == value
            assert uploads.decoded(uploads.stored_part(direct, shared, upload_id, number)) == body


@pytest.mark.parametrize("where", ["header", *sorted(TRAILED)])
@pytest.mark.parametrize("algorithm", raw.CHECKSUMS)
def test_a_checksum_is_verified_echoed_and_kept(
    algorithm: str, where: str, gateway: live.Gateway, s3: Any, direct: Any, shared: str, key: str
):
    name = f"x-amz-checksum-{algorithm}"
    with uploads.begun(s3, shared, key, ChecksumAlgorithm=algorithm.upper()) as upload_id:
        for number, size in enumerate((2000, 200_000), start=1):
            body = corpus.text(size, seed=5)
            value = raw.checksum(algorithm, body)
            target = part_target(shared, key, upload_id, number)
            for sent, status in ((raw.checksum(algorithm, b"other"), 400), (value, 200)):
                if where == "header":
                    answer = raw.ask(gateway, "PUT", target, {name: sent}, body)
                else:
                    request = raw.put(gateway, target, body, where, trailers={name: sent})
                    answer = raw.exchange(gateway, request)
                assert answer.status == status
                if status == 400:
                    assert answer.code == "BadDigest"
                    assert f"{number:05d}" not in uploads.records(direct, shared, upload_id)
                else:
                    assert answer.headers[name] == value
            assert facts_of(direct, shared, upload_id, number)["checksums"] == {algorithm: value}


def test_the_declared_algorithm_is_computed_when_the_client_sends_none(
    gateway: live.Gateway, s3: Any, direct: Any, shared: str, key: str
):
    body = corpus.text(100_000, seed=6)
    with uploads.begun(s3, shared, key, ChecksumAlgorithm="SHA256") as upload_id:
        answer = raw.ask(gateway, "PUT", part_target(shared, key, upload_id, 1), body=body)
        assert answer.headers["x-amz-checksum-sha256"] == raw.checksum("sha256", body)
        facts = facts_of(direct, shared, upload_id, 1)
        assert facts["checksums"] == {"sha256": raw.checksum("sha256", body)}
        wrong = {"x-amz-checksum-crc32": raw.checksum("crc32", body)}
        answer = raw.ask(gateway, "PUT", part_target(shared, key, upload_id, 2), wrong, body)
        assert answer.verdict == (400, "InvalidRequest")
    with uploads.begun(s3, shared, key) as upload_id:
        answer = raw.ask(gateway, "PUT", part_target(shared, key, upload_id, 1), body=body)
        assert not [each for each in answer.headers if each.startswith("x-amz-checksum-")]
        assert "checksums" not in facts_of(direct, shared, upload_id, 1)


@pytest.mark.parametrize("number", ["0", "10001", "-1", "one", "", "1.5", "1" * 30, "%D9%A1"])
def test_a_part_number_out_of_range_is_refused(
    number: str, gateway: live.Gateway, s3: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as upload_id:
        answer = raw.ask(gateway, "PUT", part_target(shared, key, upload_id, number), body=b"x")
        assert answer.verdict == (400, "InvalidArgument")


def test_the_last_number_is_taken_and_always_staged(s3: Any, direct: Any, shared: str, key: str):
    with uploads.begun(s3, shared, key) as upload_id:
        body = corpus.noise(6 * MIB, seed=8)
        s3.upload_part(Bucket=shared, Key=key, UploadId=upload_id, PartNumber=10_000, Body=body)
        assert uploads.decoded(uploads.stored_part(direct, shared, upload_id, 10_000)) == body


def test_a_part_without_a_length_is_refused(gateway: live.Gateway, s3: Any, shared: str, key: str):
    with uploads.begun(s3, shared, key) as upload_id:
        target = part_target(shared, key, upload_id, 1)
        request = raw.put(gateway, target, b"body", "sha256", http_chunked=True)
        assert raw.exchange(gateway, request).verdict == (411, "MissingContentLength")


def test_a_part_above_5_gib_is_refused_before_it_is_sent(
    gateway: live.Gateway, s3: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as upload_id:
        target = part_target(shared, key, upload_id, 1)
        request = raw.put(gateway, target, b"", raw.UNSIGNED)
        request = request.with_headers(**{"Content-Length": str(5 * 1024**3 + 1)})
        assert raw.exchange(gateway, request).verdict == (400, "EntityTooLarge")


@pytest.mark.parametrize("upload_id", ["none", "", "x" * 2000, "%C3%BC%20%2B"])
def test_an_upload_that_is_not_there_is_no_such_upload(
    upload_id: str, gateway: live.Gateway, shared: str, key: str
):
    target = f"{raw.path(shared, key)}?partNumber=1&uploadId={upload_id}"
    assert raw.ask(gateway, "PUT", target, body=b"x").verdict == (404, "NoSuchUpload")


def test_an_upload_of_another_key_is_no_such_upload(
    gateway: live.Gateway, s3: Any, direct: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as upload_id:
        target = part_target(shared, f"{key}-other", upload_id, 1)
        assert raw.ask(gateway, "PUT", target, body=b"x").verdict == (404, "NoSuchUpload")
        assert uploads.records(direct, shared, upload_id) == ["create"]


def test_a_part_sent_again_replaces_the_one_before_whatever_its_kind(
    s3: Any, direct: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as upload_id:
        for body, kind in [
            (corpus.noise(6 * MIB, seed=9), "direct"),
            (corpus.text(6 * MIB, seed=9), "staged"),
            (corpus.noise(7 * MIB, seed=10), "direct"),
        ]:
            s3.upload_part(Bucket=shared, Key=key, UploadId=upload_id, PartNumber=3, Body=body)
            facts = facts_of(direct, shared, upload_id, 3)
            assert (facts["kind"], facts["size"]) == (kind, len(body))
            assert uploads.records(direct, shared, upload_id) == ["00003", "create"]


@pytest.mark.parametrize("cut", [1, 70_000, 5_500_000])
def test_a_client_that_dies_leaves_the_part_before_in_place(
    cut: int, gateway: live.Gateway, s3: Any, direct: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as upload_id:
        before = corpus.text(1000, seed=11)
        target = part_target(shared, key, upload_id, 1)
        assert raw.ask(gateway, "PUT", target, body=before).status == 200
        request = raw.put(gateway, target, corpus.noise(6 * MIB, seed=12), raw.UNSIGNED)
        with raw.Connection(gateway) as connection:
            connection.send(request.wire[:cut])
            connection.reset()
        assert uploads.decoded(uploads.stored_part(direct, shared, upload_id, 1)) == before
        assert "Parts" not in direct.list_parts(Bucket=shared, Key=key, UploadId=upload_id)


def test_an_upload_the_gateway_did_not_begin_gets_its_parts_as_they_are(
    s3: Any, direct: Any, shared: str, key: str
):
    with uploads.begun(direct, shared, key) as upload_id:
        parts = [corpus.text(5 * MIB, seed=13), corpus.text(1000, seed=14)]
        for number, body in enumerate(parts, start=1):
            answer = s3.upload_part(
                Bucket=shared, Key=key, UploadId=upload_id, PartNumber=number, Body=body
            )
            assert answer["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        own = direct.list_parts(Bucket=shared, Key=key, UploadId=upload_id)["Parts"]
        assert [each["Size"] for each in own] == [len(body) for body in parts]
        listed = s3.list_parts(Bucket=shared, Key=key, UploadId=upload_id)["Parts"]
        assert [each["Size"] for each in listed] == [len(body) for body in parts]
        assert uploads.records(direct, shared, upload_id) == []


def test_a_customers_own_key_is_not_taken_for_a_part_of_an_upload_without(
    gateway: live.Gateway, s3: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as upload_id:
        secret = bytes(range(32))
        headers = {
            "x-amz-server-side-encryption-customer-algorithm": "AES256",
            "x-amz-server-side-encryption-customer-key": base64.b64encode(secret).decode(),
            "x-amz-server-side-encryption-customer-key-md5": raw.checksum("md5", secret),
        }
        target = part_target(shared, key, upload_id, 1)
        answer = raw.ask(gateway, "PUT", target, headers, b"secret")
        assert answer.verdict == (400, "InvalidRequest")


def test_nothing_internal_is_visible_while_parts_are_staged(s3: Any, shared: str, key: str):
    with uploads.begun(s3, shared, f"visible/{key}") as upload_id:
        s3.upload_part(
            Bucket=shared, Key=f"visible/{key}", UploadId=upload_id, PartNumber=1, Body=b"x"
        )
        names = [each["Key"] for each in s3.list_objects_v2(Bucket=shared).get("Contents", ())]
        assert not [name for name in names if name.startswith(".s4")]
        for name in (keys.create_key(upload_id), keys.part_key(upload_id, 1)):
            with pytest.raises(ClientError) as caught:
                s3.get_object(Bucket=shared, Key=name)
            assert caught.value.response["Error"]["Code"] == "NoSuchKey"


def test_who_may_not_write_at_the_backend_may_not_have_a_part_staged(
    start_gateway: StartGateway, s3: Any, direct: Any, shared: str, key: str
):
    with (
        uploads.begun(s3, shared, key) as upload_id,
        start_gateway("--anonymous", "backend") as server,
    ):
        for size in (100, 300_000):
            target = part_target(shared, key, upload_id, 1)
            request = raw.Request("PUT", target, {"Host": server.netloc}, (bytes(size),))
            request = request.with_headers(**{"Content-Length": str(size)})
            assert raw.exchange(server, request).verdict == (403, "AccessDenied")
        assert uploads.records(direct, shared, upload_id) == ["create"]


def test_equal_parts_are_made_for_a_store_that_wants_them(
    start_gateway: StartGateway, direct: Any, shared: str, key: str
):
    bodies = [corpus.noise(6 * MIB, seed=number) for number in (1, 2)] + [corpus.text(6 * MIB)]
    with start_gateway("--backend-profile", "uniform-parts") as server:
        client = clients.boto3_client(server)
        with contextlib.closing(client), uploads.begun(client, shared, key) as upload_id:
            for number, body in enumerate(bodies, start=1):
                answer = client.upload_part(
                    Bucket=shared, Key=key, UploadId=upload_id, PartNumber=number, Body=body
                )
                assert answer["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
            own = direct.list_parts(Bucket=shared, Key=key, UploadId=upload_id)["Parts"]
            assert [(each["PartNumber"], each["Size"]) for each in own] == [
                (number, uniform_size(6 * MIB)) for number in (1, 2)
            ]
            listed = client.list_parts(Bucket=shared, Key=key, UploadId=upload_id)["Parts"]
            assert [each["Size"] for each in listed] == [6 * MIB] * 3
            kept = uploads.records(direct, shared, upload_id)
            assert kept == ["00001", "00002", "00003", "create", "uniform"]
        assert uploads.records(direct, shared, upload_id) == []
