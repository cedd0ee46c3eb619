"""What one stored object counts for in the ledger: the definition that every count shares.

Rule: what counts is what carries the mark `s4-ledger: 1`, which is stored with the object by the
write that was counted and which no client can set. `original` is what a client sees as its size,
`stored` what the store holds for it, `sidecar` what its index beside it takes. Writes are counted
with the numbers a later look will find, so that whatever is added can be taken away again.

The sidecar of a counted object carries the mark itself, so that each of its versions can be told
from those of objects that were never counted; where there are no versions it counts as its object
does. What cannot be looked at (an object under a customer's own key, without that key) is not
counted.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer, Head
from s4gateway.objects.attributes import Attributes, describe, is_measured, measured
from s4gateway.objects.cache import KnownObject, ObjectName, TailCache
from s4gateway.objects.opening import Source
from s4gateway.objects.sidecar import Sidecars
from s4gateway.s3.headers import USER_METADATA_PREFIX
from s4gateway.values import immutable
from s4gateway.wire import keys, manifest
from s4gateway.wire.manifest import Manifest

NULL_VERSIONS: Final = frozenset({None, "null"})  # ids of what the next write replaces
MARK: Final = (USER_METADATA_PREFIX + manifest.LEDGER, "1")

_ATTEMPTS: Final = 3  # versions to look at while a key is overwritten busily
_CHANGED: Final = 412
_NOTHING: Final = frozenset({404, 405})  # 405: the version is a delete marker
_KEY_NEEDED: Final = 400  # HEAD of an object under a customer's key


@immutable
class Footprint:
    """Bytes of one object: as clients see it, as it is stored, and of its sidecar.

    Only one that is `accounted` has been added to the ledger, and may be subtracted from it.

    >>> Footprint(1000, 300, 40, accounted=True).total
    340
    """

    original: int
    stored: int
    sidecar: int = 0
    accounted: bool = False

    @property
    def total(self) -> int:
        """Stored bytes, the sidecar's among them."""
        return self.stored + self.sidecar


@immutable
class Found:
    """An object that was looked at; `etag` is the backend's, empty where it does not tell it.

    `version_id` is None where the bucket keeps no versions. `may_be_indexed`: a sidecar may stand
    beside it. `manifest` describes what was written in one piece.
    """

    etag: str
    footprint: Footprint
    version_id: str | None = None
    may_be_indexed: bool = False
    manifest: Manifest | None = None

    @classmethod
    def of(cls, attributes: Attributes) -> "Found":
        """What measured attributes amount to."""
        head = attributes.head
        return cls(
            head.etag,
            of_attributes(attributes),
            head.version_id,
            attributes.may_be_indexed,
            attributes.stored.manifest,
        )

    @classmethod
    def known(cls, known: KnownObject) -> "Found | None":
        """What a memory amounts to; None when it does not say all that counts."""
        if known.accounted is None:
            return None
        footprint = Footprint(known.logical_size, known.stored_size, accounted=known.accounted)
        return cls(known.etag, footprint, may_be_indexed=known.may_be_indexed)


_UNREADABLE: Final = Found("", Footprint(0, 0), may_be_indexed=True)


def is_accounted(metadata: Mapping[str, str]) -> bool:
    """Whether an object with this metadata is counted.

    >>> is_accounted({"s4-ledger": "1"}), is_accounted({"s4-ledger": "true"}), is_accounted({})
    (True, False, False)
    """
    return metadata.get(manifest.LEDGER) == MARK[1]


def of_attributes(attributes: Attributes, sidecar: int = 0) -> Footprint:
    """The footprint of an object whose size was measured, with a sidecar of so many bytes."""
    size = attributes.head.size
    original = size if attributes.size is None else attributes.size
    return Footprint(original, size, sidecar, is_accounted(attributes.head.metadata))


def of_head(head: Head, sidecar: int = 0) -> Footprint:
    """The footprint as far as a HEAD tells it: of all but objects assembled from parts.

    >>> from s4gateway.s3.headers import Headers
    >>> of_head(Head(200, Headers([("content-length", "7"), MARK])))
    Footprint(original=7, stored=7, sidecar=0, accounted=True)
    """
    return of_attributes(describe(head), sidecar)


async def look(
    backend: Backend, name: ObjectName, query: str, sidecars: Sidecars, tails: TailCache
) -> Found | None:
    """Look at an object, or at the version named by `query`; None when there is none.

    Costs a HEAD; of an object assembled from parts its tail is read, too, unless `tails` has it.
    The sidecar is not looked at. Raises BackendError.
    """
    source = Source(backend, name, query)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            head = await backend.head(*name, query=query)
            attributes = describe(head)
            if not is_measured(attributes):
                read = partial(source.read, head.etag)
                attributes = await measured(attributes, name, read, sidecars, tails)
            return Found.of(attributes)
        except BackendAnswer as error:
            if error.status in _NOTHING:
                return None
            if error.status == _KEY_NEEDED:
                return _UNREADABLE
            if error.status != _CHANGED or attempt == _ATTEMPTS:
                raise
    raise AssertionError


async def sidecar_head(backend: Backend, name: ObjectName, query: str = "") -> Head | None:
    """HEAD the sidecar of an object; None when there is none. Raises BackendError."""
    bucket, key = name
    return await head_of(backend, (bucket, keys.sidecar_key(key)), query)


async def head_of(backend: Backend, name: ObjectName, query: str = "") -> Head | None:
    """HEAD what is stored under a name; None when nothing is. Raises BackendError."""
    try:
        return await backend.head(*name, query=query)
    except BackendAnswer as error:
        if error.status in _NOTHING:
            return None
        raise
