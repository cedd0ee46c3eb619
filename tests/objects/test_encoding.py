"""Bodies into storage: what is stored is right, small enough, and leaves nothing behind."""

import asyncio
import base64
import gc
import hashlib
import json
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4gateway.backend.memory import MemoryBackend
from s4gateway.codecs import decoder, encoder
from s4gateway.codecs.registry import Registry
from s4gateway.objects.budget import ByteBudget
from s4gateway.objects.encoding import DIGESTS, SMALL_BODY, EncodedObject, ObjectEncoder
from s4gateway.s3.checksums import Digests
from s4gateway.s3.errors import S3Error
from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.index import FrameIndex
from tests import corpus
from tests.objects import world
from tests.objects.world import BUCKET, MIB, Instance

VECTORS = json.loads(
    (Path(__file__).parents[1] / "golden" / "vectors.json").read_text(encoding="utf-8")
)
EDGES = (0, 1, 127, 128, 4095, 4096, 4097, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1)
LARGE = (MIB - 1, MIB, MIB + 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB)
BODIES = {
    "text": corpus.text,
    "noise": corpus.noise,
    "quiet head": corpus.quiet_head,
    "noisy head": corpus.noisy_head,
}


def instance(
    codec: CodecId = CodecId.CPU_ZSTD, level: int = 3, budget: int = 256 * MIB
) -> Instance:
    codecs = world.CODECS if level == 3 else Registry(level)
    store = MemoryBackend.with_buckets(BUCKET)
    return Instance(store, ByteBudget(budget), codec=codec, codecs=codecs)


def pieces(source: random.Random, data: bytes):
    """`data` cut as a network would: often the same size, sometimes tiny or huge."""
    position = 0
    usual = source.choice([1000, 16 * 1024, 64 * 1024, 256 * 1024, 1 << 30])
    while position < len(data):
        size = usual if source.random() < 0.9 else source.choice([1, 7, 5000, 3 * MIB])
        yield data[position : position + size]
        position += size


async def encode(one: Instance, data: bytes, source: random.Random, known: bool) -> EncodedObject:
    digests = Digests(DIGESTS)
    length = len(data) if known else None
    writer = ObjectEncoder(one.workshop, one.dispatcher, digests, length)
    try:
        for piece in pieces(source, data):
            await writer.feed(source.choice([bytes, bytearray, memoryview])(piece))
        return await writer.finish()
    finally:
        writer.close()


async def stored_of(encoded: EncodedObject) -> bytes:
    body = encoded.body
    if isinstance(body.chunks, bytes):
        return body.chunks
    return b"".join([piece async for piece in body.chunks()])


async def check(encoded: EncodedObject, plain: bytes, chunk_size: int) -> bytes:
    stored = await stored_of(encoded)
    manifest = encoded.manifest
    assert len(stored) == encoded.stored_size == encoded.body.length == manifest.compressed_size
    assert manifest.original_size == len(plain)
    assert manifest.crc32c == crc32c(plain)
    assert manifest.logical_etag == hashlib.md5(plain).hexdigest()
    if encoded.body.md5 is not None:
        assert base64.b64decode(encoded.body.md5) == hashlib.md5(stored).digest()
    if not manifest.framed:
        assert manifest.codec is CodecId.PASSTHROUGH
        assert encoded.index is None
        assert stored == plain
        return stored
    frames = list(frame.walk(stored))
    assert len(stored) <= len(plain) + (28 * len(frames) if len(frames) > 1 else 0)
    sizes = [header.original_size for _, header, _ in frames]
    assert sizes == [len(chunk) for chunk in world.cut(plain, chunk_size)]
    assert decoder.decode_body(stored, world.CODECS) == plain
    if len(frames) < 2:
        assert encoded.index is None
        return stored
    assert encoded.index is not None
    assert [(each.compressed_offset, each.original_size) for each in encoded.index] == [
        (offset, header.original_size) for offset, header, _ in frames
    ]
    assert encoded.index.total_padded == len(stored)
    assert encoded.index.total_original == len(plain)
    return stored


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("codec", [CodecId.CPU_ZSTD, CodecId.CPU_GZIP, CodecId.PASSTHROUGH])
async def test_bodies_up_to_a_frame_come_back_and_never_grow(kind: str, codec: CodecId):
    source = random.Random(f"{kind}{codec}")
    one = instance(codec)
    for size in EDGES:
        plain = BODIES[kind](size)
        await check(await one.encode(plain), plain, encoder.pick_chunk_size(size))
        for known in (True, False):
            encoded = await encode(one, plain, source, known)
            stored = await check(encoded, plain, encoder.pick_chunk_size(size if known else None))
            assert len(stored) <= len(plain)
            encoded.close()
    assert one.budget.used == 0


