"""Parts on their way into the store: framed, staged or direct, replaced, and of equal length."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4gateway.backend import multipart
from s4gateway.backend.base import Backend, BackendAnswer, BackendUnavailable
from s4gateway.backend.memory import MemoryBackend
from s4gateway.backend.multipart import Upload
from s4gateway.codecs import decoder
from s4gateway.objects.encoding import DIGESTS, EncodedObject
from s4gateway.objects.parts import MIN_DIRECT, PartWriter, StoredPart, uniform_size
from s4gateway.objects.uploads import UploadRecord, Uploads
from s4gateway.s3.checksums import Digests
from s4gateway.s3.multipart import InitiateResult
from s4gateway.wire import frame, keys
from tests import corpus
from tests.backends import Call, FaultyBackend
from tests.objects import world
from tests.objects.world import BUCKET, MIB, Instance

KEY = "a/key"


class Sender:
    """One gateway process and one upload over `backend`; `record` may be another process's."""

    def __init__(self, backend: Backend, *, uniform: bool = False) -> None:
        self.backend = backend
        self.instance = Instance(backend)
        self.uploads = Uploads(backend, uniform=uniform)
        self.parts = PartWriter(self.uploads, self.instance.workshop, self.instance.dispatcher)

    async def begin(self) -> "Sender":
        _, document = await multipart.create(self.backend, BUCKET, KEY, [])
        upload_id = InitiateResult.parse(document).upload_id
        self.record = UploadRecord(upload_id, KEY, "0" * 16)
        self.upload = Upload(BUCKET, KEY, upload_id)
        await self.uploads.begin(BUCKET, self.record)
        return self

    async def send(
        self, number: int, body: bytes, backend: Backend | None = None
    ) -> tuple[StoredPart, EncodedObject]:
        target = await self.parts.target(self.upload, self.record, number, len(body))
        digests = Digests(DIGESTS)
        encoded = await self.parts.encode(target, pieces(body), len(body), digests)
        try:
            stored = await self.parts.store(backend or self.backend, target, encoded, {})
        finally:
            encoded.close()
        return stored, encoded

    async def stored(self, number: int) -> bytes:
        """The bytes of a part as they lie in the store, whichever way it went."""
        assert isinstance(self.backend, MemoryBackend)
        (ref,) = await self.uploads.parts(BUCKET, self.upload.upload_id, number - 1, 1)
        facts = await self.uploads.facts(BUCKET, ref)
        if facts.staged:
            return world.stored_bytes(self.backend, ref.key)
        part = self.backend.uploads.uploads[self.upload.upload_id].parts[number]
        assert part.etag == facts.backend_etag
        return part.data


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 700_000):
        yield body[start : start + 700_000]


def decoded(stored: bytes) -> bytes:
    plain: list[bytes] = []
    for _, header, payload in frame.walk(stored):
        plain += decoder.decode_frame(header, [bytes(payload)], world.CODECS)
    return b"".join(plain)


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


