"""What stored bytes are, told from headers: everything counted, little named, faults in place."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from s4gateway.backend.base import BackendAnswer
from s4gateway.backend.memory import MemoryBackend
from s4gateway.tools.inspection import (
    BodyReport,
    CodecTotal,
    ObjectReport,
    inspect_input,
    inspect_object,
)
from s4gateway.tools.offline_input import StoredInput
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.frame import FrameHeader
from tests import corpus
from tests.backends import CountingBackend, FaultyBackend
from tests.objects import tailed, world
from tests.objects.world import BUCKET
from tests.tools.stored import AS

BODY = world.framed(
    [corpus.text(5_000), corpus.noise(3_000), b"short " * 20],
    (CodecId.CPU_ZSTD, CodecId.PASSTHROUGH),
    padding=(-1, 90),
)
TAILED = tailed.tailed([corpus.text(30_000), b"x" * 10], frame_size=9_000)


@pytest.fixture(params=AS)
def opened(request: pytest.FixtureRequest):
    return AS[request.param]


async def inspected(opened, folder: Path, data: bytes, **options: int) -> BodyReport:
    with opened(data, folder) as stored:
        return await inspect_input(stored, **options)


async def test_frames_and_padding_are_counted_by_codec_and_named(opened, tmp_path: Path):
    report = await inspected(opened, tmp_path, BODY.stored)
    assert (report.kind, report.frames, report.fault) == ("frames", 3, None)
    assert (report.stored_size, report.original_size) == (len(BODY.stored), len(BODY.plain))
    assert set(report.codecs) == {"cpu-zstd", "passthrough"}
    assert report.codecs["passthrough"] == CodecTotal(1, 3_000, 3_028)
    assert report.padding == CodecTotal(1, 0, 102)
    named = [(each.codec, each.offset, each.original_offset) for each in report.listed]
    first, second, third = BODY.entries
    assert named == [
        ("cpu-zstd", 0, 0),
        ("padding", first.compressed_size, 5_000),
        ("passthrough", second.compressed_offset, 5_000),
        ("cpu-zstd", third.compressed_offset, 8_000),
    ]
    assert report.listed[0].crc32c == f"{FrameHeader.parse(BODY.stored).crc32c:08x}"


async def test_more_frames_than_asked_for_are_counted_only(opened, tmp_path: Path):
    report = await inspected(opened, tmp_path, BODY.stored, named=1)
    assert (len(report.listed), report.frames) == (1, 3)
    assert "3 more frames" in report.notes[0]


async def test_a_tail_is_shown_and_compared(opened, tmp_path: Path):
    report = await inspected(opened, tmp_path, TAILED.stored)
    assert report.tail is not None
    assert (report.tail.etag, report.tail.parts) == (TAILED.tail.etag, 2)
    assert report.fault is None
    missing = TAILED.frames[TAILED.entries[1].compressed_offset :] + TAILED.tail.encode()
    fault = (await inspected(opened, tmp_path, missing)).fault
    assert fault is not None
    assert "the tail says" in fault


async def test_a_fault_is_reported_with_what_stands_before_it(opened, tmp_path: Path):
    report = await inspected(opened, tmp_path, BODY.stored + b"GARBAGE" * 9)
    assert report.frames == 3
    assert report.fault is not None
    assert report.fault.startswith("bad-magic")
    cut = await inspected(opened, tmp_path, BODY.stored[:-2])
    assert (cut.frames, (cut.fault or "")[:17]) == (2, "payload-truncated")


async def test_a_sidecar_is_shown(opened, tmp_path: Path):
    data = BODY.index.bind("a" * 32, len(BODY.stored)).encode()
    report = await inspected(opened, tmp_path, data, named=2)
    assert report.kind == "sidecar"
    shown = report.index
    assert shown is not None
    assert (shown.frames, shown.etag, shown.source_size) == (3, "a" * 32, len(BODY.stored))
    assert shown.entries == BODY.entries[:2]
    broken = await inspected(opened, tmp_path, data[:-3])
    assert (broken.fault or "").startswith("entry-count-mismatch")


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"S4E6" + bytes(50), "envelope S4E6"), (b"plain text", "other"), (b"", "frames")],
)
async def test_other_bytes_are_called_what_they_are(opened, tmp_path: Path, data: bytes, kind: str):
    report = await inspected(opened, tmp_path, data)
    assert (report.kind, report.stored_size, report.fault) == (kind, len(data), None)


async def test_a_file_of_five_gigabytes_is_looked_at_and_not_read(tmp_path: Path):
    """Sparse: reading it would take minutes, its headers take a moment."""
    path, size = tmp_path / "large", 512 * world.MIB
    header = FrameHeader(CodecId.PASSTHROUGH, size - 28, size - 28, 0).pack()
    with path.open("wb") as file:
        os.truncate(file.fileno(), 10 * size)
        for number in range(10):
            os.pwrite(file.fileno(), header, number * size)
    with path.open("rb") as file:
        report = await inspect_input(StoredInput(file))
    assert (report.frames, report.original_size, report.fault) == (10, 10 * (size - 28), None)


# --- objects in a store


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


async def looked_at(store: MemoryBackend, key: str = "key") -> ObjectReport:
    return await inspect_object(store, (BUCKET, key))


async def test_an_object_is_shown_with_what_clients_see_and_what_is_stored(store: MemoryBackend):
    etag = world.put_indexed(store, "key", BODY)
    counting = CountingBackend(store)
    report = await inspect_object(counting, (BUCKET, "key"))
    assert (report.form, report.codec) == ("framed", "cpu-zstd")
    assert (report.original_size, report.stored_size) == (len(BODY.plain), len(BODY.stored))
    assert report.ratio == round(len(BODY.stored) / len(BODY.plain), 4)
    assert (report.backend_etag, report.etag) == (etag, BODY.metadata["s4-logical-etag"])
    assert (report.sidecar, report.in_ledger, report.dict_id) == ("OK", False, None)
    assert report.body is not None
    assert report.body.frames == 3


async def test_ledger_and_dictionary_are_shown(store: MemoryBackend):
    manifest = world.manifest(
        BODY.plain, BODY.stored, codec=CodecId.CPU_ZSTD_DICT, framed=True, ledger=True,
        dict_id="0123456789abcdef",
    )  # fmt: skip
    world.put_stored(store, "key", BODY.stored, manifest.to_metadata())
    report = await looked_at(store)
    assert (report.form, report.dict_id, report.in_ledger) == (
        "dictionary",
        "0123456789abcdef",
        True,
    )


async def test_a_multipart_object_is_shown_by_its_tail(store: MemoryBackend):
    tailed.put_tailed(store, "key", TAILED)
    report = await looked_at(store)
    assert (report.codec, report.original_size) == ("multipart", len(TAILED.plain))
    assert report.body is not None
    assert report.body.tail is not None


async def test_an_old_multipart_object_is_counted(store: MemoryBackend):
    world.put_stored(store, "key", BODY.stored, {"s4-multipart": "true", "s4-codec": "cpu-zstd"})
    report = await looked_at(store)
    assert (report.original_size, report.sidecar) == (len(BODY.plain), "MISSING_DIVERGENT")


async def test_an_object_of_others_is_shown_as_that(store: MemoryBackend):
    world.put_stored(store, "key", b"theirs", {})
    report = await looked_at(store)
    assert (report.form, report.body, report.ratio) == ("foreign", None, 1.0)
    assert report.notes == ("not written by a gateway",)


async def test_a_damaged_object_is_shown_with_its_fault(store: MemoryBackend):
    damaged = replace(BODY, stored=BODY.stored + b"GARBAGE" * 9)
    world.put_indexed(store, "key", damaged)
    report = await looked_at(store)
    assert report.body is not None
    assert report.body.fault is not None
    assert report.sidecar == "FrameScan"


async def test_an_archived_object_is_shown_without_its_frames(store: MemoryBackend):
    world.put_indexed(store, "key", BODY)
    archived = BackendAnswer(403, "InvalidObjectState")
    backend = FaultyBackend(
        store, fault=lambda call: archived if (call.verb, call.key) == ("get", "key") else None
    )
    report = await inspect_object(backend, (BUCKET, "key"))
    assert (report.body, report.original_size) == (None, len(BODY.plain))
    assert (report.sidecar, report.sidecar_detail) == ("OK", "ETag and size agree with the object")
    del store.buckets[BUCKET]["key.s4index"]
    assert (await inspect_object(backend, (BUCKET, "key"))).sidecar == "MISSING_UNKNOWN"
