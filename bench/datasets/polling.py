"""Bar 7: a thousand entries of the change stream, where every request takes 10 ms."""

import asyncio
import dataclasses
import statistics
import time
from contextlib import closing

from bench.datasets import data, stub
from bench.datasets.data import Sale
from bench.datasets.figures import Figure, paired, seconds
from bench.datasets.world import Tomorrow, World, config, opened
from s4gateway.s3store import AsyncStore, Store, init_dataset

_REFS = 1000


def poll(world: World) -> list[Figure]:
    """1,000 refs: a LIST and 1,000 HEADs."""
    (sale,) = [Sale(**row) for row in data.sales(1, 1, day="000").to_pylist()]
    sales = [dataclasses.replace(sale, day=f"{number:04}") for number in range(_REFS)]
    lean = asyncio.run(_lean(sales, world.repetitions))
    with stub.started() as client, closing(world.script("poll", client)) as script:
        with opened(client, "poll", Sale) as writer:
            writer.write(sales)
        with Store.open(config(client, "poll", clock=Tomorrow()), Sale) as store:
            if len(store.poll(max_entries=_REFS).entries) != _REFS:
                raise AssertionError("the poll is short")

            def by_hand() -> object:
                refs = script.keys("_ref/", ".ref")
                marker = "poll/data/day={}/{}.commit".format
                days = [(ref.split(";day=")[1][:4], ref.split("-")[1]) for ref in refs]
                return script.map(lambda each: script.head(marker(*each)), days)

            pairs = paired(
                "poll", world.repetitions, lambda: store.poll(max_entries=_REFS), by_hand
            )
    ours, plain = pairs.walls
    what = f"`poll` of {_REFS:,} entries at 10 ms a request"
    return [
        Figure(7, f"{what}, lean transport", seconds(lean), "", lean, 0.9, unit=" s"),
        Figure(7, f"{what}, boto3", seconds(ours), seconds(plain), ours, 3.5, unit=" s"),
    ]


async def _lean(sales: list[Sale], repetitions: int) -> float:
    transport = stub.Slow()
    await init_dataset(transport, "bucket", "poll")
    async with await AsyncStore.open(config(transport, "poll"), Sale) as writer:
        await writer.write(sales)
    walls = []
    async with await AsyncStore.open(config(transport, "poll", clock=Tomorrow()), Sale) as store:
        for _ in range(repetitions):
            began = time.perf_counter()
            page = await store.poll(max_entries=_REFS)
            walls.append(time.perf_counter() - began)
            if len(page.entries) != _REFS:
                raise AssertionError("the poll is short")
    return statistics.median(walls)
