"""AWS Signature Version 4 in the Authorization header: we verify clients and sign to the backend.

Rule: a request is verified over the bytes that arrived (raw path, raw query, raw header values).
Only if that fails is it verified again over the same path and query in S3's own percent-encoding,
because clients differ in which harmless bytes they escape on the wire and in what they sign; such a
form always decodes to the same bucket and the same key. Nothing is ever verified over a path that
was resolved or collapsed. Signatures are compared in constant time, and the clock is an argument.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final
from urllib import parse

from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import RequestHead
from s4gateway.s3.keyed_hash import hmac_sha256
from s4gateway.values import immutable

ALGORITHM: Final = "AWS4-HMAC-SHA256"
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
MAX_SKEW: Final = timedelta(minutes=15)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# The one shape every SDK writes; anything else takes the slow path, which names the fault.
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([^,\s]+), *SignedHeaders=([^,\s]+), *Signature=([0-9a-f]{64})"
)
_COMPONENTS: Final = ("Credential", "SignedHeaders", "Signature")
_ENCODED_SLASH: Final = re.compile(rb"%2[fF]")
# CloudFront adds this one after the client has signed.
_NEVER_SIGNED: Final = frozenset({b"x-amz-cf-id"})

Lookup = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key with its secret, and the session token of temporary credentials."""

    access_key: str
    secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@immutable
class Authenticated:
    """Who signed a request, and what the signatures inside its body continue from.

    ``payload_hash`` is the value of x-amz-content-sha256 the body has to be checked against.
    ``scope`` is "yyyymmdd/region/service/aws4_request", ``amz_date`` "yyyymmddThhmmssZ"; both,
    and ``signing_key`` and ``seed_signature``, are empty for a SigV2 signature.
    """

    access_key: str
    payload_hash: str
    scope: str = ""
    amz_date: str = ""
    signing_key: bytes = field(default=b"", repr=False)
    seed_signature: str = ""


@immutable
class Claim:
    """What a request says about its own signature, parsed and well formed but not yet believed."""

    access_key: str
    date: str
    region: str
    amz_date: str
    signed_headers: str
    signature: str

    @property
    def scope(self) -> str:
        """The credential scope."""
        return f"{self.date}/{self.region}/s3/aws4_request"


@lru_cache(maxsize=4096)
def signing_key(secret: str, date: str, region: str, service: str = "s3") -> bytes:
    """Derive the key of one day, region and service (kDate, kRegion, kService, kSigning)."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def timestamp(moment: datetime) -> str:
    """ISO 8601 basic form in UTC: "20130524T000000Z"."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return _timestamp(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second)


@lru_cache(maxsize=16)  # many requests share a second
def _timestamp(year: int, month: int, day: int, hour: int, minute: int, second: int) -> str:
    return f"{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z"


@lru_cache(maxsize=64)
def parse_timestamp(text: str) -> datetime | None:
    """The moment an ISO 8601 basic timestamp names; None when it is anything else."""
    if len(text) != 16 or text[8] != "T" or text[15] != "Z":
        return None
    if not (text.isascii() and text[:8].isdigit() and text[9:15].isdigit()):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def canonical_query(raw_query: str, without: str | None = None) -> str:
    """An encoded query string in signing order: by name, then value; "acl" becomes "acl=".

    ``without`` names a parameter to leave out (a presigned URL's own signature).

    >>> canonical_query("prefix=b&acl&prefix=a")
    'acl=&prefix=a&prefix=b'
    """
    if not raw_query:
        return ""
    pairs = []
    for parameter in raw_query.split("&"):
        if parameter:
            name, _, value = parameter.partition("=")
            if name != without:
                pairs.append((name, value))
    pairs.sort()
    return "&".join([f"{name}={value}" for name, value in pairs])


def canonical_request(
    method: str,
    raw_path: str,
    query: str,
    headers: Iterable[tuple[str, str]],
    signed_headers: str,
    payload_hash: str,
) -> str:
    """The canonical request of an encoded path, a canonical query and headers in signing order."""
    lines = "".join([f"{name}:{value}\n" for name, value in headers])
    return f"{method}\n{raw_path}\n{query}\n{lines}\n{signed_headers}\n{payload_hash}"


