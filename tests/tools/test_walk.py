"""Walking a bucket over a store in memory: everything once, in bounded memory, never for ever."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from s4gateway.backend.base import BackendProtocolError, Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.tools.target import Target
from s4gateway.tools.walk import each, versioning, walk, walk_versions
from tests.backends import CountingBackend

BUCKET = "bucket"


@pytest.fixture
async def store() -> MemoryBackend:
    backend = MemoryBackend()
    await backend.forward("PUT", f"/{BUCKET}", "", [])
    return backend


async def _fill(store: MemoryBackend, names: list[str]) -> None:
    for name in names:
        await store.put(BUCKET, name, Body.of(name.encode()))


async def test_every_page_is_walked_and_each_key_comes_once(store: MemoryBackend):
    names = [f"k{number:04d}" for number in range(2345)]
    await _fill(store, names)
    counting = CountingBackend(store)
    found = [each.key async for each in walk(counting, Target(BUCKET))]
    assert found == names
    assert counting.count("list") == 3


async def test_the_gateways_own_objects_are_left_out_unless_asked_for(store: MemoryBackend):
    names = ["a", "a.s4index", ".s4dict/0123456789abcdef", ".s4mpu/75/create", "b c+d%"]
    await _fill(store, names)
    assert [each.key async for each in walk(store, Target(BUCKET))] == ["a", "b c+d%"]
    everything = [each.key async for each in walk(store, Target(BUCKET), internal=True)]
    assert everything == sorted(names)


async def test_a_prefix_and_a_limit_hold(store: MemoryBackend):
    await _fill(store, ["a/1", "a/2", "a/3", "b/1"])
    found = [each async for each in walk(store, Target(BUCKET, "a/"), limit=2)]
    assert [each.key for each in found] == ["a/1", "a/2"]
    assert all(each.size == 3 and each.etag and each.modified for each in found)


async def test_versions_and_delete_markers_are_walked(store: MemoryBackend):
    await _fill(store, ["a", "b"])
    found = [each async for each in walk_versions(store, Target(BUCKET))]
    assert [(each.key, each.is_latest, each.is_marker) for each in found] == [
        ("a", True, False),
        ("b", True, False),
    ]


async def test_a_listing_that_does_not_come_forward_is_refused(store: MemoryBackend):
    await _fill(store, ["a", "b"])

    class Stuck(CountingBackend):
        async def list(self, bucket: str, raw_query: str) -> bytes:
            page = await store.list(bucket, "list-type=2&encoding-type=url")
            return page.replace(b"<IsTruncated>false", b"<IsTruncated>true")

    with pytest.raises(BackendProtocolError, match="does not come forward"):
        async for _ in walk(Stuck(store), Target(BUCKET)):
            pass


@pytest.mark.parametrize("walking", [walk, walk_versions])
async def test_a_listing_that_says_there_is_more_and_not_where_is_refused(
    store: MemoryBackend, walking: Callable[..., AsyncIterator[object]]
):
    page = b"<R><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated></R>"
    name = b"ListBucketResult" if walking is walk else b"ListVersionsResult"

    class Cut(CountingBackend):
        async def list(self, bucket: str, raw_query: str) -> bytes:
            return page.replace(b"R>", name + b">")

    with pytest.raises(BackendProtocolError, match=r"breaks off|where it goes on"):
        async for _ in walking(Cut(store), Target(BUCKET)):
            pass


async def test_a_bucket_without_versioning_says_none(store: MemoryBackend):
    assert await versioning(store, BUCKET) is None


async def _numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def test_work_is_bounded_and_all_of_it_is_done():
    running = most = 0
    done: list[int] = []

    async def work(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(number)

    await each(_numbers(100), work, 7)
    assert sorted(done) == list(range(100))
    assert most == 7


async def test_the_first_failure_is_raised_as_it_is():
    async def work(number: int) -> None:
        if number == 3:
            raise BackendProtocolError("broken")

    with pytest.raises(BackendProtocolError, match="broken"):
        await each(_numbers(100), work, 2)


def test_a_target_is_cut_at_the_first_slash():
    assert Target.parse("b/x/y") == Target("b", "x/y")
    assert Target.parse("b/") == Target("b")
    for wrong in ("", "/x", "s3://b/x"):
        with pytest.raises(ValueError, match="BUCKET"):
            Target.parse(wrong)
