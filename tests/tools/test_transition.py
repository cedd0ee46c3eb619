"""Moving objects into another storage class: all of them, nothing lost, sidecars behind them."""

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from s4gateway.backend import base, multipart
from s4gateway.backend.base import BackendAnswer, BackendUnavailable
from s4gateway.backend.memory import MemoryBackend, MemoryStream, StoredObject
from s4gateway.objects.copying import LARGEST
from s4gateway.s3 import xml
from s4gateway.s3.headers import Headers
from s4gateway.tools.patience import Patience
from s4gateway.tools.target import Target
from s4gateway.tools.transition import transition
from s4gateway.tools.transition_report import TransitionParams, TransitionReport
from s4gateway.wire import keys
from s4gateway.wire.index import FrameIndex
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.world import BUCKET, EPOCH

COLD = "GLACIER_IR"
BODY = world.framed([b"some text " * 50] * 3)
OTHER = world.framed([b"written anew " * 50] * 4)
COMPOSITE = "0123456789abcdef0123456789abcdef-2"
ONCE = Patience(attempts=1)
DAY = timedelta(days=1)


@pytest.fixture
def store() -> MemoryBackend:
    """Two objects, one with a sidecar, beside what is the gateway's own."""
    store = MemoryBackend.with_buckets(BUCKET)
    world.put_stored(store, "a/plain", b"plain")
    world.put_indexed(store, "a/framed", BODY)
    for key in (".s4dict/0123456789abcdef", ".s4mpu/75/create", "a/framed.__s4ver__/1"):
        world.put_stored(store, key, b"internal")
    return store


def params(prefix: str = "", **more: Any) -> TransitionParams:
    wanted = TransitionParams(
        target=Target(BUCKET, prefix), storage_class=COLD, execute=True, patience=ONCE
    )
    return replace(wanted, **more)


async def move(backend: base.Backend, **more: Any) -> TransitionReport:
    return await transition(backend, params(**more), now=EPOCH + DAY)


def classes(store: MemoryBackend) -> dict[str, str]:
    return {
        key: dict(each.headers).get("x-amz-storage-class", "STANDARD")
        for key, each in store.buckets[BUCKET].items()
    }


def cold(store: MemoryBackend) -> set[str]:
    return {key for key, each in classes(store).items() if each == COLD}


def relabel(store: MemoryBackend, key: str, storage_class: str, etag: str | None = None) -> None:
    old = store.buckets[BUCKET][key]
    kept = tuple(each for each in old.headers if each[0] != "x-amz-storage-class")
    headers = (*kept, ("x-amz-storage-class", storage_class))
    store.buckets[BUCKET][key] = StoredObject(old.data, headers, etag or old.etag, old.modified)


def index(store: MemoryBackend, key: str) -> FrameIndex:
    return FrameIndex.decode(world.stored_bytes(store, keys.sidecar_key(key)))


async def test_a_dry_run_counts_and_writes_nothing(store: MemoryBackend):
    before = dict(store.buckets[BUCKET])
    counting = CountingBackend(store)
    report = await move(counting, execute=False)
    assert store.buckets[BUCKET] == before
    assert {call.verb for call in counting.calls} == {"list", "forward GET"}  # ?versioning
    assert (report.total_objects, report.transitioned, report.transitioned_sidecars) == (2, 2, 1)
    assert report.total_bytes == report.transitioned_bytes == len(b"plain") + len(BODY.stored)
    assert report.dry_run
    assert any("dry run" in note for note in report.notes)


async def test_objects_move_with_their_sidecars_and_nothing_else_does(store: MemoryBackend):
    report = await move(store)
    assert cold(store) == {"a/plain", "a/framed", "a/framed.s4index"}
    assert (report.transitioned, report.transitioned_sidecars, report.failed) == (2, 1, 0)
    assert world.stored_bytes(store, "a/framed") == BODY.stored
    assert index(store, "a/framed").is_bound_to(
        store.buckets[BUCKET]["a/framed"].etag, len(BODY.stored)
    )


async def test_a_second_run_finds_everything_in_its_class(store: MemoryBackend):
    await move(store)
    counting = CountingBackend(store)
    report = await move(counting)
    assert (report.transitioned, report.transitioned_sidecars) == (0, 0)
    assert report.skipped_already_target_class == 2
    assert {call.verb for call in counting.calls} == {"list", "forward GET"}


async def test_objects_move_back_to_standard(store: MemoryBackend):
    await move(store)
    report = await move(store, storage_class="STANDARD")
    assert cold(store) == set()
    assert (report.transitioned, report.transitioned_sidecars) == (2, 1)
    assert (await move(store, storage_class="STANDARD")).skipped_already_target_class == 2


