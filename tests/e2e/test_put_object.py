"""PutObject as every client sends it: payload modes, checksums, headers, metadata, conditions."""

import concurrent.futures
import gzip
import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests import corpus, live
from tests.e2e import raw

pytestmark = pytest.mark.e2e

BODIES = {
    "empty": b"",
    "one-byte": b"x",
    "text-10k": corpus.text(10_000, seed=1),
    "text-300k": corpus.text(300_000, seed=2),
    "noise-100k": corpus.noise(100_000, seed=3),
}
TRAILED = {raw.SIGNED_CHUNKS_TRAILER, raw.UNSIGNED_CHUNKS_TRAILER}
MODES = ("sha256", raw.UNSIGNED, raw.SIGNED_CHUNKS, *sorted(TRAILED))


@pytest.mark.parametrize("http_chunked", [False, True], ids=["length", "http-chunked"])
@pytest.mark.parametrize("mode", MODES)
def test_every_payload_mode_stores_the_body_with_its_md5_as_etag(
    mode: str, http_chunked: bool, front: live.Gateway, shared: str, key: str
):
    for name, body in BODIES.items():
        target = raw.path(shared, f"{key}/{name}")
        trailers = {"x-amz-checksum-crc32": raw.checksum("crc32", body)} if mode in TRAILED else {}
        request = raw.put(front, target, body, mode, trailers=trailers, http_chunked=http_chunked)
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        answer = raw.exchange(front, request)
        assert (answer.status, answer.headers["etag"]) == (200, etag), (name, answer)
        read = raw.ask(front, "GET", target)
        assert (read.status, read.body, read.headers["etag"]) == (200, body, etag), name
        assert "content-encoding" not in read.headers


