"""Objects of others in the gateway's form and back: what changes, what stays, what is skipped."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from s4gateway.backend.base import BackendAnswer, BackendUnavailable, Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.codecs.encoder import FrameEncoder
from s4gateway.s3 import etag
from s4gateway.tools.migrate import MigrateParams, MigrateReport, migrate
from s4gateway.tools.objects import Making
from s4gateway.tools.patience import Patience
from s4gateway.tools.rewrite_order import RewriteRefused
from s4gateway.tools.target import Target
from s4gateway.wire import frame, keys, manifest
from tests import corpus
from tests.backends import Call, FaultyBackend
from tests.objects import tailed, world
from tests.objects.world import BUCKET, MIB
from tests.tools.described import DescribedBackend

TEXT = corpus.text(60_000)
LARGE = corpus.text(6 * MIB)
HEADERS = [
    ("content-type", "text/x-log"),
    ("cache-control", "max-age=60"),
    ("content-disposition", "attachment"),
    ("content-encoding", "utf-8"),
    ("content-language", "de"),
    ("expires", "Sun, 06 Nov 2033 08:49:37 GMT"),
    ("x-amz-website-redirect-location", "/there"),
    ("x-amz-storage-class", "STANDARD_IA"),
    ("x-amz-server-side-encryption", "aws:kms"),
    ("x-amz-server-side-encryption-aws-kms-key-id", "key-1"),
    ("x-amz-meta-colour", "blue"),
    ("x-amz-tagging", "a=1&b=x%20y"),
]
QUICK = Patience(attempts=3, first=0, longest=0)


@pytest.fixture
def store() -> DescribedBackend:
    return DescribedBackend.with_buckets(BUCKET)


async def run(store: Any, *, execute: bool = True, **options: Any) -> MigrateReport:
    making = options.pop("making", Making(threads=2))
    params = MigrateParams(
        target=Target(BUCKET), execute=execute, making=making, patience=QUICK, **options
    )
    return await migrate(store, params)


async def put(
    store: MemoryBackend, key: str, body: bytes, headers: list[tuple[str, str]] | None = None
) -> None:
    await store.put(BUCKET, key, Body.of(body), headers or [])


async def read(store: MemoryBackend, key: str) -> bytes:
    """Through a gateway's reader, which knows nothing of the run."""
    instance = world.Instance(store)
    try:
        return await instance.get(key)
    finally:
        await instance.close()


def sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def described(store: MemoryBackend, key: str) -> dict[str, str]:
    """Every header stored with an object but the gateway's own."""
    headers = dict(store.buckets[BUCKET][key].headers)
    own = f"x-amz-meta-{manifest.RESERVED_PREFIX}"
    return {name: value for name, value in headers.items() if not name.startswith(own)}


def skipped(report: MigrateReport) -> dict[str, int]:
    fields = {name: getattr(report, name) for name in dir(report) if name.startswith("skipped_")}
    return {name.removeprefix("skipped_"): count for name, count in fields.items() if count}


async def test_small_and_large_objects_are_compressed_and_read_back_the_same(
    store: DescribedBackend,
):
    await put(store, "dir/ä+%2F b", TEXT)
    await put(store, "large", LARGE)
    report = await run(store)
    assert (report.migrated, report.failed, skipped(report)) == (2, 0, {}), report
    stored = [len(store.buckets[BUCKET][key].data) for key in ("dir/ä+%2F b", "large")]
    assert report.migrated_bytes_before == len(TEXT) + len(LARGE) == report.total_bytes
    assert report.migrated_bytes_after == sum(stored) < report.total_bytes / 3
    assert await read(store, "dir/ä+%2F b") == TEXT
    assert await read(store, "large") == LARGE
    assert keys.sidecar_key("large") in store.buckets[BUCKET]
    assert [(each.picked, each.wrote_with, each.objects) for each in report.codecs] == [
        ("cpu-zstd", "cpu-zstd", 2)
    ]


async def test_ranges_of_what_was_migrated_need_no_more_than_their_frames(store: DescribedBackend):
    await put(store, "large", LARGE)
    await run(store)
    instance = world.Instance(store)
    start, end = 5 * MIB, 5 * MIB + 100
    assert await instance.ranged("large", start, end) == (LARGE[start:end], None)
    await instance.close()


