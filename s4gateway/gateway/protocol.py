"""One client connection: HTTP/1.1 in, ASGI messages out, with every wait of the client bounded.

uvicorn's httptools protocol is the base; this subclass adds what a server on an open port needs and
what bodies of gigabytes need. The rules it keeps:

* A client must make progress. Request line and headers are complete within a deadline from their
  first byte; a body, and a client that should read its answer, may pause for so long, but never has
  a limit in total. One sweep over all connections looks after every deadline, so a request that
  behaves costs no timer.
* A body is not copied. Past the first segment of a long body nothing in it is for the HTTP parser,
  so the segments go to the application as the socket gave them.
* A fault before the first byte of an answer is an S3 error document; a fault after it resets the
  connection.

Framing is RFC 9112; the answers of this file are S3 errors:
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

import asyncio
import contextlib
import fcntl
import logging
import math
import socket
import struct
import sys
import termios
import time
import urllib.parse
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

import httptools
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from s4gateway.gateway import logs
from s4gateway.gateway.cycle import Cycle
from s4gateway.s3 import errors

logger = logging.getLogger("s4.protocol")

WRITE_HIGH_WATER: Final = 512 * 1024  # bytes written ahead of a client that reads slowly
WRITE_LOW_WATER: Final = 128 * 1024

_BYPASS_ABOVE: Final = 64 * 1024  # a body with more than this to come does not pass the parser
_PIPELINED: Final = 16  # requests a client may send ahead of their answers
_DROP_BYTES: Final = 64 * 1024 * 1024  # read and dropped so that a refused client sees why
_REFUSABLE: Final = 256  # connections above the cap that are told so; more are cut at once

_IDLE, _HEADERS, _BODY, _ANSWER, _LINGER, _CLOSING = range(6)

_NEVER: Final = math.inf
_VERSIONS: Final = frozenset(("1.0", "1.1"))
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger, socket(7)
_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
HOST_ID: Final = "s4gateway"  # x-amz-id-2 of answers the application has no part in


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may take; times in seconds, sizes in bytes."""

    header_bytes: int = 64 * 1024
    connections: int = 1024
    header_seconds: float = 10.0
    progress_seconds: float = 30.0
    idle_seconds: float = 20.0
    linger_seconds: float = 5.0

    @property
    def sweep_seconds(self) -> float:
        """How often deadlines are looked at: a quarter of the shortest, 1 s at most."""
        shortest = min(
            self.header_seconds, self.progress_seconds, self.idle_seconds, self.linger_seconds
        )
        return max(0.02, min(1.0, shortest / 4))


def _ignore(event: str) -> None:
    """Count nothing."""


def _never_exempt(method: str, path: str) -> bool:
    return False


