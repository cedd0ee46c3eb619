"""Verdicts about sidecars: what is believed, what is not, and what an overwrite may not cause."""

import struct
from dataclasses import replace

import pytest

from s4gateway.backend.base import BackendAnswer, BackendUnavailable
from s4gateway.backend.memory import MemoryBackend
from s4gateway.tools import sidecar_errors
from s4gateway.tools.sidecars import Verdict, VerifyReport, verify_sidecar
from s4gateway.wire import keys
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.index import MAX_SIDECAR_BYTES, FrameEntry, FrameIndex, SseBinding
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import tailed, world
from tests.objects.world import BUCKET

NAME = (BUCKET, "key")
SIDECAR = keys.sidecar_key("key")
BODY = world.framed(world.cut(b"some text to cut up" * 300, 1000), padding=(-1, 40))


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


async def verdict(store: MemoryBackend, **options: int) -> VerifyReport:
    return await verify_sidecar(store, NAME, **options)


async def test_the_sidecar_of_the_live_object_is_ok(store: MemoryBackend):
    etag = world.put_indexed(store, "key", BODY)
    report = await verdict(store)
    assert (report.verdict, report.frames, report.etag) == (Verdict.OK, len(BODY.entries), etag)
    assert report.stored_size == len(BODY.stored)
    assert report.verdict.is_sound


async def test_the_sidecar_of_a_multipart_object_with_a_tail_is_ok(store: MemoryBackend):
    body = tailed.tailed([b"first part" * 300, b"second" * 200], padding=100)
    tailed.put_tailed(store, "key", body)
    assert (await verdict(store)).verdict is Verdict.OK


@pytest.mark.parametrize("bound", ["etag", "size"])
async def test_a_binding_of_one_kind_is_enough(store: MemoryBackend, bound: str):
    etag = world.put_indexed(store, "key", BODY)
    binding = (etag, None) if bound == "etag" else (None, len(BODY.stored))
    world.put_sidecar(store, "key", BODY.index.bind(*binding).encode())
    report = await verdict(store)
    assert report.verdict is Verdict.OK
    assert report.detail.lower().startswith(f"{bound} and")


async def test_a_sidecar_bound_to_nothing_is_legacy_and_only_if_its_entries_are_right(
    store: MemoryBackend,
):
    world.put_indexed(store, "key", BODY)
    world.put_sidecar(store, "key", BODY.index.encode())
    report = await verdict(store)
    assert report.verdict is Verdict.OK_LEGACY
    assert report.verdict.is_sound
    wrong = FrameIndex.from_entries([FrameEntry(0, 5, 0, 40)])
    world.put_sidecar(store, "key", wrong.encode())
    assert (await verdict(store)).verdict is Verdict.MISMATCH


@pytest.mark.parametrize(
    ("stored", "metadata"),
    [
        (b"as it came", {}),
        (b"plain", world.manifest(b"plain", b"plain", codec=CodecId.PASSTHROUGH).to_metadata()),
        (world.framed([b"one frame"]).stored, world.framed([b"one frame"]).metadata),
        (b"", world.framed([]).metadata),
    ],
)
async def test_none_is_missed_where_none_is_needed(
    store: MemoryBackend, stored: bytes, metadata: dict[str, str]
):
    world.put_stored(store, "key", stored, metadata)
    report = await verdict(store)
    assert report.verdict is Verdict.MISSING_HARMLESS
    assert report.verdict.is_sound


async def test_none_beside_several_frames_is_divergent_and_told_from_two_headers(
    store: MemoryBackend,
):
    body = world.framed([b"x" * 300_000] * 40, (CodecId.PASSTHROUGH,))
    world.put_stored(store, "key", body.stored, body.metadata)
    counting = CountingBackend(store)
    report = await verify_sidecar(counting, NAME)
    assert report.verdict is Verdict.MISSING_DIVERGENT
    assert not report.verdict.is_sound
    assert counting.received < 10_000


