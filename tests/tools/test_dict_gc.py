from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from s4gateway.backend import base
from s4gateway.backend.memory import MemoryBackend, MemoryStream, StoredObject
from s4gateway.s3 import xml
from s4gateway.s3.headers import Headers
from s4gateway.tools import dict_gc
from s4gateway.tools.dict_gc import GcReport, Options, State
from s4gateway.wire import keys
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects.versioned import VersionedBackend, as_seaweedfs
from tests.objects.world import BUCKET, EPOCH, put_stored

USED, UNUSED, OTHER = "0" * 16, "1" * 16, "2" * 16
DAY = timedelta(days=1)
NOW = EPOCH + 100 * DAY
EXECUTE = Options(execute=True, older_than=30 * DAY)


@pytest.fixture
def store() -> MemoryBackend:
    store = MemoryBackend.with_buckets(BUCKET)
    add_dictionary(store, USED)
    add_dictionary(store, UNUSED)
    add_object(store, "a/1", USED)
    add_object(store, "a/2")
    return store


def add_dictionary(store: MemoryBackend, dict_id: str) -> None:
    put_stored(store, f".s4dict/{dict_id}", b"bytes of a dictionary", {"s4-dict-sha256": "f" * 64})


def add_object(store: MemoryBackend, key: str, dict_id: str | None = None) -> None:
    metadata = {} if dict_id is None else {"s4-codec": "cpu-zstd-dict", "s4-dict-id": dict_id}
    put_stored(store, key, b"stored bytes", metadata)


async def gc(
    store: base.Backend, options: Options = EXECUTE, now: datetime | None = NOW
) -> GcReport:
    return await dict_gc.run(store, BUCKET, options, now=lambda: now or datetime.now(UTC))


def states(report: GcReport) -> dict[str, State]:
    return {each.id: each.state for each in report.dictionaries}


def left(store: MemoryBackend) -> set[str]:
    prefix = keys.DICTIONARY_PREFIX
    return {key.removeprefix(prefix) for key in store.buckets[BUCKET] if key.startswith(prefix)}


# --- what goes and what stays


async def test_without_execute_it_only_says_what_no_object_needs(store: MemoryBackend):
    counting = CountingBackend(store)
    report = await gc(counting, Options())
    assert states(report) == {USED: State.REFERENCED, UNUSED: State.UNREFERENCED}
    assert (report.deleted, report.failed, report.complete, report.executed) == (0, 0, True, False)
    assert any("--execute" in note for note in report.notes)
    assert left(store) == {USED, UNUSED}
    assert counting.count("delete") == counting.count("put") == 0


async def test_with_execute_what_no_object_needs_is_deleted(store: MemoryBackend):
    report = await gc(store)
    assert states(report) == {USED: State.REFERENCED, UNUSED: State.DELETED}
    assert (report.deleted, report.deleted_bytes) == (1, len(b"bytes of a dictionary"))
    assert left(store) == {USED}


async def test_nothing_is_deleted_without_an_age():
    with pytest.raises(ValueError, match="how old"):
        Options(execute=True)


async def test_what_is_younger_than_the_age_stays(store: MemoryBackend):
    young = await gc(store, now=EPOCH + 30 * DAY - timedelta(seconds=1))
    assert states(young)[UNUSED] is State.YOUNG
    assert left(store) == {USED, UNUSED}
    old = await gc(store, now=EPOCH + 30 * DAY)
    assert states(old)[UNUSED] is State.DELETED


async def test_what_is_named_stays(store: MemoryBackend):
    report = await gc(store, replace(EXECUTE, keep=frozenset({UNUSED})))
    assert states(report)[UNUSED] is State.KEPT
    assert left(store) == {USED, UNUSED}


async def test_without_a_map_the_report_warns_of_what_is_still_mapped(store: MemoryBackend):
    assert any("still maps" in note for note in (await gc(store)).notes)