async def test_everything_that_belongs_to_an_object_is_carried_over(store: DescribedBackend):
    await put(store, "key", TEXT, HEADERS)
    store.grants["key"] = (
        ("ID", "owner-1", "FULL_CONTROL"),
        ("URI", "http://acs.amazonaws.com/groups/global/AllUsers", "READ"),
        ("ID", "friend", "READ"),
    )
    before, tags = described(store, "key"), list(store.tags["key"])
    report = await run(store)
    assert report.migrated == 1, report
    after = described(store, "key")
    assert after.pop("x-amz-grant-full-control") == 'id="owner-1"'
    assert after.pop("x-amz-grant-read") == (
        'uri="http://acs.amazonaws.com/groups/global/AllUsers", id="friend"'
    )
    assert after == before
    assert store.tags["key"] == tags == [("a", "1"), ("b", "x y")]


async def test_clients_see_the_etag_they_have_seen_before(store: DescribedBackend):
    composite = etag.composite([hashlib.md5(TEXT).hexdigest()])
    world.put_stored(store, "parts", TEXT, etag=composite)
    world.put_stored(store, "odd", TEXT, etag="not-an-etag-of-s3")
    await put(store, "plain", TEXT)
    await run(store)
    instance = world.Instance(store)
    seen = {
        key: (await instance.reader.attributes(instance.source(key))).etag
        for key in ("parts", "odd", "plain")
    }
    await instance.close()
    md5 = hashlib.md5(TEXT).hexdigest()
    assert seen == {"parts": composite, "odd": md5, "plain": md5}


async def test_migrate_and_undo_restore_every_object(store: DescribedBackend):
    bodies = {"small": TEXT, "large": LARGE, "noise": corpus.noise(300_000), "empty": b""}
    for key, body in bodies.items():
        await put(store, key, body, HEADERS)
    before = dict(store.buckets[BUCKET])
    tags = dict(store.tags)
    assert (await run(store)).migrated == 2
    report = await run(store, undo=True)
    assert (report.migrated, skipped(report)) == (2, {"not_s4": 2})
    assert report.migrated_bytes_after == len(TEXT) + len(LARGE)
    after = store.buckets[BUCKET]
    assert set(after) == set(before)
    assert {key: (each.data, each.etag) for key, each in after.items()} == {
        key: (each.data, each.etag) for key, each in before.items()
    }
    assert {key: sorted(each.headers) for key, each in after.items()} == {
        key: sorted(each.headers) for key, each in before.items()
    }
    assert store.tags == tags


async def test_the_checksum_a_client_declared_is_kept_and_given_back(store: DescribedBackend):
    declared = ("x-amz-checksum-sha256", sha256(TEXT))
    await put(store, "key", TEXT, [declared])
    world.put_stored(store, "wrong", TEXT)
    store.keep(BUCKET, "wrong", [("x-amz-checksum-crc32", "AAAAAA==")])
    report = await run(store)
    assert [(each.key, each.op) for each in report.failures] == [("wrong", "GetObject(body)")]
    instance = world.Instance(store)
    seen = await instance.reader.attributes(instance.source("key"))
    await instance.close()
    assert seen.checksum == ("sha256", declared[1], "FULL_OBJECT")
    assert (await run(store, undo=True)).migrated == 1
    assert declared in store.buckets[BUCKET]["key"].headers


async def test_undo_strips_objects_that_a_gateway_stored_as_they_came(store: DescribedBackend):
    instance = world.Instance(store)
    for key, body in {"empty": b"", "noise": corpus.noise(300_000)}.items():
        await instance.put(key, body)
    await instance.close()
    assert (await run(store, undo=True)).migrated == 2
    assert not any(
        name.startswith("x-amz-meta-s4-")
        for each in store.buckets[BUCKET].values()
        for name, _ in each.headers
    )


async def test_undo_of_an_upload_in_parts_restores_its_etag(store: DescribedBackend):
    parts = [corpus.log(5 * MIB, seed=1), corpus.log(5 * MIB, seed=2), b"the end"]
    body = tailed.tailed(parts, frame_size=MIB, padding=100)
    tailed.put_tailed(store, "key", body)
    report = await run(store, undo=True)
    assert (report.migrated, report.failed) == (1, 0), report.failures
    stored = store.buckets[BUCKET]["key"]
    assert (stored.data, stored.etag) == (body.plain, body.tail.etag)
    assert keys.sidecar_key("key") not in store.buckets[BUCKET]
    assert not any(name.startswith("x-amz-meta-s4-") for name, _ in stored.headers)


