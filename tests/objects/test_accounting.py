"""What the ledger counts against what the store holds, after every kind of write."""

import asyncio
import contextlib
import fcntl
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from s4gateway.backend import base, multipart
from s4gateway.backend.base import BackendAnswer, BackendUnavailable
from s4gateway.backend.memory import MemoryBackend, MemoryStream
from s4gateway.objects.accounting import Deleted
from s4gateway.objects.copying import CopyOrder, ObjectCopier
from s4gateway.objects.deletion import Deletion
from s4gateway.s3 import xml
from s4gateway.s3.headers import Headers
from s4gateway.state import ledger as state_file
from s4gateway.state.live_ledger import LiveLedger
from s4gateway.state.shared_file import lock_path
from s4gateway.wire import keys
from tests import corpus
from tests.backends import CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.counted import (
    NOTHING,
    Hesitant,
    Losing,
    MemoryLedger,
    held_of,
    metadata_of,
    really_held,
)
from tests.objects.uploading import Process, StoppingBackend, wanted
from tests.objects.versioned import VersionedBackend
from tests.objects.world import BUCKET, MIB, Instance

T = TypeVar("T")
NAME = (BUCKET, "k")
LARGE = corpus.text(5 * MIB)
LARGER = corpus.text(6 * MIB, 2)


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger()


@pytest.fixture
async def one(store: MemoryBackend, ledger: MemoryLedger) -> AsyncIterator[Instance]:
    instance = Instance(store, ledger=ledger)
    yield instance
    await instance.close()


def copier(instance: Instance, **limits: int) -> ObjectCopier:
    return ObjectCopier(
        instance.backend,
        instance.sidecars,
        instance.attributes,
        instance.writer,
        instance.dictionaries,
        **limits,
    )


async def copy(
    instance: Instance, key: str, to: str, limits: dict[str, int] | None = None, **options: Any
) -> None:
    source = instance.source(key)
    attributes = await instance.reader.attributes(source)
    order = CopyOrder((BUCKET, to), **options)
    await copier(instance, **limits or {}).copy(source, attributes, order)


async def delete_many(instance: Instance, *names: str) -> None:
    """DeleteObjects as the handler has it done."""

    async def send() -> Deleted:
        await instance.backend.delete_many(BUCKET, names)
        return Deleted([Deletion((BUCKET, key), False, False, False) for key in names])

    targets = [(key, "") for key in names]
    await instance.writer.accounts.delete_many(BUCKET, targets, send)


def requests(backend: CountingBackend) -> list[tuple[str, str]]:
    found = [(each.verb, each.key) for each in backend.calls]
    backend.calls.clear()
    return found


# --- what a write costs


async def test_small_writes_of_keys_nobody_else_writes_cost_one_request_each(
    store: MemoryBackend, ledger: MemoryLedger
):
    counting = CountingBackend(store)
    one = Instance(counting, ledger=ledger)
    await one.put("first", b"asks once whether the bucket keeps versions")
    counting.calls.clear()
    for data in (b"new", b"again", b"", b"and again" * 100):
        await one.put("k", data)
    assert requests(counting) == [("put", "k")] * 4
    await one.writer.delete(counting, NAME)
    assert requests(counting) == [("head", "k"), ("delete", "k")]
    assert ledger.totals == really_held(store)
    assert ledger.objects == 1
    await one.close()


async def test_what_was_read_or_listed_is_overwritten_without_another_look(
    store: MemoryBackend, ledger: MemoryLedger
):
    await Instance(store, ledger=ledger).put("k", b"before")
    counting = CountingBackend(store)
    one = Instance(counting, ledger=ledger)
    await one.put("other", b"")
    await one.get("k")
    counting.calls.clear()
    await one.put("k", b"after")
    assert requests(counting) == [("put", "k")]
    assert ledger.totals == really_held(store)
    await one.close()


