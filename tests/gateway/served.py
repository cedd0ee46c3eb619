"""A listener on a free port in the test's own uvloop, and small applications to put behind it."""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from s4gateway.gateway import protocol

HURRIED = protocol.Limits(  # far above what a busy machine keeps a client waiting for its turn
    header_seconds=1.0, progress_seconds=1.5, idle_seconds=1.0, linger_seconds=0.5
)
PATIENT = protocol.Limits()
DEADLINE = 120.0  # seconds after which a test that waits has failed

Test = Callable[..., Coroutine[Any, Any, None]]


def in_uvloop(test: Test) -> Callable[..., None]:
    """Run an async test in the loop the server runs in, for at most DEADLINE seconds."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test(*args, **kwargs), DEADLINE))

    return run


@dataclass
class Served:
    """A running listener."""

    port: int
    listener: protocol.Listener
    notes: list[str] = field(default_factory=list)
    clients: "list[Client]" = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    async def connect(self) -> "Client":
        """A new connection to it."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.tls, limit=1 << 20
        )
        self.clients.append(Client(reader, writer))
        return self.clients[-1]


@dataclass
class Client:
    """A client that says exactly what a test wants said."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hear(self) -> tuple[int, dict[str, str], bytes]:
        """One answer with a Content-Length, or chunked."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:-2])
        status = int(head[0].split(" ")[1])
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
            return status, headers, body
        return (
            status,
            headers,
            await self.reader.readexactly(int(headers.get("content-length", "0"))),
        )

    async def ends(self) -> bytes:
        """What still comes until the server closes; a reset counts as closing."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    async def read_until_reset(self) -> None:
        """Read; returns when the connection is reset, fails when it ends cleanly."""
        with contextlib.suppress(ConnectionResetError):
            while await self.reader.read(1 << 20):
                pass
            raise AssertionError("a clean end")


@contextlib.asynccontextmanager
async def served(
    app: ASGIApp,
    limits: protocol.Limits = PATIENT,
    *,
    tls: ssl.SSLContext | None = None,
    trust: ssl.SSLContext | None = None,
    exempt: Callable[[str, str], bool] = lambda _method, _path: False,
) -> AsyncIterator[Served]:
    notes: list[str] = []
    listener = protocol.Listener(app, limits, note=notes.append, exempt=exempt)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(listener, "127.0.0.1", 0, ssl=tls)
    running = Served(server.sockets[0].getsockname()[1], listener, notes, tls=trust)
    try:
        yield running
    finally:
        for client in running.clients:
            client.writer.transport.abort()
        server.close()
        tasks = set(listener.state.tasks)
        listener.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=DEADLINE)
        await asyncio.sleep(0.01)


async def read_all(receive: Receive) -> bytes:
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left")
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)


async def answer(
    send: Send, body: bytes = b"", status: int = 200, *headers: tuple[bytes, bytes]
) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the request's body."""
    await answer(send, await read_all(receive))


async def describe(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what the application was told about the request's target."""
    words = (scope["method"].encode(), scope["raw_path"], scope["query_string"])
    await answer(send, b" ".join(words) + b" " + scope["path"].encode())


def sender(work: Callable[[Send], Awaitable[None]]) -> ASGIApp:
    """An application that ignores the request."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await work(send)

    return app
