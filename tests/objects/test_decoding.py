"""Stored bodies that are not what they should be: right bytes or an error, never wrong bytes."""

import asyncio
import gc
import random
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from s4gateway.backend.base import BackendError, ObjectStream
from s4gateway.backend.memory import MemoryBackend
from s4gateway.codecs import decoder, encoder
from s4gateway.objects.budget import ByteBudget
from s4gateway.objects.decoding import FrameReader, in_steps
from s4gateway.objects.errors import DamagedObject, ObjectError
from s4gateway.objects.spool import READ_SIZE
from s4gateway.s3.errors import S3Error
from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from tests import corpus
from tests.backends import CountingBackend
from tests.objects import world
from tests.objects.world import BUCKET, MIB, Framed, Instance

Make = Callable[[], Framed]
REFUSED = (ObjectError, BackendError)


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


async def outcome(instance: Instance, key: str) -> tuple[bytes, Exception | None]:
    """What a client would have received of a whole read, and how it ended."""
    received = bytearray()
    try:
        opened = await instance.reader.open_whole(instance.source(key))
    except REFUSED as error:
        return b"", error
    try:
        if isinstance(opened.content, bytes):
            return opened.content, None
        async for piece in opened.content:
            received += piece
    except REFUSED as error:
        return bytes(received), error
    finally:
        await opened.aclose()
    return bytes(received), None


async def check(
    instance: Instance, key: str, plain: bytes, intact: int | None = None
) -> Exception | None:
    """A damaged object ends in an error after right bytes only, or is read right.

    `intact` is how many bytes stand in frames before the damage.
    """
    received, error = await outcome(instance, key)
    assert instance.budget.used == 0
    if error is None:
        assert received == plain
    else:
        assert plain.startswith(received)
        if intact is not None:
            assert len(received) <= intact
    return error


def small() -> Framed:
    return world.framed(
        world.cut(corpus.text(420, 7), 150), (CodecId.CPU_ZSTD, CodecId.PASSTHROUGH)
    )


def large() -> Framed:
    """Stored in more than is decoded at once, in frames small enough to be quick."""
    chunks = world.cut(corpus.text(600_000, 7), 40_000)
    return world.framed(chunks, (CodecId.CPU_ZSTD, CodecId.CPU_ZSTD, CodecId.PASSTHROUGH))


def coarse() -> Framed:
    """Of frames that codec threads decode, some ahead of the one that is being sent."""
    chunks = world.cut(corpus.text(1_500_000, 7), 300_000)
    return world.framed(chunks, (CodecId.CPU_ZSTD, CodecId.CPU_ZSTD, CodecId.PASSTHROUGH))


def flipped(data: bytes, position: int, bits: int) -> bytes:
    return data[:position] + bytes([data[position] ^ bits]) + data[position + 1 :]


async def test_every_flipped_byte_of_a_small_object_is_noticed(store: MemoryBackend):
    body = small()
    instance = Instance(store)
    source = random.Random(1)
    for position in range(len(body.stored)):
        for bits in {0xFF, 1 << source.randrange(8)}:
            world.put_stored(store, "k", flipped(body.stored, position, bits), body.metadata)
            await check(instance, "k", body.plain)
            for start, end in ((140, 160), (419, 420)):
                try:
                    data, _ = await instance.ranged("k", start, end)
                except REFUSED:
                    continue
                assert data == body.plain[start:end]


@pytest.mark.parametrize("make", [large, coarse])
async def test_flipped_bytes_of_a_streamed_object_are_noticed_before_their_frame(
    store: MemoryBackend, make: Make
):
    body = make()
    instance = Instance(store)
    source = random.Random(2)
    for _ in range(150):
        position = source.randrange(len(body.stored))
        stored = flipped(body.stored, position, 1 << source.randrange(8))
        world.put_stored(store, "k", stored, body.metadata)
        intact = next(
            each.original_offset
            for each in reversed(body.entries)
            if each.compressed_offset <= position
        )
        await check(instance, "k", body.plain, intact)


@pytest.mark.parametrize("make", [large, coarse])
async def test_a_fault_in_the_first_frame_is_an_error_before_the_object_opens(
    store: MemoryBackend, make: Make
):
    body = make()
    instance = Instance(store)
    for position in (0, 4, 9, 20, 27, 28, 100, body.entries[0].compressed_size - 1):
        world.put_stored(store, "k", flipped(body.stored, position, 0x10), body.metadata)
        with pytest.raises(ObjectError):
            await instance.reader.open_whole(instance.source("k"))
    assert instance.budget.used == 0


