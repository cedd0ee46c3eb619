"""Sidecars made anew: right afterwards, and nothing left behind of a race that was lost."""

from dataclasses import replace

import pytest

from s4gateway.backend import base
from s4gateway.backend.base import BackendAnswer
from s4gateway.backend.memory import MemoryBackend
from s4gateway.tools import sidecar_errors
from s4gateway.tools.sidecar_repair import remove_sidecar, repair_sidecar
from s4gateway.tools.sidecars import Verdict, verify_sidecar
from s4gateway.wire import frame, keys
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.index import FrameIndex
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import tailed, world
from tests.objects.world import BUCKET

NAME = (BUCKET, "key")
SIDECAR = keys.sidecar_key("key")
BODY = world.framed(world.cut(b"some text to cut up" * 300, 1000), padding=(-1, 40))
OTHER = world.framed([b"another version " * 100] * 4)
OLD_WRITER = {"s4-multipart": "true", "s4-codec": "cpu-zstd"}


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


async def sound(store: MemoryBackend) -> bool:
    return (await verify_sidecar(store, NAME)).verdict is Verdict.OK


def lay(store: MemoryBackend, body: world.Framed, metadata: dict[str, str] | None = None) -> str:
    return world.put_stored(store, "key", body.stored, metadata or body.metadata)


@pytest.mark.parametrize("before", [None, b"", b"junk", OTHER.index.encode()])
async def test_a_missing_or_wrong_sidecar_is_rebuilt(store: MemoryBackend, before: bytes | None):
    etag = lay(store, BODY)
    if before is not None:
        world.put_sidecar(store, "key", before)
    report = await repair_sidecar(store, NAME)
    assert (report.action, report.etag, report.frames) == ("rebuilt", etag, len(BODY.entries))
    assert (report.original_size, report.stored_size) == (len(BODY.plain), len(BODY.stored))
    data = world.stored_bytes(store, SIDECAR)
    assert report.sidecar_bytes == len(data)
    assert FrameIndex.decode(data) == BODY.index.bind(etag, len(BODY.stored))
    assert await sound(store)


async def test_a_rebuilt_sidecar_is_what_ranges_are_read_through(store: MemoryBackend):
    lay(store, BODY)
    await repair_sidecar(store, NAME)
    instance = world.Instance(store)
    data, fallback = await instance.ranged("key", 1500, 4200)
    await instance.close()
    assert (data, fallback) == (BODY.plain[1500:4200], None)


async def test_a_multipart_object_with_a_tail_is_repaired(store: MemoryBackend):
    body = tailed.tailed([b"first part" * 300, b"second" * 200], padding=100)
    tailed.put_tailed(store, "key", body, indexed=False)
    report = await repair_sidecar(store, NAME)
    assert (report.action, report.original_size) == ("rebuilt", len(body.plain))
    assert await sound(store)


async def test_payloads_are_not_read(store: MemoryBackend):
    body = world.framed([bytes(range(256)) * 2000] * 8, (CodecId.PASSTHROUGH,))
    lay(store, body)
    counting = CountingBackend(store)
    await repair_sidecar(counting, NAME)
    assert counting.received < len(body.stored) // 20


async def test_one_frame_needs_no_sidecar_and_loses_the_one_it_has(store: MemoryBackend):
    lay(store, world.framed([b"one frame"]))
    assert (await repair_sidecar(store, NAME)).action == "unneeded"
    assert SIDECAR not in store.buckets[BUCKET]
    world.put_sidecar(store, "key", OTHER.index.encode())
    assert (await repair_sidecar(store, NAME)).action == "removed"
    assert SIDECAR not in store.buckets[BUCKET]


async def test_one_frame_of_an_old_multipart_object_keeps_its_size_in_a_sidecar(
    store: MemoryBackend,
):
    lay(store, world.framed([b"one frame"]), OLD_WRITER)
    assert (await repair_sidecar(store, NAME)).action == "rebuilt"
    assert await sound(store)


