"""A stored object being read: where it comes from, and what was opened.

Rule: whoever gets an OpenObject closes it in every path; it owns the connection, the memory and the
frames decoded ahead that its content comes from.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import field

from s4gateway.backend.base import Backend, HeaderList, ObjectStream
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.budget import Reservation
from s4gateway.objects.cache import ObjectName
from s4gateway.objects.plaintext import Frames
from s4gateway.values import immutable

Content = bytes | AsyncGenerator[bytes | memoryview, None]
"""A view may keep a whole frame in memory: copy what is kept longer than it takes to send it."""


@immutable
class Source:
    """Which stored object to read and how to ask for it.

    `query` (versionId=...) and `headers` (customer keys) go with every request for its body.
    """

    backend: Backend
    name: ObjectName
    query: str = ""
    headers: HeaderList = ()

    async def pinned(self, etag: str, start: int, end: int) -> ObjectStream:
        """Open stored bytes [start, end) of the version with that ETag; raises BackendError."""
        bucket, key = self.name
        return await self.backend.get(
            bucket,
            key,
            byte_range=(start, end),
            if_match=etag,
            query=self.query,
            headers=self.headers,
        )

    async def read(self, etag: str, start: int, end: int) -> bytes:
        """Read stored bytes [start, end) of the version with that ETag; raises BackendError."""
        async with await self.pinned(etag, start, end) as stream:
            return await stream.read(end - start)


@immutable
class OpenObject:
    """Verified plaintext, or the beginning of it; `aclose` in every path.

    `content` is all of it, or yields it; a fault found late raises from the iteration.
    `backend_bytes` counts what was fetched so far. `fallback` names why a range was read from the
    start of the object.
    """

    attributes: Attributes
    start: int
    end: int
    content: Content
    counter: "Counter"
    fallback: str | None = None
    resources: tuple["Resource", ...] = field(default=(), repr=False)

    @property
    def backend_bytes(self) -> int:
        """Stored bytes fetched so far."""
        return self.counter.count

    async def aclose(self) -> None:
        """Stop reading and give back connection and memory."""
        try:
            if not isinstance(self.content, bytes):
                await self.content.aclose()
        finally:
            if self.resources:
                await close_all(*self.resources)


class Counter:
    """Counts the bytes of a stream as they pass."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    async def over(self, stream: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Yield the stream's pieces."""
        async for piece in stream:
            self.count += len(piece)
            yield piece


Resource = ObjectStream | Reservation | Frames


async def close_all(*resources: Resource) -> None:
    """Give back connections, memory and what was decoded ahead: each, also when one fails.

    Raises the first failure.
    """
    failure: BaseException | None = None
    for resource in resources:
        try:
            if isinstance(resource, Reservation):
                resource.release()
            elif isinstance(resource, Frames):
                await resource.aclose()
            else:
                await resource.close()
        except BaseException as error:
            failure = failure or error
    try:
        if failure is not None:
            raise failure
    finally:
        failure = None  # its traceback knows this place


async def through(stream: ObjectStream, counter: Counter) -> AsyncGenerator[bytes, None]:
    """Yield stored bytes as they are."""
    async for piece in stream:
        counter.count += len(piece)
        yield piece
