"""Presigned URLs: Signature Version 4 in the query, and Version 2 because boto3 still writes it.

Rule: a presigned URL is good for what it was signed for and for as long as it says, at most seven
days for Version 4, and not a parameter more: every parameter but the signature itself is part of
what Version 4 signs, and everything but the paging of a listing is part of what Version 2
signs here. Version 2 exists in the query only, and only where the operator allows
it.
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html
"""

import base64
import hmac
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib import parse

from s4gateway.s3 import sigv4
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers, RequestHead
from s4gateway.s3.keyed_hash import hmac_sha256
from s4gateway.s3.query import quote

MAX_EXPIRES: Final = 7 * 24 * 3600

_V4_PARAMETERS: Final = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
)
_NOT_HEADERS: Final = frozenset(name.lower() for name in _V4_PARAMETERS)

# What Version 2 leaves unsigned: its own parameters, headers in disguise, and how a listing pages.
# All else counts as a sub-resource, or one could be added to someone else's URL.
_V2_UNSIGNED: Final = frozenset(
    {
        *("AWSAccessKeyId", "Expires", "Signature"),
        *("content-md5", "content-type"),
        *("list-type", "prefix", "delimiter", "encoding-type", "max-keys", "fetch-owner"),
        *("continuation-token", "start-after", "marker", "key-marker", "version-id-marker"),
        *("max-uploads", "upload-id-marker", "max-parts", "part-number-marker"),
        *("max-buckets", "bucket-region", "id", "x-id"),
    }
)


def is_presigned(query: Sequence[tuple[str, str]]) -> bool:
    """Whether a decoded query claims to carry a signature of either version."""
    return any(
        name in ("X-Amz-Algorithm", "X-Amz-Signature", "AWSAccessKeyId") for name, _ in query
    )


