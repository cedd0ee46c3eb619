import gzip
import tomllib
from collections.abc import Sequence
from dataclasses import replace

import pytest

from s4gateway.backend import base
from s4gateway.backend.memory import MemoryBackend
from s4gateway.codecs import training
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects import dict_map, dictionaries
from s4gateway.objects.dictionaries import DictionaryConflict
from s4gateway.tools import train_dict
from s4gateway.tools.sampling import Draw
from s4gateway.tools.target import Target
from s4gateway.tools.train_dict import NotEnoughSamples, Options, UnmappableTarget
from s4gateway.wire import frame, keys
from s4gateway.wire.crc32c import crc32c
from tests import corpus, events
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects.world import BUCKET, Instance, put_stored

TARGET = Target(BUCKET, "events/")
OPTIONS = Options(max_dict_bytes=4096)


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


def fill(store: MemoryBackend, bodies: Sequence[bytes], prefix: str = "events/") -> None:
    for number, body in enumerate(bodies):
        put_stored(store, f"{prefix}{number:05}", body)


def dictionaries_of(store: MemoryBackend) -> list[str]:
    return [key for key in store.buckets[BUCKET] if key.startswith(keys.DICTIONARY_PREFIX)]


def drawing(**fields: int) -> Options:
    return replace(OPTIONS, draw=Draw(**fields))


async def test_a_dictionary_that_pays_is_published_under_its_digest(store: MemoryBackend):
    fill(store, events.orders(100))
    report = await train_dict.run(store, TARGET, OPTIONS)
    assert (report.published, report.already_there, report.refused) == (True, False, None)
    data = await dictionaries.fetch(store, BUCKET, report.dict_id)
    assert (ZstdDict(data).dict_id, len(data)) == (report.dict_id, report.dict_bytes)
    assert len(data) <= 4096
    assert dictionaries_of(store) == [f".s4dict/{report.dict_id}"]


async def test_a_fifth_is_held_out_and_measured_with_the_dictionary_and_without(
    store: MemoryBackend,
):
    bodies = events.orders(100)
    fill(store, bodies)
    report = await train_dict.run(store, TARGET, OPTIONS)
    held = report.held_out
    assert (report.samples, report.trained_on, held.objects) == (100, 80, 20)
    assert (held.wins, held.win_rate) == (20, 1.0)
    assert held.dict_bytes < held.plain_bytes < held.original_bytes
    assert held.dict_ratio == held.dict_bytes / held.original_bytes
    assert held.plain_ratio == held.plain_bytes / held.original_bytes
    data = await dictionaries.fetch(store, BUCKET, report.dict_id)
    twentieths = {training.evaluate([body], data).dict_bytes for body in bodies}
    assert min(twentieths) * 20 <= held.dict_bytes <= max(twentieths) * 20


async def test_what_is_measured_was_not_trained_on(
    store: MemoryBackend, monkeypatch: pytest.MonkeyPatch
):
    seen: dict[str, list[bytes]] = {}
    train, evaluate = training.train, training.evaluate

    def noted_train(samples: list[bytes], size: int) -> bytes:
        seen["trained"] = samples
        return train(samples, size)

    def noted_evaluate(bodies: list[bytes], dictionary: bytes, level: int) -> training.Evaluation:
        seen["measured"] = bodies
        return evaluate(bodies, dictionary, level)

    monkeypatch.setattr(training, "train", noted_train)
    monkeypatch.setattr(training, "evaluate", noted_evaluate)
    fill(store, [*events.orders(50), *events.orders(50)])  # every body twice
    report = await train_dict.run(store, TARGET, OPTIONS)
    assert report.skipped == {"duplicate": 50}
    assert set(seen["trained"]).isdisjoint(seen["measured"])
    assert len(seen["trained"]) + len(seen["measured"]) == 50


async def test_the_same_seed_gives_the_same_dictionary_and_another_one_another(
    store: MemoryBackend,
):
    fill(store, events.orders(300))
    first = await train_dict.run(store, TARGET, drawing(samples=40))
    again = await train_dict.run(store, TARGET, drawing(samples=40))
    other = await train_dict.run(store, TARGET, drawing(samples=40, seed=7))
    assert first.dict_id == again.dict_id != other.dict_id
    assert again.already_there
    assert again.held_out == first.held_out


async def test_the_draw_is_spread_over_the_whole_listing(store: MemoryBackend):
    fill(store, events.orders(400))
    counting = CountingBackend(store)
    await train_dict.run(counting, TARGET, drawing(samples=40))
    numbers = [int(call.key[-5:]) for call in counting.calls if call.verb == "get"]
    assert len(numbers) == 40
    assert all(sum(low <= each < low + 100 for each in numbers) for low in (0, 100, 200, 300))


