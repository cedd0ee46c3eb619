"""What is kept about an upload: written, listed, read back with suspicion, removed."""

import json
from dataclasses import replace
from typing import Any

import pytest

from s4gateway.backend.base import (
    BackendAnswer,
    BackendProtocolError,
    BackendUnavailable,
    Body,
    Head,
    HeaderList,
)
from s4gateway.backend.memory import MemoryBackend, StoredObject
from s4gateway.objects.errors import DamagedObject
from s4gateway.objects.part_facts import METADATA, PartFacts
from s4gateway.objects.uploads import PartRef, UploadRecord, Uploads, is_storable, uniform_key
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys
from s4gateway.wire.index import FrameEntry, FrameIndex
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.world import BUCKET, EPOCH

RECORD = UploadRecord("id/1", "a/key", "0123456789abcdef", "crc32c", "COMPOSITE")


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


def staged(number: int, data: bytes) -> PartFacts:
    return PartFacts(number, "a" * 32, 10, len(data), "b" * 32)


async def put_parts(uploads: Uploads, *numbers: int, record: UploadRecord = RECORD) -> None:
    for number in numbers:
        data = b"frames of %d" % number
        await uploads.store_part(BUCKET, record, staged(number, data), Body.of(data))


def names(store: MemoryBackend) -> list[str]:
    return sorted(store.buckets[BUCKET])


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        UploadRecord("ü", "k\x01 \U0001f5dc", "f" * 16),
        replace(RECORD, encryption=(("x-amz-server-side-encryption", "aws:kms"),)),
    ],
)
async def test_a_record_is_found_by_any_instance(store: MemoryBackend, record: UploadRecord):
    await Uploads(store).begin(BUCKET, record)
    found = await Uploads(store).find(BUCKET, record.key, record.upload_id)
    assert found == record


async def test_an_upload_without_a_record_is_none_and_one_of_another_key_is_refused(
    store: MemoryBackend,
):
    uploads = Uploads(store)
    assert await uploads.find(BUCKET, "a/key", "id/1") is None
    assert await uploads.find(BUCKET, "a/key", "") is None
    assert await uploads.find(BUCKET, "a/key", "x" * 600) is None
    await uploads.begin(BUCKET, RECORD)
    with pytest.raises(S3Error) as caught:
        await uploads.find(BUCKET, "another", "id/1")
    assert caught.value.code == "NoSuchUpload"


async def test_a_store_that_fails_is_not_taken_for_an_upload_without_a_record(
    store: MemoryBackend,
):
    faulty = FaultyBackend(store, fault=lambda _: BackendAnswer(503, "SlowDown"))
    with pytest.raises(BackendAnswer):
        await Uploads(faulty).find(BUCKET, "a/key", "id/1")


WRONG: list[Any] = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b"[" * 9999,
    {"v": 2},
    {"upload_id": "other"},
    {"upload_id": None},
    {"key": 5},
    {"token": "short"},
    {"token": "G" * 16},
    {"token": None},
    {"checksum_algorithm": "adler"},
    {"checksum_algorithm": ["crc32"]},
    {"checksum_type": "HALF"},
    {"checksum_type": {}},
    {"encryption": []},
    {"encryption": {"x-amz-acl": "public-read"}},
    {"encryption": {"x-amz-server-side-encryption": "a\r\nb"}},
    {"encryption": {"x-amz-server-side-encryption": 1}},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
async def test_a_record_that_is_not_as_written_is_damaged(store: MemoryBackend, wrong: Any):
    data = wrong
    if isinstance(wrong, dict):
        data = json.dumps(json.loads(RECORD.encode()) | wrong).encode()
    world.put_stored(store, keys.create_key("id/1"), data)
    with pytest.raises(DamagedObject):
        await Uploads(store).find(BUCKET, "a/key", "id/1")


async def test_a_record_too_large_is_not_read(store: MemoryBackend):
    world.put_stored(store, keys.create_key("id/1"), RECORD.encode() + b" " * 70_000)
    with pytest.raises(BackendProtocolError):
        await Uploads(store).find(BUCKET, "a/key", "id/1")


