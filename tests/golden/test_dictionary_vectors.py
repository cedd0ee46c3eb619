"""Whole dictionary objects as the format's first implementation stores them, both ways.

Ours carry entries of our own beside theirs; a body that does not shrink is stored as it came here,
so of those vectors theirs is only read.
"""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from s4gateway.backend.base import Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects.dictionary_encoding import encode_inline
from s4gateway.objects.dictionary_store import Choice
from s4gateway.objects.encoding import DIGESTS
from s4gateway.s3.checksums import Digests
from tests.objects import world
from tests.objects.world import BUCKET, Instance

VECTORS = {
    vector["id"]: vector
    for vector in json.loads(Path(__file__).with_name("vectors.json").read_text())["dictionary"]
}


def original(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["original"]["hex"])


def stored(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["body"]["hex"])


def with_dictionary(vector: dict[str, Any]) -> dict[str, Any]:
    """The vector, or the one whose dictionary it leaves out."""
    return vector if "dictionary" in vector else VECTORS["trained"]


@pytest.mark.parametrize("name", VECTORS)
async def test_what_they_store_is_read_here(name: str):
    vector = VECTORS[name]
    source = with_dictionary(vector)
    store = MemoryBackend.with_buckets(BUCKET)
    await store.put(
        BUCKET,
        f".s4dict/{source['dict_id']}",
        Body.of(base64.b64decode(source["dictionary"]["base64"])),
        [(f"x-amz-meta-{key}", text) for key, text in source["dict_object_metadata"].items()],
    )
    world.put_stored(store, "k", stored(vector), vector["metadata"])
    instance = Instance(store)
    assert await instance.get("k") == original(vector)
    await instance.close()


@pytest.mark.parametrize("name", ["trained", "raw-content"])
def test_what_wins_is_stored_here_as_there(name: str):
    vector = VECTORS[name]
    body = original(vector)
    instance = Instance(MemoryBackend())
    digests = Digests(DIGESTS)
    digests.update(body)
    codec = ZstdDict(base64.b64decode(vector["dictionary"]["base64"]))
    choice = Choice("b/", codec)
    encoded = encode_inline(body, digests, instance.dispatcher, instance.codecs, choice)
    assert encoded.body.chunks == stored(vector)
    ours = encoded.manifest.to_metadata()
    assert {key: ours[key] for key in vector["metadata"]} == vector["metadata"]
    assert set(ours) - set(vector["metadata"]) == {"s4-logical-etag"}
    assert encoded.tried is not None
    assert encoded.tried.with_dictionary == vector["dict_len"]
