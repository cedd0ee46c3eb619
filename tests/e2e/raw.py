"""S3 requests said by hand, for what no client library says: raw sockets and SigV4 written out.

The signer follows the documentation and shares no line with the gateway's, so that an error in one
is not repeated in the other. What is signed and what is sent are two steps: a test that lies signs
first and changes the request afterwards.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

import base64
import contextlib
import hashlib
import hmac
import socket
import ssl
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote, urlsplit

import defusedxml.ElementTree
from awscrt import checksums as crt

from tests import live

UNSIGNED = "UNSIGNED-PAYLOAD"
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_CHUNKS_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

SECONDS = 120.0
_EMPTY = hashlib.sha256().hexdigest()


@dataclass(frozen=True, slots=True)
class Seed:
    """Where the chain of chunk signatures starts."""

    key: bytes
    stamp: str
    signature: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it goes on the wire; `body` may be sent in several pieces."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: tuple[bytes, ...] = ()

    def with_headers(self, **changed: str | None) -> "Request":
        """Underscores in names stand for dashes; None removes."""
        headers = dict(self.headers)
        for name, value in changed.items():
            headers.pop(name.replace("_", "-"), None)
            if value is not None:
                headers[name.replace("_", "-")] = value
        return replace(self, headers=headers)

    @property
    def head(self) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    @property
    def wire(self) -> bytes:
        return self.head + b"".join(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """`interim` are the 1xx statuses before it; `complete` says that its body ended as promised."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    interim: tuple[int, ...] = ()
    complete: bool = True

    @property
    def code(self) -> str | None:
        """The S3 error code in the body."""
        return self.field("Code")

    def field(self, name: str) -> str | None:
        """A field of the S3 error document."""
        if not self.body.startswith(b"<?xml"):
            return None
        return defusedxml.ElementTree.fromstring(self.body).findtext(name)

    @property
    def verdict(self) -> tuple[int, str | None]:
        return self.status, self.code


class Connection:
    """One client connection; `answer` reads one answer, `rest` all that comes until the end."""

    def __init__(self, endpoint: live.Endpoint) -> None:
        plain = socket.create_connection(("127.0.0.1", endpoint.port), SECONDS)
        self.socket: socket.socket = plain
        if endpoint.secure:
            context = ssl.create_default_context(cafile=endpoint.ca)
            self.socket = context.wrap_socket(plain, server_hostname="127.0.0.1")
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, method: str = "GET") -> Answer:
        interim: list[int] = []
        while True:
            status, headers = self._head()
            if status >= 200:
                break
            interim.append(status)
        if method == "HEAD" or status in {204, 304}:
            return Answer(status, headers, b"", tuple(interim))
        body, complete = self._body(headers)
        return Answer(status, headers, body, tuple(interim), complete)

    def _head(self) -> tuple[int, dict[str, str]]:
        line = self._file.readline()
        if not line:
            raise ConnectionError("closed without an answer")
        headers: dict[str, str] = {}
        while (field_line := self._file.readline().strip()) != b"":
            name, _, value = field_line.decode("latin-1").partition(":")
            name = name.lower()
            known = headers.get(name)
            headers[name] = value.strip() if known is None else f"{known},{value.strip()}"
        return int(line.split(b" ")[1]), headers

    def _body(self, headers: Mapping[str, str]) -> tuple[bytes, bool]:
        pieces: list[bytes] = []
        try:
            if headers.get("transfer-encoding") == "chunked":
                while size := int(self._file.readline(), 16):
                    pieces.append(self._file.read(size + 2)[:-2])
                self._file.readline()
                return b"".join(pieces), True
            left = int(headers.get("content-length", "0"))
            while left and (piece := self._file.read1(min(left, 1 << 20))):
                pieces.append(piece)
                left -= len(piece)
        except (ConnectionError, ValueError, ssl.SSLError):
            return b"".join(pieces), False
        return b"".join(pieces), left == 0

    def rest(self) -> bytes:
        """What still comes; a reset ends it too."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            return self._file.read()
        return b""

    def reset(self) -> None:
        """RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self.socket.close()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _signing_key(secret: str, date: str, region: str) -> bytes:
    key = _hmac(f"AWS4{secret}".encode(), date)
    for part in (region, "s3", "aws4_request"):
        key = _hmac(key, part)
    return key