async def test_references_are_counted_object_by_object(store: MemoryBackend):
    for number in range(2500):
        add_object(store, f"b/{number}", USED if number % 5 == 0 else None)
    report = await gc(store, Options())
    assert {each.id: each.references for each in report.dictionaries} == {USED: 501, UNUSED: 0}
    assert report.scanned == 2502


async def test_objects_of_every_size_and_name_are_asked(store: MemoryBackend):
    names = ["k.s4index", ".s4mpu/75/00001", "k.__s4ver__/1", ".s4dict/no-id", "é ü%&+?", "x" * 900]
    for number, name in enumerate(names):
        dict_id = f"{number:016x}"[::-1]
        add_dictionary(store, dict_id)
        add_object(store, name, dict_id)
    large = bytes(3_000_000)
    add_dictionary(store, "f" * 16)
    put_stored(store, "large", large, {"s4-dict-id": "f" * 16})
    report = await gc(store)
    assert [each for each, state in states(report).items() if state is State.DELETED] == [UNUSED]
    assert ".s4dict/no-id" in store.buckets[BUCKET]


async def test_an_id_on_another_codec_counts_too(store: MemoryBackend):
    put_stored(store, "odd", b"x", {"s4-codec": "cpu-zstd", "s4-dict-id": UNUSED})
    assert states(await gc(store))[UNUSED] is State.REFERENCED


async def test_a_bucket_without_dictionaries_is_not_scanned():
    store = MemoryBackend.with_buckets(BUCKET)
    add_object(store, "a", USED)
    counting = CountingBackend(store)
    report = await gc(counting)
    assert (report.dictionaries, report.scanned, report.complete) == ((), 0, True)
    assert counting.count("head") == 0


async def test_a_second_run_finds_nothing_more_to_do(store: MemoryBackend):
    await gc(store)
    report = await gc(store)
    assert (report.deleted, states(report)) == (0, {USED: State.REFERENCED})


# --- nothing is deleted unless everything is known


def failing(store: MemoryBackend, when: Callable[[Call], bool], error: Exception) -> FaultyBackend:
    return FaultyBackend(store, fault=lambda call: error if when(call) else None)


@pytest.mark.parametrize("status", [400, 403, 405, 500, 503])
async def test_an_object_that_cannot_be_asked_stops_every_deletion(
    store: MemoryBackend, status: int
):
    refused = base.BackendAnswer(status, "Whatever")
    faulty = failing(store, lambda call: (call.verb, call.key) == ("head", "a/2"), refused)
    report = await gc(faulty)
    assert (report.complete, report.failed, report.deleted) == (False, 1, 0)
    assert states(report) == {USED: State.REFERENCED, UNUSED: State.UNKNOWN}
    assert [(each.key, each.op) for each in report.failures] == [("a/2", "head")]
    assert left(store) == {USED, UNUSED}


async def test_an_object_that_is_listed_but_not_found_stops_every_deletion(store: MemoryBackend):
    missing = base.BackendAnswer(404, "NoSuchKey")
    faulty = failing(store, lambda call: (call.verb, call.key) == ("head", "a/1"), missing)
    report = await gc(faulty)
    assert (report.failed, left(store)) == (1, {USED, UNUSED})
    assert "though it is listed" in report.failures[0].cause


async def test_an_object_that_goes_during_the_scan_is_no_failure(store: MemoryBackend):
    def fault(call: Call) -> Exception | None:
        if (call.verb, call.key) == ("head", "a/1"):
            del store.buckets[BUCKET]["a/1"]
        return None

    report = await gc(FaultyBackend(store, fault=fault))
    assert (report.failed, report.complete) == (0, True)
    assert left(store) == set()


@pytest.mark.parametrize("verb", ["list", "head", "forward GET"])
async def test_a_store_that_goes_away_is_raised_and_nothing_deleted(
    store: MemoryBackend, verb: str
):
    gone = base.BackendUnavailable("reset")
    faulty = failing(store, lambda call: call.verb == verb, gone)
    with pytest.raises(base.BackendUnavailable):
        await gc(faulty)
    assert left(store) == {USED, UNUSED}