class Listener:
    """What the connections of one listening port share: limits, the cached Date, the sweep.

    `note` hears of every fault by a name of a small fixed set (NOTES). Requests for which `exempt`
    says yes are answered above the connection cap as well: a full server is alive.
    """

    NOTES: Final = (
        "header-timeout", "header-size", "read-timeout", "write-timeout", "idle-timeout",
        "linger-timeout", "connection-cap", "malformed", "pipeline",
    )  # fmt: skip

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        *,
        note: Callable[[str], None] = _ignore,
        exempt: Callable[[str, str], bool] = _never_exempt,
    ) -> None:
        self.app = app
        self.limits = limits
        self.note = note
        self.exempt = exempt
        self.state = ServerState()
        self.config = uvicorn.Config(
            app,
            interface="asgi3",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=math.ceil(limits.idle_seconds),
        )
        self.config.load()
        self._is_closing = False
        self.date_line = b""
        self._second = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self) -> "Connection":
        """Protocol factory for `loop.create_server`; the first call starts the sweep."""
        if self._timer is None:
            self._loop = asyncio.get_running_loop()
            self._tick()
        assert self._loop is not None
        return Connection(self, self._loop)

    def close(self) -> None:
        """Ask every connection to end after the answer it is giving; idle ones end now."""
        self._is_closing = True
        for connection in list(self.connections):
            connection.shutdown()

    def abort(self) -> None:
        """Reset every connection and cancel what runs for it; stop the sweep."""
        for task in list(self.state.tasks):
            task.cancel()
        for connection in list(self.connections):
            connection.abort()
        self.stop()

    def stop(self) -> None:
        """End the sweep."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def connections(self) -> "set[Connection]":
        """The open connections."""
        return self.state.connections  # type: ignore[return-value] # all of them are ours

    @property
    def is_closing(self) -> bool:
        """Whether no connection is to be served but those that were open when that began."""
        return self._is_closing

    @property
    def busy(self) -> bool:
        """Whether any connection is open or any request unfinished."""
        return bool(self.state.connections or self.state.tasks)

    def _tick(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(self.limits.sweep_seconds, self._tick)
        second = int(time.time())
        if second != self._second:
            self._second = second
            self.date_line = b"date: " + formatdate(second, usegmt=True).encode() + b"\r\n"
        now = self._loop.time()
        for connection in [each for each in self.connections if each.deadline <= now]:
            connection.expire()


class Connection(HttpToolsProtocol):
    """The protocol object of one accepted connection."""

    cycle: Cycle  # type: ignore[assignment] # the request whose bytes are arriving
    pipeline: "deque[tuple[Cycle, ASGIApp]]"  # type: ignore[assignment]

    def __init__(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(listener.config, listener.state, {}, loop)
        self.listener = listener
        self.limits = listener.limits
        self.deadline = _NEVER  # loop time; the sweep calls expire() once it has passed
        self.over_cap = False
        self._phase = _IDLE
        self._running: Cycle | None = None  # the request being answered
        self._deaf = False  # what arrives is dropped unread
        self._framing = b""  # of a body that the parser skips because of an Upgrade header
        self._bypass = 0  # bytes of the body still to come that do not pass the parser
        self._header_bytes = 0
        self._drop_left = 0
        self._refusal: errors.S3Error | None = None
        self._write_mark = (0, 0)

    # --- the transport speaks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(WRITE_HIGH_WATER, WRITE_LOW_WATER)
        self.deadline = self.loop.time() + self.limits.header_seconds
        if self.listener.is_closing:  # its TLS handshake was under way when that began
            self.abort()
            return
        count = len(self.connections)
        self.over_cap = count > self.limits.connections
        if self.over_cap:
            self.listener.note("connection-cap")
            if count > self.limits.connections + _REFUSABLE:
                self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request of this connection that its client is gone."""
        self.connections.discard(self)
        self.deadline = _NEVER
        self._deafen()
        self._disconnect()
        self.pipeline.clear()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, or past it what can only be body."""
        if self._bypass:
            data = self._take_body(data)
            if not data:
                return
        if self._deaf:
            self._drop(len(data))
            return
        before = self._phase
        if before == _BODY:
            self.deadline = self.loop.time() + self.limits.progress_seconds
        self._feed(data)
        if self._phase == _HEADERS:
            # A header without an end shows in no callback, so from the second segment on it is the
            # segments that count.
            self._count(len(data) if before == _HEADERS else self._parsed())
            if self._refusal is not None:
                self._refuse_parse()
        elif self._phase in {_BODY, _LINGER} and not self._deaf:
            left = self.cycle.length - self.cycle.received
            self._bypass = left if left > _BYPASS_ABOVE else 0

    def pause_writing(self) -> None:
        """Wait for the client to read, as long as it reads at all."""
        super().pause_writing()
        if self._phase == _ANSWER:
            self._watch_writing()

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        if self._phase == _ANSWER:
            self.deadline = _NEVER

    # --- the parser speaks

    def on_message_begin(self) -> None:
        """Begin a request: from here the header deadline counts."""
        if self._is_passed_over():
            return
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._header_bytes = 0
        self._phase = _HEADERS
        self.deadline = self.loop.time() + self.limits.header_seconds

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; trailers of a chunked body are counted and dropped."""
        if self._framing:
            return
        if self._phase != _HEADERS:
            self._count(len(name) + len(value))
            if self._refusal is not None:
                raise self._refusal
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Start the application, or queue the request behind the one being answered."""
        if self._is_passed_over():
            return
        self._header_bytes = 0
        self._count(self._parsed())
        scope = self._scope()
        if self._refusal is not None:
            raise self._refusal  # stops the parser; _refuse_parse answers
        http_11 = scope["http_version"] == "1.1"
        self.cycle = cycle = Cycle(
            self,
            scope,
            expects_continue=self.expect_100_continue and http_11,
            keep_alive=http_11 and self.parser.should_keep_alive(),
        )
        if self.parser.should_upgrade():
            self._framing = self._framing_of(cycle)
        self._phase = _BODY
        self.deadline = (
            _NEVER if cycle.expects_continue else self.loop.time() + self.limits.progress_seconds
        )
        app = self.listener.app
        if self.over_cap and not self.listener.exempt(scope["method"], scope["path"]):
            app = _slow_down
        if self._running is None:
            self._start(cycle, app)
        elif len(self.pipeline) < _PIPELINED:
            self.pause_body()
            self.pipeline.append((cycle, app))
        else:
            self.listener.note("pipeline")
            self.abort()

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body to the request it belongs to."""
        cycle = self.cycle
        cycle.received += len(body)
        if cycle.response_complete or cycle.disconnected:
            self._drop(len(body))
        else:
            cycle.put(body)

    def on_message_complete(self) -> None:
        """End the body."""
        if self._framing:
            return
        cycle = self.cycle
        cycle.more_body = False
        cycle.message_event.set()
        if self._phase == _BODY:
            self._phase = _ANSWER
            self.deadline = _NEVER
            if self.flow.write_paused:
                self._watch_writing()
        elif self._phase == _LINGER:
            if cycle.keep_alive:
                self._rest()
            else:
                self.end()

    # --- the requests speak

    def resume_body(self) -> None:
        """The application waits for more: read on, and from here the client must send."""
        self.flow.resume_reading()
        if self._phase == _BODY and self.deadline == _NEVER:
            self.deadline = self.loop.time() + self.limits.progress_seconds

    def pause_body(self) -> None:
        """The application is behind: stop reading, and do not blame the client for it."""
        self.flow.pause_reading()
        if self._phase == _BODY:
            self.deadline = _NEVER

    def answered(self, cycle: Cycle) -> None:
        """An answer is complete: go on with the next request, or end the connection."""
        self.server_state.total_requests += 1
        self._running = None
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if cycle.more_body:
            self._linger(cycle)
        elif not cycle.keep_alive:
            self.end()
        elif self.pipeline:
            self._start(*self.pipeline.popleft())
            self.resume_body()
        elif self._phase == _ANSWER:
            self._rest()

    def refuse(self, error: errors.S3Error) -> None:
        """Answer with an S3 error instead of the application, then end the connection.

        When the application's answer is already under way this is a reset.
        """
        running = self._running
        if (running is not None and running.on_wire) or self.transport.is_closing():
            self.abort()
            return
        scope = running.scope if running is not None else {"method": "GET", "raw_path": b"/"}
        status, headers, body = _document(error, scope)
        self._deafen()
        self._disconnect()
        lines = [STATUS_LINE[status], self.listener.date_line]
        lines += [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join((*lines, b"\r\n", body)))
        self.flow.resume_reading()
        self._linger(None)

    def end(self) -> None:
        """Close once the client has read what is written, which it may not put off for ever."""
        self._phase = _CLOSING
        self._watch_writing()
        self.transport.close()

    def abort(self) -> None:
        """Reset: the client sees that the answer is not whole."""
        self._phase = _CLOSING
        self.deadline = _NEVER
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    def shutdown(self) -> None:
        """Drain: an idle connection ends now, a busy one after the answer it gives."""
        for cycle in self._cycles():
            cycle.keep_alive = False
        if self._running is None and self._phase != _LINGER:
            self.end()

    def expire(self) -> None:
        """The deadline has passed."""
        phase = self._phase
        if phase in {_HEADERS, _BODY}:
            self.listener.note("header-timeout" if phase == _HEADERS else "read-timeout")
            self.refuse(errors.S3Error("RequestTimeout"))
        elif phase in {_ANSWER, _CLOSING} or (phase == _IDLE and any(self._unsent())):
            if self._unsent() != self._write_mark:  # it reads, however slowly
                self._watch_writing()
            else:
                self.listener.note("write-timeout")
                self.abort()
        else:
            self.listener.note("idle-timeout" if phase == _IDLE else "linger-timeout")
            self.end()

    # --- steps

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Nothing is offered to upgrade to, so what follows the request is HTTP/1.1 again
            # (RFC 9110 section 7.8: a server may ignore Upgrade).
            self._renew_parser()
            if self._framing:
                # The parser leaves out the body of such a request. The new one is told of it.
                self.parser.feed_data(b"PUT / HTTP/1.1\r\n%b\r\n\r\n" % self._framing)
                self._framing = b""
            if rest := data[upgrade.args[0] :]:
                self._feed(rest)
        except httptools.HttpParserError as error:
            if isinstance(error, httptools.HttpParserCallbackError) and self._refusal is None:
                logger.exception("parser-callback-failed")
            self._refuse_parse()

    def _framing_of(self, cycle: Cycle) -> bytes:
        """The header that says where the body ends; nothing when there is none."""
        if any(name == b"transfer-encoding" for name, _ in self.headers):
            return b"transfer-encoding: chunked"
        return b"content-length: %d" % cycle.length if cycle.length else b""

    def _is_passed_over(self) -> bool:
        """Whether what the parser tells is not to be acted on.

        That is the head that stands in for a request whose body the parser left out, and what
        follows an answer that ends the connection (RFC 9112 section 9.6).
        """
        return bool(self._framing) or self.transport.is_closing()

    def _refuse_parse(self) -> None:
        if self._refusal is None:
            self._refusal = _not_http()
        if self._refusal.code != "RequestHeaderSectionTooLarge":
            self.listener.note("malformed")
        if self._phase in {_HEADERS, _IDLE} and self._running is not None:
            self.abort()  # the fault is in a request behind the one being answered
        else:
            self.refuse(self._refusal)

    def _renew_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _parsed(self) -> int:
        """Bytes of the request line and the headers parsed so far."""
        count = len(self.url)
        for name, value in self.headers:
            count += len(name) + len(value) + 4
        return count

    def _count(self, count: int) -> None:
        self._header_bytes += count
        if self._header_bytes > self.limits.header_bytes and self._refusal is None:
            self.listener.note("header-size")
            self._refusal = errors.S3Error("RequestHeaderSectionTooLarge")

    def _scope(self) -> Scope:
        """The ASGI scope; the target's bytes stay as they were sent."""
        target = self.url
        if not target.startswith(b"/"):
            target = self._origin_form(target)
        if b"#" in target:  # a fragment is never sent, and a key with this sign sends it escaped
            self._refusal = self._refusal or errors.S3Error("InvalidURI")
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            self._refusal = self._refusal or _not_http()
        raw_path, _, query = target.partition(b"?")
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": self.parser.get_method().decode("ascii"),
            "scheme": self.scheme,
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self.headers,
            "client": self.client,
            "server": self.server,
        }

    def _origin_form(self, target: bytes) -> bytes:
        """Cut scheme and authority off an absolute-form target (RFC 9112 section 3.2.2)."""
        scheme, separator, rest = target.partition(b"://")
        if separator and scheme.lower() in {b"http", b"https"}:
            slash = rest.find(b"/")
            return rest[slash:] if slash >= 0 else b"/"
        self._refusal = self._refusal or errors.S3Error("InvalidURI")
        return b"/"

    @property
    def date_line(self) -> bytes:
        """The Date header of this second, ready to send."""
        return self.listener.date_line

    def _start(self, cycle: Cycle, app: ASGIApp) -> None:
        self._running = cycle
        task = self.loop.create_task(cycle.run(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _take_body(self, data: bytes) -> bytes:
        """Deliver what belongs to the body; returns what follows it."""
        left = self._bypass
        body, rest = (data, b"") if len(data) <= left else (data[:left], data[left:])
        self._bypass = left - len(body)
        if self._phase == _BODY:
            self.deadline = self.loop.time() + self.limits.progress_seconds
        if self._bypass == 0:
            self._renew_parser()  # the old one still waits for the bytes it has not seen
        self.on_body(body)
        if self._bypass == 0 and not self._deaf:
            self.on_message_complete()
        return rest

    def _drop(self, count: int) -> None:
        self._drop_left -= count
        if self._drop_left < 0 and not self.transport.is_closing():
            self.abort()

    def _rest(self) -> None:
        """Wait for the next request."""
        self._phase = _IDLE
        self.deadline = self.loop.time() + self.limits.idle_seconds

    def _linger(self, cycle: Cycle | None) -> None:
        """The answer is out and the client may still be sending: drop what comes, for a while.

        Closing at once would reset the connection under the answer. RFC 9112 section 9.6.
        """
        self._phase = _LINGER
        self._drop_left = _DROP_BYTES
        wait = self.limits.progress_seconds
        if cycle is None or not cycle.keep_alive:
            wait = self.limits.linger_seconds
            if self.transport.can_write_eof():
                self.transport.write_eof()
        self.deadline = self.loop.time() + wait

    def _watch_writing(self) -> None:
        self._write_mark = self._unsent()
        self.deadline = self.loop.time() + self.limits.progress_seconds

    def _unsent(self) -> tuple[int, int]:
        """Bytes the client has not taken: in this process, and in the kernel where it tells."""
        queued = b"\0\0\0\0"
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size(), int.from_bytes(queued, sys.byteorder)

    def _cycles(self) -> list[Cycle]:
        """Requests begun and not answered."""
        cycles = [cycle for cycle, _ in self.pipeline]
        if self._running is not None:
            cycles.append(self._running)
        return cycles

    def _disconnect(self) -> None:
        for cycle in self._cycles():
            cycle.disconnect()

    def _deafen(self) -> None:
        self._deaf = True
        self._bypass = 0


def _not_http() -> errors.S3Error:
    return errors.S3Error("InvalidRequest", "The request is not valid HTTP/1.1.")


def _document(error: errors.S3Error, scope: Scope) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and XML of an error; the connection ends with it."""
    request_id = logs.new_request_id()
    body = errors.render(error, scope["raw_path"].decode("ascii"), request_id, HOST_ID)
    headers = [
        (b"x-amz-request-id", request_id.encode()),
        (b"x-amz-id-2", HOST_ID.encode()),
        (b"content-type", b"application/xml"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    return error.status, headers, b"" if scope["method"] == "HEAD" else body


async def _slow_down(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for a connection above the cap."""
    error = errors.S3Error("SlowDown", headers={"Retry-After": "1"})
    status, headers, body = _document(error, scope)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