@pytest.mark.parametrize("algorithm", ["crc32", "crc32c", "crc64nvme"])
@pytest.mark.parametrize("kind", ["text", "noise"])
@pytest.mark.parametrize("size", [0, 5, 300_000, 5 * MIB])
async def test_spooled_bodies_know_the_checksum_the_store_wants(
    kind: str, size: int, algorithm: str
):
    one = instance()
    one.workshop = replace(one.workshop, checksum=algorithm)
    encoded = await encode(one, BODIES[kind](size), random.Random(1), known=False)
    digests = Digests(("md5", algorithm))
    digests.update(await stored_of(encoded))
    wanted = {name: base64.b64encode(digests[name]).decode() for name in ("md5", algorithm)}
    assert encoded.body.checksum == (algorithm, wanted[algorithm])
    # That of a body stored as it came is the client's, and known; that of frames is not worked out.
    assert encoded.body.md5 == (None if encoded.manifest.framed else wanted["md5"])
    encoded.close()


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("size", LARGE)
async def test_large_bodies_come_back_and_grow_by_their_headers_at_most(kind: str, size: int):
    source = random.Random(f"{kind}{size}")
    one = instance()
    plain = BODIES[kind](size)
    known = source.random() < 0.7
    encoded = await encode(one, plain, source, known)
    await check(encoded, plain, encoder.pick_chunk_size(size if known else None))
    encoded.close()
    assert one.budget.used == 0


@pytest.mark.parametrize("level", [1, 7, 12])
async def test_every_level_stores_what_any_reader_reads(level: int):
    plain = corpus.text(300_000)
    one = instance(level=level)
    for known in (True, False):
        encoded = await encode(one, plain, random.Random(level), known)
        stored = await check(encoded, plain, encoder.pick_chunk_size(len(plain)) * 4)
        assert len(stored) < len(plain) // 2
        encoded.close()


async def test_gzip_frames_of_a_large_body_come_back():
    plain = corpus.text(5 * MIB)
    one = instance(CodecId.CPU_GZIP)
    encoded = await encode(one, plain, random.Random(1), known=True)
    await check(encoded, plain, 4 * MIB)
    assert encoded.manifest.codec is CodecId.CPU_GZIP
    encoded.close()


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
async def test_a_body_above_a_hundred_mebibytes_takes_larger_frames(known: bool):
    plain = corpus.text(100 * MIB + 1)
    one = instance()
    encoded = await encode(one, plain, random.Random(1), known)
    await check(encoded, plain, (16 if known else 4) * MIB)
    encoded.close()
    assert one.budget.used == 0


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 1000),
    parts=st.lists(st.tuples(st.booleans(), st.integers(0, 150_000)), max_size=6),
    known=st.booleans(),
)
async def test_mixtures_of_text_and_noise_come_back(
    seed: int, parts: list[tuple[bool, int]], known: bool
):
    plain = b"".join((corpus.text if t else corpus.noise)(size, seed) for t, size in parts)
    one = instance()
    encoded = await encode(one, plain, random.Random(seed), known)
    await check(encoded, plain, encoder.pick_chunk_size(len(plain) if known else None))
    encoded.close()
    assert one.budget.used == 0


@pytest.mark.parametrize("known", [True, False])
async def test_a_body_that_saves_less_than_a_frame_header_is_stored_as_it_came(known: bool):
    plain = corpus.noise(16) * 2
    encoded = await encode(instance(), plain, random.Random(1), known)
    assert await check(encoded, plain, MIB) == plain
    encoded.close()


async def test_noise_behind_a_compressible_head_is_stored_in_passthrough_frames():
    plain = corpus.text(4 * MIB) + corpus.noise(5 * MIB)
    encoded = await encode(instance(), plain, random.Random(3), known=True)
    stored = await check(encoded, plain, 4 * MIB)
    codecs = [header.codec for _, header, _ in frame.walk(stored)]
    assert codecs == [CodecId.CPU_ZSTD, CodecId.PASSTHROUGH, CodecId.PASSTHROUGH]
    encoded.close()


async def test_the_index_is_usable_once_the_object_is_stored():
    one = instance()
    plain = corpus.text(9 * MIB)
    encoded = await one.put("k", plain)
    store = one.backend
    assert isinstance(store, MemoryBackend)
    written = store.buckets[BUCKET]["k"]
    index = FrameIndex.decode(world.stored_bytes(store, "k.s4index"))
    assert index.is_bound_to(written.etag, len(written.data))
    assert list(index) == list(encoded.index or ())
    fresh = Instance(store)
    data, fallback = await fresh.ranged("k", 4 * MIB - 1, 4 * MIB + 1)
    assert (data, fallback) == (plain[4 * MIB - 1 : 4 * MIB + 1], None)
    await one.close()
    await fresh.close()