async def test_the_lines_that_are_printed_are_what_a_gateway_reads(store: MemoryBackend):
    target = Target(BUCKET, "it's \"=\\é/")
    fill(store, events.orders(50), target.prefix)
    report = await train_dict.run(store, target, OPTIONS)
    mapping = dict_map.parse_table(tomllib.loads(f"[mappings]\n{report.map_line}\n"))
    (found,) = mapping.mappings
    assert (found.bucket, found.prefix, found.dict_id) == (
        BUCKET,
        target.prefix,
        report.dict_id,
    )
    flag, _, quoted = report.flag.partition(" ")
    assert flag == "--zstd-dict"
    text = quoted.replace("'\"'\"'", "\0").strip("'").replace("\0", "'")
    assert dict_map.parse_flags([text]).mappings == mapping.mappings


async def test_a_whole_bucket_is_mapped_with_an_empty_prefix(store: MemoryBackend):
    fill(store, events.orders(50))
    report = await train_dict.run(store, Target(BUCKET), OPTIONS)
    assert report.flag == f"--zstd-dict '{BUCKET}/={report.dict_id}'"
    assert report.map_line == f'"{BUCKET}/" = "{report.dict_id}"'


async def test_a_prefix_no_gateway_could_be_given_is_refused_first(store: MemoryBackend):
    counting = CountingBackend(store)
    with pytest.raises(UnmappableTarget, match="cannot be printed"):
        await train_dict.run(counting, Target(BUCKET, "a\nb"), OPTIONS)
    assert counting.calls == []


# --- what serves as a sample


async def test_objects_a_gateway_wrote_are_decoded_those_with_a_dictionary_too(
    store: MemoryBackend,
):
    bodies = events.orders(120)
    instance = Instance(store)
    for number, body in enumerate(bodies[:60]):
        await instance.put(f"events/{number}", body)
    await instance.close()
    first = await train_dict.run(store, TARGET, OPTIONS)
    codec = ZstdDict(await dictionaries.fetch(store, BUCKET, first.dict_id))
    for number, body in enumerate(bodies[60:]):
        put_with_dictionary(store, f"events/with/{number}", body, codec)
    second = await train_dict.run(store, TARGET, OPTIONS)
    assert (first.samples, first.decoded_samples) == (60, 60)
    assert (second.samples, second.decoded_samples) == (120, 120)
    raw = MemoryBackend.with_buckets(BUCKET)
    fill(raw, bodies)
    assert (await train_dict.run(raw, TARGET, OPTIONS)).held_out.win_rate == 1.0


def put_with_dictionary(store: MemoryBackend, key: str, body: bytes, codec: ZstdDict) -> None:
    stream = codec.compressor()
    payload = stream.compress(body) + stream.flush()
    header = frame.FrameHeader(codec.id, len(body), len(payload), crc32c(body))
    stored = header.pack() + payload
    metadata = {
        "s4-codec": "cpu-zstd-dict",
        "s4-original-size": str(len(body)),
        "s4-compressed-size": str(len(stored)),
        "s4-crc32c": str(crc32c(body)),
        "s4-framed": "true",
        "s4-dict-id": codec.dict_id,
    }
    put_stored(store, key, stored, metadata)


async def test_what_is_no_sample_is_counted_by_its_reason(store: MemoryBackend):
    fill(store, events.orders(50))
    put_stored(store, "events/empty", b"")
    put_stored(store, "events/large", corpus.text(70_000))
    put_stored(store, "events/packed", gzip.compress(corpus.text(3000)))
    put_stored(store, "events/noise", corpus.noise(3000))
    put_stored(store, "events/frames", frame.MAGIC + bytes(100))
    put_stored(store, "events/secret", b"S4E2" + bytes(100))
    put_stored(store, "events/same", events.orders(1)[0])
    put_stored(store, "events/encrypted", b"S4E6" + bytes(100), {"s4-encrypted": "aes-256-gcm"})
    put_stored(store, "events/a.s4index", events.orders(1, seed=5)[0])
    instance = Instance(store)
    await instance.put("events/shrunk", corpus.text(1000) * 200)
    await instance.close()
    assert len(store.buckets[BUCKET]["events/shrunk"].data) < 64 * 1024
    report = await train_dict.run(store, TARGET, OPTIONS)
    assert report.samples == 50
    assert report.skipped == {
        "compressed": 4,
        "too-large": 2,
        "empty": 1,
        "duplicate": 1,
        "unreadable": 1,
    }
    assert any("events/encrypted" in note for note in report.notes)
    assert report.listed_objects == 59


async def test_only_the_prefix_is_read(store: MemoryBackend):
    fill(store, events.orders(20), "events/")
    fill(store, events.orders(20, seed=2), "others/")
    counting = CountingBackend(store)
    await train_dict.run(counting, TARGET, OPTIONS)
    read = [call.key for call in counting.calls if call.verb == "get"]
    assert all(key.startswith("events/") for key in read)


async def test_objects_removed_meanwhile_are_passed_over(store: MemoryBackend):
    fill(store, events.orders(60))

    def gone(call: Call) -> Exception | None:
        if call.verb == "get" and call.key.endswith("7"):
            return base.BackendAnswer(404, "NoSuchKey")
        return None

    report = await train_dict.run(FaultyBackend(store, fault=gone), TARGET, OPTIONS)
    assert (report.samples, report.skipped) == (54, {"gone": 6})