@pytest.mark.parametrize(
    ("stored", "metadata"),
    [
        (b"as it came", {}),
        (BODY.stored, {}),  # looks like frames, but nobody says that they are
        (b"plain", world.manifest(b"plain", b"plain", codec=CodecId.PASSTHROUGH).to_metadata()),
        (b"", OLD_WRITER),
        (frame.padding(100), OLD_WRITER),
    ],
)
async def test_what_has_no_frames_is_refused(
    store: MemoryBackend, stored: bytes, metadata: dict[str, str]
):
    world.put_stored(store, "key", stored, metadata)
    with pytest.raises(sidecar_errors.NotFramed):
        await repair_sidecar(store, NAME)


async def test_an_encrypted_object_is_refused(store: MemoryBackend):
    world.put_stored(store, "key", b"S4E6" + bytes(60), {"s4-encrypted": "aes-256-gcm"})
    with pytest.raises(sidecar_errors.EncryptedSidecarUnsupported):
        await repair_sidecar(store, NAME)


async def test_an_object_above_the_bound_is_refused_before_it_is_read(store: MemoryBackend):
    lay(store, BODY)
    counting = CountingBackend(store)
    with pytest.raises(sidecar_errors.BodyTooLarge):
        await repair_sidecar(counting, NAME, max_body_bytes=len(BODY.stored) - 1)
    assert counting.count("get") == 0


@pytest.mark.parametrize(
    "stored", [BODY.stored[:-1], BODY.stored + b"more", b"S4F2" + b"\xff" * 60]
)
async def test_a_body_that_is_no_sequence_of_frames_is_refused(store: MemoryBackend, stored: bytes):
    world.put_stored(store, "key", stored, BODY.metadata)
    with pytest.raises(sidecar_errors.FrameScan):
        await repair_sidecar(store, NAME)
    assert SIDECAR not in store.buckets[BUCKET]


async def test_frames_that_are_not_all_of_the_object_are_refused(store: MemoryBackend):
    cut = BODY.entries[-1].compressed_offset  # between two frames: the body itself looks sound
    world.put_stored(store, "key", BODY.stored[:cut], BODY.metadata)
    with pytest.raises(sidecar_errors.FrameScan, match="should have"):
        await repair_sidecar(store, NAME)


async def test_a_tail_that_tells_another_size_is_refused(store: MemoryBackend):
    body = tailed.tailed([b"first part" * 300, b"second" * 200])
    other = replace(body.tail, original_size=3001, parts=((1, 3000), (2, 1)))
    stored = body.frames + other.encode()
    tailed.put_tailed(store, "key", body, stored=stored, indexed=False)
    with pytest.raises(sidecar_errors.FrameScan, match="should have 3001"):
        await repair_sidecar(store, NAME)


async def test_a_missing_object_is_the_stores_404(store: MemoryBackend):
    with pytest.raises(BackendAnswer) as raised:
        await repair_sidecar(store, NAME)
    assert raised.value.missing


# --- races


def when(store: MemoryBackend, at: tuple[str, str], then: object) -> FaultyBackend:
    """A backend that calls `then` once, just before the request `at`."""

    def fault(call: Call) -> None:
        if (call.verb, call.key) == at:
            backend.fault = lambda _: None
            then()  # type: ignore[operator]

    backend = FaultyBackend(store, fault=fault)
    return backend


async def test_an_overwrite_while_the_frames_are_read_is_reported(store: MemoryBackend):
    lay(store, BODY)
    backend = when(store, ("get", "key"), lambda: lay(store, OTHER))
    with pytest.raises(sidecar_errors.OverwrittenDuringRepair):
        await repair_sidecar(backend, NAME)
    assert SIDECAR not in store.buckets[BUCKET]


