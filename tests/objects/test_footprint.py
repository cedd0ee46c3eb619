"""One object's footprint is what its write counted, however it is looked at."""

import pytest

from s4gateway.backend.base import BackendAnswer, BackendUnavailable
from s4gateway.backend.memory import MemoryBackend
from s4gateway.objects import footprint
from s4gateway.objects.attributes import describe
from s4gateway.objects.cache import KnownObject, TailCache
from s4gateway.objects.footprint import Footprint, Found
from s4gateway.wire import manifest
from tests import corpus
from tests.backends import CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.counted import MemoryLedger
from tests.objects.tailed import METADATA, TOKEN, put_tailed, tailed
from tests.objects.world import BUCKET, MIB, Instance

NAME = (BUCKET, "k")
MARKED = {manifest.LEDGER: "1"}


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


async def look(instance: Instance) -> Found | None:
    return await footprint.look(instance.backend, NAME, "", instance.sidecars, TailCache())


@pytest.mark.parametrize(
    ("body", "indexed"),
    [
        (b"", False),
        (b"x", False),
        (corpus.text(4 * MIB), False),
        (corpus.text(5 * MIB), True),
        (corpus.noise(5 * MIB), False),
    ],
)
async def test_a_look_finds_what_was_counted(store: MemoryBackend, body: bytes, indexed: bool):
    ledger = MemoryLedger()
    one = Instance(store, ledger=ledger)
    await one.put("k", body)
    found = await look(Instance(store))
    assert found is not None
    assert found.footprint.accounted
    assert found.may_be_indexed is indexed
    sidecar = await footprint.sidecar_head(store, NAME)
    assert (sidecar is not None) is indexed
    size = 0 if sidecar is None else sidecar.size
    assert ledger.totals == (found.footprint.original, found.footprint.stored + size, 1)
    assert sidecar is None or footprint.is_accounted(sidecar.metadata)
    remembered = one.attributes.last(NAME)
    assert remembered is not None
    known = Found.known(remembered)
    assert known is not None
    assert (known.etag, known.footprint) == (found.etag, found.footprint)
    assert known.may_be_indexed is indexed
    await one.close()


async def test_an_object_assembled_from_parts_is_as_large_as_its_tail_says(store: MemoryBackend):
    body = tailed([b"a" * 3000, b"b" * 10])
    put_tailed(store, "k", body)
    stored = store.buckets[BUCKET]["k"]
    world.put_stored(store, "k", stored.data, METADATA | {manifest.TAIL: TOKEN} | MARKED)
    found = await look(Instance(store))
    assert found is not None
    assert found.footprint == Footprint(3010, len(stored.data), accounted=True)


async def test_a_size_nothing_tells_is_the_stored_one(store: MemoryBackend):
    world.put_stored(store, "k", b"no frames", METADATA | MARKED)
    found = await look(Instance(store))
    assert found is not None
    assert found.footprint == Footprint(9, 9, accounted=True)


@pytest.mark.parametrize("value", ["", "0", "true", "1 ", "01"])
async def test_only_the_very_mark_counts(store: MemoryBackend, value: str):
    world.put_stored(store, "k", b"data", {manifest.LEDGER: value, "s4-original-size": "900"})
    found = await look(Instance(store))
    assert found is not None
    assert not found.footprint.accounted
    assert not describe(await store.head(*NAME)).stored.ledger


@pytest.mark.parametrize(
    ("metadata", "accounted"), [({}, False), (MARKED, True), (METADATA | MARKED, True)]
)
async def test_what_metadata_say_and_what_is_remembered_of_them_agree(
    store: MemoryBackend, metadata: dict[str, str], accounted: bool
):
    world.put_stored(store, "k", b"data", metadata)
    attributes = describe(await store.head(*NAME))
    assert footprint.of_attributes(attributes).accounted is accounted
    assert attributes.stored.ledger is accounted


async def test_nothing_a_delete_marker_and_what_needs_a_key_are_told_apart(store: MemoryBackend):
    assert await look(Instance(store)) is None
    faulty = FaultyBackend(store)
    one = Instance(faulty)
    for error, there in (
        (BackendAnswer(405, "MethodNotAllowed"), False),
        (BackendAnswer(400, "InvalidRequest"), True),
    ):
        faulty.fault = lambda _, error=error: error  # type: ignore[misc]
        found = await look(one)
        assert (found is not None) is there
        assert found is None or (found.etag, found.footprint) == ("", Footprint(0, 0))
    for error in (BackendAnswer(403, "AccessDenied"), BackendUnavailable("down")):
        faulty.fault = lambda _, error=error: error  # type: ignore[misc]
        with pytest.raises(type(error)):
            await look(one)


async def test_a_look_at_what_metadata_tell_costs_one_request(store: MemoryBackend):
    await Instance(store).put("k", corpus.text(5 * MIB))
    counting = CountingBackend(store)
    await look(Instance(counting))
    assert [each.verb for each in counting.calls] == ["head"]


def test_a_memory_that_does_not_know_the_mark_says_nothing():
    assert Found.known(KnownObject("e", 1, 1, "e", None)) is None
