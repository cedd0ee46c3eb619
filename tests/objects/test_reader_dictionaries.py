"""Objects compressed with a shared dictionary: written, read whole and in ranges, and refused."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from s4gateway.backend.base import BackendUnavailable
from s4gateway.backend.memory import MemoryBackend
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects import dictionaries
from s4gateway.objects.dictionaries import DictionaryError, DictionaryUnavailable
from s4gateway.objects.dictionary_encoding import encode_in_memory, encode_inline
from s4gateway.objects.dictionary_store import Choice
from s4gateway.objects.encoding import DIGESTS, EncodedObject
from s4gateway.objects.errors import DamagedObject, UnreadableObject
from s4gateway.s3.checksums import Digests
from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from tests import corpus, vintages
from tests.backends import CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.world import BUCKET, MIB, Instance

DATA = vintages.trained()
DICTIONARY = ZstdDict(DATA)
CHOICE = Choice("bucket/", DICTIONARY)
EVENT = vintages.event(1)


@pytest.fixture
async def store() -> MemoryBackend:
    memory = MemoryBackend.with_buckets(BUCKET)
    await dictionaries.publish(memory, BUCKET, DATA)
    return memory


@pytest.fixture
async def one(store: MemoryBackend) -> AsyncIterator[Instance]:
    instance = Instance(store)
    yield instance
    await instance.close()


def encode(data: bytes, codec: CodecId = CodecId.CPU_ZSTD) -> EncodedObject:
    instance = Instance(MemoryBackend(), codec=codec)
    digests = Digests(DIGESTS)
    digests.update(data)
    return encode_inline(data, digests, instance.dispatcher, instance.codecs, CHOICE)


def lay(
    store: MemoryBackend, key: str, data: bytes, made_with: ZstdDict, named: str | None = None
) -> None:
    """An object of one frame, compressed with a dictionary whether that helps or not."""
    stream = made_with.compressor()
    payload = stream.compress(data) + stream.flush()
    header = frame.FrameHeader(CodecId.CPU_ZSTD_DICT, len(data), len(payload), world.crc32c(data))
    stored = header.pack() + payload
    described = world.manifest(
        data, stored, codec=header.codec, framed=True, dict_id=named or made_with.dict_id
    )
    world.put_stored(store, key, stored, described.to_metadata())


async def put(instance: Instance, key: str, data: bytes) -> EncodedObject:
    encoded = encode(data)
    await instance.writer.store(instance.backend, (BUCKET, key), encoded, [])
    return encoded


# --- writing


def test_what_wins_is_one_frame_that_names_its_dictionary():
    encoded = encode(EVENT)
    stored = encoded.body.chunks
    assert isinstance(stored, bytes)
    ((_, header, payload),) = frame.walk(stored)
    assert header.codec is CodecId.CPU_ZSTD_DICT
    entries = encoded.manifest.to_metadata()
    assert entries["s4-codec"] == "cpu-zstd-dict"
    assert entries["s4-dict-id"] == DICTIONARY.dict_id
    assert entries["s4-framed"] == "true"
    assert entries["s4-compressed-size"] == str(len(stored))
    tried = encoded.tried
    assert tried is not None
    assert (tried.label, tried.dict_id, tried.won) == ("bucket/", DICTIONARY.dict_id, True)
    assert (tried.original, tried.with_dictionary) == (len(EVENT), len(payload))
    assert tried.with_dictionary < tried.plain / 2


@pytest.mark.parametrize("data", [corpus.text(3000, seed=5), b"a" * 9000], ids=["text", "a"])
async def test_what_loses_is_stored_as_if_there_were_no_dictionary(data: bytes, one: Instance):
    encoded, plain = encode(data), await one.encode(data)
    tried = encoded.tried
    assert tried is not None
    assert not tried.won
    assert encoded.body.chunks == plain.body.chunks
    assert encoded.manifest == plain.manifest
    assert tried.with_dictionary >= tried.plain


@pytest.mark.parametrize(
    ("data", "codec"),
    [
        (b"", CodecId.CPU_ZSTD),
        (corpus.noise(3000, seed=1), CodecId.CPU_ZSTD),
        (EVENT, CodecId.CPU_GZIP),
        (EVENT, CodecId.PASSTHROUGH),
    ],
    ids=["empty", "noise", "gzip", "passthrough"],
)
async def test_what_would_not_be_stored_as_zstd_is_not_tried(
    store: MemoryBackend, data: bytes, codec: CodecId
):
    instance = Instance(store, codec=codec)
    encoded, plain = encode(data, codec), await instance.encode(data)
    assert encoded.tried is None
    assert (encoded.body.chunks, encoded.manifest) == (plain.body.chunks, plain.manifest)


async def test_what_does_not_shrink_is_stored_as_it_came_and_is_no_win():
    data = EVENT[:20]
    encoded = encode(data)
    assert encoded.body.chunks == data
    assert encoded.manifest.codec is CodecId.PASSTHROUGH
    assert encoded.tried is not None
    assert not encoded.tried.won


async def test_a_larger_body_is_coded_on_a_thread_within_the_budget(one: Instance):
    data = b"".join(vintages.events(3000))[: MIB // 2]
    memory = one.budget.share(len(data))
    encoded = await encode_in_memory(
        one.workshop, data, Digests(DIGESTS), one.dispatcher, CHOICE, memory
    )
    assert one.budget.used == encoded.stored_size
    digests = Digests(DIGESTS)
    digests.update(data)
    inline = encode_inline(data, digests, one.dispatcher, one.codecs, CHOICE)
    assert (encoded.body.chunks, encoded.manifest) == (inline.body.chunks, inline.manifest)
    encoded.close()
    assert one.budget.used == 0


# --- reading


@pytest.mark.parametrize("count", [1, 100, 1000], ids=["one", "hundred", "thousand"])
async def test_every_instance_reads_it_whole_and_in_ranges(
    store: MemoryBackend, one: Instance, count: int
):
    data = b"\n".join(vintages.events(count))
    lay(store, "k", data, DICTIONARY)
    for instance in (one, Instance(store)):
        assert await instance.get("k") == data
        for start, end in ((0, 1), (5, 50), (len(data) - 7, len(data)), (0, len(data))):
            assert await instance.ranged("k", start, end) == (data[start:end], None)
        await instance.close()


async def test_a_dictionary_is_fetched_once_for_many_objects(store: MemoryBackend, one: Instance):
    for number in range(20):
        await put(one, f"k{number}", vintages.event(number))
    counting = CountingBackend(store)
    reader = Instance(counting)
    for number in range(20):
        assert await reader.get(f"k{number}") == vintages.event(number)
    assert sum(call.key.startswith(".s4dict/") for call in counting.calls) == 1
    await reader.close()


async def test_frames_of_other_codecs_are_read_beside_those_of_the_dictionary(
    store: MemoryBackend, one: Instance
):
    plain = world.framed([corpus.text(500, seed=3), corpus.noise(300, seed=4)])
    encoded = encode(EVENT)
    assert isinstance(encoded.body.chunks, bytes)
    stored = plain.stored + frame.padding(40) + encoded.body.chunks
    data = plain.plain + EVENT
    described = world.manifest(
        data, stored, codec=CodecId.CPU_ZSTD_DICT, framed=True, dict_id=DICTIONARY.dict_id
    )
    world.put_stored(store, "k", stored, described.to_metadata())
    assert await one.get("k") == data
    assert (await one.ranged("k", 490, 810))[0] == data[490:810]


async def test_large_frames_of_other_writers_are_read(store: MemoryBackend, one: Instance):
    data = b"".join(vintages.events(20_000))
    data = data * (33 * MIB // len(data) + 1)
    lay(store, "k", data, DICTIONARY)
    assert await one.get("k") == data


async def refused(instance: Instance, key: str, kind: type[Exception]) -> Exception:
    with pytest.raises(kind) as caught:
        await instance.get(key)
    with pytest.raises(kind):
        await instance.get_range(key, 1, 5)
    assert instance.budget.used == 0
    return caught.value


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: None, lambda _: b"", lambda data: data[:-9], lambda _: vintages.trained(7),
        lambda _: bytes(MIB + 1),
    ],
    ids=["gone", "empty", "cut", "another", "over-1-MiB"],
)  # fmt: skip
@pytest.mark.parametrize("count", [1, 1000], ids=["small", "large"])
async def test_without_its_dictionary_nothing_of_an_object_is_served(
    store: MemoryBackend, one: Instance, spoil: Callable[[bytes], bytes | None], count: int
):
    lay(store, "k", b"".join(vintages.events(count)), DICTIONARY)
    key = f".s4dict/{DICTIONARY.dict_id}"
    spoilt = spoil(DATA)
    found = store.buckets[BUCKET].pop(key)
    if spoilt is not None:
        store.buckets[BUCKET][key] = replace(found, data=spoilt)
    error = await refused(one, "k", DictionaryError)
    assert DICTIONARY.dict_id in str(error)


async def test_a_store_that_gives_the_object_and_not_the_dictionary(
    store: MemoryBackend, one: Instance
):
    await put(one, "k", EVENT)
    faulty = FaultyBackend(
        store,
        fault=lambda call: BackendUnavailable("no") if call.key.startswith(".s4dict/") else None,
    )
    await refused(Instance(faulty), "k", DictionaryUnavailable)


@pytest.mark.parametrize("dict_id", [None, "../../../etc/pwd", DICTIONARY.dict_id.upper()])
async def test_a_dictionary_frame_of_an_object_that_names_none_is_refused(
    store: MemoryBackend, one: Instance, dict_id: str | None
):
    encoded = await put(one, "k", EVENT)
    entries = encoded.manifest.to_metadata()
    del entries["s4-dict-id"]
    if dict_id is not None:
        entries["s4-dict-id"] = dict_id
    world.put_stored(store, "k", world.stored_bytes(store, "k"), entries)
    await refused(one, "k", UnreadableObject)


async def test_a_stray_id_on_another_codec_is_ignored(store: MemoryBackend, one: Instance):
    encoded = await one.put("k", EVENT)
    entries = encoded.manifest.to_metadata() | {"s4-dict-id": "0" * 16}
    world.put_stored(store, "k", world.stored_bytes(store, "k"), entries)
    assert await one.get("k") == EVENT


async def test_the_dictionary_of_another_object_does_not_decode_it(
    store: MemoryBackend, one: Instance
):
    encoded = await put(one, "k", EVENT)
    await dictionaries.publish(store, BUCKET, vintages.trained(7))
    other = encoded.manifest.to_metadata() | {"s4-dict-id": vintages.id_of(vintages.trained(7))}
    world.put_stored(store, "k", world.stored_bytes(store, "k"), other)
    await refused(one, "k", DamagedObject)


@pytest.mark.parametrize("raw", [b"raw content " * 20, b"no such thing " * 20])
async def test_a_wrong_raw_content_dictionary_is_caught_by_the_checksum(
    store: MemoryBackend, one: Instance, raw: bytes
):
    await dictionaries.publish(store, BUCKET, raw)
    data = b"raw content raw content and a little more"
    lay(store, "k", data, ZstdDict(b"raw content " * 20), vintages.id_of(raw))
    if raw.startswith(b"raw"):
        assert await one.get("k") == data
    else:
        await refused(one, "k", DamagedObject)


async def test_a_damaged_payload_is_told_as_damage(store: MemoryBackend, one: Instance):
    encoded = await put(one, "k", EVENT)
    stored = bytearray(world.stored_bytes(store, "k"))
    stored[-3] ^= 1
    world.put_stored(store, "k", bytes(stored), encoded.manifest.to_metadata())
    await refused(one, "k", DamagedObject)
