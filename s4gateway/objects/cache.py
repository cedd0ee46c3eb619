"""What this process already knows about stored objects, so that it need not ask again.

Three bounded memories. `AttributeCache` keeps logical size and ETag per key and serves listings,
where a page of 1,000 keys would otherwise cost 1,000 HEADs; beside it `TailCache` keeps the tails
of objects assembled from parts. `IndexCache` keeps decoded sidecars.
Rule: an entry is believed only together with the backend ETag and stored size it was learned with,
which a listing, HEAD or pinned read has just confirmed; a stale entry is useless, never wrong.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from s4gateway.s3.documents import ListedObject
from s4gateway.values import immutable
from s4gateway.wire.index import FrameIndex

ATTRIBUTE_ENTRIES: Final = 200_000
TAIL_BYTES: Final = 16 * 1024 * 1024
INDEX_BYTES: Final = 32 * 1024 * 1024
ABSENT_SECONDS: Final = 30.0
_UNKNOWN: Final = (None, -math.inf)
_ENTRY_OVERHEAD: Final = 512  # bytes of bookkeeping counted for each cached index

ObjectName = tuple[str, str]  # bucket, key


@immutable
class KnownObject:
    """What one backend version of an object looks like to clients.

    `indexed` says whether a sidecar was written for it, None when this process did not see that;
    `may_be_indexed`, whether it is of a kind that has one. `accounted` says whether the ledger
    counts it, None when that is not known.
    """

    etag: str
    stored_size: int
    logical_size: int
    logical_etag: str
    indexed: bool | None
    accounted: bool | None = None
    may_be_indexed: bool = True


class TailCache:
    """Tails as stored, by (bucket, key, backend ETag), bounded by the bytes they take.

    Kept encoded, for 10,000 parts of one size are a few bytes there and a megabyte as values. An
    empty one records that this version has none to be trusted.
    """

    __slots__ = ("_entries", "_limit", "_used")

    def __init__(self, limit: int = TAIL_BYTES) -> None:
        self._entries: OrderedDict[tuple[ObjectName, str], bytes] = OrderedDict()
        self._limit = limit
        self._used = 0

    def remember(self, name: ObjectName, etag: str, encoded: bytes) -> None:
        """Keep the tail of one version."""
        key = (name, etag)
        before = self._entries.pop(key, None)
        if before is not None:
            self._used -= len(before) + _ENTRY_OVERHEAD
        self._entries[key] = encoded
        self._used += len(encoded) + _ENTRY_OVERHEAD
        while self._used > self._limit and len(self._entries) > 1:
            _, oldest = self._entries.popitem(last=False)
            self._used -= len(oldest) + _ENTRY_OVERHEAD

    def lookup(self, name: ObjectName, etag: str) -> bytes | None:
        """Return the tail of exactly this backend version, None when it was not looked at."""
        encoded = self._entries.get((name, etag))
        if encoded is not None:
            self._entries.move_to_end((name, etag))
        return encoded


class AttributeCache:
    """The last known attributes of each key, least recently used forgotten first.

    `tails` are those of the same objects.

    >>> cache = AttributeCache(10)
    >>> cache.remember(("b", "k"), KnownObject("e1", 40, 100, "m", False))
    >>> cache.lookup(("b", "k"), "e1", 40).logical_size, cache.lookup(("b", "k"), "e2", 40)
    (100, None)
    """

    __slots__ = ("_entries", "_limit", "tails")

    def __init__(self, limit: int = ATTRIBUTE_ENTRIES) -> None:
        self.tails = TailCache()
        self._entries: OrderedDict[ObjectName, KnownObject] = OrderedDict()
        self._limit = limit

    def remember(self, name: ObjectName, known: KnownObject) -> None:
        """Replace what is known about `name`."""
        self._entries[name] = known
        self._entries.move_to_end(name)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def lookup(self, name: ObjectName, etag: str, stored_size: int) -> KnownObject | None:
        """Return what is known about exactly this backend version."""
        known = self._entries.get(name)
        if known is None or known.etag != etag or known.stored_size != stored_size:
            return None
        self._entries.move_to_end(name)
        return known

    def lookup_page(self, bucket: str, listed: Iterable[ListedObject]) -> list[KnownObject | None]:
        """Return the same for each entry of a listing, which a page has a thousand of."""
        entries, found = self._entries, []
        for each in listed:
            name = (bucket, each.key)
            known = entries.get(name)
            if known is not None:
                if known.etag == (each.etag or "") and known.stored_size == each.size:
                    entries.move_to_end(name)
                else:
                    known = None
            found.append(known)
        return found

    def last(self, name: ObjectName) -> KnownObject | None:
        """Return the last version seen, which another writer may have replaced."""
        return self._entries.get(name)

    def forget(self, name: ObjectName) -> None:
        """Drop what is known about `name`."""
        self._entries.pop(name, None)


class IndexCache:
    """Decoded sidecars by (bucket, key, backend ETag), bounded by the bytes they take.

    An entry of None records that this version has no usable sidecar. That is believed for
    ABSENT_SECONDS only: a sidecar is written after its object, and may be repaired.
    """

    __slots__ = ("_clock", "_entries", "_limit", "_used")

    def __init__(
        self, limit: int = INDEX_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries: OrderedDict[tuple[ObjectName, str], tuple[FrameIndex | None, float]] = (
            OrderedDict()
        )
        self._clock = clock
        self._limit = limit
        self._used = 0

    def remember(self, name: ObjectName, etag: str, index: FrameIndex | None) -> None:
        """Keep the index of one version."""
        self._drop((name, etag))
        until = math.inf if index is not None else self._clock() + ABSENT_SECONDS
        self._entries[name, etag] = index, until
        self._used += _weight(index)
        while self._used > self._limit and len(self._entries) > 1:
            self._drop(next(iter(self._entries)))

    def lookup(self, name: ObjectName, etag: str) -> tuple[bool, FrameIndex | None]:
        """Return (whether this version is known, its index or None)."""
        key = (name, etag)
        index, until = self._entries.get(key, _UNKNOWN)
        if index is None and until <= self._clock():
            self._drop(key)
            return False, None
        self._entries.move_to_end(key)
        return True, index

    def _drop(self, key: tuple[ObjectName, str]) -> None:
        if key in self._entries:
            self._used -= _weight(self._entries.pop(key)[0])


def _weight(index: FrameIndex | None) -> int:
    return _ENTRY_OVERHEAD + (32 * len(index) if index is not None else 0)
