"""Objects assembled from parts: right size, ETag and bytes, for the price a single PUT has."""

import base64
import random
from dataclasses import replace

import pytest

from s4gateway.backend.base import BackendAnswer
from s4gateway.backend.memory import MemoryBackend
from s4gateway.objects.errors import DamagedObject
from s4gateway.s3.documents import ListedObject
from s4gateway.s3.errors import S3Error
from s4gateway.wire import manifest
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.index import FrameEntry
from s4gateway.wire.tail import COMPOSITE, FULL_OBJECT, PROBE
from tests import corpus
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.tailed import TOKEN, Tailed, put_tailed, tailed
from tests.objects.world import BUCKET, MIB, Instance

PASSTHROUGH = (CodecId.PASSTHROUGH,)


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


def small() -> Tailed:
    return tailed([corpus.text(7000, 1), corpus.text(7000, 2), corpus.text(300, 3)], padding=40)


def large() -> Tailed:
    parts = [corpus.noise(900_000, 1), corpus.noise(700_000, 2), corpus.noise(10, 3)]
    return tailed(parts, frame_size=300_000, padding=1000, codecs=PASSTHROUGH)


def calls(counting: CountingBackend) -> list[tuple[str, str, tuple[int, int] | None]]:
    found = [(call.verb, call.key, call.byte_range) for call in counting.calls]
    counting.calls.clear()
    return found


async def test_a_look_costs_a_head_and_once_a_small_read_of_the_end(store: MemoryBackend):
    body = large()
    put_tailed(store, "k", body)
    counting = CountingBackend(store)
    instance = Instance(counting)
    end = len(body.stored)
    for again in (False, True):
        found = await instance.reader.attributes(instance.source("k"))
        assert (found.size, found.etag) == (len(body.plain), body.tail.etag)
        tail_read = [] if again else [("get", "k", (end - PROBE, end))]
        assert calls(counting) == [("head", "k", None), *tail_read]
    assert counting.received == PROBE


async def test_a_small_object_is_read_whole_with_one_request(store: MemoryBackend):
    zeros = tailed([bytes(3 * MIB), bytes(1000)], frame_size=MIB)
    assert len(zeros.stored) < 64 * 1024
    for key, body in {"text": small(), "zeros": zeros}.items():
        put_tailed(store, key, body)
        counting = CountingBackend(store)
        instance = Instance(counting)
        for _ in range(2):
            opened = await instance.reader.open_whole(instance.source(key))
            attributes = opened.attributes
            assert (attributes.size, attributes.etag) == (len(body.plain), body.tail.etag)
            assert opened.end == len(body.plain)
            assert await world.drained(opened) == body.plain
            assert opened.backend_bytes == len(body.stored)
            assert calls(counting) == [("get", key, None)]
        assert instance.budget.used == 0


async def test_a_large_object_is_read_whole_with_one_request_more_when_it_is_not_known(
    store: MemoryBackend,
):
    body = large()
    put_tailed(store, "k", body)
    counting = CountingBackend(store)
    instance = Instance(counting)
    end = len(body.stored)
    assert await instance.get("k") == body.plain
    assert calls(counting) == [("get", "k", None), ("get", "k", (end - PROBE, end))]
    assert await instance.get("k") == body.plain
    assert calls(counting) == [("get", "k", None)]
    assert instance.budget.used == 0


async def test_a_range_costs_what_it_costs_in_an_object_written_at_once(store: MemoryBackend):
    source = random.Random(5)
    parts = [corpus.text(source.randint(1, 9000), seed) for seed in range(12)]
    body = tailed(parts, frame_size=700, padding=90)
    put_tailed(store, "k", body)
    counting = CountingBackend(store)
    instance = Instance(counting)
    attributes = await instance.reader.attributes(instance.source("k"))
    calls(counting)
    size = len(body.plain)
    edges = [at for span in body.spans for at in span] + [e.original_offset for e in body.entries]
    spans = [(at, at + 1) for at in edges if at < size] + [(size - 1, size), (0, size)]
    spans += [(a - 1, a + 2) for a, _ in body.spans[1:] if a + 2 <= size]
    for _ in range(200):
        start = source.randrange(size)
        spans.append((start, source.randint(start + 1, size)))
    for start, end in spans:
        data, fallback = await instance.ranged_of(attributes, "k", start, end)
        assert (data, fallback) == (body.plain[start:end], None)
    asked = calls(counting)
    assert [key for _, key, _ in asked] == ["k.s4index"] + ["k"] * len(spans)
    reach = {entry.compressed_offset for entry in body.entries}
    assert all(span is not None and span[0] in reach for _, _, span in asked[1:])


async def test_parts_are_found_by_their_position(store: MemoryBackend):
    parts = [corpus.text(3000, 1), b"", corpus.text(4000, 2)]
    put_tailed(store, "k", tailed(parts, numbers=[2, 7, 9000]))
    instance = Instance(store)
    attributes = await instance.reader.attributes(instance.source("k"))
    assert attributes.part_count == 3
    spans = [attributes.part_span(position) for position in (1, 2, 3)]
    assert spans == [(0, 3000), (3000, 3000), (3000, 7000)]
    assert await instance.get_range("k", *spans[2]) == parts[2]