def string_to_sign(amz_date: str, scope: str, canonical: bytes) -> str:
    """The string to sign of a canonical request."""
    return f"{ALGORITHM}\n{amz_date}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"


class Signer:
    """Signs requests to one region with one identity.

    The signing key is derived once a day. Instances are safe to share between threads.
    """

    __slots__ = ("_day", "credentials", "region", "service")

    def __init__(self, credentials: Credentials, region: str, service: str = "s3") -> None:
        self.credentials = credentials
        self.region = region
        self.service = service
        self._day = ("", "", b"")

    def _key_of(self, date: str) -> tuple[str, str, bytes]:
        scope = f"{date}/{self.region}/{self.service}/aws4_request"
        key = signing_key(self.credentials.secret, date, self.region, self.service)
        self._day = day = (date, scope, key)
        return day

    def sign(
        self,
        method: str,
        host: str,
        raw_path: str,
        raw_query: str,
        headers: Collection[tuple[str, str]],
        payload_hash: str,
        now: datetime,
    ) -> list[tuple[str, str]]:
        """The headers to add to a request.

        ``raw_path`` and ``raw_query`` are S3-encoded and reach the wire as they are. ``headers``
        are all signed, as UTF-8; they name neither host nor what this method returns.
        ``payload_hash`` is a SHA-256 in hex or ``UNSIGNED_PAYLOAD``.
        """
        amz_date = timestamp(now)
        day = self._day
        if day[0] != amz_date[:8]:
            day = self._key_of(amz_date[:8])
        _, scope, key = day
        added = [("x-amz-content-sha256", payload_hash), ("x-amz-date", amz_date)]
        if self.credentials.session_token is not None:
            added.append(("x-amz-security-token", self.credentials.session_token))
        signed = [("host", host), *added]
        if headers:
            signed += [(name.lower(), _collapse(value)) for name, value in headers]
            signed.sort()
        names = ";".join([name for name, _ in signed])
        canonical = canonical_request(
            method, raw_path, canonical_query(raw_query), signed, names, payload_hash
        )
        text = string_to_sign(amz_date, scope, canonical.encode())
        signature = hmac_sha256(key, text.encode())
        credential = f"{self.credentials.access_key}/{scope}"
        authorization = (
            f"{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
        )
        added.append(("authorization", authorization))
        return added


def _collapse(value: str) -> str:
    r"""Trim a header value and make each run of white space one space: of ASCII's, no other.

    >>> _collapse(" a  b\xa0 ")
    'a b\xa0'
    """
    if " " not in value and value.isprintable():  # no white space at all, which is the rule
        return value
    return b" ".join(value.encode().split()).decode()


def verify_header(
    head: RequestHead,
    lookup: Lookup,
    now: datetime,
    skew: timedelta = MAX_SKEW,
    region: str | None = None,
) -> Authenticated:
    """Verify the Authorization header of a request.

    ``lookup`` maps an access key to its secret, or None. ``region`` is the only one accepted in the
    credential scope when given. Raises ``AccessDenied`` (no signature, no valid date, unsigned
    headers), ``AuthorizationHeaderMalformed``, ``InvalidArgument`` and ``InvalidRequest`` (another
    authorization type), ``InvalidAccessKeyId``, ``RequestTimeTooSkewed``,
    ``SignatureDoesNotMatch``, and ``NotImplemented`` for SigV4A.
    """
    authorization = head.headers.get("authorization")
    if not authorization:
        raise S3Error("AccessDenied")
    match = _AUTHORIZATION.fullmatch(authorization)
    components = match.groups() if match is not None else _components(authorization)
    amz_date, moment = _request_time(head)
    claim = header_claim(components, amz_date)
    if region is not None and claim.region != region:
        raise S3Error(
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; "
            f"the region '{claim.region}' is wrong; expecting '{region}'",
            Region=region,
        )
    check_skew(moment, now, skew)
    payload_hash = head.headers.get("x-amz-content-sha256")
    if not payload_hash:
        raise S3Error(
            "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"
        )
    return verify_claim(head, claim, lookup, (payload_hash,))