async def test_what_is_not_known_costs_one_look_and_a_body_of_several_frames_two_for_its_sidecar(
    store: MemoryBackend, ledger: MemoryLedger
):
    await Instance(store, ledger=ledger).put("k", LARGE)
    counting = CountingBackend(store)
    one = Instance(counting, ledger=ledger)
    await one.put("other", b"")
    counting.calls.clear()
    await one.put("k", LARGER)
    assert requests(counting) == [
        ("head", "k"),
        ("put", "k"),
        ("head", "k.s4index"),
        ("put", "k.s4index"),
        ("head", "k"),
    ]
    await one.put("k", b"small")
    assert requests(counting) == [("put", "k"), ("head", "k.s4index"), ("delete", "k.s4index")]
    assert sorted(store.buckets[BUCKET]) == ["k", "other"]
    assert ledger.totals == really_held(store)
    await one.close()


@dataclass(eq=False)
class Recording(CountingBackend):
    """Keeps the headers of writes, too."""

    def __post_init__(self) -> None:
        self.headers: list[str] = []

    async def put(
        self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
    ) -> base.Head:
        self.headers += [name for name, _ in headers]
        return await super().put(bucket, key, body, headers)


async def test_without_a_ledger_nothing_is_marked_and_nothing_more_is_asked(store: MemoryBackend):
    recording = Recording(store)
    one = Instance(recording)
    for data in (b"new", b"again"):
        await one.put("k", data)
    await one.put("k", LARGE)
    await one.put("k", b"small")
    assert requests(recording) == [
        ("put", "k"),
        ("put", "k"),
        ("put", "k"),
        ("put", "k.s4index"),
        ("put", "k"),
        ("delete", "k.s4index"),
    ]
    await one.writer.delete(recording, NAME)
    await one.sidecars.removals.flush()
    assert requests(recording) == [("delete", "k"), ("delete_many", "k.s4index")]
    await one.put("a", LARGE)
    await copy(one, "a", "b")
    await copy(one, "a", "c", description=[("x-amz-meta-new", "1")])
    assert requests(recording) == [
        ("put", "a"),
        ("put", "a.s4index"),
        ("head", "a"),
        ("forward PUT", "/bucket/b"),
        ("put", "b.s4index"),
        ("head", "a"),
        ("forward PUT", "/bucket/c"),
        ("put", "c.s4index"),
    ]
    await delete_many(one, "b", "c")
    assert requests(recording) == [
        ("delete_many", "b,c"),
        ("delete_many", "b.s4index,c.s4index"),
    ]
    await one.close()
    assert "x-amz-meta-s4-ledger" not in recording.headers
    assert [metadata_of(each).get("s4-ledger") for each in store.buckets[BUCKET].values()] == [
        None,
        None,
    ]


@dataclass(eq=False)
class Overtaken(CountingBackend):
    """Before the store gets to the next PUT of `key`, something else happens."""

    key: str = "k"
    meanwhile: Callable[[], Coroutine[Any, Any, object]] | None = None

    async def put(
        self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
    ) -> base.Head:
        if key == self.key and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return await super().put(bucket, key, body, headers)


async def test_what_only_adds_is_on_its_way_to_the_disk_while_the_store_works(
    store: MemoryBackend, ledger: MemoryLedger
):
    backend = Overtaken(store)
    one = Instance(backend, ledger=ledger)
    await one.put("other", b"finds out what the store decides")
    seen: list[tuple[tuple[int, int, int], int]] = []

    async def look() -> None:
        seen.append((ledger.totals, ledger.begun))

    applied, begun = ledger.applied, ledger.begun
    backend.meanwhile = look
    await one.put("k", b"new")
    assert seen == [(really_held(store), begun + 1)]
    backend.meanwhile = look
    before = ledger.totals
    await one.put("k", b"a replacement takes something away, which must have happened")
    assert seen[1:] == [(before, begun + 1)]
    assert ledger.applied == applied + 2
    assert ledger.totals == really_held(store)
    await one.close()


