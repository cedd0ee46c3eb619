"""HTTP/1.1 to the store: the only file that knows the HTTP library (aiohttp).

Three rules. What leaves is what was signed: the request target reaches the wire byte for byte
("..", "//" and "%2F" included), the headers are the ones given, and nothing is added on the way (no
Accept-Encoding but `identity`, no User-Agent, no cookies, no environment proxy, no redirect). What
arrives is raw: no Content-Encoding is undone, and a body that ends before its Content-Length or its
last chunk is an error (RFC 9112 section 8). Every way to fail is a BackendError, and the connection
of a failed, cancelled or half-read exchange is dropped, never reused.

Of the library we use the connection pool and the HTTP/1.1 protocol, not its session: that costs
about a sixth less CPU per small request, and the session would repeat a PUT whose connection
broke, conditional or not.
"""

import asyncio
import contextlib
import ssl as tls
from collections.abc import AsyncIterator
from typing import Self

import aiohttp
import yarl
from aiohttp import abc, connector, http_exceptions, payload, typedefs
from multidict import CIMultiDict

from s4gateway.backend import base
from s4gateway.s3.headers import Headers

_READ_BUFFER = 512 * 1024  # bytes held per connection before the socket is no longer read
_NEVER_WAITS = 32 * 1024  # bytes that, with their headers, stay below the socket's high-water mark
_WRITE_PIECE = 256 * 1024  # bytes of a body in memory handed to the socket at a time
_FIELD_LIMIT = 32 * 1024  # bytes of one answer header; S3 metadata is at most 2 KiB in all
_NO_BODY_STATUS = frozenset({204, 304})
_PAYLOAD_HEADERS: CIMultiDict[str] = CIMultiDict({"accept-encoding": "identity"})


class _Upload(payload.Payload):
    """A request body on its way out: exactly `length` bytes, or a failure that is remembered.

    The library reports a failing body as a broken connection; `failure` keeps the true cause.
    """

    _autoclose = True

    def __init__(self, body: base.Body, stall_timeout: float) -> None:
        # Payload.__init__ would invent a Content-Type; the headers here are already in the request.
        self._headers = _PAYLOAD_HEADERS
        self._size = body.length
        self._value = body
        self._stall_timeout = stall_timeout
        self.handed_over = 0
        self.failure: Exception | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a body on its way out is not text")

    async def write(self, writer: abc.AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: abc.AbstractStreamWriter, content_length: int | None
    ) -> None:
        chunks = self._value.chunks
        if isinstance(chunks, bytes) and len(chunks) <= _NEVER_WAITS:
            self.handed_over = len(chunks)
            await writer.write(chunks)
            return
        try:
            await self._stream(writer, _slices(chunks) if isinstance(chunks, bytes) else chunks())
        except Exception as error:
            self.failure = error
            raise

    async def _stream(self, writer: abc.AbstractStreamWriter, pieces: AsyncIterator[bytes]) -> None:
        length = self._value.length
        async with _closing(pieces):
            async for piece in pieces:
                self.handed_over += len(piece)
                if self.handed_over > length:
                    msg = f"request body is longer than its {length} bytes"
                    raise ValueError(msg)
                async with self._progress():
                    await writer.write(piece)
        if self.handed_over != length:
            msg = f"request body ended after {self.handed_over} of {length} bytes"
            raise ValueError(msg)
        # The library's own last drain has no time limit: leave it nothing to wait for.
        async with self._progress():
            await writer.drain()

    @contextlib.asynccontextmanager
    async def _progress(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._stall_timeout):
                yield
        except TimeoutError as error:
            msg = f"the store took no bytes for {self._stall_timeout:g} s"
            raise base.BackendUnavailable(msg) from error


async def _slices(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _WRITE_PIECE):
        yield data[start : start + _WRITE_PIECE]


@contextlib.asynccontextmanager
async def _closing(pieces: AsyncIterator[bytes]) -> AsyncIterator[None]:
    """Finish a generator that is left early; other iterators have nothing to finish."""
    try:
        yield
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


class _Request(aiohttp.ClientRequest):
    """A request that carries exactly the headers it is given."""

    POST_METHODS = frozenset[str]()  # type: ignore[assignment] # no default Content-Type

    def update_headers(self, headers: typedefs.LooseHeaders | None) -> None:
        assert isinstance(headers, CIMultiDict)
        self.headers = headers

    def update_auto_headers(self, skip_auto_headers: object) -> None:
        """Add nothing."""

    def update_cookies(self, cookies: object) -> None:
        """Add nothing."""


def _translated(error: Exception) -> base.BackendError:
    text = str(error) or ("timed out" if isinstance(error, TimeoutError) else type(error).__name__)
    match error:
        case aiohttp.ClientPayloadError():
            return base.BackendProtocolError(f"answer ended early: {text}")
        case aiohttp.ClientResponseError():
            return base.BackendProtocolError(f"not an HTTP answer: {text}")
        case _:
            return base.BackendUnavailable(text)


