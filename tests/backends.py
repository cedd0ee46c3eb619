"""Backends around a backend: one that counts what is asked of it, one that fails on cue."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from s4gateway.backend import base
from s4gateway.s3 import sigv4


@dataclass(frozen=True, slots=True)
class Call:
    """One request: the verb, what it named, and the bytes it sent."""

    verb: str
    bucket: str = ""
    key: str = ""
    query: str = ""
    byte_range: tuple[int, int] | None = None
    sent: int = 0


class _ObservedStream(base.ObjectStream):
    """Passes a body on and tells how many bytes went by."""

    def __init__(self, inner: base.ObjectStream, seen: Callable[[int], None]) -> None:
        self.head = inner.head
        self._inner = inner
        self._seen = seen

    async def read(self, limit: int) -> bytes:
        data = await self._inner.read(limit)
        self._seen(len(data))
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._seen(len(piece))
            yield piece

    async def close(self) -> None:
        await self._inner.close()


@dataclass(eq=False)
class CountingBackend:
    """Records every request, and the bytes of object bodies that were read."""

    inner: base.Backend
    calls: list[Call] = field(default_factory=list)
    received: int = 0

    def count(self, verb: str) -> int:
        return sum(call.verb == verb for call in self.calls)

    async def before(self, call: Call) -> None:
        """What happens before each request; subclasses may fail here."""
        self.calls.append(call)

    def _saw(self, size: int) -> None:
        self.received += size

    async def put(
        self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
    ) -> base.Head:
        await self.before(Call("put", bucket, key, sent=body.length))
        return await self.inner.put(bucket, key, body, headers)

    async def get(
        self,
        bucket: str,
        key: str,
        *,
        byte_range: tuple[int, int] | None = None,
        if_match: str | None = None,
        query: str = "",
        headers: base.HeaderList = (),
    ) -> base.ObjectStream:
        await self.before(Call("get", bucket, key, query, byte_range))
        stream = await self.inner.get(
            bucket, key, byte_range=byte_range, if_match=if_match, query=query, headers=headers
        )
        return _ObservedStream(stream, self._saw)

    async def head(
        self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
    ) -> base.Head:
        await self.before(Call("head", bucket, key, query))
        return await self.inner.head(bucket, key, query=query, headers=headers)

    async def delete(
        self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
    ) -> base.Head:
        await self.before(Call("delete", bucket, key, query))
        return await self.inner.delete(bucket, key, query=query, headers=headers)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> base.DeleteFailures:
        await self.before(Call("delete_many", bucket, ",".join(keys)))
        return await self.inner.delete_many(bucket, keys)

    async def list(self, bucket: str, raw_query: str, headers: base.HeaderList = ()) -> bytes:
        await self.before(Call("list", bucket, query=raw_query))
        return await self.inner.list(bucket, raw_query, headers)

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        sent = 0 if body is None else body.length
        await self.before(Call(f"forward {method}", key=raw_path, query=raw_query, sent=sent))
        return await self.inner.forward(method, raw_path, raw_query, headers, body)

    async def ping(self) -> None:
        await self.before(Call("ping"))
        await self.inner.ping()

    def with_identity(self, credentials: sigv4.Credentials | None) -> base.Backend:
        return self

    async def close(self) -> None:
        await self.inner.close()


@dataclass(eq=False)
class FaultyBackend(CountingBackend):
    """Raises what `fault` returns for a call; None lets it through."""

    fault: Callable[[Call], Exception | None] = lambda _: None

    async def before(self, call: Call) -> None:
        await super().before(call)
        if (error := self.fault(call)) is not None:
            raise error
