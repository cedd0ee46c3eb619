"""Every object read: what is damaged is found, and nothing else is called so."""

import hashlib
import random
from dataclasses import replace

import pytest

from s4gateway.backend.base import BackendAnswer, BackendUnavailable, Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects.dictionaries import publish
from s4gateway.tools.target import Target
from s4gateway.tools.verify import Outcome, Verify, VerifyReport, verify
from s4gateway.wire import frame, keys
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c
from tests import corpus
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import tailed, world
from tests.objects.versioned import VersionedBackend
from tests.objects.world import BUCKET

BODY = world.framed(world.cut(corpus.text(50_000), 9_000), padding=(-1, 40))
DICTIONARY = corpus.text(20_000, seed=3)


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


async def run(store: MemoryBackend, **options: object) -> VerifyReport:
    wanted = Verify(Target(BUCKET), pause=0, **options)  # type: ignore[arg-type]
    return await verify(store, wanted)


def outcomes(report: VerifyReport) -> dict[str, int]:
    return {name: count for name, count in report.outcomes.items() if count}


def passthrough(store: MemoryBackend, key: str, plain: bytes) -> None:
    metadata = world.manifest(plain, plain, codec=CodecId.PASSTHROUGH).to_metadata()
    world.put_stored(store, key, plain, metadata)


async def with_dictionary(store: MemoryBackend, key: str, plain: bytes) -> str:
    dict_id, _ = await publish(store, BUCKET, DICTIONARY)
    compressor = ZstdDict(DICTIONARY).compressor()
    payload = compressor.compress(plain) + compressor.flush()
    header = frame.FrameHeader(CodecId.CPU_ZSTD_DICT, len(plain), len(payload), crc32c(plain))
    stored = header.pack() + payload
    manifest = world.manifest(plain, stored, codec=CodecId.CPU_ZSTD_DICT, framed=True)
    world.put_stored(store, key, stored, replace(manifest, dict_id=dict_id).to_metadata())
    return dict_id


@pytest.fixture
async def filled(store: MemoryBackend) -> MemoryBackend:
    """One sound object of every form, with the internal objects beside them."""
    instance = world.Instance(store)
    await instance.put("written/small", corpus.text(3_000))
    await instance.put("written/empty", b"")
    await instance.put("written/noise", corpus.noise(300_000))
    await instance.put("written/large", corpus.log(3_000_000))
    await instance.close()
    passthrough(store, "passthrough", corpus.noise(2_000_000))
    world.put_indexed(store, "padded", BODY)
    parts = [corpus.text(70_000, seed=1), corpus.text(40_000, seed=2), b""]
    tailed.put_tailed(store, "multipart", tailed.tailed(parts, frame_size=30_000, padding=90))
    world.put_stored(store, "unframed", *_unframed(corpus.text(100_000)))
    await with_dictionary(store, "dictionary", corpus.text(2_000, seed=3))
    world.put_stored(store, "foreign", b"S4F2 is how a client's own file may begin")
    return store


def _unframed(plain: bytes) -> tuple[bytes, dict[str, str]]:
    compressor = world.CODECS.get(CodecId.CPU_GZIP).compressor()
    stored = compressor.compress(plain) + compressor.flush()
    return stored, world.manifest(plain, stored, codec=CodecId.CPU_GZIP).to_metadata()


async def test_sound_objects_of_every_form_are_sound(filled: MemoryBackend):
    report = await run(filled, sidecars=True)
    assert outcomes(report) == {"sound": 9, "foreign": 1}
    assert report.findings == report.indexes == ()
    assert report.is_sound
    assert report.compared == {"etag": 9, "size": 9}
    assert set(report.verdicts) <= {"OK", "MISSING_HARMLESS"}
    assert report.original_bytes > report.stored_bytes > 0