def header_claim(components: Sequence[str], amz_date: str) -> Claim:
    """The claim made by Credential, SignedHeaders and Signature of an Authorization header."""
    credential, signed_headers, signature = components
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or not parts[0]:
        raise _malformed(
            'the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/'
            'aws4_request".'
        )
    access_key, date, region, service, terminal = parts
    fault = scope_fault(date, service, terminal)
    if fault is not None:
        raise _malformed(fault)
    if date != amz_date[:8]:
        raise _malformed("Invalid credential date. Date is not the same as X-Amz-Date.")
    return Claim(access_key, date, region, amz_date, signed_headers, signature)


def scope_fault(date: str, service: str, terminal: str) -> str | None:
    """What S3 finds wrong with these parts of a credential scope, in its words; or None."""
    if service != "s3":
        return f'incorrect service "{service}". This endpoint belongs to "s3".'
    if terminal != "aws4_request":
        return f'incorrect terminal "{terminal}". This endpoint uses "aws4_request".'
    if parse_timestamp(f"{date}T000000Z") is None:
        return (
            f'incorrect date format "{date}". This date in the credential must be in the format '
            '"yyyyMMdd".'
        )
    return None


def _malformed(fault: str) -> S3Error:
    return S3Error(
        "AuthorizationHeaderMalformed", f"The authorization header is malformed; {fault}"
    )


def _components(authorization: str) -> list[str]:
    """Credential, SignedHeaders and Signature in any order, or the error S3 gives for the rest."""
    kind, _, rest = authorization.partition(" ")
    if kind == "AWS":
        raise S3Error(
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. "
            "Please use AWS4-HMAC-SHA256.",
        )
    if kind.startswith("AWS4-ECDSA-P256-SHA256"):
        raise S3Error("NotImplemented", "Signature Version 4A is not implemented.")
    if kind != ALGORITHM:
        raise S3Error(
            "InvalidArgument",
            "Unsupported Authorization Type",
            ArgumentName="Authorization",
            ArgumentValue=authorization,
        )
    found: dict[str, str] = {}
    for component in rest.split(","):
        name, equals, value = component.strip().partition("=")
        if not equals or name not in _COMPONENTS or name in found:
            raise _malformed(f'the authorization component "{component.strip()}" is malformed.')
        found[name] = value.strip()
    for name in _COMPONENTS:
        if not found.get(name):
            raise _malformed(f"missing {name}.")
    return [found[name] for name in _COMPONENTS]


def _request_time(head: RequestHead) -> tuple[str, datetime]:
    """Timestamp of the string to sign, from x-amz-date or else Date."""
    amz_date = head.headers.get("x-amz-date")
    moment = None
    if amz_date is not None:
        moment = parse_timestamp(amz_date)
    elif (date := head.headers.get("date")) is not None:
        moment = parse_timestamp(date) or _parse_http_date(date)
    if moment is None or moment < _EPOCH:
        raise S3Error(
            "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header"
        )
    return amz_date or timestamp(moment), moment


def _parse_http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def check_skew(moment: datetime, now: datetime, skew: timedelta) -> None:
    """Raise ``RequestTimeTooSkewed`` when a request's clock and ours differ by more than that."""
    if abs(now - moment) > skew:
        raise S3Error(
            "RequestTimeTooSkewed",
            RequestTime=timestamp(moment),
            ServerTime=f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            MaxAllowedSkewMilliseconds=int(skew.total_seconds() * 1000),
        )


def verify_claim(
    head: RequestHead,
    claim: Claim,
    lookup: Lookup,
    payload_hashes: Sequence[str],
    signature_parameter: str | None = None,
) -> Authenticated:
    """Check a claim's signature over a request.

    ``payload_hashes`` are the values that may stand in the canonical request; the first is the one
    the body must match. ``signature_parameter`` is the query parameter that holds the signature.
    """
    secret = lookup(claim.access_key)
    if secret is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=claim.access_key)
    signed_lines = _canonical_headers(head, claim.signed_headers, signature_parameter is not None)
    key = signing_key(secret, claim.date, claim.region)
    signature = claim.signature.encode("utf-8", "replace")
    scope = claim.scope
    method = head.method.encode()
    first: tuple[str, bytes] | None = None
    for path, query in encodings(head.raw_path, head.raw_query, signature_parameter):
        for payload_hash in payload_hashes:
            canonical = b"%b\n%b\n%b\n%b\n%b" % (
                method,
                path,
                query,
                signed_lines,
                payload_hash.encode("utf-8", "replace"),
            )
            text = string_to_sign(claim.amz_date, scope, canonical)
            expected = hmac_sha256(key, text.encode()).encode()
            if hmac.compare_digest(expected, signature):
                return Authenticated(
                    claim.access_key,
                    payload_hashes[0],
                    scope,
                    claim.amz_date,
                    key,
                    claim.signature,
                )
            first = first or (text, canonical)
    assert first is not None
    raise does_not_match(claim.access_key, claim.signature, *first)