@pytest.mark.parametrize("fails", ["refused", "silent", "another was first"])
async def test_what_was_expected_and_did_not_come_is_taken_back_before_anybody_hears_of_it(
    store: MemoryBackend, ledger: MemoryLedger, fails: str
):
    backend = Overtaken(store)
    one = Instance(backend, ledger=ledger)
    await one.put("other", b"finds out what the store decides")
    runs: list[tuple[int, bool]] = []

    async def refuse() -> None:
        raise BackendAnswer(503, "SlowDown")

    async def drop() -> None:
        backend.meanwhile = drop
        raise BackendUnavailable("reset")

    async def overtake() -> None:
        await Instance(store, ledger=ledger).put("k", b"not known to the other")

    async def settled(run: int) -> None:
        runs.append((run, ledger.totals == really_held(store)))

    ledger.settled = settled  # type: ignore[method-assign]
    begun = ledger.begun
    backend.meanwhile = {"refused": refuse, "silent": drop, "another was first": overtake}[fails]
    if fails == "silent":
        with pytest.raises(BackendUnavailable):
            await one.put("k", b"new")
    else:
        await one.put("k", b"new")
    assert ledger.begun > begun
    assert runs[-1:] == [(ledger.applied, True)]
    assert ledger.totals == really_held(store)
    assert ledger.skipped == 0
    backend.meanwhile = None
    await one.close()


# --- what is counted


async def test_an_object_without_the_mark_leaves_a_tally_and_nothing_else(
    store: MemoryBackend, ledger: MemoryLedger, one: Instance
):
    forged = {"s4-original-size": "1000000", "s4-ledger": "yes"}
    world.put_stored(store, "k", b"written behind our back", forged)
    await one.put("k", b"ours")
    assert (ledger.skipped, ledger.objects) == (1, 1)
    assert ledger.totals == really_held(store)
    world.put_stored(store, "other", b"and this", forged)
    await one.writer.delete(store, (BUCKET, "other"))
    assert ledger.skipped == 2
    assert ledger.totals == really_held(store)


async def test_empty_objects_count_as_objects(
    store: MemoryBackend, ledger: MemoryLedger, one: Instance
):
    await one.put("k", b"")
    assert ledger.totals == (0, 0, 1)
    await one.put("k", b"", known=False)
    assert ledger.totals == (0, 0, 1)
    await one.writer.delete(store, NAME)
    assert (ledger.totals, ledger.skipped) == (NOTHING, 0)


async def test_what_lies_under_a_customers_key_is_not_counted(
    store: MemoryBackend, ledger: MemoryLedger, one: Instance
):
    await one.put("k", b"before")
    encoded = await one.encode(b"secret")
    headers = [("x-amz-server-side-encryption-customer-algorithm", "AES256")]
    await one.writer.store(store, NAME, encoded, headers)
    assert ledger.totals == really_held(store) == NOTHING
    faulty = FaultyBackend(store)  # HEAD without the key is a bad request
    refusal = BackendAnswer(400, "InvalidRequest")
    faulty.fault = lambda call: refusal if call.verb == "head" else None
    other = Instance(faulty, ledger=ledger)
    await other.put("k", b"after")
    assert (ledger.objects, ledger.skipped) == (1, 1)
    assert ledger.totals == really_held(store)
    await other.close()


async def test_copies_are_counted_as_their_sources_are(
    store: MemoryBackend, ledger: MemoryLedger, one: Instance
):
    await one.put("ours", LARGE)
    world.put_stored(store, "foreign", b"behind our back")
    replaced = [("x-amz-meta-new", "1")]
    for source, count in (("ours", 1), ("foreign", 0)):
        for description in (None, replaced):
            before = ledger.objects
            await copy(one, source, "copy", description=description)
            assert ledger.totals == really_held(store)
            await one.writer.delete(store, (BUCKET, "copy"))
            assert ledger.totals == really_held(store)
            assert metadata_of(store.buckets[BUCKET][source]).get("s4-ledger") == (
                "1" if count else None
            )
            assert ledger.objects == before
    assert ledger.objects == 1
    assert ledger.skipped == 2


@pytest.mark.parametrize("description", [None, [("x-amz-meta-new", "1")]])
async def test_a_copy_in_parts_and_a_copy_onto_another_are_swaps(
    store: MemoryBackend,
    ledger: MemoryLedger,
    one: Instance,
    description: list[tuple[str, str]] | None,
):
    noise = corpus.noise(12 * MIB)
    await one.put("a", noise)
    await one.put("b", LARGE)
    limits = {"largest": 6 * MIB, "part_size": 5 * MIB}
    await copy(one, "a", "b", limits, description=description)
    assert ledger.totals == really_held(store)
    assert (ledger.original, ledger.objects) == (2 * len(noise), 2)
    await copy(one, "b", "b", description=[("x-amz-meta-new", "2")])
    assert ledger.totals == really_held(store)
    await delete_many(one, "a", "b", "never was")
    assert (ledger.totals, ledger.skipped) == (NOTHING, 0)
    assert store.buckets[BUCKET] == {}


