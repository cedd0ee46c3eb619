"""HTTP/1.1 to the store: a pool of connections, and the answers that come over them.

Three rules. What leaves is what was signed: the request target reaches the wire byte for byte
("..", "//" and "%2F" included), the headers are the ones given, and nothing is added but
Accept-Encoding `identity` and the length: no User-Agent, no cookies, no environment proxy. No
redirect is followed and nothing is sent twice.

What arrives is raw: no Content-Encoding is undone, and a body that ends before its Content-Length
or its last chunk is an error (RFC 9112 section 8). Every way to fail is a BackendError, and the
connection of a failed, cancelled or half-read exchange is dropped, never reused.
"""

import asyncio
import ssl as tls
from collections import deque
from typing import Self
from urllib.parse import urlsplit

from s4gateway.backend import base
from s4gateway.backend.connection import Connection


class HttpResponse(base.ObjectStream):
    """An answer whose head has arrived and whose body has not been read.

    Its connection goes back to the pool as soon as the body has arrived, read or not.
    """

    __slots__ = ("_client", "_connection", "_cut", "_pieces")

    def __init__(self, client: "HttpClient", connection: Connection, head: base.Head) -> None:
        self.head = head
        self._client = client
        self._connection: Connection | None = connection
        self._pieces = connection.pieces
        self._cut = False  # closed before its end
        if connection.done:
            self._give_back()

    async def read(self, limit: int) -> bytes:
        """Return the body; more than `limit` bytes are a BackendProtocolError."""
        if self._connection is None and len(self._pieces) == 1 and len(self._pieces[0]) <= limit:
            return self._pieces.popleft()  # most answers: all of it came with its head
        pieces: list[bytes] = []
        room = limit
        async for piece in self:
            room -= len(piece)
            if room < 0:
                await self.close()
                msg = f"answer is larger than {limit} bytes"
                raise base.BackendProtocolError(msg)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        connection = self._connection
        if connection is not None:
            if not self._pieces or connection.fault is not None:
                try:
                    await connection.more()
                except BaseException:
                    await self.close()
                    raise
            if connection.done:
                self._give_back()
        if self._pieces:
            piece = self._pieces.popleft()
            if self._connection is not None:
                self._connection.taken(len(piece))
            return piece
        if self._cut:
            raise base.BackendProtocolError("the answer was closed before its body was read")
        raise StopAsyncIteration

    async def close(self) -> None:
        """Drop the connection unless the body has arrived whole."""
        self._cut = self._cut or self._connection is not None or bool(self._pieces)
        self._pieces.clear()
        self._give_back()

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client.release(connection)