def does_not_match(access_key: str, signature: str, text: str, canonical: bytes) -> S3Error:
    """``SignatureDoesNotMatch`` with the strings a developer needs to find the difference."""
    return S3Error(
        "SignatureDoesNotMatch",
        AWSAccessKeyId=access_key,
        StringToSign=text,
        SignatureProvided=signature,
        StringToSignBytes=text.encode("utf-8", "replace").hex(" "),
        CanonicalRequest=canonical.decode("utf-8", "replace"),
        CanonicalRequestBytes=canonical.hex(" "),
    )


def _canonical_headers(head: RequestHead, signed_headers: str, presigned: bool) -> bytes:
    """Canonical headers, an empty line and the signed names, as received.

    Every x-amz-* header and the host must be among the signed ones, as S3 demands; a presigned URL
    cannot know the payload hash its user sends. Proxies drop "content-length: 0": a signed
    Content-Length that did not arrive counts as 0.
    """
    raw = head.headers.raw
    fields = dict(raw)
    if len(fields) != len(raw):
        fields = {}
        for name, value in raw:
            fields[name] = b"%b,%b" % (fields[name], value) if name in fields else value
    wire_names = signed_headers.encode("utf-8", "replace")
    names = wire_names.split(b";")
    unsigned = [name for name in fields if name[:6] == b"x-amz-" and name not in names]
    if b"host" not in names:
        unsigned.append(b"host")
    if unsigned:
        allowed = _NEVER_SIGNED | {b"x-amz-content-sha256"} if presigned else _NEVER_SIGNED
        refused = [name.decode("latin-1") for name in unsigned if name not in allowed]
        if refused:
            raise S3Error(
                "AccessDenied",
                "There were headers present in the request which were not signed",
                HeadersNotSigned=", ".join(refused),
            )
    lines = []
    for name in names:
        received = fields.get(name)
        if received is None:
            received = b"0" if name == b"content-length" else b""
        lines.append(b"%b:%b\n" % (name, b" ".join(received.split())))
    return b"%b\n%b" % (b"".join(lines), wire_names)


def encodings(
    raw_path: str, raw_query: str, without: str | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """The forms of a path and query a client may have signed: as sent, then as S3 encodes them.

    All forms decode to the same bucket, key and parameters. "%2F" may stand for "/" within the key,
    never before it, where it would change which bucket is meant.
    """
    path = raw_path.encode("latin-1", "backslashreplace") or b"/"
    query = canonical_query(raw_query, without).encode("latin-1", "backslashreplace")
    yield path, query
    strict_path = b"%2F".join([_strict(part, "/") for part in _ENCODED_SLASH.split(path)])
    strict_query = _strict_query(raw_query, without)
    if (strict_path, strict_query) != (path, query):
        yield strict_path, strict_query
    bucket_end = strict_path.find(b"/", 1)
    if bucket_end > 0 and b"%2F" in strict_path[bucket_end:]:
        key = strict_path[bucket_end:].replace(b"%2F", b"/")
        yield strict_path[:bucket_end] + key, strict_query


def _strict(raw: bytes, safe: str) -> bytes:
    """Decode once and encode with S3's UriEncode."""
    return parse.quote_from_bytes(parse.unquote_to_bytes(raw), safe=safe).encode()


def _strict_query(raw_query: str, without: str | None) -> bytes:
    pairs = []
    for parameter in raw_query.encode("latin-1", "backslashreplace").split(b"&"):
        if parameter:
            name, _, value = parameter.replace(b"+", b" ").partition(b"=")
            pairs.append((_strict(name, ""), _strict(value, "")))
    pairs.sort()
    kept = without.encode() if without is not None else None
    return b"&".join([b"%b=%b" % pair for pair in pairs if pair[0] != kept])
