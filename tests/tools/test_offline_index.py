"""Sidecars made of stored bodies at hand: the ones a repair would write."""

from pathlib import Path

import pytest

from s4gateway.backend.memory import MemoryBackend
from s4gateway.tools.offline_index import build_sidecar
from s4gateway.tools.offline_input import OfflineError
from s4gateway.tools.sidecar_repair import repair_sidecar
from s4gateway.wire import frame
from s4gateway.wire.index import FrameIndex
from tests.objects import tailed, world
from tests.objects.world import BUCKET
from tests.tools.stored import AS

BODY = world.framed([b"some text " * 90] * 5, padding=(-1, 50))


@pytest.fixture(params=AS)
def opened(request: pytest.FixtureRequest):
    return AS[request.param]


@pytest.mark.parametrize("kind", ["framed", "tailed"])
async def test_it_is_what_a_repair_writes(opened, tmp_path: Path, kind: str):
    store = MemoryBackend.with_buckets(BUCKET)
    if kind == "framed":
        etag = world.put_stored(store, "key", BODY.stored, BODY.metadata)
    else:
        body = tailed.tailed([b"first part" * 300, b"second" * 200], padding=100)
        etag = tailed.put_tailed(store, "key", body, indexed=False)
    await repair_sidecar(store, (BUCKET, "key"))
    with opened(world.stored_bytes(store, "key"), tmp_path) as stored:
        data, report = await build_sidecar(stored, f'"{etag}"')
    assert data == world.stored_bytes(store, "key.s4index")
    assert (report.etag, report.sidecar_bytes, report.notes) == (etag, len(data), ())


async def test_without_an_etag_it_is_bound_to_the_size(opened, tmp_path: Path):
    with opened(BODY.stored, tmp_path) as stored:
        data, report = await build_sidecar(stored, None)
    assert FrameIndex.decode(data).is_bound_to("whatever", len(BODY.stored))
    assert "--etag" in report.notes[0]


@pytest.mark.parametrize(
    "data", [b"", b"plain", frame.padding(50), BODY.stored[:-1], BODY.stored + b"GARBAGE" * 9]
)
async def test_what_has_no_index_is_refused(opened, tmp_path: Path, data: bytes):
    with opened(data, tmp_path) as stored, pytest.raises(OfflineError):
        await build_sidecar(stored, None)


async def test_an_etag_longer_than_a_sidecar_holds_is_refused(opened, tmp_path: Path):
    with (
        opened(BODY.stored, tmp_path) as stored,
        pytest.raises(OfflineError, match="etag-too-long"),
    ):
        await build_sidecar(stored, "a" * 5000)