@pytest.mark.skipif(live.program("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "http-chunked"])
def test_a_body_behind_an_offer_of_http_2_is_stored(
    chunked: bool, gateway: live.Gateway, shared: str, key: str, tmp_path: Path
):
    for name, body in BODIES.items():
        if chunked and not body:
            continue  # curl 7.88 never ends it, without the offer either
        (tmp_path / "body").write_bytes(body)
        target = raw.path(shared, f"{key}/{name}")
        url = gateway.endpoint_url + raw.presign(gateway, "PUT", target)
        framing = ["--header", "Transfer-Encoding: chunked"] if chunked else []
        command = ["curl", "--silent", "--show-error", "--fail-with-body", "--http2", *framing]
        subprocess.run([*command, "--upload-file", tmp_path / "body", url], check=True)
        assert raw.ask(gateway, "GET", target).body == body, name


def test_a_body_that_comes_in_one_byte_pieces_is_stored(
    gateway: live.Gateway, shared: str, key: str
):
    body = corpus.text(500, seed=4)
    target = raw.path(shared, key)
    trailers = {"x-amz-checksum-sha256": raw.checksum("sha256", body)}
    request = raw.put(
        gateway, target, body, raw.SIGNED_CHUNKS_TRAILER, trailers=trailers, chunk_size=100
    )
    with raw.Connection(gateway) as connection:
        connection.send(request.head)
        for byte in b"".join(request.body):
            connection.send(bytes([byte]))
        assert connection.answer().status == 200
    assert raw.ask(gateway, "GET", target).body == body


def test_trailers_ended_the_way_the_documentation_shows_are_taken(
    gateway: live.Gateway, shared: str, key: str
):
    body = b"0123456789" * 20
    trailers = {"x-amz-checksum-crc32c": raw.checksum("crc32c", body)}
    request = raw.put(
        gateway, raw.path(shared, key), body, raw.SIGNED_CHUNKS_TRAILER, trailers=trailers
    )
    value = trailers["x-amz-checksum-crc32c"].encode()
    last = request.body[-1].replace(value + b"\r\n", value + b"\n\r\n")
    length = str(sum(map(len, request.body[:-1])) + len(last))
    request = replace(request, body=(*request.body[:-1], last))
    answer = raw.exchange(gateway, request.with_headers(**{"Content-Length": length}))
    assert answer.status == 200


@pytest.mark.parametrize("size", [2000, 200_000])
@pytest.mark.parametrize("algorithm", raw.CHECKSUMS)
@pytest.mark.parametrize("where", ["header", *sorted(TRAILED)])
def test_a_checksum_is_verified_and_echoed_on_whole_reads_only(
    where: str, algorithm: str, size: int, gateway: live.Gateway, shared: str, key: str
):
    body = corpus.text(size, seed=5)
    target = raw.path(shared, key)
    name, value = f"x-amz-checksum-{algorithm}", raw.checksum(algorithm, body)
    if where == "header":
        answer = raw.ask(gateway, "PUT", target, {name: value}, body)
    else:
        request = raw.put(gateway, target, body, where, trailers={name: value})
        answer = raw.exchange(gateway, request)
    assert answer.status == 200
    assert answer.headers[name] == value
    mode = {"x-amz-checksum-mode": "ENABLED"}
    for method in ("GET", "HEAD"):
        asked = raw.ask(gateway, method, target, mode)
        assert asked.headers[name] == value
        assert asked.headers["x-amz-checksum-type"] == "FULL_OBJECT"
        for headers in ({}, mode | {"Range": "bytes=1-9"}):
            quiet = raw.ask(gateway, method, target, headers)
            assert not [each for each in quiet.headers if each.startswith("x-amz-checksum-")]


def test_boto3_verifies_what_it_reads_with_the_checksum_it_sent(
    s3: Any, s3_https: Any, shared: str, key: str
):
    body = corpus.text(200_000, seed=6)
    for client in (s3, s3_https):
        for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
            client.put_object(Bucket=shared, Key=key, Body=body, ChecksumAlgorithm=algorithm)
            answer = client.get_object(Bucket=shared, Key=key)
            with answer["Body"] as stream:
                assert stream.read() == body  # botocore raises when the checksum does not match
            assert answer[f"Checksum{algorithm}"]
            assert answer["ResponseMetadata"]["HTTPHeaders"]["etag"]


@pytest.mark.parametrize("size", [2000, 200_000])
def test_content_md5_is_taken(size: int, front: live.Gateway, shared: str, key: str):
    body = corpus.text(size, seed=7)
    headers = {"Content-MD5": raw.checksum("md5", body)}
    assert raw.ask(front, "PUT", raw.path(shared, key), headers, body).status == 200


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("aws-chunked", None),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, aws-chunked", "gzip"),
        ("aws-chunked, gzip, br", "gzip,br"),
    ],
)
def test_aws_chunked_is_never_stored_as_an_encoding(
    sent: str, stored: str | None, front: live.Gateway, direct: Any, shared: str, key: str
):
    body = gzip.compress(corpus.text(20_000, seed=8))
    target = raw.path(shared, key)
    request = raw.put(
        front,
        target,
        body,
        raw.UNSIGNED_CHUNKS_TRAILER,
        headers={"Content-Encoding": sent},
        trailers={"x-amz-checksum-crc32": raw.checksum("crc32", body)},
    )
    assert raw.exchange(front, request).status == 200
    for method in ("GET", "HEAD"):
        assert raw.ask(front, method, target).headers.get("content-encoding") == stored
    assert raw.ask(front, "GET", target).body == body
    kept = direct.head_object(Bucket=shared, Key=key).get("ContentEncoding")
    assert (kept or None) == stored


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br", "identity", "x-custom"])
def test_a_clients_own_content_encoding_is_opaque(
    encoding: str, front: live.Gateway, shared: str, key: str
):
    body = corpus.text(150_000, seed=9)  # not encoded at all: nobody looks inside
    target = raw.path(shared, key)
    assert raw.ask(front, "PUT", target, {"Content-Encoding": encoding}, body).status == 200
    for accept in ({}, {"Accept-Encoding": "gzip, zstd, br"}):
        read = raw.ask(front, "GET", target, accept)
        assert (read.body, read.headers["content-encoding"]) == (body, encoding)
        assert read.headers["content-length"] == str(len(body))


SYSTEM = {
    "Cache-Control": "max-age=60, public",
    "Content-Disposition": 'attachment; filename="a b.txt"',
    "Content-Language": "de-CH",
    "Content-Type": "text/x-log; charset=utf-8",
    "Expires": "Wed, 21 Oct 2037 07:28:00 GMT",
}