async def test_a_tail_of_many_unlike_parts_takes_two_reads(store: MemoryBackend):
    body = tailed([bytes(size) for size in range(1, 2500)], frame_size=10_000)
    assert len(body.tail.encode()) > PROBE
    put_tailed(store, "k", body)
    counting = CountingBackend(store)
    instance = Instance(counting)
    found = await instance.reader.attributes(instance.source("k"))
    assert (found.size, found.tail) == (len(body.plain), body.tail)
    end = len(body.stored)
    start = end - PROBE
    first = end - len(body.tail.encode())
    assert calls(counting)[1:] == [("get", "k", (start, end)), ("get", "k", (first, start))]
    await instance.reader.attributes(instance.source("k"))
    assert calls(counting) == [("head", "k", None)]


def damaged(body: Tailed) -> dict[str, tuple[bytes, str]]:
    """Stored bytes and the token in the metadata."""
    flipped = bytearray(body.stored)
    flipped[len(body.frames) + 30] ^= 1
    other = replace(body.tail, token="f" * 16)
    return {
        "no tail": (body.frames, TOKEN),
        "a changed byte": (bytes(flipped), TOKEN),
        "another's tail": (body.frames + other.encode(), TOKEN),
        "another token": (body.stored, "0" * 16),
        "a second tail behind it": (body.stored + other.encode(), TOKEN),
    }


@pytest.mark.parametrize("kind", list(damaged(small())))
async def test_without_a_tail_to_be_trusted_a_bound_sidecar_tells_size_and_bytes(
    store: MemoryBackend, kind: str
):
    body = small()
    stored, token = damaged(body)[kind]
    backend_etag = put_tailed(store, "k", body, stored=stored, token=token, indexed=True)
    counting = CountingBackend(store)
    instance = Instance(counting)
    found = await instance.reader.attributes(instance.source("k"))
    assert (found.size, found.etag, found.tail) == (len(body.plain), backend_etag, None)
    calls(counting)
    await instance.reader.attributes(instance.source("k"))
    assert calls(counting) == [("head", "k", None)]  # it is not looked for again
    assert await instance.get("k") == body.plain
    assert await instance.get_range("k", 6990, 7010) == body.plain[6990:7010]
    fresh = Instance(store)
    assert await fresh.get("k") == body.plain
    assert await fresh.get_range("k", 6990, 7010) == body.plain[6990:7010]


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", list(damaged(small())))
async def test_with_neither_tail_nor_sidecar_nothing_is_served_as_if_it_were_whole(
    store: MemoryBackend, kind: str, cut: bool
):
    body = small()
    stored, token = damaged(body)[kind]
    if cut:
        stored = stored[: body.entries[-1].compressed_offset]
    put_tailed(store, "k", body, stored=stored, token=token, indexed=False)
    instance = Instance(store)
    assert (await instance.reader.attributes(instance.source("k"))).size is None
    with pytest.raises(DamagedObject):
        await instance.get("k")
    with pytest.raises(DamagedObject):
        await instance.get_range("k", 10, 20)
    assert instance.budget.used == 0


@pytest.mark.parametrize("make", [small, large])
async def test_frames_that_are_not_those_of_the_tail_never_make_a_complete_answer(
    store: MemoryBackend, make
):
    body = make()
    last = body.entries[-1].compressed_offset
    put_tailed(store, "short", body, stored=body.frames[:last] + body.tail.encode())
    put_tailed(store, "long", body, stored=body.frames + body.stored)
    for key in ("short", "long"):
        instance = Instance(store)
        with pytest.raises(DamagedObject):
            await instance.get(key)
        assert instance.budget.used == 0


@pytest.mark.parametrize("right", [True, False])
async def test_a_checksum_of_the_whole_is_verified_where_the_frames_have_it(
    store: MemoryBackend, right: bool
):
    body = large()
    value = base64.b64encode((crc32c(body.plain) ^ (not right)).to_bytes(4, "big")).decode()
    tail = replace(body.tail, checksum=("crc32c", value, FULL_OBJECT))
    put_tailed(store, "k", replace(body, tail=tail))
    instance = Instance(store)
    if right:
        assert await instance.get("k") == body.plain
    else:
        with pytest.raises(DamagedObject):
            await instance.get("k")


class Overwriting(CountingBackend):
    """Puts another version in place after each HEAD or whole GET, as long as there are any."""

    versions: list[Tailed]

    async def before(self, call: Call) -> None:
        await super().before(call)
        if call.byte_range is not None and call.key == "k" and self.versions:
            put_tailed(self.inner, "k", self.versions.pop())  # type: ignore[arg-type]