async def test_an_overwrite_while_the_sidecar_is_written_takes_it_back(store: MemoryBackend):
    lay(store, BODY)
    backend = when(store, ("put", SIDECAR), lambda: lay(store, OTHER))
    with pytest.raises(sidecar_errors.OverwrittenDuringRepair):
        await repair_sidecar(backend, NAME)
    assert SIDECAR not in store.buckets[BUCKET]


async def test_a_deletion_while_the_sidecar_is_written_takes_it_back(store: MemoryBackend):
    lay(store, BODY)
    backend = when(store, ("put", SIDECAR), lambda: store.buckets[BUCKET].pop("key"))
    with pytest.raises(sidecar_errors.OverwrittenDuringRepair):
        await repair_sidecar(backend, NAME)
    assert not store.buckets[BUCKET]


@pytest.mark.parametrize("before", [True, False])
async def test_a_sidecar_that_a_gateway_writes_meanwhile_is_not_replaced(
    store: MemoryBackend, before: bool
):
    lay(store, BODY)
    if before:
        world.put_sidecar(store, "key", b"stale")
    backend = when(store, ("put", SIDECAR), lambda: world.put_indexed(store, "key", OTHER))
    with pytest.raises(sidecar_errors.OverwrittenDuringRepair):
        await repair_sidecar(backend, NAME)
    assert await sound(store)


async def test_a_gateway_that_writes_after_us_keeps_its_sidecar(store: MemoryBackend):
    """The object changed and its new sidecar stands already: ours is gone, nothing to take back."""
    lay(store, BODY)

    class Late(CountingBackend):
        async def put(
            self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
        ) -> base.Head:
            written = await super().put(bucket, key, body, headers)
            world.put_indexed(store, "key", OTHER)
            return written

    with pytest.raises(sidecar_errors.OverwrittenDuringRepair):
        await repair_sidecar(Late(store), NAME)
    assert await sound(store)


# --- stores without conditions


class Unconditional(CountingBackend):
    """A store that refuses conditional writes, as S3-compatible ones may."""

    def _refuse(self, headers: base.HeaderList) -> None:
        if any(name.startswith("if-") for name, _ in headers):
            raise BackendAnswer(501, "NotImplemented")

    async def put(
        self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
    ) -> base.Head:
        self._refuse(headers)
        return await super().put(bucket, key, body, headers)

    async def delete(
        self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
    ) -> base.Head:
        self._refuse(headers)
        return await super().delete(bucket, key, query=query, headers=headers)


async def test_a_store_without_conditions_is_repaired_without_them(store: MemoryBackend):
    lay(store, BODY)
    assert (await repair_sidecar(Unconditional(store), NAME)).action == "rebuilt"
    assert await sound(store)
    lay(store, world.framed([b"one frame"]))
    assert (await repair_sidecar(Unconditional(store), NAME)).action == "removed"


async def test_a_sidecar_is_removed_only_if_it_is_the_one_that_was_seen(store: MemoryBackend):
    world.put_sidecar(store, "key", b"one")
    assert not await remove_sidecar(store, BUCKET, SIDECAR, "0" * 32)
    assert SIDECAR in store.buckets[BUCKET]
    tag = store.buckets[BUCKET][SIDECAR].etag
    backend = when(store, ("delete", SIDECAR), lambda: world.put_sidecar(store, "key", b"two"))
    assert not await remove_sidecar(backend, BUCKET, SIDECAR, tag)
    assert world.stored_bytes(store, SIDECAR) == b"two"
    assert not await remove_sidecar(store, BUCKET, "no such", tag)


@pytest.mark.parametrize("counted", [False, True])
async def test_a_sidecar_is_counted_where_its_object_is(store: MemoryBackend, counted: bool):
    lay(store, BODY, BODY.metadata | ({"s4-ledger": "1"} if counted else {}))
    report = await repair_sidecar(store, NAME)
    head = await store.head(BUCKET, SIDECAR)
    assert (head.metadata.get("s4-ledger") == "1") is counted
    assert any("--rescan" in note for note in report.notes) is counted