async def test_rot_below_a_trusted_index_is_noticed_in_ranges(store: MemoryBackend):
    body = large()
    etag = world.put_indexed(store, "k", body)
    source = random.Random(3)
    for _ in range(120):
        position = source.randrange(len(body.stored))
        stored = flipped(body.stored, position, 1 << source.randrange(8))
        world.put_stored(store, "k", stored, body.metadata, etag=etag)
        instance = Instance(store)
        start = source.randrange(len(body.plain))
        end = min(len(body.plain), start + source.choice([1, 5000, 100_000, 400_000]))
        try:
            data, _ = await instance.ranged("k", start, end)
        except REFUSED:
            continue
        finally:
            assert instance.budget.used == 0
            await instance.close()
        assert data == body.plain[start:end]


async def test_a_body_cut_anywhere_is_an_error(store: MemoryBackend):
    body = small()
    instance = Instance(store)
    for length in range(len(body.stored)):
        world.put_stored(store, "k", body.stored[:length], body.metadata)
        assert await check(instance, "k", body.plain) is not None


@pytest.mark.parametrize("make", [large, coarse])
async def test_a_streamed_body_cut_at_and_around_frame_edges_is_an_error(
    store: MemoryBackend, make: Make
):
    body = make()
    instance = Instance(store)
    for entry in body.entries:
        for length in (-1, 0, 1, 27, 28, 29):
            stored = body.stored[: max(entry.compressed_offset + length, 0)]
            world.put_stored(store, "k", stored, body.metadata)
            assert await check(instance, "k", body.plain) is not None


@pytest.mark.parametrize("make", [small, large, coarse])
async def test_bytes_behind_the_last_frame_are_an_error(store: MemoryBackend, make: Make):
    body = make()
    instance = Instance(store)
    for tail in (b"\0", b"S4F", b"S4F2", corpus.noise(100), body.frames[0], body.frames[-1]):
        world.put_stored(store, "k", body.stored + tail, body.metadata)
        assert await check(instance, "k", body.plain) is not None
    world.put_stored(store, "k", body.stored + frame.padding(50), body.metadata)
    assert await check(instance, "k", body.plain) is None


@pytest.mark.parametrize("make", [small, large, coarse])
async def test_frames_swapped_repeated_or_missing_are_an_error(store: MemoryBackend, make: Make):
    body = make()
    frames = body.frames
    variants = []
    for position in range(len(frames) - 1):
        swapped = list(frames)
        swapped[position], swapped[position + 1] = swapped[position + 1], swapped[position]
        variants.append(swapped)
    for position in range(len(frames)):
        variants.append(frames[:position] + frames[position + 1 :])
        variants.append(frames[: position + 1] + frames[position:])
        variants.append([*frames[:position], frames[0], *frames[position + 1 :]])
    instance = Instance(store)
    for variant in variants:
        stored = b"".join(variant)
        if stored == body.stored:
            continue
        world.put_stored(store, "k", stored, body.metadata)
        received, error = await outcome(instance, "k")
        assert error is not None
        assert len(received) < len(body.plain) or received == body.plain
    assert instance.budget.used == 0


@pytest.mark.parametrize("make", [small, large, coarse])
@pytest.mark.parametrize(
    "lie",
    [
        {"s4-original-size": "0"},
        {"s4-original-size": "1"},
        {"s4-original-size": "149"},
        {"s4-original-size": "99999999999"},
        {"s4-original-size": "18446744073709551615"},
        {"s4-crc32c": "0"},
    ],
    ids=lambda lie: "=".join(*lie.items()),
)
async def test_a_manifest_that_lies_is_an_error(
    store: MemoryBackend, make: Make, lie: dict[str, str]
):
    body = make()
    world.put_stored(store, "k", body.stored, body.metadata | lie)
    instance = Instance(store)
    assert isinstance(await check(instance, "k", body.plain), DamagedObject)


@pytest.mark.parametrize("size", ["0", "1", "99999999999"])
async def test_a_wrong_stored_size_in_the_manifest_of_frames_does_no_harm(
    store: MemoryBackend, size: str
):
    body = small()
    world.put_stored(store, "k", body.stored, body.metadata | {"s4-compressed-size": size})
    assert await Instance(store).get("k") == body.plain