async def test_a_flipped_bit_anywhere_in_a_payload_or_body_is_found(filled: MemoryBackend):
    """In padding and in a tail's spare bytes nothing can be found, so those are left alone."""
    draw = random.Random(7)
    spans = {
        "written/small": (28, None), "written/noise": (0, None), "written/large": (28, 5000),
        "passthrough": (0, None), "unframed": (10, None), "dictionary": (34, None),
        "padded": (BODY.entries[1].compressed_offset + 28, BODY.entries[2].compressed_offset - 52),
        "multipart": (28, 2000),
    }  # fmt: skip
    for key, (start, end) in spans.items():
        kept = filled.buckets[BUCKET][key]
        position = draw.randrange(start, len(kept.data) if end is None else end)
        damaged = bytearray(kept.data)
        damaged[position] ^= 1 << draw.randrange(8)
        filled.buckets[BUCKET][key] = replace(kept, data=bytes(damaged))
        report = await verify(filled, Verify(Target(BUCKET, key), pause=0))
        assert [(each.key, each.outcome) for each in report.findings] == [(key, Outcome.DAMAGED)], (
            key,
            position,
        )
        assert not report.is_sound
        filled.buckets[BUCKET][key] = kept


@pytest.mark.parametrize("key", ["written/large", "padded", "multipart", "passthrough"])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.999])
async def test_a_body_cut_short_is_found(filled: MemoryBackend, key: str, share: float):
    kept = filled.buckets[BUCKET][key]
    filled.buckets[BUCKET][key] = replace(kept, data=kept.data[: int(len(kept.data) * share)])
    report = await run(filled)
    assert [each.key for each in report.findings] == [key]


async def test_frames_that_are_sound_but_not_those_of_the_object_are_found(store: MemoryBackend):
    """Two frames that changed places: every CRC holds, and the object is another one."""
    body = world.framed([b"a" * 1000, b"b" * 1000])
    world.put_stored(store, "swapped", body.frames[1] + body.frames[0], body.metadata)
    report = await run(store)
    assert [each.key for each in report.findings] == ["swapped"]


async def test_an_etag_that_is_not_that_of_the_bytes_is_found(store: MemoryBackend):
    lying = world.manifest(BODY.plain, BODY.stored, framed=True, logical_etag="0" * 32)
    world.put_stored(store, "key", BODY.stored, lying.to_metadata())
    report = await run(store)
    assert report.findings[0].cause.startswith("etag: ")
    checksum = ("sha256", "A" * 43 + "=")
    declared = world.manifest(BODY.plain, BODY.stored, framed=True, checksum=checksum)
    world.put_stored(store, "key", BODY.stored, declared.to_metadata())
    assert (await run(store)).findings[0].cause.startswith("sha256: ")


async def test_a_multipart_objects_parts_are_compared_with_its_composite_etag(store: MemoryBackend):
    body = tailed.tailed([b"first part" * 300, b"second" * 200])
    tailed.put_tailed(store, "key", body)
    assert (await run(store)).compared == {"etag": 1, "size": 1}
    other = replace(body.tail, etag=f"{'0' * 32}-2")
    tailed.put_tailed(store, "key", body, stored=body.frames + other.encode())
    assert (await run(store)).findings[0].cause.startswith("etag: ")


async def test_a_lost_dictionary_is_damage(filled: MemoryBackend):
    (key,) = [key for key in filled.buckets[BUCKET] if key.startswith(keys.DICTIONARY_PREFIX)]
    del filled.buckets[BUCKET][key]
    report = await run(filled)
    assert [(each.key, each.outcome) for each in report.findings] == [
        ("dictionary", Outcome.DAMAGED)
    ]
    assert key.removeprefix(keys.DICTIONARY_PREFIX) in report.findings[0].cause


