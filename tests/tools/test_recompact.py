"""Gateway objects compressed again: what is gained, what is kept, what is not done twice."""

import base64
import hashlib
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s4gateway.backend.base import Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.codecs.registry import Registry
from s4gateway.s3.completion import composite_checksum
from s4gateway.state.files import StateFileError
from s4gateway.state.ledger import Delta
from s4gateway.state.shared_file import SharedFile
from s4gateway.tools.objects import Making
from s4gateway.tools.patience import Patience
from s4gateway.tools.recompact import RecompactParams, RecompactReport, recompact
from s4gateway.tools.remembered import Remembered
from s4gateway.tools.target import Target
from s4gateway.wire import keys, manifest
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.tail import COMPOSITE
from tests import corpus
from tests.backends import CountingBackend
from tests.objects import tailed, world
from tests.objects.counted import MemoryLedger, metadata_of, really_held
from tests.objects.world import BUCKET, MIB
from tests.tools.described import DescribedBackend

TEXT = corpus.text(80_000)
LARGE = corpus.text(5 * MIB)
QUICK = Patience(attempts=3, first=0, longest=0)


@pytest.fixture
def store() -> DescribedBackend:
    return DescribedBackend.with_buckets(BUCKET)


async def run(store: Any, *, execute: bool = True, **options: Any) -> RecompactReport:
    chosen = {"zstd_level": 12, "making": Making(threads=2), "patience": QUICK, **options}
    params = RecompactParams(target=Target(BUCKET), execute=execute, **chosen)
    return await recompact(store, params)


async def fill(store: MemoryBackend, ledger: Any = None, **bodies: bytes) -> None:
    """As a gateway at level 1 has stored them."""
    instance = world.Instance(store, codecs=Registry(1), ledger=ledger)
    for key, body in bodies.items():
        await instance.put(key, body)
    await instance.close()


async def read(store: MemoryBackend, key: str) -> bytes:
    instance = world.Instance(store)
    try:
        return await instance.get(key)
    finally:
        await instance.close()


def metadata(store: MemoryBackend, key: str) -> dict[str, str]:
    return metadata_of(store.buckets[BUCKET][key])


def skipped(report: RecompactReport) -> dict[str, int]:
    fields = {name: getattr(report, name) for name in dir(report) if name.startswith("skipped_")}
    return {name.removeprefix("skipped_"): count for name, count in fields.items() if count}


async def test_objects_become_smaller_and_say_at_which_level(store: DescribedBackend):
    await fill(store, small=TEXT, large=LARGE)
    before = {key: len(store.buckets[BUCKET][key].data) for key in ("small", "large")}
    report = await run(store)
    assert (report.recompacted, report.failed, skipped(report)) == (2, 0, {}), report.failures
    after = {key: len(store.buckets[BUCKET][key].data) for key in before}
    assert (report.recompacted_bytes_before, report.recompacted_bytes_after) == (
        sum(before.values()),
        sum(after.values()),
    )
    assert all(after[key] < before[key] for key in before)
    assert metadata(store, "small")[manifest.ZSTD_LEVEL] == "12"
    assert await read(store, "small") == TEXT
    assert await read(store, "large") == LARGE
    instance = world.Instance(store)
    assert (await instance.ranged("large", 4_500_000, 4_500_100))[1] is None
    await instance.close()
    again = await run(store)
    assert (again.recompacted, skipped(again)) == (0, {"already_compacted": 2})


async def test_a_higher_level_is_another_reason(store: DescribedBackend):
    await fill(store, key=TEXT)
    await run(store, zstd_level=5)
    report = await run(store, zstd_level=19, min_gain_percent=0.1)
    assert report.recompacted == 1
    assert metadata(store, "key")[manifest.ZSTD_LEVEL] == "19"