class HttpResponse(base.ObjectStream):
    """An answer whose head has arrived and whose body has not been read."""

    __slots__ = ("_ended", "_owner", "_response", "_timeout")

    def __init__(
        self, owner: "HttpClient", response: aiohttp.ClientResponse, timeout: float
    ) -> None:
        self.head = base.Head(response.status, Headers(response.raw_headers))
        self._owner: HttpClient | None = owner
        self._response = response
        self._timeout = timeout
        self._ended = False

    async def read(self, limit: int) -> bytes:
        """Return the body; more than `limit` bytes are a BackendProtocolError."""
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
        if self._owner is None:
            if self._ended:
                raise StopAsyncIteration
            raise base.BackendProtocolError("the answer was closed before its body was read")
        content = self._response.content
        try:
            piece = content.read_nowait()  # most pieces are there already; waiting costs a timer
            if not piece and not content.at_eof():
                async with asyncio.timeout(self._timeout):
                    piece = await content.readany()
        except BaseException as error:
            fault = self._fault()
            await self.close()
            if isinstance(error, TimeoutError) and fault is not None:
                raise base.BackendProtocolError(f"malformed body: {fault}") from error
            if isinstance(error, (aiohttp.ClientError, TimeoutError)):
                raise _translated(error) from error
            raise
        if not piece:
            self._ended = True
            await self.close()
            raise StopAsyncIteration
        return piece

    def _fault(self) -> BaseException | None:
        """What the parser choked on: the library does not wake the body's reader for it."""
        connection = self._response.connection
        protocol = None if connection is None else connection.protocol
        fault = None if protocol is None else protocol.exception()
        return fault if isinstance(fault, http_exceptions.HttpProcessingError) else None

    async def close(self) -> None:
        """Drop the connection unless the body has arrived whole."""
        if self._owner is not None:
            self._owner.in_use -= 1
            self._owner = None
            # A body read to its end has already given its connection back.
            self._response.close()


class HttpClient:
    """A pool of connections. Construct it anywhere; the first request opens it in its event loop.

    Timeouts are seconds: `connect_timeout` for a free connection including DNS and TLS,
    `read_timeout` between two reads or writes that make progress, `slow_timeout` the same for
    requests the store works on in silence (a copy, completing a multipart upload). `keepalive` is
    shorter than the about 5 s after which S3 closes an idle connection, so that a request seldom
    races that close.
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
        self._connect_timeout = aiohttp.ClientTimeout(
            connect=connect_timeout, sock_connect=connect_timeout
        )
        self._read_timeout = read_timeout
        self._slow_timeout = max(slow_timeout, read_timeout)
        self._pool_size = pool_size
        self._keepalive = keepalive
        self._ssl = ssl
        self._pool: aiohttp.TCPConnector | None = None
        self.in_use = 0  # answers not yet closed or read to their end

    def _open(self) -> aiohttp.TCPConnector:
        self._pool = aiohttp.TCPConnector(
            limit=self._pool_size,
            keepalive_timeout=self._keepalive,
            ssl=self._ssl if self._ssl is not None else True,
        )
        return self._pool

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
        if not _is_wire_text(target):
            msg = f"request target is not percent-encoded: {target!r}"
            raise base.BackendProtocolError(msg)
        timeout = self._slow_timeout if slow else self._read_timeout
        fields = CIMultiDict(headers)
        fields["accept-encoding"] = "identity"
        upload = None
        if body is not None:
            fields["content-length"] = str(body.length)
            if body.length:
                upload = _Upload(body, timeout)
        self.in_use += 1
        try:
            request = _Request(
                method,
                yarl.URL(origin + target, encoded=True),
                headers=fields,
                data=upload,
                loop=asyncio.get_running_loop(),
            )
            answer = await self._exchange(request, timeout)
        except BaseException as error:
            self.in_use -= 1
            if upload is not None and upload.failure is not None and isinstance(error, Exception):
                raise upload.failure from None
            if isinstance(error, (aiohttp.ClientError, OSError)):
                raise _translated(error) from error
            if isinstance(error, ValueError):
                raise base.BackendProtocolError(f"request not sent: {error}") from error
            raise
        response = HttpResponse(self, answer, timeout)
        if fault := _fault(method, response.head, upload):
            await response.close()
            raise base.BackendProtocolError(fault)
        return response

    async def _exchange(self, request: _Request, timeout: float) -> aiohttp.ClientResponse:
        """Send a request over a pooled connection; the head of the answer has arrived."""
        connection = await self._connect(request)
        try:
            assert connection.protocol is not None
            connection.protocol.set_response_params(
                skip_payload=request.method == "HEAD",
                read_until_eof=True,
                auto_decompress=False,
                read_timeout=timeout,
                read_bufsize=_READ_BUFFER,
                max_line_size=_FIELD_LIMIT,
                max_field_size=_FIELD_LIMIT,
            )
            answer = await request.send(connection)
            try:
                await answer.start(connection)
            except BaseException:
                answer.close()
                raise
        except BaseException:
            connection.close()
            raise
        return answer

    async def _connect(self, request: _Request) -> connector.Connection:
        pool = self._pool or self._open()
        try:
            return await pool.connect(request, [], self._connect_timeout)
        except (aiohttp.ClientError, OSError) as error:
            trusted = not isinstance(error, aiohttp.ClientConnectorCertificateError)
            text = str(error) or "no connection in time"
            raise base.BackendUnavailable(text, retryable=trusted, unsent=True) from error

    async def close(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()


def _is_wire_text(target: str) -> bool:
    return target.isascii() and target.isprintable() and not (" " in target or "#" in target)


def _fault(method: str, head: base.Head, upload: _Upload | None) -> str:
    """Say what makes a success untrustworthy; empty when nothing does."""
    if not 200 <= head.status < 300:
        return ""
    if upload is not None and upload.handed_over != upload.size:
        return f"status {head.status} before the request body was sent"
    if method == "HEAD" or head.status in _NO_BODY_STATUS or "content-length" in head.headers:
        return ""
    if "transfer-encoding" not in head.headers:
        return f"status {head.status} with a body of unknown length"
    return ""