def _canonical_query(query: str) -> str:
    pairs = (part.partition("=") for part in query.split("&") if part)
    encoded = [
        (quote(unquote(n), safe="-_.~"), quote(unquote(v), safe="-_.~")) for n, _, v in pairs
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))


def _canonical(method: str, target: str, fields: Mapping[str, str], payload: str) -> str:
    path, _, query = target.partition("?")
    lines = "".join(f"{name}:{' '.join(fields[name].split())}\n" for name in sorted(fields))
    names = ";".join(sorted(fields))
    return f"{method}\n{path}\n{_canonical_query(query)}\n{lines}\n{names}\n{payload}"


def sign(
    endpoint: live.Endpoint,
    request: Request,
    payload: str,
    *,
    when: datetime | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    region: str = live.REGION,
) -> tuple[Request, Seed]:
    """Sign all headers the request has; returns the request with its signature, and the seed."""
    moment = when or datetime.now(UTC)
    stamp = f"{moment:%Y%m%dT%H%M%SZ}"
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    fields = {"host": endpoint.netloc} | request.headers
    fields |= {"x-amz-date": stamp, "x-amz-content-sha256": payload}
    lower = {name.lower(): value for name, value in fields.items()}
    # Header values beyond ASCII are Latin-1 characters here and single bytes on the wire.
    canonical = _canonical(request.method, request.target, lower, payload).encode("latin-1")
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"
    key = _signing_key(secret_key or endpoint.secret_key, stamp[:8], region)
    signature = _hmac(key, text).hex()
    fields["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key or endpoint.access_key}/{scope},"
        f"SignedHeaders={';'.join(sorted(lower))},Signature={signature}"
    )
    return replace(request, headers=fields), Seed(key, f"{stamp}\n{scope}", signature)


def presign(
    endpoint: live.Endpoint,
    method: str,
    target: str,
    *,
    when: datetime | None = None,
    expires: int = 600,
    query: str = "",
    payload: str = UNSIGNED,
) -> str:
    """The target of a SigV4 presigned URL."""
    stamp = f"{when or datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    scope = f"{stamp[:8]}/{live.REGION}/s3/aws4_request"
    parameters = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{endpoint.access_key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": "host",
    }
    encoded = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    target = f"{target}?{'&'.join(filter(None, (query, encoded)))}"
    canonical = _canonical(method, target, {"host": endpoint.netloc}, payload)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    signature = _hmac(_signing_key(endpoint.secret_key, stamp[:8], live.REGION), text).hex()
    return f"{target}&X-Amz-Signature={signature}"


def exchange(endpoint: live.Endpoint, request: Request) -> Answer:
    """Send a request as it is and read the answer, on a connection of its own."""
    with Connection(endpoint) as connection:
        # A server that refuses early may close while the body is still being sent.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            connection.send(request.wire)
        return connection.answer(request.method)


