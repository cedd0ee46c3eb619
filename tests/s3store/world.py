"""A dataset for a test: a store that can be scripted, a clock that can be set, and both faces.

`World.open` opens the same dataset through the asynchronous or the blocking API, behind one
awaitable interface, so that a test is written once and holds for both.
"""

import asyncio
import functools
import heapq
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from s4gateway.s3store import (
    AsyncStore,
    Boto3Transport,
    HivePartition,
    MemoryTransport,
    S3TargetConfig,
    Store,
    init_dataset,
)
from s4gateway.s3store.layout import Keys
from s4gateway.s3store.transport import Transport
from tests.s3store.transports import ScriptedTransport, ThreadedScripted

PARTS = ("period", "customer")


@dataclass(frozen=True)
class Order:
    """The record of most tests."""

    period: str
    customer: str
    sku: str
    version: int = 1
    amount: float = 0.0


def order(sku: str = "s1", version: int = 1, *, period: str = "2026-03", customer: str = "abc"):
    return Order(period, customer, sku, version, float(version))


KEY = "period=2026-03/customer=abc"


class ManualClock:
    """Time that moves when a test says so; pauses up to `auto` seconds pass by themselves."""

    def __init__(self, auto: float = 1.0) -> None:
        self.us = 1_790_000_000_000_000
        self.seconds = 0.0
        self.auto = auto
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_us(self) -> int:
        self.us += 1  # no two stamps are alike
        return self.us

    def monotonic(self) -> float:
        return self.seconds

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.us // 1_000_000, UTC)

    async def sleep(self, seconds: float) -> None:
        if seconds <= self.auto:
            self.slept.append(seconds)
            self.advance(seconds)
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.seconds + seconds, id(future), future))
        await future

    def advance(self, seconds: float) -> None:
        """Let time go by, on both clocks."""
        self.us += int(seconds * 1e6)
        self.seconds += seconds
        while self._sleepers and self._sleepers[0][0] <= self.seconds:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.get_loop().is_closed():
                future.get_loop().call_soon_threadsafe(_wake, future)


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


@dataclass(frozen=True)
class Backing:
    """A store: its transport, and what a dataset itself never does."""

    transport: Transport
    remove: Callable[[str], object]

    @classmethod
    def memory(cls) -> "Backing":
        store = MemoryTransport()
        return cls(store, store.objects.pop)

    @classmethod
    def boto3(cls, client: Any, bucket: str) -> "Backing":
        adapter = Boto3Transport(client, bucket, workers=8)
        return cls(adapter, lambda key: client.delete_object(Bucket=bucket, Key=key))


@dataclass
class World:
    """One dataset under a prefix of its own."""

    backing: Backing
    face: type["Face"]
    bucket: str = "bucket"
    clock: ManualClock = field(default_factory=ManualClock)
    prefix: str = field(default_factory=lambda: f"ds-{uuid.uuid4().hex[:12]}")
    options: dict[str, Any] = field(default_factory=dict)
    threaded: bool = False

    def __post_init__(self) -> None:
        self.inner = self.backing.transport
        self.store = (ThreadedScripted if self.threaded else ScriptedTransport)(self.inner)

    @property
    def layout(self) -> Keys:
        return Keys(self.prefix)

    def remove(self, key: str) -> None:
        """Take an object away behind the dataset's back."""
        self.backing.remove(key)

    async def seed(self, commit_timeout: str = "1s", max_clock_skew: str = "0s") -> None:
        await init_dataset(
            self.inner,
            self.bucket,
            self.prefix,
            commit_timeout=commit_timeout,
            max_clock_skew=max_clock_skew,
        )

    def config(self, **more: Any) -> S3TargetConfig:
        options = {
            "bucket": self.bucket,
            "prefix": self.prefix,
            "client": self.store,
            "partition_key_parts": PARTS,
            "clock": self.clock,
        }
        return S3TargetConfig(**options | self.options | more)

    @asynccontextmanager
    async def open(
        self, record: Any = Order, config: dict[str, Any] | None = None, **options: Any
    ) -> AsyncIterator["Face"]:
        """Open the dataset; what opening costs is not counted."""
        face = await self.face.open(self.config(**config or {}), record, **options)
        self.store.forget()
        try:
            yield face
        finally:
            await face.aclose()

    def settle(self) -> None:
        """Let what has been written become final."""
        self.clock.advance(2.0)

    async def keys(self, under: str = "data/") -> list[str]:
        """The keys below the prefix, as they are stored, without what that costs being counted."""
        found, token = [], ""
        while True:
            page = await self.inner.list_page(f"{self.prefix}/{under}", token=token)
            found += [listed.key.removeprefix(f"{self.prefix}/") for listed in page.objects]
            token = page.next_token
            if not token:
                return found


class Face:
    """One of the two APIs; every method of the store is awaitable here, streams are lists."""

    store: Any

    def __init__(self, store: Any) -> None:
        self.store = store
        self.target = store.target

    @classmethod
    async def open(cls, config: S3TargetConfig, record: Any, **options: Any) -> "Face":
        raise NotImplementedError

    async def items(self, method: str, *args: Any, **options: Any) -> list[Any]:
        """What a stream gives: records or partitions."""
        return await self.collected(getattr(self.store, method)(*args, **options))

    async def rows(self, method: str, *args: Any, **options: Any) -> list[Any]:
        """The records that `read`, or a stream of records or of partitions, gives."""
        if method == "read":
            found: list[Any] = await self.read(*args, **options)  # type: ignore[attr-defined]
            return found
        return flat(await self.items(method, *args, **options))

    async def collected(self, stream: Any) -> list[Any]:
        """Everything a stream gives."""
        raise NotImplementedError

    async def first_of(self, stream: Any) -> Any:
        """The first item of a stream, which is left then."""
        raise NotImplementedError

    async def tables(self, stream: Any) -> list[pa.Table]:
        """The tables a stream of records gives."""
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


def flat(items: list[Any]) -> list[Any]:
    """Records, out of records or partitions."""
    if items and isinstance(items[0], HivePartition):
        return [row for partition in items for row in partition.rows]
    return items


class AsyncFace(Face):
    @classmethod
    async def open(cls, config: S3TargetConfig, record: Any, **options: Any) -> "AsyncFace":
        return cls(await AsyncStore.open(config, record, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def collected(self, stream: Any) -> list[Any]:
        async with stream:
            return [item async for item in stream]

    async def first_of(self, stream: Any) -> Any:
        async with stream:
            return await anext(stream)

    async def tables(self, stream: Any) -> list[pa.Table]:
        async with stream:
            return [table async for table in stream.tables()]

    async def aclose(self) -> None:
        await self.store.aclose()


class BlockingFace(Face):
    @classmethod
    async def open(cls, config: S3TargetConfig, record: Any, **options: Any) -> "BlockingFace":
        return cls(await asyncio.to_thread(Store.open, config, record, **options))

    def __getattr__(self, name: str) -> Any:
        return functools.partial(asyncio.to_thread, getattr(self.store, name))

    async def collected(self, stream: Any) -> list[Any]:
        return await asyncio.to_thread(_within, stream, list)

    async def first_of(self, stream: Any) -> Any:
        return await asyncio.to_thread(_within, stream, next)

    async def tables(self, stream: Any) -> list[pa.Table]:
        return await asyncio.to_thread(_within, stream, lambda entered: list(entered.tables()))

    async def aclose(self) -> None:
        await asyncio.to_thread(self.store.close)


def _within(stream: Any, work: Callable[[Any], Any]) -> Any:
    with stream as entered:
        return work(entered)


FACES = {"async": AsyncFace, "blocking": BlockingFace}
