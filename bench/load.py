"""A load generator lean enough not to be what it measures.

Every request is bytes before the clock starts, its header SigV4 signature included
(https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html); each connection
keeps alive and holds one request in flight; answers are checked for status and byte count.
Connections are open before the clock starts, bodies go out of and into memory, and every run has an
end by count and by time.
"""

import asyncio
import hashlib
import hmac
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self, cast
from urllib.parse import quote

import psutil

UNSIGNED = "UNSIGNED-PAYLOAD"
# A type SeaweedFS stores as it comes: it gzips text on its own, which would flatter a gateway.
CONTENT_TYPE = "application/zstd"
_WRITE = 256 * 1024
_READ = 256 * 1024
_MAX_HEAD = 64 * 1024
_SHOWN_OF_ERROR = 2048


class LoadError(Exception):
    """The server did not answer as the run demands."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """One key pair; the secret stays out of every repr."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"


@dataclass(frozen=True, slots=True)
class Target:
    """An S3 endpoint on loopback, addressed path style."""

    port: int
    credentials: Credentials
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request as bytes, and the answer it must get."""

    head: bytes
    body: bytes = field(default=b"", repr=False)
    repeat: int = 1
    status: int = 200
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """What one run did; `foreign` is the share of the machine that others used meanwhile."""

    requests: int
    wall: float
    received: int
    sent: int
    server_cpu: float
    client_cpu: float
    foreign: float
    worst: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.wall


def sign(
    target: Target,
    method: str,
    path: str,
    headers: Mapping[str, str],
    payload: str,
    query: str = "",
) -> bytes:
    """The request head, `headers` (lower case names) plus the SigV4 ones."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    who = target.credentials
    scope = f"{now[:8]}/{who.region}/s3/aws4_request"
    every = {
        "host": f"{target.host}:{target.port}",
        "x-amz-content-sha256": payload,
        "x-amz-date": now,
        **headers,
    }
    names = sorted(every)
    signed = ";".join(names)
    listed = "".join(f"{name}:{every[name]}\n" for name in names)
    canonical = f"{method}\n{path}\n{query}\n{listed}\n{signed}\n{payload}"
    to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{who.secret_key}".encode()
    for piece in scope.split("/"):
        key = hmac.digest(key, piece.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    every["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={who.access_key}/{scope},"
        f"SignedHeaders={signed},Signature={signature}"
    )
    line = f"{method} {path}{'?' + query if query else ''} HTTP/1.1\r\n"
    return (line + "".join(f"{n}: {v}\r\n" for n, v in every.items()) + "\r\n").encode()


def _path(bucket: str, key: str) -> str:
    return f"/{bucket}/{quote(key)}" if key else f"/{bucket}"


def put(
    target: Target, bucket: str, key: str, body: bytes, *, repeat: int = 1, hashed: bool = False
) -> Exchange:
    """PUT of `body`, `repeat` times over; `hashed` signs its SHA-256, as clients do over http."""
    headers = {"content-length": str(len(body) * repeat), "content-type": CONTENT_TYPE}
    payload = hashlib.sha256(body).hexdigest() if hashed else UNSIGNED
    head = sign(target, "PUT", _path(bucket, key), headers, payload)
    return Exchange(head, body, repeat)


def get(target: Target, bucket: str, key: str, length: int | None) -> Exchange:
    """GET of a whole object, of `length` bytes unless that is not known."""
    head = sign(target, "GET", _path(bucket, key), {}, hashlib.sha256(b"").hexdigest())
    return Exchange(head, length=length)


def get_range(target: Target, bucket: str, key: str, first: int, length: int) -> Exchange:
    """GET of `length` bytes from offset `first`."""
    headers = {"range": f"bytes={first}-{first + length - 1}"}
    head = sign(target, "GET", _path(bucket, key), headers, hashlib.sha256(b"").hexdigest())
    return Exchange(head, status=206, length=length)


def make_bucket(target: Target, bucket: str) -> Exchange:
    """CreateBucket, which on these servers succeeds once."""
    head = sign(
        target, "PUT", _path(bucket, ""), {"content-length": "0"}, hashlib.sha256(b"").hexdigest()
    )
    return Exchange(head)


class _Connection(asyncio.BufferedProtocol):
    """One keep-alive connection; takes exchanges from a shared iterator until it ends."""

    def __init__(self, work: Iterator[Exchange], until: list[float]) -> None:
        self._work = work
        self._until = until
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.requests = self.received = self.sent = 0
        self.worst = 0.0
        self.kept: bytearray | None = None
        self._transport: asyncio.Transport
        self._buffer = bytearray(_READ)
        self._view = memoryview(self._buffer)
        self._exchange: Exchange | None = None
        self._pieces: Iterator[memoryview] = iter(())
        self._paused = False
        self._head = bytearray()
        self._left: int | None = None
        self._failure = bytearray()
        self._refused: int | None = None
        self._began = 0.0

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=1 << 20)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(LoadError(f"connection lost: {exc or 'closed by the server'}"))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write_pieces()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self._feed(self._view[:nbytes])
        except LoadError as exc:
            self._fail(exc)

    # one exchange after the other

    def start_next(self) -> None:
        """Send the next request, or end."""
        exchange = None
        if time.perf_counter() < self._until[0]:
            exchange = next(self._work, None)
        self._exchange = exchange
        if exchange is None:
            self.done.set_result(None)
            return
        self._began = time.perf_counter()
        self.sent += len(exchange.body) * exchange.repeat
        if len(exchange.body) <= _WRITE and exchange.repeat == 1:
            self._transport.write(exchange.head + exchange.body)
            return
        self._transport.write(exchange.head)
        view = memoryview(exchange.body)
        self._pieces = (
            view[offset : offset + _WRITE]
            for _ in range(exchange.repeat)
            for offset in range(0, len(view), _WRITE)
        )
        self._write_pieces()

    def abort(self) -> None:
        """Close without waiting for anything."""
        if not self.done.done():
            self.done.set_result(None)
        self._transport.abort()

    def _write_pieces(self) -> None:
        while not self._paused:
            piece = next(self._pieces, None)
            if piece is None:
                return
            self._transport.write(piece)

    def _feed(self, data: memoryview) -> None:
        if self._exchange is None:
            raise LoadError(f"{len(data)} bytes without a request")
        if self._left is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                if len(self._head) > _MAX_HEAD:
                    raise LoadError("answer head without end")
                return
            data = memoryview(bytes(self._head[end + 4 :]))
            head = bytes(self._head[: end + 2])
            self._head.clear()
            if head.startswith(b"HTTP/1.1 100"):
                self._feed(data)
                return
            self._left = self._check_head(head, self._exchange)
        self._left -= len(data)
        if self._left < 0:
            raise LoadError(f"{-self._left} bytes more than announced")
        if self._refused is not None:
            self._failure += data[:_SHOWN_OF_ERROR]
        elif self.kept is not None:
            self.kept += data
        self.received += len(data)
        if self._left == 0:
            self._finish()

    def _check_head(self, head: bytes, exchange: Exchange) -> int:
        """Length of the body to come."""
        status = int(head[9:12])
        lowered = head.lower()
        at = lowered.find(b"\r\ncontent-length:")
        if at < 0:
            raise LoadError(f"answer without Content-Length: {head!r}")
        length = int(lowered[at + 17 : lowered.index(b"\r\n", at + 2)])
        if status != exchange.status:
            self._refused = status
        elif exchange.length is not None and length != exchange.length:
            raise LoadError(f"answer of {length} bytes, {exchange.length} expected")
        return length

    def _finish(self) -> None:
        if self._refused is not None:
            shown = bytes(self._failure[:_SHOWN_OF_ERROR]).decode(errors="replace")
            raise LoadError(f"status {self._refused}: {shown}")
        self._left = None
        self.requests += 1
        self.worst = max(self.worst, time.perf_counter() - self._began)
        self.start_next()

    def _fail(self, exc: LoadError) -> None:
        if not self.done.done():
            self.done.set_exception(exc)
        self._transport.abort()


