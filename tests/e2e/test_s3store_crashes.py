"""Writers of a dataset that are killed at every step of a write, and those who look on meanwhile.

Readers never see a row whose commit was not asked for, and never miss one that is committed;
pollers see each commit once, none later than one settle window after its stamp; and who replays the
change stream from its beginning gets the same sequence, whatever the page.
"""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from s4gateway.s3store import AsyncStore, Offset, StreamEntry, init_dataset_blocking
from s4gateway.s3store.clock import SYSTEM_CLOCK
from tests import live
from tests.e2e import datasets, dying_writers
from tests.e2e.dying_writers import STEPS, Blow, Partition, Witness, Writers
from tests.s3store import mortal
from tests.s3store.mortal import Batch, rows_of
from tests.s3store.program import config
from tests.s3store.world import Order

pytestmark = pytest.mark.e2e

POINTS = [(step, after) for step in STEPS for after in (False, True)]
BUDGET_US = 2_000_000


@dataclass
class Rounds:
    """Batches, each written by a process that is killed at the next point of a write."""

    witness: Witness
    writers: Writers
    rng: random.Random
    period: str = ""  # of the batch under way

    async def run(self, count: int) -> None:
        for number in range(count):
            step, after = POINTS[number % len(POINTS)]
            self.period = f"r{number:03}"
            await self._round(step, after=after)

    async def _round(self, step: str, *, after: bool) -> None:
        customers = tuple("abc"[: self.rng.randint(1, 3)])
        token, optimistic = self._mode(step)
        batch = Batch(self.period, customers, token, optimistic)
        self.witness.strike(Blow(step, after, self.rng.randrange(len(customers))))
        assert await self._write(batch) == -signal.SIGKILL
        if batch.token is None:
            return  # without a token nobody may repeat it
        assert await self._write(batch) in {0, mortal.LATE}
        assert {(batch.period, customer) for customer in customers} <= self.witness.landed.keys()

    def _mode(self, step: str) -> tuple[str | None, bool]:
        """The token, and whether it is committed without a look; only a careful writer looks."""
        careful, optimistic, none = ("t", False), ("t", True), (None, False)
        return careful if step == "lookup" else self.rng.choice([careful, optimistic, none])

    async def _write(self, batch: Batch) -> int:
        status = await asyncio.to_thread(self.writers.write, batch)
        await asyncio.to_thread(self.witness.quiet)
        return status


@dataclass
class Onlookers:
    """Two who read and poll all the time, and check what they see at once."""

    store: AsyncStore[Order]
    witness: Witness
    rounds: Rounds
    polled: list[StreamEntry] = field(default_factory=list)
    offset: Offset | None = None
    reads: int = 0

    async def read(self) -> None:
        """Read the partitions that are being written."""
        while True:
            period = self.rounds.period
            before = {each for each in list(self.witness.landed) if each[0] == period}
            rows = await self.store.read({"period": period or "none"})
            seen = partitions_of(rows)
            assert before <= seen <= self.witness.begun.keys()
            self.reads += 1

    async def poll(self) -> None:
        while True:
            if not await self.page():
                await asyncio.sleep(0.02)

    async def page(self) -> int:
        page = await self.store.poll(self.offset, 7)
        for entry in page.entries:
            begun = self.witness.begun[partition_of(entry)]
            assert dying_writers.attempt_of(entry.data_path) in begun
        self.polled += page.entries
        self.offset = page.next_offset
        return len(page.entries)


def partitions_of(rows: Sequence[Order]) -> set[Partition]:
    """The partitions that rows belong to, each whole and each row once."""
    seen = {(row.period, row.customer) for row in rows}
    assert list(rows) == [row for each in sorted(seen) for row in rows_of(*each)]
    return seen


def partition_of(entry: StreamEntry) -> Partition:
    period, customer = (part.partition("=")[2] for part in entry.key.split("/"))
    return period, customer


async def replayed(store: AsyncStore[Order], size: int) -> list[StreamEntry]:
    """The whole change stream, `size` entries at a time."""
    entries: list[StreamEntry] = []
    offset = None
    while (page := await store.poll(offset, size)).entries:
        entries += page.entries
        offset = page.next_offset
    return entries


