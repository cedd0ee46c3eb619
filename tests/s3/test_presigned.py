import base64
import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.auth import HmacV1QueryAuth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials as BotoCredentials

from s4gateway.s3 import presigned, query, sigv4
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers, RequestHead

KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
CREDENTIALS = sigv4.Credentials(KEY, SECRET)
LOOKUP = {KEY: SECRET}.get
THEN = datetime(2013, 5, 24, tzinfo=UTC)
ORIGIN = "http://gw:8014"

TORTURE_KEYS = [
    "year=2024/part-0.parquet",
    "a:b@c$d",
    "a+b c",
    "a%2Fb%",
    "..",
    "a/../b",
    "//leading//double/",
    "ünïcödé/日本語/🦀",
    "(parens)[b]{c}~*!'\"|^`<>",
    "a&b=c?d#e;f,g",
]


def head_of(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> RequestHead:
    origin, _, target = url.removeprefix("http://").removeprefix("https://").partition("/")
    path, _, raw_query = target.partition("?")
    return RequestHead(method, f"/{path}", raw_query, Headers({"host": origin, **(headers or {})}))


def verify(url: str, now: datetime = THEN, method: str = "GET", **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return presigned.verify_query(head_of(url, method, named), LOOKUP, now)


def refusal(url: str, now: datetime = THEN, method: str = "GET", **headers: str) -> S3Error:
    with pytest.raises(S3Error) as caught:
        verify(url, now, method, **headers)
    return caught.value


def presign(url: str = f"{ORIGIN}/b/k", expires: int = 3600, method: str = "GET") -> str:
    return presigned.presign(CREDENTIALS, "us-east-1", method, url, expires, THEN)


def client(signature_version: str, **s3: str) -> object:
    return boto3.client(
        "s3",
        endpoint_url=ORIGIN,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(signature_version=signature_version, s3={"addressing_style": "path", **s3}),
    )


# --- version 4 ----------------------------------------------------------------------------------

PUBLISHED = (
    "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
)


def test_the_example_aws_publishes_verifies_and_is_what_we_presign():
    who = verify(PUBLISHED)
    assert who.access_key == KEY
    assert who.payload_hash == "UNSIGNED-PAYLOAD"
    assert who.scope == "20130524/us-east-1/s3/aws4_request"
    url = "https://examplebucket.s3.amazonaws.com/test.txt"
    assert presigned.presign(CREDENTIALS, "us-east-1", "GET", url, 86400, THEN) == PUBLISHED


@pytest.mark.parametrize("key", TORTURE_KEYS)
def test_botocores_urls_verify(key: str):
    for raw_query in ("", "versionId=a%2Bb%2F%3D&response-content-type=text%2Fplain", "acl"):
        url = f"{ORIGIN}/bucket/{query.quote_path(key)}?{raw_query}"
        request = AWSRequest("GET", url, headers={"Host": "gw:8014"})
        S3SigV4QueryAuth(BotoCredentials(KEY, SECRET, "token"), "s3", "us-east-1").add_auth(request)
        assert verify(request.url, datetime.now(UTC)).access_key == KEY


@pytest.mark.parametrize("version", ["s3v4", "s3"])
@pytest.mark.parametrize("key", TORTURE_KEYS)
def test_urls_boto3_generates_verify(key: str, version: str):
    s3 = client(version)
    extra = {"ResponseContentDisposition": 'attachment; filename="a b+ü.txt"', "VersionId": "+/="}
    for call, method, arguments in (
        ("get_object", "GET", {"Key": key, **extra}),
        ("head_object", "HEAD", {"Key": key}),
        ("upload_part", "PUT", {"Key": key, "UploadId": "u+/=", "PartNumber": 3}),
        ("list_objects_v2", "GET", {"Prefix": key, "Delimiter": "/"}),
        ("get_object_tagging", "GET", {"Key": key}),
        ("delete_object", "DELETE", {"Key": key}),
    ):
        url = s3.generate_presigned_url(call, {"Bucket": "bucket", **arguments})
        assert ("AWSAccessKeyId" in url) == (version == "s3")
        assert verify(url, datetime.now(UTC), method).access_key == KEY


@pytest.mark.parametrize("key", TORTURE_KEYS)
def test_what_we_presign_we_verify(key: str):
    url = presign(f"{ORIGIN}/b/{query.quote_path(key)}?versionId=a%2Bb&acl")
    assert verify(url).access_key == KEY


def test_a_session_token_and_an_empty_path_are_presigned():
    temporary = sigv4.Credentials(KEY, SECRET, "to/ken+")
    url = presigned.presign(temporary, "us-east-1", "GET", ORIGIN, 60, THEN)
    assert "X-Amz-Security-Token=to%2Fken%2B" in url
    assert verify(url)


@pytest.mark.parametrize(
    "change",
    [
        ("/b/k", "/b/other"),
        ("/b/k", "/b//k"),
        ("3600", "3601"),
        ("SignedHeaders=host", "SignedHeaders=host%3Bx"),
        ("X-Amz-Signature=", "acl&X-Amz-Signature="),
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
        ("gw:8014", "gw"),
    ],
)
def test_a_changed_url_does_not_match(change: tuple[str, str]):
    assert refusal(presign().replace(*change)).code == "SignatureDoesNotMatch"


def test_another_method_does_not_match():
    error = refusal(presign(), method="HEAD")
    assert error.code == "SignatureDoesNotMatch"
    assert error.fields["CanonicalRequest"].startswith("HEAD\n/b/k\nX-Amz-Algorithm=")


def test_a_differently_encoded_url_verifies():
    url = presign(f"{ORIGIN}/b/a%3Db%20c?prefix=a%20b")
    assert verify(url.replace("a%3Db", "a=b").replace("prefix=a%20b", "prefix=a+b"))
    assert verify(url.replace("%2F", "/"))


@pytest.mark.parametrize("seconds", [-900, 0, 3600])
def test_a_url_is_good_for_its_lifetime(seconds: int):
    assert verify(presign(), THEN + timedelta(seconds=seconds))


def test_a_url_past_its_lifetime_has_expired():
    error = refusal(presign(), THEN + timedelta(seconds=3601))
    assert (error.code, error.message) == ("AccessDenied", "Request has expired")
    assert error.fields["Expires"] == "2013-05-24T01:00:00Z"
    assert error.fields["ServerTime"] == "2013-05-24T01:00:01Z"


def test_a_url_from_the_future_is_skewed():
    assert refusal(presign(), THEN - timedelta(seconds=901)).code == "RequestTimeTooSkewed"


def test_expiry_comes_before_any_key_is_looked_up():
    late = presign().replace(KEY, "unknown")
    assert refusal(late, THEN + timedelta(days=1)).message == "Request has expired"
    assert refusal(late).code == "InvalidAccessKeyId"


def test_a_week_is_the_longest_lifetime():
    assert verify(presign(expires=604800), THEN + timedelta(days=7))
    assert refusal(presign(expires=604801)).code == "AuthorizationQueryParametersError"


def test_a_url_signed_at_the_end_of_the_calendar_is_no_accident():
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    url = presigned.presign(CREDENTIALS, "us-east-1", "GET", f"{ORIGIN}/b/k", 604800, end)
    assert verify(url, end).access_key == KEY


@pytest.mark.parametrize(
    "change",
    [
        ("X-Amz-Expires=3600", "X-Amz-Expires=soon"),
        ("X-Amz-Expires=3600", "X-Amz-Expires=-1"),
        ("X-Amz-Expires=3600", "X-Amz-Expires=-"),
        ("X-Amz-Expires=3600", "X-Amz-Expires=%C2%B9"),
        ("X-Amz-Expires=3600", "X-Amz-Expires=" + "9" * 5000),
        ("X-Amz-Expires=3600", "X-Amz-Expires="),
        ("&X-Amz-Expires=3600", ""),
        ("&X-Amz-SignedHeaders=host", ""),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256&", ""),
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-MD5"),
        ("X-Amz-Date=20130524T000000Z", "X-Amz-Date=20130524"),
        ("X-Amz-Date=20130524", "X-Amz-Date=20130525"),
        (f"{KEY}%2F", ""),
        (KEY, ""),
        ("%2Fs3%2F", "%2Fsts%2F"),
        ("aws4_request", "aws4"),
        ("%2F20130524", "%2F2013"),
    ],
)
def test_malformed_parameters_get_their_own_error(change: tuple[str, str]):
    error = refusal(presign().replace(*change))
    assert error.code == "AuthorizationQueryParametersError"


def test_version_4a_is_not_implemented():
    url = presign().replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")
    assert refusal(url).code == "NotImplemented"


def test_another_region_is_refused_when_one_is_expected():
    head = head_of(presign())
    assert presigned.verify_query(head, LOOKUP, THEN, region="us-east-1")
    with pytest.raises(S3Error) as caught:
        presigned.verify_query(head, LOOKUP, THEN, region="eu-west-1")
    assert caught.value.code == "AuthorizationQueryParametersError"
    assert "'us-east-1' is wrong; expecting 'eu-west-1'" in caught.value.message


def test_amazon_headers_nobody_signed_are_refused():
    error = refusal(presign(method="PUT"), method="PUT", x_amz_acl="public-read")
    assert error.code == "AccessDenied"
    assert error.fields["HeadersNotSigned"] == "x-amz-acl"


def test_an_unsigned_payload_hash_says_how_to_read_the_body():
    mode = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    who = verify(presign(method="PUT"), method="PUT", x_amz_content_sha256=mode)
    assert who.payload_hash == mode


def test_a_payload_hash_in_the_url_is_binding():
    url = presign(f"{ORIGIN}/b/k?X-Amz-Content-Sha256=UNSIGNED-PAYLOAD")
    assert verify(url).payload_hash == "UNSIGNED-PAYLOAD"
    url = presign(f"{ORIGIN}/b/k?X-Amz-Content-Sha256={'0' * 64}")
    assert refusal(url).code == "SignatureDoesNotMatch"  # presign signs UNSIGNED-PAYLOAD


def test_headers_hoisted_into_the_url_are_found():
    url = presign(f"{ORIGIN}/b/k?x-amz-acl=private&X-Amz-Meta-A=b%20c&acl")
    assert verify(url)
    assert presigned.hoisted_headers(head_of(url).query) == [
        ("x-amz-acl", "private"),
        ("x-amz-meta-a", "b c"),
    ]


def test_presigned_requests_are_recognised_by_their_parameters():
    assert presigned.is_presigned([("a", ""), ("X-Amz-Signature", "")])
    assert presigned.is_presigned([("X-Amz-Algorithm", "")])
    assert presigned.is_presigned([("AWSAccessKeyId", KEY)])
    assert not presigned.is_presigned([("x-id", "GetObject"), ("Signature", "")])


# --- version 2 ------------------------------------------------------------------------------------


def sign_v2(
    text: str, target: str = "/b/k", expires: str = "1369357200", encode: Callable = query.quote
) -> str:
    """A URL whose signature covers the given string, which the test writes out."""
    digest = hmac.digest(SECRET.encode(), text.encode(), "sha1")
    signature = encode(base64.b64encode(digest).decode())
    joint = "&" if "?" in target else "?"
    parameters = f"AWSAccessKeyId={KEY}&Signature={signature}&Expires={expires}"
    return f"{ORIGIN}{target}{joint}{parameters}"


def test_the_version_2_example_aws_publishes_verifies():
    # "Query String Request Authentication Alternative", the bucket in the host.
    url = (
        f"http://johnsmith.s3.amazonaws.com/photos/puppy.jpg?AWSAccessKeyId={KEY}"
        "&Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620"
    )
    now = datetime.fromtimestamp(1175139620, UTC)
    who = presigned.verify_query(head_of(url), LOOKUP, now, virtual_bucket="johnsmith")
    assert who == sigv4.Authenticated(KEY, "UNSIGNED-PAYLOAD")


@pytest.mark.parametrize("key", TORTURE_KEYS)
def test_botocores_version_2_urls_verify(key: str):
    for method, raw_query, headers in (
        ("GET", "", {}),
        ("GET", "versionId=a%2Bb%2F%3D&response-content-type=text%2Fplain", {}),
        ("GET", "prefix=a&acl", {}),
        ("PUT", "uploadId=x&partNumber=1", {"Content-Type": "text/plain"}),
        (
            "PUT",
            "",
            {"Content-MD5": "rL0Y20xC+Fzt72VPzMSk2A==", "x-amz-meta-b": " v ", "X-Amz-Acl": "p"},
        ),
    ):
        url = f"{ORIGIN}/bucket/{query.quote_path(key)}" + (raw_query and f"?{raw_query}")
        request = AWSRequest(method, url, headers=headers)
        HmacV1QueryAuth(BotoCredentials(KEY, SECRET, "to/ken+"), 60).add_auth(request)
        now = datetime.now(UTC)
        assert verify(request.url, now, method).access_key == KEY
        sent = {name.replace("-", "_"): value for name, value in headers.items()}
        assert verify(request.url, now, method, **sent).payload_hash == "UNSIGNED-PAYLOAD"


def test_version_2_puts_of_boto3_verify_with_their_content_type():
    arguments = {"Bucket": "b", "Key": "k", "ContentType": "text/plain", "ACL": "private"}
    url = client("s3").generate_presigned_url("put_object", {**arguments, "Metadata": {"a": "b"}})
    now = datetime.now(UTC)
    assert verify(url, now, "PUT", content_type="text/plain")
    assert refusal(url, now, "PUT", content_type="text/html").code == "SignatureDoesNotMatch"
    assert refusal(url, now, "PUT", x_amz_acl="public-read").code == "SignatureDoesNotMatch"


def test_a_version_2_url_may_name_the_bucket_in_its_host():
    url = sign_v2("GET\n\n\n1369357200\n/b/k", target="/k")
    assert refusal(url).code == "SignatureDoesNotMatch"
    assert presigned.verify_query(head_of(url), LOOKUP, THEN, virtual_bucket="b").access_key == KEY


def test_a_version_2_signature_signs_nothing_inside_the_body():
    who = verify(sign_v2("GET\n\n\n1369357200\n/b/k"))
    assert (who.scope, who.amz_date, who.signing_key, who.seed_signature) == ("", "", b"", "")


def test_a_plus_in_the_signature_need_not_be_encoded():
    for expires in range(1369357200, 1369357264):
        text = f"GET\n\n\n{expires}\n/b/k"
        assert verify(sign_v2(text, expires=str(expires), encode=str))


@pytest.mark.parametrize(
    "added",
    [
        "acl",
        "%61cl",
        "a%63l=",
        "uploadId=x",
        "partNumber=1",
        "tagging",
        "legal-hold=",
        "new",
        "response-content-type=text%2Fhtml",
        "x-amz-acl=public-read",
        "X-Amz-%41cl=public-read",
        "%FFx",
    ],
)
def test_nothing_can_be_added_to_a_version_2_url(added: str):
    url = sign_v2("GET\n\n\n1369357200\n/b/k")
    assert verify(url)
    code = "InvalidURI" if "%FF" in added else "SignatureDoesNotMatch"
    assert refusal(f"{url}&{added}").code == code
    assert refusal(url.replace("?", f"?{added}&")).code == code


def test_a_listing_signed_with_version_2_may_be_paged():
    url = sign_v2("GET\n\n\n1369357200\n/b", target="/b?list-type=2&prefix=x")
    assert verify(f"{url}&continuation-token=abc&max-keys=10&")


def test_a_version_2_mismatch_tells_what_was_computed():
    error = refusal(sign_v2("something else"))
    assert error.code == "SignatureDoesNotMatch"
    assert error.fields["StringToSign"] == "GET\n\n\n1369357200\n/b/k"
    assert error.fields["AWSAccessKeyId"] == KEY
    assert bytes.fromhex(error.fields["StringToSignBytes"]) == b"GET\n\n\n1369357200\n/b/k"


def test_repeated_amazon_headers_are_joined_for_version_2():
    text = "GET\n\n\n1369357200\nx-amz-meta-a:1,2\n/b/k"
    raw = [(b"host", b"gw"), (b"x-amz-meta-a", b" 1"), (b"X-Amz-Meta-A", b"2 ")]
    head = head_of(sign_v2(text))
    sent = RequestHead("GET", head.raw_path, head.raw_query, Headers(raw))
    assert presigned.verify_query(sent, LOOKUP, THEN)


def test_version_2_urls_expire():
    url = sign_v2("GET\n\n\n1369357200\n/b/k")
    assert verify(url, datetime.fromtimestamp(1369357200, UTC))
    error = refusal(url, datetime.fromtimestamp(1369357201, UTC))
    assert (error.code, error.message) == ("AccessDenied", "Request has expired")
    assert error.fields["Expires"] == "2013-05-24T01:00:00Z"


@pytest.mark.parametrize("expires", ["soon", "-1", "1e9", "9" * 12, "%C2%B9", "1.5"])
def test_a_version_2_url_needs_a_date_it_can_expire_at(expires: str):
    assert refusal(sign_v2("", expires=expires)).code == "AccessDenied"


@pytest.mark.parametrize("change", [("Signature=", "S="), ("Expires=", "E="), (f"={KEY}", "=")])
def test_an_incomplete_version_2_url_is_denied(change: tuple[str, str]):
    assert refusal(sign_v2("").replace(*change)).code == "AccessDenied"


def test_an_unknown_key_is_named():
    error = refusal(sign_v2("").replace(KEY, "nobody"))
    assert (error.code, error.fields["AWSAccessKeyId"]) == ("InvalidAccessKeyId", "nobody")


def test_version_2_can_be_turned_off_and_says_what_to_use():
    url = client("s3").generate_presigned_url("get_object", {"Bucket": "b", "Key": "k"})
    with pytest.raises(S3Error) as caught:
        presigned.verify_query(head_of(url), LOOKUP, datetime.now(UTC), sigv2=False)
    assert caught.value.code == "InvalidRequest"
    assert "signature_version='s3v4'" in caught.value.message


def test_version_4_counts_when_a_url_carries_both():
    url = presign(f"{ORIGIN}/b/k?AWSAccessKeyId=x&Signature=y&Expires={int(time.time())}")
    assert verify(url).scope


def test_of_a_header_and_a_parameter_of_one_name_the_signed_one_counts():
    sent = Headers([("x-amz-grant-read", 'id="owner"'), ("host", "h")])
    added = [("x-amz-grant-read", "everybody"), ("X-Amz-Meta-A", "1")]
    of_4 = presigned.with_hoisted(sent, added, version=4)
    assert of_4.items() == [("host", "h"), ("x-amz-grant-read", "everybody"), ("x-amz-meta-a", "1")]
    of_2 = presigned.with_hoisted(sent, added, version=2)
    assert of_2.items() == [*sent.items(), ("x-amz-meta-a", "1")]
