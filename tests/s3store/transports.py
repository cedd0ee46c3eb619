"""A transport that counts what passes and does what a test tells it to.

    store = ScriptedTransport(MemoryTransport())
    store.script("put", ".commit", fails(errors.ServerError, 503), times=2)
    store.script("put", ".parquet", lands_then(errors.ServerError, 500))
    ...
    assert store.counts() == {"put": 5, "head": 1}

A fault gets `send`, which passes the request on, and returns or raises what the caller shall see.
The first script that fits a request and has times left is the one that acts.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from s4gateway.s3store import errors
from s4gateway.s3store.transport import (
    NO_HEADERS,
    HeadInfo,
    ListPage,
    PutInfo,
    RangeInfo,
    Transport,
)

Send = Callable[[], Awaitable[Any]]
Fault = Callable[[Send], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the transport saw it."""

    op: str
    key: str
    headers: Mapping[str, str]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Script:
    op: str
    part: str
    fault: Fault
    times: int


class ScriptedTransport:
    """Passes requests on to `inner`."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.requests: list[Request] = []
        self.under_way = 0
        self.most_under_way = 0
        self._scripts: list[_Script] = []

    def script(self, op: str, part: str, fault: Fault, times: int = 1) -> None:
        """Let `fault` answer the next `times` requests `op` whose key holds `part`."""
        self._scripts.append(_Script(op, part, fault, times))

    def counts(self, part: str = "") -> dict[str, int]:
        """How many requests of each kind passed, for keys that hold `part`."""
        return dict(Counter(request.op for request in self.requests if part in request.key))

    def keys(self, op: str) -> list[str]:
        return [request.key for request in self.requests if request.op == op]

    def forget(self) -> None:
        """Count from here on."""
        self.requests.clear()
        self.most_under_way = 0

    async def _pass(self, op: str, key: str, send: Send, **details: Any):
        headers = dict(details.pop("headers", NO_HEADERS))
        self.requests.append(Request(op, key, headers, details))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            for script in self._scripts:
                if script.op == op and script.part in key and script.times > 0:
                    script.times -= 1
                    return await script.fault(send)
            return await send()
        finally:
            self.under_way -= 1

    async def put(self, key: str, body: bytes, **options: Any) -> PutInfo:
        assert isinstance(body, bytes)
        send = functools.partial(self.inner.put, key, body, **options)
        return await self._pass("put", key, send, size=len(body), **options)

    async def get(self, key: str, **options: Any) -> bytes:
        send = functools.partial(self.inner.get, key, **options)
        return await self._pass("get", key, send, **options)

    async def get_range(
        self, key: str, start: int | None, length: int, **options: Any
    ) -> RangeInfo:
        send = functools.partial(self.inner.get_range, key, start, length, **options)
        return await self._pass("get", key, send, start=start, length=length, **options)

    async def head(self, key: str, **options: Any) -> HeadInfo | None:
        send = functools.partial(self.inner.head, key, **options)
        return await self._pass("head", key, send, **options)

    async def list_page(self, prefix: str, **options: Any) -> ListPage:
        send = functools.partial(self.inner.list_page, prefix, **options)
        return await self._pass("list", prefix, send, **options)

    async def aclose(self) -> None:
        await self.inner.aclose()


class ThreadedScripted(ScriptedTransport):
    """The same, for a dataset that may work on threads of its transport."""

    async def get_then(self, key: str, work: Callable[[bytes], Any], **options: Any) -> Any:
        return await asyncio.to_thread(work, await self.get(key, **options))


def failure(kind: type[errors.TransportError], status: int = 0, code: str = "") -> Exception:
    return kind("scripted", "scripted", status=status, code=code)


def fails(kind: type[errors.TransportError], status: int = 0, code: str = "") -> Fault:
    """The request never arrives."""

    async def fault(_send: Send) -> Any:
        raise failure(kind, status, code)

    return fault


def lands_then(kind: type[errors.TransportError], status: int = 0, code: str = "") -> Fault:
    """The request is carried out, and its answer is a failure."""

    async def fault(send: Send) -> Any:
        await send()
        raise failure(kind, status, code)

    return fault


def answers(answer: Any) -> Fault:
    """The request is carried out, and its answer is another."""

    async def fault(send: Send) -> Any:
        await send()
        return answer

    return fault


def waits_for(event: asyncio.Event, reached: asyncio.Event | None = None) -> Fault:
    """The request is carried out when `event` happens; `reached` tells that it waits for it."""

    async def fault(send: Send) -> Any:
        if reached is not None:
            reached.set()
        await event.wait()
        return await send()

    return fault


def calls(what: Callable[[], Any]) -> Fault:
    """Something happens just before the request is carried out."""

    async def fault(send: Send) -> Any:
        what()
        return await send()

    return fault
