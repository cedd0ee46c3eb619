import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import urlsplit

import boto3
import botocore.auth
import minio.signer
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import given, settings
from hypothesis import strategies as st
from minio.credentials import Credentials as MinioCredentials

from s4gateway.s3 import query, sigv4
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers, RequestHead

KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
CREDENTIALS = sigv4.Credentials(KEY, SECRET)
LOOKUP = {KEY: SECRET}.get
THEN = datetime(2013, 5, 24, tzinfo=UTC)
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
BUCKET_HOST = "examplebucket.s3.amazonaws.com"

TORTURE_KEYS = [
    "plain.txt",
    "year=2024/month=05/part-0.parquet",
    "a:b",
    "a@b",
    "a$b",
    "a+b",
    "a b",
    " leading and trailing ",
    "a%2Fb",
    "a%252Fb",
    "100%",
    "..",
    "../x",
    "a/../b",
    "./x",
    "a/./b",
    "/leading",
    "//two",
    "a//b",
    "trailing/",
    "ünïcödé/日本語/🦀",
    "e\u0301 decomposed",
    "(parens)[brackets]{braces}",
    "~tilde-._~",
    "a&b=c?d#e",
    "semi;colon,comma",
    "quote'\"back`tick",
    "star*!pipe|caret^",
    "back\\slash<>",
    "tab\tnewline\nbell\x07",
    "x" * 1024,
]
TORTURE_QUERIES = [
    [("prefix", "a b/c+d&e=f"), ("delimiter", "/"), ("list-type", "2")],
    [("acl", "")],
    [("uploadId", "a+/="), ("partNumber", "10"), ("x-id", "UploadPart")],
    [("prefix", "ü~*()'!"), ("marker", "%2F"), ("max-keys", "2")],
    [("a-b", "1"), ("a", "2"), ("a", "1"), ("A", "3"), ("a.b", "")],
    [("versions", ""), ("key-marker", "..//日本"), ("version-id-marker", "null")],
]


def head_of(
    method: str, target: str, headers: list[tuple[str, str]] | dict[str, str]
) -> RequestHead:
    path, _, raw_query = target.partition("?")
    return RequestHead(method, path, raw_query, Headers(headers))


def signed_head(
    method: str = "GET",
    target: str = "/bucket/key",
    extra: tuple[tuple[str, str], ...] = (),
    now: datetime = THEN,
    signer: sigv4.Signer | None = None,
) -> RequestHead:
    path, _, raw_query = target.partition("?")
    signer = signer or sigv4.Signer(CREDENTIALS, "us-east-1")
    added = signer.sign(method, "gw:8014", path, raw_query, extra, EMPTY, now)
    return head_of(method, target, [("host", "gw:8014"), *extra, *added])


def changed(head: RequestHead, **headers: str | None) -> RequestHead:
    """The same request with header fields replaced, added or (None) removed."""
    fields = dict(head.headers.items())
    for name, value in headers.items():
        fields.pop(name.replace("_", "-"), None)
        if value is not None:
            fields[name.replace("_", "-")] = value
    return RequestHead(head.method, head.raw_path, head.raw_query, Headers(fields))


def refusal(head: RequestHead, now: datetime = THEN, region: str | None = None) -> S3Error:
    with pytest.raises(S3Error) as caught:
        sigv4.verify_header(head, LOOKUP, now, region=region)
    return caught.value


# --- the examples AWS publishes ----------------------------------------------------------------

AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
    "SignedHeaders={},Signature={}"
)


