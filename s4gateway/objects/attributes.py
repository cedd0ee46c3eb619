"""What an object looks like to a client, told from its metadata and, where that says so, its tail.

Rule: size and ETag are the same on every surface (PUT, HEAD, GET, listings), before and after a
restart and from any instance, because both are derived here and only from what is stored. A
compressed object of an older writer carries no logical ETag; its backend ETag is shown with `-1`
behind it, which every client reads as "not an MD5", so that none compares it with the content.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import accumulate
from typing import Final, TypeVar

from s4gateway.backend.base import BackendAnswer, Head
from s4gateway.codecs.encoder import MEDIUM_CHUNK
from s4gateway.objects.cache import KnownObject, ObjectName, TailCache
from s4gateway.objects.sidecar import Sidecars
from s4gateway.values import immutable
from s4gateway.wire import manifest
from s4gateway.wire import tail as wire_tail
from s4gateway.wire.errors import TailError, WireError
from s4gateway.wire.hops import FrameHops
from s4gateway.wire.index import FrameIndex
from s4gateway.wire.manifest import Form, Stored
from s4gateway.wire.tail import Tail

_Read = TypeVar("_Read")
_ONE_FRAME: Final = MEDIUM_CHUNK  # writers store objects up to this size as one frame
_VERBATIM: Final = (Form.FOREIGN, Form.PASSTHROUGH)
_ARCHIVED: Final = "InvalidObjectState"
_log: Final = logging.getLogger("s4.tail")


@immutable
class Attributes:
    """One stored version: the backend's answer, its classification, and the client's view.

    `size` is None only for a multipart object whose tail was not read, or that has none and whose
    frames were not counted.
    """

    head: Head
    stored: Stored
    size: int | None
    etag: str
    tail: Tail | None = None

    @property
    def codec(self) -> str:
        """Label for metrics and logs."""
        if self.stored.multipart:
            return "multipart"
        manifest_ = self.stored.manifest
        return manifest_.codec.label if manifest_ is not None else self.stored.form.value

    @property
    def is_verbatim(self) -> bool:
        """The stored bytes are the client's bytes."""
        return self.stored.form in _VERBATIM

    @property
    def may_be_indexed(self) -> bool:
        """A writer may have laid an index beside it, as beside nothing stored in one frame."""
        if self.is_verbatim:
            return False
        return self.stored.multipart or self.size is None or self.size > _ONE_FRAME

    @property
    def checksum(self) -> tuple[str, str, str] | None:
        """What the client declared for the whole object: algorithm, value, type."""
        if self.tail is not None:
            return self.tail.checksum
        if self.stored.manifest is None or self.stored.manifest.checksum is None:
            return None
        return (*self.stored.manifest.checksum, wire_tail.FULL_OBJECT)

    @property
    def part_count(self) -> int:
        """How many parts can be asked for."""
        return 1 if self.tail is None else len(self.tail.parts)

    def part_span(self, position: int) -> tuple[int, int]:
        """Original bytes [start, end) of the part at a position, counted from 1."""
        if self.tail is None:
            return 0, self.size or 0
        sizes = [size for _, size in self.tail.parts[:position]]
        *_, end = accumulate(sizes)
        return end - sizes[-1], end

    def part_checksum(self, position: int) -> tuple[str, str, str] | None:
        """Algorithm, value and type of a part's checksum.

        Only what is composed of them keeps those of its parts; of one part, it is the whole's.
        """
        if self.tail is None or self.tail.checksum is None:
            return None
        algorithm, value, kind = self.tail.checksum
        if kind == wire_tail.COMPOSITE and self.tail.part_checksums:
            return algorithm, self.tail.part_checksums[position - 1], kind
        if kind == wire_tail.FULL_OBJECT and len(self.tail.parts) == 1:
            return algorithm, value, kind
        return None

    def known(self) -> KnownObject | None:
        """What listings need, None when the size is unknown."""
        if self.size is None:
            return None
        head = self.head
        return KnownObject(
            head.etag,
            head.size,
            self.size,
            self.etag,
            indexed=None,
            accounted=self.stored.ledger,
            may_be_indexed=self.may_be_indexed,
        )