def cpu_seconds(pid: int | None) -> float:
    """CPU of a process and all its children, ended ones too."""
    if pid is None:
        return 0.0
    top = psutil.Process(pid)
    total = 0.0
    for process in (top, *top.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


@dataclass(frozen=True, slots=True)
class _Spent:
    """CPU seconds spent so far: of the server, of us and of others."""

    server: float
    client: float
    foreign: float

    @classmethod
    def read(cls, server_pid: int | None) -> Self:
        machine = psutil.cpu_times()
        # Guest time is counted in user time already; not every system has all of these.
        unused = sum(
            float(getattr(machine, name, 0.0)) for name in ("idle", "iowait", "guest", "guest_nice")
        )
        used = sum(machine) - unused
        # Every server of a run is a child of this process, so the rest of `used` is not ours.
        foreign = used - cpu_seconds(os.getpid())
        return cls(cpu_seconds(server_pid), time.process_time(), foreign)


async def run(
    target: Target,
    exchanges: Iterable[Exchange],
    *,
    concurrency: int = 1,
    time_limit: float = 120.0,
    hard_limit: float = 300.0,
    server_pid: int | None = None,
) -> Tally:
    """Send all `exchanges`, starting none after `time_limit` seconds; fail after `hard_limit`."""
    loop = asyncio.get_running_loop()
    work = iter(exchanges)
    until = [0.0]
    connections: list[_Connection] = []
    try:
        for _ in range(concurrency):
            _, connection = await loop.create_connection(
                lambda: _Connection(work, until), target.host, target.port
            )
            connections.append(connection)
        before = _Spent.read(server_pid)
        start = time.perf_counter()
        until[0] = start + time_limit
        for connection in connections:
            connection.start_next()
        async with asyncio.timeout(hard_limit):
            await asyncio.gather(*(connection.done for connection in connections))
        wall = time.perf_counter() - start
        after = _Spent.read(server_pid)
    except TimeoutError:
        raise LoadError(f"not done after {hard_limit:.0f} s") from None
    finally:
        for connection in connections:
            connection.abort()
    return Tally(
        requests=sum(c.requests for c in connections),
        wall=wall,
        received=sum(c.received for c in connections),
        sent=sum(c.sent for c in connections),
        server_cpu=after.server - before.server,
        client_cpu=after.client - before.client,
        foreign=max(0.0, after.foreign - before.foreign) / wall / (os.cpu_count() or 1),
        worst=max(c.worst for c in connections),
    )


async def fetch(target: Target, exchange: Exchange, *, hard_limit: float = 120.0) -> bytes:
    """The body of one answer, to compare it outside any measured run."""
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: _Connection(iter((exchange,)), [float("inf")]), target.host, target.port
    )
    connection.kept = bytearray()
    try:
        connection.start_next()
        async with asyncio.timeout(hard_limit):
            await connection.done
    finally:
        connection.abort()
    return bytes(connection.kept)
