"""The change stream where a fault or a number must be scripted. Acceptance 52, 53, 59."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from s4gateway.s3store import errors
from tests.contracts.s3store_stream import StreamContract
from tests.s3store import transports, world
from tests.s3store.transports import fails
from tests.s3store.world import KEY, World, order

ATTEMPT = "0190a1b23c4d7e5f8a9bcdef01234567"


class TestStreamOverMemory(StreamContract):
    @pytest.fixture
    def backing(self) -> world.Backing:
        return world.Backing.memory()


@pytest.fixture
def face() -> type[world.Face]:
    return world.AsyncFace


async def test_52_a_thousand_refs_that_do_not_count_are_passed_in_one_poll(dataset: World):
    async with dataset.open() as orders:
        us = dataset.clock.now_us()
        last = ""
        for number in range(1001):
            last = dataset.layout.ref(us + number, "t", ATTEMPT, f"period=1/customer={number % 7}")
            await dataset.inner.put(last, b"")
        dataset.settle()
        dataset.store.forget()
        assert await orders.poll(None, 5) == ([], last)
        assert dataset.store.counts() == {"list": 201, "head": 7}
        dataset.store.forget()
        page = await orders.poll_records(None, 1000)
        assert (page.records, page.next_offset) == ([], last)
        assert dataset.store.counts() == {"list": 2, "head": 7}


async def test_53_markers_are_asked_for_together(dataset: World):
    """As many as there are places; no more than entries are wanted."""
    async with dataset.open(config={"max_inflight_requests": 16}) as orders:
        await orders.write([order(customer=f"{number:03}") for number in range(60)])
        dataset.settle()
        dataset.store.forget()

        async def slowly(send: transports.Send) -> Any:
            await asyncio.sleep(0.001)
            return await send()

        dataset.store.script("head", "", slowly, times=99)
        assert len((await orders.poll(None, 50)).entries) == 50
        assert dataset.store.counts() == {"list": 1, "head": 50}
        assert dataset.store.most_under_way == 16


async def test_53_one_range_asks_about_a_commit_once_over_all_its_pages(dataset: World):
    async with dataset.open() as orders:
        first = await orders.write_with_key(KEY, [order()], token="t")
        for _ in range(1200):
            await orders.restamp_ref(first)
        dataset.settle()
        dataset.store.forget()
        assert len(await orders.poll_range(None, None)) == 1201
        assert dataset.store.counts("data/") == {"head": 1}


async def test_a_poll_that_fails_tells_why_and_can_be_repeated(dataset: World):
    async with dataset.open() as orders:
        await orders.write([order()])
        dataset.settle()
        dataset.store.script("head", "", fails(errors.AccessDenied, 403))
        with pytest.raises(errors.AccessDenied):
            await orders.poll()
        assert len((await orders.poll()).entries) == 1


async def test_59_following_goes_on_over_idle_times_and_trouble(dataset: World):
    """Nothing is given twice and nothing left out, whatever happens between two pages."""
    async with dataset.open() as orders:
        pages = orders.follow(max_entries=3, interval=0.01)
        got: list[str] = []

        async def follow() -> None:
            async for page in pages:
                got.extend(row.sku for row in page.records)
                if len(got) == 20:
                    return

        task = asyncio.ensure_future(follow())
        for number in range(20):
            await orders.write([order(f"s{number:02}")])
            dataset.settle()
            if number % 5 == 0:
                dataset.store.script("list", "_ref", fails(errors.ConnectionFailed), times=7)
            if number % 7 == 0:
                dataset.store.script("get", ".parquet", fails(errors.ServerError, 503), times=6)
            await asyncio.sleep(0.001)
        await asyncio.wait_for(task, 60)
        await pages.aclose()
        assert got == [f"s{number:02}" for number in range(20)]


async def test_59_following_ends_with_what_will_not_pass(dataset: World):
    async with dataset.open() as orders:
        dataset.store.script("list", "_ref", fails(errors.AccessDenied, 403))
        with pytest.raises(errors.AccessDenied):
            await anext(orders.follow())


async def test_59_following_goes_on_from_an_offset(dataset: World):
    async with dataset.open() as orders:
        (first,) = await orders.write([order("a")])
        await orders.write([order("b")])
        dataset.settle()
        pages: AsyncIterator[Any] = orders.follow(first.offset)
        page = await anext(pages)
        assert page.records == [order("b")]
        await pages.aclose()  # type: ignore[attr-defined]


def test_59_following_without_an_event_loop():
    dataset = World(world.Backing.memory(), world.BlockingFace)
    asyncio.run(dataset.seed())
    face = asyncio.run(world.BlockingFace.open(dataset.config(), world.Order))
    try:
        face.store.write([order("a")])
        dataset.settle()
        pages = face.store.follow(interval=0.01)
        assert next(pages).records == [order("a")]
        pages.close()
    finally:
        face.store.close()
