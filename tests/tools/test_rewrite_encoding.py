"""Nothing is replaced by what does not decode to what was read, whatever goes wrong in between."""

import base64
import hashlib
import os
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from s4gateway.backend import base
from s4gateway.codecs import encoder as framing
from s4gateway.codecs.registry import Registry
from s4gateway.objects.encoding import ObjectEncoder
from s4gateway.objects.unnamed_file import UnnamedFile
from s4gateway.s3.checksums import Digests
from s4gateway.tools.migrate import MigrateParams, MigrateReport, migrate
from s4gateway.tools.objects import Making
from s4gateway.tools.patience import Patience
from s4gateway.tools.recompact import RecompactParams, recompact
from s4gateway.tools.target import Target
from s4gateway.tools.verify import Verify, verify
from tests import corpus
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.world import BUCKET, MIB
from tests.tools.described import DescribedBackend

# Frames of it take more than a spool keeps in memory.
LARGE = corpus.text(4 * MIB) + corpus.noise(3 * MIB) + corpus.text(4 * MIB, seed=2)
TEXT = corpus.text(60_000)
QUICK = Patience(attempts=3, first=0, longest=0)


@pytest.fixture
def store() -> DescribedBackend:
    return DescribedBackend.with_buckets(BUCKET)


async def run(store: Any, making: Making | None = None, **options: Any) -> MigrateReport:
    params = MigrateParams(
        **{"target": Target(BUCKET), "execute": True, "patience": QUICK, **options},
        making=making or Making(threads=2),
    )
    return await migrate(store, params)


def failures(report: Any) -> list[tuple[str, str]]:
    return [(each.key, each.op) for each in report.failures]


# --- what was made is what was read


def flip(file: UnnamedFile, position: int) -> None:
    """Turn one bit of a spool's file."""
    (byte,) = os.pread(file._descriptor, 1, position)
    os.pwrite(file._descriptor, bytes([byte ^ 1]), position)


@pytest.fixture
def spools(monkeypatch: pytest.MonkeyPatch) -> list[UnnamedFile]:
    """The files of all spools that are made."""
    made: list[UnnamedFile] = []
    begin = UnnamedFile.__init__

    def note(self: UnnamedFile, directory: Path | None = None) -> None:
        begin(self, directory)
        made.append(self)

    monkeypatch.setattr(UnnamedFile, "__init__", note)
    return made


POSITIONS = [7, 28, 300_000, 4 * MIB]  # in a header, in payloads of the first and a later frame


@pytest.mark.parametrize("execute", [True, False])
@pytest.mark.parametrize("position", POSITIONS)
async def test_a_bit_that_turned_on_disk_is_found_before_anything_is_stored(
    store: DescribedBackend, monkeypatch: pytest.MonkeyPatch, position: int, execute: bool
):
    append = UnnamedFile.append
    done: list[int] = []

    def damaging(self: UnnamedFile, pieces: Any) -> None:
        append(self, pieces)
        if not done and os.fstat(self._descriptor).st_size > position:
            flip(self, position)
            done.append(position)

    monkeypatch.setattr(UnnamedFile, "append", damaging)
    world.put_stored(store, "key", LARGE)
    before = dict(store.buckets[BUCKET])
    report = await run(store, execute=execute)
    assert failures(report) == [("key", "verify")]
    assert store.buckets[BUCKET] == before
    assert done


@pytest.mark.parametrize("making", [None, Making(threads=2, largest=MIB, part_size=MIB)])
@pytest.mark.parametrize("position", POSITIONS)
async def test_a_bit_that_turned_between_verifying_and_sending_ends_the_write(
    store: DescribedBackend, spools: list[UnnamedFile], position: int, making: Making | None
):
    """In one PUT and in parts: what is sent is what was verified."""
    store.uploads.min_part = 1
    world.put_stored(store, "key", LARGE)
    before = dict(store.buckets[BUCKET])

    def fault(call: Call) -> None:
        begins = (
            call.verb in {"put", "forward POST"} and "key" in call.key and ".s4" not in call.key
        )
        if begins and not turned:
            turned.append(position)
            flip(spools[-1], position)

    turned: list[int] = []
    report = await run(FaultyBackend(store, fault=fault), making)
    assert failures(report) == [("key", "verify")]
    assert store.buckets[BUCKET] == before
    assert not store.uploads.uploads
    assert turned


