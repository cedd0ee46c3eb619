"""Clients whose request contradicts itself: the exact error, nothing written, the old object kept.

The `witness` fixture compares the backend before and after, so a test only says what was asked and
which answer is due.
"""

import contextlib
import hashlib
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests import clients, corpus, live
from tests.e2e import raw
from tests.e2e.conftest import Witness

pytestmark = pytest.mark.e2e

SIZES = (3_000, 300_000)
TRAILED = (raw.SIGNED_CHUNKS_TRAILER, raw.UNSIGNED_CHUNKS_TRAILER)
SIGNED = (raw.SIGNED_CHUNKS, raw.SIGNED_CHUNKS_TRAILER)


def _body(size: int) -> bytes:
    return corpus.text(size, seed=99)


def _signed_put(gateway: live.Gateway, target: str, size: int = 100, **how: Any) -> raw.Request:
    body = _body(size)
    request = raw.Request("PUT", target, {"Content-Length": str(size)}, (body,))
    return raw.sign(gateway, request, hashlib.sha256(body).hexdigest(), **how)[0]


# --- signatures


@pytest.mark.parametrize(
    ("how", "verdict"),
    [
        ({"secret_key": "not the secret"}, (403, "SignatureDoesNotMatch")),
        ({"access_key": "AKIDUNKNOWN"}, (403, "InvalidAccessKeyId")),
        ({"region": "eu-west-9"}, (400, "AuthorizationHeaderMalformed")),
    ],
)
@pytest.mark.parametrize("size", SIZES)
def test_wrong_credentials(
    how: dict[str, str], verdict: tuple[int, str], size: int, front: live.Gateway, witness: Witness
):
    request = _signed_put(front, witness.target, size, **how)
    assert raw.exchange(front, request).verdict == verdict


@pytest.mark.parametrize("minutes", [-16, 16, -24 * 60, 24 * 60])
def test_a_skewed_clock(minutes: int, gateway: live.Gateway, witness: Witness):
    when = datetime.now(UTC) + timedelta(minutes=minutes)
    answer = raw.exchange(gateway, _signed_put(gateway, witness.target, when=when))
    assert answer.verdict == (403, "RequestTimeTooSkewed")


@pytest.mark.parametrize("minutes", [-14, 14])
def test_a_clock_within_a_quarter_of_an_hour_is_accepted(
    minutes: int, gateway: live.Gateway, witness: Witness
):
    when = datetime.now(UTC) + timedelta(minutes=minutes)
    request, _ = raw.sign(
        gateway, raw.Request("GET", witness.target), hashlib.sha256().hexdigest(), when=when
    )
    assert raw.exchange(gateway, request).status == 200


def test_anonymous_requests_are_refused(front: live.Gateway, witness: Witness):
    for method in ("PUT", "GET", "DELETE"):
        body = (b"x",) if method == "PUT" else ()
        headers = {"Host": front.netloc, "Content-Length": str(len(body))}
        request = raw.Request(method, witness.target, headers, body)
        assert raw.exchange(front, request).verdict == (403, "AccessDenied")


Tamper = Callable[[raw.Request], raw.Request]


@pytest.mark.parametrize(
    "tamper",
    [
        lambda request: replace(request, target=request.target.replace("/old", "/new")),
        lambda request: replace(request, target=request.target.replace("/old", "//old")),
        lambda request: replace(request, target=request.target.replace("/old", "/./old")),
        lambda request: replace(request, target=f"{request.target}?acl"),
        lambda request: replace(request, target=f"{request.target}?versionId=1"),
        lambda request: replace(request, method="DELETE", body=()),
        lambda request: request.with_headers(**{"x-amz-meta-a": "other"}),
        lambda request: request.with_headers(**{"x-amz-meta-a": None}),
        lambda request: request.with_headers(**{"x-amz-meta-b": "added"}),
        lambda request: request.with_headers(host="other.example"),
        lambda request: request.with_headers(
            **{"x-amz-content-sha256": hashlib.sha256(b"other").hexdigest()}
        ),
        lambda request: request.with_headers(**{"x-amz-content-sha256": raw.UNSIGNED}),
    ],
    ids=[
        "key", "double-slash", "dot-segment", "sub-resource", "version", "method",
        "header-changed", "header-removed", "header-added", "host", "payload-hash",
        "payload-unsigned",
    ],
)  # fmt: skip
def test_what_was_signed_cannot_be_changed(tamper: Tamper, front: live.Gateway, witness: Witness):
    body = _body(100)
    request = raw.plain(front, "PUT", witness.target, {"x-amz-meta-a": "1"}, body)
    answer = raw.exchange(front, tamper(request))
    assert answer.status == 403
    assert answer.code in {"SignatureDoesNotMatch", "AccessDenied"}


