"""Listings of versions: complete pages, nothing internal, logical sizes for few requests."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4gateway.backend.base import BackendAnswer
from s4gateway.backend.memory import StoredObject
from s4gateway.objects.version_listing import VersionRequest, VersionSizer, visible_versions
from s4gateway.s3.errors import S3Error
from s4gateway.s3.versions import VersionPage
from s4gateway.wire import keys
from tests import corpus
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.versioned import VersionedBackend, as_s3, as_seaweedfs
from tests.objects.world import BUCKET, Instance

ODD = "\x01\x1f\x7f&<>'\"%+ ~é\ufffd\U0001f5dc?#="
NAMES = st.text(st.sampled_from("ab/.s4" + ODD), min_size=1, max_size=6).filter(
    lambda name: not keys.is_hidden(name)
)
STORED = StoredObject(b"x", (), "9dd4e461268c8034f5c8564e155c67a6", world.EPOCH)
Entries = list[tuple[str, str]]


def filled(counts: dict[str, int], markers: set[str], scan: Callable[[str], bytes]):
    """A store with so many versions of each key, a delete marker on top of some."""
    store = VersionedBackend(scan=scan)
    for key, count in counts.items():
        for _ in range(count):
            store.add(key, STORED)
        if key in markers:
            store.add(key, None)
    return store


@st.composite
def stores(draw: st.DrawFn, names: st.SearchStrategy[str], scan: Callable[[str], bytes]):
    visible = draw(st.sets(names, max_size=8))
    share = draw(st.sampled_from([0, 5, 10]))
    counts = {key: draw(st.integers(1, 3)) for key in sorted(visible)}
    for key in sorted(visible):
        if draw(st.integers(0, 9)) < share:
            counts[keys.sidecar_key(key)] = draw(st.sampled_from([1, 2, 9]))
    for key in draw(st.sets(names, max_size=3)):
        if "/" not in key:  # a directory of orphans only is listed, empty as it is
            counts[keys.sidecar_key(key)] = 2
    for prefix in (".s4dict/", ".s4mpu/ab/"):
        for number in range(draw(st.sampled_from([0, 0, 1, 4]))):
            counts[f"{prefix}{number:05}"] = draw(st.integers(1, 2))
    markers = {key for key in counts if draw(st.integers(0, 3)) == 0}
    return filled(counts, markers, scan)


def expected(store: VersionedBackend, request: VersionRequest) -> tuple[Entries, list[str]]:
    """What S3 would list of a bucket that holds only the visible keys."""
    entries, prefixes = [], set()
    for key in sorted(store.history, key=str.encode):
        if keys.is_hidden(key) or not key.startswith(request.prefix):
            continue
        at = key.find(request.delimiter, len(request.prefix)) if request.delimiter else -1
        if at < 0:
            entries += [(key, each.version_id) for each in store.history[key]]
        else:
            prefixes.add(key[: at + len(request.delimiter)])
    return entries, sorted(prefixes, key=str.encode)


async def all_pages(store: VersionedBackend, request: VersionRequest) -> list[VersionPage]:
    """Every page, each asked for as a client would, of another instance."""
    pages: list[VersionPage] = []
    while True:
        page = await visible_versions(request, lambda query: store.list(BUCKET, query))
        pages.append(VersionPage.parse(replace(page, encoding_type="url").serialize()))
        assert len(pages) < 200
        if not page.is_truncated:
            return pages
        assert page.next_key_marker
        request = replace(
            request,
            key_marker=page.next_key_marker,
            version_id_marker=page.next_version_id_marker or "",
        )


async def check(store: VersionedBackend, request: VersionRequest) -> None:
    pages = await all_pages(store, request)
    entries = [(each.key, each.version_id) for page in pages for each in page.entries]
    prefixes = [prefix for page in pages for prefix in page.common_prefixes]
    assert (entries, prefixes) == expected(store, request)
    for page in pages:
        shown = len(page.entries) + len(page.common_prefixes)
        assert shown == request.max_keys if page.is_truncated else shown <= request.max_keys
        assert page.max_keys == request.max_keys
        assert page.prefix == request.prefix
        assert not keys.is_hidden(page.next_key_marker or "")


@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(
    store=stores(NAMES, as_s3),
    delimiter=st.sampled_from(["", "", "/", "/", ".", "s", "4", ".s4", "index", "a/", "&"]),
    prefix=st.sampled_from(["", "", "", "a", "a/", ".", ".s4", "b.s4", "&"]),
    max_keys=st.sampled_from([1, 2, 3, 7, 1000]),
)
async def test_pages_hold_every_visible_version_and_nothing_else(
    store: VersionedBackend, delimiter: str, prefix: str, max_keys: int
):
    await check(store, VersionRequest(prefix, delimiter, max_keys))


@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(
    # No visible key begins with another one: of such a pair SeaweedFS itself loses versions.
    store=stores(st.text(st.sampled_from("abyz"), min_size=2, max_size=2), as_seaweedfs),
    delimiter=st.sampled_from(["", "/"]),
    max_keys=st.sampled_from([1, 2, 3, 7, 1000]),
)
async def test_a_store_that_finds_sidecars_before_their_objects_loses_no_version(
    store: VersionedBackend, delimiter: str, max_keys: int
):
    await check(store, VersionRequest("", delimiter, max_keys))


@pytest.mark.parametrize("scan", [as_s3, as_seaweedfs])
@pytest.mark.parametrize("max_keys", [1, 2, 1000])
async def test_more_versions_of_a_sidecar_than_fit_a_page_are_passed_over(
    scan: Callable[[str], bytes], max_keys: int
):
    count = 1100 if scan is as_s3 else 400  # the most versions of one key that SeaweedFS gets past
    store = filled({"a": 2, "a.s4index": count, "b": 1, "c.s4index": count}, set(), scan)
    await check(store, VersionRequest(max_keys=max_keys))


@pytest.mark.parametrize("marker", [("a.s4index", ""), ("a.s4index", "v0001"), (".s4dict/1", "")])
async def test_a_listing_may_begin_behind_what_is_hidden(marker: tuple[str, str]):
    store = filled({"a": 1, "a.s4index": 2, "b": 1}, set(), as_s3)
    store.add(".s4dict/1", STORED)
    request = VersionRequest(key_marker=marker[0], version_id_marker=marker[1])
    page = await visible_versions(request, lambda query: store.list(BUCKET, query))
    assert [each.key for each in page.entries] == (["b"] if marker[0][0] == "a" else ["a", "b"])
    assert (page.key_marker, page.version_id_marker) == marker


async def test_long_internal_stretches_cost_few_requests():
    counts = {f".s4mpu/ab/{number:05}": 1 for number in range(10_000)}
    counts |= {f"k{number:03}": 1 for number in range(50)}
    counting = CountingBackend(filled(counts, set(), as_s3))
    request = VersionRequest(max_keys=10)
    page = await visible_versions(request, lambda query: counting.list(BUCKET, query))
    assert [each.key for each in page.entries] == [f"k{number:03}" for number in range(10)]
    assert len(counting.calls) <= 4


async def test_no_keys_asked_for_is_an_empty_last_page():
    store = filled({"a": 2}, set(), as_s3)
    page = await visible_versions(
        VersionRequest(max_keys=0), lambda query: store.list(BUCKET, query)
    )
    assert (page.entries, page.is_truncated, page.max_keys) == ((), False, 0)


async def test_an_internal_prefix_is_empty_whatever_lies_below_it():
    store = filled({f".s4mpu/ab/{number}": 1 for number in range(30)}, set(), as_s3)
    counting = CountingBackend(store)
    request = VersionRequest(".s4mpu/ab/", max_keys=3)
    page = await visible_versions(request, lambda query: counting.list(BUCKET, query))
    assert (page.entries, page.is_truncated) == ((), False)
    assert len(counting.calls) == 1


async def test_a_store_that_does_not_say_where_it_goes_on_is_an_error():
    async def fetch(query: str) -> bytes:
        return b"<ListVersionsResult><IsTruncated>true</IsTruncated></ListVersionsResult>"

    with pytest.raises(S3Error) as caught:
        await visible_versions(VersionRequest(), fetch)
    assert caught.value.code == "InternalError"


async def test_prefixes_nobody_asked_for_are_shown_and_not_looked_into():
    asked = []

    async def fetch(query: str) -> bytes:
        asked.append(query)
        return (
            b"<ListVersionsResult><CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>"
            b"</ListVersionsResult>"
        )

    page = await visible_versions(VersionRequest(), fetch)
    assert (page.common_prefixes, len(asked)) == (("a/",), 1)


class World:
    """A store with versions behind counters, and one instance over it."""

    def __init__(self, backend: CountingBackend | None = None) -> None:
        self.store = VersionedBackend()
        self.counting = backend or CountingBackend(self.store)
        self.counting.inner = self.store
        self.instance = Instance(self.counting)
        self.sizer = VersionSizer(self.instance.sizer, self.instance.attributes)

    async def sized(self) -> tuple[list[tuple[int | None, str | None]], int]:
        page = await visible_versions(
            VersionRequest(), lambda query: self.store.list(BUCKET, query)
        )
        self.counting.calls.clear()
        entries, hits, misses = await self.sizer.sized(BUCKET, page.entries)
        assert self.counting.count("head") == misses == len(self.counting.calls)
        assert hits + misses == len(entries)
        return [(each.size, each.etag) for each in entries], misses


async def test_every_version_shows_its_own_logical_size_and_etag():
    made = World()
    bodies = [corpus.text(size, seed=size) for size in (5000, 6000, 7000)] + [b""]
    for body in bodies:
        await made.instance.put("k", body)
    made.store.add("k", None)
    want = [(len(body), hashlib.md5(body).hexdigest()) for body in reversed(bodies)]
    assert await made.sized() == ([(None, None), *want], 3)
    assert await made.sized() == ([(None, None), *want], 0)


async def test_a_new_version_does_not_push_out_what_is_known_of_the_old_ones():
    made = World()
    for size in (5000, 6000):
        await made.instance.put("k", corpus.text(size))
    assert (await made.sized())[1] == 1  # the current one is known from writing it
    await made.instance.put("k", corpus.text(7000))
    found, misses = await made.sized()
    assert [size for size, _ in found] == [7000, 6000, 5000]
    assert misses == 1  # the one that has just become an old version
    assert (await made.sized())[1] == 0


async def test_a_version_that_cannot_be_looked_at_is_shown_as_listed():
    faulty = FaultyBackend(VersionedBackend())
    made = World(faulty)
    await made.instance.put("k", corpus.text(5000))
    await made.instance.put("k", corpus.text(6000))
    old = made.store.history["k"][1]
    assert old.stored is not None
    faulty.fault = lambda call: (
        BackendAnswer(403, "AccessDenied")
        if call == Call("head", BUCKET, "k", f"versionId={old.version_id}")
        else None
    )
    found, _ = await made.sized()
    assert found[1] == (len(old.stored.data), old.stored.etag)
