"""The estimate over a store in memory: measured as objects are stored, bounded, repeatable."""

import random
from dataclasses import replace

import pytest

from s4gateway.backend.base import Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.tools.estimate import estimate
from s4gateway.tools.estimate_report import Estimate, EstimateReport
from s4gateway.tools.objects import Making
from s4gateway.tools.storage_classes import CLASSES
from s4gateway.tools.strata import NO_EXTENSION, OTHERS, Strata, stratum_of
from s4gateway.tools.target import Target
from s4gateway.tools.walk import Listed, walk
from tests import corpus
from tests.backends import CountingBackend
from tests.objects import world

BUCKET = world.BUCKET
WANTED = Estimate(Target(BUCKET), Making(threads=2))
MIB = 1024 * 1024


@pytest.fixture
async def store() -> MemoryBackend:
    backend = MemoryBackend()
    await backend.forward("PUT", f"/{BUCKET}", "", [])
    return backend


def row(report: EstimateReport, name: str) -> dict[str, object]:
    (found,) = (each for each in report.strata if each.stratum == name)
    return {field: getattr(found, field) for field in found.__dataclass_fields__}


async def test_a_bucket_read_whole_is_projected_to_the_byte_it_would_be_stored_in(
    store: MemoryBackend,
):
    instance = world.Instance(MemoryBackend())
    await instance.backend.forward("PUT", f"/{BUCKET}", "", [])
    bodies = {
        "a.log": corpus.log(7 * MIB),
        "b.log": corpus.log(300_000),
        "c.bin": random.Random(3).randbytes(200_000),
        "d": b"x" * 100,
    }
    for key, data in bodies.items():
        await store.put(BUCKET, key, Body.of(data))
        await instance.put(key, data)
    report = await estimate(store, WANTED)
    stored = sum(
        [each.size async for each in walk(instance.backend, Target(BUCKET), internal=True)]
    )
    assert report.total_bytes == sum(map(len, bodies.values()))
    assert abs(report.projected_total_bytes - stored) < 100
    assert row(report, ".bin")["advice"] == "leave"
    assert row(report, ".log")["advice"] == "compress"
    await instance.close()


async def test_the_same_seed_gives_the_same_report_and_another_one_another(store: MemoryBackend):
    draw = random.Random(1)
    for number in range(60):
        noise = draw.randbytes(draw.randrange(1, 3000))
        await store.put(BUCKET, f"{number}.txt", Body.of(noise + b"a" * draw.randrange(1, 9000)))
    first, again = await estimate(store, WANTED), await estimate(store, WANTED)
    other = await estimate(store, replace(WANTED, seed=7))
    assert first == again
    assert first.projected_total_bytes != other.projected_total_bytes


async def test_what_a_gateway_stored_already_is_counted_as_it_is(store: MemoryBackend):
    instance = world.Instance(store)
    await instance.put("done.log", corpus.log(400_000))
    report = await estimate(store, WANTED)
    assert row(report, ".log")["already_s4"] == 1
    assert report.projected_total_bytes == report.total_bytes
    assert any("already" in note for note in report.notes)
    await instance.close()


async def test_of_large_objects_only_the_beginning_is_read(store: MemoryBackend):
    await store.put(BUCKET, "big.log", Body.of(corpus.log(6 * MIB)))
    counting = CountingBackend(store)
    report = await estimate(counting, replace(WANTED, max_sample_bytes=MIB))
    assert counting.received == MIB == report.sampled_bytes_read
    assert 0 < report.overall_ratio < 0.5
    assert any("first 1048576 bytes" in note for note in report.notes)


async def test_objects_that_vanish_meanwhile_count_as_not_compressible(store: MemoryBackend):
    await store.put(BUCKET, "a.log", Body.of(corpus.log(50_000)))

    class Forgetful(CountingBackend):
        async def get(self, bucket: str, key: str, **options: object) -> object:  # type: ignore[override]
            return await store.get(bucket, key + "?")

    report = await estimate(Forgetful(store), WANTED)
    assert report.projected_total_bytes == report.total_bytes
    assert any("nothing could be read of .log" in note for note in report.notes)