def test_another_spelling_of_the_same_key_is_no_change(gateway: live.Gateway, witness: Witness):
    request = raw.plain(gateway, "GET", witness.target)
    for target in (
        witness.target.replace("/old", "%2Fold"),
        witness.target.replace("old", "%6fld"),
    ):
        assert raw.exchange(gateway, replace(request, target=target)).body == witness.body


@pytest.mark.parametrize(
    "header",
    [
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=a/b/c,SignedHeaders=host,Signature=0",
        "AWS4-HMAC-SHA256 nonsense",
        "AWS AKID:c2lnbmF0dXJl",
        "Bearer token",
        "",
    ],
)
def test_a_malformed_authorization_header(header: str, gateway: live.Gateway, witness: Witness):
    request = _signed_put(gateway, witness.target).with_headers(Authorization=header)
    answer = raw.exchange(gateway, request)
    assert answer.status in {400, 403}
    assert answer.code


# --- presigned URLs


def _presigned(gateway: live.Gateway, target: str, method: str = "PUT", **how: Any) -> raw.Request:
    body = (_body(100),) if method == "PUT" else ()
    headers = {"Host": gateway.netloc, "Content-Length": str(sum(map(len, body)))}
    return raw.Request(method, raw.presign(gateway, method, target, **how), headers, body)


@pytest.mark.parametrize(
    ("shift", "expires", "verdict"),
    [
        (timedelta(seconds=-61), 60, (403, "AccessDenied")),
        (timedelta(days=-7, seconds=-5), 7 * 24 * 3600, (403, "AccessDenied")),
        (timedelta(minutes=16), 600, (403, "RequestTimeTooSkewed")),
        (timedelta(), 7 * 24 * 3600 + 1, (400, "AuthorizationQueryParametersError")),
        (timedelta(), -1, (400, "AuthorizationQueryParametersError")),
    ],
    ids=["expired", "expired-a-week-ago", "future", "too-long", "negative"],
)
def test_presigned_urls_outside_their_time(
    shift: timedelta,
    expires: int,
    verdict: tuple[int, str],
    front: live.Gateway,
    witness: Witness,
):
    when = datetime.now(UTC) + shift
    request = _presigned(front, witness.target, when=when, expires=expires)
    assert raw.exchange(front, request).verdict == verdict


def test_a_presigned_url_replayed_after_its_end_is_refused(gateway: live.Gateway, witness: Witness):
    request = _presigned(gateway, witness.target, "GET", expires=6)
    assert raw.exchange(gateway, request).body == witness.body
    time.sleep(7.1)
    refused = raw.exchange(gateway, request)
    assert refused.verdict == (403, "AccessDenied")
    assert refused.field("Message") == "Request has expired"


@pytest.mark.parametrize(
    "tamper",
    [
        lambda target: target.replace("/old", "/new"),
        lambda target: target.replace("X-Amz-Expires=600", "X-Amz-Expires=6000"),
        lambda target: target + "&versionId=1",
        lambda target: target + "&acl",
        lambda target: target + "&x-amz-meta-a=1",
        lambda target: target[:-1] + ("0" if target[-1] != "0" else "1"),
        lambda target: target.partition("&X-Amz-Signature")[0],
    ],
    ids=["key", "expires", "version", "sub-resource", "metadata", "signature", "no-signature"],
)
def test_presigned_urls_cannot_be_changed(
    tamper: Callable[[str], str], gateway: live.Gateway, witness: Witness
):
    request = _presigned(gateway, witness.target)
    answer = raw.exchange(gateway, replace(request, target=tamper(request.target)))
    assert answer.code in {"SignatureDoesNotMatch", "AuthorizationQueryParametersError"}


