"""Stores whose every answer takes 10 ms: one in this process, one that speaks HTTP to boto3.

`python -m bench.datasets.stub` serves PUT, GET, HEAD and ListObjectsV2 of one bucket from memory,
unsigned and on a port it prints, and ends with its standard input. What a request costs it besides
the wait is little, so what is measured against it is the client.
"""

import asyncio
import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import uvloop

from bench import load
from bench.datasets.world import client_of
from s4gateway.s3store import MemoryTransport

DELAY = 0.010
_DATE = "2026-03-01T00:00:00.000Z"
_HTTP_DATE = "Sun, 01 Mar 2026 00:00:00 GMT"


class Slow(MemoryTransport):
    """A store in memory, every request of which takes 10 ms."""

    async def put(self, key: str, body: bytes, **more: Any) -> Any:
        """Store an object."""
        await asyncio.sleep(DELAY)
        return await super().put(key, body, **more)

    async def head(self, key: str, **more: Any) -> Any:
        """Return what HEAD says."""
        await asyncio.sleep(DELAY)
        return await super().head(key, **more)

    async def list_page(self, prefix: str, **more: Any) -> Any:
        """Return one page."""
        await asyncio.sleep(DELAY)
        return await super().list_page(prefix, **more)


@contextlib.contextmanager
def started() -> Iterator[Any]:
    """A boto3 client of a stub in a process of its own."""
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.datasets.stub"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        port = int(child.stdout.readline())
        yield client_of(load.Target(port, load.Credentials("stub", "stub")))
    finally:
        child.stdin.close()
        child.wait(20)
        child.stdout.close()


class _Objects:
    """What is stored: body, ETag and the metadata headers as they came."""

    def __init__(self) -> None:
        self._stored: dict[str, tuple[bytes, str, str]] = {}

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
        """The whole response."""
        url = urlsplit(target)
        _, _, key = unquote(url.path).lstrip("/").partition("/")
        if method == "PUT":
            etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
            kept = "".join(
                f"{n}: {v}\r\n" for n, v in headers.items() if n.startswith("x-amz-meta")
            )
            self._stored[key] = (body, etag, kept)
            return _response("200 OK", f'ETag: "{etag}"\r\n')
        if not key:
            return _response("200 OK", "Content-Type: application/xml\r\n", self._page(url.query))
        if key not in self._stored:
            return _response("404 Not Found", "", b"<Error><Code>NoSuchKey</Code></Error>")
        body, etag, kept = self._stored[key]
        more = f'ETag: "{etag}"\r\nLast-Modified: {_HTTP_DATE}\r\n{kept}'
        return _response("200 OK", more, body, headless=method == "HEAD")

    def _page(self, query: str) -> bytes:
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        after = asked.get("continuation-token") or asked.get("start-after", "")
        prefix, most = asked.get("prefix", ""), int(asked.get("max-keys", "1000"))
        keys = sorted(k for k in self._stored if k.startswith(prefix) and k > after)
        more, keys = len(keys) > most, keys[:most]
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_DATE}</LastModified>"
            f"<ETag>{self._stored[key][1]}</ETag><Size>{len(self._stored[key][0])}</Size></Contents>"
            for key in keys
        )
        following = f"<NextContinuationToken>{escape(keys[-1])}</NextContinuationToken>"
        return (
            f'<?xml version="1.0"?><ListBucketResult><IsTruncated>{str(more).lower()}'
            f"</IsTruncated>{following if more else ''}{entries}</ListBucketResult>"
        ).encode()


def _response(status: str, headers: str, body: bytes = b"", *, headless: bool = False) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode()
    return head if headless else head + body


class _Protocol(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, objects: _Objects) -> None:
        self._objects = objects
        self._received = bytearray()
        self._continued = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        line, *lines = self._received[:end].decode("latin-1").split("\r\n")
        split = (each.partition(":") for each in lines)
        headers = {name.lower(): value.strip() for name, _, value in split}
        length = int(headers.get("content-length", 0))
        if "expect" in headers and not self._continued:
            self._continued = True
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self._received) < end + 4 + length:
            return
        body = bytes(self._received[end + 4 : end + 4 + length])
        self._received.clear()
        self._continued = False
        method, target, _ = line.split(" ")
        answer = self._objects.answer(method, target, headers, body)
        asyncio.get_running_loop().call_later(DELAY, self._transport.write, answer)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    objects = _Objects()
    server = await loop.create_server(lambda: _Protocol(objects), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve())