@pytest.mark.parametrize(
    ("method", "target", "headers", "signature"),
    [
        (
            "GET",
            "/test.txt",
            {"Range": "bytes=0-9", "x-amz-content-sha256": EMPTY, "x-amz-date": "20130524T000000Z"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",  # on the wire as printed; signed as /test%24file.text
            {
                "Date": "Fri, 24 May 2013 00:00:00 GMT",
                "x-amz-content-sha256": hashlib.sha256(b"Welcome to Amazon S3.").hexdigest(),
                "x-amz-date": "20130524T000000Z",
                "x-amz-storage-class": "REDUCED_REDUNDANCY",
            },
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/?lifecycle",
            {"x-amz-content-sha256": EMPTY, "x-amz-date": "20130524T000000Z"},
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/?max-keys=2&prefix=J",
            {"x-amz-content-sha256": EMPTY, "x-amz-date": "20130524T000000Z"},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_the_examples_aws_publishes_verify(
    method: str, target: str, headers: dict[str, str], signature: str
):
    names = ";".join(sorted(["host", *map(str.lower, headers)]))
    authorization = AUTHORIZATION.format(names, signature)
    head = head_of(method, target, {"Host": BUCKET_HOST, "Authorization": authorization, **headers})
    who = sigv4.verify_header(head, LOOKUP, THEN, region="us-east-1")
    assert who.access_key == KEY
    assert who.payload_hash == headers["x-amz-content-sha256"]
    assert who.scope == "20130524/us-east-1/s3/aws4_request"
    assert who.seed_signature == signature


def test_the_examples_aws_publishes_are_what_we_sign():
    signer = sigv4.Signer(CREDENTIALS, "us-east-1")
    for path, raw_query, extra, signature in (
        (
            "/test.txt",
            "",
            [("Range", "bytes=0-9")],
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "/",
            "lifecycle",
            [],
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "/",
            "prefix=J&max-keys=2",
            [],
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ):
        added = dict(signer.sign("GET", BUCKET_HOST, path, raw_query, extra, EMPTY, THEN))
        assert added["authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize(
    ("payload", "extra", "signature"),
    [
        (
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            {"content-length": "66824"},
            "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
        ),
        (
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            {"x-amz-trailer": "x-amz-checksum-crc32c"},
            "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
        ),
    ],
)
def test_the_seed_signatures_aws_publishes_verify(
    payload: str, extra: dict[str, str], signature: str
):
    headers = {
        "content-encoding": "aws-chunked",
        "host": "s3.amazonaws.com",
        "x-amz-content-sha256": payload,
        "x-amz-date": "20130524T000000Z",
        "x-amz-decoded-content-length": "66560",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
        **extra,
    }
    headers["authorization"] = AUTHORIZATION.format(";".join(sorted(headers)), signature)
    head = head_of("PUT", "/examplebucket/chunkObject.txt", headers)
    who = sigv4.verify_header(head, LOOKUP, THEN)
    assert (who.payload_hash, who.seed_signature) == (payload, signature)
    assert who.amz_date == "20130524T000000Z"


# --- against signers nobody here wrote ---------------------------------------------------------


def botocore_head(method: str, path: str, raw_query: str, extra: dict[str, str]) -> RequestHead:
    url = f"http://gw:8014{path}" + (f"?{raw_query}" if raw_query else "")
    request = AWSRequest(method, url, headers={"Host": "gw:8014", **extra}, data=b"")
    S3SigV4Auth(BotoCredentials(KEY, SECRET, "token"), "s3", "eu-west-1").add_auth(request)
    return head_of(method, f"{path}?{raw_query}", dict(request.headers.items()))


def now_of(head: RequestHead) -> datetime:
    moment = sigv4.parse_timestamp(head.headers["x-amz-date"])
    assert moment is not None
    return moment


@pytest.mark.parametrize("key", TORTURE_KEYS)
def test_botocore_signatures_verify_and_equal_ours(key: str):
    extra = {"X-Amz-Meta-A": "  b   c ", "Content-Type": "text/plain"}
    for pairs in ([], *TORTURE_QUERIES):
        path, raw_query = "/bucket/" + query.quote_path(key), query.format_query(pairs)
        head = botocore_head("PUT", path, raw_query, extra)
        now = now_of(head)
        assert sigv4.verify_header(head, LOOKUP, now, region="eu-west-1").access_key == KEY
        signer = sigv4.Signer(sigv4.Credentials(KEY, SECRET, "token"), "eu-west-1")
        ours = signer.sign("PUT", "gw:8014", path, raw_query, list(extra.items()), EMPTY, now)
        assert dict(ours)["authorization"] == head.headers["authorization"]


@pytest.mark.parametrize("key", TORTURE_KEYS)
def test_what_boto3_puts_on_the_wire_verifies(key: str, boto3_heads: Callable[..., RequestHead]):
    for call, arguments in (
        ("get_object", {"Key": key, "Range": "bytes=0-9"}),
        ("put_object", {"Key": key, "Body": b"x", "Metadata": {"a": "b  c"}}),
        ("delete_object", {"Key": key, "VersionId": "a+b/c=="}),
        ("list_objects_v2", {"Prefix": key, "Delimiter": "+", "StartAfter": key}),
        ("get_object_tagging", {"Key": key}),
        ("copy_object", {"Key": key, "CopySource": {"Bucket": "b", "Key": key}}),
    ):
        head = boto3_heads(call, Bucket="bucket", **arguments)
        assert sigv4.verify_header(head, LOOKUP, now_of(head)).access_key == KEY


@pytest.fixture(scope="module")
def boto3_heads() -> Callable[..., RequestHead]:
    client = boto3.client(
        "s3",
        endpoint_url="http://gw:8014",
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
    )
    sent: list[RequestHead] = []

    def answer(request: AWSRequest, **_: object) -> AWSResponse:
        fields = [
            (name, value.decode() if isinstance(value, bytes) else value)
            for name, value in request.headers.items()
        ]
        target = request.url.removeprefix("http://gw:8014")
        sent.append(head_of(request.method, target, fields))
        raise _Sent

    client.meta.events.register("before-send.s3", answer)

    def call(name: str, **arguments: object) -> RequestHead:
        with pytest.raises(_Sent):
            getattr(client, name)(**arguments)
        return sent[-1]

    return call


class _Sent(Exception):
    """The request is complete and need not leave."""


@pytest.mark.parametrize("key", TORTURE_KEYS)
def test_minio_signatures_verify(key: str):
    path, raw_query = "/bucket/" + query.quote_path(key), "prefix=a%20b&uploads="
    now = datetime(2026, 1, 5, 10, 20, 30, tzinfo=UTC)
    headers = {
        "Host": "gw:8014",
        "x-amz-content-sha256": EMPTY,
        "x-amz-date": "20260105T102030Z",
    }
    signed = minio.signer.sign_v4_s3(
        method="GET",
        url=urlsplit(f"http://gw:8014{path}?{raw_query}"),
        region="us-east-1",
        headers=headers,
        credentials=MinioCredentials(KEY, SECRET),
        content_sha256=EMPTY,
        date=now,
    )
    assert sigv4.verify_header(head_of("GET", f"{path}?{raw_query}", signed), LOOKUP, now)


def test_the_wall_clock_of_botocore_is_not_ours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        botocore.auth,
        "get_current_datetime",
        lambda: datetime.fromtimestamp(time.time() - 3600, UTC).replace(tzinfo=None),
    )
    head = botocore_head("GET", "/b/k", "", {})
    assert refusal(head, datetime.now(UTC)).code == "RequestTimeTooSkewed"


# --- our own signer and verifier, together -----------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXT, st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=5))
@settings(max_examples=200)
def test_what_we_sign_we_verify(key: str, pairs: list[tuple[str, str]]):
    target = f"/b/{query.quote_path(key)}?{query.format_query(pairs)}"
    assert sigv4.verify_header(signed_head(target=target), LOOKUP, THEN).access_key == KEY


@given(st.text(st.characters(max_codepoint=126, min_codepoint=33), max_size=30))
@settings(max_examples=300)
def test_any_encoding_of_the_same_path_verifies(key: str):
    wire = "/b/" + key.replace("?", "%3f").replace("%", "%25").replace("%253f", "%3f")
    text = query.unquote(wire[3:])
    head = signed_head(target="/b/" + query.quote_path(text))
    sent = RequestHead("GET", wire, "", head.headers)
    assert sigv4.verify_header(sent, LOOKUP, THEN).access_key == KEY


@pytest.mark.parametrize(
    ("signed", "sent"),
    [
        ("/b/k~", "/b/k%7E"),
        ("/b/k%7e", "/b/k%7e"),
        ("/b/a%3Db", "/b/a=b"),
        ("/b/a%2Bb", "/b/a+b"),
        ("/b/%C3%BC", "/b/%c3%bc"),
        ("/b/a/b", "/b/a%2Fb"),
        ("/b/a%2Fb", "/b/a%2fb"),
        ("/b?prefix=a%20b", "/b?prefix=a+b"),
        ("/b?prefix=a%2Fb&acl=", "/b?acl&prefix=a/b"),
        ("/", ""),
    ],
)
def test_harmless_differences_in_encoding_verify(signed: str, sent: str):
    head = signed_head(target=signed)
    path, _, raw_query = sent.partition("?")
    assert sigv4.verify_header(RequestHead("GET", path, raw_query, head.headers), LOOKUP, THEN)


@pytest.mark.parametrize(
    ("signed", "sent"),
    [
        ("/b/k", "/b/k/"),
        ("/b/k", "/b//k"),
        ("/b/k", "/b/./k"),
        ("/b/k", "/b/x/../k"),
        ("/b/k", "/b%2Fk"),
        ("/b/k", "/b/K"),
        ("/b/a%2520b", "/b/a%20b"),
        ("/b/a%20b", "/b/a+b"),
        ("/b?prefix=a%2Bb", "/b?prefix=a+b"),
        ("/b?a=1", "/b?a=1&b"),
        ("/b?a=1", "/b"),
        ("/b", "/b?acl"),
        ("/b?a=1&b=2", "/b?a=2&b=1"),
    ],
)
def test_another_resource_never_verifies(signed: str, sent: str):
    head = signed_head(target=signed)
    path, _, raw_query = sent.partition("?")
    error = refusal(RequestHead("GET", path, raw_query, head.headers))
    assert error.code == "SignatureDoesNotMatch"


@given(st.binary(min_size=1, max_size=40), st.binary(max_size=40))
def test_no_bytes_on_the_request_line_raise_anything_but_an_s3_error(path: bytes, tail: bytes):
    head = signed_head()
    sent = RequestHead("GET", "/" + path.decode("latin-1"), tail.decode("latin-1"), head.headers)
    assert refusal(sent).code == "SignatureDoesNotMatch"


def test_another_method_does_not_match():
    head = signed_head()
    assert refusal(RequestHead("PUT", head.raw_path, "", head.headers)).code == (
        "SignatureDoesNotMatch"
    )


def test_a_mismatch_tells_what_was_computed():
    head = signed_head()
    forged = changed(head, authorization=head.headers["authorization"][:-64] + "0" * 64)
    error = refusal(forged)
    assert error.code == "SignatureDoesNotMatch"
    assert error.status == 403
    assert error.fields["SignatureProvided"] == "0" * 64
    assert error.fields["AWSAccessKeyId"] == KEY
    assert error.fields["CanonicalRequest"] == (
        f"GET\n/bucket/key\n\nhost:gw:8014\nx-amz-content-sha256:{EMPTY}\n"
        f"x-amz-date:20130524T000000Z\n\nhost;x-amz-content-sha256;x-amz-date\n{EMPTY}"
    )
    assert bytes.fromhex(error.fields["StringToSignBytes"]).decode() == error.fields["StringToSign"]
    assert SECRET not in str(error.fields)


def test_the_wrong_secret_does_not_match():
    with pytest.raises(S3Error) as caught:
        sigv4.verify_header(signed_head(), lambda _: "other", THEN)
    assert caught.value.code == "SignatureDoesNotMatch"


# --- headers -----------------------------------------------------------------------------------


def test_a_signed_header_may_not_change():
    head = signed_head(extra=(("content-type", "text/plain"),))
    assert sigv4.verify_header(head, LOOKUP, THEN)
    assert refusal(changed(head, content_type="text/html")).code == "SignatureDoesNotMatch"
    assert refusal(changed(head, content_type=None)).code == "SignatureDoesNotMatch"


def test_headers_that_nobody_signed_may_change_unless_they_are_amazons():
    head = signed_head()
    assert sigv4.verify_header(changed(head, via="1.1 proxy"), LOOKUP, THEN)
    assert sigv4.verify_header(changed(head, x_amz_cf_id="edge"), LOOKUP, THEN)
    error = refusal(changed(head, x_amz_acl="public-read", x_amz_meta_a="b"))
    assert error.code == "AccessDenied"
    assert error.fields["HeadersNotSigned"] == "x-amz-acl, x-amz-meta-a"


def test_the_host_must_be_signed():
    head = signed_head()
    without = head.headers["authorization"].replace("SignedHeaders=host;", "SignedHeaders=")
    assert refusal(changed(head, authorization=without)).fields["HeadersNotSigned"] == "host"


def test_a_signed_content_length_of_zero_may_have_been_dropped_by_a_proxy():
    head = signed_head(extra=(("content-length", "0"),))
    assert sigv4.verify_header(changed(head, content_length=None), LOOKUP, THEN)
    head = signed_head(extra=(("content-length", "5"),))
    assert refusal(changed(head, content_length=None)).code == "SignatureDoesNotMatch"


def test_repeated_headers_are_joined_and_inner_spaces_collapse():
    head = signed_head(extra=(("x-amz-meta-a", "1 2,3"),))
    fields = [pair for pair in head.headers.raw if pair[0] != b"x-amz-meta-a"]
    fields += [(b"x-amz-meta-a", b"  1   2"), (b"X-Amz-Meta-A", b"3 ")]
    sent = RequestHead("GET", "/bucket/key", "", Headers(fields))
    assert sigv4.verify_header(sent, LOOKUP, THEN)


def test_only_ascii_white_space_is_white_space():
    now = datetime(2026, 1, 5, 10, 20, 30, tzinfo=UTC)
    value = "\xa0a\u2003 \u2028 b\x1f\x85"
    signed = [("x-amz-meta-v", value)]
    added = sigv4.Signer(sigv4.Credentials(KEY, SECRET), "us-east-1").sign(
        "GET", "gw", "/b/k", "", signed, EMPTY, now
    )
    head = RequestHead("GET", "/b/k", "", Headers([("host", "gw"), *signed, *added]))
    assert sigv4.verify_header(head, LOOKUP, now).access_key == KEY


def test_values_are_verified_as_the_bytes_that_came():
    head = signed_head(extra=(("x-amz-meta-a", "Zürich"),))
    assert (b"x-amz-meta-a", "Zürich".encode()) in head.headers.raw
    assert sigv4.verify_header(head, LOOKUP, THEN)
    latin = [
        (name, b"Z\xfcrich" if name == b"x-amz-meta-a" else value)
        for name, value in head.headers.raw
    ]
    sent = RequestHead("GET", "/bucket/key", "", Headers(latin))
    assert refusal(sent).code == "SignatureDoesNotMatch"


# --- what a signature may claim ----------------------------------------------------------------

CREDENTIAL = f"Credential={KEY}/20130524/us-east-1/s3/aws4_request"
GOOD = f"AWS4-HMAC-SHA256 {CREDENTIAL}, SignedHeaders=host, Signature={'0' * 64}"


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "AccessDenied"),
        ("", "AccessDenied"),
        (f"AWS {KEY}:c2lnbmF0dXJl", "InvalidRequest"),
        ("Basic dTpw", "InvalidArgument"),
        ("Bearer", "InvalidArgument"),
        ("AWS4-ECDSA-P256-SHA256 Credential=x", "NotImplemented"),
        ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Foo=bar", "AuthorizationHeaderMalformed"),
        (f"AWS4-HMAC-SHA256 {CREDENTIAL}", "AuthorizationHeaderMalformed"),
        (f"{GOOD}, {CREDENTIAL}", "AuthorizationHeaderMalformed"),
        (GOOD.replace(f"{KEY}/", ""), "AuthorizationHeaderMalformed"),
        (GOOD.replace(KEY, ""), "AuthorizationHeaderMalformed"),
        (GOOD.replace("/s3/", "/ec2/"), "AuthorizationHeaderMalformed"),
        (GOOD.replace("aws4_request", "aws3"), "AuthorizationHeaderMalformed"),
        (GOOD.replace("20130524", "2013-5-4"), "AuthorizationHeaderMalformed"),
        (GOOD.replace("20130524", "20131341"), "AuthorizationHeaderMalformed"),
        (GOOD.replace("20130524", "20130525"), "AuthorizationHeaderMalformed"),
        (GOOD.replace("us-east-1", "eu-west-1"), "AuthorizationHeaderMalformed"),
        (GOOD.replace("0" * 64, ""), "AuthorizationHeaderMalformed"),
        (GOOD.replace("0" * 64, "é" * 9), "AccessDenied"),  # x-amz-* are not among the signed
        (GOOD, "AccessDenied"),
    ],
)
def test_a_malformed_authorization_gets_its_own_error(authorization: str | None, code: str):
    head = changed(signed_head(), authorization=authorization)
    assert refusal(head, region="us-east-1").code == code


def test_the_region_expected_is_named():
    error = refusal(signed_head(), region="eu-central-1")
    assert error.code == "AuthorizationHeaderMalformed"
    assert error.fields["Region"] == "eu-central-1"
    assert "'us-east-1' is wrong; expecting 'eu-central-1'" in error.message


def test_components_may_stand_in_any_order_and_spacing():
    head = signed_head()
    kind, _, rest = head.headers["authorization"].partition(" ")
    shuffled = f"{kind}  " + " ,".join(reversed(rest.split(", ")))
    assert sigv4.verify_header(changed(head, authorization=shuffled), LOOKUP, THEN)


def test_an_access_key_may_contain_slashes():
    signer = sigv4.Signer(sigv4.Credentials("team/user", "s"), "us-east-1")
    head = signed_head(signer=signer)
    assert sigv4.verify_header(head, {"team/user": "s"}.get, THEN).access_key == "team/user"


def test_an_unknown_key_is_named():
    with pytest.raises(S3Error) as caught:
        sigv4.verify_header(signed_head(), lambda _: None, THEN)
    assert caught.value.code == "InvalidAccessKeyId"
    assert caught.value.fields["AWSAccessKeyId"] == KEY


def test_the_payload_hash_is_mandatory():
    error = refusal(changed(signed_head(), x_amz_content_sha256=None))
    assert error.code == "InvalidRequest"
    assert error.message == "Missing required header for this request: x-amz-content-sha256"


# --- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [-15, 0, 15])
def test_a_clock_within_fifteen_minutes_is_accepted(minutes: int):
    assert sigv4.verify_header(signed_head(), LOOKUP, THEN + timedelta(minutes=minutes))


@pytest.mark.parametrize("seconds", [-901, 901, 10**9, -(10**9)])
def test_a_clock_further_off_is_skewed(seconds: int):
    error = refusal(signed_head(), THEN + timedelta(seconds=seconds))
    assert error.code == "RequestTimeTooSkewed"
    assert error.fields["RequestTime"] == "20130524T000000Z"
    assert error.fields["MaxAllowedSkewMilliseconds"] == "900000"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "2013-05-24T00:00:00Z",
        "20130524T000000",
        "20131341T000000Z",
        "19500101T000000Z",
        "20130524T0000:0Z",
        "2013052\u0664T000000Z",
    ],
)
def test_a_request_without_a_valid_date_is_denied(value: str):
    assert refusal(changed(signed_head(), x_amz_date=value)).code == "AccessDenied"
    without = changed(signed_head(), x_amz_date=None)
    assert refusal(without).code == "AccessDenied"
    assert refusal(changed(without, date=value)).code == "AccessDenied"