async def test_none_beside_an_encrypted_object_is_unknown(store: MemoryBackend):
    world.put_stored(store, "key", b"S4E6" + bytes(60), {"s4-encrypted": "aes-256-gcm"})
    report = await verdict(store)
    assert report.verdict is Verdict.MISSING_UNKNOWN
    assert report.verdict.is_sound


async def test_none_beside_an_object_above_the_bound_is_unknown(store: MemoryBackend):
    world.put_stored(store, "key", BODY.stored, BODY.metadata)
    report = await verdict(store, max_body_bytes=len(BODY.stored) - 1)
    assert report.verdict is Verdict.MISSING_UNKNOWN


async def test_above_the_bound_a_binding_is_compared_and_the_frames_are_not(store: MemoryBackend):
    etag = world.put_stored(store, "key", BODY.stored, BODY.metadata)
    wrong = FrameIndex.from_entries([FrameEntry(0, 5, 0, 40)]).bind(etag, len(BODY.stored))
    world.put_sidecar(store, "key", wrong.encode())
    report = await verdict(store, max_body_bytes=10)
    assert report.verdict is Verdict.OK
    assert "not looked at" in report.notes[0]


async def test_a_sidecar_of_another_version_is_stale(store: MemoryBackend):
    etag = world.put_indexed(store, "key", BODY)
    world.put_sidecar(store, "key", BODY.index.bind("0" * 32, len(BODY.stored)).encode())
    report = await verdict(store)
    assert report.verdict is Verdict.STALE_ETAG
    assert "0" * 32 in report.detail
    world.put_sidecar(store, "key", BODY.index.bind(etag, 7).encode())
    assert (await verdict(store)).verdict is Verdict.STALE_SIZE


@pytest.mark.parametrize("data", [b"", b"S4IX", b"not an index" * 10, bytes(100)])
async def test_what_is_no_sidecar_is_a_decode_error(store: MemoryBackend, data: bytes):
    world.put_indexed(store, "key", BODY)
    world.put_sidecar(store, "key", data)
    assert (await verdict(store)).verdict is Verdict.DECODE_ERROR


async def test_a_sidecar_that_promises_millions_of_entries_is_a_decode_error(store: MemoryBackend):
    world.put_indexed(store, "key", BODY)
    bomb = struct.pack("<4sIQQQQI", b"S4IX", 2, 2**24, 1, 1, 0, 0)
    world.put_sidecar(store, "key", bomb)
    assert (await verdict(store)).verdict is Verdict.DECODE_ERROR


async def test_an_oversized_sidecar_is_not_read(store: MemoryBackend):
    world.put_indexed(store, "key", BODY)
    world.put_sidecar(store, "key", bytes(MAX_SIDECAR_BYTES + 1))
    counting = CountingBackend(store)
    report = await verify_sidecar(counting, NAME)
    assert report.verdict is Verdict.DECODE_ERROR
    assert "too-large" in report.detail
    assert counting.received == 0


def _changed(position: int, **changes: int) -> FrameIndex:
    entries = list(BODY.entries)
    entries[position] = replace(entries[position], **changes)
    return FrameIndex.from_entries(entries, total_padded=len(BODY.stored))


@pytest.mark.parametrize(
    "index",
    [
        _changed(1, original_size=999),
        _changed(1, compressed_size=BODY.entries[1].compressed_size - 1),
        _changed(1, compressed_offset=BODY.entries[1].compressed_offset - 1),
        FrameIndex.from_entries(BODY.entries[:-1], total_padded=len(BODY.stored)),
        FrameIndex.from_entries(
            [*BODY.entries, FrameEntry(5700, 9, 10**6, 40)], total_padded=len(BODY.stored)
        ),
        FrameIndex.from_entries([], total_padded=len(BODY.stored)),
        FrameIndex.from_entries(BODY.entries, total_padded=10**9),
        FrameIndex.from_entries(
            BODY.entries,
            total_padded=len(BODY.stored),
            sse=SseBinding(1024, 9, 1, b"saltsalt", 999, 24),
        ),
    ],
)
async def test_a_bound_sidecar_whose_entries_are_not_the_frames_is_a_mismatch(
    store: MemoryBackend, index: FrameIndex
):
    etag = world.put_stored(store, "key", BODY.stored, BODY.metadata)
    world.put_sidecar(store, "key", index.bind(etag, len(BODY.stored)).encode())
    report = await verdict(store)
    assert report.verdict is Verdict.MISMATCH
    assert not report.verdict.is_sound


