"""Stored objects copied as they are: bytes, manifest and index, at once and in parts."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from s4gateway.backend import base
from s4gateway.backend.base import BackendAnswer, BackendProtocolError, BackendUnavailable
from s4gateway.backend.memory import MemoryBackend, MemoryStream
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects import dictionaries
from s4gateway.objects.copying import CopiedObject, CopyOrder, ObjectCopier
from s4gateway.objects.dictionaries import DictionaryConflict, DictionaryError
from s4gateway.objects.dictionary_encoding import encode_inline
from s4gateway.objects.dictionary_store import Choice
from s4gateway.objects.encoding import DIGESTS
from s4gateway.objects.opening import Source
from s4gateway.s3.checksums import Digests
from s4gateway.s3.headers import Headers
from tests import corpus, vintages
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.world import BUCKET, MIB, Instance

OTHER = "other"
SMALL = corpus.text(3000, seed=1)
LARGE = corpus.text(5 * MIB, seed=2)
NOISE = corpus.noise(12 * MIB, seed=3)
PART = 5 * MIB


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET, OTHER)


@pytest.fixture
async def one(store: MemoryBackend) -> AsyncIterator[Instance]:
    instance = Instance(store)
    yield instance
    await instance.close()


def copier(instance: Instance, **limits: int) -> ObjectCopier:
    return ObjectCopier(
        instance.backend,
        instance.sidecars,
        instance.attributes,
        instance.writer,
        instance.dictionaries,
        **limits,
    )


async def copy(
    instance: Instance,
    key: str,
    to: str,
    *,
    bucket: str = BUCKET,
    limits: dict[str, int] | None = None,
    **wanted: Any,
) -> CopiedObject:
    source = instance.source(key)
    attributes = await instance.reader.attributes(source)
    order = CopyOrder((bucket, to), **wanted)
    return await copier(instance, **limits or {}).copy(source, attributes, order)


def metadata(store: MemoryBackend, key: str, bucket: str = BUCKET) -> dict[str, str]:
    return dict(store.buckets[bucket][key].headers)


def names(store: MemoryBackend, bucket: str = BUCKET) -> list[str]:
    return sorted(store.buckets[bucket])


FORMS = {"small": SMALL, "large": LARGE, "noise": NOISE, "empty": b"", "one": b"x"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("replaces", [False, True])
async def test_a_copy_is_read_as_its_source_by_every_instance(
    store: MemoryBackend, one: Instance, form: str, replaces: bool
):
    data = FORMS[form]
    await one.put("a", data)
    description = [("x-amz-meta-new", "1")] if replaces else None
    copied = await copy(one, "a", "b", description=description)
    assert copied.result.etag == hashlib.md5(data).hexdigest()
    assert copied.result.last_modified
    for instance in (one, Instance(store)):
        attributes = await instance.reader.attributes(instance.source("b"))
        assert (attributes.etag, attributes.size) == (copied.result.etag, len(data))
        assert await instance.get("b") == data
        if data:
            middle = len(data) // 2
            got = await instance.ranged("b", middle, len(data))
            assert got == (data[middle:], None)
    assert metadata(store, "b").get("x-amz-meta-new") == ("1" if replaces else None)


async def test_a_copy_that_replaces_the_metadata_keeps_the_manifest_but_for_the_ledgers_mark(
    store: MemoryBackend, one: Instance
):
    body = world.framed([SMALL])
    entries = {
        **body.metadata,
        "s4-ledger": "1",
        "s4-zstd-level": "19",
        "s4-of-the-future": "yes",
        "color": "blue",
    }
    world.put_stored(store, "a", body.stored, entries)
    wanted = [("x-amz-meta-shape", "round"), ("cache-control", "no-store")]
    await copy(one, "a", "b", description=wanted)
    kept = {
        f"x-amz-meta-{name}": text
        for name, text in entries.items()
        if name not in {"s4-ledger", "color"}
    }
    assert metadata(store, "b") == {
        **kept,
        **dict(wanted),
        "content-type": "binary/octet-stream",
    }


async def test_a_content_type_is_the_default_only_where_none_is_given(
    store: MemoryBackend, one: Instance
):
    await one.put("a", SMALL)
    await copy(one, "a", "b", description=[("content-type", "text/x")])
    assert metadata(store, "b")["content-type"] == "text/x"


async def test_the_index_goes_along_bound_to_the_copy(store: MemoryBackend, one: Instance):
    await one.put("a", LARGE)
    copied = await copy(one, "a", "b", bucket=OTHER)
    assert copied.sidecar is True
    assert names(store, OTHER) == ["b", "b.s4index"]
    fresh = Instance(store)
    stored = store.buckets[OTHER]["b"]
    index = await fresh.sidecars.load((OTHER, "b"), stored.etag, len(stored.data))
    assert index is not None
    assert index.total_original == len(LARGE)


async def test_an_object_of_one_frame_costs_no_look_for_an_index(store: MemoryBackend):
    counting = CountingBackend(store)
    one = Instance(counting)
    await one.put("a", SMALL)
    counting.calls.clear()
    assert (await copy(one, "a", "b")).sidecar is None
    assert [call.verb for call in counting.calls] == ["head", "forward PUT"]
    await one.close()


async def test_a_copy_onto_itself_that_changes_the_backends_etag_binds_the_index_anew(
    store: MemoryBackend, one: Instance
):
    body = world.framed(world.cut(LARGE, MIB))
    entries = {"s4-multipart": "true", "s4-codec": "cpu-zstd"}
    etag = f"{'0' * 32}-3"
    world.put_stored(store, "a", body.stored, entries, etag=etag)
    world.put_sidecar(store, "a", body.index.bind(etag, len(body.stored)).encode())
    copied = await copy(one, "a", "a", description=[])
    assert store.buckets[BUCKET]["a"].etag != etag
    assert copied.sidecar is True
    for instance in (one, Instance(store)):
        assert await instance.ranged("a", MIB - 5, MIB + 5) == (LARGE[MIB - 5 : MIB + 5], None)


async def test_an_index_that_is_not_the_sources_is_not_copied(store: MemoryBackend, one: Instance):
    body = world.framed(world.cut(LARGE, MIB))
    world.put_stored(store, "a", body.stored, body.metadata)
    world.put_sidecar(store, "a", body.index.bind("another", len(body.stored)).encode())
    assert (await copy(one, "a", "b")).sidecar is None
    assert names(store) == ["a", "a.s4index", "b"]
    assert await one.get("b") == LARGE


@pytest.mark.parametrize("restart", [False, True])
async def test_a_copy_over_an_indexed_object_removes_its_index(store: MemoryBackend, restart: bool):
    one = Instance(store)
    await one.put("b", LARGE)
    await one.put("a", SMALL)
    if restart:
        await one.close()
        one = Instance(store)
    await copy(one, "a", "b")
    await one.sidecars.removals.flush()
    assert names(store) == ["a", "b"]
    assert await one.get("b") == SMALL
    await one.close()


async def test_listings_know_a_copy_without_asking(store: MemoryBackend, one: Instance):
    await one.put("a", SMALL)
    await copy(one, "a", "b")
    stored = store.buckets[BUCKET]["b"]
    known = one.attributes.lookup((BUCKET, "b"), stored.etag, len(stored.data))
    assert known is not None
    assert (known.logical_size, known.logical_etag) == (
        len(SMALL),
        hashlib.md5(SMALL).hexdigest(),
    )


async def test_a_foreign_object_keeps_its_bytes_and_takes_a_checksum(
    store: MemoryBackend, one: Instance
):
    etag = world.put_stored(store, "a", SMALL, {"color": "blue"})
    copied = await copy(one, "a", "b", checksum_algorithm="SHA256")
    assert copied.result.etag == etag
    assert world.stored_bytes(store, "b") == SMALL
    assert metadata(store, "b") == {"x-amz-meta-color": "blue"}


async def test_an_etag_that_is_derived_from_the_backends_is_derived_anew(
    store: MemoryBackend, one: Instance
):
    body = world.framed([SMALL])
    entries = world.manifest(SMALL, body.stored, framed=True, logical_etag=None).to_metadata()
    world.put_stored(store, "a", body.stored, entries, etag="e" * 32)
    copied = await copy(one, "a", "b")
    assert copied.result.etag == f"{store.buckets[BUCKET]['b'].etag}-1"
    attributes = await one.reader.attributes(one.source("b"))
    assert attributes.etag == copied.result.etag


async def test_an_object_of_unknown_size_is_copied_and_not_remembered(
    store: MemoryBackend, one: Instance
):
    world.put_stored(store, "a", b"no frames", {"s4-multipart": "true", "s4-codec": "cpu-zstd"})
    await one.put("b", SMALL)
    await copy(one, "a", "b")
    assert world.stored_bytes(store, "b") == b"no frames"
    assert one.attributes.last((BUCKET, "b")) is None


@pytest.mark.parametrize("in_parts", [False, True])
async def test_a_source_that_was_replaced_meanwhile_is_not_copied(
    store: MemoryBackend, one: Instance, in_parts: bool
):
    await one.put("a", NOISE)
    source = one.source("a")
    attributes = await one.reader.attributes(source)
    await one.put("a", LARGE)
    limits = {"largest": PART, "part_size": PART} if in_parts else {}
    with pytest.raises(BackendAnswer) as caught:
        await copier(one, **limits).copy(source, attributes, CopyOrder((BUCKET, "b")))
    assert caught.value.status == 412
    assert "b" not in names(store)
    assert store.uploads.uploads == {}


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("condition", [("if-none-match", "*"), ("if-match", '"nothing-like-it"')])
async def test_conditions_are_the_stores_to_decide(
    store: MemoryBackend, one: Instance, in_parts: bool, condition: tuple[str, str]
):
    await one.put("a", NOISE)
    await one.put("b", SMALL)
    limits = {"largest": PART, "part_size": PART} if in_parts else None
    with pytest.raises(BackendAnswer) as caught:
        await copy(one, "a", "b", limits=limits, conditions=[condition])
    assert caught.value.status == 412
    assert await one.get("b") == SMALL
    assert store.uploads.uploads == {}


# --- dictionaries


DICTIONARY = vintages.trained()
DICT_ID = vintages.id_of(DICTIONARY)
DICT_KEY = f".s4dict/{DICT_ID}"
EVENT = vintages.event(1)


async def put_dictionary_object(instance: Instance) -> None:
    await dictionaries.publish(instance.backend, BUCKET, DICTIONARY)
    digests = Digests(DIGESTS)
    digests.update(EVENT)
    choice = Choice("", ZstdDict(DICTIONARY))
    encoded = encode_inline(EVENT, digests, instance.dispatcher, instance.codecs, choice)
    assert encoded.manifest.dict_id == DICT_ID
    await instance.writer.store(instance.backend, (BUCKET, "a"), encoded, [])


def elsewhere(instance: Instance, key: str) -> Source:
    return instance.source(key, name=(OTHER, key))


@pytest.mark.parametrize("replaces", [False, True])
async def test_a_copy_in_another_bucket_has_its_dictionary_there(
    store: MemoryBackend, one: Instance, replaces: bool
):
    await put_dictionary_object(one)
    await copy(one, "a", "b", bucket=OTHER, description=[] if replaces else None)
    assert names(store, OTHER) == [DICT_KEY, "b"]
    assert store.buckets[OTHER][DICT_KEY].data == DICTIONARY
    described = metadata(store, DICT_KEY, OTHER)
    assert described["x-amz-meta-s4-dict-sha256"].startswith(DICT_ID)
    del store.buckets[BUCKET]
    fresh = Instance(store)
    assert await world.drained(await fresh.reader.open_whole(elsewhere(fresh, "b"))) == EVENT
    await fresh.close()


async def test_a_copy_in_the_same_bucket_asks_for_no_dictionary(
    store: MemoryBackend, one: Instance
):
    await put_dictionary_object(one)
    counting = CountingBackend(store)
    instance = Instance(counting)
    await copy(instance, "a", "b")
    assert all(not call.key.startswith(".s4dict/") for call in counting.calls)
    assert await instance.get("b") == EVENT
    await instance.close()


async def test_the_dictionary_is_there_before_the_copy_and_is_sent_once(
    store: MemoryBackend, one: Instance
):
    await put_dictionary_object(one)
    counting = CountingBackend(store)
    instance = Instance(counting)
    for key in ("b", "c"):
        await copy(instance, "a", key, bucket=OTHER)
    puts = [call.key for call in counting.calls if call.verb in {"put", "forward PUT"}]
    assert puts == [DICT_KEY, f"/{OTHER}/b", f"/{OTHER}/c"]
    await instance.close()


@pytest.mark.parametrize("data", [b"other bytes", b""])
async def test_other_bytes_under_its_id_fail_the_copy(
    store: MemoryBackend, one: Instance, data: bytes
):
    await put_dictionary_object(one)
    await store.put(OTHER, DICT_KEY, base.Body.of(data))
    with pytest.raises(DictionaryConflict):
        await copy(one, "a", "b", bucket=OTHER)
    assert names(store, OTHER) == [DICT_KEY]


async def test_a_dictionary_without_a_recorded_digest_is_compared(
    store: MemoryBackend, one: Instance
):
    await put_dictionary_object(one)
    await store.put(OTHER, DICT_KEY, base.Body.of(DICTIONARY))
    await copy(one, "a", "b", bucket=OTHER)
    assert names(store, OTHER) == [DICT_KEY, "b"]


async def test_an_object_whose_dictionary_is_lost_is_not_copied_away(
    store: MemoryBackend, one: Instance
):
    await put_dictionary_object(one)
    del store.buckets[BUCKET][DICT_KEY]
    with pytest.raises(DictionaryError, match=DICT_ID):
        await copy(one, "a", "b", bucket=OTHER)
    assert names(store, OTHER) == []
    await copy(one, "a", "b")


@pytest.mark.parametrize("verb", ["put", "head"])
async def test_a_dictionary_that_cannot_be_taken_along_fails_the_copy(
    store: MemoryBackend, one: Instance, verb: str
):
    await put_dictionary_object(one)
    denied = FaultyBackend(
        store,
        fault=lambda call: (
            BackendAnswer(403, "AccessDenied")
            if (call.verb, call.bucket) == (verb, OTHER)
            else None
        ),
    )
    instance = Instance(denied)
    with pytest.raises(BackendAnswer) as caught:
        await copy(instance, "a", "b", bucket=OTHER)
    assert caught.value.status == 403
    assert names(store, OTHER) == []
    await instance.close()


async def test_the_identity_that_may_copy_is_the_one_that_brings_the_dictionary(
    store: MemoryBackend, one: Instance
):
    await put_dictionary_object(one)
    client = CountingBackend(store)
    source = one.source("a", backend=client)
    attributes = await one.reader.attributes(source)
    await copier(one).copy(source, attributes, CopyOrder((OTHER, "b")))
    assert [call.key for call in client.calls if call.verb == "put"] == [DICT_KEY]


# --- in parts

IN_PARTS = {"largest": PART, "part_size": PART}


@pytest.mark.parametrize("size", [PART + 1, 2 * PART, 2 * PART + 1, 12 * MIB])
async def test_a_large_object_is_copied_in_parts(store: MemoryBackend, one: Instance, size: int):
    data = NOISE[:size]
    headers = (("content-type", "a/b"), ("cache-control", "no-store"), ("x-amz-meta-color", "red"))
    await one.put("a", data)
    stored = store.buckets[BUCKET]["a"]
    kept = dict(stored.headers) | dict(headers)
    store.buckets[BUCKET]["a"] = replace(stored, headers=tuple(kept.items()))
    copied = await copy(one, "a", "b", limits=IN_PARTS)
    parts = -(-size // PART)
    assert store.buckets[BUCKET]["b"].etag.endswith(f"-{parts}")
    assert copied.result.etag == hashlib.md5(data).hexdigest()
    assert copied.result.last_modified
    assert metadata(store, "b") == kept
    assert world.stored_bytes(store, "b") == stored.data
    assert await Instance(store).get("b") == data
    assert store.uploads.uploads == {}


async def test_a_large_copy_replaces_the_metadata_and_brings_its_index(
    store: MemoryBackend, one: Instance
):
    data = LARGE + NOISE
    await one.put("a", data)
    copied = await copy(one, "a", "b", limits=IN_PARTS, description=[("x-amz-meta-color", "red")])
    assert copied.sidecar is True
    assert metadata(store, "b")["x-amz-meta-color"] == "red"
    assert await Instance(store).ranged("b", 5 * MIB, 5 * MIB + 9) == (
        data[5 * MIB : 5 * MIB + 9],
        None,
    )


async def test_parts_grow_where_ten_thousand_would_not_do(store: MemoryBackend, one: Instance):
    counting = CountingBackend(store)
    store.uploads.min_part = 1
    data = NOISE[: 11 * MIB]
    world.put_stored(store, "a", data)
    two = Instance(counting)
    await copy(two, "a", "b", limits={"largest": MIB, "part_size": 1})
    sent = [call for call in counting.calls if "partNumber" in call.query]
    assert len(sent) == 11  # whole MiB each
    assert world.stored_bytes(store, "b") == data
    await two.close()


async def test_a_large_object_is_not_copied_onto_itself_for_nothing(
    store: MemoryBackend, one: Instance
):
    await one.put("a", NOISE)
    before = store.buckets[BUCKET]["a"]
    with pytest.raises(BackendAnswer) as caught:
        await copy(one, "a", "a", limits=IN_PARTS)
    assert caught.value.code == "InvalidRequest"
    assert store.buckets[BUCKET]["a"] is before
    settings = [("x-amz-storage-class", "STANDARD_IA")]
    copied = await copy(one, "a", "a", limits=IN_PARTS, settings=settings)
    assert metadata(store, "a")["x-amz-storage-class"] == "STANDARD_IA"
    assert copied.result.etag == hashlib.md5(NOISE).hexdigest()
    assert await Instance(store).get("a") == NOISE


def _is_part(number: int, call: Call) -> bool:
    return f"partNumber={number}&" in call.query


@pytest.mark.parametrize(
    "fails",
    [
        lambda call: _is_part(1, call),
        lambda call: _is_part(3, call),
        lambda call: call.verb == "forward POST" and "uploadId" in call.query,
    ],
)
async def test_an_upload_that_fails_is_aborted(store: MemoryBackend, fails: Any):
    def fault(call: Call) -> Exception | None:
        return BackendUnavailable("reset") if fails(call) else None

    one = Instance(FaultyBackend(store, fault=fault))
    await one.put("a", NOISE)
    with pytest.raises(BackendUnavailable):
        await copy(one, "a", "b", limits=IN_PARTS)
    assert store.uploads.uploads == {}
    assert names(store) == ["a"]
    assert one.attributes.last((BUCKET, "b")) is None
    await one.close()


async def test_an_upload_whose_client_has_gone_is_aborted(store: MemoryBackend):
    reached, never = asyncio.Event(), asyncio.Event()

    class Stalling(CountingBackend):
        async def before(self, call: Call) -> None:
            await super().before(call)
            if _is_part(2, call):
                reached.set()
                await never.wait()

    one = Instance(Stalling(store))
    await one.put("a", NOISE)
    task = asyncio.get_running_loop().create_task(copy(one, "a", "b", limits=IN_PARTS))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.uploads.uploads == {}
    await one.close()


# --- stores that answer otherwise


class Answering(CountingBackend):
    """Answers every copy with `document` under status 200, and copies nothing."""

    document = b""

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        return MemoryStream(base.Head(200, Headers([])), self.document)


@pytest.mark.parametrize(
    ("code", "status"), [("InternalError", 500), ("SlowDown", 503), ("PreconditionFailed", 412)]
)
async def test_an_error_under_200_is_the_error_it_is(store: MemoryBackend, code: str, status: int):
    backend = Answering(store)
    backend.document = f"\n  <Error><Code>{code}</Code></Error>".encode()
    one = Instance(backend)
    await one.put("a", SMALL)
    await one.put("b", LARGE)
    with pytest.raises(BackendAnswer) as caught:
        await copy(one, "a", "b")
    assert (caught.value.code, caught.value.status) == (code, status)
    assert "b.s4index" in names(store)
    await one.close()


@pytest.mark.parametrize("document", [b"", b"<html/>", b"<CopyObjectResult/>", b"<a"])
async def test_an_answer_that_is_none_is_not_taken_for_success(
    store: MemoryBackend, document: bytes
):
    backend = Answering(store)
    backend.document = document
    one = Instance(backend)
    await one.put("a", SMALL)
    with pytest.raises(BackendProtocolError):
        await copy(one, "a", "b")
    assert one.attributes.last((BUCKET, "b")) is None
    await one.close()


async def test_the_source_is_named_once_encoded_and_pinned(store: MemoryBackend, one: Instance):
    sent: list[tuple[str, str]] = []

    class Listening(Answering):
        document = b"<CopyObjectResult><ETag>e</ETag></CopyObjectResult>"

        async def forward(
            self,
            method: str,
            raw_path: str,
            raw_query: str,
            headers: base.HeaderList,
            body: base.Body | None = None,
        ) -> base.ObjectStream:
            sent.extend(headers)
            return await super().forward(method, raw_path, raw_query, headers, body)

    key = "a b+c%20d/ü//?x#y"
    await one.put(key, SMALL)
    attributes = await one.reader.attributes(one.source(key))
    backend = Listening(store)
    source = Source(backend, (BUCKET, key), "versionId=v%2F1")
    await copier(Instance(backend)).copy(source, attributes, CopyOrder((BUCKET, "b")))
    assert dict(sent) == {
        "x-amz-copy-source": (f"/{BUCKET}/a%20b%2Bc%2520d/%C3%BC//%3Fx%23y?versionId=v%2F1"),
        "x-amz-copy-source-if-match": f'"{attributes.head.etag}"',
    }