async def test_parts_checksums_and_etag_of_an_upload_stay_and_its_padding_goes(
    store: DescribedBackend,
):
    parts = [corpus.text(300_000, seed=seed) for seed in range(3)]
    values = tuple(base64.b64encode(crc32c(part).to_bytes(4)).decode() for part in parts)
    checksum = ("crc32c", composite_checksum("crc32c", values), COMPOSITE)
    body = tailed.tailed(
        parts, frame_size=100_000, padding=200_000, checksum=checksum, part_checksums=values
    )
    tailed.put_tailed(store, "key", body)
    report = await run(store)
    assert (report.recompacted, report.failed) == (1, 0), report.failures
    assert len(store.buckets[BUCKET]["key"].data) < len(body.stored) - 2 * 200_000
    instance = world.Instance(store)
    seen = await instance.reader.attributes(instance.source("key"))
    assert (seen.tail, seen.etag, seen.size) == (body.tail, body.tail.etag, len(body.plain))
    assert await instance.get("key") == body.plain
    data, fallback = await instance.ranged("key", 450_000, 450_100)
    assert (data, fallback) == (body.plain[450_000:450_100], None)
    await instance.close()
    assert skipped(await run(store)) == {"already_compacted": 1}


async def test_the_checksum_a_client_declared_is_compared_and_stays(store: DescribedBackend):
    sha256 = base64.b64encode(hashlib.sha256(TEXT).digest()).decode()
    body = world.framed([TEXT], padding=[4_000])
    for key, value in {"right": sha256, "wrong": sha256.swapcase()}.items():
        declared = world.manifest(TEXT, body.stored, framed=True, checksum=("sha256", value))
        world.put_stored(store, key, body.stored, declared.to_metadata())
    report = await run(store)
    assert report.recompacted == 1
    assert [(each.key, each.op) for each in report.failures] == [("wrong", "GetObject(body)")]
    assert metadata(store, "right")[manifest.CHECKSUM] == f"sha256:{sha256}"


async def test_each_reason_to_leave_an_object_alone_has_its_count(store: DescribedBackend):
    await store.put(BUCKET, "foreign", Body.of(TEXT))
    await store.put(BUCKET, "nothing", Body.of(b""))
    framed = world.framed([TEXT])
    world.put_stored(store, "unstamped", framed.stored)
    gzip = world.manifest(TEXT, framed.stored, codec=CodecId.CPU_GZIP, framed=True)
    world.put_stored(store, "gzip", framed.stored, gzip.to_metadata())
    sealed = world.manifest(TEXT, framed.stored, framed=True, encrypted=True)
    world.put_stored(store, "sealed", framed.stored, sealed.to_metadata())
    await fill(store, noise=corpus.noise(100_000), empty=b"", bomb=bytes(3 * MIB))
    report = await run(store, max_body_bytes=2 * MIB)
    assert skipped(report) == {
        "not_s4": 3, "unstamped_framed": 1, "unsupported_codec": 2, "encrypted": 1, "too_large": 1,
    }  # fmt: skip
    assert report.recompacted == report.failed == 0


async def test_frames_without_metadata_are_taken_for_such_when_asked_to(store: DescribedBackend):
    framed = world.framed(world.cut(TEXT, 9_000), padding=(-1, 4_000))
    world.put_stored(store, "frames", framed.stored)
    world.put_stored(store, "file", framed.stored[:5_000])
    report = await run(store, assume_unstamped_framed=True)
    assert (report.recompacted, report.failed) == (1, 1)
    assert [(each.key, each.op) for each in report.failures] == [("file", "decode-frames")]
    assert await read(store, "frames") == TEXT
    assert store.buckets[BUCKET]["file"].data == framed.stored[:5_000]


async def test_what_gains_too_little_stays(store: DescribedBackend):
    await fill(store, key=TEXT)
    before = dict(store.buckets[BUCKET])
    report = await run(store, min_gain_percent=90.0)
    assert (report.recompacted, skipped(report)) == (0, {"insufficient_gain": 1})
    assert store.buckets[BUCKET] == before
    assert any("--state-file" in note for note in report.notes)


async def test_what_gained_too_little_is_not_read_again(store: DescribedBackend, tmp_path: Path):
    state = tmp_path / "state"
    await fill(store, key=LARGE)
    first = await run(store, min_gain_percent=90.0, state_file=state)
    assert (skipped(first), first.remembered) == ({"insufficient_gain": 1}, 0)
    counting = CountingBackend(store)
    second = await run(counting, min_gain_percent=90.0, state_file=state)
    assert (skipped(second), second.remembered) == ({"insufficient_gain": 1}, 1)
    assert counting.received < 10_000
    assert not any("--state-file" in note for note in second.notes)