@pytest.mark.parametrize("added", [None, "x", raw.UNSIGNED])
def test_the_hash_that_a_presigned_url_pins_holds_whatever_header_is_added(
    added: str | None, gateway: live.Gateway, witness: Witness
):
    pinned = hashlib.sha256(b"the approved body").hexdigest()
    query = f"X-Amz-Content-Sha256={pinned}"
    target = raw.presign(gateway, "PUT", witness.target, query=query, payload=pinned)
    headers = {"Host": gateway.netloc, "Content-Length": "4"}
    if added is not None:
        headers["x-amz-content-sha256"] = added
    answer = raw.exchange(gateway, raw.Request("PUT", target, headers, (b"EVIL",)))
    assert answer.verdict == (400, "XAmzContentSHA256Mismatch")


def test_a_presigned_read_does_not_write_or_delete(gateway: live.Gateway, witness: Witness):
    for method in ("PUT", "DELETE", "HEAD"):
        request = replace(_presigned(gateway, witness.target, "GET"), method=method)
        assert raw.exchange(gateway, request).status == 403


@pytest.mark.parametrize(
    ("expires", "tamper", "verdict"),
    [
        (-5, str, (403, "AccessDenied")),
        (600, lambda url: url.replace("/old", "/new"), (403, "SignatureDoesNotMatch")),
        (600, lambda url: url + "&acl", (403, "SignatureDoesNotMatch")),
        (600, lambda url: url.replace("Expires=", "Expires=9"), (403, None)),
        (
            600,
            lambda url: url.replace("AWSAccessKeyId=", "AWSAccessKeyId=x"),
            (403, "InvalidAccessKeyId"),
        ),
    ],
    ids=["expired", "key", "sub-resource", "expires", "unknown-key"],
)
def test_sigv2_presigned_urls_that_lie(
    expires: int,
    tamper: Callable[[str], str],
    verdict: tuple[int, str | None],
    front: live.Gateway,
    witness: Witness,
):
    with contextlib.closing(clients.boto3_client(front, signature_version="s3")) as signer:
        url = signer.generate_presigned_url(
            "put_object", Params={"Bucket": witness.bucket, "Key": witness.key}, ExpiresIn=expires
        )
    headers = {"Host": front.netloc, "Content-Length": "1"}
    answer = raw.exchange(front, raw.Request("PUT", tamper(raw.target_of(url)), headers, (b"x",)))
    assert answer.status == verdict[0]
    assert verdict[1] in {None, answer.code}


# --- bodies


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({"Content-MD5": raw.checksum("md5", b"other")}, (400, "BadDigest")),
        ({"Content-MD5": "not base64!"}, (400, "InvalidDigest")),
        ({"Content-MD5": "c2hvcnQ="}, (400, "InvalidDigest")),
        ({"Content-MD5": ""}, (400, "InvalidDigest")),
        *[
            ({f"x-amz-checksum-{name}": raw.checksum(name, b"other")}, (400, "BadDigest"))
            for name in raw.CHECKSUMS
        ],
        ({"x-amz-checksum-crc32": "AA=="}, (400, "BadDigest")),
        ({"x-amz-checksum-crc99": "AAAA"}, (400, "InvalidRequest")),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, (400, "InvalidRequest")),
    ],
    ids=str,
)
def test_digests_in_headers_that_lie(
    headers: dict[str, str],
    verdict: tuple[int, str],
    size: int,
    gateway: live.Gateway,
    witness: Witness,
):
    answer = raw.ask(gateway, "PUT", witness.target, headers, _body(size))
    assert answer.verdict == verdict


