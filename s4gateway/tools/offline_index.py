"""A sidecar for a stored body at hand, made from its frame headers.

It serves where a copy of an object has been made by other means and its index is to stand beside
it: the same bytes that `repair-sidecar` would write, without a store.
"""

from dataclasses import dataclass

from s4gateway.objects import frame_headers
from s4gateway.tools.offline_input import OfflineError, StoredInput
from s4gateway.wire import frame
from s4gateway.wire.errors import WireError


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What the sidecar describes; sizes in bytes."""

    frames: int
    original_size: int
    stored_size: int
    etag: str | None
    sidecar_bytes: int
    notes: tuple[str, ...] = ()


async def build_sidecar(stored: StoredInput, etag: str | None) -> tuple[bytes, IndexReport]:
    """Return the sidecar of a stored body, bound to its size and the ETag it has in a store.

    Raises OfflineError.
    """
    begin = stored.peek(frame.MAGIC_SIZE)
    if begin not in {frame.MAGIC, frame.PADDING_MAGIC}:
        raise OfflineError(f"no frame begins here: {begin!r}; only bodies of frames have an index")
    try:
        index = await frame_headers.build_index(stored.read, stored.size)
        if not len(index):
            raise OfflineError("the body has no frames")
        size = index.total_padded
        bound = index.bind(etag, size)
    except WireError as error:
        raise OfflineError(str(error)) from error
    data = bound.encode()
    notes = []
    if bound.etag is None:
        notes.append("bound to the size alone: --etag names the one version it is for")
    if len(index) == 1:
        notes.append("an object of one frame needs no sidecar")
    report = IndexReport(
        len(index), index.total_original, size, bound.etag, len(data), tuple(notes)
    )
    return data, report
