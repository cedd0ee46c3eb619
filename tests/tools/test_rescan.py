"""What a scan counts, what it leaves out, how it compares, and when it may correct the ledger."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from s4gateway.backend.base import BackendAnswer, BackendUnavailable, Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.state import ledger
from s4gateway.state.files import StateFileParse
from s4gateway.state.ledger import Counters
from s4gateway.tools.rescan import LedgerMoved, Rescan, RescanReport, rescan
from s4gateway.tools.storage_classes import CLASSES
from s4gateway.tools.target import Target
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import tailed, world
from tests.objects.versioned import VersionedBackend
from tests.objects.world import BUCKET

MIB = 1024 * 1024
MARK = {"s4-ledger": "1"}
LARGE = world.framed([b"l" * MIB] * 5)  # of more than one frame
SMALL = world.framed([b"small " * 1000])
SIDECAR = len(LARGE.index.bind("0" * 32, 1).encode())


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


def whole(*files: Path, **options: object) -> Rescan:
    return Rescan(Target(BUCKET), state_files=files, **options)  # type: ignore[arg-type]


def put_marked(store: MemoryBackend, key: str, body: world.Framed) -> None:
    world.put_stored(store, key, body.stored, body.metadata | MARK)


def put_large(store: MemoryBackend, key: str, *, marked: bool = True) -> None:
    world.put_indexed(store, key, LARGE, LARGE.metadata | (MARK if marked else {}))


def state(path: Path, **counters: int) -> Path:
    path.write_bytes(ledger.render({BUCKET: Counters(**counters), "other": Counters(7, 7, 7, 7)}))
    return path


def counted(path: Path) -> Counters:
    totals = ledger.load(path)
    assert totals is not None
    assert totals.get("other", Counters(7, 7, 7, 7)) == Counters(7, 7, 7, 7)
    return totals[BUCKET]


# --- what counts


async def test_marked_objects_and_their_sidecars_count_with_what_clients_see(store: MemoryBackend):
    put_marked(store, "small", SMALL)
    put_large(store, "large")
    found = await rescan(store, whole())
    measured = found.measured
    assert measured.objects == 2
    assert measured.original_bytes == len(SMALL.plain) + len(LARGE.plain)
    assert measured.stored_bytes == len(SMALL.stored) + len(LARGE.stored) + SIDECAR
    assert (found.sidecars, found.sidecar_bytes) == (1, SIDECAR)
    assert found.unaccounted_objects == found.unaccounted_sidecars == found.failed == 0
    assert (found.ledger, found.difference, found.written) == (None, None, False)


async def test_an_object_of_parts_counts_with_the_size_its_tail_tells(store: MemoryBackend):
    body = tailed.tailed([b"p" * 5000, b"q" * 100])
    world.put_stored(store, "parts", body.stored, tailed.METADATA | MARK)
    measured = (await rescan(store, whole())).measured
    assert (measured.original_bytes, measured.stored_bytes) == (5100, len(body.stored))


async def test_what_no_ledger_has_counted_is_told_apart(store: MemoryBackend):
    put_marked(store, "ours", SMALL)
    put_large(store, "before", marked=False)
    world.put_stored(store, "foreign", b"from elsewhere")
    world.put_stored(store, "forged", b"x", {"s4-ledger": "true"})
    world.put_stored(store, ".s4dict/0123456789abcdef", b"dictionary")
    world.put_stored(store, "gone.s4index", b"orphan")
    found = await rescan(store, whole())
    assert found.measured.objects == 1
    assert found.measured.stored_bytes == len(SMALL.stored)
    assert found.unaccounted_objects == 3
    assert found.unaccounted_bytes == len(LARGE.stored) + len(b"from elsewhere") + 1
    assert found.unaccounted_sidecars == 2
    assert found.unaccounted_sidecar_bytes == SIDECAR + len(b"orphan")
    assert (found.internal_objects, found.internal_bytes) == (1, len(b"dictionary"))


async def test_a_sidecar_behind_other_keys_counts_with_its_object(store: MemoryBackend):
    put_large(store, "k")
    put_marked(store, "k-1", SMALL)
    found = await rescan(store, whole())
    assert (found.sidecars, found.measured.objects) == (1, 2)
    assert found.unaccounted_sidecars == 0


async def test_a_marked_sidecar_counts_although_its_object_has_gone(store: MemoryBackend):
    world.put_stored(store, "gone.s4index", b"still costs", MARK)
    found = await rescan(store, whole())
    assert (found.sidecars, found.measured.stored_bytes) == (1, len(b"still costs"))


async def test_every_version_counts_as_it_does_on_the_bill():
    store = VersionedBackend()
    await put_version(store, "k", SMALL.stored, SMALL.metadata | MARK)
    await put_version(store, "k", LARGE.stored, LARGE.metadata | MARK)
    await put_version(store, "k.s4index", b"of the large one", MARK)
    await put_version(store, "k", SMALL.stored, SMALL.metadata)
    await put_version(store, "k.s4index", b"of one before the ledger")
    await store.delete(BUCKET, "k")
    found = await rescan(Versions(store), whole())
    assert found.versioning == "Enabled"
    assert found.measured.objects == 2
    assert found.measured.stored_bytes == len(SMALL.stored + LARGE.stored + b"of the large one")
    assert found.unaccounted_objects == found.unaccounted_sidecars == 1


async def put_version(
    store: VersionedBackend, key: str, data: bytes, metadata: dict[str, str] | None = None
) -> None:
    headers = [(f"x-amz-meta-{name}", value) for name, value in (metadata or {}).items()]
    await store.put(BUCKET, key, Body.of(data), headers)


class Versions(CountingBackend):
    """Says of a bucket that it keeps versions."""

    async def forward(self, method, raw_path, raw_query, headers, body=None):
        if raw_query == "versioning=":
            text = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
            await self.inner.put(BUCKET, ".s4dict/answer", Body.of(text))
            return await self.inner.get(BUCKET, ".s4dict/answer")
        return await super().forward(method, raw_path, raw_query, headers, body)


async def test_a_prefix_is_scanned_alone_and_compared_with_nothing(
    store: MemoryBackend, tmp_path: Path
):
    put_marked(store, "a/1", SMALL)
    put_marked(store, "b/1", SMALL)
    file = state(tmp_path / "s", objects=2)
    found = await rescan(store, Rescan(Target(BUCKET, "a/"), state_files=(file,)))
    assert found.target == f"{BUCKET}/a/"
    assert found.measured.objects == 1
    assert found.difference is None
    assert any("whole buckets" in note for note in found.notes)


async def test_one_look_at_each_object_is_enough(store: MemoryBackend):
    for number in range(50):
        put_marked(store, f"k{number}", SMALL)
    put_large(store, "large")
    counting = CountingBackend(store)
    await rescan(counting, whole())
    assert counting.count("head") == 51
    assert counting.count("list") == 1
    assert counting.count("get") == 0


async def test_looks_are_bounded_and_progress_is_told(store: MemoryBackend):
    for number in range(60):
        put_marked(store, f"k{number}", SMALL)
    running = most = 0

    class Slow(CountingBackend):
        async def head(self, bucket, key, *, query="", headers=()):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            return await self.inner.head(bucket, key, query=query, headers=headers)

    told = Told()
    await rescan(Slow(store), whole(concurrency=5), told)
    assert most == 5
    assert told.known == told.finished == [60, 60 * len(SMALL.stored)]


class Told:
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.known, self.finished = [0, 0], [0, 0]

    def found(self, objects: int, size: int = 0) -> None:
        self.known = [self.known[0] + objects, self.known[1] + size]

    def done(self, objects: int, size: int = 0) -> None:
        self.finished = [self.finished[0] + objects, self.finished[1] + size]


# --- what goes wrong


def on_head(key: str, error: Exception) -> Callable[[Call], Exception | None]:
    return lambda call: error if (call.verb, call.key) == ("head", key) else None


async def test_an_object_that_goes_during_the_scan_is_no_failure(store: MemoryBackend):
    put_marked(store, "stays", SMALL)
    put_marked(store, "goes", SMALL)
    faulty = FaultyBackend(store, fault=on_head("goes", BackendAnswer(404, "NoSuchKey")))
    found = await rescan(faulty, whole())
    assert (found.measured.objects, found.failed) == (1, 0)
    assert any("1 objects were listed and gone" in note for note in found.notes)


async def test_an_object_under_a_customers_key_is_not_counted(store: MemoryBackend):
    put_marked(store, "secret", SMALL)
    faulty = FaultyBackend(store, fault=on_head("secret", BackendAnswer(400, "BadRequest")))
    found = await rescan(faulty, whole())
    assert (found.unaccounted_objects, found.unaccounted_bytes) == (1, len(SMALL.stored))


async def test_what_cannot_be_looked_at_is_named_and_the_ledger_left_alone(
    store: MemoryBackend, tmp_path: Path
):
    put_marked(store, "a", SMALL)
    put_marked(store, "b", SMALL)
    file = state(tmp_path / "s", objects=9)
    faulty = FaultyBackend(store, fault=on_head("b", BackendAnswer(403, "AccessDenied")))
    found = await rescan(faulty, whole(file, write=True))
    assert found.failed == 1
    assert [(each.key, each.op) for each in found.failures] == [("b", "HeadObject")]
    assert "AccessDenied" in found.failures[0].cause
    assert not found.written
    assert counted(file).objects == 9
    assert any("left as it is" in note for note in found.notes)


async def test_a_store_that_goes_away_ends_the_scan(store: MemoryBackend):
    put_marked(store, "a", SMALL)
    faulty = FaultyBackend(store, fault=on_head("a", BackendUnavailable("refused")))
    with pytest.raises(BackendUnavailable):
        await rescan(faulty, whole())


async def test_a_bucket_nobody_knows_is_an_error(store: MemoryBackend, tmp_path: Path):
    with pytest.raises(BackendAnswer, match="NoSuchBucket"):
        await rescan(store, Rescan(Target("typo"), state_files=(state(tmp_path / "s"),)))


async def test_a_bucket_that_was_deleted_behind_the_ledger_is_empty(tmp_path: Path):
    file = state(tmp_path / "s", original_bytes=9, stored_bytes=5, objects=1)
    found = await rescan(MemoryBackend(), whole(file, write=True))
    assert found.measured.objects == 0
    assert found.difference is not None
    assert found.difference.stored_bytes == -5
    assert any("does not exist" in note for note in found.notes)
    assert counted(file) == ledger.EMPTY


# --- the ledger


async def scanned(store: MemoryBackend, *files: Path, **options: object) -> RescanReport:
    return await rescan(store, whole(*files, **options))


async def test_a_ledger_that_is_right_differs_by_nothing(store: MemoryBackend, tmp_path: Path):
    put_large(store, "large")
    original, stored = len(LARGE.plain), len(LARGE.stored) + SIDECAR
    file = state(tmp_path / "s", original_bytes=original, stored_bytes=stored, objects=1)
    found = await scanned(store, file)
    assert found.difference is not None
    assert found.difference.none
    assert found.ledger == Counters(original, stored, 1)


async def test_the_difference_is_what_was_found_less_what_the_files_say_together(
    store: MemoryBackend, tmp_path: Path
):
    put_marked(store, "a", SMALL)
    one = state(tmp_path / "1", original_bytes=10, stored_bytes=10, objects=1)
    two = state(tmp_path / "2", original_bytes=90, stored_bytes=10, objects=3)
    found = await scanned(store, one, two)
    assert found.difference is not None
    assert found.difference.original_bytes == len(SMALL.plain) - 100
    assert found.difference.stored_bytes == len(SMALL.stored) - 20
    assert found.difference.objects == 1 - 4
    assert not found.written


async def test_writing_replaces_the_buckets_counters_and_no_others(
    store: MemoryBackend, tmp_path: Path
):
    put_marked(store, "a", SMALL)
    file = state(tmp_path / "s", original_bytes=10**9, objects=500, skipped_unaccounted=12)
    found = await scanned(store, file, write=True)
    assert found.written
    assert counted(file) == Counters(len(SMALL.plain), len(SMALL.stored), 1, 0)
    again = await scanned(store, file)
    assert again.difference is not None
    assert again.difference.none


async def test_writing_makes_a_file_that_was_not_there(store: MemoryBackend, tmp_path: Path):
    put_marked(store, "a", SMALL)
    file = tmp_path / "s"
    assert (await scanned(store, file, write=True)).written
    assert counted(file).objects == 1


async def test_a_ledger_that_counted_during_the_scan_is_not_replaced(
    store: MemoryBackend, tmp_path: Path
):
    put_marked(store, "a", SMALL)
    file = state(tmp_path / "s", objects=1)

    def count(call: Call) -> None:
        if call.verb == "head":
            state(file, objects=2)

    with pytest.raises(LedgerMoved, match="written to while it was scanned"):
        await rescan(FaultyBackend(store, fault=count), whole(file, write=True))
    assert counted(file).objects == 2


async def test_a_ledger_that_counted_during_the_scan_is_noted(store: MemoryBackend, tmp_path: Path):
    put_marked(store, "a", SMALL)
    file = state(tmp_path / "s", objects=1)

    def count(call: Call) -> None:
        if call.verb == "head":
            state(file, objects=2)

    found = await rescan(FaultyBackend(store, fault=count), whole(file))
    assert any("during the scan, so the difference" in note for note in found.notes)


async def test_a_state_file_that_is_no_state_is_neither_read_nor_replaced(
    store: MemoryBackend, tmp_path: Path
):
    file = tmp_path / "s"
    file.write_bytes(b"{")
    with pytest.raises(StateFileParse):
        await scanned(store, file, write=True)
    assert file.read_bytes() == b"{"


@pytest.mark.parametrize(
    "order",
    [
        {"target": Target(BUCKET, "a/"), "state_files": (Path("s"),)},
        {"target": Target(BUCKET)},
        {"target": Target(BUCKET), "state_files": (Path("s"), Path("t"))},
    ],
)
def test_only_a_whole_bucket_goes_into_one_file(order: dict[str, object]):
    with pytest.raises(ValueError, match=r"prefix|one state file"):
        Rescan(**order, write=True)  # type: ignore[arg-type]


# --- the bill


def move(store: MemoryBackend, key: str, storage: str) -> None:
    """What a lifecycle rule does."""
    before = store.buckets[BUCKET][key]
    headers = (*before.headers, ("x-amz-storage-class", storage))
    store.buckets[BUCKET][key] = replace(before, headers=headers)


async def test_each_object_is_billed_as_the_class_it_lies_in(store: MemoryBackend):
    put_large(store, "k")
    put_marked(store, "small", SMALL)
    move(store, "k", "STANDARD_IA")
    move(store, "small", "STANDARD_IA")
    found = await rescan(store, whole())
    row = found.measured
    minimum = CLASSES["STANDARD_IA"].minimum
    assert row.billed_original_bytes.exact
    assert row.billed_original_bytes.at_least == len(LARGE.plain) + minimum
    stored = max(len(LARGE.stored), minimum) + minimum
    assert row.billed_stored_bytes.at_least == row.billed_stored_bytes.at_most == stored + SIDECAR
    shares = {each.storage_class: each for each in found.storage_classes}
    assert (shares["STANDARD"].objects, shares["STANDARD"].billed_bytes) == (1, SIDECAR)
    assert (shares["STANDARD_IA"].objects, shares["STANDARD_IA"].billed_bytes) == (2, stored)
    assert found.storage_class == "as stored"
    assert any("several storage classes" in note for note in found.notes)


async def test_one_class_can_be_supposed_for_all(store: MemoryBackend):
    put_large(store, "k")
    minimum = CLASSES["GLACIER_IR"].minimum
    found = await rescan(store, whole(storage_class=CLASSES["GLACIER_IR"]))
    assert found.storage_class == "GLACIER_IR"
    billed = max(len(LARGE.stored), minimum) + minimum
    assert found.measured.billed_stored_bytes.at_least == billed
    saved = (len(LARGE.plain) - billed) / (1 << 30) * 0.023
    assert found.measured.monthly_savings_usd == found.measured.monthly_savings_usd_at_most
    assert found.measured.monthly_savings_usd == pytest.approx(saved)


async def test_a_class_nobody_knows_is_billed_as_stored_and_named(store: MemoryBackend):
    put_marked(store, "a", SMALL)
    move(store, "a", "COLDLINE")
    found = await rescan(store, whole())
    assert found.measured.billed_stored_bytes.at_least == len(SMALL.stored)
    assert any(note.startswith("COLDLINE") for note in found.notes)


async def test_a_scan_leaves_no_file_and_no_thread_behind(store: MemoryBackend, tmp_path: Path):
    put_large(store, "k")
    file = state(tmp_path / "s")
    files = world.open_files()
    await scanned(store, file)
    await world.settled(files)
    assert [*tmp_path.iterdir()] == [file]  # noqa: ASYNC240 - a test may wait for its disk


async def test_nothing_is_written_while_it_is_not_known_whether_there_are_versions(
    store: MemoryBackend, tmp_path: Path
):
    class Denied(CountingBackend):
        async def forward(self, method, raw_path, raw_query, headers, body=None):
            raise BackendAnswer(503, "SlowDown")

    put_marked(store, "small", SMALL)
    file = state(tmp_path / "s", objects=3)
    before = counted(file)
    with pytest.raises(BackendAnswer, match="SlowDown"):
        await rescan(Denied(store), whole(file, write=True))
    assert counted(file) == before
    found = await rescan(Denied(store), whole(file))
    assert any("none were counted" in note for note in found.notes)
