from collections.abc import Callable

import pytest

from s4gateway.backend.base import BackendAnswer, Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.wire.index import MAX_SIDECAR_BYTES
from tests import corpus
from tests.backends import CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.versioned import VersionedBackend, as_s3, as_seaweedfs
from tests.objects.world import BUCKET, Instance

NAME = (BUCKET, "k")


def indexed() -> tuple[MemoryBackend, world.Framed, str]:
    store = MemoryBackend.with_buckets(BUCKET)
    body = world.framed(world.cut(corpus.text(3000), 100))
    return store, body, world.put_indexed(store, "k", body)


async def test_an_index_is_fetched_once_for_each_version():
    store, body, etag = indexed()
    counting = CountingBackend(store)
    one = Instance(counting)
    assert one.sidecars.known(NAME, etag) is None
    for _ in range(2):
        index = await one.sidecars.load(NAME, etag, len(body.stored))
        assert index is not None
        assert tuple(index) == body.entries
    assert one.sidecars.known(NAME, etag) is index
    assert counting.count("get") == 1
    assert await one.sidecars.load(NAME, "other", len(body.stored)) is None
    assert await one.sidecars.load(NAME, "other", len(body.stored)) is None
    assert counting.count("get") == 2


async def test_that_there_is_none_is_remembered():
    counting = CountingBackend(MemoryBackend.with_buckets(BUCKET))
    one = Instance(counting)
    for _ in range(2):
        assert await one.sidecars.load(NAME, "e", 10) is None
    assert counting.count("get") == 1


async def test_an_index_bound_by_size_alone_is_believed_for_that_size():
    store, body, etag = indexed()
    world.put_sidecar(store, "k", body.index.bind(None, len(body.stored)).encode())
    assert await Instance(store).sidecars.load(NAME, etag, len(body.stored)) is not None
    assert await Instance(store).sidecars.load(NAME, etag, len(body.stored) + 1) is None


async def test_a_quoted_or_weak_etag_in_a_sidecar_is_the_same_etag():
    store, body, etag = indexed()
    for text in (f'"{etag}"', f'W/"{etag}"'):
        data = body.index.bind(etag, len(body.stored)).encode()
        raw = data.replace(etag.encode(), text.encode())
        raw = raw[:40] + len(text).to_bytes(4, "little") + raw[44:]
        world.put_sidecar(store, "k", raw)
        assert await Instance(store).sidecars.load(NAME, etag, len(body.stored)) is not None


async def test_a_large_sidecar_is_decoded_on_a_thread_and_one_too_large_is_not_read():
    store = MemoryBackend.with_buckets(BUCKET)
    body = world.framed(world.cut(bytes(4000), 1))
    etag = world.put_indexed(store, "k", body)
    assert len(world.stored_bytes(store, "k.s4index")) > 100_000
    index = await Instance(store).sidecars.load(NAME, etag, len(body.stored))
    assert index is not None
    assert len(index) == 4000
    world.put_sidecar(store, "k", bytes(MAX_SIDECAR_BYTES + 1))
    counting = CountingBackend(store)
    assert await Instance(counting).sidecars.load(NAME, etag, len(body.stored)) is None
    assert counting.received == 0


async def test_what_cannot_be_removed_is_left_for_later():
    store, _, _ = indexed()
    faulty = FaultyBackend(store)
    faulty.fault = lambda call: BackendAnswer(403, "AccessDenied")
    await Instance(faulty).sidecars.remove(NAME)
    assert "k.s4index" in store.buckets[BUCKET]


@pytest.mark.parametrize("scan", [as_s3, as_seaweedfs])
@pytest.mark.parametrize("between", [10, 60])
async def test_sidecars_stay_while_the_object_has_versions_however_a_page_is_cut(
    scan: Callable[[str], bytes], between: int
):
    store = VersionedBackend(scan=scan)
    for number in range(between):
        await store.put(BUCKET, f"log.t{number:03}", Body.of(b"x"))
    await store.put(BUCKET, "log", Body.of(b"old version"))
    await store.put(BUCKET, "log.s4index", Body.of(b"its index"))
    await store.delete(BUCKET, "log")
    instance = world.Instance(store)
    assert not await instance.sidecars.purge((BUCKET, "log"))
    await instance.close()
    assert len(store.history["log.s4index"]) == 1
