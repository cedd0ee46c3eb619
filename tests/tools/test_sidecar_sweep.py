"""Sidecars nobody needs: found in every class, deleted only when asked, and only those judged."""

from dataclasses import dataclass

import pytest

from s4gateway.backend import base
from s4gateway.backend.base import BackendAnswer, BackendUnavailable
from s4gateway.backend.memory import MemoryBackend, MemoryStream
from s4gateway.s3 import xml
from s4gateway.s3.headers import Headers
from s4gateway.tools.sidecar_sweep import Orphan, Sweep, sweep_orphans
from s4gateway.wire import keys
from tests.backends import Call, FaultyBackend
from tests.objects import world
from tests.objects.versioned import VersionedBackend
from tests.objects.world import BUCKET

BODY = world.framed([b"some text " * 50] * 3)
OTHER = world.framed([b"written anew " * 50] * 4)
KINDS = {
    "gone": Orphan.PAIRED_MISSING,
    "overwritten": Orphan.PAIRED_ETAG_MISMATCH,
    "truncated": Orphan.PAIRED_SIZE_MISMATCH,
    "notes": Orphan.UNDECODABLE,
}
DECODABLE = {name for name, kind in KINDS.items() if kind is not Orphan.UNDECODABLE}


@pytest.fixture
def store() -> MemoryBackend:
    """A bucket with a pair that fits, one orphan of each kind, and names that only look alike."""
    store = MemoryBackend.with_buckets(BUCKET)
    etag = world.put_indexed(store, "paired", BODY)
    world.put_stored(store, "legacy", BODY.stored, BODY.metadata)
    world.put_sidecar(store, "legacy", BODY.index.encode())
    world.put_sidecar(store, "gone", BODY.index.bind(etag, len(BODY.stored)).encode())
    world.put_indexed(store, "overwritten", BODY)
    world.put_stored(store, "overwritten", BODY.stored, BODY.metadata, etag="0" * 32)
    world.put_indexed(store, "truncated", BODY)
    world.put_stored(store, "truncated", BODY.stored[:50], BODY.metadata)
    world.put_sidecar(store, "notes", b"a client's own notes about an index")
    world.put_stored(store, "s4index", b"not one")
    world.put_stored(store, ".s4index", b"of no key")
    world.put_stored(store, "a.s4index.txt", b"not one")
    return store


def swept(store: MemoryBackend) -> set[str]:
    """Names whose sidecar is gone."""
    names = {"paired", "legacy", *KINDS}
    return {name for name in names if keys.sidecar_key(name) not in store.buckets[BUCKET]}


async def test_a_dry_run_names_every_orphan_and_deletes_none(store: MemoryBackend):
    report = await sweep_orphans(store, Sweep(BUCKET))
    assert {each.key.removesuffix(".s4index"): each.kind for each in report.orphans} == KINDS
    assert (report.sidecars, report.paired, report.deleted) == (6, 2, 0)
    assert report.counts == {kind.value: 1 for kind in Orphan}
    assert not report.is_clean
    assert swept(store) == set()


async def test_deleting_leaves_what_is_paired_and_what_cannot_be_decoded(store: MemoryBackend):
    report = await sweep_orphans(store, Sweep(BUCKET, delete=True))
    assert swept(store) == DECODABLE
    assert (report.deleted, report.kept_undecodable, report.failed) == (3, 1, 0)
    assert report.is_clean
    assert any("client's own file" in note for note in report.notes)
    again = await sweep_orphans(store, Sweep(BUCKET, delete=True))
    assert (again.sidecars, again.deleted) == (3, 0)


async def test_undecodable_ones_go_when_that_is_asked_for(store: MemoryBackend):
    report = await sweep_orphans(store, Sweep(BUCKET, delete=True, delete_undecodable=True))
    assert swept(store) == set(KINDS)
    assert (report.deleted, report.kept_undecodable) == (4, 0)


async def test_objects_are_never_touched(store: MemoryBackend):
    before = {key for key in store.buckets[BUCKET] if not key.endswith(".s4index")}
    await sweep_orphans(store, Sweep(BUCKET, delete=True, delete_undecodable=True))
    assert {key for key in store.buckets[BUCKET] if not key.endswith(".s4index")} == before
    assert ".s4index" in store.buckets[BUCKET]