async def settled(witness: Witness) -> None:
    """Return one settle window after the last stamp."""
    last = max(landed.stamp_us for landed in witness.landed.values())
    left_us = last + BUDGET_US + 1 - SYSTEM_CLOCK.now_us()
    await asyncio.sleep(max(0.0, left_us / 1e6))


async def judge(onlookers: Onlookers, witness: Witness) -> None:
    """Hold what was seen, and what is seen now, against what went over the wire."""
    store = onlookers.store
    await settled(witness)
    while await onlookers.page():
        pass
    everything = await replayed(store, 1000)
    for size in (1, 7):
        assert await replayed(store, size) == everything
    committed = sorted(witness.landed)
    assert sorted(map(partition_of, everything)) == committed
    for entry in everything:
        landed = witness.landed[partition_of(entry)]
        assert dying_writers.attempt_of(entry.data_path) == landed.attempt
    assert onlookers.polled == [entry for entry in everything if entry in onlookers.polled]
    missed = {partition_of(entry) for entry in everything if entry not in onlookers.polled}
    assert missed <= witness.late(BUDGET_US)
    assert sorted(partitions_of(await store.read("*"))) == committed


async def killed(
    upstream: live.Endpoint, bucket: str, count: int, cuts: float = 0.0, seed: int = 0
) -> dict[str, int]:
    """Kill `count` writers; how much of what there was."""
    client = datasets.client_of(upstream)
    init_dataset_blocking(client, bucket, "orders", commit_timeout="2s", max_clock_skew="0s")
    with (
        dying_writers.watched(upstream, cuts=cuts, seed=seed) as witness,
        dying_writers.writers(witness.meddling.endpoint, bucket) as writers,
    ):
        rounds = Rounds(witness, writers, random.Random(seed))
        async with await AsyncStore.open(config(client, bucket), Order) as store:
            onlookers = Onlookers(store, witness, rounds)
            await beside(rounds.run(count), onlookers.read(), onlookers.poll())
            await judge(onlookers, witness)
    assert witness.struck == count
    kinds = Counter(each["Key"].rpartition(".")[2] for each in datasets.listing(client, bucket))
    datasets.empty(client, bucket)
    client.close()
    assert kinds["parquet"] > kinds["commit"] == len(witness.landed)
    return {
        "killed": witness.struck,
        "writers' requests": witness.requests,
        "commits": kinds["commit"],
        "orphans": kinds["parquet"] - kinds["commit"],
        "refs": kinds["ref"],
        "late": len(witness.late(BUDGET_US)),
        "reads meanwhile": onlookers.reads,
        "polled meanwhile": len(onlookers.polled),
    }


async def beside(work: Coroutine[Any, Any, None], *looking: Coroutine[Any, Any, None]) -> None:
    """Do the work while others look on without end; what one of them finds ends it."""
    doing = asyncio.ensure_future(work)
    tasks = [doing, *map(asyncio.ensure_future, looking)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        assert doing in done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.slow
async def test_killed_at_every_step_of_a_write_a_writer_harms_nobody(
    seaweedfs: live.Seaweedfs, bucket: str
):
    figures = await killed(seaweedfs, bucket, len(POINTS))
    assert figures["reads meanwhile"] > 0


@pytest.mark.huge
@pytest.mark.parametrize("server", ["seaweedfs", "gateway"])
@pytest.mark.parametrize("quarter", range(4))
async def test_two_hundred_killed_writers_on_a_wire_that_breaks_harm_nobody(
    request: pytest.FixtureRequest,
    bucket: str,
    server: str,
    quarter: int,
    record_property: Callable[[str, Any], None],
):
    """Fifty at a time, so that reading everything again stays cheap."""
    upstream = request.getfixturevalue(server)
    figures = await killed(upstream, bucket, 50, cuts=0.02, seed=quarter + 1)
    for name, value in figures.items():
        record_property(name, value)
    assert figures["commits"] > 50
