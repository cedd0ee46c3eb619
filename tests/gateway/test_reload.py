import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from s4gateway.gateway.client_keys import ClientKeys
from s4gateway.gateway.generation import Generation, GenerationError, GenerationHolder
from s4gateway.gateway.metrics import Metrics
from s4gateway.gateway.reload import Reloader


class Files:
    """A builder whose result a test decides."""

    def __init__(self) -> None:
        self.calls = 0
        self.following: Generation | Exception = Generation(ClientKeys())
        self.previous: Generation | None = None

    async def build(self, previous: Generation) -> Generation:
        self.calls += 1
        self.previous = previous
        if isinstance(self.following, Exception):
            raise self.following
        return self.following


def reloader(files: Files, **options: bool) -> tuple[Reloader, GenerationHolder, Metrics]:
    holder, metrics = GenerationHolder(Generation(ClientKeys())), Metrics()
    return Reloader(files.build, holder, metrics, **options), holder, metrics


@contextlib.asynccontextmanager
async def running(work: Reloader) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work.run())
        yield
        task.cancel()


async def test_a_reload_swaps_the_generation_and_is_counted():
    files = Files()
    work, holder, metrics = reloader(files)
    before = holder.current
    assert await work.reload()
    assert files.previous is before
    assert holder.current is files.following
    assert b's4_reload_total{result="ok"} 1.0' in metrics.render()
    assert b"s4_tls_cert_reload_total{" not in metrics.render()


@pytest.mark.parametrize(
    "error", [GenerationError(("first reason", "second reason")), OSError("disk gone")]
)
async def test_any_problem_keeps_the_old_generation_whole(
    error: Exception, caplog: pytest.LogCaptureFixture
):
    files = Files()
    files.following = error
    work, holder, metrics = reloader(files)
    old = holder.current
    with caplog.at_level(logging.INFO, "s4"):
        assert not await work.reload()
    assert holder.current is old
    assert b's4_reload_total{result="err"} 1.0' in metrics.render()
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == len(getattr(error, "problems", (error,)))


async def test_signals_during_a_reload_are_one_more_reload():
    entered, release = asyncio.Event(), asyncio.Event()

    class Slow(Reloader):
        async def reload(self) -> bool:
            entered.set()
            await release.wait()
            return await super().reload()

    files = Files()
    _, holder, metrics = reloader(files)
    work = Slow(files.build, holder, metrics)
    async with running(work):
        work.request()
        await entered.wait()
        for _ in range(10):
            work.request()
        release.set()
        while files.calls < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert files.calls == 2


@pytest.mark.parametrize("error", [GenerationError(("broken",)), RuntimeError("unforeseen")])
async def test_a_failed_reload_is_not_the_last(error: Exception):
    files = Files()
    files.following = error
    work, holder, _ = reloader(files)
    async with running(work):
        work.request()
        while files.calls < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        files.following = good = Generation(ClientKeys())
        work.request()
        while holder.current is not good:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_reloads_of_a_dictionary_map_are_counted_for_themselves():
    files = Files()
    work, _, metrics = reloader(files, mapped=True)
    metrics.dictionaries.show(dict)
    await work.reload()
    files.following = GenerationError(("no such dictionary",))
    await work.reload()
    await work.reload()
    text = metrics.render()
    assert b's4_dict_reload_total{result="ok"} 1.0' in text
    assert b's4_dict_reload_total{result="err"} 2.0' in text


async def test_without_a_map_no_reload_of_dictionaries_is_counted():
    work, _, metrics = reloader(Files())
    metrics.dictionaries.show(dict)
    await work.reload()
    assert b"s4_dict_reload_total{" not in metrics.render()
