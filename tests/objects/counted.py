"""A ledger in memory, and what a store in memory really holds of what is counted."""

import asyncio
import random
from dataclasses import dataclass, field

from s4gateway.backend import base
from s4gateway.backend.memory import MemoryBackend, StoredObject
from s4gateway.objects.cache import ObjectName
from s4gateway.wire import keys, manifest
from s4gateway.wire.tail import Tail
from tests.backends import Call, CountingBackend
from tests.objects.world import BUCKET

NOTHING = (0, 0, 0)


@dataclass
class MemoryLedger:
    """Sums of what was applied, by bucket; nothing is clamped, so too much taken away shows."""

    original: int = 0
    stored: int = 0
    objects: int = 0
    skipped: int = 0
    applied: int = 0
    settlements: int = 0
    begun: int = 0

    def apply(
        self, bucket: str, *, original: int = 0, stored: int = 0, objects: int = 0, skipped: int = 0
    ) -> int:
        assert bucket == BUCKET
        self.original += original
        self.stored += stored
        self.objects += objects
        self.skipped += skipped
        self.applied += 1
        return self.applied

    def holding(self, bucket: str) -> int:
        return 0

    def begin(self) -> None:
        self.begun += 1

    async def settled(self, run: int) -> None:
        self.settlements += 1

    @property
    def totals(self) -> tuple[int, int, int]:
        return self.original, self.stored, self.objects


def really_held(store: MemoryBackend, bucket: str = BUCKET) -> tuple[int, int, int]:
    """Original bytes, stored bytes and number of the objects that carry the mark."""
    return held_of(list(store.buckets[bucket].items()))


def held_of(entries: list[tuple[str, StoredObject]]) -> tuple[int, int, int]:
    original = stored = objects = 0
    for key, each in entries:
        metadata = metadata_of(each)
        if metadata.get("s4-ledger") != "1":
            continue
        stored += len(each.data)
        if not key.endswith(keys.SIDECAR_SUFFIX):
            original += original_size(each)
            objects += 1
    return original, stored, objects


def original_size(stored: StoredObject) -> int:
    """What its own metadata or its tail says."""
    metadata = metadata_of(stored)
    token = metadata.get(manifest.TAIL)
    if token is not None:
        return Tail.decode(stored.data, token).original_size
    return int(metadata[manifest.ORIGINAL_SIZE])


def metadata_of(stored: StoredObject) -> dict[str, str]:
    return {name.removeprefix("x-amz-meta-"): value for name, value in stored.headers}


@dataclass(eq=False)
class Hesitant(CountingBackend):
    """Lets others go first before each request, and sometimes between request and answer."""

    dice: random.Random = field(default_factory=lambda: random.Random(7))

    async def before(self, call: Call) -> None:
        await super().before(call)
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)

    async def delete(
        self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
    ) -> base.Head:
        """As SeaweedFS: what is not there has no ETag, so a condition on it does not hold."""
        await self.before(Call("delete", bucket, key, query))
        if headers:
            await self.inner.head(bucket, key)
        return await self.inner.delete(bucket, key, query=query, headers=headers)


@dataclass(eq=False)
class Losing(CountingBackend):
    """Carries out the next writes of `lost` names, and loses the answers."""

    lost: list[ObjectName] = field(default_factory=list)

    def _answered(self, name: ObjectName) -> None:
        if name in self.lost:
            self.lost.remove(name)
            raise base.BackendUnavailable("the answer was lost")

    async def put(
        self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
    ) -> base.Head:
        head = await super().put(bucket, key, body, headers)
        self._answered((bucket, key))
        return head

    async def delete(
        self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
    ) -> base.Head:
        head = await super().delete(bucket, key, query=query, headers=headers)
        self._answered((bucket, key))
        return head
