"""Collecting what is left of uploads that are no more, and nothing else."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from s4gateway.backend import multipart
from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendError,
    BackendUnavailable,
    Body,
    DeleteFailure,
    DeleteFailures,
    Head,
    HeaderList,
    ObjectStream,
)
from s4gateway.backend.memory import MemoryBackend, MemoryStream
from s4gateway.backend.multipart import Upload
from s4gateway.objects import collection, removal
from s4gateway.objects.collection import CollectionReport, collect_uploads
from s4gateway.s3.headers import Headers
from s4gateway.wire import keys
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.uploading import KEY, Process, records, wanted
from tests.objects.world import BUCKET

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


async def collect(
    backend: Backend, *, now: datetime = NOW, older_than: timedelta = HOUR, execute: bool = True
) -> CollectionReport:
    return await collect_uploads(backend, BUCKET, now=now, older_than=older_than, execute=execute)


async def begun(store: MemoryBackend, key: str = KEY, parts: int = 2) -> Upload:
    process = Process(store)
    upload = await process.begin(key)
    for number in range(1, parts + 1):
        await process.send(upload, number, b"part")
    return upload


async def forgotten(store: MemoryBackend, key: str = KEY) -> Upload:
    """An upload whose records are there and which the store knows nothing of."""
    upload = await begun(store, key)
    await multipart.abort(store, upload)
    return upload


async def test_nothing_of_a_live_upload_is_touched(store: MemoryBackend):
    await begun(store)
    before = dict(store.buckets[BUCKET])
    report = await collect(store)
    assert report == CollectionReport(records_listed=3, live_uploads=1)
    assert store.buckets[BUCKET] == before


async def test_what_is_left_of_a_dead_one_goes_and_nothing_else_does(store: MemoryBackend):
    await begun(store, "alive")
    await forgotten(store)
    await Process(store).instance.put("an object", b"x")
    report = await collect(store)
    assert report == CollectionReport(6, 1, orphaned=3, deleted=3)
    assert records(store) == ["00001", "00002", "create"]
    assert "an object" in store.buckets[BUCKET]
    assert (await collect(store)).records_listed == 3


async def test_without_execute_it_only_says_what_would_go(store: MemoryBackend):
    await forgotten(store)
    before = dict(store.buckets[BUCKET])
    assert await collect(store, execute=False) == CollectionReport(3, orphaned=3, deleted=3)
    assert store.buckets[BUCKET] == before


async def test_what_was_written_lately_is_left_alone_with_all_that_belongs_to_it(
    store: MemoryBackend,
):
    upload = await forgotten(store)
    lately = datetime.now(UTC)
    old = store.buckets[BUCKET][keys.create_key(upload.upload_id)]
    world.put_stored(store, keys.create_key(upload.upload_id), old.data)  # dated EPOCH
    report = await collect(store, now=lately)
    assert report == CollectionReport(3, skipped_too_recent=3)
    assert len(records(store)) == 3


async def test_a_completed_upload_leaves_one_record_which_goes(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin()
    one = await process.send(upload, 1, b"x")
    await process.complete(wanted(upload, one))
    report = await collect(store)
    assert report == CollectionReport(1, orphaned=1, deleted=1, completion_records=1)
    assert records(store) == []


async def test_an_object_completed_without_its_index_is_named(store: MemoryBackend):
    def fault(call: Call) -> Exception | None:
        committed = KEY in store.buckets[BUCKET]
        return BackendUnavailable("killed") if committed else None

    sending = Process(store)
    upload = await sending.begin()
    one = await sending.send(upload, 1, b"x")
    await Process(FaultyBackend(store, fault=fault)).complete(wanted(upload, one))
    report = await collect(store)
    assert report.phantom_committed_keys == (KEY,)
    assert (report.orphaned, report.completion_records, report.deleted) == (3, 1, 3)
    assert records(store) == []
    assert await Process(store).instance.get(KEY) == b"x"


async def test_a_record_of_an_upload_that_never_was_completed_names_no_object(
    store: MemoryBackend,
):
    upload = await forgotten(store)
    process = Process(store)
    with pytest.raises(Exception, match=r"InvalidPart|NoSuchUpload"):
        await process.complete(wanted(upload, await process.send(upload, 1, b"part")))
    report = await collect(store)
    assert report.phantom_committed_keys == ()
    assert records(store) == []


@pytest.mark.parametrize(
    "key", [".s4mpu/x", ".s4mpu/zz/create", ".s4mpu/6d/a/b", ".s4mpu/6D/create"]
)
async def test_a_key_that_is_no_record_is_left_alone(store: MemoryBackend, key: str):
    world.put_stored(store, key, b"?")
    assert await collect(store) == CollectionReport(1, skipped_unparseable=1)
    assert key in store.buckets[BUCKET]


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 9000, b"\xff"])
@pytest.mark.parametrize("which", [keys.create_key, keys.completion_key])
async def test_an_upload_whose_record_is_unreadable_is_left_alone(
    store: MemoryBackend, which: Callable[[str], str], data: bytes
):
    upload = await forgotten(store)
    world.put_stored(store, which(upload.upload_id), data)
    report = await collect(store)
    assert (report.deleted, report.skipped_unparseable) == (0, report.records_listed)


async def test_parts_without_a_record_that_names_their_upload_go(store: MemoryBackend):
    upload = await forgotten(store)
    del store.buckets[BUCKET][keys.create_key(upload.upload_id)]
    assert await collect(store) == CollectionReport(2, orphaned=2, deleted=2)


class Forgetful(CountingBackend):
    """Lists no uploads, as stores do that want to be asked for a key."""

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: HeaderList,
        body: Body | None = None,
    ) -> ObjectStream:
        if method == "GET" and "uploads" in raw_query.split("=", maxsplit=1)[0].split("&"):
            data = b"<ListMultipartUploadsResult/>"
            return MemoryStream(Head(200, Headers([])), data)
        return await super().forward(method, raw_path, raw_query, headers, body)


async def test_an_upload_the_store_does_not_list_is_asked_for_by_its_id(store: MemoryBackend):
    await begun(store, "alive")
    await forgotten(store, "dead")
    report = await collect(Forgetful(store))
    assert report == CollectionReport(6, orphaned=3, deleted=3)
    assert len(store.uploads.uploads) == 1
    assert len(records(store)) == 3


class Listing(CountingBackend):
    """Lists uploads in pages of its own; `meanwhile` happens before the first."""

    def __init__(
        self,
        inner: Backend,
        pages: list[bytes] | None = None,
        meanwhile: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        super().__init__(inner)
        self.pages = pages
        self.meanwhile = meanwhile

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: HeaderList,
        body: Body | None = None,
    ) -> ObjectStream:
        if method == "GET" and raw_query.startswith("uploads"):
            if self.meanwhile is not None:
                await self.meanwhile()
            if self.pages is not None:
                await self.before(Call("uploads", query=raw_query))
                data = self.pages.pop(0)
                return MemoryStream(Head(200, Headers([])), data)
        return await super().forward(method, raw_path, raw_query, headers, body)


def page(*uploads: Upload, following: str = "") -> bytes:
    inner = "".join(
        f"<Upload><Key>{each.key}</Key><UploadId>{each.upload_id}</UploadId></Upload>"
        for each in uploads
    )
    return (f"<ListMultipartUploadsResult>{inner}{following}</ListMultipartUploadsResult>").encode()


async def test_live_uploads_are_listed_to_the_last_page(store: MemoryBackend):
    one, two = await begun(store, "one"), await begun(store, "two")
    more = (
        "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
        "<NextKeyMarker>o%20ne</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker>"
    )
    backend = Listing(store, [page(one, following=more), page(two)])
    assert await collect(backend) == CollectionReport(6, 2)
    assert "key-marker=o%20ne&upload-id-marker=i" in backend.calls[-1].query


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"<ListBucketResult/>",
        page(following="<IsTruncated>true</IsTruncated>"),
    ],
)
async def test_a_listing_of_uploads_that_cannot_be_trusted_ends_it(
    store: MemoryBackend, document: bytes
):
    await forgotten(store)
    with pytest.raises(BackendError):
        await collect(Listing(store, [document]))
    assert len(records(store)) == 3


async def test_a_listing_of_uploads_that_turns_in_a_circle_ends_it(store: MemoryBackend):
    again = page(following="<IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker>")
    with pytest.raises(BackendError):
        await collect(Listing(store, [again, again, again]))


async def test_an_upload_that_begins_between_the_two_listings_is_not_touched(
    store: MemoryBackend,
):
    fresh: list[Upload] = []

    async def begin() -> None:
        fresh.append(await begun(store, "fresh"))

    report = await collect(Listing(store, meanwhile=begin))
    assert report == CollectionReport(0, live_uploads=1)
    assert len(records(store)) == 3


async def test_what_cannot_be_found_out_is_not_deleted(store: MemoryBackend):
    await forgotten(store)

    def fault(call: Call) -> Exception | None:
        asked = call.verb == "forward GET" and "uploadId" in call.query
        return BackendAnswer(500, "InternalError") if asked else None

    report = await collect(FaultyBackend(store, fault=fault))
    assert report == CollectionReport(3, failed=3)
    assert len(records(store)) == 3


class Keeping(CountingBackend):
    """Deletes nothing, as under an Object Lock."""

    async def delete_many(self, bucket: str, keys: object) -> DeleteFailures:
        return [DeleteFailure("k", "AccessDenied", "locked")]


async def test_what_cannot_be_deleted_is_counted(store: MemoryBackend):
    await forgotten(store)
    report = await collect(Keeping(store))
    assert report == CollectionReport(3, orphaned=3, failed=3)


async def test_records_are_listed_before_live_uploads(store: MemoryBackend):
    backend = CountingBackend(store)
    await forgotten(store)
    await collect(backend)
    verbs = [call.verb for call in backend.calls]
    assert verbs.index("list") < verbs.index("forward GET")


async def test_memory_does_not_grow_with_the_records(
    store: MemoryBackend, monkeypatch: pytest.MonkeyPatch
):
    """Live uploads are asked for anew after each batch, and no upload is cut in two."""
    monkeypatch.setattr(collection, "_HELD", 1)
    monkeypatch.setattr(removal, "_PAGE", 4)
    alive = await begun(store, "alive")
    for number in range(9):
        await forgotten(store, f"key-{number}")
    backend = CountingBackend(store)
    report = await collect(backend)
    assert report == CollectionReport(30, live_uploads=1, orphaned=27, deleted=27)
    assert {keys.parse_upload_key(each) for each in store.buckets[BUCKET]} == {
        (alive.upload_id, name) for name in ("create", "00001", "00002")
    }
    asked = [call for call in backend.calls if call.query.startswith("uploads=")]
    assert len(asked) > 3
