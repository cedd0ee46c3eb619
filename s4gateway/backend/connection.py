"""One connection to the store: HTTP/1.1 (RFC 9112), one exchange at a time, as asyncio shows it.

httptools parses; what is around it is here. Three rules. A request is written as it is given, a
small one in a single write. A wait has a deadline only while the store is the one to act: it must
take bytes while we wait to write and send bytes while we wait to read, but is not blamed for a
slow source or a slow reader; the owner's sweep calls `expire` on whoever is late, so that an
exchange costs no timer. And a connection is fit for another exchange only when the last one left
nothing behind: request sent, answer whole, no byte more.

Small costs are the point of this file: a small exchange is one write, one future and one wakeup,
without a task, and of a big body only the first segment passes the parser.
"""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import httptools

from s4gateway.backend import base
from s4gateway.s3.headers import Headers

NEVER: Final = math.inf

_FIELD_LIMIT: Final = 32 * 1024  # bytes of one answer header; S3 metadata is at most 2 KiB in all
_HEAD_LIMIT: Final = 64 * 1024  # bytes of all headers of an answer, interim answers included
_FIELDS: Final = 200  # headers of one answer
_READ_HIGH: Final = 512 * 1024  # bytes held for the reader before the socket is no longer read
_READ_LOW: Final = 256 * 1024
_BYPASS_ABOVE: Final = 64 * 1024  # a body with more than this to come does not pass the parser
_ONE_WRITE: Final = 32 * 1024  # bytes of a body in memory that are joined to their headers
_WRITE_PIECE: Final = 256 * 1024  # bytes of a longer one handed to the socket at a time
_NO_BODY: Final = frozenset({204, 304})

_IDLE, _HEAD, _BODY, _DONE, _FAILED = range(5)