@pytest.mark.parametrize("size", SIZES)
def test_a_body_that_is_not_the_signed_one(size: int, front: live.Gateway, witness: Witness):
    request = raw.plain(front, "PUT", witness.target, None, _body(size))
    changed = bytearray(request.body[0])
    changed[size // 2] ^= 1
    answer = raw.exchange(front, replace(request, body=(bytes(changed),)))
    assert answer.verdict == (400, "XAmzContentSHA256Mismatch")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("algorithm", raw.CHECKSUMS)
@pytest.mark.parametrize("mode", TRAILED)
def test_a_trailing_checksum_that_lies(
    mode: str, algorithm: str, size: int, gateway: live.Gateway, witness: Witness
):
    trailers = {f"x-amz-checksum-{algorithm}": raw.checksum(algorithm, b"other")}
    request = raw.put(gateway, witness.target, _body(size), mode, trailers=trailers)
    assert raw.exchange(gateway, request).verdict == (400, "BadDigest")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", TRAILED)
def test_an_announced_trailer_that_never_comes(
    mode: str, size: int, front: live.Gateway, witness: Witness
):
    request = raw.put(front, witness.target, _body(size), mode, announced=["x-amz-checksum-crc32"])
    assert raw.exchange(front, request).verdict == (400, "BadDigest")


@pytest.mark.parametrize("mode", TRAILED)
def test_a_trailer_nobody_announced(mode: str, gateway: live.Gateway, witness: Witness):
    body = _body(1000)
    trailers = {"x-amz-checksum-crc32": raw.checksum("crc32", body), "x-amz-meta-late": "1"}
    request = raw.put(
        gateway,
        witness.target,
        body,
        mode,
        trailers=trailers,
        announced=["x-amz-checksum-crc32"],
    )
    assert raw.exchange(gateway, request).verdict == (400, "MalformedTrailerError")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("mode", SIGNED)
def test_a_wrong_chunk_signature_at_any_position(
    mode: str, position: int, size: int, gateway: live.Gateway, witness: Witness
):
    body = _body(size)
    trailers = (
        {"x-amz-checksum-crc32": raw.checksum("crc32", body)}
        if mode == raw.SIGNED_CHUNKS_TRAILER
        else {}
    )
    request = raw.put(
        gateway, witness.target, body, mode, trailers=trailers, chunk_size=-(-size // 4)
    )
    assert len(request.body) == 5
    pieces = list(request.body)
    pieces[position] = _flip_after(b"chunk-signature=", pieces[position])
    answer = raw.exchange(gateway, replace(request, body=tuple(pieces)))
    assert answer.verdict == (403, "SignatureDoesNotMatch")


def _flip_after(mark: bytes, piece: bytes) -> bytes:
    at = piece.index(mark) + len(mark)
    return piece[:at] + (b"0" if piece[at : at + 1] != b"0" else b"1") + piece[at + 1 :]


def test_a_wrong_trailer_signature(gateway: live.Gateway, witness: Witness):
    body = _body(1000)
    trailers = {"x-amz-checksum-crc32": raw.checksum("crc32", body)}
    request = raw.put(gateway, witness.target, body, raw.SIGNED_CHUNKS_TRAILER, trailers=trailers)
    last = _flip_after(b"x-amz-trailer-signature:", request.body[-1])
    answer = raw.exchange(gateway, replace(request, body=(*request.body[:-1], last)))
    assert answer.verdict == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("mode", SIGNED)
def test_chunks_in_another_order(mode: str, gateway: live.Gateway, witness: Witness):
    body = _body(4000)
    trailers = (
        {"x-amz-checksum-crc32": raw.checksum("crc32", body)}
        if mode == raw.SIGNED_CHUNKS_TRAILER
        else {}
    )
    request = raw.put(gateway, witness.target, body, mode, trailers=trailers, chunk_size=1000)
    first, second, *others = request.body
    answer = raw.exchange(gateway, replace(request, body=(second, first, *others)))
    assert answer.verdict == (403, "SignatureDoesNotMatch")


CHUNKED = (raw.SIGNED_CHUNKS, *TRAILED)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("off", "code"), [(-1, "RequestBodyLengthMismatch"), (1, "IncompleteBody")]
)
@pytest.mark.parametrize("mode", CHUNKED)
def test_a_decoded_length_that_lies(
    mode: str, off: int, code: str, size: int, front: live.Gateway, witness: Witness
):
    body = _body(size)
    trailers = {"x-amz-checksum-crc32": raw.checksum("crc32", body)} if mode in TRAILED else {}
    request = raw.put(front, witness.target, body, mode, trailers=trailers, declared=size + off)
    assert raw.exchange(front, request).verdict == (400, code)


@pytest.mark.parametrize("mode", CHUNKED)
def test_a_final_chunk_that_is_missing(mode: str, front: live.Gateway, witness: Witness):
    body = _body(3000)
    trailers = {"x-amz-checksum-crc32": raw.checksum("crc32", body)} if mode in TRAILED else {}
    request = raw.put(front, witness.target, body, mode, trailers=trailers)
    cut = raw.framed(replace(request, body=request.body[:-1]))
    assert raw.exchange(front, cut).verdict == (400, "IncompleteBody")


@pytest.mark.parametrize("mode", CHUNKED)
def test_framing_that_is_none(mode: str, gateway: live.Gateway, witness: Witness):
    announced = ["x-amz-checksum-crc32"] if mode in TRAILED else None
    request = raw.put(gateway, witness.target, b"", mode, announced=announced, declared=500)
    for garbage in (b"zz\r\n" * 100, b"-1\r\n\r\n", b"\r\n" * 50, b"a" * 5000, b"f" * 16 + b"\r\n"):
        lie = replace(request, body=(garbage,)).with_headers(
            **{"Content-Length": str(len(garbage))}
        )
        answer = raw.exchange(gateway, lie)
        assert 400 <= answer.status < 500, garbage[:10]
        assert answer.code


def test_no_length_at_all(front: live.Gateway, witness: Witness):
    request = raw.plain(front, "PUT", witness.target, None, b"")
    answer = raw.exchange(front, request.with_headers(**{"Content-Length": None}))
    assert answer.verdict == (411, "MissingContentLength")


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "0x10", "99999999999999999999999"])
def test_a_length_that_is_no_number(length: str, gateway: live.Gateway, witness: Witness):
    request = raw.plain(gateway, "PUT", witness.target, None, b"x")
    answer = raw.exchange(gateway, request.with_headers(**{"Content-Length": length}))
    assert answer.status == 400


