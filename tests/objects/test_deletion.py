"""Sidecars follow what is deleted, and no listing shows a directory that holds nothing else."""

import pytest

from s4gateway.backend.base import BackendAnswer, BackendError, BackendUnavailable
from s4gateway.backend.memory import MemoryBackend
from s4gateway.objects import deletion
from s4gateway.objects.deletion import Deletion
from s4gateway.objects.listing import ListRequest, visible_page
from tests import corpus
from tests.backends import Call, FaultyBackend
from tests.objects.versioned import VersionedBackend
from tests.objects.world import BUCKET, MIB, Instance

LARGE = [corpus.text(5 * MIB, seed=seed) for seed in (1, 2)]
NAME = (BUCKET, "dir/k")
SIDECAR = "dir/k.s4index"


async def listed(store: MemoryBackend) -> list[str]:
    request = ListRequest(2, delimiter="/")
    page = await visible_page(request, lambda query: store.list(BUCKET, query))
    return [each.key for each in page.contents] + list(page.common_prefixes)


async def version_of(store: VersionedBackend, place: int) -> str:
    return f"versionId={store.history['dir/k'][place].version_id}"


async def test_a_deleted_object_leaves_no_directory_behind_and_comes_back_with_its_sidecar():
    store = VersionedBackend()
    one = Instance(store)
    await one.put("dir/k", LARGE[0])
    await one.writer.delete(store, NAME)
    assert await listed(store) == []
    assert SIDECAR not in store.buckets[BUCKET]
    await one.writer.delete(store, NAME, await version_of(store, 0))
    assert await listed(store) == ["dir/"]
    assert await Instance(store).ranged("dir/k", 7, 5_000_000) == (LARGE[0][7:5_000_000], None)
    await one.close()


async def test_deleting_one_version_keeps_the_sidecar_of_the_other():
    store = VersionedBackend()
    one = Instance(store)
    for body in LARGE:
        await one.put("dir/k", body)
    await one.writer.delete(store, NAME, await version_of(store, 1))
    assert await Instance(store).ranged("dir/k", 7, 5_000_000) == (LARGE[1][7:5_000_000], None)
    await one.close()


async def test_a_version_that_becomes_current_again_is_read_right_without_a_sidecar_of_its_own():
    store = VersionedBackend()
    one = Instance(store)
    for body in LARGE:
        await one.put("dir/k", body)
    await one.writer.delete(store, NAME, await version_of(store, 0))
    for reader in (one, Instance(store)):
        assert await reader.get("dir/k") == LARGE[0]
        data, _ = await reader.ranged("dir/k", 4_000_000, 5_000_000)
        assert data == LARGE[0][4_000_000:5_000_000]
    await one.close()


async def test_the_last_version_takes_the_sidecar_out_of_sight():
    store = VersionedBackend()
    one = Instance(store)
    await one.put("dir/k", LARGE[0])
    await one.writer.delete(store, NAME, await version_of(store, 0))
    assert await listed(store) == []
    await one.close()


async def test_nothing_is_left_of_the_sidecar_when_nothing_is_left_of_the_object():
    store = VersionedBackend()
    one = Instance(store)
    await one.put("dir/k", LARGE[0])
    await one.put("dir/k1", LARGE[1])
    await one.writer.delete(store, NAME)
    await one.put("dir/k", LARGE[1])
    while "dir/k" in store.history:
        assert SIDECAR in store.history
        await one.writer.delete(store, NAME, await version_of(store, -1))
    assert sorted(store.history) == ["dir/k1", "dir/k1.s4index"]
    await one.close()


async def test_a_marker_and_all_versions_deleted_together_bring_nothing_back():
    store = VersionedBackend()
    one = Instance(store)
    await one.put("dir/k", LARGE[0])
    await one.writer.delete(store, NAME)
    done = []
    for _ in range(2):
        head = await store.delete(*NAME, query=await version_of(store, 0))
        marker = "x-amz-delete-marker" in head.headers
        done.append(Deletion(NAME, of_version=True, marker=marker, versioned=True))
    await deletion.follow(one.sidecars, done)
    assert store.history == {}
    await one.close()


async def test_what_has_no_sidecar_gets_no_delete_marker_for_one():
    store = VersionedBackend()
    one = Instance(store)
    await one.put("dir/k", b"small")
    await one.writer.delete(store, NAME)
    await one.writer.delete(store, NAME, await version_of(store, 0))
    await one.writer.delete(store, NAME, await version_of(store, 0))
    assert list(store.history) == []
    await one.close()


async def test_deleting_many_removes_their_sidecars_before_the_answer_for_one_request():
    store = FaultyBackend(MemoryBackend.with_buckets(BUCKET))
    one = Instance(store)
    for number in range(5):
        await one.put(f"dir/{number}", LARGE[0] if number < 3 else b"small")
    store.calls.clear()
    gone = [Deletion((BUCKET, f"dir/{n}"), False, False, False, None) for n in range(4)]
    await deletion.follow(one.sidecars, gone)
    assert [call.verb for call in store.calls] == ["delete_many"]
    assert sorted(store.inner.buckets[BUCKET]) == [f"dir/{n}" for n in range(5)]  # type: ignore[attr-defined]
    await one.close()


@pytest.mark.parametrize("fault", [BackendAnswer(403, "AccessDenied"), BackendUnavailable("down")])
@pytest.mark.parametrize("place", [None, 0, 1])
async def test_a_store_that_guards_sidecars_fails_no_deletion(
    fault: BackendError, place: int | None
):
    faulty = FaultyBackend(VersionedBackend())
    store = faulty.inner
    assert isinstance(store, VersionedBackend)
    one = Instance(faulty)
    for body in LARGE:
        await one.put("dir/k", body)

    def refuse(call: Call) -> Exception | None:
        return fault if call.key == SIDECAR or "s4index" in call.query else None

    faulty.fault = refuse
    query = "" if place is None else await version_of(store, place)
    await one.writer.delete(store, NAME, query)
    if place is None:
        await one.writer.delete(store, NAME, await version_of(store, 0))
    assert await one.get("dir/k") == LARGE[0 if place == 0 else 1]
    await one.close()
