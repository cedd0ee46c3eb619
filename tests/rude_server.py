"""A server on a raw socket that does to each request whatever the test's script says.

    async def script(exchange):
        await exchange.answer(503, headers={"Retry-After": "0"})

    async with rude_server.serve(script) as server:
        ...  # server.url, server.requests, server.connections

It reads requests with nothing but `find` and `split`, so that what it records is what was on the
wire: the target is bytes, header names keep their case.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests import live


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: bytes
    fields: list[tuple[str, str]]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.fields}


@dataclass(slots=True)
class Exchange:
    """One request and the ways to treat it; `number` counts all requests from 1."""

    request: Request
    number: int
    number_on_connection: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self,
        status: int = 200,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        fields = {"Content-Length": str(len(body))} | dict(headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        if self.request.method == "HEAD":
            body = b""
        await self.send(f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body)

    async def stall(self) -> None:
        """Say nothing until the client goes away."""
        await self.reader.read()
        self.close()

    async def freeze(self) -> None:
        """Say nothing and take nothing."""
        await asyncio.Event().wait()

    def reset(self) -> None:
        """RST instead of FIN."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


Script = Callable[[Exchange], Awaitable[None]]


@dataclass(slots=True)
class RudeServer:
    script: Script
    reads_bodies: bool = True
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0
    all_closed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _transports: set[asyncio.BaseTransport] = field(default_factory=set)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        self.all_closed.clear()
        try:
            number = 0
            while not writer.is_closing() and (request := await self._read(reader)) is not None:
                number += 1
                self.requests.append(request)
                await self.script(Exchange(request, len(self.requests), number, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # a rude server cares for nobody's manners
        finally:
            self.open_connections -= 1
            if not self.open_connections:
                self.all_closed.set()
            self._tasks.discard(task)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        line, *lines = head[:-4].split(b"\r\n")
        method, target, _ = line.split(b" ")
        fields = []
        for each in lines:
            name, _, value = each.partition(b": ")
            fields.append((name.decode(), value.decode()))
        length = int({name.lower(): value for name, value in fields}.get("content-length", "0"))
        body = await reader.readexactly(length) if length and self.reads_bodies else b""
        return Request(method.decode(), target, fields, body)

    async def stop(self) -> None:
        """End every connection, those too whose handler has not had its first turn."""
        while self._tasks or self._transports:
            for task in self._tasks:
                task.cancel()
            for transport in self._transports:
                transport.abort()  # type: ignore[attr-defined] # of a socket, then
            await asyncio.sleep(0.001)


class _Known(asyncio.StreamReaderProtocol):
    """Streams of a connection that its server knows from the first moment to the last."""

    def __init__(self, rude: RudeServer) -> None:
        super().__init__(asyncio.StreamReader(), rude._handle)
        self._rude = rude
        self._known: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._known = transport
        self._rude._transports.add(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        assert self._known is not None
        self._rude._transports.discard(self._known)


@contextlib.asynccontextmanager
async def serve(
    script: Script, *, reads_bodies: bool = True, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RudeServer]:
    rude = RudeServer(script, reads_bodies)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Known(rude), "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    rude.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield rude
    finally:
        for _ in range(5):  # asyncio never closes what it accepts just when its server is closed
            await asyncio.sleep(0)
        server.close()
        await rude.stop()


@contextlib.contextmanager
def in_thread(script: Script) -> Iterator[RudeServer]:
    """The same beside code that is not asynchronous, in a loop thread of its own."""
    with live.loop_thread() as loop, contextlib.ExitStack() as stack:
        serving = serve(script)

        def run(work: Awaitable[Any]) -> Any:
            async def wait() -> Any:
                return await work

            return asyncio.run_coroutine_threadsafe(wait(), loop).result(120)

        server: RudeServer = run(serving.__aenter__())
        stack.callback(lambda: run(serving.__aexit__(None, None, None)))
        yield server
