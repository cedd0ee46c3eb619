"""Acceptance 80: writers and pollers through the gateway, for minutes, on a wire that breaks."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from s4gateway.s3store import (
    AsyncStore,
    CommitAfterTimeoutError,
    Offset,
    S3TargetConfig,
    TransportError,
    WriteError,
    WriteResult,
    init_dataset,
)
from tests import live
from tests.e2e import datasets, meddler
from tests.rude_server import Exchange
from tests.s3store.program import config
from tests.s3store.world import Order, order

pytestmark = pytest.mark.e2e

SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SETTLED = 30.0  # seconds until the last commit is final and polled


class Soak:
    """Eight writers, each of partitions of its own, and four pollers."""

    def __init__(self, target: S3TargetConfig) -> None:
        self._config = target
        self._over = asyncio.get_running_loop().time() + SOAK_SECONDS
        self.committed: dict[str, set[tuple[str, int]]] = {}
        self.repeated: set[tuple[str, int]] = set()  # late, and stamped again: may come twice
        self.failures = 0
        self.polled: list[list[tuple[str, int]]] = [[] for _ in range(4)]
        self.offsets: list[list[str]] = [[""] for _ in range(4)]

    @property
    def is_over(self) -> bool:
        return asyncio.get_running_loop().time() >= self._over

    async def run(self) -> None:
        async with (
            await AsyncStore.open(
                self._config, Order, entity_key="sku", version="version"
            ) as store,
            asyncio.TaskGroup() as group,
        ):
            for number in range(8):
                group.create_task(self._write(store, f"w{number}"))
            for number in range(4):
                group.create_task(self._poll(store, number))

    async def _write(self, store: AsyncStore[Order], who: str) -> None:
        version = 0
        while not self.is_over:
            version += 1
            row = order(f"{who}-{version}", version, customer=who)
            await self._committed(store, row)
            self.committed.setdefault(who, set()).add((row.sku, version))

    async def _committed(self, store: AsyncStore[Order], row: Order) -> None:
        """Write a row until it is committed; its token makes that one commit."""
        while True:
            try:
                await store.write([row], token=row.sku)
            except CommitAfterTimeoutError as late:
                self.repeated.add((row.sku, row.version))
                await self._restamped(store, late.result)
                return
            except WriteError:
                self.failures += 1
            else:
                return

    async def _restamped(self, store: AsyncStore[Order], late: WriteResult) -> None:
        while True:
            try:
                await store.restamp_ref(late)
            except WriteError:
                self.failures += 1
            else:
                return

    async def _poll(self, store: AsyncStore[Order], number: int) -> None:
        until = None
        while True:
            if self.is_over and until is None:
                until = self._over + SETTLED
            try:
                page = await store.poll_records(Offset(self.offsets[number][-1]), 200)
            except TransportError:
                self.failures += 1
                continue
            self.polled[number] += [(row.sku, row.version) for row in page.records]
            self.offsets[number].append(page.next_offset)
            if until is not None and asyncio.get_running_loop().time() > until:
                return
            await asyncio.sleep(0.5)


def unreliable(rng: random.Random, harm: Counter[str]) -> meddler.Rule:
    """Of a hundred requests two are answered with 503, one is cut off before and one after."""

    async def rule(exchange: Exchange, ask: meddler.Ask) -> None:
        chance = rng.random()
        if chance < 0.02:
            harm["503"] += 1
            await exchange.answer(503)
        elif chance < 0.03:
            harm["reset before"] += 1
            exchange.reset()
        elif chance < 0.04:
            harm["reset after"] += 1
            await meddler.reset(exchange, ask)
        else:
            harm["none"] += 1
            await exchange.send((await ask()).wire)

    return rule


@pytest.mark.huge
async def test_80_pollers_see_what_writers_committed_whatever_the_wire_does(
    gateway: live.Gateway,
    straight: Any,
    bucket: str,
    record_property: Callable[[str, Any], None],
):
    """`SOAK_SECONDS` in the environment makes it shorter than ten minutes."""
    await init_dataset(straight, bucket, "orders", commit_timeout="8s", max_clock_skew="0s")
    harm: Counter[str] = Counter()
    with meddler.between(gateway) as between:
        client = datasets.client_of(between.endpoint)
        rule = unreliable(random.Random(80), harm)
        with between.misbehaving(rule, lambda request: b"_config" not in request.target):
            soak = Soak(config(client, bucket))
            await soak.run()
        client.close()
    datasets.empty(straight, bucket)
    expected = set().union(*soak.committed.values())
    assert len(soak.committed) == 8
    for polled, offsets in zip(soak.polled, soak.offsets, strict=True):
        assert set(polled) == expected
        assert {row for row, times in Counter(polled).items() if times > 1} <= soak.repeated
        assert offsets == sorted(offsets)
    for name, value in harm.items():
        record_property(f"requests, {name}", value)
    record_property("commits", len(expected))
    record_property("late", len(soak.repeated))
    record_property("calls that failed in spite of five tries", soak.failures)
