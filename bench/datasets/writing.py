"""Bars 4 and 6: a large write against the same steps by hand, small ones at 10 ms a request."""

import asyncio
import contextlib
import dataclasses
import statistics
import time
from collections.abc import Sequence
from contextlib import closing

import pyarrow as pa

from bench.datasets import data, plain, stub
from bench.datasets.data import SALES, Sale
from bench.datasets.figures import Figure, paired, seconds
from bench.datasets.world import World, config, opened
from s4gateway.s3store import AsyncStore, init_dataset

_ROWS = 100_000
_PARTITIONS = 64


def large(world: World) -> list[Figure]:
    """Bar 4: 100,000 dataclasses into one partition."""
    rows = plain.zipped(data.sales(1, _ROWS, day="000"))
    client = world.client()
    with opened(client, "large", Sale) as store, closing(world.script("large", client)) as script:

        def ours() -> object:
            return store.write_with_key("day=000", rows)

        def by_hand(table: pa.Table) -> None:
            script.put("plain/rows.parquet", plain.encoded(table))
            script.put("plain/ref")
            script.put("plain/commit")

        by_columns = paired(
            "write_with_key, columns",
            world.repetitions,
            ours,
            lambda: by_hand(plain.by_columns(rows)),
        )
        by_dicts = paired(
            "write_with_key, dicts",
            max(3, world.repetitions // 2),
            ours,
            lambda: by_hand(
                pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=SALES)
            ),
        )
    what = f"`write_with_key` of {_ROWS:,} dataclasses"
    return [
        by_columns.figure(4, f"{what}, against column arrays, `write_table` and 3 PUTs", 1.5),
        by_dicts.faster(4, f"{what}, against `from_pylist(asdict)`", 4.0),
    ]


def small(world: World) -> list[Figure]:
    """Bar 6: every request takes 10 ms."""
    one = data.sales(1, 10, day="000").to_pylist()
    rows = [Sale(**row) for row in one]
    spread = [
        dataclasses.replace(row, day=f"{n:03}") for n in range(_PARTITIONS) for row in rows[:1]
    ]
    lean_one, lean_many = asyncio.run(_lean(rows, spread, world.repetitions))
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(stub.started())
        store = stack.enter_context(opened(client, "small", Sale))
        hand = stack.enter_context(closing(world.script("small", client)))
        ones = paired(
            "one partition",
            world.repetitions * 3,
            lambda: store.write_with_key("day=000", rows),
            lambda: _by_hand(hand, rows),
        )
        many = paired(
            "64 partitions",
            world.repetitions,
            lambda: store.write(spread),
            lambda: hand.map(lambda row: _by_hand(hand, [row]), spread),
        )
    what = f"write of {_PARTITIONS} partitions at 10 ms a request"
    return [
        _absolute(6, "write of 10 rows at 10 ms a request, lean transport", lean_one, None, 0.040),
        _absolute(6, "the same with boto3", *ones.walls, 0.040),
        _absolute(6, f"{what}, lean transport", lean_many, None, 0.25),
        _absolute(6, f"{what}, boto3", *many.walls, 0.8),
    ]


def _absolute(bar: int, what: str, ours: float, plain_: float | None, limit: float) -> Figure:
    shown = "" if plain_ is None else seconds(plain_)
    return Figure(bar, what, seconds(ours), shown, ours * 1e3, limit * 1e3, unit=" ms")


def _by_hand(hand: plain.Script, rows: Sequence[Sale]) -> None:
    """The three requests of a write, with the rows in the first."""
    day = rows[0].day
    hand.put(f"plain/{day}.parquet", plain.encoded(plain.by_columns(rows)))
    hand.put(f"plain/{day}.ref")
    hand.put(f"plain/{day}.commit", Metadata={"rowcount": str(len(rows))})


async def _lean(rows: list[Sale], spread: list[Sale], repetitions: int) -> tuple[float, float]:
    """Median seconds of both writes over a transport that costs nothing but its 10 ms."""
    transport = stub.Slow()
    await init_dataset(transport, "bucket", "small")
    async with await AsyncStore.open(config(transport, "small"), Sale) as store:
        one, many = [], []
        for _ in range(repetitions * 3):
            began = time.perf_counter()
            await store.write_with_key("day=000", rows)
            one.append(time.perf_counter() - began)
            began = time.perf_counter()
            await store.write(spread)
            many.append(time.perf_counter() - began)
    return statistics.median(one), statistics.median(many)