async def test_what_was_remembered_serves_another_gain_and_no_other_version(
    store: DescribedBackend, tmp_path: Path
):
    state = tmp_path / "state"
    await fill(store, key=TEXT, other=TEXT)
    await run(store, min_gain_percent=90.0, state_file=state)
    await fill(store, other=corpus.text(80_000, seed=8))
    report = await run(store, min_gain_percent=90.0, state_file=state)
    assert (skipped(report), report.remembered) == ({"insufficient_gain": 2}, 1)
    assert (await run(store, min_gain_percent=1.0, state_file=state)).recompacted == 2


async def test_a_state_file_of_something_else_is_refused_and_kept(
    store: DescribedBackend, tmp_path: Path
):
    state = tmp_path / "state"
    state.write_bytes(b"precious notes of somebody" * 100)
    with pytest.raises(StateFileError, match="no file of this tool"):
        await run(store, state_file=state)
    assert state.read_bytes() == b"precious notes of somebody" * 100
    with pytest.raises(StateFileError):
        await run(store, state_file=tmp_path / "missing" / "state")


async def test_a_state_file_that_fails_is_given_up_and_the_run_goes_on(
    store: DescribedBackend, tmp_path: Path
):
    await fill(store, small=TEXT)
    state = tmp_path / "state"
    await run(store, state_file=state, min_gain_percent=99)
    await fill(store, another=TEXT)
    with closing(sqlite3.connect(state, isolation_level=None)) as other:
        other.execute("begin immediate")
        report = await run(store, state_file=state, min_gain_percent=99)
    assert (report.skipped_insufficient_gain, report.remembered, report.failed) == (2, 1, 0)
    assert any("locked" in note for note in report.notes)


def test_the_state_file_forgets_the_oldest(tmp_path: Path):
    remembered = Remembered(tmp_path / "state", limit=3)
    for number in range(5):
        remembered.add(("bucket", f"key-\udcff{number}"), "etag", 19, number)
    remembered.close()
    again = Remembered(tmp_path / "state")
    found = [again.size(("bucket", f"key-\udcff{number}"), "etag", 19) for number in range(5)]
    again.close()
    assert found == [None, None, 2, 3, 4]


async def test_a_dry_run_says_the_same_and_writes_nothing(store: DescribedBackend):
    await fill(store, small=TEXT, large=LARGE)
    before = dict(store.buckets[BUCKET])
    dry = await run(store, execute=False)
    assert store.buckets[BUCKET] == before
    wet = await run(store)
    assert (dry.dry_run, dry.recompacted, dry.recompacted_bytes_after) == (
        True,
        wet.recompacted,
        wet.recompacted_bytes_after,
    )


async def test_the_ledger_follows_to_the_byte(store: DescribedBackend, tmp_path: Path):
    path = tmp_path / "ledger.json"
    ledger = MemoryLedger()
    await fill(store, ledger, small=TEXT, large=LARGE)
    file = SharedFile(path, lambda error, moved_to: None)
    file.merge({BUCKET: Delta(ledger.original, ledger.stored, ledger.objects)})
    report = await run(store, ledger_file=path)
    assert (report.recompacted, report.failed) == (2, 0), report.failures
    assert not any("--rescan" in note for note in report.notes)
    counters = file.load()[BUCKET]
    file.close()
    held = really_held(store)
    assert held[1] < ledger.stored
    assert (counters.original_bytes, counters.stored_bytes, counters.objects) == held


async def test_without_the_ledger_the_mark_stays_and_a_rescan_is_due(store: DescribedBackend):
    await fill(store, MemoryLedger(), key=TEXT)
    await fill(store, other=TEXT)
    report = await run(store)
    assert report.recompacted == 2
    assert metadata(store, "key")[manifest.LEDGER] == "1"
    assert manifest.LEDGER not in metadata(store, "other")
    assert any(note.startswith("1 objects that a savings ledger counts") for note in report.notes)


async def test_a_damaged_object_is_not_replaced(store: DescribedBackend):
    await fill(store, key=LARGE)
    stored = store.buckets[BUCKET]["key"]
    damaged = bytearray(stored.data)
    damaged[len(damaged) // 2] ^= 1
    store.buckets[BUCKET]["key"] = replace(stored, data=bytes(damaged))
    report = await run(store)
    assert [(each.key, each.op) for each in report.failures] == [("key", "decode-frames")]
    assert store.buckets[BUCKET]["key"].data == bytes(damaged)
    assert keys.sidecar_key("key") in store.buckets[BUCKET]