async def test_a_copy_without_a_ledger_leaves_the_mark_behind_where_metadata_are_replaced(
    store: MemoryBackend, one: Instance
):
    await one.put("a", b"counted")
    plain = Instance(store)
    await copy(plain, "a", "b", description=[])
    assert "s4-ledger" not in metadata_of(store.buckets[BUCKET]["b"])
    await plain.close()


async def test_uploads_in_parts_count_when_they_are_complete(
    store: MemoryBackend, ledger: MemoryLedger
):
    store.uploads.min_part = 1
    process = Process(store, ledger=ledger)
    await process.instance.put("k", LARGE)
    for bodies in ([b"x"], [LARGE, b"the end"], [LARGE, LARGER]):
        upload = await process.begin("k")
        before = ledger.totals
        facts = [await process.send(upload, at, body) for at, body in enumerate(bodies, 1)]
        assert ledger.totals == before
        await process.complete(wanted(upload, *facts))
        assert ledger.totals == really_held(store)
        assert (ledger.original, ledger.objects) == (sum(map(len, bodies)), 1)
    await process.instance.writer.delete(store, NAME)
    assert (ledger.totals, ledger.skipped) == (NOTHING, 0)
    await process.close()


async def test_an_upload_begun_without_a_ledger_is_not_counted(
    store: MemoryBackend, ledger: MemoryLedger
):
    begun = Process(store)
    upload = await begun.begin("k")
    facts = await begun.send(upload, 1, LARGE)
    process = Process(store, ledger=ledger)
    await process.instance.put("k", b"counted, and replaced")
    await process.complete(wanted(upload, facts))
    assert ledger.totals == really_held(store) == NOTHING
    await process.close()
    await begun.close()


async def test_a_completion_done_again_is_not_counted_again(
    store: MemoryBackend, ledger: MemoryLedger
):
    process, other = Process(store, ledger=ledger), Process(store, ledger=ledger)
    upload = await process.begin("k")
    facts = await process.send(upload, 1, LARGE)
    await process.complete(wanted(upload, facts))
    for each in (process, other):
        await each.complete(wanted(upload, facts))
        assert ledger.totals == really_held(store)
    assert ledger.objects == 1
    await process.close()
    await other.close()


async def test_a_completion_taken_up_after_a_kill_adds_no_object_that_may_have_been_added(
    store: MemoryBackend, ledger: MemoryLedger, caplog: pytest.LogCaptureFixture
):
    sending = Process(store, ledger=ledger)
    upload = await sending.begin("k")
    facts = await sending.send(upload, 1, LARGE)
    for at in range(1, 30):
        stopping = StoppingBackend(store, at, after=True)
        killed = Process(stopping, ledger=ledger)
        with contextlib.suppress(BackendUnavailable):
            await killed.complete(wanted(upload, facts))
        await killed.close()
        if "k" in store.buckets[BUCKET]:
            break
    assert (ledger.totals, "k.s4index" in store.buckets[BUCKET]) == (NOTHING, False)
    other = Process(store, ledger=ledger)
    await other.complete(wanted(upload, facts))
    assert "counted perhaps not" in caplog.text
    sidecar = len(store.buckets[BUCKET]["k.s4index"].data)
    assert ledger.totals == (0, sidecar, 0)
    await other.close()
    await sending.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_completion_passed_on_takes_away_what_it_replaces_if_it_succeeds(
    store: MemoryBackend, ledger: MemoryLedger, one: Instance, fails: bool
):
    await one.put("k", LARGE)
    before = ledger.totals

    async def send() -> base.ObjectStream:
        if fails:
            document = b"<Error><Code>InternalError</Code></Error>"
            return MemoryStream(base.Head(200, Headers([])), document)
        _, document = await multipart.create(store, BUCKET, "k", [])
        upload = multipart.Upload(BUCKET, "k", "memory-1")
        part = await multipart.put_part(store, upload, 1, base.Body.of(b"raw"))
        listed = f'<Part><PartNumber>1</PartNumber><ETag>"{part.etag}"</ETag></Part>'
        body = base.Body.of(f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode())
        return await store.forward("POST", "/bucket/k", "uploadId=memory-1", [], body)

    async with await one.writer.accounts.replace_raw(NAME, send) as stream:
        assert (b"Error" in await stream.read(10_000)) is fails
    assert ledger.totals == really_held(store) == (before if fails else NOTHING)
    assert ("k.s4index" in store.buckets[BUCKET]) is fails