async def test_what_is_stored_with_an_object_is_stored_with_its_copy(store: MemoryBackend):
    described = (
        ("cache-control", "max-age=3"),
        ("content-disposition", "inline"),
        ("content-encoding", "br"),
        ("content-language", "de"),
        ("content-type", "text/plain"),
        ("expires", "Tue, 01 Jan 2030 00:00:00 GMT"),
        *((f"x-amz-meta-{name}", text) for name, text in BODY.metadata.items()),
        ("x-amz-meta-color", "blue"),
    )
    store.buckets[BUCKET]["k"] = StoredObject(BODY.stored, described, "e" * 32, EPOCH)
    assert (await move(store, target=Target(BUCKET, "k"))).transitioned == 1
    kept = dict(store.buckets[BUCKET]["k"].headers)
    assert kept == {**dict(described), "x-amz-storage-class": COLD}


@dataclass(eq=False)
class Recording(CountingBackend):
    """Keeps the headers of every copy; answers `acl` with what it is told."""

    acl: str = ""

    def __post_init__(self) -> None:
        self.copies: list[dict[str, str]] = []

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        if raw_query == "acl=" and self.acl:
            document = f"<AccessControlPolicy>{self.acl}</AccessControlPolicy>".encode()
            return MemoryStream(base.Head(200, Headers([])), document)
        if method == "PUT":
            self.copies.append(dict(headers))
        return await super().forward(method, raw_path, raw_query, headers, body)


def show(store: MemoryBackend, key: str, *headers: tuple[str, str]) -> None:
    """Lay an object that a HEAD shows with these headers."""
    store.buckets[BUCKET][key] = StoredObject(b"x", headers, "e" * 32, EPOCH)


async def test_a_copy_is_pinned_and_says_again_what_would_be_lost():
    store = MemoryBackend.with_buckets(BUCKET)
    shown = {
        "x-amz-website-redirect-location": "/other",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "key",
    }
    show(store, "ä b+%2F", *shown.items())
    owner = "<Owner><ID>me</ID></Owner>"
    grant = "<Grant><Grantee><ID>you</ID></Grantee><Permission>READ</Permission></Grant>"
    acl = f"{owner}<AccessControlList>{grant}</AccessControlList>"
    recording = Recording(store, acl=acl)
    assert (await move(recording)).transitioned == 1
    (copy,) = recording.copies
    assert copy.items() >= shown.items()
    pinned = f'"{"e" * 32}"'
    assert (copy["x-amz-copy-source-if-match"], copy["if-match"]) == (pinned, pinned)
    assert copy["x-amz-metadata-directive"] == "REPLACE"
    assert copy["x-amz-grant-read"] == 'id="you"'
    assert copy["x-amz-copy-source"] == multipart.object_path(BUCKET, "ä b+%2F")
    assert "x-amz-tagging-directive" not in copy  # tags follow by themselves


@pytest.mark.parametrize("change", ["overwritten", "deleted"])
async def test_an_object_that_changes_between_look_and_copy_stays_as_it_is(
    store: MemoryBackend, change: str
):
    def race(call: Call) -> None:
        if call.verb == "forward PUT" and call.key.endswith("/framed"):
            if change == "overwritten":
                world.put_indexed(store, "a/framed", OTHER)
            else:
                del store.buckets[BUCKET]["a/framed"]

    report = await move(FaultyBackend(store, fault=race))
    assert (report.skipped_etag_raced, report.transitioned, report.failed) == (1, 1, 0)
    assert cold(store) == {"a/plain"}
    if change == "overwritten":
        assert world.stored_bytes(store, "a/framed") == OTHER.stored


async def test_an_object_that_changed_since_the_listing_stays_as_it_is(store: MemoryBackend):
    def race(call: Call) -> None:
        if (call.verb, call.key) == ("head", "a/framed"):
            world.put_indexed(store, "a/framed", OTHER)

    report = await move(FaultyBackend(store, fault=race))
    assert (report.skipped_etag_raced, report.failed) == (1, 0)
    assert cold(store) == {"a/plain"}


async def test_an_object_that_was_moved_since_the_listing_is_there_already(store: MemoryBackend):
    def race(call: Call) -> None:
        if (call.verb, call.key) == ("head", "a/plain"):
            relabel(store, "a/plain", COLD)

    report = await move(FaultyBackend(store, fault=race))
    assert (report.skipped_already_target_class, report.transitioned) == (1, 1)


async def test_age_is_judged_and_an_unknown_age_is_young(store: MemoryBackend):
    class Undated(CountingBackend):
        async def list(self, bucket: str, raw_query: str) -> bytes:
            document = await super().list(bucket, raw_query)
            return document.replace(b"2025-03-01T", b"yesterday ")

    for backend, age in ((store, 2 * DAY), (Undated(store), DAY)):
        report = await move(backend, older_than=age)
        assert (report.skipped_too_recent, report.transitioned) == (2, 0)
        assert report.older_than_secs == age.total_seconds()
    report = await move(store, older_than=DAY)
    assert (report.skipped_too_recent, report.transitioned) == (0, 2)