async def test_an_empty_target_is_no_error(store: MemoryBackend):
    report = await estimate(store, replace(WANTED, target=Target(BUCKET, "none/")))
    assert report.total_objects == 0
    assert report.overall_ratio == 1.0
    assert f"no objects were found under {BUCKET}/none/" in report.notes


async def test_the_bill_of_a_class_with_a_minimum_shows_that_small_objects_save_nothing(
    store: MemoryBackend,
):
    for number in range(20):
        await store.put(BUCKET, f"{number}.log", Body.of(corpus.log(40_000)))
    report = await estimate(store, replace(WANTED, storage_class=CLASSES["STANDARD_IA"]))
    assert report.projected_total_bytes < report.total_bytes / 2
    assert report.billed_bytes == report.projected_billed_bytes == 20 * 128 * 1024
    assert report.current_monthly_cost_usd == report.projected_monthly_cost_usd


async def test_many_small_objects_of_one_kind_are_told_of_dictionaries(store: MemoryBackend):
    for number in range(120):
        await store.put(BUCKET, f"{number}.json", Body.of(b'{"level": "info", "n": 1}' * 20))
    report = await estimate(store, WANTED)
    assert row(report, ".json")["advice"] == "dictionary"
    assert sum(band.objects for band in report.sizes_after) == 120
    assert report.sizes_after[0].below == 1024
    assert any("train-dict" in note for note in report.notes)


async def test_a_listing_longer_than_allowed_is_cut_and_says_so(store: MemoryBackend):
    for number in range(5):
        await store.put(BUCKET, f"{number}", Body.of(b"x"))
    report = await estimate(store, replace(WANTED, max_list_keys=3))
    assert (report.total_objects, report.listing_truncated) == (3, True)


def test_kinds_beyond_a_number_share_a_stratum():
    strata = Strata(CLASSES["STANDARD"], 1, 4)
    for number in range(600):
        strata.add(Listed(f"a.x{number}", 10, "e", None))
    found = strata.sorted()
    assert len(found) == 501
    assert {each.name: each.objects for each in found}[OTHERS] == 100
    assert stratum_of("no/extension") == NO_EXTENSION


def test_the_draw_prefers_large_objects_and_ignores_the_order_of_the_listing():
    entries = [Listed(f"{n}.log", 1_000_000 if n % 50 == 0 else 10, "e", None) for n in range(500)]
    draws = []
    for order in (entries, entries[::-1]):
        strata = Strata(CLASSES["STANDARD"], 5, 10)
        for entry in order:
            strata.add(entry)
        draws.append(strata.sorted()[0].drawn)
    assert draws[0] == draws[1]
    assert all(drawn.entry.size == 1_000_000 for drawn in draws[0])


async def test_more_is_read_of_a_kind_whose_objects_differ(store: MemoryBackend):
    draw = random.Random(4)
    for number in range(400):
        await store.put(BUCKET, f"{number}.same", Body.of(b"a line\n" * 1000))
        shrinks = draw.random() < 0.5
        body = b"a line\n" * 1000 if shrinks else draw.randbytes(7000)
        await store.put(BUCKET, f"{number}.mixed", Body.of(body))
    report = await estimate(store, WANTED)
    assert row(report, ".same")["sampled"] == WANTED.samples_per_stratum
    assert WANTED.samples_per_stratum * 8 < row(report, ".mixed")["sampled"] <= 256  # type: ignore[operator]
    assert 0 < report.margin_bytes < 0.15 * report.projected_total_bytes


async def test_what_was_read_whole_has_no_margin(store: MemoryBackend):
    for number in range(5):
        await store.put(BUCKET, f"{number}.log", Body.of(corpus.log(3000, number)))
    await store.put(BUCKET, "empty.log", Body.of(b""))
    assert (await estimate(store, WANTED)).margin_bytes == 0