def test_two_lengths_are_no_smuggling_channel(gateway: live.Gateway, witness: Witness):
    request = raw.put(gateway, witness.target, b"0\r\n\r\n", raw.UNSIGNED)
    both = request.with_headers(**{"Transfer-Encoding": "chunked"})
    with raw.Connection(gateway) as connection:
        connection.send(both.wire + raw.plain(gateway, "DELETE", witness.target).wire)
        answer = connection.answer()
        assert 400 <= answer.status < 500
        assert connection.rest() == b""  # what follows is not taken for a request


def test_a_body_beyond_the_limit_is_refused_before_it_is_sent(
    gateway: live.Gateway, witness: Witness
):
    request = raw.plain(gateway, "PUT", witness.target, None, b"")
    answer = raw.exchange(gateway, request.with_headers(**{"Content-Length": str(6 * 1024**4)}))
    assert answer.verdict == (400, "EntityTooLarge")


# --- Expect: 100-continue


def test_continue_comes_after_authentication_and_before_the_body(
    front: live.Gateway, shared: str, key: str
):
    body = _body(300_000)
    target = raw.path(shared, key)
    request = raw.plain(front, "PUT", target, {"Expect": "100-continue"}, body)
    with raw.Connection(front) as connection:
        connection.send(request.head)
        assert connection._file.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert connection._file.readline() == b"\r\n"
        connection.send(body)
        assert connection.answer().status == 200
    assert raw.ask(front, "GET", target).body == body


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"secret_key": "wrong"}, "SignatureDoesNotMatch"),
        ({"access_key": "AK"}, "InvalidAccessKeyId"),
    ],
)
def test_a_refusal_comes_without_continue_and_without_reading_the_body(
    how: dict[str, str], code: str, front: live.Gateway, witness: Witness
):
    body = b"x" * 1000
    fields = {"Expect": "100-continue", "Content-Length": str(5 * 1024**3)}
    request, _ = raw.sign(
        front,
        raw.Request("PUT", witness.target, fields),
        hashlib.sha256(body).hexdigest(),
        **how,
    )
    with raw.Connection(front) as connection:
        connection.send(request.head)
        answer = connection.answer()
        assert (answer.verdict, answer.interim) == ((403, code), ())
        assert answer.headers["connection"] == "close"
        if not front.secure:  # TLS cannot be closed in one direction: the end comes later
            assert connection.rest() == b""