class Connection(asyncio.Protocol):
    """The protocol object of one connection; `lost` hears once when it is gone.

    `exchange` sends a request and returns with the head of its answer. The body arrives in
    `pieces`: while not `done`, wait with `more` and say with `taken` what was read.
    """

    __slots__ = (
        "_bypass", "_closed", "_drained", "_fields", "_framed", "_head_bytes", "_held", "_is_head",
        "_keep", "_left", "_length", "_loop", "_lost", "_parser", "_paused", "_phase", "_room",
        "_timeout", "_transport", "_unsent", "_waiter", "deadline", "fault", "head", "idle_since",
        "origin", "pieces", "sent",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, origin: str, lost: Callable[["Connection"], None]
    ) -> None:
        self.origin = origin
        self.deadline = NEVER  # loop time; the sweep calls expire() once it has passed
        self.idle_since = 0.0
        self.head: base.Head | None = None
        self.pieces: deque[bytes] = deque()
        self.fault: BaseException | None = None  # why the exchange failed
        self.sent = 0  # bytes of the request body handed to the transport
        self._loop = loop
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._phase = _IDLE
        self._closed = False
        self._timeout = NEVER
        self._length = 0  # bytes of the request body
        self._is_head = False  # the answer to a HEAD has no body, whatever it says
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0  # bytes parsed that were not body
        self._framed = False  # the answer says where its body ends
        self._left = 0  # bytes of the answer's body still to come, when it has a length
        self._bypass = False  # the rest of the body goes past the parser
        self._keep = False
        self._held = 0  # bytes in `pieces`
        self._paused = False  # the socket is not read
        self._room = True  # the transport takes more
        self._unsent = 0  # bytes it held when it was last looked at
        self._waiter: asyncio.Future[None] | None = None  # of the answer
        self._drained: asyncio.Future[None] | None = None  # of room to write

    # --- the owner speaks

    async def exchange(
        self, head: bytes, body: base.Body | None, timeout: float, *, is_head: bool
    ) -> base.Head:
        """Send a request; returns as soon as the head of its answer is here.

        `timeout` is how long, in seconds, the store may take nothing or send nothing. Raises
        BackendError, or what the source of the body raised. After an error, or a return with
        `sent` short of the body, the connection is of no more use.
        """
        self._begin(body, timeout, is_head=is_head)
        if body is None or not body.length:
            self._write(head)
        elif not isinstance(body.chunks, bytes):
            self._write(head)
            await self._exchange_streamed(body.chunks())
        elif body.length <= _ONE_WRITE:
            self.sent = body.length
            self._write(head + body.chunks)
        else:
            self._write(head)
            await self._send(body.chunks)
        while self.head is None and self.fault is None:
            await self._wait(self._timeout)
        if self.head is None:
            assert self.fault is not None
            raise self.fault
        return self.head

    @property
    def done(self) -> bool:
        """The answer has arrived whole."""
        return self._phase == _DONE

    @property
    def reusable(self) -> bool:
        """Nothing of the last exchange is left on the wire, and the peer is there."""
        return (
            self._phase == _DONE
            and self._keep
            and self.sent == self._length
            and self._room
            and not self._closed
        )

    async def more(self) -> None:
        """Wait for a piece of the body or its end; raises BackendError."""
        while not self.pieces and self._phase == _BODY:
            await self._wait(self._timeout)
        if self.fault is not None:
            raise self.fault

    def taken(self, count: int) -> None:
        """The reader has taken so many bytes of `pieces`."""
        self._held -= count
        if self._paused:
            self._govern_reading()

    def expire(self) -> None:
        """The deadline has passed: unless the store takes bytes, however slowly, give it up."""
        assert self._transport is not None
        waited = f"for {self._timeout:g} s"
        if self._drained is None:
            self.fail(base.BackendUnavailable(f"the store sent nothing {waited}"))
        elif (unsent := self._transport.get_write_buffer_size()) < self._unsent:
            self._unsent = unsent
            self.deadline = self._loop.time() + self._timeout
        else:
            self.fail(base.BackendUnavailable(f"the store took no bytes {waited}"))

    def fail(self, fault: Exception) -> None:
        """End the connection now; an exchange whose answer is not whole ends with this error."""
        if self._phase in (_HEAD, _BODY):
            self._phase = _FAILED
            self.fault = fault
        self._closed = True
        self._bypass = False
        self._parser = None  # the two refer to each other
        if self._transport is not None:
            self._transport.abort()
        self._notify()

    def abort(self) -> None:
        """End the connection now, whatever is under way."""
        self.fail(base.BackendUnavailable("the connection was closed"))

    # --- the transport speaks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the transport, unless the connection was given up while it was being made."""
        self._transport = transport
        if self._closed:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse, or take a segment of a big body as it is; then wake who waits for it."""
        if self._bypass:
            self._take(data)
        elif self._phase in (_HEAD, _BODY):
            self._parse(data)
        else:  # nobody asked for these bytes
            self.abort()
            return
        if self._phase != _HEAD:
            self._notify()
            self._govern_reading()
        elif self._waiter is not None and self.deadline != NEVER:
            self.deadline = self._loop.time() + self._timeout

    def eof_received(self) -> None:
        """Treat an end of the answers as the end: nothing can be asked any more."""
        self._end(None)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is under way and tell the owner."""
        self._end(exc)
        self.abort()
        self._lost(self)

    def pause_writing(self) -> None:
        """Make writers wait."""
        self._room = False

    def resume_writing(self) -> None:
        """Let the writer go on."""
        self._room = True
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # --- the parser speaks

    def on_message_begin(self) -> None:
        """Refuse a second answer: there was one request."""
        if self._phase == _DONE:
            raise base.BackendProtocolError("one request, two answers")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; trailers are dropped."""
        if self._phase == _HEAD:
            self._fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Decide from the head where the body ends (RFC 9112 section 6.3)."""
        if self._head_bytes > _FIELD_LIMIT or len(self._fields) > _FIELDS:
            _check_size(self._fields)
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        fields, self._fields = self._fields, []
        if status < 200:
            if status < 100 or status == 101:
                raise base.BackendProtocolError(f"answered with status {status}")
            return  # an interim answer
        headers = Headers(fields)
        self.head = base.Head(status, headers)
        self._keep = parser.should_keep_alive()
        if self._is_head:
            # The parser does not know the method: it may wait for a body, even for one until EOF.
            self._parser = None
            if not self._keep and parser.get_http_version() == "1.1":
                self._keep = "close" not in headers.get("connection", "").lower()
        if self._is_head or status in _NO_BODY:
            self._phase = _DONE
            return
        self._phase = _BODY
        if (length := headers.get("content-length")) is not None:
            self._framed = True
            self._left = int(length)
        else:
            coding = headers.get("transfer-encoding", "").lower()
            self._framed = coding.rpartition(",")[2].strip() == "chunked"

    def on_body(self, body: bytes) -> None:
        """Hold a piece of the body; behind an answer without one, it is garbage."""
        if self._phase != _BODY:
            self._keep = False
            return
        self._head_bytes = 0
        self._left -= len(body)
        self._held += len(body)
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        """End the body, if this was not the end of an interim answer."""
        if self._phase == _BODY:
            self._phase = _DONE

    # --- steps

    def _begin(self, body: base.Body | None, timeout: float, *, is_head: bool) -> None:
        self._length = 0 if body is None else body.length
        if body is not None and isinstance(body.chunks, bytes):
            self._check_sent(len(body.chunks), whole=True)
        if self._closed:
            raise base.BackendUnavailable("the connection was closed before its use", unsent=True)
        self._phase = _HEAD
        self._timeout = timeout
        self._is_head = is_head
        self.head = None
        self.pieces = deque()
        self.sent = self._head_bytes = self._held = self._left = 0
        self._framed = False
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)

    def _write(self, data: bytes | memoryview) -> None:
        assert self._transport is not None
        self._transport.write(data)

    async def _send(self, data: bytes) -> None:
        """Send a body held in memory; returns early when the store answers early."""
        view = memoryview(data)
        while self.sent < self._length and self._phase == _HEAD:
            piece = view[self.sent : self.sent + _WRITE_PIECE]
            self.sent += len(piece)
            self._write(piece)
            if not self._room:
                await self._drain()

    async def _exchange_streamed(self, pieces: AsyncIterator[bytes]) -> None:
        """Send a streamed body while listening for an answer; returns when there is one.

        The source runs in a task of its own, because an answer must be able to interrupt its wait.
        A success that comes after the last byte waits for the source's own end, which may object.
        """
        pump = self._loop.create_task(self._pump(pieces))
        try:
            while self.head is None and self.fault is None:
                await self._wait(NEVER if not pump.done() else self._timeout)
            if self.head is not None and self.head.status < 300 and self.sent == self._length:
                await asyncio.wait([pump])
        finally:
            if not pump.done():
                pump.cancel()
                await asyncio.wait([pump])

    async def _pump(self, pieces: AsyncIterator[bytes]) -> None:
        """Send pieces until they end, or the store answers; a failure fails the exchange."""
        try:
            async with _closing(pieces):
                async for piece in pieces:
                    if self._phase != _HEAD:
                        return
                    self.sent += len(piece)
                    self._check_sent(self.sent)
                    self._write(piece)
                    if not self._room:
                        await self._drain()
            self._check_sent(self.sent, whole=True)
        except asyncio.CancelledError as error:
            if self._phase == _HEAD:  # not because there is an answer, then by the source
                self._object(error)
            raise
        except Exception as error:
            self._object(error)
        else:
            if self._waiter is not None:
                self.deadline = self._loop.time() + self._timeout

    def _object(self, error: BaseException) -> None:
        """The source of the body has failed: whatever the answer is, this is the outcome."""
        self.abort()
        self.head = None
        self.fault = error

    def _check_sent(self, count: int, *, whole: bool = False) -> None:
        if count > self._length or (whole and count < self._length):
            msg = f"request body of {self._length} bytes came with {count}"
            raise ValueError(msg)

    async def _drain(self) -> None:
        """Wait until the transport takes more, or the exchange is over."""
        assert self._transport is not None
        self._unsent = self._transport.get_write_buffer_size()
        self._drained = self._loop.create_future()
        self.deadline = self._loop.time() + self._timeout
        try:
            await self._drained
        finally:
            self._drained = None
            self.deadline = NEVER

    async def _wait(self, timeout: float) -> None:
        """Wait until something arrives that is of interest to the reader."""
        self._waiter = self._loop.create_future()
        self.deadline = self._loop.time() + timeout
        try:
            await self._waiter
        finally:
            self._waiter = None
            self.deadline = NEVER

    def _notify(self) -> None:
        self.deadline = NEVER
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        drained = self._drained
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _parse(self, data: bytes) -> None:
        self._head_bytes += len(data)
        try:
            assert self._parser is not None
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._phase == _DONE:
                self._keep = False
                return
            cause = error.__context__
            what = "not an HTTP answer" if self._phase == _HEAD else "malformed body"
            fault = base.BackendProtocolError(f"{what}: {error}")
            fault.__cause__ = error
            self.fail(cause if isinstance(cause, base.BackendProtocolError) else fault)
            return
        if self._phase == _BODY and self._left > _BYPASS_ABOVE:
            self._bypass = True
            self._parser = None
        elif self._phase in (_HEAD, _BODY) and self._head_bytes > _HEAD_LIMIT:
            self.fail(base.BackendProtocolError(f"more than {_HEAD_LIMIT} bytes of headers"))

    def _take(self, data: bytes) -> None:
        """A segment that can only be body, and perhaps garbage behind it."""
        if len(data) >= self._left:
            self._keep = self._keep and len(data) == self._left
            data = data[: self._left]
            self._bypass = False
            self._phase = _DONE
        self._left -= len(data)
        self._held += len(data)
        self.pieces.append(data)

    def _govern_reading(self) -> None:
        """Read on or not: an idle connection is read too, or its end would go unnoticed."""
        assert self._transport is not None
        if self._paused:
            if (self._held <= _READ_LOW or self._phase != _BODY) and not self._closed:
                self._paused = False
                self._transport.resume_reading()
        elif self._held > _READ_HIGH and self._phase == _BODY:
            self._paused = True
            self._transport.pause_reading()

    def _end(self, exc: Exception | None) -> None:
        """The store sends nothing more: complete a body that ends so, fail any other."""
        if self._phase == _HEAD:
            text = str(exc) if exc else "the store closed the connection and gave no answer"
            self.fail(base.BackendUnavailable(text or type(exc).__name__))
        elif self._phase == _BODY and exc is None and not self._framed:
            self._phase = _DONE
        elif self._phase == _BODY:
            text = "" if exc is None else f": {exc}"
            self.fail(base.BackendProtocolError(f"answer ended early{text}"))


@contextlib.asynccontextmanager
async def _closing(pieces: AsyncIterator[bytes]) -> AsyncIterator[None]:
    """Finish a generator that is left early; other iterators have nothing to finish."""
    try:
        yield
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


def _check_size(fields: list[tuple[bytes, bytes]]) -> None:
    sizes = [len(name) + len(value) for name, value in fields]
    if len(fields) > _FIELDS or max(sizes, default=0) > _FIELD_LIMIT or sum(sizes) > _HEAD_LIMIT:
        msg = f"answer has {len(fields)} headers of {sum(sizes)} bytes"
        raise base.BackendProtocolError(msg)
