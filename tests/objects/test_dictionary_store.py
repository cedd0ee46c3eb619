"""Generations of dictionaries, and those that reads ask for."""

import asyncio
from collections.abc import Iterable

import pytest

from s4gateway.backend.base import BackendUnavailable, Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects import dictionaries, dictionary_store
from s4gateway.objects.dict_map import DictMap, DictMapError, DictMapping
from s4gateway.objects.dictionaries import DictionaryError
from s4gateway.objects.dictionary_store import Dictionaries, DictionaryStore, Loader
from tests import vintages
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects.world import LANES

ONE, TWO = vintages.trained(1), vintages.trained(2)
ID_1, ID_2 = vintages.id_of(ONE), vintages.id_of(TWO)
RAW = b"any bytes can serve as raw content of a dictionary"


@pytest.fixture
async def store() -> CountingBackend:
    memory = MemoryBackend.with_buckets("a", "b")
    for bucket in ("a", "b"):
        await dictionaries.publish(memory, bucket, ONE)
    await dictionaries.publish(memory, "a", TWO)
    return CountingBackend(memory)


def mapped(*entries: tuple[str, str, str]) -> DictMap:
    return DictMap(DictMapping(*entry) for entry in entries)


async def problems(loader: Loader, mappings: DictMap) -> tuple[str, ...]:
    with pytest.raises(DictMapError) as caught:
        await loader.load(mappings)
    return caught.value.problems


# --- generations


async def test_a_generation_chooses_by_the_longest_prefix_and_the_length(store: CountingBackend):
    loaded = await Loader(store, max_body=1000).load(
        mapped(("a", "logs/", ID_1), ("a", "logs/db/", ID_2), ("b", "", ID_1))
    )
    chosen = {
        key: choice.codec.dict_id
        for key in ("logs/x", "logs/db/x", "other")
        if (choice := loaded.choose("a", key, 1000))
    }
    assert chosen == {"logs/x": ID_1, "logs/db/x": ID_2}
    choice = loaded.choose("b", "anything", 1)
    assert choice is not None
    assert choice.label == "b/"
    for length in (None, 0, 1001):
        assert loaded.choose("b", "anything", length) is None
    assert loaded.ids == {"a/logs/": ID_1, "a/logs/db/": ID_2, "b/": ID_1}


async def test_each_dictionary_is_fetched_once_from_its_bucket_and_digested_once(
    store: CountingBackend,
):
    loaded = await Loader(store).load(
        mapped(("a", "x", ID_1), ("a", "y", ID_1), ("b", "", ID_1), ("a", "z", ID_2))
    )
    assert sorted(call.bucket + call.key for call in store.calls) == sorted(
        [f"a.s4dict/{ID_1}", f"a.s4dict/{ID_2}", f"b.s4dict/{ID_1}"]
    )
    assert len(loaded) == 3
    assert loaded.get(("a", ID_1)) is loaded.get(("b", ID_1)) is not None
    assert loaded.get(("b", ID_2)) is None


async def test_the_next_generation_fetches_only_what_is_new(store: CountingBackend):
    loader = Loader(store)
    first = await loader.load(mapped(("a", "x", ID_1)))
    store.calls.clear()
    second = await loader.load(mapped(("a", "x", ID_1), ("a", "y", ID_2)), first)
    assert [call.key for call in store.calls] == [f".s4dict/{ID_2}"]
    assert second.get(("a", ID_1)) is first.get(("a", ID_1))
    assert first.get(("a", ID_2)) is None
    assert len(await loader.load(mapped(), second)) == 0


async def test_all_that_is_wrong_with_the_mapped_dictionaries_is_told(store: CountingBackend):
    bucket = store.inner.buckets["a"]  # type: ignore[attr-defined]
    spoilt = {"0" * 16: b"", "1" * 16: bytes(1024 * 1024 + 1), "2" * 16: ONE}
    broken = ONE[:20]
    raw_id, broken_id = await _lay(store, RAW), await _lay(store, broken)
    for dict_id, data in spoilt.items():
        await store.put("a", f".s4dict/{dict_id}", Body.of(data))
    assert bucket
    ids = [*spoilt, raw_id, broken_id, "3" * 16]
    found = await problems(
        Loader(store), mapped(*(("a", dict_id, dict_id) for dict_id in ids), ("b", "", ID_2))
    )
    assert len(found) == 7
    for line, (dict_id, part) in zip(
        found,
        [
            ("0" * 16, "0 bytes"), ("1" * 16, "1048577 bytes"), ("2" * 16, "SHA-256"),
            (raw_id, "raw content"), (broken_id, "dictionary-invalid"),
            ("3" * 16, "does not exist"), (ID_2, "bucket b"),
        ],
        strict=True,
    ):  # fmt: skip
        assert dict_id in line
        assert part in line
        assert "\n" not in line


async def _lay(store: CountingBackend, data: bytes) -> str:
    dict_id = vintages.id_of(data)
    await store.put("a", f".s4dict/{dict_id}", Body.of(data))
    return dict_id


async def test_one_id_with_other_bytes_in_another_bucket_is_refused(
    store: CountingBackend, monkeypatch: pytest.MonkeyPatch
):
    # Two dictionaries whose digests begin alike cannot be had; a shorter id makes them.
    monkeypatch.setattr(dictionaries.zstd_dict, "ID_LENGTH", 0)

    async def fetch(_backend: object, bucket: str, _dict_id: str) -> bytes:
        return ONE if bucket == "a" else TWO

    monkeypatch.setattr(dictionaries, "fetch", fetch)
    (problem,) = await problems(Loader(store), mapped(("a", "", ID_1), ("b", "", ID_1)))
    assert "another bucket" in problem