@pytest.mark.parametrize(
    "date", ["Fri, 24 May 2013 00:00:00 GMT", "Fri, 24 May 2013 00:00:00", "20130524T000000Z"]
)
def test_the_date_header_serves_when_x_amz_date_is_missing(date: str):
    key = sigv4.signing_key(SECRET, "20130524", "us-east-1")
    fields = [("date", date), ("host", "gw"), ("x-amz-content-sha256", EMPTY)]
    names = "date;host;x-amz-content-sha256"
    canonical = sigv4.canonical_request("GET", "/b", "", fields, names, EMPTY)
    text = sigv4.string_to_sign(
        "20130524T000000Z", "20130524/us-east-1/s3/aws4_request", canonical.encode()
    )
    signature = sigv4.hmac.digest(key, text.encode(), "sha256").hex()
    fields.append(("authorization", AUTHORIZATION.format(names, signature)))
    assert sigv4.verify_header(head_of("GET", "/b", fields), LOOKUP, THEN).seed_signature


def test_dates_beyond_the_calendar_are_no_dates():
    without = changed(signed_head(), x_amz_date=None)
    assert refusal(changed(without, date="Fri, 31 Dec 9999 23:59:59 -0100")).code == "AccessDenied"


def test_timestamps_are_utc():
    east = timezone(timedelta(hours=2))
    assert sigv4.timestamp(datetime(2013, 5, 24, 2, tzinfo=east)) == "20130524T000000Z"
    assert sigv4.parse_timestamp("20130524T000000Z") == THEN


# --- the signer --------------------------------------------------------------------------------


def test_a_new_day_gets_a_new_key():
    signer = sigv4.Signer(CREDENTIALS, "us-east-1")
    for days in (0, 0, 1, 2, 0):
        now = THEN + timedelta(days=days)
        assert sigv4.verify_header(signed_head(now=now, signer=signer), LOOKUP, now)


def test_a_session_token_is_signed():
    signer = sigv4.Signer(sigv4.Credentials(KEY, SECRET, "token"), "us-east-1")
    head = signed_head(signer=signer)
    assert head.headers["x-amz-security-token"] == "token"
    assert sigv4.verify_header(head, LOOKUP, THEN)
    assert refusal(changed(head, x_amz_security_token="x")).code == "SignatureDoesNotMatch"


def test_secrets_stay_out_of_reprs():
    credentials = sigv4.Credentials(KEY, SECRET, "session-token")
    who = sigv4.verify_header(signed_head(), LOOKUP, THEN)
    shown = repr(credentials) + repr(who)
    assert SECRET not in shown
    assert "session-token" not in shown
    assert who.signing_key.hex() not in shown
    assert repr(who.signing_key) not in shown