async def test_samples_stop_at_the_number_asked_for(store: MemoryBackend):
    fill(store, events.orders(200))
    report = await train_dict.run(store, TARGET, drawing(samples=30, concurrency=4))
    assert report.samples == 30


async def test_a_longer_listing_than_asked_for_is_cut_and_said(store: MemoryBackend):
    fill(store, events.orders(60))
    whole = await train_dict.run(store, TARGET, drawing(max_keys=60))
    part = await train_dict.run(store, TARGET, drawing(max_keys=59))
    assert (whole.listing_truncated, whole.listed_objects) == (False, 60)
    assert (part.listing_truncated, part.listed_objects) == (True, 59)
    assert any("--max-list-keys" in note for note in part.notes)


# --- what is refused


@pytest.mark.parametrize("count", [0, 1, 7])
async def test_too_few_objects_are_told_with_what_was_found(store: MemoryBackend, count: int):
    fill(store, events.orders(count))
    put_stored(store, "events/large", corpus.text(70_000))
    with pytest.raises(NotEnoughSamples) as raised:
        await train_dict.run(store, TARGET, OPTIONS)
    error = raised.value
    assert (error.bucket, error.prefix, error.found, error.minimum) == (
        BUCKET,
        "events/",
        count,
        8,
    )
    assert "1 too-large" in str(error)
    assert dictionaries_of(store) == []


async def test_the_fewest_objects_are_enough(store: MemoryBackend):
    fill(store, events.orders(8))
    report = await train_dict.run(store, TARGET, OPTIONS)
    assert (report.trained_on, report.held_out.objects) == (7, 1)
    assert any("samples are few" in note for note in report.notes)


async def test_more_samples_may_be_demanded(store: MemoryBackend):
    fill(store, events.orders(50))
    with pytest.raises(NotEnoughSamples, match="at least 51"):
        await train_dict.run(store, TARGET, replace(OPTIONS, min_samples=51))


async def test_a_size_over_the_cap_is_refused_before_anything_is_read(store: MemoryBackend):
    counting = CountingBackend(store)
    with pytest.raises(training.DictionarySizeError):
        await train_dict.run(counting, TARGET, replace(OPTIONS, max_dict_bytes=1024**2 + 1))
    assert counting.calls == []


async def test_a_dictionary_that_loses_is_published_only_by_force(store: MemoryBackend):
    fill(store, [b'{"number": %d}' % number for number in range(100)])  # less than a frame header
    refused = await train_dict.run(store, TARGET, OPTIONS)
    assert not refused.published
    assert refused.refused
    assert "wins on 0 of 20" in refused.refused
    assert dictionaries_of(store) == []
    forced = await train_dict.run(store, TARGET, replace(OPTIONS, force=True))
    assert (forced.published, forced.refused) == (True, None)
    assert forced.dict_id == refused.dict_id
    assert dictionaries_of(store) == [f".s4dict/{forced.dict_id}"]


async def test_a_dry_run_measures_and_writes_nothing(store: MemoryBackend):
    fill(store, events.orders(50))
    counting = CountingBackend(store)
    report = await train_dict.run(counting, TARGET, replace(OPTIONS, dry_run=True))
    assert (report.published, report.refused) == (False, None)
    assert report.held_out.wins == 10
    assert {call.verb for call in counting.calls} <= {"list", "get", "head"}


async def test_other_bytes_under_the_dictionarys_id_are_a_conflict_and_stay(
    store: MemoryBackend,
):
    fill(store, events.orders(50))
    planned = await train_dict.run(store, TARGET, replace(OPTIONS, dry_run=True))
    put_stored(store, f".s4dict/{planned.dict_id}", b"other bytes")
    with pytest.raises(DictionaryConflict, match=planned.dict_id):
        await train_dict.run(store, TARGET, OPTIONS)
    assert store.buckets[BUCKET][f".s4dict/{planned.dict_id}"].data == b"other bytes"


async def test_a_store_that_goes_away_is_told(store: MemoryBackend):
    fill(store, events.orders(50))

    def fault(call: Call) -> Exception | None:
        if call.verb == "get" and call.key.endswith("9"):
            return base.BackendUnavailable("reset")
        return None

    with pytest.raises(base.BackendUnavailable):
        await train_dict.run(FaultyBackend(store, fault=fault), TARGET, OPTIONS)
    assert dictionaries_of(store) == []


async def test_a_level_other_than_the_default_is_what_is_measured(store: MemoryBackend):
    fill(store, events.prose(100, 1500))
    fast = await train_dict.run(store, TARGET, replace(OPTIONS, zstd_level=1))
    slow = await train_dict.run(store, TARGET, replace(OPTIONS, zstd_level=19))
    assert slow.dict_id == fast.dict_id
    assert slow.held_out.plain_bytes < fast.held_out.plain_bytes