async def test_parts_are_listed_in_order_without_what_is_no_part(store: MemoryBackend):
    counting = CountingBackend(store)
    uploads = Uploads(counting)
    await put_parts(uploads, 10_000, 7, 1, 300)
    await uploads.begin(BUCKET, RECORD)
    prefix = keys.upload_prefix("id/1")
    for name in ("completion", "uniform", "00000", "10001", "000070", "0000a", "00007/x"):
        world.put_stored(store, prefix + name, b"")
    other = replace(RECORD, upload_id="id/2")
    await put_parts(uploads, 2, record=other)
    counting.calls.clear()
    refs = await uploads.parts(BUCKET, "id/1")
    assert [ref.number for ref in refs] == [1, 7, 300, 10_000]
    assert counting.calls == [call for call in counting.calls if call.verb == "list"]
    for ref in refs:
        assert ref.key == keys.part_key("id/1", ref.number)
        assert (ref.size, ref.modified[-1]) == (len(b"frames of %d" % ref.number), "Z")


async def test_listing_goes_on_where_it_is_told_and_stops_when_it_has_enough(
    store: MemoryBackend,
):
    uploads = Uploads(store)
    await put_parts(uploads, *range(1, 2203))
    await uploads.begin(BUCKET, RECORD)
    whole = await uploads.parts(BUCKET, "id/1")
    assert [ref.number for ref in whole] == list(range(1, 2203))
    for after, limit in [(0, 3), (2200, 1000), (1000, 1001), (2202, 5), (0, 2202), (0, 0)]:
        refs = await uploads.parts(BUCKET, "id/1", after, limit)
        assert refs == whole[after : after + limit]


async def test_facts_are_of_the_very_part_that_was_listed(store: MemoryBackend):
    uploads = Uploads(store)
    await put_parts(uploads, 1)
    (ref,) = await uploads.parts(BUCKET, "id/1")
    assert await uploads.facts(BUCKET, ref) == staged(1, b"frames of 1")
    await uploads.store_part(BUCKET, RECORD, staged(1, b"others"), Body.of(b"others"))
    for ask in (uploads.facts, uploads.load):
        with pytest.raises(BackendAnswer) as caught:
            await ask(BUCKET, ref)
        assert caught.value.status == 412
    ((again, facts),) = await uploads.described(BUCKET, "id/1", 0, 10, 2)
    assert (again.etag != ref.etag, facts.stored_size) == (True, 6)


@pytest.mark.parametrize(
    "facts",
    [
        "",
        staged(2, b"frames of 1").encode(),
        staged(1, b"of another size").encode(),
        '{"v":1}',
    ],
)
async def test_facts_that_do_not_fit_their_object_are_refused(store: MemoryBackend, facts: str):
    key = keys.part_key("id/1", 1)
    store.buckets[BUCKET][key] = StoredObject(b"frames of 1", ((METADATA, facts),), "e", EPOCH)
    uploads = Uploads(store)
    (ref,) = await uploads.parts(BUCKET, "id/1")
    with pytest.raises(DamagedObject):
        await uploads.facts(BUCKET, ref)


def direct(index: FrameIndex, size: int, stored: int) -> PartFacts:
    return PartFacts(1, "a" * 32, size, stored, "b" * 32, "backend-etag")


INDEX = FrameIndex.from_entries([FrameEntry(0, 10, 0, 38), FrameEntry(10, 5, 38, 33)])


async def test_a_direct_part_gives_its_index(store: MemoryBackend):
    uploads = Uploads(store)
    facts = direct(INDEX, 15, 71)
    await uploads.store_part(BUCKET, RECORD, facts, Body.of(INDEX.encode()))
    (ref,) = await uploads.parts(BUCKET, "id/1")
    assert await uploads.load(BUCKET, ref) == (facts, INDEX)


@pytest.mark.parametrize(
    ("index", "size", "stored"),
    [
        (b"", 15, 71),
        (b"S4IX" + bytes(100), 15, 71),
        (INDEX.encode()[:-1], 15, 71),
        (INDEX.encode(), 16, 71),
        (INDEX.encode(), 15, 72),
        (FrameIndex.from_entries([]).encode(), 0, 0),
        (FrameIndex.from_entries([FrameEntry(0, 15, 5, 66)]).encode(), 15, 71),
        (FrameIndex.from_entries([FrameEntry(5, 10, 0, 71)]).encode(), 15, 71),
        (FrameIndex.from_entries([FrameEntry(0, 15, 0, 90)], total_padded=71).encode(), 15, 71),
    ],
)
async def test_an_index_that_does_not_fit_its_part_is_refused(
    store: MemoryBackend, index: bytes, size: int, stored: int
):
    uploads = Uploads(store)
    await uploads.store_part(BUCKET, RECORD, direct(INDEX, size, stored), Body.of(index))
    (ref,) = await uploads.parts(BUCKET, "id/1")
    with pytest.raises(DamagedObject):
        await uploads.load(BUCKET, ref)


