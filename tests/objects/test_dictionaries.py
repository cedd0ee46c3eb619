"""Dictionaries in a bucket: found, verified, published once and never changed."""

from collections.abc import Callable

import pytest

from s4gateway.backend import base
from s4gateway.backend.base import BackendAnswer, BackendUnavailable, Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.objects import dictionaries
from s4gateway.objects.dictionaries import (
    DictionaryConflict,
    DictionaryError,
    DictionaryUnavailable,
    fetch,
    fingerprint,
    publish,
)
from tests import vintages
from tests.backends import Call, CountingBackend, FaultyBackend

BUCKET = "bucket"
DATA = vintages.trained()
ID = vintages.id_of(DATA)
KEY = f".s4dict/{ID}"


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET, "other")


async def put(store: MemoryBackend, data: bytes, *headers: tuple[str, str]) -> None:
    await store.put(BUCKET, KEY, Body.of(data), headers)


async def refused(store: base.Backend, dict_id: str = ID) -> DictionaryError:
    with pytest.raises(DictionaryError) as caught:
        await fetch(store, BUCKET, dict_id)
    assert dict_id in str(caught.value)
    assert BUCKET in str(caught.value)
    return caught.value


async def test_what_is_published_can_be_fetched(store: MemoryBackend):
    assert await publish(store, BUCKET, DATA) == (ID, True)
    assert fingerprint(DATA) == ID
    stored = store.buckets[BUCKET][KEY]
    assert stored.data == DATA
    headers = dict(stored.headers)
    assert headers["content-type"] == "application/x-zstd-dictionary"
    assert headers["x-amz-meta-s4-dict-sha256"].startswith(ID)
    assert await fetch(store, BUCKET, ID) == DATA


async def test_publishing_again_changes_nothing(store: MemoryBackend):
    await publish(store, BUCKET, DATA)
    counting = CountingBackend(store)
    assert await publish(counting, BUCKET, DATA) == (ID, False)
    assert counting.count("put") == 0


@pytest.mark.parametrize("other", [b"other bytes", b"", DATA[:-1], bytes(2 * 1024 * 1024)])
async def test_other_bytes_under_the_id_are_a_conflict_and_stay(store: MemoryBackend, other: bytes):
    await put(store, other)
    with pytest.raises(DictionaryConflict):
        await publish(store, BUCKET, DATA)
    assert store.buckets[BUCKET][KEY].data == other


async def test_a_writer_that_was_faster_is_compared_with(store: MemoryBackend):
    class Faster(CountingBackend):
        async def before(self, call: Call) -> None:
            if call.verb == "put":
                await put(store, self.content)

        content = DATA

    racing = Faster(store)
    assert await publish(racing, BUCKET, DATA) == (ID, False)
    del store.buckets[BUCKET][KEY]
    racing.content = b"not this"
    with pytest.raises(DictionaryConflict):
        await publish(racing, BUCKET, DATA)


async def test_a_store_without_conditional_writes_is_written_plainly(store: MemoryBackend):
    class Old(CountingBackend):
        async def put(
            self, bucket: str, key: str, body: Body, headers: base.HeaderList = ()
        ) -> base.Head:
            if any(name == "if-none-match" for name, _ in headers):
                raise BackendAnswer(501, "NotImplemented")
            return await super().put(bucket, key, body, headers)

    assert await publish(Old(store), BUCKET, DATA) == (ID, True)
    assert await fetch(store, BUCKET, ID) == DATA


@pytest.mark.parametrize("data", [b"", bytes(1024 * 1024 + 1), DATA[:20]])
async def test_what_is_no_dictionary_is_not_published(store: MemoryBackend, data: bytes):
    with pytest.raises(DictionaryError):
        await publish(store, BUCKET, data)
    assert store.buckets[BUCKET] == {}


async def test_what_the_store_says_about_publishing_is_passed_on(store: MemoryBackend):
    with pytest.raises(BackendAnswer) as caught:
        await publish(store, "missing", DATA)
    assert caught.value.code == "NoSuchBucket"
    denied = FaultyBackend(
        store, fault=lambda call: BackendAnswer(403, "AccessDenied") if call.verb == "put" else None
    )
    with pytest.raises(BackendAnswer):
        await publish(denied, BUCKET, DATA)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda _: b"",
        lambda _: bytes(dictionaries.MAX_SIZE + 1),
        lambda _: vintages.trained(1),
    ],
    ids=["cut", "longer", "flipped", "empty", "over-1-MiB", "another"],
)
async def test_bytes_that_are_not_what_the_id_says_are_refused(
    store: MemoryBackend, spoil: Callable[[bytes], bytes]
):
    await put(store, spoil(DATA))
    error = await refused(store)
    assert not isinstance(error, DictionaryUnavailable)


async def test_the_whole_digest_is_held_against_the_bytes_where_it_is_known(store: MemoryBackend):
    await put(store, DATA)
    assert await fetch(store, BUCKET, ID) == DATA
    await put(store, DATA, ("x-amz-meta-s4-dict-sha256", ID + "0" * 48))
    assert "SHA-256" in str(await refused(store))


async def test_a_dictionary_is_looked_for_in_that_bucket_only(store: MemoryBackend):
    await publish(store, "other", DATA)
    assert "does not exist" in str(await refused(store))
    with pytest.raises(DictionaryError, match="NoSuchBucket"):
        await fetch(store, "missing", ID)


@pytest.mark.parametrize("dict_id", ["../../../etc/pwd", ID.upper(), ID[:-1], ID + "0", "x" * 16])
async def test_what_is_no_id_asks_the_store_for_nothing(store: MemoryBackend, dict_id: str):
    counting = CountingBackend(store)
    await refused(counting, dict_id)
    assert counting.calls == []


@pytest.mark.parametrize(
    "fault", [BackendAnswer(403, "AccessDenied"), BackendUnavailable("no answer")]
)
async def test_a_store_that_does_not_give_it_may_do_so_later(
    store: MemoryBackend, fault: Exception
):
    await publish(store, BUCKET, DATA)
    error = await refused(FaultyBackend(store, fault=lambda _: fault))
    assert isinstance(error, DictionaryUnavailable)
    with pytest.raises(type(fault)):
        await publish(FaultyBackend(store, fault=lambda _: fault), BUCKET, DATA)


async def test_a_store_that_fails_while_comparing_is_no_conflict(store: MemoryBackend):
    await publish(store, BUCKET, DATA)
    faulty = FaultyBackend(
        store, fault=lambda call: BackendUnavailable("gone") if call.verb == "get" else None
    )
    with pytest.raises(DictionaryUnavailable):
        await publish(faulty, BUCKET, DATA)
