"""What an object looks like to a reader: original size and ETag, the same as the gateway shows.

    metadata      of objects written in one piece
    tail          of multipart objects
    sidecar       of multipart objects of older writers
    frame headers one small read each, where nothing else tells

The first that tells counts. What was found is remembered for exactly that stored version.
"""

from dataclasses import dataclass
from typing import Final

from s4gateway.s4fs.errors import S4EncryptedObjectError
from s4gateway.s4fs.indexes import Indexes
from s4gateway.s4fs.lru import Lru
from s4gateway.s4fs.store import Head, Store
from s4gateway.wire import manifest
from s4gateway.wire import tail as wire_tail
from s4gateway.wire.errors import TailError
from s4gateway.wire.manifest import Form, Stored

_KNOWN: Final = 100_000  # versions whose size and ETag are remembered


@dataclass(frozen=True, slots=True)
class Attributes:
    """One stored version as its readers see it.

    `size` is that of the original in bytes, None when nothing tells it; `etag` has no quotes and is
    None where the store has none; `crc32c` is that of the whole original, where something tells it.
    """

    head: Head
    stored: Stored
    size: int | None
    etag: str | None
    crc32c: int | None = None

    @property
    def path(self) -> str:
        """Where the object is."""
        return self.head.path

    @property
    def shown_size(self) -> int:
        """The original size, or the stored one for want of it."""
        return self.head.size if self.size is None else self.size


def describe(head: Head) -> Attributes:
    """Tell from a head alone."""
    stored = manifest.classify(head.metadata)
    etag = stored.logical_etag
    if etag is None and head.etag is not None:
        etag = manifest.visible_etag(head.etag, stored)
    size = head.size if stored.form is Form.FOREIGN else stored.logical_size
    crc = None if stored.manifest is None else stored.manifest.crc32c
    return Attributes(head, stored, size, etag, crc)


@dataclass(frozen=True, slots=True)
class _Found:
    size: int
    etag: str | None
    crc32c: int | None


class Measure:
    """Completes attributes from the stored bytes; remembers what it found."""

    def __init__(self, store: Store, indexes: Indexes) -> None:
        self._store = store
        self._indexes = indexes
        self._found: Lru[tuple[str, str], _Found] = Lru(_KNOWN)

    def __call__(self, attributes: Attributes, *, hop: bool) -> Attributes:
        """Return `attributes` with its size, if anything tells it.

        `hop` allows to read the header of every frame, for want of anything better. What the store
        does not give, of an archived object for one, and what lies in a gateway's encryption
        envelope leave the size unknown.
        """
        head, stored = attributes.head, attributes.stored
        if stored.form not in {Form.FRAMED, Form.DICTIONARY}:
            return attributes
        if attributes.size is not None and stored.tail is None:
            return attributes
        found = self._found.get((head.path, head.version))
        if found is None:
            try:
                found = self._tail(attributes) or self._counted(attributes, hop=hop)
            except (PermissionError, S4EncryptedObjectError):
                return attributes
            if found is None:
                return attributes
            self._found.put((head.path, head.version), found)
        return Attributes(head, stored, found.size, found.etag, found.crc32c)

    def _tail(self, attributes: Attributes) -> _Found | None:
        token = attributes.stored.tail
        if token is None:
            return None
        try:
            tail = wire_tail.Tail.decode(self._tail_bytes(attributes.head), token)
        except TailError:
            return None
        return _Found(tail.original_size, tail.etag, tail.crc32c)

    def _tail_bytes(self, head: Head) -> bytes:
        start = max(head.size - wire_tail.PROBE, 0)
        suffix = self._store.read(head, start, head.size)
        needed = wire_tail.needed(suffix)
        if needed > head.size:
            code = "too-short"
            raise TailError(code, f"{needed} bytes in an object of {head.size}")
        if needed > len(suffix):
            suffix = self._store.read(head, head.size - needed, start) + suffix
        return suffix[len(suffix) - needed :]

    def _counted(self, attributes: Attributes, *, hop: bool) -> _Found | None:
        if attributes.size is not None:
            return _Found(attributes.size, attributes.etag, attributes.crc32c)
        index = self._indexes.load(attributes.head)
        if index is None and hop:
            index = self._indexes.hop(attributes.head).index
        if index is None:
            return None
        return _Found(index.total_original, attributes.etag, None)


__all__ = ["Attributes", "Measure", "describe"]
