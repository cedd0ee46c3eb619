"""An open object gives everything back, also to who is cancelled while closing it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from s4gateway.backend.memory import MemoryBackend
from s4gateway.objects.budget import ByteBudget
from s4gateway.objects.opening import close_all
from s4gateway.objects.plaintext import Frames
from tests import corpus
from tests.objects import world
from tests.objects.world import BUCKET, Instance


async def lingering(ending: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """Content that, once begun, ends only when it is cancelled."""
    try:
        yield b"begun"
        yield b"never asked for"
    finally:
        ending.set()
        await asyncio.Event().wait()


class LingeringFrames(Frames):
    """Frames of which one is still being made when they are closed."""

    def __init__(self, frames: Frames, ending: asyncio.Event) -> None:
        self._frames = frames
        self._ending = ending

    async def aclose(self) -> None:
        await self._frames.aclose()
        self._ending.set()
        await asyncio.Event().wait()


async def test_the_first_failure_is_told_when_several_fail_to_close():
    closed = []

    class Failing:
        def __init__(self, error: BaseException) -> None:
            self.error = error

        async def close(self) -> None:
            closed.append(self.error)
            raise self.error

    instance = Instance(MemoryBackend(), ByteBudget(world.MIB))
    first, second = asyncio.CancelledError(), ValueError("second")
    reservation = instance.budget.share(1000)
    with pytest.raises(asyncio.CancelledError):
        await close_all(Failing(first), Failing(second), reservation)  # type: ignore[arg-type]
    assert closed == [first, second]
    assert instance.budget.used == 0


@pytest.mark.parametrize("where", ["content", "frames"])
async def test_who_is_cancelled_while_closing_gives_all_memory_back(where: str):
    store = MemoryBackend.with_buckets(BUCKET)
    instance = Instance(store, ByteBudget(64 * world.MIB))
    chunk = corpus.text(64 * 1024, 5) * 16
    body = world.framed([chunk] * 6)
    world.put_stored(store, "k", body.stored, body.metadata)
    opened = await instance.reader.open_whole(instance.source("k"))
    assert instance.budget.used > 0
    ending = asyncio.Event()
    if where == "content":
        content = lingering(ending)
        assert await anext(content) == b"begun"
        opened = replace(opened, content=content)
    else:
        frames, *others = opened.resources
        assert isinstance(frames, Frames)
        opened = replace(opened, resources=(LingeringFrames(frames, ending), *others))
    closing = asyncio.get_running_loop().create_task(opened.aclose())
    await ending.wait()
    assert instance.budget.used > 0
    closing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await closing
    assert closing.cancelled()
    assert instance.budget.used == 0
