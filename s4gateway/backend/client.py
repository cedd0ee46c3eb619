"""The verbs over HTTP: build the S3 request, sign it, send it, and check what comes back.

Rules. Path-style addressing; a key is encoded once and travels as it was signed. The payload hash
is signed where it is at hand; a streamed body goes as UNSIGNED-PAYLOAD, also over plain http, where
hashing it first would mean reading it twice: its bytes are still covered, by the CRC-32C in every
stored frame and by the integrity header the profile names, whenever the body knows that digest.
A ranged read is checked against the Content-Range that answers it, a pinned one against the ETag.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import asyncio
import base64
import copy
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

from s4gateway.backend import base, retry
from s4gateway.backend.credentials import Provider, Static
from s4gateway.backend.http import HttpClient, HttpResponse
from s4gateway.backend.profile import Checksum
from s4gateway.s3 import checksums, documents, errors, etag, sigv4, xml
from s4gateway.s3.escaping import escape
from s4gateway.s3.headers import HOP_BY_HOP
from s4gateway.s3.query import quote, quote_path

_HASHED_BODY = 1024 * 1024  # bytes in memory up to this are hashed for the signature over http
_IDENTITIES = 1024  # signers kept for clients that sign with their own keys

# Set anew by the signer or the connection, or words about a body framing that ends at the gateway.
_OURS = HOP_BY_HOP | {
    "accept-encoding",
    "authorization",
    "content-length",
    "date",
    "expect",
    "host",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-security-token",
    "x-amz-trailer",
}
# What is said about a body that a tool itself has framed in chunks, to try a store out.
_FRAMING = frozenset({"x-amz-decoded-content-length", "x-amz-trailer"})
_UNSIGNED = frozenset({"user-agent", "x-amzn-trace-id"})  # intermediaries rewrite these
_CHECKSUM = checksums.CHECKSUM_PREFIX
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_NO_XML_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # not XML 1.0, even escaped
_CODE_OF_STATUS = {
    301: "PermanentRedirect",
    304: "NotModified",
    307: "TemporaryRedirect",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    409: "OperationAborted",
    411: "MissingContentLength",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "SlowDown",
    501: "NotImplemented",
    502: "ServiceUnavailable",
    503: "ServiceUnavailable",
    504: "ServiceUnavailable",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the store is and how it wants to be spoken to.

    `unsigned_payload` sends UNSIGNED-PAYLOAD although the connection is not encrypted and the hash
    would be at hand. Raises ValueError when `url` is not http(s)://host[:port][/prefix].

    >>> Endpoint("http://localhost:8333").host
    'localhost:8333'
    """

    url: str
    region: str = "us-east-1"
    unsigned_payload: bool = False
    host: str = field(init=False)  # as the Host header says it: without a default port
    origin: str = field(init=False)
    prefix: str = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            msg = f"endpoint is not http(s)://host[:port]: {self.url!r}"
            raise ValueError(msg)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        if parts.port is not None and parts.port != (443 if parts.scheme == "https" else 80):
            host = f"{host}:{parts.port}"
        object.__setattr__(self, "host", host)
        object.__setattr__(self, "origin", f"{parts.scheme}://{host}")
        object.__setattr__(self, "prefix", parts.path.rstrip("/"))

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection itself protects the payload."""
        return self.origin.startswith("https:")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class S3Backend:
    """An S3 store behind an endpoint; see `base.Backend` for the verbs."""

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Provider,
        http: HttpClient,
        policy: retry.RetryPolicy | None = None,
        now: Callable[[], datetime] = _utc_now,
        checksum: Checksum = Checksum.MD5,
    ) -> None:
        self._endpoint = endpoint
        self._checksum = checksum
        self._credentials = credentials
        self._http = http
        self._policy = policy if policy is not None else retry.RetryPolicy()
        self._now = now
        self._signer: sigv4.Signer | None = None
        self._identities: dict[sigv4.Credentials | None, S3Backend] = {}

    async def put(
        self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
    ) -> base.Head:
        """PutObject."""
        return await self._simple("PUT", _path(bucket, key), "", headers, body)

    async def get(
        self,
        bucket: str,
        key: str,
        *,
        byte_range: tuple[int, int] | None = None,
        if_match: str | None = None,
        query: str = "",
        headers: base.HeaderList = (),
    ) -> base.ObjectStream:
        """GetObject, with the answer checked against the range and the ETag asked for."""
        fields = list(headers)
        if byte_range is not None:
            fields.append(("range", f"bytes={byte_range[0]}-{byte_range[1] - 1}"))
        if if_match is not None:
            fields.append(("if-match", etag.quote(if_match)))
        response = await self._send("GET", _path(bucket, key), query, fields)
        if response.head.status >= 300:
            raise await _refusal(response)
        if fault := _object_fault(response.head, byte_range, if_match):
            await response.close()
            raise base.BackendProtocolError(fault)
        return response

    async def head(
        self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
    ) -> base.Head:
        """HeadObject."""
        return await self._simple("HEAD", _path(bucket, key), query, headers)

    async def delete(
        self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
    ) -> base.Head:
        """DeleteObject."""
        return await self._simple("DELETE", _path(bucket, key), query, headers)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> base.DeleteFailures:
        """DeleteObjects; keys that no XML document can name are deleted one by one."""
        failures: base.DeleteFailures = []
        named = [key for key in keys if _NO_XML_TEXT.search(key) is None]
        for start in range(0, len(named), base.DELETE_LIMIT):
            failures += await self._delete_page(bucket, named[start : start + base.DELETE_LIMIT])
        for key in keys:
            if _NO_XML_TEXT.search(key) is not None:
                try:
                    await self.delete(bucket, key)
                except base.BackendAnswer as answer:
                    failures.append(base.DeleteFailure(key, answer.code, answer.message))
        return failures

    async def _delete_page(self, bucket: str, keys: Sequence[str]) -> base.DeleteFailures:
        objects = "".join([f"<Object><Key>{escape(key)}</Key></Object>" for key in keys])
        document = (
            '<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Quiet>true</Quiet>{objects}</Delete>"
        ).encode()
        md5 = base64.b64encode(hashlib.md5(document, usedforsecurity=False).digest()).decode()
        response = await self._send(
            "POST",
            _path(bucket),
            "delete=",
            [("content-type", "application/xml")],
            base.Body.of(document, md5=md5),
            repeatable=True,  # deleting twice leaves what deleting once leaves
        )
        async with response:
            if response.head.status >= 300:
                raise await _refusal(response)
            return _delete_failures(await response.read(base.LIST_LIMIT))

    async def list(self, bucket: str, raw_query: str, headers: base.HeaderList = ()) -> bytes:
        """Return one page of a listing as the store wrote it."""
        async with await self._send("GET", _path(bucket), raw_query, headers) as response:
            if response.head.status >= 300:
                raise await _refusal(response)
            encoding = response.head.headers.get("content-encoding", "identity")
            if encoding != "identity":
                msg = f"listing came with Content-Encoding {encoding}, which was not asked for"
                raise base.BackendProtocolError(msg)
            return await response.read(base.LIST_LIMIT)

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        """Send any other S3 request under this identity; every answer is returned."""
        return await self._send(method, raw_path, raw_query, headers, body)

    async def ping(self) -> None:
        """ListBuckets, once: an answer below 500 is a sign of life."""
        async with await self._attempt("GET", "/", "", ()) as response:
            if response.head.status >= 500:
                raise await _refusal(response)

    def with_identity(self, credentials: sigv4.Credentials | None) -> "S3Backend":
        """Return this store for another signer; asking again for the same one is cheap."""
        known = self._identities.get(credentials)
        if known is None:
            known = copy.copy(self)
            known._credentials = Static(credentials)
            known._signer = None
            if len(self._identities) >= _IDENTITIES:
                self._identities.clear()
            self._identities[credentials] = known
        return known

    async def close(self) -> None:
        """Close the connections, for every identity."""
        await self._http.close()

    async def _simple(
        self,
        method: str,
        path: str,
        query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.Head:
        """A request whose answer says everything in its head."""
        async with await self._send(method, path, query, headers, body) as response:
            if response.head.status >= 300:
                raise await _refusal(response)
            if method != "HEAD":
                await response.read(base.ERROR_LIMIT)
            return response.head

    async def _send(
        self,
        method: str,
        path: str,
        query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
        *,
        repeatable: bool | None = None,
    ) -> HttpResponse:
        """Send until answered, as often as the policy and the request's nature allow."""
        started = asyncio.get_running_loop().time()
        failed = 0
        while True:
            try:
                response = await self._attempt(method, path, query, headers, body)
                if response.head.status not in retry.TRANSIENT:
                    return response
                fault = None
            except base.BackendUnavailable as error:
                response, fault = None, error
            failed += 1
            wait = None
            if repeatable is None:
                repeatable = retry.is_repeatable(method, headers, body)
            if repeatable if fault is None else fault.retryable and (repeatable or fault.unsent):
                elapsed = asyncio.get_running_loop().time() - started
                wait = self._policy.delay(failed, elapsed, self._retry_after(response))
            if wait is None:
                if response is None:
                    assert fault is not None
                    raise fault
                return response
            if response is not None:
                await response.close()
            await asyncio.sleep(wait)

    def _retry_after(self, response: HttpResponse | None) -> float:
        if response is None:
            return 0.0
        return retry.parse_retry_after(response.head.headers.get("retry-after"), self._now())

    async def _attempt(
        self,
        method: str,
        path: str,
        query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> HttpResponse:
        """Sign and send once."""
        endpoint = self._endpoint
        path = endpoint.prefix + path
        now = self._now()
        credentials = await self._credentials.get(now)
        if self._checksum is not Checksum.MD5:
            headers = [*headers, *_integrity(method, query, headers, body, self._checksum)]
        md5 = None if body is None else self._content_md5(method, query, headers, body)
        signed, unsigned = _outgoing(headers, md5, _FRAMING if _is_chunked(body) else frozenset())
        sent = [("host", endpoint.host), *signed.items(), *unsigned]
        if credentials is not None:
            signer = self._signer
            if signer is None or signer.credentials is not credentials:
                signer = self._signer = sigv4.Signer(credentials, endpoint.region)
            payload_hash = self._payload_hash(body)
            sent += signer.sign(
                method, endpoint.host, path, query, signed.items(), payload_hash, now
            )
        return await self._http.request(
            method,
            endpoint.origin,
            f"{path}?{query}" if query else path,
            sent,
            body,
            slow=method == "POST" or "x-amz-copy-source" in signed,
        )

    def _content_md5(
        self, method: str, query: str, headers: base.HeaderList, body: base.Body
    ) -> str | None:
        """Content-MD5 of a request, where the profile has it and the digest is at hand.

        Documents, such as that of DeleteObjects, carry it in every profile: S3 demands it. So does
        it of uploads with Object Lock parameters.
        """
        if not _is_upload(method, query):
            return body.md5
        if self._checksum is not Checksum.MD5:
            return None
        if body.md5 is not None or not isinstance(body.chunks, bytes):
            return body.md5
        if not any(name.startswith("x-amz-object-lock-") for name, _ in headers):
            return None
        md5 = hashlib.md5(body.chunks, usedforsecurity=False).digest()
        return base64.b64encode(md5).decode()

    def _payload_hash(self, body: base.Body | None) -> str:
        if body is None or not body.length:
            return sigv4.EMPTY_SHA256
        if body.sha256 is not None:
            return body.sha256
        if self._endpoint.is_encrypted or self._endpoint.unsigned_payload:
            return sigv4.UNSIGNED_PAYLOAD
        if isinstance(body.chunks, bytes) and body.length <= _HASHED_BODY:
            return hashlib.sha256(body.chunks).hexdigest()
        return sigv4.UNSIGNED_PAYLOAD


def _path(bucket: str, key: str | None = None) -> str:
    return f"/{quote(bucket)}" if key is None else f"/{quote(bucket)}/{quote_path(key)}"


def _is_upload(method: str, query: str) -> bool:
    """PutObject and UploadPart, not the documents of sub-resources."""
    return method == "PUT" and (not query or "partNumber=" in query)


def _integrity(
    method: str,
    query: str,
    headers: base.HeaderList,
    body: base.Body | None,
    checksum: Checksum,
) -> base.HeaderList:
    """The x-amz-checksum-* header of an upload, and what announces it when one in parts begins.

    Bytes in memory are digested here. A caller's own checksum is left alone: S3 takes only one.
    """
    algorithm = checksum.algorithm
    if algorithm is None or any(name.lower().startswith(_CHECKSUM) for name, _ in headers):
        return ()
    if method == "POST" and query in ("uploads", "uploads="):
        return (_CHECKSUM + "algorithm", algorithm.upper()), (_CHECKSUM + "type", "FULL_OBJECT")
    if body is None or not _is_upload(method, query):
        return ()
    if body.checksum is not None and body.checksum[0] == algorithm:
        return ((_CHECKSUM + algorithm, body.checksum[1]),)
    if not isinstance(body.chunks, bytes):
        return ()
    digests = checksums.Digests((algorithm,))
    digests.update(body.chunks)
    return ((_CHECKSUM + algorithm, base64.b64encode(digests[algorithm]).decode()),)


def _is_chunked(body: base.Body | None) -> bool:
    """The body says in place of its SHA-256 that it carries its own framing."""
    return body is not None and (body.sha256 or "").startswith("STREAMING-")


def _outgoing(
    headers: base.HeaderList, md5: str | None, framing: frozenset[str]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The caller's headers to sign and not to sign; repeats become one field (RFC 9110 5.3).

    `framing` are those of ours that this caller sets.
    """
    signed: dict[str, str] = {}
    unsigned: list[tuple[str, str]] = []
    for given, value in headers:
        name = given.lower()
        if name in _OURS and name not in framing:
            continue
        if name in _UNSIGNED:
            unsigned.append((name, value))
        else:
            signed[name] = f"{signed[name]},{value}" if name in signed else value
    if md5 is not None:
        signed["content-md5"] = md5
    return signed, unsigned


def _object_fault(head: base.Head, byte_range: tuple[int, int] | None, if_match: str | None) -> str:
    """What is wrong with the head of an object's answer; empty when it is what was asked for."""
    length = head.content_length
    if length is None:
        return "object came without Content-Length, so its end cannot be checked"
    if "content-encoding" in head.headers and etag.is_weak(head.headers.get("etag", "")):
        return "object was re-encoded on the way: Content-Encoding with a weak ETag"
    if if_match not in (None, "*") and head.etag != etag.strip(if_match or ""):
        return f"pinned to ETag {if_match}, answered with {head.etag or 'none'}"
    if byte_range is None:
        return ""
    if head.status != 206:
        return f"asked for a range, answered with status {head.status}"
    content_range = head.headers.get("content-range", "")
    match = _CONTENT_RANGE.fullmatch(content_range)
    if match is None:
        return f"malformed Content-Range {content_range!r}"
    first, last, total = map(int, match.groups())
    start, end = byte_range
    if first != start or last != min(end, total) - 1 or length != last - first + 1:
        return f"asked for bytes {start}-{end - 1}, got {content_range!r} of {length} bytes"
    return ""


async def _refusal(response: HttpResponse) -> base.BackendAnswer:
    """The typed error of an answer that is none of 2xx; closes it, its body is optional."""
    head = response.head
    try:
        body = await response.read(base.ERROR_LIMIT)
        code, message = documents.parse_error(body) if body else ("", "")
    except (base.BackendError, errors.S3Error):
        body, code, message = b"", "", ""
    finally:
        await response.close()
    if not code:
        code = _CODE_OF_STATUS.get(head.status, "")
        code = code or ("InternalError" if head.status >= 500 else "InvalidRequest")
    return base.BackendAnswer(head.status, code, message, head.headers, body)


def _delete_failures(document: bytes) -> base.DeleteFailures:
    """The errors of a DeleteResult."""
    try:
        root = xml.parse(document)
    except errors.S3Error as error:
        raise base.BackendProtocolError("DeleteObjects answered with no DeleteResult") from error
    if root.tag != "DeleteResult":
        raise base.BackendProtocolError(f"DeleteObjects answered with <{root.tag}>")
    return [
        base.DeleteFailure(
            entry.findtext("Key") or "",
            entry.findtext("Code") or "InternalError",
            entry.findtext("Message") or "",
        )
        for entry in root.findall("Error")
    ]
