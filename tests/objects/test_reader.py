"""Whole and ranged reads: right bytes, for the price they should have."""

import asyncio
import itertools
import random
import struct
from typing import Any

import pytest

from s4gateway.backend.base import BackendAnswer, BackendError, Head, ObjectStream
from s4gateway.backend.memory import MemoryBackend
from s4gateway.codecs import encoder
from s4gateway.objects.errors import DamagedObject, UnreadableObject
from s4gateway.s3 import ranges
from s4gateway.wire import manifest
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import combine, crc32c
from s4gateway.wire.index import FrameEntry, FrameIndex
from tests import corpus
from tests.backends import CountingBackend
from tests.objects import world
from tests.objects.world import BUCKET, MIB, Instance

ALL_CODECS = (CodecId.CPU_ZSTD, CodecId.PASSTHROUGH, CodecId.CPU_GZIP)
MULTIPART = {manifest.MULTIPART: "true"}


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


def spans(source: random.Random, size: int, edges: list[int], count: int):
    """`count` ranges [start, end) of an object, as clients ask for them, most near an edge."""
    always = [
        ranges.FromTo(0, 0),
        ranges.Suffix(1),
        ranges.Suffix(size + 7),
        ranges.From(size - 1),
        ranges.FromTo(size - 1, size + 1000),
        ranges.FromTo(0, size - 1),
    ]
    near = [start for edge in edges for start in (edge - 1, edge, edge + 1)]
    always += [ranges.FromTo(start, start) for start in near if 0 <= start < size]
    source.shuffle(always)
    for _ in range(count):
        if always:
            span = always.pop()
        else:
            kind = source.randrange(8)
            first = source.randrange(size)
            if kind < 3:
                first = min(max(source.choice(edges) + source.randint(-1, 1), 0), size - 1)
            if kind == 6:
                span = ranges.From(first)
            elif kind == 7:
                span = ranges.Suffix(source.randint(1, size))
            else:
                span = ranges.FromTo(first, first + source.choice([0, 1, 5, 99, size, 10 * size]))
        yield ranges.resolve(span, size)


def random_body(source: random.Random, frames: int) -> world.Framed:
    """Frames of equal or of random sizes, of several codecs, some behind padding."""
    text = corpus.text(20_000, source.randrange(1, 1000))
    size = source.choice([1, 2, 3, 7, 60, 200, 1000])
    uniform = source.random() < 0.5
    chunks, position = [], 0
    for _ in range(frames):
        length = size if uniform else source.randint(0, 2 * size)
        chunks.append(text[position : position + length])
        position = (position + length) % 15_000
    if not any(chunks):
        chunks.append(b"x")
    codecs = source.choice([(CodecId.CPU_ZSTD,), (CodecId.PASSTHROUGH,), ALL_CODECS])
    padding = source.choice([(), (), (0,), (-1, 5), (-1, -1, 40)])
    return world.framed(chunks, codecs, padding)


SEEDS = [*range(2), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))]


@pytest.mark.parametrize("seed", SEEDS)
async def test_indexed_ranges_equal_slices(store: MemoryBackend, seed: int):
    source = random.Random(seed)
    counting = CountingBackend(store)
    instance = Instance(counting)
    for number in range(110):
        body = random_body(source, source.choice([1, 2, 3, 4, 5, 8, 30]))
        key = f"k{number}"
        world.put_indexed(store, key, body, body.metadata | MULTIPART)
        attributes = await instance.reader.attributes(instance.source(key))
        size = len(body.plain)
        assert attributes.size == size
        edges = [each.original_offset for each in body.entries]
        counting.calls.clear()
        counting.received = 0
        reach = len(world.stored_bytes(store, f"{key}.s4index"))
        asked = 115
        for start, end in spans(source, size, edges, asked):
            data, fallback = await instance.ranged_of(attributes, key, start, end)
            assert data == body.plain[start:end]
            assert fallback is None
            first, last = body.index.find(start), body.index.find(end - 1)
            reach += body.entries[last].compressed_offset + body.entries[last].compressed_size
            reach -= body.entries[first].compressed_offset
        # One sidecar, then one request for each range: of the frames it lies in, and no more.
        assert [call.key for call in counting.calls] == [f"{key}.s4index"] + [key] * asked
        assert {call.verb for call in counting.calls} == {"get"}
        assert counting.received == reach
    await instance.close()
    assert instance.budget.used == 0


