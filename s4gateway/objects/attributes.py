"""What an object looks like to a client, told from its metadata alone.

Rule: size and ETag are the same on every surface (PUT, HEAD, GET, listings), before and after a
restart and from any instance, because both are derived here and only from what is stored. A
compressed object of an older writer carries no logical ETag; its backend ETag is shown with `-1`
behind it, which every client reads as "not an MD5", so that none compares it with the content.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from s4gateway.backend.base import Head
from s4gateway.objects.cache import KnownObject, ObjectName
from s4gateway.objects.sidecar import Sidecars
from s4gateway.wire import manifest
from s4gateway.wire.errors import WireError
from s4gateway.wire.frame import HEADER_SIZE, PADDING_HEADER_SIZE, PADDING_MAGIC, FrameHeader
from s4gateway.wire.frame import parse_padding as parse_padding_header
from s4gateway.wire.index import FrameEntry, FrameIndex
from s4gateway.wire.manifest import Form, Stored

MAX_HOPS = 20_000  # frames whose headers are read one by one to learn an object's size


@dataclass(frozen=True, slots=True)
class Attributes:
    """One stored version: the backend's answer, its classification, and the client's view.

    `size` is None only for a multipart object of an older writer whose frames were not counted.
    """

    head: Head
    stored: Stored
    size: int | None
    etag: str

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
        return self.stored.form in {Form.FOREIGN, Form.PASSTHROUGH}

    def known(self) -> KnownObject | None:
        """What listings need, None when the size is unknown."""
        if self.size is None:
            return None
        head = self.head
        return KnownObject(head.etag, head.size, self.size, self.etag, indexed=None)


def describe(head: Head) -> Attributes:
    """Derive the client's view of an object from a backend answer to GET or HEAD."""
    stored = manifest.classify(head.metadata)
    etag = stored.logical_etag or visible_etag(head.etag, stored)
    size = head.size if stored.form is Form.FOREIGN else stored.logical_size
    return Attributes(head, stored, size, etag)


def visible_etag(backend_etag: str, stored: Stored) -> str:
    """Return the ETag shown for an object that carries no logical one."""
    if stored.form in {Form.FOREIGN, Form.PASSTHROUGH} or "-" in backend_etag:
        return backend_etag
    return f"{backend_etag}-1"


ReadStored = Callable[[int, int], Awaitable[bytes]]


async def measured(
    attributes: Attributes, name: ObjectName, read: ReadStored, sidecars: Sidecars
) -> Attributes:
    """Return `attributes` with its size, counted from the frames when nothing else tells.

    Multipart objects of older writers do not say how large they are: the sidecar does, or else the
    frame headers, read one by one. `read(start, end)` returns stored bytes of this version; what
    was counted is kept as its index. Raises BackendError.
    """
    if attributes.size is not None or attributes.stored.form is not Form.FRAMED:
        return attributes
    head = attributes.head
    index = await sidecars.load(name, head.etag, head.size)
    if index is None:
        index = await hop_frames(read, head.size)
        if index is not None:
            sidecars.adopt(name, head.etag, index)
    size = None if index is None else index.total_original
    return Attributes(head, attributes.stored, size, attributes.etag)


async def hop_frames(read: ReadStored, stored_size: int) -> FrameIndex | None:
    """Build an index from frame headers alone; None when the body is no sequence of frames.

    `read(start, end)` returns stored bytes. Costs one small read per frame, MAX_HOPS at most.
    """
    entries: list[FrameEntry] = []
    offset = original = 0
    try:
        for _ in range(MAX_HOPS):
            if offset >= stored_size:
                break
            data = await read(offset, min(offset + HEADER_SIZE, stored_size))
            if data[:4] == PADDING_MAGIC:
                offset += PADDING_HEADER_SIZE + parse_padding_header(data)
                continue
            header = FrameHeader.parse(data)
            entries.append(FrameEntry(original, header.original_size, offset, header.stored_size))
            original += header.original_size
            offset += header.stored_size
        if offset != stored_size:
            return None
        return FrameIndex.from_entries(entries, total_padded=stored_size)
    except WireError:
        return None
