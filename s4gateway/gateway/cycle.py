"""One request and its answer: the `receive` and `send` that an ASGI application is called with.

Rules. The application sets the pace: past a high-water mark the connection stops reading. An answer
is whole or visibly broken: its head is kept back until the first piece of the body, so that what
fails before is still a clean error, and a body of another length than declared never ends cleanly.
A client that has gone is told to the application by an exception, so that nobody goes on decoding
for nobody. ASGI 2.4: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from s4gateway.s3 import errors

logger = logging.getLogger("s4.protocol")

BODY_HIGH_WATER: Final = 512 * 1024  # bytes held for an application that does not ask for more
EARLY_HIGH_WATER: Final = 64 * 1024  # the same before its first receive(): nobody is authenticated
BODY_LOW_WATER: Final = 128 * 1024

_JOIN_BELOW: Final = 64 * 1024  # segments smaller than this are delivered together
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"connection"))
_CONTROLS: Final = bytes((*range(0x20), 0x7F))
_NOT_IN_NAMES: Final = _CONTROLS + b' ()<>@,;:\\[]={}"'
_NOT_IN_VALUES: Final = _CONTROLS.replace(b"\t", b"")
_DISCONNECT: Final[Message] = {"type": "http.disconnect"}


class ClientGone(ConnectionError):
    """Raised by send() when nobody is there to read: the application can stop working."""


class Wire(Protocol):
    """What a cycle needs of its connection."""

    transport: asyncio.Transport
    flow: FlowControl
    over_cap: bool

    @property
    def date_line(self) -> bytes:
        """The Date header, ready to send."""
        ...

    def resume_body(self) -> None:
        """Read on."""
        ...

    def pause_body(self) -> None:
        """Stop reading."""
        ...

    def answered(self, cycle: "Cycle") -> None:
        """The answer is complete."""
        ...

    def refuse(self, error: errors.S3Error) -> None:
        """Answer with an error, or reset."""
        ...

    def abort(self) -> None:
        """Reset."""
        ...


class Cycle:
    """One request and its answer: the `receive` and `send` of an ASGI application."""

    __slots__ = (
        "_buffered", "_chunked", "_chunks", "_connection", "_delivered", "_head", "_headless",
        "_high_water", "_left", "_started", "disconnected", "expects_continue", "keep_alive",
        "length", "message_event", "more_body", "on_wire", "received", "response_complete", "scope",
    )  # fmt: skip

    def __init__(
        self, connection: Wire, scope: Scope, *, expects_continue: bool, keep_alive: bool
    ) -> None:
        self._connection = connection
        self.scope = scope
        self.expects_continue = expects_continue
        self.keep_alive = keep_alive
        self.message_event = asyncio.Event()
        self.disconnected = False
        # the request's body
        self.length = 0  # as declared; 0 for chunked bodies
        self.received = 0
        self.more_body = True
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._high_water = EARLY_HIGH_WATER
        self._delivered = False  # the last message of the body
        for name, value in scope["headers"]:
            if name == b"content-length":
                self.length = int(value)
        # the answer
        self.on_wire = False
        self.response_complete = False
        self._started = False
        self._head: list[bytes] = []  # kept back until the first piece of the body
        self._headless = scope["method"] == "HEAD"
        self._chunked = False
        self._left = -1  # bytes of the body still owed; -1 when no length is declared

    def put(self, body: bytes) -> None:
        """Take a piece of the body from the connection."""
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > self._high_water:
            self._connection.pause_body()
        self.message_event.set()

    def disconnect(self) -> None:
        """The client is gone, or was refused: nothing more is received or sent."""
        if not self.response_complete:
            self.disconnected = True
        self._chunks.clear()
        self.message_event.set()

    async def run(self, app: ASGIApp) -> None:
        """Run the application; what it lets escape becomes a 500, or a reset."""
        try:
            await app(self.scope, self.receive, self.send)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            self._connection.abort()
            raise
        except Exception:
            logger.exception("application-failed")
            self._fail()
        else:
            if not self.response_complete and not self.disconnected:
                logger.error("answer-incomplete")
                self._fail()

    async def receive(self) -> Message:
        """Return the next piece of the body, then wait until the client goes."""
        connection = self._connection
        if self.expects_continue and not self._started and not self.disconnected:
            self.expects_continue = False
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._high_water = BODY_HIGH_WATER
        while not self.disconnected and not self.response_complete:
            if self._chunks or (not self.more_body and not self._delivered):
                return self._next()
            if not self._delivered:
                connection.resume_body()
            self.message_event.clear()
            await self.message_event.wait()
        return _DISCONNECT

    async def send(self, message: Message) -> None:
        """Write a part of the answer; raises ClientGone when there is nobody to read it."""
        flow = self._connection.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        if self.disconnected:
            raise ClientGone("the client closed the connection")
        kind = message["type"]
        if kind == "http.response.body" and self._started and not self.response_complete:
            self._write(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and not self._started:
            self._begin(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"unexpected message {kind!r}")

    def _next(self) -> Message:
        """All short segments in one message, a long one by itself and uncopied."""
        chunks = self._chunks
        if len(chunks) == 1 or (chunks and len(chunks[0]) >= _JOIN_BELOW):
            body = chunks.popleft()
        else:
            body = b"".join(chunks)
            chunks.clear()
        self._buffered -= len(body)
        if self._buffered < BODY_LOW_WATER and self.more_body:
            self._connection.resume_body()
        self._delivered = not self.more_body and not chunks
        return {"type": "http.request", "body": body, "more_body": not self._delivered}

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Check and render the head; it leaves with the first piece of the body."""
        headers = list(headers)
        names = [header[0] for header in headers]
        if _holds(b"".join(names), _NOT_IN_NAMES):
            raise RuntimeError("invalid header name")
        if _holds(b"".join([header[1] for header in headers]), _NOT_IN_VALUES):
            raise RuntimeError("invalid header value")
        if self.expects_continue or (self._connection.over_cap and self.keep_alive):
            # Without its 100 the client may send the body or not: only a new connection is certain
            # to begin with a request.
            self.keep_alive = self.keep_alive and not self.more_body
        head = [STATUS_LINE[status]]
        if b"date" not in names:
            head.append(self._connection.date_line)
        head += [b"%b: %b\r\n" % (name, value) for name, value in headers]
        for name, value in headers:
            if name in _FRAMING:
                self._frame(name, value)
        if status in {204, 304}:
            self._headless = True
        if not self.keep_alive and b"connection" not in names:
            head.append(b"connection: close\r\n")
        if self._left < 0 and not self._headless and self.scope["http_version"] == "1.1":
            self._chunked = True
            head.append(b"transfer-encoding: chunked\r\n")
        elif self._left < 0 and not self._headless:
            self.keep_alive = False  # HTTP/1.0: the end of the connection is the end of the body
        head.append(b"\r\n")
        self._head = head
        self._started = True

    def _frame(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            self._left = int(value)
        elif name == b"connection" and b"close" in value.lower():
            self.keep_alive = False
        elif name == b"transfer-encoding":
            raise RuntimeError("the framing of the answer is the server's")

    def _write(self, body: bytes | memoryview, more: bool) -> None:
        size = len(body)
        if self._headless:
            body, size = b"", 0
        elif self._chunked:
            end = b"" if more else b"0\r\n\r\n"
            body = b"".join((b"%x\r\n" % size, body, b"\r\n", end)) if size else end
        elif self._left >= 0:
            if size > self._left or (size < self._left and not more):
                raise RuntimeError(
                    f"the answer's body is not as long as declared: {self._left} left"
                )
            self._left -= size
        transport = self._connection.transport
        if self._head and (body or not more):
            self.on_wire = True
            if len(body) <= _JOIN_BELOW:
                transport.write(b"".join((*self._head, body)))
            else:
                transport.write(b"".join(self._head))
                transport.write(body)
            self._head = []
        elif body:
            transport.write(body)
        if not more:
            self.response_complete = True
            self.message_event.set()
            self._connection.answered(self)

    def _fail(self) -> None:
        if self.disconnected or self.response_complete:
            return
        self._connection.refuse(errors.S3Error("InternalError"))


def _holds(text: bytes, unwanted: bytes) -> bool:
    """Whether any of these bytes is in `text`; a search by a regular expression takes longer."""
    return len(text.translate(None, unwanted)) < len(text)
