"""Objects come with their sidecars, whatever stands between them and wherever a page ends."""

from s4gateway.backend.base import Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.tools.stored_keys import Internal, StoredKey, stored_keys
from s4gateway.tools.target import Target
from tests.objects.versioned import VersionedBackend, as_seaweedfs
from tests.objects.world import BUCKET

Row = tuple[str, list[int], list[int]]


async def rows(store: MemoryBackend, prefix: str = "", *, versions: bool = False) -> list[Row]:
    """Each key with the sizes of its versions and of its sidecar's."""
    found = []
    async for each in stored_keys(store, Target(BUCKET, prefix), versions=versions):
        if isinstance(each, Internal):
            found.append((each.key, [stored.size for stored in each.versions], [-1]))
        else:
            assert isinstance(each, StoredKey)
            sizes = [[stored.size for stored in part] for part in (each.objects, each.sidecars)]
            found.append((each.key, *sizes))
    return found


async def fill(store: MemoryBackend, sizes: dict[str, int]) -> None:
    for key, size in sizes.items():
        await store.put(BUCKET, key, Body.of(b"x" * size))


async def test_an_object_comes_with_the_sidecar_that_follows_it():
    store = MemoryBackend.with_buckets(BUCKET)
    await fill(store, {"a": 5, "a.s4index": 2, "b": 7})
    assert await rows(store) == [("a", [5], [2]), ("b", [7], [])]


async def test_a_sidecar_behind_other_keys_comes_alone_with_the_name_of_its_object():
    store = MemoryBackend.with_buckets(BUCKET)
    await fill(store, {"a": 5, "a-1": 6, "a-1.s4index": 3, "a.s4index": 2})
    assert await rows(store) == [("a", [5], []), ("a-1", [6], [3]), ("a", [], [2])]


async def test_what_the_gateway_keeps_for_itself_is_told_apart():
    store = MemoryBackend.with_buckets(BUCKET)
    await fill(store, {".s4dict/0123456789abcdef": 9, ".s4mpu/75/create": 4, "x/.s4dict/y": 1})
    await fill(store, {".s4dict/0123456789abcdef.s4index": 1})
    assert await rows(store) == [
        (".s4dict/0123456789abcdef", [9], [-1]),
        (".s4dict/0123456789abcdef.s4index", [1], [-1]),
        (".s4mpu/75/create", [4], [-1]),
        ("x/.s4dict/y", [1], []),
    ]


async def test_a_prefix_takes_the_sidecars_of_what_is_below_it():
    store = MemoryBackend.with_buckets(BUCKET)
    await fill(store, {"a/1": 5, "a/1.s4index": 2, "b/1": 7})
    assert await rows(store, "a/") == [("a/1", [5], [2])]


async def test_all_versions_come_and_delete_markers_do_not():
    store = VersionedBackend()
    await fill(store, {"a": 5, "a.s4index": 2})
    await fill(store, {"a": 6})
    await store.delete(BUCKET, "a")
    assert await rows(store, versions=True) == [("a", [6, 5], [2])]


async def test_pages_lose_nothing_between_an_object_and_its_sidecar():
    store = VersionedBackend()
    names = [f"k{number:04}" for number in range(700)]
    for name in names:
        await fill(store, {name: 5, f"{name}.s4index": 2})
    assert await rows(store, versions=True) == [(name, [5], [2]) for name in names]


async def test_an_object_that_a_page_of_seaweedfs_leaves_out_is_asked_for():
    store = VersionedBackend(scan=as_seaweedfs)
    await fill(store, {f"a{number:03}": 1 for number in range(999)})
    await fill(store, {"k": 5, "k.s4index": 2, "z": 1})
    found = await rows(store, versions=True)
    assert ("k", [5], [2]) in found
    assert sum(len(objects) for _, objects, _ in found) == 1001


async def test_a_listed_object_is_not_asked_for_again_because_of_a_sidecar_far_behind():
    store = VersionedBackend()
    await fill(store, {"k": 5, "k-1": 1, "k-2": 1, "k.s4index": 2})
    found = await rows(store, versions=True)
    assert found == [("k", [5], []), ("k-1", [1], []), ("k-2", [1], []), ("k", [], [2])]