async def test_a_listing_that_breaks_off_is_raised_and_nothing_deleted(store: MemoryBackend):
    class Short(CountingBackend):
        async def list(self, bucket: str, raw_query: str) -> bytes:
            page = await store.list(bucket, raw_query)
            if b"<Key>a/1" not in page:
                return page
            start, end = page.index(b"<Contents>"), page.rindex(b"</Contents>")
            page = page[:start] + page[end + len(b"</Contents>") :]
            return page.replace(b"<IsTruncated>false", b"<IsTruncated>true")

    with pytest.raises(base.BackendProtocolError, match="breaks off"):
        await gc(Short(store))
    assert left(store) == {USED, UNUSED}


async def test_after_a_deletion_that_fails_nothing_more_is_deleted(store: MemoryBackend):
    add_dictionary(store, OTHER)
    denied = base.BackendAnswer(403, "AccessDenied")
    faulty = failing(
        store, lambda call: call.verb == "delete" and call.key.endswith(UNUSED), denied
    )
    report = await gc(faulty)
    assert (report.deleted, report.failed) == (0, 1)
    assert left(store) == {USED, UNUSED, OTHER}


# --- what happens meanwhile


async def test_what_is_written_during_the_scan_is_seen_before_anything_is_deleted(
    store: MemoryBackend,
):
    written: list[str] = []

    def fault(call: Call) -> Exception | None:
        if (call.verb, call.key) == ("head", "a/2") and not written:
            written.append("A/before-the-scan's-place")
            headers = (("x-amz-meta-s4-dict-id", UNUSED),)
            store.buckets[BUCKET][written[0]] = StoredObject(b"x", headers, "e" * 32, NOW)
        return None

    report = await gc(FaultyBackend(store, fault=fault))
    assert written
    assert states(report)[UNUSED] is State.REFERENCED
    assert left(store) == {USED, UNUSED}


async def test_the_second_look_asks_only_for_what_is_new(store: MemoryBackend):
    headers = (("x-amz-meta-s4-dict-id", USED),)
    store.buckets[BUCKET]["new"] = StoredObject(b"x", headers, "e" * 32, NOW)
    counting = CountingBackend(store)
    report = await gc(counting)
    asked = [call.key for call in counting.calls if call.verb == "head"]
    assert (asked.count("a/1"), asked.count("new")) == (1, 2)
    assert {each.id: each.references for each in report.dictionaries}[USED] == 2


async def test_an_object_of_unknown_age_is_asked_again(store: MemoryBackend):
    class Undated(CountingBackend):
        async def list(self, bucket: str, raw_query: str) -> bytes:
            page = await store.list(bucket, raw_query)
            return page if b".s4dict" in raw_query.encode() else page.replace(b"2025-", b"?")

    counting = Undated(store)
    await gc(counting)
    assert [call.key for call in counting.calls].count("a/1") == 2


async def test_a_dictionary_published_anew_meanwhile_stays(store: MemoryBackend):
    def fault(call: Call) -> Exception | None:
        if (call.verb, call.key) == ("head", "a/2"):
            stored = store.buckets[BUCKET][f".s4dict/{UNUSED}"]
            store.buckets[BUCKET][f".s4dict/{UNUSED}"] = replace(stored, modified=NOW)
        return None

    report = await gc(FaultyBackend(store, fault=fault))
    assert states(report)[UNUSED] is State.YOUNG
    assert left(store) == {USED, UNUSED}


# --- versions


@dataclass(eq=False)
class Versioned(VersionedBackend):
    """Says that it keeps versions."""

    status: str = field(default="Enabled")

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
        answer = xml.document("VersioningConfiguration", xml.leaf("Status", self.status))
        return MemoryStream(base.Head(200, Headers([])), answer)

    def write(self, key: str, dict_id: str | None = None, data: bytes = b"stored") -> str:
        headers = (("x-amz-meta-s4-dict-id", dict_id),) if dict_id else ()
        return self.add(key, StoredObject(data, headers, "e" * 32, EPOCH))