BODIES = {
    "empty": b"",
    "byte": b"x",
    "small-text": corpus.text(3000),
    "small-noise": corpus.noise(3000),
    "inline-limit": corpus.noise(64 * 1024),
    "beyond-inline": corpus.noise(64 * 1024 + 1),
    "text": corpus.text(9 * MIB),
    "noise": corpus.noise(9 * MIB + 1),
    "noise-head": corpus.noise(5000) + corpus.text(9 * MIB),
    "noise-tail": corpus.text(MIB) + corpus.noise(9 * MIB),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_part_is_frames_whatever_it_holds(store: MemoryBackend, name: str):
    sender, body = await Sender(store).begin(), BODIES[name]
    result, encoded = await sender.send(3, body)
    stored = await sender.stored(3)
    facts = result.facts
    assert decoded(stored) == body
    assert (facts.number, facts.size, facts.stored_size) == (3, len(body), len(stored))
    assert facts.md5 == hashlib.md5(body).hexdigest()
    assert facts.stored_md5 == hashlib.md5(stored).hexdigest()
    assert facts.staged == (len(stored) < MIN_DIRECT)
    assert len(stored) <= len(body) + 28 * (len(body) // (4 * MIB) + 1)
    assert encoded.index is not None
    assert encoded.index.total_original == len(body)
    assert encoded.index.total_padded == len(stored)
    offsets = [offset for offset, _, _ in frame.walk(stored)]
    assert [entry.compressed_offset for entry in encoded.index] == offsets
    assert sender.instance.budget.used == 0


async def test_random_data_behind_a_random_head_alone_is_not_compressed(store: MemoryBackend):
    sender = await Sender(store).begin()
    result, _ = await sender.send(1, BODIES["noise-head"])
    assert result.facts.stored_size < 6 * MIB


async def test_a_direct_part_can_be_read_by_its_index(store: MemoryBackend):
    sender, body = await Sender(store).begin(), BODIES["noise"]
    await sender.send(1, body)
    (ref,) = await sender.uploads.parts(BUCKET, sender.upload.upload_id)
    facts, index = await sender.uploads.load(BUCKET, ref)
    entry = index[1]
    stored = await sender.stored(1)
    cut = stored[entry.compressed_offset : entry.compressed_offset + entry.compressed_size]
    assert decoded(cut) == body[entry.original_offset :][: entry.original_size]
    assert not facts.staged


async def test_the_last_number_is_staged_however_large(store: MemoryBackend):
    sender = await Sender(store).begin()
    for number, staged in ((9999, False), (10_000, True)):
        result, _ = await sender.send(number, BODIES["noise"])
        assert result.facts.staged == staged


async def test_what_a_part_replaces_is_gone(store: MemoryBackend):
    sender = await Sender(store).begin()
    for name in ("noise", "small-text", "text", "noise-tail", "empty"):
        await sender.send(1, BODIES[name])
        assert decoded(await sender.stored(1)) == BODIES[name]
        assert len(await sender.uploads.parts(BUCKET, sender.upload.upload_id)) == 1


async def test_parts_sent_at_once_under_one_number_leave_one_whole_part(store: MemoryBackend):
    sender = await Sender(store).begin()
    bodies = [corpus.noise(5 * MIB + seed, seed) for seed in range(3)] + [b"small", b"s"]
    await asyncio.gather(*(sender.send(1, body) for body in bodies))
    assert decoded(await sender.stored(1)) in bodies


async def test_a_part_the_store_refuses_has_no_record(store: MemoryBackend):
    def fails(call: Call) -> Exception | None:
        return BackendUnavailable("gone") if call.verb == "forward PUT" else None

    faulty = FaultyBackend(store)
    sender = await Sender(faulty).begin()
    await sender.send(1, b"before")
    faulty.fault = fails
    with pytest.raises(BackendUnavailable):
        await sender.send(1, BODIES["noise"])
    with pytest.raises(BackendUnavailable):
        await sender.send(2, BODIES["noise"])
    (ref,) = await sender.uploads.parts(BUCKET, sender.upload.upload_id)
    assert (await sender.uploads.facts(BUCKET, ref)).size == len(b"before")
    assert sender.instance.budget.used == 0


async def test_a_client_with_a_name_of_its_own_must_be_let_in_by_the_store(store: MemoryBackend):
    sender = await Sender(store).begin()
    stranger = FaultyBackend(store, fault=lambda _: BackendAnswer(403, "AccessDenied"))
    with pytest.raises(BackendAnswer):
        await sender.send(1, b"small", backend=stranger)
    assert await sender.uploads.parts(BUCKET, sender.upload.upload_id) == []
    await sender.send(1, b"small", backend=FaultyBackend(store))
    assert decoded(await sender.stored(1)) == b"small"


N = 6 * MIB


async def test_equal_parts_go_direct_when_they_hardly_shrink(store: MemoryBackend):
    sender = await Sender(store, uniform=True).begin()
    results = {}
    for number, body in {
        2: corpus.noise(N, 2),  # before the length is fixed
        1: corpus.noise(N, 1),
        3: corpus.noise(N, 3),
        4: corpus.text(N),
        5: corpus.noise(N - 1, 5),
        6: corpus.noise(N + 1, 6),
        10_000: corpus.noise(N, 7),
    }.items():
        results[number] = (await sender.send(number, body))[0].facts
        assert decoded(await sender.stored(number)) == body
    assert [number for number in results if not results[number].staged] == [1, 3]
    assert {results[number].stored_size for number in (1, 3)} == {uniform_size(N)}
    for number in (1, 3):
        stored = await sender.stored(number)
        assert hashlib.md5(stored).hexdigest() == results[number].stored_md5


async def test_a_length_too_small_for_a_part_is_not_fixed(store: MemoryBackend):
    sender = await Sender(store, uniform=True).begin()
    await sender.send(1, corpus.noise(MIB))
    assert await sender.uploads.part_size(BUCKET, sender.upload.upload_id) is None
    other = Sender(store, uniform=True)
    other.upload, other.record = sender.upload, sender.record
    await other.send(1, corpus.noise(N))
    assert await sender.uploads.part_size(BUCKET, sender.upload.upload_id) == N


@settings(max_examples=20)
@given(st.integers(5 * MIB, 5 * 1024**3))
def test_equal_parts_have_room_for_frames_and_padding(length: int):
    frames = -(-length // (4 * MIB)) + 1
    assert uniform_size(length) >= length + 28 * frames + frame.PADDING_HEADER_SIZE


async def test_a_body_for_an_upload_of_the_stores_own_stays_as_it_is(store: MemoryBackend):
    sender = await Sender(store).begin()
    for body in BODIES.values():
        digests = Digests(DIGESTS)
        encoded = await sender.parts.encode_plain(pieces(body), len(body), digests)
        head = await multipart.put_part(store, sender.upload, 1, encoded.body)
        encoded.close()
        assert head.etag == hashlib.md5(body).hexdigest()
        assert encoded.body.md5 == base64.b64encode(bytes.fromhex(head.etag)).decode()
        assert store.uploads.uploads[sender.upload.upload_id].parts[1].data == body


async def test_records_lie_where_clients_cannot_see_them(store: MemoryBackend):
    sender = await Sender(store).begin()
    await sender.send(1, b"x")
    assert all(keys.is_hidden(name) for name in store.buckets[BUCKET])
