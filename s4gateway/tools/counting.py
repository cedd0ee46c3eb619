"""Adding up what a bucket holds by the ledger's own definition, one key at a time.

Rule: an object counts if it carries the ledger's mark, with the size a client sees and the size it
is stored with. A sidecar counts if it carries the mark, or stands beside an object that counts in a
bucket without versions. Billed bytes are those of each object's storage class.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer
from s4gateway.objects import footprint
from s4gateway.objects.attributes import describe, is_measured
from s4gateway.objects.cache import TailCache
from s4gateway.objects.footprint import Footprint, Found
from s4gateway.objects.sidecar import Sidecars
from s4gateway.s3 import query
from s4gateway.tools import walk
from s4gateway.tools.failure import Bounded, Failure
from s4gateway.tools.figures import Measured
from s4gateway.tools.storage_classes import CLASSES, Limits, StorageClass
from s4gateway.tools.stored_keys import Internal, Stored, StoredKey
from s4gateway.wire import keys

_VERSIONS: Final = 8  # of one key, looked at at once
_GONE: Final = frozenset({404, 405})  # 405: it is a delete marker now
_KEY_NEEDED: Final = 400  # HEAD of an object under a customer's key


@dataclass(slots=True)
class Share:
    """What lies in one storage class: objects and sidecars, bytes as stored and as billed."""

    objects: int = 0
    stored: int = 0
    billed: int = 0


@dataclass(slots=True)
class Count:
    """Sums so far, in objects and bytes; `stored` is without sidecars."""

    objects: int = 0
    original: int = 0
    stored: int = 0
    sidecars: int = 0
    sidecar_bytes: int = 0
    billed_original: int = 0
    unaccounted: int = 0
    unaccounted_bytes: int = 0
    unaccounted_sidecars: int = 0
    unaccounted_sidecar_bytes: int = 0
    internal: int = 0
    internal_bytes: int = 0
    gone: int = 0
    failures: Bounded[Failure] = field(default_factory=Bounded)
    classes: dict[str, Share] = field(default_factory=dict)

    @property
    def measured(self) -> Measured:
        """The figures; what is billed is known exactly."""
        return Measured(
            self.objects,
            self.original,
            self.stored + self.sidecar_bytes,
            Limits.exactly(self.billed_original),
            Limits.exactly(sum(share.billed for share in self.classes.values())),
        )


@dataclass(frozen=True, slots=True)
class _Looked:
    """A version of an object, and what was found there."""

    stored: Stored
    found: Found

    @property
    def accounted(self) -> bool:
        return self.found.footprint.accounted


class BucketCounter:
    """Counts the keys it is given into `count`; may be given several at once."""

    def __init__(
        self,
        backend: Backend,
        bucket: str,
        storage_class: StorageClass | None,
        sidecars: Sidecars,
    ) -> None:
        self.count = Count()
        self._backend = backend
        self._bucket = bucket
        self._class = storage_class
        self._sidecars = sidecars
        self._tails = TailCache()

    def add_internal(self, entry: Internal) -> None:
        """Count what the gateway keeps for itself, which is in no ledger."""
        self.count.internal += len(entry.versions)
        self.count.internal_bytes += sum(each.size for each in entry.versions)

    async def add(self, entry: StoredKey) -> None:
        """Look at a key and count it; raises BackendError when the store is not to be had."""
        looked = await self._look_at(entry.key, entry.objects)
        for each in looked:
            self._add_object(each)
        if entry.sidecars:
            await self._add_sidecars(entry, looked)

    async def _look_at(self, key: str, versions: Sequence[Stored]) -> list[_Looked]:
        """Look at versions of a key, some at once; those that are gone are left out."""
        looked: list[_Looked] = []

        async def one(version: Stored) -> None:
            if (found := await self._look(key, version)) is not None:
                looked.append(found)

        if len(versions) == 1:
            await one(versions[0])
        else:
            await walk.each(_these(versions), one, _VERSIONS)
        return looked

    async def _look(self, key: str, stored: Stored) -> _Looked | None:
        """Look at one version; None when there is nothing to be counted any more."""
        asked = _version_query(stored.version_id)
        try:
            head = await self._backend.head(self._bucket, key, query=asked)
            attributes = describe(head)
            if is_measured(attributes) or not footprint.is_accounted(head.metadata):
                return _Looked(stored, Found.of(attributes))
            name = (self._bucket, key)
            found = await footprint.look(self._backend, name, asked, self._sidecars, self._tails)
        except BackendAnswer as error:
            if error.status == _KEY_NEEDED:  # and without it, nothing is known of a mark
                return _Looked(stored, Found("", Footprint(0, stored.size)))
            if error.status not in _GONE:
                self._failed(key, error)
                return None
            found = None
        if found is None:
            self.count.gone += 1
            return None
        return _Looked(stored, found)

    def _add_object(self, looked: _Looked) -> None:
        count, measured = self.count, looked.found.footprint
        if not looked.accounted:
            count.unaccounted += 1
            count.unaccounted_bytes += looked.stored.size
            return
        count.objects += 1
        count.original += measured.original
        count.stored += measured.stored
        storage = self._billing(looked.stored)
        count.billed_original += storage.billed(measured.original)
        self._bill(storage, measured.stored)

    async def _add_sidecars(self, entry: StoredKey, looked: Sequence[_Looked]) -> None:
        versioned = entry.sidecars[0].version_id is not None
        if not versioned and _own(looked):
            self._add_sidecar(entry.sidecars[0], counts=True)
            return
        for each in await self._look_at(keys.sidecar_key(entry.key), entry.sidecars):
            counts = each.accounted
            if not (counts or versioned or entry.objects):  # other keys stood between
                gone = self.count.gone
                counts = _own(await self._look_at(entry.key, [Stored(None, 0, "")]))
                self.count.gone = gone  # which the object itself is counted in, if it was listed
            self._add_sidecar(each.stored, counts=counts)

    def _add_sidecar(self, stored: Stored, *, counts: bool) -> None:
        if counts:
            self.count.sidecars += 1
            self.count.sidecar_bytes += stored.size
            self._bill(self._billing(stored), stored.size)
        else:
            self.count.unaccounted_sidecars += 1
            self.count.unaccounted_sidecar_bytes += stored.size

    def _billing(self, stored: Stored) -> StorageClass:
        if self._class is not None:
            return self._class
        return CLASSES.get(stored.storage_class) or StorageClass(stored.storage_class)

    def _bill(self, storage: StorageClass, size: int) -> None:
        share = self.count.classes.setdefault(storage.name, Share())
        share.objects += 1
        share.stored += size
        share.billed += storage.billed(size)

    def _failed(self, key: str, error: BackendAnswer) -> None:
        self.count.failures.add(Failure(key, "HeadObject", str(error)))


def _own(looked: Sequence[_Looked]) -> bool:
    """Whether a sidecar counts for the object it stands beside."""
    return any(each.accounted and each.found.may_be_indexed for each in looked)


async def _these(versions: Sequence[Stored]) -> AsyncIterator[Stored]:
    for each in versions:
        yield each


def _version_query(version_id: str | None) -> str:
    return "" if version_id is None else query.format_query([("versionId", version_id)])