# --- failures


@pytest.mark.parametrize("error", [BackendAnswer(403, "AccessDenied"), BackendUnavailable("down")])
@pytest.mark.parametrize("body", [b"small", LARGER])
async def test_what_the_store_did_not_take_is_not_counted(
    store: MemoryBackend, ledger: MemoryLedger, error: Exception, body: bytes
):
    faulty = FaultyBackend(store)
    one = Instance(faulty, ledger=ledger)
    await one.put("k", LARGE)
    before = ledger.totals
    faulty.fault = lambda call: error if call.verb in {"put", "delete"} else None
    for instance in (one, Instance(faulty, ledger=ledger)):
        with pytest.raises(type(error)):
            await instance.put("k", body)
        with pytest.raises(type(error)):
            await instance.writer.delete(faulty, NAME)
    assert ledger.totals == really_held(store) == before
    faulty.fault = lambda _: None
    await one.put("k", body)
    assert ledger.totals == really_held(store)
    await one.close()


@pytest.mark.parametrize("body", [b"small", LARGER, b""])
@pytest.mark.parametrize("decides", [True, False])
@pytest.mark.parametrize("losses", [1, 2, 9])
async def test_a_lost_answer_loses_no_byte(
    store: MemoryBackend, ledger: MemoryLedger, body: bytes, decides: bool, losses: int
):
    losing = Losing(store)
    one = Instance(losing, ledger=ledger, conditional_writes=decides)
    for before in (None, b"old", LARGE):
        if before is not None:
            await one.put("k", before)
        losing.lost = [NAME] * losses
        try:
            await one.put("k", body)
        except BackendUnavailable:
            assert losses > 1 or not decides
        losing.lost = []
        assert ledger.totals == really_held(store)
        losing.lost = [NAME] * losses
        try:
            await one.writer.delete(losing, NAME)
        except BackendUnavailable:
            assert losses > 1 or not decides
        losing.lost = []
        await one.writer.delete(losing, NAME)
        assert really_held(store) == ledger.totals
        assert ledger.objects == 0
    await one.close()


async def test_a_sidecar_whose_answer_was_lost_is_counted_and_one_that_stays_goes_on_to_be(
    store: MemoryBackend, ledger: MemoryLedger
):
    losing = Losing(store, lost=[(BUCKET, "k.s4index")] * 9)
    one = Instance(losing, ledger=ledger)
    await one.put("k", LARGE)
    assert "k.s4index" in store.buckets[BUCKET]
    assert ledger.totals == really_held(store)
    losing.lost = []
    faulty = FaultyBackend(store)
    faulty.fault = lambda call: (
        BackendAnswer(403, "AccessDenied")
        if call.verb == "delete" and call.key.endswith(".s4index")
        else None
    )
    other = Instance(faulty, ledger=ledger)
    await other.put("k", b"small")
    assert "k.s4index" in store.buckets[BUCKET]
    assert ledger.totals == really_held(store)
    await one.put("k", LARGER)
    assert ledger.totals == really_held(store)
    await one.writer.delete(losing, NAME)
    assert ledger.totals == really_held(store) == NOTHING
    await one.close()
    await other.close()