async def test_bodies_too_large_for_one_put_go_in_parts(store: DescribedBackend):
    store.uploads.min_part = 1
    making = Making(threads=2, largest=2 * MIB, part_size=MIB + 7)
    body = corpus.text(5_000) + corpus.noise(3 * MIB) + corpus.text(MIB)
    await put(store, "key", body, [("x-amz-meta-colour", "blue")])
    report = await run(store, making=making)
    assert (report.migrated, report.failed) == (1, 0), report.failures
    stored = store.buckets[BUCKET]["key"]
    assert (etag.part_count(stored.etag) or 0) > 2
    assert ("x-amz-meta-colour", "blue") in stored.headers
    assert await read(store, "key") == body
    assert (await run(store, undo=True, making=making)).migrated == 1
    assert store.buckets[BUCKET]["key"].data == body
    assert not store.uploads.uploads


async def test_each_reason_to_leave_an_object_alone_has_its_count(store: DescribedBackend):
    await put(store, "empty", b"")
    await put(store, "noise", corpus.noise(100_000))
    await put(store, "tiny", b"ab")
    await put(store, "large", corpus.text(200_000))
    await put(store, "frames", world.framed([TEXT]).stored)
    await put(store, "padding", frame.padding(100) + TEXT)
    await put(store, "held", TEXT, [("x-amz-object-lock-legal-hold", "ON")])
    await put(store, "kept", TEXT, [("x-amz-object-lock-mode", "GOVERNANCE")])
    await put(store, "customer", TEXT, [("x-amz-server-side-encryption-customer-algorithm", "AES")])
    await put(store, "acl", TEXT)
    store.grants["acl"] = (("DisplayName", "nobody", "READ"),)
    body = world.framed([TEXT])
    world.put_stored(store, "ours", body.stored, body.metadata)
    before = dict(store.buckets[BUCKET])
    report = await run(store, max_body_bytes=150_000)
    assert skipped(report) == {
        "not_compressible": 3, "too_large": 1, "already_s4": 3, "locked": 2, "encrypted": 1,
        "acl": 1,
    }  # fmt: skip
    assert (report.migrated, report.failed, report.total_objects) == (0, 0, 11)
    assert store.buckets[BUCKET] == before


async def test_archived_objects_are_counted(store: DescribedBackend):
    await put(store, "key", TEXT)
    archived = BackendAnswer(403, "InvalidObjectState")
    report = await run(
        FaultyBackend(store, fault=lambda call: archived if call.verb == "get" else None)
    )
    assert skipped(report) == {"archived": 1}


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "AccessDenied"), (501, "NotImplemented"), (405, "MethodNotAllowed"), (403, "Other")],
)
async def test_tags_that_may_not_be_read_are_not_lost(
    store: DescribedBackend, status: int, code: str
):
    await put(store, "key", TEXT, HEADERS)
    store.refusals["tagging"] = status, code
    report = await run(store)
    assert (report.migrated, skipped(report)) == (0, {"tags_unreadable": 1})
    assert any("--no-tags" in note for note in report.notes)
    report = await run(store, carry_tags=False)
    assert (report.migrated, report.no_tags, "key" in store.tags) == (1, True, False)


async def test_a_store_without_tags_says_so_in_its_own_way(store: DescribedBackend):
    await put(store, "key", TEXT)
    store.refusals["tagging"] = 404, "NoSuchTagSet"
    assert (await run(store)).migrated == 1


async def test_a_store_without_acls_is_a_note(store: DescribedBackend):
    await put(store, "key", TEXT)
    store.refusals["acl"] = 501, "NotImplemented"
    report = await run(store)
    assert report.migrated == 1
    assert any("ACLs of 1 objects could not be read" in note for note in report.notes)


async def test_other_failures_of_tagging_are_failures(store: DescribedBackend):
    await put(store, "key", TEXT)
    store.refusals["tagging"] = 500, "InternalError"
    report = await run(store)
    assert (report.failed, [each.op for each in report.failures]) == (1, ["GetObjectTagging"])