def describe(head: Head) -> Attributes:
    """Derive the client's view of an object from a backend answer to GET or HEAD."""
    stored = manifest.classify(head.metadata)
    etag = stored.logical_etag or manifest.visible_etag(head.etag, stored)
    size = head.size if stored.form is Form.FOREIGN else stored.logical_size
    return Attributes(head, stored, size, etag)


ReadStored = Callable[[int, int], Awaitable[bytes]]


def is_measured(attributes: Attributes) -> bool:
    """Whether everything is known that the stored bytes could still tell."""
    stored = attributes.stored
    if stored.form is not Form.FRAMED:
        return True
    if stored.tail is not None:
        return attributes.tail is not None
    return attributes.size is not None


async def with_tail(
    attributes: Attributes, name: ObjectName, read: ReadStored, tails: TailCache
) -> Attributes:
    """Return `attributes` as the object's tail completes them; unchanged when it cannot be trusted.

    `read(start, end)` returns stored bytes of this version, and is called once for almost every
    object this process does not know, twice for one of many unlike parts. Raises BackendError.
    """
    head, token = attributes.head, attributes.stored.tail
    if token is None or attributes.stored.form is not Form.FRAMED:
        return attributes
    encoded = tails.lookup(name, head.etag)
    if encoded == b"":
        return attributes
    try:
        if encoded is None:
            encoded = await _read_tail(read, head.size)
        tail = Tail.decode(encoded, token)
    except TailError as error:
        fields = {"bucket": name[0], "key": name[1], "error": str(error)}
        _log.warning("tail refused", extra={"fields": fields})
        tails.remember(name, head.etag, b"")
        return attributes
    tails.remember(name, head.etag, encoded)
    return replace(attributes, size=tail.original_size, etag=tail.etag, tail=tail)


async def _read_tail(read: ReadStored, stored_size: int) -> bytes:
    start = max(stored_size - wire_tail.PROBE, 0)
    suffix = await read(start, stored_size) if stored_size else b""
    needed = wire_tail.needed(suffix)
    if needed > stored_size:
        raise TailError("too-short", f"{needed} bytes in an object of {stored_size}")
    if needed > len(suffix):
        suffix = await read(stored_size - needed, start) + suffix
    return suffix[-needed:]


async def measured(
    attributes: Attributes,
    name: ObjectName,
    read: ReadStored,
    sidecars: Sidecars,
    tails: TailCache,
) -> Attributes:
    """Return `attributes` with its size, counted from the frames when nothing else tells.

    The tail tells, if there is one. Where it is lost, only a sidecar bound to this version can
    stand in for it: frames alone look complete wherever a body was cut between two of them.
    Multipart objects of older writers do not say how large they are: the sidecar does, or else the
    frame headers, read one by one. `read(start, end)` returns stored bytes of this version; what
    was counted is kept as its index. An archived object, whose bytes cannot be read, keeps what is
    known without them. Raises BackendError.
    """
    head = attributes.head
    attributes = await _unarchived(with_tail(attributes, name, read, tails)) or attributes
    if attributes.size is not None or attributes.stored.form is not Form.FRAMED:
        return attributes
    index = await sidecars.load(name, head.etag, head.size)
    if index is None and attributes.stored.tail is None:
        index = await _unarchived(hop_frames(read, head.size))
        if index is not None:
            sidecars.adopt(name, head.etag, index)
    return replace(attributes, size=None if index is None else index.total_original)


async def _unarchived(reading: Awaitable[_Read]) -> _Read | None:
    """What reading stored bytes gives; None when the object is archived."""
    try:
        return await reading
    except BackendAnswer as error:
        if error.code != _ARCHIVED:
            raise
        return None


async def hop_frames(read: ReadStored, stored_size: int) -> FrameIndex | None:
    """Build an index from frame headers alone; None when the body is no sequence of frames.

    `read(start, end)` returns stored bytes. Costs one small read per frame.
    """
    walk = FrameHops(stored_size)
    while (span := walk.wanted) is not None:
        walk.feed(await read(*span))
    if not walk.is_complete:
        return None
    try:
        return walk.index()
    except WireError:
        return None