async def test_what_cannot_be_read_here_is_told_apart(store: MemoryBackend):
    world.put_stored(store, "encrypted", b"S4E6" + bytes(60), {"s4-encrypted": "aes-256-gcm"})
    gpu = frame.FrameHeader(CodecId.NVCOMP_ZSTD, 9, 4, 0).pack() + b"FCG1"
    world.put_stored(store, "gpu", gpu, world.manifest(b"x" * 9, gpu, framed=True).to_metadata())
    report = await run(store)
    assert outcomes(report) == {"encrypted": 1, "unreadable": 1}
    assert [each.key for each in report.findings] == ["gpu"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (BackendAnswer(404, "NoSuchKey"), Outcome.VANISHED),
        (BackendAnswer(403, "InvalidObjectState"), Outcome.ARCHIVED),
        (BackendAnswer(403, "AccessDenied"), Outcome.FAILED),
        (BackendAnswer(503, "SlowDown"), Outcome.FAILED),
        (BackendUnavailable("no answer"), Outcome.FAILED),
    ],
)
async def test_what_the_store_refuses_is_not_damage(
    store: MemoryBackend, error: Exception, outcome: Outcome
):
    world.put_stored(store, "key", BODY.stored, BODY.metadata)
    backend = FaultyBackend(store, fault=lambda call: error if call.key == "key" else None)
    report = await verify(backend, Verify(Target(BUCKET), pause=0))
    assert outcomes(report) == {outcome.value: 1}
    assert report.is_sound is (outcome is not Outcome.FAILED)
    denied = isinstance(error, BackendAnswer) and error.code == "AccessDenied"
    if denied:
        assert backend.count("get") == 1  # asking again would change nothing


async def test_an_object_that_was_wrong_once_is_read_again(store: MemoryBackend):
    damaged = bytearray(BODY.stored)
    damaged[40] ^= 1
    world.put_stored(store, "key", bytes(damaged), BODY.metadata)

    def heal(call: Call) -> None:
        if backend.count("get") == 2:
            world.put_stored(store, "key", BODY.stored, BODY.metadata)

    backend = FaultyBackend(store, fault=heal)
    report = await verify(backend, Verify(Target(BUCKET), pause=0))
    assert (outcomes(report), report.read_again) == ({"sound": 1}, 1)
    assert any("read again" in note for note in report.notes)


async def test_large_objects_of_others_are_asked_about_and_not_read(store: MemoryBackend):
    world.put_stored(store, "large", bytes(3 * world.MIB))
    counting = CountingBackend(store)
    report = await verify(counting, Verify(Target(BUCKET)))
    assert outcomes(report) == {"foreign": 1}
    assert (counting.count("get"), counting.received) == (0, 0)


async def test_indexes_are_judged_when_asked_for(store: MemoryBackend):
    world.put_stored(store, "key", BODY.stored, BODY.metadata)
    assert (await run(store)).is_sound
    report = await run(store, sidecars=True)
    assert [(each.key, each.op) for each in report.indexes] == [("key", "MISSING_DIVERGENT")]
    assert not report.is_sound


async def test_noncurrent_versions_are_read_when_asked_for():
    store = VersionedBackend()
    headers = [(f"x-amz-meta-{name}", value) for name, value in BODY.metadata.items()]
    damaged = bytearray(BODY.stored)
    damaged[40] ^= 1
    for body in (BODY.stored, bytes(damaged), BODY.stored):
        await store.put(BUCKET, "key", Body.of(body), headers)
    await store.delete(BUCKET, "other")
    assert outcomes(await run(store)) == {"sound": 1}
    report = await run(store, versions=True)
    assert outcomes(report) == {"sound": 2, "damaged": 1}
    assert report.findings[0].version_id == "v0001"


async def test_an_empty_target_is_sound(store: MemoryBackend):
    report = await run(store)
    assert (report.objects, report.is_sound) == (0, True)


async def test_etags_of_parts_are_not_taken_for_md5s_of_the_whole(store: MemoryBackend):
    """An object of an older writer: no tail, so its composite ETag cannot be computed."""
    metadata = {
        "s4-multipart": "true", "s4-codec": "cpu-zstd", "s4-original-size": str(len(BODY.plain)),
        "s4-logical-etag": f"{hashlib.md5(BODY.plain).hexdigest()}-2",
    }  # fmt: skip
    world.put_stored(store, "key", BODY.stored, metadata)
    report = await run(store)
    assert (outcomes(report), report.compared) == ({"sound": 1}, {"size": 1})