async def test_a_dry_run_says_the_same_and_writes_nothing(store: DescribedBackend):
    await put(store, "key", TEXT)
    await put(store, "large", LARGE)
    before = dict(store.buckets[BUCKET])
    faulty = FaultyBackend(store)
    dry = await run(faulty, execute=False)
    assert store.buckets[BUCKET] == before
    verbs = {call.verb for call in faulty.calls}
    assert verbs <= {"list", "get", "forward GET"}
    assert (dry.dry_run, dry.migrated, dry.conditional_writes) == (True, 2, None)
    wet = await run(store)
    assert (wet.migrated, wet.migrated_bytes_after) == (dry.migrated, dry.migrated_bytes_after)
    assert (wet.dry_run, wet.conditional_writes) == (False, True)


async def test_another_run_finds_nothing_to_do(store: DescribedBackend):
    await put(store, "key", TEXT)
    await run(store)
    before = dict(store.buckets[BUCKET])
    report = await run(store)
    assert (report.migrated, skipped(report)) == (0, {"already_s4": 1})
    assert store.buckets[BUCKET] == before


async def test_the_listing_is_cut_where_that_is_asked_for(store: DescribedBackend):
    for number in range(5):
        await put(store, f"key-{number}", TEXT)
    report = await run(store, max_objects=2)
    assert (report.total_objects, report.migrated, report.listing_truncated) == (2, 2, True)
    assert not (await run(store, max_objects=5)).listing_truncated


async def test_what_is_younger_than_asked_for_is_left_alone(store: DescribedBackend):
    now = datetime.now(UTC)
    store.now = lambda: now - timedelta(days=8)
    await put(store, "old", TEXT)
    store.now = lambda: now
    await put(store, "new", TEXT)
    report = await run(store, older_than=timedelta(days=7))
    assert (report.migrated, skipped(report)) == (1, {"too_recent": 1})


async def test_a_bucket_with_versions_is_written_to_only_when_that_is_wanted(
    store: DescribedBackend,
):
    await put(store, "key", TEXT)
    store.status = "Enabled"
    with pytest.raises(RewriteRefused, match="--noncurrent-ok"):
        await run(store)
    report = await run(store, execute=False)
    assert any(f"{len(TEXT)} bytes would stay" in note for note in report.notes)
    report = await run(store, noncurrent_ok=True)
    assert (report.migrated, report.versioning) == (1, "Enabled")


async def test_a_bucket_that_may_have_versions_is_written_to_only_when_that_is_wanted(
    store: DescribedBackend,
):
    def fault(call: Call) -> Exception | None:
        asked = call.verb == "forward GET" and call.query == "versioning="
        return BackendAnswer(403, "AccessDenied") if asked else None

    await put(store, "key", TEXT)
    denied = FaultyBackend(store, fault=fault)
    with pytest.raises(RewriteRefused, match="--noncurrent-ok"):
        await run(denied)
    assert store.buckets[BUCKET]["key"].data == TEXT
    report = await run(denied, execute=False)
    assert any("Could not determine" in note for note in report.notes)
    assert (await run(denied, noncurrent_ok=True)).migrated == 1


async def test_an_empty_target_is_said(store: DescribedBackend):
    report = await run(store)
    assert report.notes == (f"No objects found under {BUCKET}.",)


async def test_a_bucket_that_is_not_there_is_raised():
    with pytest.raises(BackendAnswer, match="NoSuchBucket"):
        await run(MemoryBackend())


# --- what happens in between


def overwriting(store: DescribedBackend, verb: str, body: bytes) -> FaultyBackend:
    """A client overwrites `key` right before the first such request."""
    done = []

    def fault(call: Call) -> Exception | None:
        if call.verb == verb and call.key == "key" and not done and "start" in started:
            done.append(call)
            world.put_stored(store, "key", body)
        if call.verb == "get":
            started.add("start")
        return None

    started: set[str] = set()
    return FaultyBackend(store, fault=fault)


@pytest.mark.parametrize("verb", ["get", "put"])
async def test_what_a_client_wrote_meanwhile_stays(store: DescribedBackend, verb: str):
    await put(store, "key", TEXT)
    theirs = corpus.text(50_000, seed=9)
    report = await run(overwriting(store, verb, theirs))
    assert (report.migrated, report.failed, skipped(report)) == (0, 0, {"etag_raced": 1})
    assert store.buckets[BUCKET]["key"].data == theirs