async def test_a_bit_of_a_plain_body_that_turned_ends_turning_it_back(
    store: DescribedBackend, spools: list[UnnamedFile]
):
    world.put_stored(store, "key", LARGE)
    await run(store)
    before = dict(store.buckets[BUCKET])

    def fault(call: Call) -> None:
        if (call.verb, call.key) == ("put", "key"):
            flip(spools[-1], 3 * MIB)

    report = await run(FaultyBackend(store, fault=fault), undo=True)
    assert failures(report) == [("key", "verify")]
    assert store.buckets[BUCKET] == before


Spooling = Callable[[ObjectEncoder, framing.EncodedFrame], Any]


@pytest.mark.parametrize("what", ["lost", "repeated", "swapped", "last lost"])
async def test_frames_that_are_lost_repeated_or_swapped_replace_nothing(
    store: DescribedBackend, monkeypatch: pytest.MonkeyPatch, what: str
):
    spool: Spooling = ObjectEncoder._spool_frame
    seen: list[framing.EncodedFrame] = []

    async def wrong(self: ObjectEncoder, frame: framing.EncodedFrame) -> None:
        seen.append(frame)
        order = {
            "lost": {1: [0], 2: [], 3: [2]},
            "repeated": {1: [0], 2: [1, 1], 3: [2]},
            "swapped": {1: [], 2: [1, 0], 3: [2]},
            "last lost": {1: [0], 2: [1], 3: []},
        }[what]
        for number in order[len(seen)]:
            await spool(self, seen[number])

    monkeypatch.setattr(ObjectEncoder, "_spool_frame", wrong)
    world.put_stored(store, "key", LARGE)
    report = await run(store)
    assert len(seen) == 3
    assert failures(report) == [("key", "verify")]
    assert store.buckets[BUCKET]["key"].data == LARGE


async def test_bytes_that_changed_before_they_were_coded_replace_nothing(
    store: DescribedBackend, monkeypatch: pytest.MonkeyPatch
):
    """The frames are sound and proven, but not of the bytes that were digested."""
    update = Digests.update
    monkeypatch.setattr(Digests, "update", lambda self, data: update(self, bytes(data[:-1]) + b"!"))
    world.put_stored(store, "key", LARGE, etag="odd")  # so that no MD5 is compared
    report = await run(store)
    assert failures(report) == [("key", "verify")]


async def test_recompacting_proves_its_frames_too(
    store: DescribedBackend, spools: list[UnnamedFile]
):
    instance = world.Instance(store, codecs=Registry(1))
    await instance.put("key", LARGE)
    await instance.close()
    before = store.buckets[BUCKET]["key"]

    def fault(call: Call) -> None:
        if (call.verb, call.key) == ("put", "key"):
            flip(spools[-1], 300_000)

    params = RecompactParams(
        target=Target(BUCKET),
        execute=True,
        zstd_level=6,
        min_gain_percent=0,
        making=Making(threads=2),
        patience=QUICK,
    )
    report = await recompact(FaultyBackend(store, fault=fault), params)
    assert failures(report) == [("key", "verify")]
    assert store.buckets[BUCKET]["key"] == before


# --- what was read is what the store holds


class Noisy(CountingBackend):
    """Turns a bit of each of the first `damaged` whole bodies that are read; `reads` counts all."""

    damaged = 0
    reads = 0

    async def get(self, bucket: str, key: str, **options: Any) -> base.ObjectStream:
        stream = await super().get(bucket, key, **options)
        if options.get("byte_range") is not None:
            return stream
        self.reads += 1
        return _Turned(stream, self.reads) if self.reads <= self.damaged else stream


class _Turned(base.ObjectStream):
    """Another bit is turned in each body."""

    def __init__(self, inner: base.ObjectStream, number: int) -> None:
        self.head = inner.head
        self._inner = inner
        self._number = number

    async def read(self, limit: int) -> bytes:
        return b"".join([piece async for piece in self])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            turned = bytearray(piece)
            turned[self._number] ^= 1
            yield bytes(turned)

    async def close(self) -> None:
        await self._inner.close()


def noisy(store: DescribedBackend, damaged: int) -> Noisy:
    backend = Noisy(store)
    backend.damaged = damaged
    return backend


async def read(store: DescribedBackend, key: str) -> bytes:
    instance = world.Instance(store)
    try:
        return await instance.get(key)
    finally:
        await instance.close()