async def test_what_no_single_copy_takes_is_left_alone(store: MemoryBackend):
    class Inflated(CountingBackend):
        async def list(self, bucket: str, raw_query: str) -> bytes:
            document = await super().list(bucket, raw_query)
            return document.replace(b"<Size>5</Size>", b"<Size>%d</Size>" % (LARGEST + 1))

    report = await move(Inflated(store))
    assert (report.skipped_too_large, report.transitioned) == (1, 1)
    assert any("too large" in note for note in report.notes)


async def test_a_sidecar_is_bound_to_the_etag_of_the_copy(store: MemoryBackend):
    """S3 gives a copy of what was uploaded in parts another ETag."""
    relabel(store, "a/framed", "STANDARD", COMPOSITE)
    bound = BODY.index.bind(COMPOSITE, len(BODY.stored))
    world.put_sidecar(store, "a/framed", bound.encode())
    report = await move(store)
    assert (report.transitioned_sidecars, report.rebound_sidecars) == (1, 1)
    moved = store.buckets[BUCKET]["a/framed"]
    assert moved.etag == hashlib.md5(BODY.stored).hexdigest()
    assert index(store, "a/framed").describes(moved.etag, len(BODY.stored))
    assert list(index(store, "a/framed")) == list(BODY.index)
    assert "a/framed.s4index" in cold(store)


@pytest.mark.parametrize("kept", [b"a client's own notes", OTHER.index.bind("x", 7).encode()])
async def test_a_sidecar_of_nothing_known_moves_as_it_is(store: MemoryBackend, kept: bytes):
    relabel(store, "a/framed", "STANDARD", COMPOSITE)
    world.put_sidecar(store, "a/framed", kept)
    report = await move(store)
    assert (report.transitioned_sidecars, report.rebound_sidecars) == (1, 0)
    assert world.stored_bytes(store, "a/framed.s4index") == kept
    assert "a/framed.s4index" in cold(store)


async def test_a_sidecar_that_was_left_behind_follows_later(store: MemoryBackend):
    relabel(store, "a/framed", COLD)
    for key in ("a/framed!", "a/framed/below", "a/framed.between"):
        world.put_stored(store, key, b"between an object and its sidecar")
    dry = await move(store, execute=False)
    assert dry.transitioned_sidecars == 1
    report = await move(store)
    assert (report.skipped_already_target_class, report.transitioned_sidecars) == (1, 1)
    assert report.rebound_sidecars == 0
    assert "a/framed.s4index" in cold(store)


async def test_a_sidecar_left_behind_by_a_killed_run_is_made_anew(store: MemoryBackend):
    """The object was copied, and the process died before the sidecar knew of the new ETag."""
    world.put_sidecar(store, "a/framed", BODY.index.bind(COMPOSITE, len(BODY.stored)).encode())
    relabel(store, "a/framed", COLD)
    report = await move(store)
    assert (report.transitioned_sidecars, report.rebound_sidecars) == (1, 1)
    etag = store.buckets[BUCKET]["a/framed"].etag
    assert index(store, "a/framed").describes(etag, len(BODY.stored))
    assert "a/framed.s4index" in cold(store)


async def test_a_sidecar_is_never_moved_on_its_own(store: MemoryBackend):
    world.put_sidecar(store, "a/gone", BODY.index.encode())
    report = await move(store, older_than=2 * DAY)
    assert cold(store) == set()
    report = await move(store)
    assert report.transitioned_sidecars == 1
    assert "a/gone.s4index" not in cold(store)


async def test_a_sidecar_written_meanwhile_is_its_writers(store: MemoryBackend):
    def race(call: Call) -> None:
        if call.verb == "forward PUT" and call.key.endswith(".s4index"):
            world.put_sidecar(store, "a/framed", OTHER.index.encode())

    report = await move(FaultyBackend(store, fault=race))
    assert (report.transitioned, report.transitioned_sidecars, report.failed) == (2, 0, 0)
    assert world.stored_bytes(store, "a/framed.s4index") == OTHER.index.encode()


def _fails(verb: str, key: str, error: Exception) -> Any:
    return lambda call: error if call.verb == verb and call.key.endswith(key) else None