def ask(
    endpoint: live.Endpoint,
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """A plain signed request."""
    return exchange(endpoint, plain(endpoint, method, target, headers, body))


def plain(
    endpoint: live.Endpoint,
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Request:
    """A request signed with the SHA-256 of its body and sent with a Content-Length."""
    payload = hashlib.sha256(body or b"").hexdigest()
    request, _ = sign(endpoint, Request(method, target, dict(headers or {})), payload)
    if body is None:
        return request
    return replace(request, body=(body,)).with_headers(**{"Content-Length": str(len(body))})


def put(
    endpoint: live.Endpoint,
    target: str,
    body: bytes,
    mode: str,
    *,
    headers: Mapping[str, str] | None = None,
    trailers: Mapping[str, str] | None = None,
    chunk_size: int = 64 * 1024,
    http_chunked: bool = False,
    declared: int | None = None,
    announced: Iterable[str] | None = None,
    method: str = "PUT",
) -> Request:
    """A signed PUT in one of the five payload modes; "sha256" stands for the body's own hash.

    `declared` is the x-amz-decoded-content-length when it is a lie, `announced` the x-amz-trailer.
    """
    fields = dict(headers or {})
    trailers = trailers or {}
    if mode.startswith("STREAMING-"):
        encoding = fields.get("Content-Encoding")
        fields["Content-Encoding"] = encoding or "aws-chunked"
        fields["x-amz-decoded-content-length"] = str(len(body) if declared is None else declared)
        if mode.endswith("TRAILER"):
            fields["x-amz-trailer"] = ",".join(trailers if announced is None else announced)
    payload = hashlib.sha256(body).hexdigest() if mode == "sha256" else mode
    request, seed = sign(endpoint, Request(method, target, fields), payload)
    pieces: tuple[bytes, ...] = (body,)
    if mode.startswith("STREAMING-"):
        signer = None if mode == UNSIGNED_CHUNKS_TRAILER else seed
        pieces = aws_chunks(body, chunk_size, trailers, signer, mode.endswith("TRAILER"))
    if http_chunked:
        return framed(replace(request, body=pieces))
    length = str(sum(map(len, pieces)))
    return replace(request, body=pieces).with_headers(**{"Content-Length": length})


def framed(request: Request) -> Request:
    """The same request with HTTP's own chunked framing under whatever its body is."""
    pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in request.body if piece]
    headers = {"Transfer-Encoding": "chunked", "Content-Length": None}
    return replace(request, body=(*pieces, b"0\r\n\r\n")).with_headers(**headers)


def aws_chunks(
    body: bytes, size: int, trailers: Mapping[str, str], seed: Seed | None, has_trailer: bool
) -> tuple[bytes, ...]:
    """The chunks of an aws-chunked body, the final one with its trailers as the last piece."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    previous = seed.signature if seed else ""
    wire: list[bytes] = []
    for piece in (*pieces, b""):
        extension = ""
        if seed:
            digests = f"{_EMPTY}\n{hashlib.sha256(piece).hexdigest()}"
            text = f"AWS4-HMAC-SHA256-PAYLOAD\n{seed.stamp}\n{previous}\n{digests}"
            previous = _hmac(seed.key, text).hex()
            extension = f";chunk-signature={previous}"
        end = b"\r\n" if piece else b""
        wire.append(f"{len(piece):x}{extension}\r\n".encode() + piece + end)
    last = wire.pop()
    if has_trailer:
        last += "".join(f"{name}:{value}\r\n" for name, value in trailers.items()).encode()
        if seed:
            lines = "".join(f"{name}:{value}\n" for name, value in trailers.items())
            digest = hashlib.sha256(lines.encode()).hexdigest()
            text = f"AWS4-HMAC-SHA256-TRAILER\n{seed.stamp}\n{previous}\n{digest}"
            last += f"x-amz-trailer-signature:{_hmac(seed.key, text).hex()}\r\n".encode()
    return (*wire, last + b"\r\n")


CHECKSUMS = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")


def checksum(algorithm: str, body: bytes) -> str:
    """The value of an x-amz-checksum-* header."""
    if algorithm == "crc32":
        digest = struct.pack(">I", zlib.crc32(body))
    elif algorithm == "crc32c":
        digest = struct.pack(">I", crt.crc32c(body))
    elif algorithm == "crc64nvme":
        digest = struct.pack(">Q", crt.crc64nvme(body))
    else:
        digest = hashlib.new(algorithm, body).digest()
    return base64.b64encode(digest).decode()


def path(bucket: str, key: str) -> str:
    """The path-style target of a key, encoded as S3 wants it."""
    return f"/{bucket}/{quote(key, safe='/-_.~')}"


def target_of(url: str) -> str:
    """Path and query of a URL."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