async def test_a_read_that_was_damaged_on_the_way_is_made_again(store: DescribedBackend):
    world.put_stored(store, "key", TEXT)
    backend = noisy(store, damaged=1)
    report = await run(backend)
    assert (report.migrated, report.failed, backend.reads) == (1, 0, 2), report
    assert await read(store, "key") == TEXT
    assert not any("ETags" in note for note in report.notes)


async def test_reads_that_are_damaged_every_time_replace_nothing(store: DescribedBackend):
    world.put_stored(store, "key", TEXT)
    report = await run(noisy(store, damaged=9))
    assert failures(report) == [("key", "GetObject(body)")]
    assert store.buckets[BUCKET]["key"].data == TEXT


@pytest.mark.parametrize("algorithm", ["crc32", "sha256"])
async def test_a_checksum_that_the_store_shows_stands_in_for_the_md5(
    store: DescribedBackend, algorithm: str
):
    value = hashlib.sha256(TEXT).digest()
    if algorithm == "crc32":
        value = zlib.crc32(TEXT).to_bytes(4, "big")
    shown = [(f"x-amz-checksum-{algorithm}", base64.b64encode(value).decode())]
    world.put_stored(store, "key", TEXT, etag=hashlib.md5(b"another").hexdigest())
    store.keep(BUCKET, "key", shown)
    report = await run(noisy(store, damaged=1))
    assert failures(report) == [("key", "GetObject(body)")]
    backend = noisy(store, damaged=0)
    report = await run(backend)
    assert (report.migrated, report.failed, backend.reads) == (1, 0, 1), report
    assert await read(store, "key") == TEXT


async def test_an_etag_that_is_no_md5_is_told_by_reading_twice(store: DescribedBackend):
    other = world.put_stored(store, "key", TEXT, etag=hashlib.md5(b"another").hexdigest())
    backend = noisy(store, damaged=0)
    report = await run(backend)
    assert (report.migrated, report.failed, backend.reads) == (1, 0, 2), report
    assert any("ETags of 1 objects are not the MD5s" in note for note in report.notes)
    instance = world.Instance(store)
    seen = await instance.reader.attributes(instance.source("key"))
    await instance.close()
    assert seen.etag == other


@pytest.mark.parametrize("kind", ["kms", "parts"])
async def test_an_etag_that_cannot_be_an_md5_is_not_compared(store: DescribedBackend, kind: str):
    odd = hashlib.md5(b"another").hexdigest()
    world.put_stored(store, "key", TEXT, etag=odd if kind == "kms" else f"{odd}-3")
    if kind == "kms":
        store.keep(BUCKET, "key", [("x-amz-server-side-encryption", "aws:kms")])
    backend = noisy(store, damaged=0)
    report = await run(backend)
    assert (report.migrated, report.failed, backend.reads) == (1, 0, 1), report


@pytest.mark.parametrize("kind", ["kms", "noise", "declared"])
async def test_what_had_an_etag_that_is_no_md5_stays_sound_for_every_tool(
    store: DescribedBackend, kind: str
):
    other = world.put_stored(store, "key", TEXT, etag=hashlib.md5(b"another").hexdigest())
    if kind == "kms":
        store.keep(BUCKET, "key", [("x-amz-server-side-encryption", "aws:kms")])
    if kind == "declared":
        value = base64.b64encode(hashlib.sha256(TEXT).digest()).decode()
        store.keep(BUCKET, "key", [("x-amz-checksum-sha256", value)])
    assert (await run(store)).migrated == 1
    params = RecompactParams(
        target=Target(BUCKET), execute=True, making=Making(threads=2), patience=QUICK,
        zstd_level=19, min_gain_percent=0,
    )  # fmt: skip
    for _ in range(2):
        found = await verify(store, Verify(Target(BUCKET), pause=0))
        assert (found.outcomes["sound"], found.outcomes["damaged"]) == (1, 0)
        assert "etag" not in found.compared
        report = await recompact(store, params)
        assert not report.failed, report
    instance = world.Instance(store)
    assert (await instance.reader.attributes(instance.source("key"))).etag == other
    await instance.close()
    report = await run(store, undo=True)
    assert (report.migrated, report.failed) == (1, 0), report
    assert store.buckets[BUCKET]["key"].data == TEXT