async def test_ranges_of_single_frames_and_of_objects_without_index_equal_slices(
    store: MemoryBackend,
):
    source = random.Random(42)
    counting = CountingBackend(store)
    instance = Instance(counting)
    for number in range(60):
        body = random_body(source, source.choice([1, 1, 2, 5]))
        key = f"k{number}"
        kind = number % 3
        if kind == 0:
            world.put_stored(store, key, body.stored, body.metadata)
        elif kind == 1:
            world.put_stored(store, key, body.stored, body.metadata | MULTIPART)
        else:
            world.put_stored(store, key, body.plain)
        attributes = await instance.reader.attributes(instance.source(key))
        edges = [each.original_offset for each in body.entries]
        for start, end in spans(source, len(body.plain), edges, 100):
            data, fallback = await instance.ranged_of(attributes, key, start, end)
            assert data == body.plain[start:end]
            if kind == 2 or (kind == 0 and body.entries == (body.index[0],)):
                assert fallback in {None, "no-index"}  # padding may stand before the only frame
            else:
                assert fallback == "no-index"
            if kind == 2:
                assert fallback is None
    await instance.close()
    assert instance.budget.used == 0


def gibibyte(store: MemoryBackend, key: str) -> tuple[bytes, int]:
    """1 GiB as 64 frames of the same 16 MiB; returns a frame's plaintext and its stored size."""
    chunk = corpus.text(64 * 1024, 3) * 256
    one = b"".join(
        encoder.encode_body(chunk, world.CODECS.get(CodecId.CPU_ZSTD), len(chunk)).frames
    )
    crc = 0
    for _ in range(64):
        crc = combine(crc, crc32c(chunk), len(chunk))
    stored = one * 64
    entries = [
        FrameEntry(number * len(chunk), len(chunk), number * len(one), len(one))
        for number in range(64)
    ]
    metadata = manifest.Manifest(CodecId.CPU_ZSTD, 64 * len(chunk), len(stored), crc, framed=True)
    etag = world.put_stored(store, key, stored, metadata.to_metadata())
    index = FrameIndex.from_entries(entries, total_padded=len(stored)).bind(etag, len(stored))
    world.put_sidecar(store, key, index.encode())
    return chunk, len(one)


async def test_the_tail_of_a_gibibyte_costs_a_sidecar_and_two_frames_then_less_and_less(
    store: MemoryBackend,
):
    chunk, frame_size = gibibyte(store, "big")
    counting = CountingBackend(store)
    instance = Instance(counting)
    total = 64 * len(chunk)

    async def cost(start: int, end: int) -> tuple[list[tuple[str, str]], int]:
        counting.calls.clear()
        counting.received = 0
        data, fallback = await instance.ranged("big", start, end)
        assert fallback is None
        low = start % len(chunk)
        assert data == (chunk * 3)[low : low + end - start]
        return [(call.verb, call.key) for call in counting.calls], counting.received

    sidecar_size = len(world.stored_bytes(store, "big.s4index"))
    calls, received = await cost(total - 4096, total)
    assert calls == [("head", "big"), ("get", "big.s4index"), ("get", "big")]
    assert received <= sidecar_size + 2 * frame_size
    # Another frame: the index is known.
    calls, received = await cost(5 * len(chunk) - 2000, 5 * len(chunk) + 2000)
    assert calls == [("head", "big"), ("get", "big")]
    assert received == 2 * frame_size
    # The same frames again: their plaintext is known.
    calls, received = await cost(total - 4096, total)
    assert (calls, received) == ([("head", "big")], 0)
    calls, received = await cost(5 * len(chunk) - 1, 5 * len(chunk) + 1)
    assert (calls, received) == ([("head", "big")], 0)
    # Two frames of which the first is known: one request for the other.
    calls, received = await cost(6 * len(chunk) - 1, 6 * len(chunk) + 1)
    assert calls == [("head", "big"), ("get", "big")]
    assert received == frame_size
    await instance.close()
    assert instance.budget.used == 0