@pytest.mark.parametrize("size", [5000, 200_000])
def test_system_headers_make_the_round_trip(
    size: int, front: live.Gateway, direct: Any, shared: str, key: str
):
    target = raw.path(shared, key)
    body = corpus.text(size, seed=10)
    more = {
        "x-amz-website-redirect-location": "/elsewhere",
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-tagging": "team=a%20b&tier=1",
    }
    assert raw.ask(front, "PUT", target, SYSTEM | more, body).status == 200
    twin = f"{key}.direct"
    direct.put_object(
        Bucket=shared,
        Key=twin,
        Body=body,
        WebsiteRedirectLocation="/elsewhere",
        StorageClass="STANDARD_IA",
        Tagging="team=a%20b&tier=1",
    )
    like = direct.head_object(Bucket=shared, Key=twin)["ResponseMetadata"]["HTTPHeaders"]
    for method, range_header in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=7-99"})):
        read = raw.ask(front, method, target, range_header)
        assert {name: read.headers.get(name.lower()) for name in SYSTEM} == SYSTEM
        for name in ("x-amz-storage-class", "x-amz-website-redirect-location"):
            assert read.headers.get(name) == like.get(name), name
        if method == "GET":
            assert read.headers.get("x-amz-tagging-count") == like.get("x-amz-tagging-count", "2")
    tags = raw.ask(front, "GET", f"{target}?tagging")
    assert tags.status == 200
    assert b"<Key>team</Key><Value>a b</Value>" in tags.body


@pytest.mark.parametrize("size", [5000, 200_000])
def test_response_parameters_override_headers_on_whole_and_partial_reads(
    size: int, gateway: live.Gateway, shared: str, key: str
):
    target = raw.path(shared, key)
    assert raw.ask(gateway, "PUT", target, SYSTEM, corpus.text(size, seed=10)).status == 200
    query = (
        "response-cache-control=no-cache&response-content-disposition=inline"
        "&response-content-encoding=x-none&response-content-language=fr"
        "&response-content-type=text%2Fplain&response-expires=Thu%2C%2001%20Jan%202026%2000%3A00%3A00%20GMT"
    )
    for headers in ({}, {"Range": "bytes=1-2"}):
        read = raw.ask(gateway, "GET", f"{target}?{query}", headers)
        assert read.status == (206 if headers else 200)
        assert read.headers["cache-control"] == "no-cache"
        assert read.headers["content-disposition"] == "inline"
        assert read.headers["content-encoding"] == "x-none"
        assert read.headers["content-language"] == "fr"
        assert read.headers["content-type"] == "text/plain"
        assert read.headers["expires"] == "Thu, 01 Jan 2026 00:00:00 GMT"


