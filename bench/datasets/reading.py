"""Bars 1, 2, 8 and 10: reading files of 1 MB, and columns of large ones over a slow link."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench import bench
from bench.datasets import data, plain
from bench.datasets.data import Sale
from bench.datasets.figures import Figure, paired, seconds, wall
from bench.datasets.world import BUCKET, World, config, opened
from s4gateway.s3store import AsyncReader, Boto3Transport, Reader, S3Target, Store, fetching

_PREFIX = "sales"
_LINK = 50e6  # bytes a second
_WIDE_FILES = 4


@contextmanager
def _sales(world: World) -> Iterator[tuple[Store[Sale], plain.Script]]:
    """The files of 1 MB, written on first use, and both ways to read them."""
    client = world.client()
    with opened(client, _PREFIX, Sale) as store, closing(world.script(_PREFIX, client)) as script:
        if not script.keys("data/"):
            bench.progress(f"  writing {data.PARTITIONS * data.FILES} files of 1 MB")
            kinds = [data.sales(seed) for seed in range(8)]
            for number in range(data.PARTITIONS * data.FILES):
                day = f"{number // data.FILES:03}"
                store.write_with_key(f"day={day}", data.of_day(kinds[number % 8], day))
        yield store, script


def tables(world: World) -> list[Figure]:
    """Bar 1: everything as one table, as it is and the latest version of each entity."""
    with _sales(world) as (store, script):
        latest: Reader[Sale] = Reader(store.target, Sale, entity_key="sku", version="version")
        same(store.read_table("*"), script.read_table())
        same(latest.read_table("*"), script.read_latest())
        whole = paired(
            "read_table", world.repetitions, lambda: store.read_table("*"), script.read_table
        )
        deduped = paired(
            "read_table, latest",
            world.repetitions,
            lambda: latest.read_table("*"),
            script.read_latest,
        )
    files = data.PARTITIONS * data.FILES
    return [
        whole.figure(1, f"`read_table` of {files} files of 1 MB", 1.10),
        deduped.figure(1, "the same, latest of each entity", 1.15),
    ]


def rows(world: World) -> list[Figure]:
    """Bar 2: the files of five days as dataclasses."""
    days = [f"day={day:03}" for day in range(5)]
    under = "data/day=00"  # ten days, of which half are wanted: see `keys`
    with _sales(world) as (store, script):
        wanted = [key for key in script.keys(under) if key.split("/")[2] in days]

        def table() -> pa.Table:
            return pa.concat_tables(script.map(script.table, wanted))

        assert store.read(days) == plain.zipped(table())
        zipped = paired(
            "read, zip",
            world.repetitions,
            lambda: store.read(days),
            lambda: plain.zipped(table()),
        )
        by_dicts = paired(
            "read, dicts",
            max(3, world.repetitions // 2),
            lambda: store.read(days),
            lambda: plain.by_dicts(table()),
        )
        count = table().num_rows
    what = f"`read` of {count:,} dataclasses"
    return [
        zipped.figure(2, f"{what}, against `zip` over the columns", 1.3),
        by_dicts.faster(2, f"{what}, against `to_pylist` and `cls(**row)`", 1.5),
    ]


def first_row(world: World) -> list[Figure]:
    """Bar 8: the first row of everything against the first partition, read alone to its end.

    Beside it, without a bar, against no more than the first row of that partition: what is left
    then is mostly the listing of all the others.
    """
    with _sales(world) as (store, _):

        def first(pattern: str) -> object:
            return next(iter(store.read_iter(pattern)))  # dropped, which waits for nothing

        repetitions = world.repetitions * 2
        whole = paired(
            "first row, partition",
            repetitions,
            lambda: first("*"),
            lambda: store.read("day=000"),
        )
        alone = paired(
            "first row, alone", repetitions, lambda: first("*"), lambda: first("day=000")
        )
    what = f"first row of `read_iter` over {data.PARTITIONS} partitions, against"
    return [
        whole.figure(8, f"{what} reading the first one alone", 1.3),
        alone.figure(8, f"{what} the first row of that", None),
    ]


def narrow(world: World) -> list[Figure]:
    """Bar 10: 2 of 20 columns of large files, at 50 MB/s."""
    client = world.client()
    bodies = [data.wide(seed) for seed in range(_WIDE_FILES)]
    schema = data.WIDE
    with opened(client, "wide", schema) as store, closing(world.script("wide", client)) as script:
        for body in bodies:
            store.write_with_key("day=000", body)
        keys = script.keys("data/")
        needed = sum(_needed(script.get(key)) for key in keys)
        total = sum(len(script.get(key)) for key in keys)
        narrow_, fetched = asyncio.run(_over_link(client, columns=data.NARROW))
        whole = _plain_over_link(script, keys)
        ratios = [(narrow_, whole)]
        for _ in range(world.repetitions - 1):
            again, _ = asyncio.run(_over_link(client, columns=data.NARROW))
            ratios.append((again, _plain_over_link(script, keys)))
    limit = needed * 1.1 + fetching.TAIL * len(keys)
    ours, theirs = (sorted(side)[len(ratios) // 2] for side in zip(*ratios, strict=True))
    ratio = sorted(b / a for a, b in ratios)[len(ratios) // 2]
    what = f"2 of 20 columns of {len(keys)} files of {total / len(keys) / 1e6:.1f} MB"
    shown = f"{fetched / 1e6:.2f} MB", f"{total / 1e6:.1f} MB"
    return [
        Figure(10, f"{what}: bytes fetched / allowed", *shown, fetched / limit, 1.0),
        Figure(
            10,
            f"{what} at 50 MB/s: times faster than whole files",
            seconds(ours),
            seconds(theirs),
            ratio,
            3.0,
            at_least=True,
        ),
    ]


def _needed(body: bytes) -> int:
    metadata = pq.ParquetFile(pa.BufferReader(body)).metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    wanted = [chunk for chunk in chunks if chunk.path_in_schema in data.NARROW]
    return int(sum(chunk.total_compressed_size for chunk in wanted))


class _Link(Boto3Transport):
    """Every body of a GET takes its time on one link."""

    received = 0
    free_at = 0.0

    async def get_then(self, key: str, work: Callable[[bytes], Any], **more: Any) -> Any:
        body = await super().get_then(key, bytes, **more)
        await self._pass(len(body))
        return await asyncio.to_thread(work, body)

    async def get_range(self, key: str, start: int | None, length: int, **more: Any) -> Any:
        part = await super().get_range(key, start, length, **more)
        await self._pass(len(part.body))
        return part

    async def _pass(self, size: int) -> None:
        self.received += size
        now = time.monotonic()
        self.free_at = max(now, self.free_at) + size / _LINK
        await asyncio.sleep(self.free_at - now)


async def _over_link(client: Any, columns: tuple[str, ...]) -> tuple[float, int]:
    """Seconds of a narrow read, and the bytes that came."""
    link = _Link(client, BUCKET, workers=plain.THREADS)
    async with await S3Target.open(config(link, "wide")) as target:
        reader: AsyncReader[Any] = AsyncReader(target, data.WIDE, columns=columns)
        link.received = 0
        began = time.perf_counter()
        await reader.read_table("*")
        took = time.perf_counter() - began
    await link.aclose()
    return took, link.received


def _plain_over_link(script: plain.Script, keys: list[str]) -> float:
    """Whole files over the same link, decoded as they come."""

    def fetch() -> object:
        began = time.monotonic()
        bodies = script.map(script.get, keys)
        on_link = sum(map(len, bodies)) / _LINK
        time.sleep(max(0.0, on_link - (time.monotonic() - began)))
        read = list(data.NARROW)
        return [pq.ParquetFile(pa.BufferReader(body)).read(read) for body in bodies]

    return wall(fetch)


def same(ours: pa.Table, theirs: pa.Table) -> None:
    """A read that is compared read the same rows."""
    if not ours.equals(theirs):
        raise AssertionError("both sides read something else")