def hoisted_headers(query: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers a presigned URL carries as x-amz-* parameters, which S3 reads like headers.

    >>> hoisted_headers([("X-Amz-Date", "20130524T000000Z"), ("X-Amz-Meta-A", "1"), ("acl", "")])
    [('x-amz-meta-a', '1')]
    """
    found = []
    for name, value in query:
        lower = name.lower()
        if lower.startswith("x-amz-") and lower not in _NOT_HEADERS:
            found.append((lower, value))
    return found


def with_hoisted(headers: Headers, query: Sequence[tuple[str, str]], *, version: int) -> Headers:
    """The headers of a presigned request, with those that its URL carries; one of each name.

    Rule: what was signed counts. Version 4 signs the whole query, and anybody may add a header.
    Version 2 signs no parameter that is a header, and takes the header where there are both.

    >>> sent = Headers([("x-amz-content-sha256", "anything")])
    >>> signed = [("X-Amz-Content-Sha256", "e3b0")]
    >>> with_hoisted(sent, signed, version=4).get("x-amz-content-sha256")
    'e3b0'
    """
    hoisted = hoisted_headers(query)
    if version == 4:
        names = {name for name, _ in hoisted}
        return Headers([pair for pair in headers.items() if pair[0] not in names] + hoisted)
    return Headers(headers.items() + [pair for pair in hoisted if pair[0] not in headers])


def verify_query(
    head: RequestHead,
    lookup: sigv4.Lookup,
    now: datetime,
    *,
    region: str | None = None,
    sigv2: bool = True,
    virtual_bucket: str | None = None,
) -> sigv4.Authenticated:
    """Verify a presigned request of either version.

    ``region`` is the only one accepted in a Version 4 scope when given. ``sigv2`` admits Version 2;
    for it ``virtual_bucket`` is the bucket the Host header named, if any. Raises
    ``AuthorizationQueryParametersError``, ``AccessDenied`` (expired, unsigned headers),
    ``RequestTimeTooSkewed`` (dated in the future), ``InvalidAccessKeyId``,
    ``SignatureDoesNotMatch``, and ``InvalidRequest`` for a version that is not admitted.
    """
    parameters: dict[str, str] = {}
    for name, value in head.query:
        parameters.setdefault(name, value)
    if "X-Amz-Algorithm" in parameters or "X-Amz-Signature" in parameters:
        return _verify_v4(head, parameters, lookup, now, region)
    if not sigv2:
        raise not_admitted()
    return _verify_v2(head, parameters, lookup, now, virtual_bucket)


def not_admitted() -> S3Error:
    """The refusal of Signature Version 2 where the operator does not allow it."""
    return S3Error(
        "InvalidRequest",
        "The authorization mechanism you have provided is not supported. Please use "
        "AWS4-HMAC-SHA256 (in boto3: Config(signature_version='s3v4')).",
    )


def _query_fault(message: str | None = None) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", message)


def _verify_v4(
    head: RequestHead,
    parameters: dict[str, str],
    lookup: sigv4.Lookup,
    now: datetime,
    region: str | None,
) -> sigv4.Authenticated:
    if not all(parameters.get(name) for name in _V4_PARAMETERS):
        raise _query_fault()
    claim = query_claim(parameters, region)
    _check_lifetime(parameters, claim.amz_date, now)
    in_query = parameters.get("X-Amz-Content-Sha256")
    if in_query is not None:
        hashes: tuple[str, ...] = (in_query,)
    else:
        in_header = head.headers.get("x-amz-content-sha256", sigv4.UNSIGNED_PAYLOAD)
        # An unsigned header still says how to read the body; the URL was signed without it.
        hashes = (in_header, sigv4.UNSIGNED_PAYLOAD)
    return sigv4.verify_claim(head, claim, lookup, hashes, "X-Amz-Signature")


def query_claim(parameters: Mapping[str, str], region: str | None) -> sigv4.Claim:
    """The claim made by the X-Amz-* parameters of a URL, or by the fields of the same names.

    Those of a form name no signed headers. Raises AuthorizationQueryParametersError, also for a
    region that is not `region` when that is given, and NotImplemented for SigV4A.
    """
    algorithm = parameters["X-Amz-Algorithm"]
    if algorithm.startswith("AWS4-ECDSA-P256-SHA256"):
        raise S3Error("NotImplemented", "Signature Version 4A is not implemented.")
    if algorithm != sigv4.ALGORITHM:
        raise _query_fault(f'X-Amz-Algorithm only supports "{sigv4.ALGORITHM}"')
    parts = parameters["X-Amz-Credential"].rsplit("/", 4)
    if len(parts) != 5 or not parts[0]:
        raise _query_fault(
            "Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; "
            'expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
        )
    access_key, date, scoped, service, terminal = parts
    fault = sigv4.scope_fault(date, service, terminal)
    if fault is not None:
        raise _query_fault(f"Error parsing the X-Amz-Credential parameter; {fault}")
    amz_date = parameters["X-Amz-Date"]
    if date != amz_date[:8]:
        raise _query_fault(
            f'Invalid credential date "{date}". This date is not the same as X-Amz-Date: '
            f'"{amz_date[:8]}".'
        )
    if region is not None and scoped != region:
        raise _query_fault(
            "Error parsing the X-Amz-Credential parameter; "
            f"the region '{scoped}' is wrong; expecting '{region}'"
        )
    return sigv4.Claim(
        access_key,
        date,
        scoped,
        amz_date,
        parameters.get("X-Amz-SignedHeaders", ""),
        parameters["X-Amz-Signature"],
    )


def _check_lifetime(parameters: dict[str, str], amz_date: str, now: datetime) -> None:
    signed_at = sigv4.parse_timestamp(amz_date)
    if signed_at is None:
        raise _query_fault("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    text = parameters["X-Amz-Expires"]
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise _query_fault("X-Amz-Expires should be a number")
    if text != digits:
        raise _query_fault("X-Amz-Expires must be non-negative")
    if len(digits) > 6 or int(digits) > MAX_EXPIRES:
        raise _query_fault(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given "
            "X-Amz-Expires must be less than 604800 seconds"
        )
    if signed_at - now > sigv4.MAX_SKEW:
        sigv4.check_skew(signed_at, now, sigv4.MAX_SKEW)
    # Not signed_at + lifetime: that may pass the end of the calendar.
    if now - signed_at > timedelta(seconds=int(digits)):
        raise _expired(signed_at + timedelta(seconds=int(digits)), now)


def _expired(at: datetime, now: datetime) -> S3Error:
    return S3Error(
        "AccessDenied",
        "Request has expired",
        Expires=f"{at:%Y-%m-%dT%H:%M:%SZ}",
        ServerTime=f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    )


def _verify_v2(
    head: RequestHead,
    parameters: dict[str, str],
    lookup: sigv4.Lookup,
    now: datetime,
    virtual_bucket: str | None,
) -> sigv4.Authenticated:
    access_key, expires = parameters.get("AWSAccessKeyId"), parameters.get("Expires")
    # Base64 has no spaces: one stands for a "+" that the writer of the URL did not encode.
    signature = parameters.get("Signature", "").replace(" ", "+")
    if not (access_key and expires and signature):
        raise S3Error(
            "AccessDenied",
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId "
            "parameters",
        )
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 11):
        raise S3Error(
            "AccessDenied", f"Invalid date (should be seconds since epoch): {expires[:64]}"
        )
    if int(expires) < now.timestamp():
        raise _expired(datetime.fromtimestamp(int(expires), UTC), now)
    secret = lookup(access_key)
    if secret is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key)
    prefix = _v2_prefix(head, expires)
    parameters_signed = _v2_subresources(head.raw_query)
    offered = signature.encode("utf-8", "replace")
    first: bytes | None = None
    for resource in _v2_resources(head.raw_path, virtual_bucket):
        text = b"%b%b%b" % (prefix, resource, parameters_signed)
        expected = base64.b64encode(hmac.digest(secret.encode(), text, "sha1"))
        if hmac.compare_digest(expected, offered):
            payload_hash = head.headers.get("x-amz-content-sha256", sigv4.UNSIGNED_PAYLOAD)
            return sigv4.Authenticated(access_key, payload_hash)
        first = first or text
    assert first is not None
    raise S3Error(
        "SignatureDoesNotMatch",
        AWSAccessKeyId=access_key,
        StringToSign=first.decode("utf-8", "replace"),
        SignatureProvided=signature,
        StringToSignBytes=first.hex(" "),
    )


def _v2_resources(raw_path: str, virtual_bucket: str | None) -> Iterator[bytes]:
    """The forms of a resource Version 2 may have signed; a bucket alone also with its slash."""
    bucket = b"" if virtual_bucket is None else b"/" + virtual_bucket.encode()
    for path, _ in sigv4.encodings(raw_path, ""):
        yield bucket + path
        if not bucket and path.count(b"/") == 1 and len(path) > 1:
            yield path + b"/"


def _v2_prefix(head: RequestHead, expires: str) -> bytes:
    """The string to sign of Version 2 up to the resource.

    A presigned URL carries headers as parameters of the same name; where both exist the request
    header counts.
    """
    in_query = _joined([(name.lower().encode(), value.encode()) for name, value in head.query])
    received = _joined(head.headers.raw)
    fields = in_query | received
    amz = sorted([item for item in fields.items() if item[0].startswith(b"x-amz-")])
    lines = [
        head.method.encode(),
        fields.get(b"content-md5", b""),
        fields.get(b"content-type", b""),
        expires.encode(),
        *[b"%b:%b" % item for item in amz],
    ]
    return b"\n".join(lines) + b"\n"


def _joined(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Trimmed fields by name, repeats joined with ","."""
    fields: dict[bytes, bytes] = {}
    for name, value in pairs:
        trimmed = value.strip()
        fields[name] = b"%b,%b" % (fields[name], trimmed) if name in fields else trimmed
    return fields


def _v2_subresources(raw_query: str) -> bytes:
    """The parameters Version 2 signs, sorted by name and decoded."""
    found = []
    for parameter in raw_query.encode("latin-1", "backslashreplace").split(b"&"):
        raw_name, equals, value = parameter.partition(b"=")
        name = parse.unquote_to_bytes(raw_name)
        text = name.decode("latin-1")
        if name and text not in _V2_UNSIGNED and not text.lower().startswith("x-amz-"):
            found.append((name, equals + parse.unquote_to_bytes(value)))
    if not found:
        return b""
    found.sort(key=lambda pair: pair[0])
    return b"?" + b"&".join([name + value for name, value in found])


def presign(
    credentials: sigv4.Credentials,
    region: str,
    method: str,
    url: str,
    expires: int,
    now: datetime,
) -> str:
    """A Version 4 presigned URL from an encoded URL, good for ``expires`` seconds from now.

    Only the host is signed, so that the user may send any other header; x-amz-* ones go into the
    query of ``url`` beforehand.
    """
    split = parse.urlsplit(url)
    amz_date = sigv4.timestamp(now)
    scope = f"{amz_date[:8]}/{region}/s3/aws4_request"
    added = [
        ("X-Amz-Algorithm", sigv4.ALGORITHM),
        ("X-Amz-Credential", f"{credentials.access_key}/{scope}"),
        ("X-Amz-Date", amz_date),
        ("X-Amz-Expires", str(expires)),
        ("X-Amz-SignedHeaders", "host"),
    ]
    if credentials.session_token is not None:
        added.append(("X-Amz-Security-Token", credentials.session_token))
    query = "&".join([*filter(None, [split.query]), *[f"{n}={quote(v)}" for n, v in added]])
    canonical = sigv4.canonical_request(
        method,
        split.path or "/",
        sigv4.canonical_query(query),
        [("host", split.netloc)],
        "host",
        sigv4.UNSIGNED_PAYLOAD,
    )
    text = sigv4.string_to_sign(amz_date, scope, canonical.encode())
    key = sigv4.signing_key(credentials.secret, amz_date[:8], region)
    signature = hmac_sha256(key, text.encode())
    path = split.path or "/"
    return f"{split.scheme}://{split.netloc}{path}?{query}&X-Amz-Signature={signature}"