def _metadata(size: int) -> dict[str, str]:
    """Ten entries whose names and values together are `size` bytes."""
    names = [f"name-{number}" for number in range(10)]
    values = [size // 10 - 6] * 9
    values.append(size - sum(values) - sum(map(len, names)))
    return {f"x-amz-meta-{n}": "v" * length for n, length in zip(names, values, strict=True)}


@pytest.mark.parametrize("size", [5000, 200_000])
def test_metadata_of_exactly_2048_bytes_makes_the_round_trip(
    size: int, front: live.Gateway, shared: str, key: str
):
    metadata = _metadata(2048)
    body = corpus.text(size, seed=12)
    target = raw.path(shared, key)
    headers = metadata | {"x-amz-checksum-sha256": raw.checksum("sha256", body)}
    assert raw.ask(front, "PUT", target, headers, body).status == 200
    for method in ("GET", "HEAD"):
        read = raw.ask(front, method, target)
        assert {n: v for n, v in read.headers.items() if n.startswith("x-amz-meta-")} == metadata


def test_metadata_of_2049_bytes_is_refused(gateway: live.Gateway, shared: str, key: str):
    target = raw.path(shared, key)
    answer = raw.ask(gateway, "PUT", target, _metadata(2049), b"x")
    assert answer.verdict == (400, "MetadataTooLarge")
    assert raw.ask(gateway, "HEAD", target).status == 404


@pytest.mark.parametrize(
    "value",
    [
        "grüße".encode().decode("latin-1"),
        "=?UTF-8?B?Z3LDvMOfZQ==?=",
        "Mixed CASE_and-dashes; a=b, c",
        "%20%C3%BC",
        '"quoted"',
    ],
)
def test_metadata_values_come_back_byte_for_byte(
    value: str, front: live.Gateway, shared: str, key: str
):
    target = raw.path(shared, key)
    headers = {"x-amz-meta-value": value, "x-amz-meta-under_score": "1"}
    assert raw.ask(front, "PUT", target, headers, b"x" * 5000).status == 200
    read = raw.ask(front, "GET", target)
    assert read.headers["x-amz-meta-value"] == value
    assert read.headers["x-amz-meta-under_score"] == "1"


@pytest.mark.parametrize("size", [5000, 200_000])
def test_forged_internal_metadata_is_dropped_and_none_is_shown(
    size: int, gateway: live.Gateway, direct: Any, shared: str, key: str
):
    body = corpus.noise(size, seed=13)
    forged = {
        "x-amz-meta-s4-codec": "cpu-zstd",
        "x-amz-meta-s4-original-size": "7",
        "x-amz-meta-s4-compressed-size": "7",
        "x-amz-meta-s4-crc32c": "1",
        "x-amz-meta-s4-framed": "true",
        "x-amz-meta-s4-dict-id": "0011223344556677",
        "x-amz-meta-s4-encrypted": "aes-256-gcm",
        "x-amz-meta-s4-anything": "1",
        "X-AMZ-META-S4-Logical-Etag": "f" * 32,
        "x-amz-meta-mine": "kept",
    }
    target = raw.path(shared, key)
    assert raw.ask(gateway, "PUT", target, forged, body).status == 200
    for method in ("GET", "HEAD"):
        read = raw.ask(gateway, method, target)
        shown = {name for name in read.headers if name.startswith("x-amz-meta-")}
        assert shown == {"x-amz-meta-mine"}
        assert read.headers["etag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert raw.ask(gateway, "GET", target).body == body
    stored = direct.head_object(Bucket=shared, Key=key)["Metadata"]
    assert "s4-anything" not in stored
    assert "s4-dict-id" not in stored


# --- conditions


def _put(gateway: live.Gateway, target: str, body: bytes, **headers: str) -> raw.Answer:
    return raw.ask(
        gateway, "PUT", target, {n.replace("_", "-"): v for n, v in headers.items()}, body
    )


@pytest.mark.parametrize("size", [100, 200_000])
def test_conditional_writes(size: int, front: live.Gateway, shared: str, key: str):
    target = raw.path(shared, key)
    first, second = corpus.text(size, seed=14), corpus.text(size, seed=15)
    assert _put(front, target, first, If_Match='"x"').verdict == (404, "NoSuchKey")
    made = _put(front, target, first, If_None_Match="*")
    assert made.status == 200
    refused = _put(front, target, second, If_None_Match="*")
    assert refused.verdict == (412, "PreconditionFailed")
    refused = _put(front, target, second, If_Match=f'"{"0" * 32}"')
    assert refused.verdict == (412, "PreconditionFailed")
    assert raw.ask(front, "GET", target).body == first
    assert _put(front, target, second, If_Match=made.headers["etag"]).status == 200
    refused = _put(front, target, first, If_Match=made.headers["etag"])
    assert refused.verdict == (412, "PreconditionFailed")
    assert raw.ask(front, "GET", target).body == second
    both = _put(front, target, first, If_None_Match="*", If_Match="*")
    assert both.verdict == (501, "NotImplemented")


@pytest.mark.parametrize("size", [100, 200_000])
def test_a_write_that_must_not_replace_a_certain_body(
    size: int, gateway: live.Gateway, shared: str, key: str
):
    target = raw.path(shared, key)
    first, second = corpus.text(size, seed=14), corpus.text(size, seed=15)
    made = _put(gateway, target, first, If_None_Match='"0", "1"')
    assert made.status == 200
    for tags in (made.headers["etag"], f'"0", W/{made.headers["etag"]}'):
        refused = _put(gateway, target, second, If_None_Match=tags)
        assert refused.verdict == (412, "PreconditionFailed")
    assert raw.ask(gateway, "GET", target).body == first
    assert _put(gateway, target, second, If_None_Match='"0"').status == 200
    assert raw.ask(gateway, "GET", target).body == second


def _race(front: live.Gateway, target: str, bodies: list[bytes], **headers: str) -> int:
    """Send all at once; the index of the only winner."""
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda body: _put(front, target, body, **headers), bodies))
    winners = [number for number, answer in enumerate(answers) if answer.status == 200]
    losers = {answer.verdict for answer in answers if answer.status != 200}
    assert len(winners) == 1, [answer.verdict for answer in answers]
    assert losers <= {(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")}
    return winners[0]


@pytest.mark.parametrize("size", [1000, 100_000])
def test_of_16_concurrent_creators_exactly_one_wins(
    size: int, gateway: live.Gateway, shared: str, key: str
):
    target = raw.path(shared, key)
    bodies = [corpus.text(size, seed=20 + number) for number in range(16)]
    winner = _race(gateway, target, bodies, If_None_Match="*")
    assert raw.ask(gateway, "GET", target).body == bodies[winner]


def test_of_16_concurrent_replacers_exactly_one_wins(gateway: live.Gateway, shared: str, key: str):
    target = raw.path(shared, key)
    made = _put(gateway, target, b"before")
    bodies = [corpus.text(3000, seed=40 + number) for number in range(16)]
    winner = _race(gateway, target, bodies, If_Match=made.headers["etag"])
    assert raw.ask(gateway, "GET", target).body == bodies[winner]


# --- uploads that look like the gateway's own


@pytest.fixture
def ours(gateway: live.Gateway, direct: Any, shared: str, key: str) -> bytes:
    """The stored bytes of a compressed object of several frames."""
    body = corpus.text(3_000_000, seed=16)
    target = raw.path(shared, f"{key}.ours")
    assert raw.ask(gateway, "PUT", target, None, body).status == 200
    with direct.get_object(Bucket=shared, Key=f"{key}.ours")["Body"] as stored:
        data: bytes = stored.read()
    assert data[:4] == b"S4F2"
    assert len(data) < len(body)
    return data


@pytest.mark.parametrize("size", [2_000, 200_000])
@pytest.mark.parametrize("suffix", ["", ".zst", ".gz", ".s4x", ".ndjson.zst"])
def test_bodies_that_look_compressed_come_back_as_they_are(
    suffix: str, size: int, front: live.Gateway, shared: str, key: str
):
    text = corpus.text(size, seed=17)
    look_alikes = {
        "zstd": zstandard.ZstdCompressor().compress(text),
        "gzip": gzip.compress(text),
        "magic": b"S4F2" + text,
        "envelope": b"S4E1" + text,
        "padding": b"S4P1" + text,
        "index": b"S4IX" + text,
    }
    for name, body in look_alikes.items():
        target = raw.path(shared, f"{key}/{name}{suffix}")
        assert raw.ask(front, "PUT", target, None, body).status == 200
        read = raw.ask(front, "GET", target)
        assert (read.status, read.body) == (200, body), name
        part = raw.ask(front, "GET", target, {"Range": "bytes=2-50"})
        assert (part.status, part.body) == (206, body[2:51]), name


def test_one_of_our_stored_objects_uploaded_as_a_file_comes_back_as_it_is(
    ours: bytes, front: live.Gateway, shared: str, key: str
):
    target = raw.path(shared, key)
    assert raw.ask(front, "PUT", target, None, ours).status == 200
    assert raw.ask(front, "GET", target).body == ours
    part = raw.ask(front, "GET", target, {"Range": "bytes=-100"})
    assert part.body == ours[-100:]


def test_one_of_our_stored_objects_put_at_the_backend_without_metadata_is_a_foreign_object(
    ours: bytes, front: live.Gateway, direct: Any, shared: str, key: str
):
    direct.put_object(Bucket=shared, Key=key, Body=ours, ContentType="application/zstd")
    assert raw.ask(front, "GET", raw.path(shared, key)).body == ours


def test_text_is_stored_smaller_and_noise_never_larger_than_it_is(
    gateway: live.Gateway, direct: Any, shared: str, key: str, fetch: Callable[..., bytes]
):
    for name, size, share in (("text", 300_000, 0.5), ("noise", 300_000, 1.0)):
        body = getattr(corpus, name)(size, seed=18)
        raw.ask(gateway, "PUT", raw.path(shared, f"{key}/{name}"), None, body)
        stored = direct.head_object(Bucket=shared, Key=f"{key}/{name}")["ContentLength"]
        assert stored <= share * size
        assert fetch(shared, f"{key}/{name}") == body