async def test_a_store_that_tells_nothing_about_what_is_there_takes_writes_all_the_same(
    store: MemoryBackend, ledger: MemoryLedger
):
    world.put_stored(store, "k", b"there before")
    faulty = FaultyBackend(store)
    faulty.fault = lambda call: BackendAnswer(403, "AccessDenied") if call.verb == "head" else None
    one = Instance(faulty, ledger=ledger)
    encoded = await one.encode(b"asked for")
    pinned = [("if-match", f'"{store.buckets[BUCKET]["k"].etag}"')]
    await one.writer.store(faulty, NAME, encoded, pinned)
    for body in (b"small", LARGE):
        await one.put("k", body)
        assert await Instance(store).get("k") == body
        puts = [each for each in requests(faulty) if each == ("put", "k")]
        assert len(puts) <= 2
    await one.close()


async def test_a_bucket_deleted_behind_our_back_fails_the_write_and_changes_nothing(
    store: MemoryBackend, ledger: MemoryLedger, one: Instance
):
    await one.put("k", LARGE)
    before = ledger.totals
    del store.buckets[BUCKET]
    for body in (b"small", LARGE):
        with pytest.raises(BackendAnswer, match="NoSuchBucket"):
            await one.put("k", body)
    with pytest.raises(BackendAnswer, match="NoSuchBucket"):
        await one.writer.delete(store, NAME)
    assert ledger.totals == before


async def test_a_client_that_leaves_leaves_a_write_that_is_counted(
    store: MemoryBackend, ledger: MemoryLedger
):
    slow = Slow(store)
    one = Instance(slow, ledger=ledger)
    encoded = await one.encode(LARGE, known=False)
    task = asyncio.get_running_loop().create_task(one.writer.store(slow, NAME, encoded, []))
    await slow.entered.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done()
    slow.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    encoded.close()
    assert ledger.totals == really_held(store)
    assert ledger.objects == 1
    assert await Instance(store).get("k") == LARGE
    await one.close()


@dataclass(eq=False)
class Slow(CountingBackend):
    """Stores nothing before it is told to."""

    def __post_init__(self) -> None:
        self.entered, self.go = asyncio.Event(), asyncio.Event()

    async def put(
        self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
    ) -> base.Head:
        self.entered.set()
        await self.go.wait()
        return await super().put(bucket, key, body, headers)


class Silent:
    """Whom a ledger tells of failures that must not happen."""

    def flush_failed(self) -> None:
        raise AssertionError

    def load_failed(self, reason: str) -> None:
        raise AssertionError(reason)


async def test_a_write_that_changes_nothing_waits_for_what_another_has_left_to_be_written(
    store: MemoryBackend, tmp_path: Path
):
    path = tmp_path / "ledger.json"
    live = LiveLedger(path, Silent())
    one = Instance(store, ledger=live)
    await one.put("other", b"finds out what the store decides")
    with lock_path(path).open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)  # no write gets to the disk
        leaving = asyncio.ensure_future(one.put("k", b"body"))
        while "k" not in store.buckets[BUCKET]:  # noqa: ASYNC110 - a store tells nobody
            await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        again = asyncio.ensure_future(one.put("k", b"body"))
        answered, _ = await asyncio.wait([again], timeout=0.3)
        assert not answered
        fcntl.flock(holder, fcntl.LOCK_UN)
    await again
    found = state_file.load(path)
    assert found is not None
    assert found[BUCKET].objects == 2
    await live.close()
    await one.close()


# --- versions


@dataclass(eq=False)
class Keeping(VersionedBackend):
    """Keeps versions, and says `status` when it is asked."""

    status: str = "Enabled"

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        if raw_query == "versioning=":
            status = xml.leaf("Status", self.status)
            document = xml.document("VersioningConfiguration", status)
            return MemoryStream(base.Head(200, Headers([])), document)
        return await super().forward(method, raw_path, raw_query, headers, body)

    def held(self) -> tuple[int, int, int]:
        return held_of(
            [
                (key, each.stored)
                for key, versions in self.history.items()
                for each in versions
                if each.stored is not None
            ]
        )


async def test_versions_add_up_and_go_one_by_one(ledger: MemoryLedger):
    store = Keeping()
    counting = CountingBackend(store)
    one = Instance(counting, ledger=ledger)
    bodies = [b"first", LARGE, b"third", LARGER, b""]
    for body in bodies:
        await one.put("k", body)
        assert ledger.totals == store.held()
    assert counting.count("head") == 0
    assert (ledger.original, ledger.objects) == (sum(map(len, bodies)), 5)
    await one.writer.delete(counting, NAME)
    assert ledger.totals == store.held()
    dice = random.Random(3)
    while store.history.get("k"):
        version = dice.choice(store.history["k"]).version_id
        await one.writer.delete(counting, NAME, f"versionId={version}")
        assert ledger.totals == store.held()
    await one.writer.delete(counting, NAME, "versionId=v0001")
    assert (ledger.totals, ledger.skipped) == (NOTHING, 0)
    assert store.history == {}
    await one.close()