async def test_long_ranges_stream_frame_by_frame(store: MemoryBackend):
    chunk, frame_size = gibibyte(store, "big")
    counting = CountingBackend(store)
    instance = Instance(counting)
    attributes = await instance.reader.attributes(instance.source("big"))
    start, end = 50 * len(chunk) + 5, 64 * len(chunk)
    counting.calls.clear()
    opened = await instance.reader.open_range(instance.source("big"), attributes, start, end)
    position = start
    assert not isinstance(opened.content, bytes)
    async for piece in opened.content:
        low = position % len(chunk)
        assert piece == chunk[low : low + len(piece)]
        position += len(piece)
    await opened.aclose()
    assert position == end
    assert [call.key for call in counting.calls] == ["big.s4index", "big"]
    assert opened.backend_bytes == 14 * frame_size
    assert instance.budget.used == 0
    await instance.close()


async def test_neighbouring_readers_of_one_frame_fetch_it_once(store: MemoryBackend):
    body = world.framed(world.cut(corpus.text(2 * MIB, 1), 512 * 1024))
    world.put_indexed(store, "k", body)
    counting = CountingBackend(store)
    instance = Instance(counting)
    attributes = await instance.reader.attributes(instance.source("k"))
    await instance.ranged_of(attributes, "k", 2 * MIB - 1, 2 * MIB)
    counting.calls.clear()
    starts = range(600_000, 700_000, 10_000)
    found = await asyncio.gather(
        *(instance.ranged_of(attributes, "k", start, start + 100) for start in starts)
    )
    assert [data for data, _ in found] == [body.plain[s : s + 100] for s in starts]
    assert len(counting.calls) == 1
    await instance.close()
    assert instance.budget.used == 0


async def test_a_range_of_an_object_that_fits_one_frame_needs_no_sidecar(store: MemoryBackend):
    plain = corpus.text(4 * MIB, 5)
    counting = CountingBackend(store)
    instance = Instance(counting)
    await instance.put("k", plain)
    counting.calls.clear()
    for _ in range(2):
        assert await instance.ranged("k", 3 * MIB, 3 * MIB + 10) == (
            plain[3 * MIB : 3 * MIB + 10],
            None,
        )
    assert [call.verb for call in counting.calls] == ["head", "get", "head"]
    await instance.close()


@pytest.mark.parametrize("kind", ["foreign", "passthrough"])
async def test_ranges_of_verbatim_objects_go_straight_to_the_store(store: MemoryBackend, kind: str):
    plain = corpus.noise(300_000)
    instance = Instance(counting := CountingBackend(store))
    if kind == "foreign":
        world.put_stored(store, "k", plain, {"color": "blue"})
    else:
        await instance.put("k", plain)
        assert world.stored_bytes(store, "k") == plain
    counting.calls.clear()
    for start, end in ((0, 1), (299_999, 300_000), (100, 250_000)):
        counting.received = 0
        assert await instance.ranged("k", start, end) == (plain[start:end], None)
        assert counting.received == end - start
        assert counting.calls[-1].byte_range == (start, end)
    assert all(call.key == "k" for call in counting.calls)