@pytest.mark.parametrize("codec", [CodecId.CPU_GZIP, CodecId.CPU_ZSTD, CodecId.PASSTHROUGH])
@pytest.mark.parametrize("size", [2000, 300_000])
async def test_damaged_bodies_without_frames_never_end_cleanly(
    store: MemoryBackend, codec: CodecId, size: int
):
    plain = corpus.noise(size // 2) + corpus.text(size // 2)
    stream = world.CODECS.get(codec).compressor()
    stored = stream.compress(plain) + stream.flush()
    metadata = world.manifest(plain, stored, codec=codec).to_metadata()
    instance = Instance(store)
    source = random.Random(size)
    variants = [flipped(stored, source.randrange(len(stored)), 4) for _ in range(40)]
    variants += [stored[: source.randrange(len(stored))] for _ in range(20)]
    variants += [stored + b"x", b""]
    for variant in variants:
        world.put_stored(store, "k", variant, metadata)
        received, error = await outcome(instance, "k")
        if error is None:
            assert received == plain
        else:
            assert len(received) < len(plain)
    for name in ("s4-original-size", "s4-crc32c"):
        world.put_stored(store, "k", stored, metadata | {name: "77"})
        received, error = await outcome(instance, "k")
        assert error is not None or received == plain
    assert instance.budget.used == 0


def rle_block(size: int, *, last: bool = False) -> bytes:
    return (size << 3 | 1 << 1 | last).to_bytes(3, "little") + b"\0"


def zeros(count: int) -> bytes:
    """A zstd stream of 128 KiB blocks of zeros, four bytes each."""
    head = b"\x28\xb5\x2f\xfd\x00\x58"
    return head + rle_block(128 * 1024) * (count - 1) + rle_block(128 * 1024, last=True)


async def read_away(instance: Instance, key: str) -> None:
    opened = await instance.reader.open_whole(instance.source(key))
    try:
        assert not isinstance(opened.content, bytes)
        async for _ in opened.content:
            pass
    finally:
        await opened.aclose()


async def peak_of(instance: Instance, key: str, start: int | None = None) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(REFUSED):
            await (read_away(instance, key) if start is None else instance.ranged(key, start, 501))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


BOMB = zeros(2500)  # 10 KB that decode to 312 MiB


@pytest.mark.parametrize("claim", [50 * 10**9, 5 * 1024**3, 2500 * 128 * 1024, 1000])
@pytest.mark.parametrize("size", ["1000", "200000", "400000"])
async def test_a_frame_that_claims_too_much_is_refused_before_it_takes_memory(
    store: MemoryBackend, claim: int, size: str
):
    header = frame.FrameHeader(CodecId.CPU_ZSTD, claim, len(BOMB), 0)
    metadata = world.manifest(b"", b"", framed=True).to_metadata() | {"s4-original-size": size}
    world.put_stored(store, "k", header.pack() + BOMB, metadata)
    instance = Instance(store)
    assert await peak_of(instance, "k") < 8 * MIB
    assert await peak_of(instance, "k", 500) < 8 * MIB
    assert instance.budget.used == 0


@pytest.mark.parametrize("kind", ["framed", "unframed"])
async def test_a_bomb_as_large_as_its_manifest_says_is_decoded_a_little_at_a_time(
    store: MemoryBackend, kind: str
):
    size = 2500 * 128 * 1024
    header = frame.FrameHeader(CodecId.CPU_ZSTD, size, len(BOMB), 12345)
    stored = header.pack() + BOMB if kind == "framed" else BOMB
    manifest = world.manifest(
        b"", stored, original_size=size, compressed_size=len(stored), framed=kind == "framed"
    )
    world.put_stored(store, "k", stored, manifest.to_metadata())
    instance = Instance(store)
    files = world.open_files()
    assert await peak_of(instance, "k") < 100 * MIB
    await world.settled(files)
    assert instance.budget.used == 0


async def test_frames_larger_than_memory_allows_are_read_right(store: MemoryBackend):
    plain = corpus.text(64 * 1024, 4) * 640  # 40 MiB, stored in little
    body = world.framed([plain, plain[: 5 * MIB], plain])
    world.put_indexed(store, "k", body)
    instance = Instance(store, ByteBudget(4 * MIB))
    files = world.open_files()
    opened = await instance.reader.open_whole(instance.source("k"))
    position = 0
    assert not isinstance(opened.content, bytes)
    async for piece in opened.content:
        assert piece == body.plain[position : position + len(piece)]
        position += len(piece)
    await opened.aclose()
    assert position == len(body.plain)
    data, fallback = await instance.ranged("k", 39 * MIB, 46 * MIB)
    assert fallback is None
    assert data == body.plain[39 * MIB : 46 * MIB]
    await instance.close()
    await world.settled(files)
    assert instance.budget.used == 0


async def test_a_small_budget_still_serves_a_range_of_a_large_frame(store: MemoryBackend):
    chunk = corpus.text(64 * 1024, 2) * 256
    body = world.framed([chunk, chunk])
    world.put_indexed(store, "k", body)
    instance = Instance(store, ByteBudget(4 * MIB))
    assert await instance.ranged("k", 100, 200) == (chunk[100:200], None)
    assert instance.budget.used == 0
    await instance.close()


async def test_a_full_budget_refuses_before_anything_is_fetched_twice(store: MemoryBackend):
    body = large()
    world.put_stored(store, "k", body.stored, body.metadata)
    budget = ByteBudget(4 * MIB)
    instance = Instance(store, budget)
    held = budget.share(4 * MIB)
    with pytest.raises(S3Error) as caught:
        await instance.reader.open_whole(instance.source("k"))
    assert caught.value.code == "SlowDown"
    held.release()
    assert await instance.get("k") == body.plain
    assert budget.used == 0


class Breaking(CountingBackend):
    """Ends every body with an error after some bytes."""

    after = 0

    async def get(self, bucket: str, key: str, **options: object) -> ObjectStream:
        stream = await super().get(bucket, key, **options)  # type: ignore[arg-type]
        return _Broken(stream, self.after)


class _Broken(ObjectStream):
    def __init__(self, inner: ObjectStream, after: int) -> None:
        self.head = inner.head
        self._inner = inner
        self._after = after

    async def read(self, limit: int) -> bytes:
        raise BackendError("reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._after
        async for piece in self._inner:
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                raise BackendError("reset")

    async def close(self) -> None:
        await self._inner.close()


@pytest.mark.parametrize("after", [1, 28, 30_000, 100_000, 130_000])
@pytest.mark.parametrize("form", ["framed", "coarse", "passthrough", "foreign"])
async def test_a_store_that_breaks_off_is_an_error_after_right_bytes_only(
    store: MemoryBackend, after: int, form: str
):
    body = coarse() if form == "coarse" else large()
    if form in {"framed", "coarse"}:
        world.put_stored(store, "k", body.stored, body.metadata)
    elif form == "passthrough":
        metadata = world.manifest(body.plain, body.plain, codec=CodecId.PASSTHROUGH)
        world.put_stored(store, "k", body.plain, metadata.to_metadata())
    else:
        world.put_stored(store, "k", body.plain)
    breaking = Breaking(store)
    breaking.after = after
    instance = Instance(breaking)
    assert isinstance(await check(instance, "k", body.plain), BackendError)


async def pieces_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [1, 27, 28, 29, 100, 4096, 1 << 20])
async def test_frames_do_not_depend_on_how_the_store_cuts_its_answer(size: int):
    body = small()
    workshop = Instance(MemoryBackend()).workshop
    reservation = workshop.budget.share(1)
    reader = FrameReader(workshop, reservation)
    found = [
        (decoded.offset - 7, b"".join(map(bytes, decoded.plain.pieces())))
        async for decoded in reader.frames(pieces_of(body.stored, size), largest=1000, offset=7)
    ]
    assert found == [
        (each.compressed_offset, body.plain[each.original_offset :][: each.original_size])
        for each in body.entries
    ]


async def test_a_payload_decoded_in_steps_is_the_payload(store: MemoryBackend):
    plain = corpus.text(3 * MIB, 3)
    (stored,) = encoder.encode_body(plain, world.CODECS.get(CodecId.CPU_ZSTD), 4 * MIB).frames
    ((_, header, payload),) = frame.walk(stored)
    decoding = world.decoder_of(header)
    pieces = [
        piece
        async for step in in_steps(world.LANES.codec, header.codec, decoding, payload)
        for piece in step
    ]
    decoding.finish()
    assert b"".join(pieces) == plain


@pytest.mark.parametrize("make", [large, coarse])
async def test_reading_a_body_many_times_and_hanging_up_leaks_nothing(
    store: MemoryBackend, make: Make
):
    body = make()
    world.put_stored(store, "k", body.stored, body.metadata)
    instance = Instance(store)
    files = world.open_files()
    source = random.Random(9)
    for _ in range(100):
        opened = await instance.reader.open_whole(instance.source("k"))
        assert not isinstance(opened.content, bytes)
        for _ in range(source.randrange(6)):
            await anext(opened.content)
        await opened.aclose()
        await opened.aclose()
    await asyncio.sleep(0)
    await world.settled(files)
    assert instance.budget.used == 0


async def read_beside(instance: Instance, *, frame_size: int) -> int:
    """Read `k`, waiting after each frame; the most bytes reserved meanwhile."""
    opened = await instance.reader.open_whole(instance.source("k"))
    assert not isinstance(opened.content, bytes)
    most, received = instance.budget.used, 0
    async for piece in opened.content:
        received += len(piece)
        if received % frame_size == 0:
            await idle(instance)
        most = max(most, instance.budget.used)
    await opened.aclose()
    assert received == opened.attributes.size
    return most


async def idle(instance: Instance) -> None:
    """Until nothing is being decoded: nobody asks for anything meanwhile."""
    loop = asyncio.get_running_loop()
    for _ in range(20):
        await loop.run_in_executor(instance.workshop.lanes.codec, int)


async def test_frames_are_decoded_ahead_in_memory_that_was_reserved(store: MemoryBackend):
    chunk = corpus.text(64 * 1024, 5) * 16  # 1 MiB, stored in little
    body = world.framed([chunk] * 12)
    world.put_stored(store, "k", body.stored, body.metadata)
    plenty, scarce = Instance(store, ByteBudget(64 * MIB)), Instance(store, ByteBudget(6 * MIB))
    one = MIB + body.entries[0].compressed_size
    most = await read_beside(plenty, frame_size=MIB)
    assert 3 * one < most <= 5 * one
    most = await read_beside(scarce, frame_size=MIB)
    assert one - 28 <= most < 2 * one
    assert plenty.budget.used == scarce.budget.used == 0


async def test_frames_that_wait_for_a_thread_are_not_decoded_after_a_hang_up(
    store: MemoryBackend, monkeypatch: pytest.MonkeyPatch
):
    decode, decoded = decoder.decode_frame, []

    def counted(header: frame.FrameHeader, *others: Any, **options: Any) -> list[bytes]:
        decoded.append(header)
        return decode(header, *others, **options)

    monkeypatch.setattr(decoder, "decode_frame", counted)
    chunk = corpus.text(64 * 1024, 5) * 16  # 1 MiB
    body = world.framed([chunk] * 12)
    world.put_stored(store, "k", body.stored, body.metadata)
    instance = Instance(store)
    opened = await instance.reader.open_whole(instance.source("k"))
    assert not isinstance(opened.content, bytes)
    await idle(instance)
    assert len(decoded) == 4
    gate = threading.Event()
    codec = instance.workshop.lanes.codec
    busy = [codec.submit(gate.wait) for _ in range(2)]
    try:
        received = 0
        while received <= 3 * MIB:  # the fourth has begun, so three others wait for a thread
            received += len(await anext(opened.content))
        for _ in range(20):
            await asyncio.sleep(0)
        assert instance.budget.used > 4 * MIB
        await opened.aclose()
        await asyncio.sleep(0)  # the loop passes the cancellation on
    finally:
        gate.set()
    await asyncio.gather(*map(asyncio.wrap_future, busy))
    await idle(instance)
    assert len(decoded) == 4
    assert instance.budget.used == 0


async def test_a_frame_larger_than_those_before_waits_until_it_has_its_memory(
    store: MemoryBackend,
):
    chunk = corpus.text(64 * 1024, 6) * 8
    body = world.framed([chunk, chunk * 12, chunk, chunk * 20])
    world.put_stored(store, "k", body.stored, body.metadata)
    instance = Instance(store, ByteBudget(12 * MIB))
    most = await read_beside(instance, frame_size=MIB // 2)
    assert 10 * MIB <= most <= 12 * MIB


@pytest.mark.parametrize("budget", [6, 256])
async def test_what_is_handed_on_last_does_not_keep_a_frame_in_memory(
    store: MemoryBackend, budget: int
):
    chunk = corpus.text(64 * 1024, 5) * 32
    body = world.framed([chunk] * 3)
    world.put_stored(store, "k", body.stored, body.metadata)
    instance = Instance(store, ByteBudget(budget * MIB))
    for span in (None, (100, 3 * MIB), (524_287, 524_289), (0, len(body.plain))):
        opened = await instance.reader.open_whole(instance.source("k"))
        if span is not None:  # without an index: cut out of a read from the start
            attributes = opened.attributes
            await opened.aclose()
            opened = await instance.reader.open_range(instance.source("k"), attributes, *span)
        assert not isinstance(opened.content, bytes)
        pieces = [piece async for piece in opened.content]
        await opened.aclose()
        assert b"".join(pieces) == body.plain[slice(*(span or (None,)))]
        behind = 0
        for piece in reversed(pieces):
            if span is not None or behind < READ_SIZE:
                assert type(piece) is bytes
            assert len(piece) <= READ_SIZE
            behind += len(piece)


async def test_reads_that_wait_for_memory_hold_none_so_that_others_go_on(store: MemoryBackend):
    body = world.framed([corpus.noise(2 * MIB)] * 2, (CodecId.CPU_ZSTD,))
    world.put_stored(store, "k", body.stored, body.metadata)
    instance = Instance(store, ByteBudget(28 * MIB))
    loop = asyncio.get_running_loop()
    reads = [loop.create_task(instance.reader.open_whole(instance.source("k"))) for _ in range(16)]
    for _ in range(6000):
        if sum(read.done() for read in reads) + len(instance.budget.waiters) == len(reads):
            break
        await asyncio.sleep(0.01)
    assert sum(read.done() and read.exception() is None for read in reads) == 7  # 4 MiB each
    async with asyncio.timeout(60):
        for read in reads:
            try:
                opened = await read
            except S3Error as error:  # refused before it held anything
                if error.code != "SlowDown":
                    raise
            else:
                await opened.aclose()
    assert instance.budget.used == 0


async def test_a_source_that_ends_by_cancellation_does_not_leave_its_reader_waiting():
    body = coarse()
    workshop = Instance(MemoryBackend()).workshop

    async def cancelled() -> AsyncIterator[bytes]:
        yield body.frames[0]
        yield body.frames[1]
        raise asyncio.CancelledError

    reader = FrameReader(workshop, workshop.budget.share(1))
    frames = reader.frames(cancelled(), largest=MIB, wanted=len(body.plain))
    for entry in body.entries[:2]:
        frame = await anext(frames)
        assert frame.offset == entry.compressed_offset
        frame.close()
    async with asyncio.timeout(30) as limit:
        with pytest.raises(asyncio.CancelledError):
            await anext(frames)
    assert not limit.expired()


async def test_of_frames_that_go_through_a_file_one_is_decoded_at_a_time(
    store: MemoryBackend, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("s4gateway.objects.decoding.LARGE_FRAME", MIB)
    body = world.framed([corpus.text(64 * 1024, 8) * 64] * 5)  # frames of 4 MiB
    world.put_stored(store, "k", body.stored, body.metadata)
    instance = Instance(store)
    files = world.open_files()
    opened = await instance.reader.open_whole(instance.source("k"))
    assert not isinstance(opened.content, bytes)
    received = len(await anext(opened.content))
    for _ in range(200):
        await asyncio.sleep(0.001)
    assert world.open_files() <= files + 1
    async for piece in opened.content:
        received += len(piece)
    await opened.aclose()
    assert received == len(body.plain)
    await world.settled(files)


async def test_a_late_fault_keeps_nothing_of_the_frames_before_it(store: MemoryBackend):
    chunk = corpus.text(64 * 1024, 5) * 32  # 2 MiB
    body = world.framed([chunk] * 5)
    broken = flipped(body.stored, body.entries[3].compressed_offset, 0xFF)
    world.put_stored(store, "k", broken, body.metadata)
    instance = Instance(store)
    await check(instance, "k", body.plain)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(4):
            assert await check(instance, "k", body.plain, 3 * len(chunk)) is not None
        for _ in range(1000):  # a codec thread may still be at a frame that nobody wants any more
            if tracemalloc.get_traced_memory()[0] < MIB:
                break
            await asyncio.sleep(0.01)
        assert tracemalloc.get_traced_memory()[0] < MIB
    finally:
        tracemalloc.stop()
        gc.enable()