async def test_a_store_that_answers_with_another_version_is_not_believed(store: MemoryBackend):
    uploads = Uploads(store)
    await put_parts(uploads, 1)
    (ref,) = await uploads.parts(BUCKET, "id/1")
    head = await store.head(BUCKET, ref.key)
    with pytest.raises(BackendProtocolError):
        uploads.facts_of(head, PartRef(1, ref.key, "other", ref.size, ref.modified))


async def test_staged_parts_are_stored_under_the_encryption_of_the_object(store: MemoryBackend):
    sent: list[tuple[str, str]] = []

    class Seeing(CountingBackend):
        async def put(self, bucket: str, key: str, body: Any, headers: Any = ()) -> Any:
            sent.extend(headers)
            return await super().put(bucket, key, body, headers)

    encryption = (("x-amz-server-side-encryption", "AES256"),)
    await put_parts(Uploads(Seeing(store)), 1, record=replace(RECORD, encryption=encryption))
    assert encryption[0] in sent


async def test_removing_takes_all_of_one_upload_and_keeps_what_it_is_told(store: MemoryBackend):
    uploads = Uploads(store)
    other = replace(RECORD, upload_id="id/11")
    for record in (RECORD, other):
        await uploads.begin(BUCKET, record)
        await put_parts(uploads, 1, 2, record=record)
    world.put_stored(store, keys.completion_key("id/1"), b"{}")
    assert await uploads.remove(BUCKET, "id/1", [keys.completion_key("id/1")])
    rest = [keys.part_key("id/11", 1), keys.part_key("id/11", 2), keys.create_key("id/11")]
    assert names(store) == sorted([keys.completion_key("id/1"), *rest])
    assert await uploads.remove(BUCKET, "id/1")
    assert names(store) == sorted(rest)
    assert await uploads.remove(BUCKET, "id/1")
    assert await uploads.remove(BUCKET, "")
    assert names(store) == sorted(rest)


async def test_the_record_of_an_upload_goes_last(store: MemoryBackend):
    def fails(call: Call) -> Exception | None:
        gone = call.verb == "delete_many" and "00001" in call.key
        return BackendUnavailable("gone") if gone else None

    uploads = Uploads(FaultyBackend(store, fault=fails))
    await uploads.begin(BUCKET, RECORD)
    await put_parts(uploads, 1)
    assert not await uploads.remove(BUCKET, "id/1")
    assert keys.create_key("id/1") in names(store)


async def test_a_store_without_conditional_writes_can_fix_a_length(store: MemoryBackend):
    class Unconditional(CountingBackend):
        async def put(self, bucket: str, key: str, body: Body, headers: HeaderList = ()) -> Head:
            if any(name.startswith("if-") for name, _ in headers):
                raise BackendAnswer(501, "NotImplemented")
            return await super().put(bucket, key, body, headers)

    uploads = Uploads(Unconditional(store), uniform=True)
    for size in (7, 8):
        await uploads.fix_part_size(BUCKET, "u", size)
    assert await uploads.part_size(BUCKET, "u") == 7


async def test_the_first_length_fixed_stays(store: MemoryBackend):
    one, other = Uploads(store, uniform=True), Uploads(store, uniform=True)
    assert await one.part_size(BUCKET, "id/1") is None
    await one.fix_part_size(BUCKET, "id/1", 100)
    await other.fix_part_size(BUCKET, "id/1", 200)
    assert [await each.part_size(BUCKET, "id/1") for each in (one, other)] == [100, 100]
    await one.remove(BUCKET, "id/1")
    assert await one.part_size(BUCKET, "id/1") is None


@pytest.mark.parametrize("size", ["1", None, 0, -5, True, 2**40, []])
async def test_a_length_that_is_none_is_refused(store: MemoryBackend, size: Any):
    data = json.dumps({"v": 1, "part_size": size}).encode()
    world.put_stored(store, uniform_key("id/1"), data)
    with pytest.raises(DamagedObject):
        await Uploads(store).part_size(BUCKET, "id/1")


def test_an_id_whose_records_no_key_can_name_is_told_apart():
    longest = (1024 - len(".s4mpu//completion")) // 2
    assert is_storable("x" * longest)
    assert not is_storable("x" * (longest + 1))