@pytest.mark.parametrize("error", [BackendAnswer(403, "AccessDenied"), BackendUnavailable("no")])
@pytest.mark.parametrize(
    ("verb", "key", "op"),
    [
        ("head", "framed", "HeadObject(pre-copy)"),
        ("forward PUT", "framed", "CopyObject"),
        ("head", "framed.s4index", "HeadObject(sidecar)"),
        ("forward PUT", "framed.s4index", "CopyObject(sidecar)"),
    ],
)
async def test_what_fails_is_named_and_tried_again_by_the_next_run(
    store: MemoryBackend, verb: str, key: str, op: str, error: Exception
):
    report = await move(FaultyBackend(store, fault=_fails(verb, key, error)))
    sidecar = key.endswith(".s4index")
    assert [(each.key, each.op) for each in report.failures] == [(f"a/{key}", op)]
    assert (report.failed, report.transitioned) == (1, 2 if sidecar else 1)
    again = await move(store)
    assert (again.failed, again.transitioned_sidecars) == (0, 1)
    assert cold(store) == {"a/plain", "a/framed", "a/framed.s4index"}


async def test_a_store_that_says_later_is_asked_later(store: MemoryBackend):
    refusals = [BackendAnswer(503, "SlowDown")] * 2

    def busy(call: Call) -> Exception | None:
        return refusals.pop() if call.verb == "forward PUT" and refusals else None

    patient = Patience(attempts=3, first=0.0)
    report = await move(FaultyBackend(store, fault=busy), patience=patient, concurrency=1)
    assert (report.transitioned, report.failed, refusals) == (2, 0, [])


@pytest.mark.parametrize(
    ("headers", "count"),
    [
        ((("x-amz-object-lock-mode", "GOVERNANCE"),), "skipped_locked"),
        ((("x-amz-object-lock-legal-hold", "ON"),), "skipped_locked"),
        (
            (("x-amz-server-side-encryption-customer-algorithm", "AES256"),),
            "skipped_encrypted",
        ),
        ((("x-amz-missing-meta", "1"),), "failed"),
    ],
)
async def test_what_a_copy_cannot_say_again_is_a_reason_not_to_make_it(
    headers: tuple[tuple[str, str], ...], count: str
):
    store = MemoryBackend.with_buckets(BUCKET)
    show(store, "k", *headers)
    report = await move(store)
    assert (getattr(report, count), report.transitioned) == (1, 0)
    assert cold(store) == set()


async def test_a_grant_that_no_header_expresses_is_not_dropped(store: MemoryBackend):
    grant = "<Grant><Grantee></Grantee><Permission>READ</Permission></Grant>"
    report = await move(Recording(store, acl=grant))
    assert (report.skipped_acl, report.transitioned) == (2, 0)
    assert cold(store) == set()


async def test_archived_objects_are_counted_apart(store: MemoryBackend):
    error = BackendAnswer(403, "InvalidObjectState")
    report = await move(FaultyBackend(store, fault=_fails("forward PUT", "plain", error)))
    assert (report.skipped_archived, report.failed, report.transitioned) == (1, 0, 1)
    assert any("restored" in note for note in report.notes)


async def test_a_store_without_conditions_on_copies_is_named_and_still_pinned(
    store: MemoryBackend,
):
    class Simple(Recording):
        async def forward(
            self,
            method: str,
            raw_path: str,
            raw_query: str,
            headers: base.HeaderList,
            body: base.Body | None = None,
        ) -> base.ObjectStream:
            if "if-match" in dict(headers):
                raise BackendAnswer(501, "NotImplemented")
            return await super().forward(method, raw_path, raw_query, headers, body)

    simple = Simple(store)
    report = await move(simple)
    assert (report.transitioned, report.transitioned_sidecars) == (2, 1)
    assert all("x-amz-copy-source-if-match" in copy for copy in simple.copies)
    assert any("no condition" in note for note in report.notes)


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(
    ("status", "enabled"), [("Enabled", True), ("Suspended", False), (None, None)]
)
async def test_the_report_says_whether_old_versions_stay_and_are_counted(
    store: MemoryBackend, status: str | None, enabled: bool | None, marked: bool
):
    if marked:
        world.put_stored(store, "marked", BODY.stored, BODY.metadata | {"s4-ledger": "1"})

    class Versioned(CountingBackend):
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
            if status is None:
                raise BackendAnswer(403, "AccessDenied")
            document = xml.document("VersioningConfiguration", xml.leaf("Status", status))
            return MemoryStream(base.Head(200, Headers([])), document)

    report = await move(Versioned(store))
    assert report.versioning_enabled is enabled
    counted = any("s4 savings --rescan" in note for note in report.notes)
    assert counted is (marked and enabled is not False)
    warned = {"noncurrent": enabled is True, "could not determine": enabled is None}
    for words, expected in warned.items():
        assert any(words in note for note in report.notes) is expected


async def test_a_bucket_that_is_not_there_is_an_error(store: MemoryBackend):
    with pytest.raises(BackendAnswer, match="NoSuchBucket"):
        await move(store, target=Target("other"))


async def test_nothing_found_is_said(store: MemoryBackend):
    report = await move(store, target=Target(BUCKET, "nothing/"))
    assert any(note.startswith("no objects under bucket/nothing/") for note in report.notes)
