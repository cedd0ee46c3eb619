"""Where the frames of an object stand: from its sidecar, or from the frame headers themselves.

Rule: a sidecar only makes reads cheaper. It is believed when it is bound to this very version and
its frames lie inside it; anything else counts as absent. An index kept here is that of one version.
"""

from dataclasses import dataclass
from typing import Final

from s4gateway.s4fs import paths
from s4gateway.s4fs.errors import S4EncryptedObjectError
from s4gateway.s4fs.lru import Lru
from s4gateway.s4fs.store import Head, Store
from s4gateway.wire import envelope
from s4gateway.wire.errors import SidecarError, WireError
from s4gateway.wire.hops import FrameHops
from s4gateway.wire.index import MAX_SIDECAR_BYTES, FrameIndex

_LIMIT: Final = 64 * 1024 * 1024  # bytes of indexes that are kept
_ENTRY: Final = 32
_OVERHEAD: Final = 1024


@dataclass(frozen=True, slots=True)
class Hopped:
    """What the frame headers told: the index, or the part of it before a fault."""

    index: FrameIndex | None
    before_fault: FrameIndex
    fault: WireError | None


def _weigh(index: FrameIndex) -> int:
    return len(index) * _ENTRY + _OVERHEAD


class Indexes:
    """Reads, checks and keeps indexes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: Lru[tuple[str, str], FrameIndex] = Lru(_LIMIT, _weigh)

    def known(self, head: Head) -> FrameIndex | None:
        """Return the index of this version if it is at hand."""
        return self._kept.get((head.path, head.version))

    def keep(self, head: Head, index: FrameIndex) -> None:
        """Keep an index of this version."""
        self._kept.put((head.path, head.version), index)

    def distrust(self, head: Head) -> None:
        """Forget the index of this version: its frames are other ones."""
        self._kept.drop((head.path, head.version))

    def load(self, head: Head) -> FrameIndex | None:
        """Return the index of this version, from its sidecar; None without one to be trusted.

        S4EncryptedObjectError when a sidecar bound to it says that frames lie in an envelope.
        """
        known = self.known(head)
        if known is not None:
            return known
        try:
            found, data = self._store.first(
                paths.sidecar_path(head.path), MAX_SIDECAR_BYTES, whole=True
            )
        except FileNotFoundError:
            return None
        if len(data) != found.size:
            return None
        try:
            index = FrameIndex.decode(data)
        except SidecarError:
            return None
        if index.sse is not None and index.is_bound_to(head.etag, head.size):
            raise S4EncryptedObjectError(head.path, "its sidecar says so")
        if not index.describes(head.etag, head.size):
            return None
        self.keep(head, index)
        return index

    def hop(self, head: Head) -> Hopped:
        """Read the frame headers one by one; costs a small request for each.

        S4EncryptedObjectError when there is an envelope instead of frames.
        """
        walk = FrameHops(head.size)
        while (span := walk.wanted) is not None:
            data = self._store.read(head, *span)
            if span[0] == 0 and (magic := envelope.recognise(data)) is not None:
                raise S4EncryptedObjectError(head.path, magic)
            walk.feed(data)
        index = walk.index()
        if not walk.is_complete:
            return Hopped(None, index, walk.fault)
        self.keep(head, index)
        return Hopped(index, index, None)