async def test_the_answer_to_a_write_overrules_what_was_believed_of_the_bucket(
    ledger: MemoryLedger,
):
    store = Keeping(status="")
    one = Instance(store, ledger=ledger)
    for body in (b"first", LARGE, LARGER, b"last"):  # believed to replace each other
        await one.put("k", body)
        assert ledger.totals == store.held()
    assert ledger.objects == 4
    await one.close()


async def test_sidecars_of_versions_that_were_never_counted_are_not_taken_away(
    ledger: MemoryLedger,
):
    store = Keeping()
    await Instance(store).put("k", LARGE)
    one = Instance(store, ledger=ledger)
    await one.put("k", LARGER)
    while store.history.get("k"):
        version = store.history["k"][0].version_id
        await one.writer.delete(store, NAME, f"versionId={version}")
        assert ledger.totals == store.held()
    assert (ledger.totals, ledger.skipped) == (NOTHING, 1)
    assert store.history == {}
    await one.close()


# --- together


@pytest.mark.parametrize("decides", [True, False])
async def test_writers_of_one_key_in_one_process_never_take_the_same_object_away_twice(
    store: MemoryBackend, ledger: MemoryLedger, decides: bool
):
    one = Instance(Hesitant(store), ledger=ledger, conditional_writes=decides)
    await churn(store, ledger, [one])


async def test_writers_of_one_key_in_two_processes_never_do_where_the_store_decides(
    store: MemoryBackend, ledger: MemoryLedger
):
    instances = [Instance(Hesitant(store), ledger=ledger) for _ in range(2)]
    await churn(store, ledger, instances)


@pytest.mark.parametrize("act", ["overwritten", "deleted", "overwritten with frames"])
async def test_a_sidecar_that_comes_after_its_object_has_gone_goes_too(
    store: MemoryBackend, ledger: MemoryLedger, act: str
):
    other = Instance(store, ledger=ledger)
    backend = Overtaken(store, key="k" + keys.SIDECAR_SUFFIX)
    one = Instance(backend, ledger=ledger)
    acts: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "overwritten": lambda: other.put("k", b"small"),
        "deleted": lambda: other.writer.delete(store, NAME),
        "overwritten with frames": lambda: other.put("k", LARGER),
    }
    backend.meanwhile = acts[act]
    await one.put("k", LARGE)
    assert backend.meanwhile is None
    assert ledger.totals == really_held(store)
    left = {"overwritten": ["k"], "deleted": [], "overwritten with frames": ["k"]}
    assert sorted(store.buckets[BUCKET]) == left[act]
    await other.writer.delete(store, NAME)
    assert (ledger.totals, ledger.skipped) == (NOTHING, 0)
    assert really_held(store) == NOTHING
    await one.close()
    await other.close()


async def churn(store: MemoryBackend, ledger: MemoryLedger, instances: list[Instance]) -> None:
    dice = random.Random(11)
    bodies = [b"", b"x", corpus.text(3000), corpus.noise(9000), LARGE]

    def work() -> Coroutine[Any, Any, object]:
        one, key = dice.choice(instances), dice.choice(["a", "b"])
        if dice.random() < 0.3:
            return one.writer.delete(one.backend, (BUCKET, key))
        return one.put(key, dice.choices(bodies, [5, 5, 5, 5, 1])[0])

    for _ in range(5):
        await asyncio.gather(*(work() for _ in range(40)))
        assert ledger.totals == really_held(store)
    for key in ("a", "b"):
        await instances[0].writer.delete(store, (BUCKET, key))
    assert (ledger.totals, ledger.skipped) == (NOTHING, 0)
    for one in instances:
        await one.close()


