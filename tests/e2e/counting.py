"""A wire towards the store on which every byte is counted, and parts may have to be equal.

    with counting.between(seaweedfs) as wire:
        ...  # wire.endpoint is what a client or the gateway is told to store in
        wire.sent, wire.received

Bytes pass as they come, each connection to one of its own, so what is counted is what a network
would carry. Request heads are read only to know the lengths of parts: with `uniform`, Complete is
refused as Cloudflare R2 does it when a part that is not the last has another length than the first
(https://developers.cloudflare.com/r2/objects/upload-objects/#multipart-upload).
"""

import asyncio
import contextlib
import re
from collections import defaultdict
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests import live

_PIECE = 256 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_NUMBER = re.compile(rb"<PartNumber>\s*(\d+)\s*</PartNumber>")
_UNEQUAL = b"<Error><Code>InvalidPart</Code><Message>All non-trailing parts must have the same \
length.</Message></Error>"


@dataclass(slots=True)
class Wire:
    """`sent` and `received` are bytes to and from the store; `refused` counts bad Completes.

    `repeated` are the bytes of parts that had been sent before: a store too busy to answer in time
    is asked again.
    """

    upstream: live.Endpoint
    endpoint: live.Endpoint
    uniform: bool = False
    sent: int = 0
    received: int = 0
    repeated: int = 0
    refused: int = 0
    parts: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        try:
            store_reader, store = await asyncio.open_connection("127.0.0.1", self.upstream.port)
        except (ConnectionError, asyncio.CancelledError):
            writer.close()
            return
        answers = asyncio.ensure_future(self._answers(store_reader, writer))
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await self._request(reader, store, writer)
        finally:
            store.close()  # before anything is waited for: this may be cancelled there
            writer.close()
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_PIECE):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _request(
        self,
        reader: asyncio.StreamReader,
        store: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = _LENGTH.search(head)
        length = int(found[1]) if found else 0
        method, target, _ = head.split(b" ", 2)
        query = parse_qs(urlsplit(target.decode("latin-1")).query)
        upload = query.get("uploadId", [""])[0]
        if method == b"PUT" and "partNumber" in query:
            number = int(query["partNumber"][0])
            self.repeated += length if number in self.parts[upload] else 0
            self.parts[upload][number] = length
        if self.uniform and method == b"POST" and upload:
            body = await reader.readexactly(length)
            if not self._equal(upload, body):
                self.refused += 1
                line = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(_UNEQUAL)
                client.write(line + _UNEQUAL)
                return
            await self._send(store, head + body)
            return
        await self._send(store, head)
        while length:
            data = await reader.read(min(length, _PIECE))
            if not data:
                raise asyncio.IncompleteReadError(b"", length)
            length -= len(data)
            await self._send(store, data)

    async def _send(self, store: asyncio.StreamWriter, data: bytes) -> None:
        self.sent += len(data)
        store.write(data)
        await store.drain()

    def _equal(self, upload: str, document: bytes) -> bool:
        lengths = [self.parts[upload][int(number)] for number in _NUMBER.findall(document)]
        *others, last = lengths
        return all(each == lengths[0] for each in others) and last <= lengths[0]


@contextlib.contextmanager
def between(upstream: live.Endpoint, *, uniform: bool = False) -> Iterator[Wire]:
    wire = Wire(upstream, upstream, uniform)
    with live.loop_thread() as loop, contextlib.ExitStack() as stack:

        def run(work: Awaitable[Any]) -> Any:
            async def wait() -> Any:
                return await work

            return asyncio.run_coroutine_threadsafe(wait(), loop).result(120)

        server = run(asyncio.start_server(wire.accept, "127.0.0.1", 0, limit=4 * _PIECE))

        async def stop() -> None:
            server.close()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await asyncio.sleep(0)  # sockets are closed in the turn after

        stack.callback(lambda: run(stop()))
        port = server.sockets[0].getsockname()[1]
        wire.endpoint = live.Endpoint(
            f"http://127.0.0.1:{port}", upstream.access_key, upstream.secret_key
        )
        yield wire
