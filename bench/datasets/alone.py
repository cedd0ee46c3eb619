"""Bars 3 and 9: what needs a process of its own, its core or its memory."""

from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq

from bench import bench
from bench.datasets import data, one_core
from bench.datasets.data import Event
from bench.datasets.figures import Figure, seconds
from bench.datasets.plain import THREADS
from bench.datasets.world import World, opened

_MIB = 1 << 20
_AHEAD = 256 * _MIB
_ROWS = 90_000  # of `Event`: 20 MB uncompressed


def dedup(world: World) -> list[Figure]:
    """Bar 3."""
    found = world.child("one_core", world.repetitions)
    ours, rows, arrow = found["ours"], found["rows"], found["arrow"]
    bench.progress(f"  dedup: {seconds(ours)}, rows {seconds(rows)}, plain Arrow {seconds(arrow)}")
    what = f"dedup of {one_core.ROWS:,} rows to {found['kept']:,.0f} on one core"
    return [
        Figure(3, what, seconds(ours), seconds(arrow), ours * 1e3, 250, unit=" ms"),
        Figure(
            3, f"{what}, against a loop over rows", seconds(ours), seconds(rows), rows / ours, 6.0,
            at_least=True,
        ),
    ]  # fmt: skip


def memory(world: World) -> list[Figure]:
    """Bar 9: 2 GB in 100 partitions, 256 MiB ahead."""
    client = world.client()
    with opened(client, "events", Event) as store, closing(world.script("events", client)) as hand:
        if not hand.keys("data/"):
            bench.progress("  writing 2 GB of events")
            table = data.events("000", _ROWS)
            for number in range(data.PARTITIONS):
                store.write_with_key(f"day={number:03}", table)
        body = hand.get(hand.keys("data/")[0])
    unpacked = _uncompressed(body)
    allowed = _AHEAD + 2 * unpacked + THREADS * len(body) + 150 * _MIB
    total = unpacked * data.PARTITIONS
    figures = []
    for lane in ("rows", "tables"):
        found = world.child("memory", "events", lane, _AHEAD)
        if found["rows"] != _ROWS * data.PARTITIONS:
            raise AssertionError(f"{found['rows']} rows came")
        bench.progress(
            f"  {lane}: {found['seconds']:.1f} s, peak {found['peak'] / _MIB:.0f} MiB, "
            f"{found['idle'] / _MIB:.0f} before the read"
        )
        figures.append(
            Figure(
                9,
                f"peak memory of `read_iter` over {total / 1e9:.1f} GB, {lane}",
                f"{found['peak'] / _MIB:.0f} MiB",
                "",
                found["peak"] / _MIB,
                allowed / _MIB,
                unit=" MiB",
            )
        )
    return figures


def _uncompressed(body: bytes) -> int:
    metadata = pq.ParquetFile(pa.BufferReader(body)).metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return int(sum(group.total_byte_size for group in groups))
