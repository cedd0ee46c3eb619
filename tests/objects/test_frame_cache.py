import asyncio
from pathlib import Path

from s4gateway.objects.frame_cache import FrameCache
from tests import corpus
from tests.objects import world

NAME = ("bucket", "key", "etag", 0)


def other(number: int) -> tuple[str, str, str, int]:
    return ("bucket", "key", "etag", number)


async def test_parts_of_a_kept_frame_are_read_back():
    cache = FrameCache(world.LANES.disk)
    plain = corpus.noise(3 * world.MIB)
    await cache.keep(NAME, world.cut(plain, 300_000))
    await cache.keep(NAME, [b"ignored"])
    assert NAME in cache
    for start, end in ((0, 0), (0, 1), (299_999, 300_001), (0, len(plain))):
        assert await cache.read(NAME, len(plain), start, end) == plain[start:end]
    assert await cache.read(NAME, len(plain), 5, len(plain) + 1) is None
    assert await cache.read(NAME, len(plain) - 1, 0, 1) is None
    assert await cache.read(other(1), 10, 0, 1) is None
    cache.close()


async def test_the_frames_used_longest_ago_make_room():
    before = world.open_files()
    cache = FrameCache(world.LANES.disk, limit=1000)
    for number in range(4):
        await cache.keep(other(number), [bytes(300)])
        await cache.read(other(0), 300, 0, 1)
    assert [other(number) in cache for number in range(4)] == [True, False, True, True]
    await cache.keep(other(9), [bytes(1001)])
    assert other(9) not in cache
    cache.close()
    assert world.open_files() == before


async def test_a_limit_of_nothing_keeps_nothing():
    cache = FrameCache(world.LANES.disk, limit=0)
    await cache.keep(NAME, [b"x"])
    assert NAME not in cache


async def test_a_directory_that_cannot_be_written_keeps_nothing(tmp_path: Path):
    cache = FrameCache(world.LANES.disk, tmp_path / "missing")
    await cache.keep(NAME, [b"x"])
    assert NAME not in cache


async def test_two_who_keep_the_same_frame_keep_it_once():
    before = world.open_files()
    cache = FrameCache(world.LANES.disk)
    await asyncio.gather(*(cache.keep(NAME, [bytes(5000)]) for _ in range(5)))
    assert world.open_files() == before + 1
    cache.close()
    assert world.open_files() == before


async def test_frames_are_kept_in_a_bounded_number_of_files():
    before = world.open_files()
    cache = FrameCache(world.LANES.disk)
    for number in range(530):
        await cache.keep(other(number), [b"x"])
    assert world.open_files() <= before + 512
    cache.close()
    assert world.open_files() == before