async def test_a_bound_sidecar_of_an_object_without_frames_is_a_mismatch(store: MemoryBackend):
    etag = world.put_stored(store, "key", BODY.stored, {})
    world.put_sidecar(store, "key", BODY.index.bind(etag, len(BODY.stored)).encode())
    assert (await verdict(store)).verdict is Verdict.MISMATCH


async def test_a_sidecar_without_an_object_is_an_orphan(store: MemoryBackend):
    world.put_sidecar(store, "key", BODY.index.encode())
    report = await verdict(store)
    assert report.verdict is Verdict.ORPHAN
    assert not report.verdict.is_sound


async def test_neither_object_nor_sidecar_is_the_stores_404(store: MemoryBackend):
    with pytest.raises(BackendAnswer) as raised:
        await verdict(store)
    assert raised.value.missing


async def test_a_damaged_body_is_a_frame_scan_error(store: MemoryBackend):
    damaged = BODY.stored[:-9] + bytes(9)
    cut = BODY.entries[3].compressed_offset
    world.put_indexed(store, "key", replace(BODY, stored=damaged[:cut] + b"JUNK" + damaged[cut:]))
    with pytest.raises(sidecar_errors.FrameScan, match="bad-magic"):
        await verdict(store)


async def test_an_overwrite_between_two_requests_is_no_finding(store: MemoryBackend):
    """The sidecar of the new version is met with the HEAD of the old one in hand."""
    old = world.framed([b"old " * 400] * 3)
    world.put_indexed(store, "key", old)
    looked = 0

    def overwrite(call: Call) -> None:
        nonlocal looked
        if call.verb == "get" and call.key == SIDECAR:
            looked += 1
            if looked == 1:
                world.put_indexed(store, "key", BODY)

    backend = FaultyBackend(store, fault=overwrite)
    report = await verify_sidecar(backend, NAME)
    assert (report.verdict, looked) == (Verdict.OK, 2)


async def test_an_overwrite_while_frames_are_read_is_looked_at_again(store: MemoryBackend):
    world.put_indexed(store, "key", world.framed([b"old " * 400] * 3))

    def overwrite(call: Call) -> None:
        if call.byte_range is not None and call.key == "key":
            backend.fault = lambda _: None
            world.put_indexed(store, "key", BODY)

    backend = FaultyBackend(store, fault=overwrite)
    assert (await verify_sidecar(backend, NAME)).verdict is Verdict.OK


async def test_a_store_that_fails_is_no_verdict(store: MemoryBackend):
    world.put_indexed(store, "key", BODY)
    for verb, key in (("head", "key"), ("get", SIDECAR), ("get", "key")):
        gone = BackendUnavailable("no answer")
        wanted = (verb, key)
        backend = FaultyBackend(
            store, fault=lambda call, w=wanted, e=gone: e if (call.verb, call.key) == w else None
        )
        with pytest.raises(BackendUnavailable):
            await verify_sidecar(backend, NAME)


async def test_a_refused_sidecar_is_no_missing_one(store: MemoryBackend):
    world.put_indexed(store, "key", BODY)
    denied = BackendAnswer(403, "AccessDenied")
    backend = FaultyBackend(store, fault=lambda call: denied if call.key == SIDECAR else None)
    with pytest.raises(BackendAnswer, match="AccessDenied"):
        await verify_sidecar(backend, NAME)


async def test_an_object_without_an_etag_cannot_be_judged(store: MemoryBackend):
    world.put_stored(store, "key", BODY.stored, BODY.metadata, etag="")
    with pytest.raises(sidecar_errors.MissingContentLength):
        await verdict(store)