class HttpClient:
    """A pool of connections. Construct it anywhere; the first request opens it in its event loop.

    Timeouts are seconds: `connect_timeout` for a free connection including DNS and TLS,
    `read_timeout` between two reads or writes that make progress, `slow_timeout` the same for
    requests the store works on in silence (a copy, completing a multipart upload). They are looked
    after by one sweep over all connections, so they fire up to a quarter, 1 s at most, late.
    `keepalive` is shorter than the about 5 s after which S3 closes an idle connection, so that a
    request seldom races that close. `pool_size` connections are in use at most; who finds none
    free waits in turn.
    """

    def __init__(
        self,
        *,
        connect_timeout: float = 5.0,
        read_timeout: float = 60.0,
        slow_timeout: float = 600.0,
        pool_size: int = 256,
        keepalive: float = 4.0,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._slow_timeout = max(slow_timeout, read_timeout)
        self._pool_size = pool_size
        self._keepalive = keepalive
        self._ssl = ssl
        shortest = min(connect_timeout, read_timeout, keepalive)
        self._sweep_seconds = max(0.02, min(1.0, shortest / 4))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._connections: set[Connection] = set()  # open, or being opened
        self._gone: asyncio.Future[None] | None = None  # set while closing: the last connection
        self._idle: dict[str, list[Connection]] = {}  # by origin, the longest idle first
        self._waiting: deque[tuple[float, asyncio.Future[bool]]] = deque()  # since when, for a turn
        self.in_use = 0  # connections lent to an exchange, or being opened for one

    async def request(
        self,
        method: str,
        origin: str,
        target: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
        *,
        slow: bool = False,
    ) -> HttpResponse:
        """Send a request and wait for the head of its answer.

        `origin` is `scheme://host[:port]`; `target` is the path with its query as it shall stand on
        the wire; `headers` hold everything but Content-Length and Accept-Encoding, Host included.
        Raises BackendUnavailable, BackendProtocolError, or what the body's own source raised.
        """
        head = _serialize(method, target, headers, body)
        connection = self._idle_one(origin) if self.in_use < self._pool_size else None
        if connection is None:
            connection = await self._obtain(origin)
        else:
            self.in_use += 1
        try:
            answer = await connection.exchange(
                head,
                body,
                self._slow_timeout if slow else self._read_timeout,
                is_head=method == "HEAD",
            )
        except BaseException:
            connection.abort()
            self.release(connection)
            raise
        if fault := _fault(method, answer, body, connection.sent):
            connection.abort()
            self.release(connection)
            raise base.BackendProtocolError(fault)
        return HttpResponse(self, connection, answer)

    def release(self, connection: Connection) -> None:
        """Take a connection back: into the pool when nothing of its exchange is left, else out."""
        if connection.reusable:
            assert self._loop is not None
            connection.idle_since = self._loop.time()
            self._idle[connection.origin].append(connection)
        else:
            connection.abort()
        self._end_turn()

    async def close(self) -> None:
        """Close every connection; what is under way fails. A later request opens the pool anew."""
        if self._loop is None:
            return
        for _, turn in self._waiting:
            if not turn.done():
                turn.set_result(False)
        self._waiting.clear()
        for connection in tuple(self._connections):
            connection.abort()
        if self._connections:
            self._gone = self._loop.create_future()
            await asyncio.wait([self._gone], timeout=1)  # transports close a little later
        self._idle.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop = self._gone = None

    def _idle_one(self, origin: str) -> Connection | None:
        """The connection that became idle last, unless even that is too long ago."""
        idle = self._idle.get(origin)
        if not idle:
            return None
        assert self._loop is not None
        connection = idle.pop()
        if self._loop.time() - connection.idle_since >= self._keepalive:
            connection.abort()
            return None
        return connection

    async def _obtain(self, origin: str) -> Connection:
        """Wait for a turn, then take an idle connection or open one."""
        loop = self._open()
        expiry = loop.time() + self._connect_timeout
        if self.in_use >= self._pool_size:
            await self._wait_turn(loop, expiry)
        else:
            self.in_use += 1
        connection = self._idle_one(origin)
        if connection is not None:
            return connection
        connection = Connection(loop, origin, self._forget)
        try:
            await self._connect(loop, connection, expiry)
        except BaseException:
            connection.abort()
            self._forget(connection)
            self._end_turn()
            raise
        return connection

    async def _wait_turn(self, loop: asyncio.AbstractEventLoop, expiry: float) -> None:
        """Return when a connection may be used; `in_use` counts it already."""
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((expiry, turn))
        try:
            granted = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self._end_turn()
            raise
        if not granted:
            msg = f"no free connection to the store in {self._connect_timeout:g} s"
            raise base.BackendUnavailable(msg, unsent=True)

    def _end_turn(self) -> None:
        """Pass the turn to whoever waits longest."""
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self.in_use -= 1

    async def _connect(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, expiry: float
    ) -> None:
        self._connections.add(connection)
        self._idle.setdefault(connection.origin, [])
        try:
            parts = urlsplit(connection.origin)
            host = parts.hostname or ""
            encrypted = parts.scheme == "https"
            async with asyncio.timeout_at(expiry):
                await loop.create_connection(
                    lambda: connection,
                    host,
                    parts.port or (443 if encrypted else 80),
                    ssl=self._context() if encrypted else None,
                    server_hostname=host if encrypted else None,
                )
        except (OSError, UnicodeError) as error:  # a name that is none is a UnicodeError
            trusted = not isinstance(error, tls.SSLCertVerificationError)
            text = str(error) or f"no connection to the store in {self._connect_timeout:g} s"
            raise base.BackendUnavailable(text, retryable=trusted, unsent=True) from error

    def _context(self) -> tls.SSLContext:
        if self._ssl is None:
            self._ssl = tls.create_default_context()
            self._ssl.set_alpn_protocols(["http/1.1"])
        return self._ssl

    def _forget(self, connection: Connection) -> None:
        """A connection is gone, perhaps an idle one that the store has closed."""
        self._connections.discard(connection)
        if self._gone is not None and not self._connections and not self._gone.done():
            self._gone.set_result(None)
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)

    def _open(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._timer = self._loop.call_later(self._sweep_seconds, self._sweep)
        return self._loop

    def _sweep(self) -> None:
        """Look after every deadline."""
        assert self._loop is not None
        self._timer = self._loop.call_later(self._sweep_seconds, self._sweep)
        now = self._loop.time()
        for connection in [each for each in self._connections if each.deadline <= now]:
            connection.expire()
        stale = now - self._keepalive
        for idle in self._idle.values():
            while idle and idle[0].idle_since <= stale:
                idle.pop(0).abort()
        while self._waiting and self._waiting[0][0] <= now:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(False)


def _serialize(method: str, target: str, headers: base.HeaderList, body: base.Body | None) -> bytes:
    """The head of a request; raises BackendProtocolError where it would not say what is given."""
    if not (target.isascii() and target.isprintable()) or " " in target or "#" in target:
        msg = f"request target is not percent-encoded: {target!r}"
        raise base.BackendProtocolError(msg)
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append("accept-encoding: identity")
    if body is not None:
        lines.append(f"content-length: {body.length}")
    lines.append("\r\n")
    text = "\r\n".join(lines)
    if text.count("\r") != len(lines) or text.count("\n") != len(lines) or "\0" in text:
        raise base.BackendProtocolError("request not sent: line break or NUL in a header")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise base.BackendProtocolError(f"request not sent: {error}") from error


def _fault(method: str, head: base.Head, body: base.Body | None, sent: int) -> str:
    """Say what makes a success untrustworthy; empty when nothing does."""
    if not 200 <= head.status < 300:
        return ""
    if body is not None and sent != body.length:
        return f"status {head.status} before the request body was sent"
    if method == "HEAD" or head.status == 204 or "content-length" in head.headers:
        return ""
    coding = head.headers.get("transfer-encoding", "")
    if coding.lower().rpartition(",")[2].strip() != "chunked":
        return f"status {head.status} with a body of unknown length"
    return ""