async def test_a_store_that_is_away_is_told_by_name(store: CountingBackend):
    away = FaultyBackend(store, fault=lambda _: BackendUnavailable("nobody answers"))
    (problem,) = await problems(Loader(away), mapped(("a", "", ID_1)))
    assert "nobody answers" in problem
    assert ID_1 in problem


def test_no_mappings_choose_nothing():
    assert dictionary_store.NONE.choose("a", "k", 10) is None
    assert len(dictionary_store.NONE) == 0


# --- reads


class Fetches:
    def __init__(self) -> None:
        self.results: list[bool] = []

    def __call__(self, *, ok: bool) -> None:
        self.results.append(ok)


def reads(store: CountingBackend, **limits: int) -> tuple[DictionaryStore, Fetches]:
    fetches = Fetches()
    return DictionaryStore(store, LANES.codec, fetched=fetches, **limits), fetches


async def test_what_is_loaded_is_not_fetched(store: CountingBackend):
    present = await Loader(store).load(mapped(("a", "", ID_1)))
    store.calls.clear()
    found = DictionaryStore(store, LANES.codec, lambda: present)
    assert await found.find("a", ID_1) is present.get(("a", ID_1))
    assert store.calls == []
    await found.find("b", ID_1)
    assert [call.bucket for call in store.calls] == ["b"]


async def test_a_read_fetches_once_and_remembers_by_bucket(store: CountingBackend):
    found, fetches = reads(store)
    first = await found.find("a", ID_1)
    assert await found.find("a", ID_1) is first
    with pytest.raises(DictionaryError):
        await found.find("b", ID_2)
    await found.find("a", ID_2)
    with pytest.raises(DictionaryError):
        await found.find("b", ID_2)
    assert fetches.results == [True, False, True, False]


class Distant(CountingBackend):
    """Others get their turn while it is asked."""

    async def before(self, call: Call) -> None:
        await super().before(call)
        await asyncio.sleep(0)


async def test_readers_that_come_together_share_one_fetch(store: CountingBackend):
    store = Distant(store.inner)
    found, fetches = reads(store)
    codecs = await asyncio.gather(*(found.find("a", ID_1) for _ in range(50)))
    assert len(set(map(id, codecs))) == 1
    assert store.count("get") == 1
    missing = await asyncio.gather(
        *(found.find("a", "0" * 16) for _ in range(50)), return_exceptions=True
    )
    assert all(isinstance(each, DictionaryError) for each in missing)
    assert fetches.results == [True, False]
    await store.put("a", f".s4dict/{'0' * 16}", Body.of(b""))
    with pytest.raises(DictionaryError, match="0 bytes"):  # asked again, not remembered
        await found.find("a", "0" * 16)


async def test_a_reader_that_leaves_leaves_the_fetch_to_the_others(store: CountingBackend):
    entered, release = asyncio.Event(), asyncio.Event()

    class Slow(CountingBackend):
        async def before(self, call: Call) -> None:
            await super().before(call)
            entered.set()
            await release.wait()

    slow = Slow(store)
    found, _ = reads(slow)
    loop = asyncio.get_running_loop()
    leader = loop.create_task(found.find("a", ID_1))
    await entered.wait()
    followers = [loop.create_task(found.find("a", ID_1)) for _ in range(3)]
    await asyncio.sleep(0)
    followers[0].cancel()
    leader.cancel()
    release.set()
    outcomes = await asyncio.gather(leader, *followers, return_exceptions=True)
    assert [type(each) for each in outcomes] == [
        asyncio.CancelledError, asyncio.CancelledError, ZstdDict, ZstdDict
    ]  # fmt: skip
    assert slow.count("get") == 2


def _order(store: CountingBackend) -> Iterable[str]:
    return [call.key.removeprefix(".s4dict/") for call in store.calls]


@pytest.mark.parametrize("limits", [{"entries": 2}, {"limit": len(ONE) + len(TWO) + 100}])
async def test_the_least_recently_used_is_forgotten_first(
    store: CountingBackend, limits: dict[str, int]
):
    third = vintages.trained(3)
    id_3, _ = await dictionaries.publish(store.inner, "a", third)
    found, _ = reads(store, **limits)
    for dict_id in (ID_1, ID_2, ID_1, id_3, ID_1, ID_2, id_3):
        assert (await found.find("a", dict_id)).dict_id == dict_id
    assert _order(store) == [ID_1, ID_2, id_3, ID_2, id_3]


async def test_one_larger_than_all_that_may_be_kept_still_serves(store: CountingBackend):
    found, _ = reads(store, limit=10)
    assert (await found.find("a", ID_1)).dict_id == ID_1
    assert (await found.find("a", ID_1)).dict_id == ID_1
    assert store.count("get") == 2


async def test_a_raw_content_dictionary_of_another_writer_is_read(store: CountingBackend):
    raw_id = await _lay(store, RAW)
    found, _ = reads(store)
    assert (await found.find("a", raw_id)).data == RAW


async def test_verified_bytes_that_are_no_dictionary_are_refused(store: CountingBackend):
    broken_id = await _lay(store, ONE[:20])
    found, fetches = reads(store)
    with pytest.raises(DictionaryError, match="dictionary-invalid"):
        await found.find("a", broken_id)
    assert fetches.results == [False]


def test_a_generation_is_its_own(store: CountingBackend):
    with pytest.raises(TypeError):
        Dictionaries(mapped(("a", "", ID_1)), {}).ids["a/"] = ID_2  # type: ignore[index]
