"""Collecting what forgotten uploads left, as a policy's action reports it."""

from datetime import UTC, datetime, timedelta

import pytest

from s4gateway.backend import multipart
from s4gateway.backend.base import BackendAnswer
from s4gateway.backend.memory import MemoryBackend
from s4gateway.tools import upload_gc
from s4gateway.tools.upload_gc import UploadGcReport
from s4gateway.wire import keys
from tests.backends import FaultyBackend
from tests.objects import world
from tests.objects.uploading import KEY, Process, records
from tests.objects.world import BUCKET

DAY = timedelta(days=1)
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
async def store() -> MemoryBackend:
    """One upload alive with three records, one forgotten with two, one record of nobody."""
    store = MemoryBackend.with_buckets(BUCKET)
    process = Process(store)
    alive, forgotten = await process.begin("alive"), await process.begin(KEY)
    for upload, numbers in ((alive, (1, 2)), (forgotten, (1,))):
        for number in numbers:
            await process.send(upload, number, b"part")
    await multipart.abort(store, forgotten)
    world.put_stored(store, f"{keys.PARTS_PREFIX}not-hex/1", b"?")
    return store


async def collect(store: MemoryBackend, *, execute: bool) -> UploadGcReport:
    return await upload_gc.collect(store, BUCKET, older_than=DAY, execute=execute, now=NOW)


async def test_a_dry_run_says_what_would_go(store: MemoryBackend):
    before = dict(store.buckets[BUCKET])
    report = await collect(store, execute=False)
    assert store.buckets[BUCKET] == before
    assert (report.dry_run, report.older_than_secs) == (True, 86_400)
    assert (report.records_listed, report.live_uploads, report.skipped_unparseable) == (6, 1, 1)
    assert (report.orphaned, report.deleted, report.failed) == (2, 2, 0)
    assert any("dry run" in note for note in report.notes)


async def test_what_belongs_to_nobody_alive_goes(store: MemoryBackend):
    report = await collect(store, execute=True)
    assert (report.orphaned, report.deleted, report.dry_run) == (2, 2, False)
    assert len(records(store)) == 4
    again = await collect(store, execute=True)
    assert (again.records_listed, again.orphaned) == (4, 0)
    assert any("look at" in note for note in again.notes)


async def test_live_uploads_that_cannot_be_listed_stop_it(store: MemoryBackend):
    denied = FaultyBackend(
        store,
        fault=lambda call: (
            BackendAnswer(403, "AccessDenied") if call.query.startswith("uploads=") else None
        ),
    )
    before = dict(store.buckets[BUCKET])
    with pytest.raises(BackendAnswer, match="AccessDenied"):
        await upload_gc.collect(denied, BUCKET, older_than=DAY, execute=True, now=NOW)
    assert store.buckets[BUCKET] == before