@pytest.fixture(params=["Enabled", "Suspended"])
def versioned(request: pytest.FixtureRequest) -> Versioned:
    store = Versioned(status=request.param)
    store.write(f".s4dict/{USED}")
    store.write(f".s4dict/{UNUSED}")
    return store


async def test_a_noncurrent_version_needs_its_dictionary(versioned: Versioned):
    versioned.write("a", USED)
    versioned.write("a")
    report = await gc(versioned)
    assert states(report) == {USED: State.REFERENCED, UNUSED: State.DELETED}
    assert report.versioning == versioned.status


async def test_the_version_below_a_delete_marker_needs_its_dictionary(versioned: Versioned):
    versioned.write("a", USED)
    versioned.add("a", None)
    assert states(await gc(versioned))[USED] is State.REFERENCED


async def test_noncurrent_versions_of_internal_keys_count(versioned: Versioned):
    versioned.write("a.__s4ver__/1", USED)
    versioned.write("a.__s4ver__/1")
    assert states(await gc(versioned))[USED] is State.REFERENCED


async def test_versions_on_many_pages_are_all_asked(versioned: Versioned):
    for number in range(700):
        versioned.write(f"k{number:04}", USED if number == 350 else None)
        versioned.write(f"k{number:04}", OTHER if number == 699 else None)
        versioned.write(f"k{number:04}")
    versioned.write(f".s4dict/{OTHER}")
    report = await gc(versioned)
    assert {each.id: each.references for each in report.dictionaries} == {
        USED: 1,
        UNUSED: 0,
        OTHER: 1,
    }
    assert report.scanned == 2100


async def test_pages_that_do_not_join_at_a_sidecar_lose_no_version():
    store = Versioned(scan=as_seaweedfs)
    store.write(f".s4dict/{USED}")
    for number in range(600):
        key = f"k{number:04}"
        store.write(key, USED)
        store.write(key)
        store.write(f"{key}.s4index")
    report = await gc(store)
    assert report.dictionaries[0].references == 600


async def test_a_version_that_cannot_be_asked_stops_every_deletion(versioned: Versioned):
    versioned.write("a", USED)
    versioned.write("a")
    denied = base.BackendAnswer(403, "AccessDenied")
    faulty = failing(versioned, lambda call: call.query.startswith("versionId="), denied)
    report = await gc(faulty)
    assert (report.failed, report.deleted) == (1, 0)
    assert left(versioned) == {USED, UNUSED}


async def test_a_version_that_is_listed_but_not_found_stops_every_deletion(versioned: Versioned):
    versioned.write("a", USED)
    versioned.write("a")
    missing = base.BackendAnswer(404, "NoSuchVersion")
    faulty = failing(versioned, lambda call: call.query.startswith("versionId="), missing)
    report = await gc(faulty)
    assert (report.failed, left(versioned)) == (1, {USED, UNUSED})


async def test_a_store_that_will_not_list_its_versions_is_raised(versioned: Versioned):
    refused = base.BackendAnswer(501, "NotImplemented")
    faulty = failing(
        versioned, lambda call: call.verb == "list" and "versions=" in call.query, refused
    )
    with pytest.raises(base.BackendAnswer):
        await gc(faulty)
    assert left(versioned) == {USED, UNUSED}


async def test_what_is_replaced_during_the_scan_is_asked_as_a_version(versioned: Versioned):
    versioned.write("a", USED)

    def fault(call: Call) -> Exception | None:
        if (call.verb, call.key, call.query) == ("head", "a", ""):
            versioned.write("a")
        return None

    report = await gc(FaultyBackend(versioned, fault=fault))
    assert states(report)[USED] is State.REFERENCED


async def test_where_versions_are_kept_a_deleted_dictionary_can_come_back():
    store = Versioned()
    store.write(f".s4dict/{UNUSED}")
    report = await gc(store)
    assert (report.deleted, left(store)) == (1, set())
    assert any("delete marker" in note for note in report.notes)
    marker = store.history[f".s4dict/{UNUSED}"][0].version_id
    await store.delete(BUCKET, f".s4dict/{UNUSED}", query=f"versionId={marker}")
    assert left(store) == {UNUSED}