async def test_without_conditional_writes_the_key_is_looked_at_before_the_write(
    store: DescribedBackend,
):
    await put(store, "key", TEXT)
    theirs = corpus.text(50_000, seed=9)
    making = Making(threads=2, conditional_writes=False)
    report = await run(overwriting(store, "head", theirs), making=making)
    assert (report.migrated, skipped(report)) == (0, {"etag_raced": 1})
    assert store.buckets[BUCKET]["key"].data == theirs
    report = await run(store, making=making)
    assert (report.migrated, report.conditional_writes) == (1, False)
    assert any("no conditional writes" in note for note in report.notes)


async def test_what_was_deleted_meanwhile_stays_deleted(store: DescribedBackend):
    await put(store, "key", TEXT)

    def fault(call: Call) -> Exception | None:
        if call.verb == "put" and call.key == "key":
            store.buckets[BUCKET].pop("key", None)
        return None

    report = await run(FaultyBackend(store, fault=fault))
    assert (report.migrated, skipped(report)) == (0, {"vanished": 1})
    assert "key" not in store.buckets[BUCKET]


async def test_a_busy_store_is_asked_again(store: DescribedBackend):
    await put(store, "key", TEXT)
    busy = {"get": 2, "put": 2}

    def fault(call: Call) -> Exception | None:
        if call.key == "key" and busy.get(call.verb, 0) > 0:
            busy[call.verb] -= 1
            return BackendAnswer(503, "SlowDown")
        return None

    report = await run(FaultyBackend(store, fault=fault))
    assert (report.migrated, report.failed) == (1, 0), report.failures
    assert await read(store, "key") == TEXT


async def test_a_store_that_stays_busy_is_a_failure_with_its_name(store: DescribedBackend):
    await put(store, "key", TEXT)
    busy = BackendAnswer(503, "SlowDown")
    report = await run(
        FaultyBackend(
            store, fault=lambda call: busy if (call.verb, call.key) == ("put", "key") else None
        )
    )
    assert (report.migrated, report.failed) == (0, 1)
    assert [(each.key, each.op) for each in report.failures] == [("key", "PutObject")]
    assert store.buckets[BUCKET]["key"].data == TEXT


async def test_a_write_whose_answer_was_lost_is_not_done_twice(store: DescribedBackend):
    await put(store, "key", LARGE)

    class Deaf(FaultyBackend):
        async def put(self, bucket: str, key: str, body: Body, headers: Any = ()) -> Any:
            head = await super().put(bucket, key, body, headers)
            if key == "key":
                raise BackendUnavailable("connection reset")
            return head

    deaf = Deaf(store)
    report = await run(deaf)
    assert (report.migrated, report.failed) == (1, 0), report.failures
    assert [call.key for call in deaf.calls if call.verb == "put"].count("key") == 1
    assert keys.sidecar_key("key") in store.buckets[BUCKET]
    assert await read(store, "key") == LARGE


async def test_an_index_that_could_not_be_written_is_reported(store: DescribedBackend):
    await put(store, "key", LARGE)
    sidecar = keys.sidecar_key("key")
    denied = BackendAnswer(403, "AccessDenied")
    report = await run(
        FaultyBackend(
            store, fault=lambda call: denied if (call.verb, call.key) == ("put", sidecar) else None
        )
    )
    assert [(each.key, each.op) for each in report.failures] == [("key", "PutObject(sidecar)")]
    assert await read(store, "key") == LARGE


async def test_a_damaged_object_is_not_turned_back(store: DescribedBackend):
    body = world.framed(world.cut(TEXT, 9_000))
    damaged = bytearray(body.stored)
    damaged[40] ^= 1
    world.put_stored(store, "key", bytes(damaged), body.metadata)
    report = await run(store, undo=True)
    assert [(each.key, each.op) for each in report.failures] == [("key", "decode-frames")]
    assert store.buckets[BUCKET]["key"].data == bytes(damaged)


async def test_what_was_encoded_wrongly_replaces_nothing(
    store: DescribedBackend, monkeypatch: pytest.MonkeyPatch
):
    """A compressor, or the memory it works in, that makes sound frames of other bytes."""
    await put(store, "key", TEXT)
    feed = FrameEncoder.feed
    monkeypatch.setattr(FrameEncoder, "feed", lambda self, data: feed(self, bytes(data)[::-1]))
    report = await run(store)
    assert [(each.key, each.op) for each in report.failures] == [("key", "verify")]
    assert store.buckets[BUCKET]["key"].data == TEXT