@pytest.mark.parametrize("codec", [CodecId.CPU_GZIP, CodecId.CPU_ZSTD])
@pytest.mark.parametrize("size", [1, 50_000, 700_000])
async def test_objects_without_frames_are_read_from_their_start(
    store: MemoryBackend, codec: CodecId, size: int
):
    plain = corpus.text(size, 2)
    stream = world.CODECS.get(codec).compressor()
    stored = stream.compress(plain) + stream.flush()
    world.put_stored(store, "k", stored, world.manifest(plain, stored, codec=codec).to_metadata())
    instance = Instance(store)
    assert await instance.get("k") == plain
    source = random.Random(size)
    for start, end in spans(source, size, [0, size // 2], 20):
        assert await instance.ranged("k", start, end) == (plain[start:end], "unframed")
    assert instance.budget.used == 0


HOSTILE_TARGET = world.framed(world.cut(corpus.text(2100, 9), 100))


def _head(count: int, version: int = 2) -> bytes:
    return struct.pack("<4sIQQQ", b"S4IX", version, count, 2100, 1)


def hostile_sidecars(etag: str) -> dict[str, bytes]:
    """Sidecars that are wrong in every way one can think of, most of them bound to the object."""
    body = HOSTILE_TARGET
    size = len(body.stored)

    def bound(entries: list[FrameEntry], total_padded: int = size) -> bytes:
        index = FrameIndex.from_entries(entries, total_padded=total_padded)
        return index.bind(etag, size).encode()

    good = list(body.entries)
    binding = struct.pack("<QI", size, 32) + etag.encode()
    everything = bound(good)
    overlapping = b"".join(struct.pack("<4Q", 0, 2100, 0, size) for _ in range(2))
    moved = [
        FrameEntry(e.original_offset, e.original_size, e.compressed_offset + 1, e.compressed_size)
        for e in good[:-1]
    ] + [
        FrameEntry(
            good[-1].original_offset, 100, good[-1].compressed_offset + 1,
            good[-1].compressed_size - 1,
        )
    ]  # fmt: skip
    even = [FrameEntry(n * 105, 105, good[n].compressed_offset, good[n].compressed_size)
            for n in range(20)]  # fmt: skip
    grown = [
        FrameEntry(e.original_offset, e.original_size + (2**40 if e is good[-1] else 0),
                   e.compressed_offset, e.compressed_size)
        for e in good
    ]  # fmt: skip
    return {
        "empty file": b"",
        "garbage": corpus.noise(500),
        "no entries": bound([]),
        "truncated": everything[:-1],
        "trailing": everything + b"\0",
        "huge count": _head(2**63) + binding,
        "claimed count": _head(16_777_216) + binding + b"\0" * 320,
        "unknown version": everything[:4] + b"\x09" + everything[5:],
        "version 1": _head(21, 1) + everything[-21 * 32 :],
        "unbound": body.index.encode(),
        "bound to nobody": body.index.bind("0" * 32, size).encode(),
        "bound to other size": body.index.bind(etag, size + 1).encode(),
        "overlapping": _head(2) + binding + overlapping,
        "beyond the object": bound([FrameEntry(0, 2100, 2**62, 2**40)], 2**63),
        "wrapping": _head(1) + binding + struct.pack("<4Q", 2**64 - 1, 2, 2**64 - 1, 2),
        "frames of no bytes": bound([FrameEntry(n * 100, 100, 0, 0) for n in range(21)]),
        "one frame of no bytes": bound([FrameEntry(0, 2100, 5, 0)]),
        "all in one": bound([FrameEntry(0, 2100, 0, size)]),
        "one frame too few": bound(good[:-1]),
        "larger object": bound(grown),
        "moved by a byte": bound(moved),
        "other frame sizes": bound(even),
        "holes": bound([good[0], *good[2:]]),
    }


@pytest.mark.parametrize("name", list(hostile_sidecars("0" * 32)))
async def test_a_sidecar_that_lies_costs_a_read_from_the_start_but_never_wrong_bytes(
    store: MemoryBackend, name: str
):
    body = HOSTILE_TARGET
    etag = world.put_stored(store, "k", body.stored, body.metadata | MULTIPART)
    world.put_sidecar(store, "k", hostile_sidecars(etag)[name])
    instance = Instance(store)
    for start, end in ((0, 1), (0, 2100), (2099, 2100), (150, 250), (95, 1500), (1000, 2000)):
        data, fallback = await instance.ranged("k", start, end)
        assert data == body.plain[start:end]
        assert fallback in {"no-index", "no-plan", "index-mismatch"}
    assert await instance.get("k") == body.plain
    assert instance.budget.used == 0


async def test_an_index_found_wrong_far_into_a_range_ends_the_read_with_an_error(
    store: MemoryBackend,
):
    # Frames 15 and 16 lie about where one ends and the other begins; the first ones do not.
    body = HOSTILE_TARGET
    etag = world.put_stored(store, "k", body.stored, body.metadata | MULTIPART)
    entries = list(body.entries)
    a, b = entries[15], entries[16]
    entries[15] = FrameEntry(a.original_offset, 90, a.compressed_offset, a.compressed_size)
    entries[16] = FrameEntry(b.original_offset - 10, 110, b.compressed_offset, b.compressed_size)
    size = len(body.stored)
    world.put_sidecar(store, "k", FrameIndex.from_entries(entries).bind(etag, size).encode())
    instance = Instance(store)
    for start, end in itertools.product((0, 700, 1400), (1585, 1595, 1605, 1700, 2100)):
        try:
            data, _ = await instance.ranged("k", start, end)
        except DamagedObject:
            continue
        assert data == body.plain[start:end]
    assert instance.budget.used == 0


async def test_an_index_learned_later_is_not_believed_about_frames_kept_earlier(
    store: MemoryBackend,
):
    body = world.framed(world.cut(corpus.text(1_600_000, 4), 400_000))
    etag = world.put_indexed(store, "k", body)
    instance = Instance(store)
    for number in range(4):
        await instance.ranged("k", number * 400_000, number * 400_000 + 5)
    a, b, c, d = body.entries
    lie = [
        FrameEntry(0, 300_000, a.compressed_offset, a.compressed_size),
        FrameEntry(300_000, 500_000, b.compressed_offset, b.compressed_size),
        c,
        d,
    ]
    index = FrameIndex.from_entries(lie).bind(etag, len(body.stored))
    instance.indices.remember((BUCKET, "k"), etag, index)
    for start in (299_999, 300_000, 350_000, 399_999, 400_000, 799_999):
        data, _ = await instance.ranged("k", start, start + 100)
        assert data == body.plain[start : start + 100]
    await instance.close()


async def test_an_object_replaced_after_it_was_looked_at_is_refused_not_stitched(
    store: MemoryBackend,
):
    instance = Instance(store)
    await instance.put("k", corpus.text(5 * MIB, 1))
    attributes = await instance.reader.attributes(instance.source("k"))
    await instance.put("k", corpus.text(5 * MIB, 2))
    with pytest.raises(BackendAnswer) as caught:
        await instance.ranged_of(attributes, "k", 0, 10)
    assert caught.value.status == 412
    with pytest.raises(BackendAnswer):
        await instance.reader.open_whole(instance.source("k"), if_match=attributes.head.etag)
    assert instance.budget.used == 0
    await instance.close()


@pytest.mark.parametrize("codec", [2, 3, 4, 5, 6, 9, 77])
async def test_codecs_that_are_not_here_make_an_object_unreadable(store: MemoryBackend, codec: int):
    body = world.framed([corpus.text(300, 1)])
    stored = body.stored[:4] + codec.to_bytes(4, "little") + body.stored[8:]
    world.put_stored(store, "k", stored, body.metadata)
    instance = Instance(store)
    with pytest.raises(UnreadableObject):
        await instance.get("k")
    with pytest.raises(UnreadableObject):
        await instance.ranged("k", 0, 10)
    large = world.framed([corpus.text(400_000, 1)])
    stored = large.stored[:4] + codec.to_bytes(4, "little") + large.stored[8:]
    world.put_stored(store, "large", stored, large.metadata)
    with pytest.raises(UnreadableObject):
        await instance.reader.open_whole(instance.source("large"))
    assert instance.budget.used == 0


@pytest.mark.parametrize(
    "metadata",
    [
        {"s4-encrypted": "aes-256-gcm"},
        {"s4-codec": "nvcomp-zstd", "s4-framed": ""},
    ],
    ids=["encrypted", "gpu without frames"],
)
@pytest.mark.parametrize("size", [300, 400_000])
async def test_bodies_that_need_what_is_not_here_are_unreadable(
    store: MemoryBackend, metadata: dict[str, str], size: int
):
    body = world.framed([corpus.text(size, 1)])
    world.put_stored(store, "k", body.stored, body.metadata | metadata)
    instance = Instance(store)
    with pytest.raises(UnreadableObject):
        await instance.get("k")
    with pytest.raises(UnreadableObject):
        await instance.ranged("k", 0, 10)
    world.put_stored(store, "cipher", body.stored, {"s4-encrypted": "aes-256-gcm"})
    with pytest.raises(UnreadableObject):
        await instance.get("cipher")
    with pytest.raises(UnreadableObject):
        await instance.ranged("cipher", 0, 10)
    assert instance.budget.used == 0


async def test_a_dictionary_frame_without_dictionary_is_unreadable(store: MemoryBackend):
    body = world.framed([corpus.text(300, 1)])
    stored = body.stored[:4] + b"\x08\0\0\0" + body.stored[8:]
    world.put_stored(store, "k", stored, body.metadata)
    with pytest.raises(UnreadableObject):
        await Instance(store).get("k")


class Versioned(CountingBackend):
    """A store that holds another version of every key under `versionId=old`."""

    def __init__(self, old: MemoryBackend, current: MemoryBackend) -> None:
        super().__init__(current)
        self.old = old

    async def get(self, bucket: str, key: str, *, query: str = "", **options: Any) -> ObjectStream:
        inner = self.old if query == "versionId=old" else self.inner
        return await inner.get(bucket, key, **options)

    async def head(self, bucket: str, key: str, *, query: str = "", **options: Any) -> Head:
        inner = self.old if query == "versionId=old" else self.inner
        return await inner.head(bucket, key, **options)


async def test_an_older_version_is_measured_and_read_by_its_own_frames(store: MemoryBackend):
    old = MemoryBackend.with_buckets(BUCKET)
    body = world.framed(world.cut(corpus.text(3000, 1), 1000))
    world.put_stored(old, "k", body.stored, {"s4-multipart": "true", "s4-codec": "cpu-zstd"})
    world.put_stored(store, "k", b"something else")
    instance = Instance(Versioned(old, store))
    source = instance.source("k", query="versionId=old")
    attributes = await instance.reader.attributes(source)
    assert attributes.size == 3000
    assert await world.drained(await instance.reader.open_whole(source)) == body.plain
    opened = await instance.reader.open_range(source, attributes, 990, 1010)
    assert await world.drained(opened) == body.plain[990:1010]


async def test_frames_are_counted_once_for_an_object_that_does_not_say_its_size(
    store: MemoryBackend,
):
    body = world.framed(world.cut(corpus.text(3000, 1), 100), padding=(-1, 8))
    world.put_stored(store, "k", body.stored, {"s4-multipart": "true", "s4-codec": "cpu-zstd"})
    counting = CountingBackend(store)
    instance = Instance(counting)
    attributes = await instance.reader.attributes(instance.source("k"))
    assert attributes.size == 3000
    assert counting.count("get") == 1 + 30 + 15
    counting.calls.clear()
    assert await instance.ranged("k", 1234, 2345) == (body.plain[1234:2345], None)
    assert [call.verb for call in counting.calls] == ["head", "get"]


async def test_closing_an_object_before_reading_it_leaves_no_file_and_no_memory(
    store: MemoryBackend,
):
    plain = bytes(40 * MIB)
    body = world.framed([plain, plain])
    world.put_stored(store, "k", body.stored, body.metadata)
    instance = Instance(store)
    before = world.open_files()
    for _ in range(3):
        opened = await instance.reader.open_whole(instance.source("k"))
        await opened.aclose()
    attributes = await instance.reader.attributes(instance.source("k"))
    etag = attributes.head.etag
    world.put_sidecar(store, "k", body.index.bind(etag, len(body.stored)).encode())
    opened = await instance.reader.open_range(instance.source("k"), attributes, 5, 80 * MIB)
    await opened.aclose()
    assert world.open_files() == before
    assert instance.budget.used == 0


@pytest.mark.parametrize("steps", range(12))
async def test_readers_cancelled_at_any_point_leave_nothing_behind(
    store: MemoryBackend, steps: int
):
    plain = bytes(33 * MIB)
    body = world.framed([plain, corpus.text(600_000), plain])
    world.put_indexed(store, "k", body)
    instance = Instance(store)
    before = world.open_files()

    async def read_all() -> None:
        opened = await instance.reader.open_whole(instance.source("k"))
        try:
            assert not isinstance(opened.content, bytes)
            async for _ in opened.content:
                await asyncio.sleep(0)
        finally:
            await opened.aclose()

    task = asyncio.get_running_loop().create_task(read_all())
    for _ in range(steps * 3):
        await asyncio.sleep(0.001 if steps % 2 else 0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await world.settled(before)
    assert instance.budget.used == 0


@pytest.mark.parametrize("fail", [BackendError("reset"), BackendAnswer(503, "SlowDown")])
async def test_a_sidecar_that_cannot_be_fetched_is_asked_for_again(
    store: MemoryBackend, fail: BackendError
):
    body = HOSTILE_TARGET
    world.put_indexed(store, "k", body, body.metadata | MULTIPART)
    broken = [True]

    class Failing(CountingBackend):
        async def get(self, bucket: str, key: str, **options: Any) -> ObjectStream:
            if broken and key.endswith(".s4index"):
                raise fail
            return await super().get(bucket, key, **options)

    instance = Instance(Failing(store))
    assert await instance.ranged("k", 5, 10) == (body.plain[5:10], "no-index")
    broken.clear()
    assert await instance.ranged("k", 5, 10) == (body.plain[5:10], None)


async def test_missing_objects_are_missing_on_every_path(store: MemoryBackend):
    instance = Instance(store)
    for read in (instance.reader.open_whole, instance.reader.attributes):
        with pytest.raises(BackendAnswer) as caught:
            await read(instance.source("nothing"))
        assert caught.value.missing