@pytest.mark.parametrize("whole", [True, False])
async def test_an_object_overwritten_while_it_is_looked_at_is_looked_at_again(
    store: MemoryBackend, whole: bool
):
    put_tailed(store, "k", large())
    overwriting = Overwriting(store)
    last = tailed([corpus.noise(400_000, 7)], frame_size=300_000, codecs=PASSTHROUGH)
    overwriting.versions = [last, tailed([corpus.noise(300_000, 8)], codecs=PASSTHROUGH)]
    instance = Instance(overwriting)
    if whole:
        assert await instance.get("k") == last.plain
    else:
        found = await instance.reader.attributes(instance.source("k"))
        assert (found.size, found.etag) == (len(last.plain), last.tail.etag)
    overwriting.versions = [large(), last, large()]
    with pytest.raises(S3Error, match="ServiceUnavailable"):
        await Instance(overwriting).reader.attributes(instance.source("k"))


async def test_an_archived_object_is_described_as_far_as_its_sidecar_tells(store: MemoryBackend):
    body = large()
    backend_etag = put_tailed(store, "k", body)
    put_tailed(store, "bare", body, indexed=False)

    def archived(call: Call) -> Exception | None:
        is_body = call.verb == "get" and not call.key.endswith(".s4index")
        return BackendAnswer(403, "InvalidObjectState") if is_body else None

    instance = Instance(FaultyBackend(store, fault=archived))
    found = await instance.reader.attributes(instance.source("k"))
    assert (found.size, found.etag) == (len(body.plain), backend_etag)
    found = await instance.reader.attributes(instance.source("bare"))
    assert (found.size, found.etag) == (None, backend_etag)
    with pytest.raises(BackendAnswer, match="InvalidObjectState"):
        await instance.get("k")


async def test_listings_show_what_reads_show_and_ask_once(store: MemoryBackend):
    body = large()
    backend_etag = put_tailed(store, "k", body)
    counting = CountingBackend(store)
    instance = Instance(counting)
    entry = ListedObject("k", len(body.stored), backend_etag)
    end = len(body.stored)
    for again in (False, True):
        (shown,), _, _ = await instance.sizer.sized(BUCKET, (entry,))
        assert (shown.size, shown.etag) == (len(body.plain), body.tail.etag)
        asked = [("head", "k", None), ("get", "k", (end - PROBE, end))]
        assert calls(counting) == ([] if again else asked)
    await instance.reader.attributes(instance.source("k"))
    assert calls(counting) == [("head", "k", None)]


async def test_a_read_tells_the_next_listing(store: MemoryBackend):
    body = small()
    backend_etag = put_tailed(store, "k", body)
    counting = CountingBackend(store)
    instance = Instance(counting)
    await instance.get("k")
    calls(counting)
    entry = ListedObject("k", len(body.stored), backend_etag)
    (shown,), _, _ = await instance.sizer.sized(BUCKET, (entry,))
    assert (shown.size, shown.etag) == (len(body.plain), body.tail.etag)
    assert calls(counting) == []


async def test_a_tail_counts_only_behind_frames_of_an_object_from_parts(store: MemoryBackend):
    body = small()
    foreign = world.put_stored(store, "foreign", body.stored)
    token = {manifest.TAIL: TOKEN}
    single = world.framed([body.plain])
    world.put_stored(store, "single", single.stored, single.metadata | token)
    instance = Instance(store)
    found = await instance.reader.attributes(instance.source("foreign"))
    assert (found.size, found.etag) == (len(body.stored), foreign)
    assert await instance.get("foreign") == body.stored
    found = await instance.reader.attributes(instance.source("single"))
    assert (found.size, found.tail) == (len(body.plain), None)
    assert await instance.get("single") == body.plain


async def test_checksums_of_parts_are_known_where_the_whole_is_composed_of_them(
    store: MemoryBackend,
):
    values = [base64.b64encode(bytes([n] * 4)).decode() for n in range(3)]
    composite = ("crc32", values[0] + "-3", COMPOSITE)
    for key, checksum, parts, wanted in [
        ("composite", composite, tuple(values), ("crc32", values[1], COMPOSITE)),
        ("forgotten", composite, (), None),
        ("full", ("crc32", values[0], FULL_OBJECT), tuple(values), None),
        ("none", None, (), None),
    ]:
        body = small()
        tail = replace(body.tail, checksum=checksum, part_checksums=parts)
        put_tailed(store, key, replace(body, tail=tail))
        instance = Instance(store)
        found = await instance.reader.attributes(instance.source(key))
        assert found.checksum == checksum
        assert found.part_checksum(2) == wanted
    one = tailed([b"one part"], checksum=("crc32", values[0], FULL_OBJECT))
    put_tailed(store, "one", one)
    found = await instance.reader.attributes(instance.source("one"))
    assert found.part_checksum(1) == ("crc32", values[0], FULL_OBJECT)


async def test_an_empty_object_from_one_empty_part_is_empty(store: MemoryBackend):
    body = tailed([b""])
    assert body.entries == (FrameEntry(0, 0, 0, 28),)
    put_tailed(store, "k", body, indexed=False)
    instance = Instance(store)
    assert await instance.get("k") == b""
    found = await instance.reader.attributes(instance.source("k"))
    assert (found.size, found.etag) == (0, body.tail.etag)