def shrinking(vector: dict[str, Any]) -> bool:
    frames = vector.get("frames")
    return bool(frames) and all(
        each["compressed_size"] + frame.HEADER_SIZE < each["original_size"] for each in frames
    )


GOLDEN = [
    pytest.param(
        vector, id=vector["id"], marks=[pytest.mark.slow] if "100MiB" in vector["id"] else ()
    )
    for vector in VECTORS["objects"]
    if vector["id"].startswith("put-") and shrinking(vector)
]


def original_of(vector: dict[str, Any]) -> bytes:
    size, stored = vector["original"]["len"], vector["original"]
    if "hex" in stored:
        data = bytes.fromhex(stored["hex"])
    elif vector["input"].startswith("fill("):
        data = bytes(size)
    else:
        line = b"%08d level=info svc=api path=/v1/items/%06d status=%d dur_ms=%d\n"
        lines = (
            line % (i, i * 7919 % 100003, 200 if i % 17 else 500, i * 31 % 997)
            for i in range(size // 60 + 1)
        )
        data = b"".join(lines)[:size]
    assert hashlib.sha256(data).hexdigest() == stored["sha256"]
    return data


@pytest.mark.parametrize("vector", GOLDEN)
async def test_what_shrinks_is_stored_byte_for_byte_as_the_format_was_first_written(
    vector: dict[str, Any],
):
    plain = original_of(vector)
    known = "no Content-Length" not in vector["input"]
    one = instance()
    for encoded in (
        await one.encode(plain, known=known),
        await encode(one, plain, random.Random(0), known),
    ):
        stored = await stored_of(encoded)
        assert hashlib.sha256(stored).hexdigest() == vector["body"]["sha256"]
        metadata = encoded.manifest.to_metadata()
        assert metadata.items() >= vector["metadata"].items()
        if "sidecar_etag" in vector and "hex" in vector["sidecar"]:
            assert encoded.index is not None
            index = encoded.index.bind(vector["sidecar_etag"], len(stored))
            assert index.encode().hex() == vector["sidecar"]["hex"]
        encoded.close()


async def test_a_small_budget_encodes_a_large_body():
    budget = ByteBudget(4 * MIB)
    one = Instance(MemoryBackend.with_buckets(BUCKET), budget)
    plain = corpus.text(24 * MIB)
    digests = Digests(DIGESTS)
    writer = ObjectEncoder(one.workshop, one.dispatcher, digests, 64 * MIB)
    fed = 0
    try:
        while fed < 64 * MIB:
            piece = plain[fed % len(plain) :][: min(256 * 1024, 64 * MIB - fed)]
            await writer.feed(piece)
            fed += len(piece)
            assert budget.used <= budget.limit
        encoded = await writer.finish()
    finally:
        writer.close()
    assert budget.used == 0
    assert encoded.manifest.original_size == 64 * MIB
    assert encoded.manifest.crc32c == digests.crc("crc32c")
    encoded.close()


async def test_bodies_side_by_side_share_the_budget():
    budget = ByteBudget(24 * MIB)
    one = Instance(MemoryBackend.with_buckets(BUCKET), budget)
    plain = corpus.text(20 * MIB, 5)
    highest = 0

    async def run(delay: int) -> EncodedObject:
        nonlocal highest
        writer = ObjectEncoder(one.workshop, one.dispatcher, Digests(DIGESTS), 120 * MIB)
        try:
            for number in range(0, len(plain), 128 * 1024):
                await writer.feed(plain[number : number + 128 * 1024])
                highest = max(highest, budget.used)
                if number % delay == 0:
                    await asyncio.sleep(0)
            return await writer.finish()
        finally:
            writer.close()

    done = await asyncio.gather(*(run(delay) for delay in (1, 3, 5)))
    for encoded in done:
        assert encoded.manifest.crc32c == crc32c(plain)
        assert encoded.manifest.compressed_size == done[0].manifest.compressed_size
        encoded.close()
    assert budget.used == 0
    assert highest <= budget.limit


async def test_a_wide_window_of_one_body_leaves_the_next_its_share():
    budget = ByteBudget(8 * MIB)
    one = Instance(MemoryBackend.with_buckets(BUCKET), budget)
    first = ObjectEncoder(one.workshop, one.dispatcher, Digests(DIGESTS), 200 * MIB)
    for _ in range(6):
        await first.feed(corpus.text(MIB))
    second = ObjectEncoder(one.workshop, one.dispatcher, Digests(DIGESTS), 200 * MIB)
    third = ObjectEncoder(one.workshop, one.dispatcher, Digests(DIGESTS), 200 * MIB)
    await second.feed(corpus.text(MIB))
    assert budget.used <= budget.limit
    for writer in (first, second, third):
        writer.close()
    assert budget.used == 0


async def test_a_body_beyond_the_budget_is_turned_away():
    budget = ByteBudget(4 * MIB)
    one = Instance(MemoryBackend.with_buckets(BUCKET), budget)
    writers = [
        ObjectEncoder(one.workshop, one.dispatcher, Digests(DIGESTS), None) for _ in range(2)
    ]
    with pytest.raises(S3Error) as caught:
        ObjectEncoder(one.workshop, one.dispatcher, Digests(DIGESTS), None)
    assert caught.value.code == "SlowDown"
    for writer in writers:
        writer.close()
        writer.close()
    assert budget.used == 0


@pytest.mark.parametrize("kind", BODIES)
async def test_encoders_given_up_at_any_point_leave_nothing_behind(kind: str):
    source = random.Random(kind)
    one = instance(budget=32 * MIB)
    plain = BODIES[kind](6 * MIB)
    files = world.open_files()
    for _ in range(25):
        writer = ObjectEncoder(one.workshop, one.dispatcher, Digests(DIGESTS), len(plain))
        stop = source.randrange(len(plain))
        fed = 0
        for piece in pieces(source, plain):
            if fed > stop:
                break
            await writer.feed(piece)
            fed += len(piece)
        if source.random() < 0.3:
            await asyncio.sleep(0.002)
        writer.close()
        writer.close()
        assert one.budget.used == 0
    await world.settled(files)
    gc.collect()


@pytest.mark.parametrize("kind", BODIES)
async def test_encoders_cancelled_at_any_point_leave_nothing_behind(kind: str):
    source = random.Random(kind)
    one = instance(budget=32 * MIB)
    plain = BODIES[kind](6 * MIB)
    files = world.open_files()

    async def store() -> None:
        encoded = await encode(one, plain, source, known=True)
        try:
            await stored_of(encoded)
        finally:
            encoded.close()

    for number in range(25):
        task = asyncio.get_running_loop().create_task(store())
        if number % 2:
            await asyncio.sleep(source.random() * 0.05)
        else:
            for _ in range(source.randrange(60)):
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert one.budget.used == 0
    await world.settled(files)
    gc.collect()


async def test_a_digest_that_fails_ends_the_encoding_instead_of_waiting_for_ever():
    class Failing(Digests):
        def update(self, data: Any) -> None:
            raise MemoryError("no more")

    one = instance()
    writer = ObjectEncoder(one.workshop, one.dispatcher, Failing(DIGESTS), 40 * MIB)

    async def feed_all() -> None:
        for _ in range(40):
            await writer.feed(corpus.text(MIB))
        await writer.finish()

    try:
        with pytest.raises(MemoryError):
            await feed_all()
    finally:
        writer.close()
    assert one.budget.used == 0


async def test_a_spool_directory_that_cannot_be_written_ends_the_encoding(tmp_path: Path):
    one = Instance(MemoryBackend.with_buckets(BUCKET), spool=tmp_path / "missing")
    files = world.open_files()
    for body in (corpus.noise(9 * MIB), corpus.quiet_head(9 * MIB)):
        with pytest.raises(OSError, match="missing"):
            await encode(one, body, random.Random(1), known=True)
    assert one.budget.used == 0
    await world.settled(files)


async def test_a_body_in_single_bytes_is_encoded_as_any_other():
    plain = corpus.text(9000)
    one = instance()
    writer = ObjectEncoder(one.workshop, one.dispatcher, Digests(DIGESTS), len(plain))
    try:
        for position in range(len(plain)):
            await writer.feed(plain[position : position + 1])
        encoded = await writer.finish()
    finally:
        writer.close()
    assert await check(encoded, plain, MIB) == await stored_of(await one.encode(plain))


async def test_memory_does_not_grow_with_the_body():
    one = instance(budget=16 * MIB)
    plain = corpus.quiet_head(MIB, 64 * 1024)
    tracemalloc.start()
    writer = ObjectEncoder(one.workshop, one.dispatcher, Digests(DIGESTS), None)
    try:
        for _ in range(48):
            await writer.feed(plain)
        encoded = await writer.finish()
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
        encoded.close()
    finally:
        tracemalloc.stop()
        writer.close()


async def test_the_checksum_a_client_declared_is_stored_with_the_object():
    encoded = await instance().encode(b"data")
    assert encoded.with_checksum(None) is encoded
    declared = encoded.with_checksum(("crc32", "AAAAAA=="))
    assert declared.manifest.checksum == ("crc32", "AAAAAA==")
    assert declared.body is encoded.body


def test_a_small_body_is_what_fits_in_one_thread_hop():
    assert SMALL_BODY <= encoder.SMALL_CHUNK