async def test_a_sidecar_written_anew_after_it_was_judged_stays(store: MemoryBackend):
    def race(call: Call) -> None:
        if (call.verb, call.key) == ("delete", "gone.s4index"):
            world.put_indexed(store, "gone", OTHER)

    report = await sweep_orphans(FaultyBackend(store, fault=race), Sweep(BUCKET, delete=True))
    assert "gone" not in swept(store)
    assert report.replaced == 1
    assert (await sweep_orphans(store, Sweep(BUCKET))).paired == 3


@pytest.mark.parametrize(
    "fault", [BackendAnswer(403, "AccessDenied"), BackendUnavailable("no answer")]
)
@pytest.mark.parametrize("verb", ["head", "delete"])
async def test_what_cannot_be_found_out_or_done_is_counted_and_left(
    store: MemoryBackend, verb: str, fault: Exception
):
    """A 403 about the object is no proof that there is none; Object Lock may refuse a deletion."""
    key = "gone" if verb == "head" else "gone.s4index"
    backend = FaultyBackend(
        store, fault=lambda call: fault if (call.verb, call.key) == (verb, key) else None
    )
    report = await sweep_orphans(backend, Sweep(BUCKET, delete=True))
    assert swept(store) == DECODABLE - {"gone"}
    assert [(each.key, each.op) for each in report.failures] == [
        ("gone.s4index", "read" if verb == "head" else "delete")
    ]
    assert not report.is_clean


async def test_a_bucket_that_cannot_be_listed_is_an_error(store: MemoryBackend):
    with pytest.raises(BackendAnswer, match="NoSuchBucket"):
        await sweep_orphans(store, Sweep("other"))


async def test_a_clean_bucket_is_clean():
    store = MemoryBackend.with_buckets(BUCKET)
    world.put_indexed(store, "paired", BODY)
    report = await sweep_orphans(store, Sweep(BUCKET))
    assert report.is_clean
    assert report.orphans == ()


@dataclass(eq=False)
class Enabled(VersionedBackend):
    """Says that versioning is on."""

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        if raw_query != "versioning=":
            return await super().forward(method, raw_path, raw_query, headers, body)
        answer = xml.document("VersioningConfiguration", xml.leaf("Status", "Enabled"))
        return MemoryStream(base.Head(200, Headers([])), answer)


async def _versions_left(store: Enabled, *, object_versions: int) -> int:
    for _ in range(object_versions):
        await store.put(BUCKET, "key", base.Body.of(BODY.stored))
    for _ in range(2):
        await store.put(BUCKET, "key.s4index", base.Body.of(BODY.index.encode()))
    if object_versions:
        await store.delete(BUCKET, "key")
    report = await sweep_orphans(store, Sweep(BUCKET, delete=True))
    assert report.deleted == 1
    assert any("versioning is Enabled" in note for note in report.notes)
    assert "key.s4index" not in store.buckets[BUCKET]
    return len(store.history.get("key.s4index", ()))


async def test_all_versions_of_a_sidecar_go_when_its_object_has_none_left():
    assert await _versions_left(Enabled(), object_versions=0) == 0


async def test_versions_of_a_sidecar_stay_behind_a_marker_while_its_object_has_some():
    assert await _versions_left(Enabled(), object_versions=2) == 3


async def test_versions_that_are_no_sidecars_stay_behind_a_marker():
    store = Enabled()
    await store.put(BUCKET, "key.s4index", base.Body.of(b"a client's own file, of long ago"))
    assert await _versions_left(store, object_versions=0) == 4
    deleted_too = Enabled()
    await deleted_too.put(BUCKET, "key.s4index", base.Body.of(BODY.index.encode()))
    await deleted_too.delete(BUCKET, "key.s4index")
    assert await _versions_left(deleted_too, object_versions=0) == 0


async def test_an_orphan_among_many_neighbours_is_deleted_all_the_same():
    store = Enabled()
    for number in range(60):
        await store.put(BUCKET, f"key-{number:02}", base.Body.of(b"x"))
    assert await _versions_left(store, object_versions=0) == 3


async def test_a_listing_of_versions_that_makes_no_sense_ends_no_sweep():
    class Garbled(Enabled):
        async def list(self, bucket: str, query: str) -> bytes:
            return b"<junk" if "versions=" in query else await super().list(bucket, query)

    assert await _versions_left(Garbled(), object_versions=0) == 3