BODIES = {
    "empty": b"",
    "tiny": b"x",
    "small": corpus.text(3000),
    "noise": corpus.noise(70_000),
    "large": LARGE,
}
KEYS = st.sampled_from(["a", "a.s4", "b"])


class Churn(RuleBasedStateMachine):
    """Two gateways over one store and one ledger, and writes behind them where nothing counts."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = MemoryBackend.with_buckets(BUCKET)
        self.store.uploads.min_part = 1
        self.ledger = MemoryLedger()
        self.processes = [Process(self.store, ledger=self.ledger) for _ in range(2)]
        self.sizes: dict[str, int] = {}  # of what is counted, as clients sent it

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    which = st.integers(0, 1)
    body = st.sampled_from(sorted(BODIES))

    @rule(key=KEYS, body=body, which=which, known=st.booleans())
    def put(self, key: str, body: str, which: int, known: bool) -> None:
        self.run(self.processes[which].instance.put(key, BODIES[body], known=known))
        self.sizes[key] = len(BODIES[body])

    @rule(key=KEYS, bodies=st.lists(body, min_size=1, max_size=3), which=which)
    def put_at_once(self, key: str, bodies: list[str], which: int) -> None:
        async def work() -> None:
            writers = [self.processes[(which + at) % 2].instance for at in range(len(bodies))]
            pairs = zip(writers, bodies, strict=True)
            await asyncio.gather(*(each.put(key, BODIES[body]) for each, body in pairs))

        self.run(work())
        self.sizes[key] = held_of([(key, self.store.buckets[BUCKET][key])])[0]

    @rule(key=KEYS, before=st.integers(0, 2), last=body, which=which)
    def upload(self, key: str, before: int, last: str, which: int) -> None:
        process, bodies = self.processes[which], ["large"] * before + [last]

        async def work() -> None:
            upload = await process.begin(key)
            facts = [
                await process.send(upload, at, BODIES[body]) for at, body in enumerate(bodies, 1)
            ]
            await process.complete(wanted(upload, *facts))

        self.run(work())
        self.sizes[key] = sum(len(BODIES[body]) for body in bodies)

    @rule(source=KEYS, key=KEYS, which=which, replaces=st.booleans())
    def copy(self, source: str, key: str, which: int, replaces: bool) -> None:
        if source not in self.store.buckets[BUCKET] or (source == key and not replaces):
            return
        description = [("x-amz-meta-a", "b")] if replaces else None
        self.run(copy(self.processes[which].instance, source, key, description=description))
        if source in self.sizes:
            self.sizes[key] = self.sizes[source]
        else:
            self.sizes.pop(key, None)

    @rule(key=KEYS, which=which)
    def delete(self, key: str, which: int) -> None:
        self.run(self.processes[which].instance.writer.delete(self.store, (BUCKET, key)))
        self.sizes.pop(key, None)

    @rule(names=st.lists(KEYS, min_size=1, max_size=4), which=which)
    def delete_many(self, names: list[str], which: int) -> None:
        self.run(delete_many(self.processes[which].instance, *names))
        for key in names:
            self.sizes.pop(key, None)

    @rule(key=KEYS)
    def write_behind_both(self, key: str) -> None:
        if key not in self.sizes:
            world.put_stored(self.store, key, b"foreign")

    @rule(key=KEYS, which=which)
    def read(self, key: str, which: int) -> None:
        if key in self.store.buckets[BUCKET]:
            self.run(self.processes[which].instance.get(key))

    @rule(which=which)
    def restart(self, which: int) -> None:
        self.run(self.processes[which].close())
        self.processes[which] = Process(self.store, ledger=self.ledger)

    @invariant()
    def every_byte_is_counted(self) -> None:
        assert self.ledger.totals == really_held(self.store)
        assert self.ledger.original == sum(self.sizes.values())
        assert self.ledger.objects == len(self.sizes)

    def teardown(self) -> None:
        for key in ("a", "a.s4", "b"):
            self.delete(key, 0)
        assert self.ledger.totals == NOTHING
        for process in self.processes:
            self.run(process.close())
        left = [key for key in self.store.buckets[BUCKET] if not key.startswith(keys.PARTS_PREFIX)]
        assert left == []
        self.runner.close()


Churn.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)
TestChurn = Churn.TestCase