def test_a_failed_condition_comes_without_continue(front: live.Gateway, witness: Witness):
    headers = {"Expect": "100-continue", "If-Match": '"0"', "Content-Length": "1000000"}
    request, _ = raw.sign(front, raw.Request("PUT", witness.target, headers), raw.UNSIGNED)
    with raw.Connection(front) as connection:
        connection.send(request.head)
        answer = connection.answer()
        assert (answer.verdict, answer.interim) == ((412, "PreconditionFailed"), ())


def test_an_empty_body_that_expects_continue_is_answered(
    front: live.Gateway, shared: str, key: str
):
    request = raw.plain(front, "PUT", raw.path(shared, key), {"Expect": "100-continue"}, b"")
    answer = raw.exchange(front, request)
    assert answer.status == 200
    assert answer.headers["etag"] == f'"{hashlib.md5(b"").hexdigest()}"'


# --- the shape of answers


def test_head_answers_have_no_body(front: live.Gateway, witness: Witness):
    missing = raw.path(witness.bucket, f"{witness.key}.missing")
    heads = [
        (raw.plain(front, "HEAD", witness.target), 200),
        (raw.plain(front, "HEAD", witness.target, {"Range": "bytes=0-9"}), 206),
        (raw.plain(front, "HEAD", missing), 404),
        (raw.plain(front, "HEAD", f"/{witness.bucket}"), 200),
        (raw.plain(front, "HEAD", "/no-such-bucket-here"), 404),
        (raw.plain(front, "HEAD", witness.target, {"If-Match": '"x"'}), 412),
        (raw.plain(front, "HEAD", witness.target, {"If-None-Match": "*"}), 304),
        (raw.plain(front, "HEAD", witness.target).with_headers(Authorization="x"), 400),
    ]
    with raw.Connection(front) as connection:
        for request, status in heads:
            connection.send(request.head)
            answer = connection.answer("HEAD")
            assert answer.status == status, request.target
            assert answer.headers["x-amz-request-id"]
        connection.send(raw.plain(front, "GET", witness.target).head)
        assert connection.answer().body == witness.body  # nothing stood between the heads


def test_errors_are_s3_documents_with_the_request_id_of_the_log(
    front: live.Gateway, witness: Witness
):
    target = raw.path(witness.bucket, "no such <key> & 'more'")
    answer = raw.ask(front, "GET", target)
    assert answer.verdict == (404, "NoSuchKey")
    assert answer.headers["content-type"] == "application/xml"
    request_id = answer.headers["x-amz-request-id"]
    assert answer.field("RequestId") == request_id
    assert answer.field("HostId")
    assert answer.field("Message")
    assert answer.field("Resource")
    line = _log_line(front, request_id)
    assert "status=404" in line
    assert "error=NoSuchKey" in line
    assert "operation=GetObject" in line


def _log_line(gateway: live.Gateway, request_id: str) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        lines = [line for line in gateway.read_log().splitlines() if request_id in line]
        if lines:
            (line,) = lines
            return line
        time.sleep(0.02)
    raise AssertionError(f"{request_id} is not in the log")


def test_every_answer_carries_a_request_id_and_the_log_no_secret(
    gateway: live.Gateway, witness: Witness
):
    presigned = raw.exchange(gateway, _presigned(gateway, witness.target, "GET"))
    signed = raw.ask(gateway, "GET", witness.target)
    assert presigned.headers["x-amz-request-id"] != signed.headers["x-amz-request-id"]
    _log_line(gateway, signed.headers["x-amz-request-id"])
    log = gateway.read_log()
    assert gateway.secret_key not in log
    assert "Signature=" not in log.replace("Signature=[hidden]", "")


@pytest.mark.parametrize(
    "garbage",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    ],
    ids=["words", "version", "tls", "no-colon", "long-target", "many-headers"],
)
def test_what_is_no_request_gets_400_or_a_closed_connection(
    garbage: bytes, gateway: live.Gateway, witness: Witness
):
    with raw.Connection(gateway) as connection:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            connection.send(garbage)
            connection.socket.shutdown(1)
        said = connection.rest()
    assert said == b"" or said.startswith(b"HTTP/1.1 4")
