"""Bar 11: what the blocking classes add to the asynchronous ones, over a store in memory."""

import asyncio
import gc
import statistics
import time
from typing import Any

from bench.datasets import data
from bench.datasets.data import Sale
from bench.datasets.figures import Figure, seconds
from bench.datasets.world import World, config
from s4gateway.s3store import AsyncStore, MemoryTransport, Store, init_dataset

_CALLS = 2000
_FILES = 8


def facade(world: World) -> list[Figure]:
    """Calls of one request each, and rows of a stream."""
    transport = MemoryTransport()
    asyncio.run(_filled(transport))
    hops, per_row, asynchronous, blocking = [], [], [], []
    for _ in range(world.repetitions):
        calls, rows = asyncio.run(_asynchronous(transport))
        blocking_calls, blocking_rows = _blocking(transport)
        hops.append((blocking_calls - calls) / _CALLS)
        per_row.append((blocking_rows - rows) / (_FILES * data.ROWS))
        asynchronous.append((calls / _CALLS, rows / (_FILES * data.ROWS)))
        blocking.append((blocking_calls / _CALLS, blocking_rows / (_FILES * data.ROWS)))
    ours = [seconds(statistics.median(side)) for side in zip(*blocking, strict=True)]
    bare = [seconds(statistics.median(side)) for side in zip(*asynchronous, strict=True)]
    hop, row = statistics.median(hops) * 1e6, statistics.median(per_row) * 1e6
    return [
        Figure(
            11,
            "blocking call, against the asynchronous one",
            ours[0],
            bare[0],
            hop,
            150,
            unit=" µs",
        ),
        Figure(
            11,
            "row of a blocking stream, against an asynchronous one",
            ours[1],
            bare[1],
            row,
            1,
            unit=" µs",
        ),
    ]


async def _filled(transport: MemoryTransport) -> None:
    await init_dataset(transport, "bucket", "facade")
    table = data.sales(1)
    async with await AsyncStore.open(config(transport, "facade"), Sale) as store:
        for _ in range(_FILES):
            await store.write_with_key("day=000", table)
        await store.write_with_key("day=001", table.slice(0, 1), token="t")


async def _asynchronous(transport: MemoryTransport) -> tuple[float, float]:
    async with await AsyncStore.open(config(transport, "facade"), Sale) as store:
        gc.collect()
        began = time.perf_counter()
        for _ in range(_CALLS):
            await store.lookup_commit("day=001", "t")
        calls = time.perf_counter() - began
        began = time.perf_counter()
        async with store.read_iter("day=000") as stream:
            async for _ in stream:
                pass
        return calls, time.perf_counter() - began


def _blocking(transport: MemoryTransport) -> tuple[float, float]:
    with Store.open(config(transport, "facade"), Sale) as store:
        gc.collect()
        began = time.perf_counter()
        for _ in range(_CALLS):
            store.lookup_commit("day=001", "t")
        calls = time.perf_counter() - began
        began = time.perf_counter()
        stream: Any
        with store.read_iter("day=000") as stream:
            for _ in stream:
                pass
        return calls, time.perf_counter() - began
