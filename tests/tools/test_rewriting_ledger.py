"""What the savings ledger says after a rewriting tool's write whose answer was lost."""

from pathlib import Path

import pytest

from s4gateway.codecs.registry import Registry
from s4gateway.state.ledger import Counters, Delta
from s4gateway.state.shared_file import SharedFile
from s4gateway.tools.migrate import MigrateParams, migrate
from s4gateway.tools.objects import Making
from s4gateway.tools.patience import Patience
from s4gateway.tools.recompact import RecompactParams, recompact
from s4gateway.tools.target import Target
from s4gateway.wire import keys
from tests import corpus
from tests.objects import world
from tests.objects.counted import Losing, MemoryLedger, really_held
from tests.objects.world import BUCKET, MIB
from tests.tools.described import DescribedBackend

LARGE = corpus.text(5 * MIB)
COMMON = {
    "target": Target(BUCKET),
    "execute": True,
    "making": Making(threads=2),
    "patience": Patience(attempts=3, first=0, longest=0),
}


@pytest.fixture
async def store() -> DescribedBackend:
    return DescribedBackend.with_buckets(BUCKET)


async def counted(store: DescribedBackend, path: Path) -> SharedFile:
    """A small and a large object that a gateway has stored and counted in the ledger at `path`."""
    ledger = MemoryLedger()
    instance = world.Instance(store, codecs=Registry(1), ledger=ledger)
    await instance.put("small", corpus.text(80_000))
    await instance.put("large", LARGE)
    await instance.close()
    assert keys.sidecar_key("large") in store.buckets[BUCKET]
    file = SharedFile(path, lambda error, moved_to: None)
    file.merge({BUCKET: Delta(ledger.original, ledger.stored, ledger.objects)})
    return file


def totals(counters: Counters) -> tuple[int, int, int]:
    return counters.original_bytes, counters.stored_bytes, counters.objects


@pytest.mark.parametrize("lost", ["large", keys.sidecar_key("large"), "small"])
async def test_recompact_counts_object_and_index_once(
    store: DescribedBackend, tmp_path: Path, lost: str
):
    path = tmp_path / "ledger.json"
    file = await counted(store, path)
    losing = Losing(store, lost=[(BUCKET, lost)])
    report = await recompact(losing, RecompactParams(zstd_level=12, ledger_file=path, **COMMON))
    assert losing.lost == []
    assert (report.recompacted, report.failed) == (2, 0), report.failures
    assert totals(file.load()[BUCKET]) == really_held(store)
    file.close()
    instance = world.Instance(store)
    assert await instance.get("large") == LARGE
    await instance.close()


@pytest.mark.parametrize("lost", ["large", "small"])
async def test_undo_takes_object_and_index_away(store: DescribedBackend, tmp_path: Path, lost: str):
    path = tmp_path / "ledger.json"
    file = await counted(store, path)
    losing = Losing(store, lost=[(BUCKET, lost)])
    report = await migrate(losing, MigrateParams(undo=True, ledger_file=path, **COMMON))
    assert losing.lost == []
    assert (report.migrated, report.failed) == (2, 0), report.failures
    assert totals(file.load().get(BUCKET, Counters())) == really_held(store) == (0, 0, 0)
    file.close()
    assert set(store.buckets[BUCKET]) == {"small", "large"}
