"""From a byte range of the original object to the stored bytes that answer it.

A plan names one contiguous stretch of the stored object, whole frames from the one with the first
byte asked for to the one with the last. It exists only when the index can be believed for it: no
plan means that the index cannot help, never that the range is wrong. All ranges are half-open.
"""

from dataclasses import dataclass
from typing import Final

from s4gateway.values import immutable
from s4gateway.wire import index as frame_index

_TAG_SIZE: Final = 16


@immutable
class RangePlan:
    """Fetch `[fetch_start, fetch_end)` of the frame body, decode it, drop `skip`, keep `take`.

    `first_frame` and `last_frame` are positions in the index, both included; sizes in bytes.
    """

    fetch_start: int
    fetch_end: int
    skip: int
    take: int
    first_frame: int
    last_frame: int


@dataclass(frozen=True, slots=True)
class EncryptedPlan:
    """Fetch `[fetch_start, fetch_end)` of an envelope, decrypt it, drop `skip`, keep `take`.

    What is kept is the stretch of the frame body a `RangePlan` names. `first_chunk` and
    `last_chunk` are both included; sizes in bytes.
    """

    fetch_start: int
    fetch_end: int
    skip: int
    take: int
    first_chunk: int
    last_chunk: int


def plan(index: frame_index.FrameIndex, start: int, end: int) -> RangePlan | None:
    """Plan original bytes `[start, end)`; an `end` beyond the object is cut to it.

    None when nothing of the range lies in the index, when the entries leave holes in the original,
    or when they reach beyond the body they describe.

    >>> entry = frame_index.FrameEntry
    >>> index = frame_index.FrameIndex.from_entries([entry(0, 100, 0, 50), entry(100, 80, 60, 40)])
    >>> plan(index, 90, 110)
    RangePlan(fetch_start=0, fetch_end=100, skip=90, take=20, first_frame=0, last_frame=1)
    """
    end = min(end, index.total_original)
    if not 0 <= start < end or not index.is_contiguous:
        return None
    first_frame, last_frame = index.find(start), index.find(end - 1)
    first, last = index[first_frame], index[last_frame]
    fetch_end = last.compressed_offset + last.compressed_size
    if fetch_end > index.total_padded:
        return None
    return RangePlan(
        fetch_start=first.compressed_offset,
        fetch_end=fetch_end,
        skip=start - first.original_offset,
        take=end - start,
        first_frame=first_frame,
        last_frame=last_frame,
    )


def plan_encrypted(sse: frame_index.SseBinding, start: int, end: int) -> EncryptedPlan | None:
    """Plan bytes `[start, end)` of the frame body inside a chunked envelope.

    Every chunk is stored as a 16-byte tag and its ciphertext behind `sse.header_bytes`. None when
    the range does not lie in the body, or the binding contradicts itself.
    """
    size, count, total = sse.chunk_size, sse.chunk_count, sse.plaintext_len
    if not 0 <= start < end <= total <= size * count:
        return None
    first, last = start // size, (end - 1) // size
    last_size = size if last < count - 1 else total - last * size
    return EncryptedPlan(
        fetch_start=sse.header_bytes + first * (size + _TAG_SIZE),
        fetch_end=sse.header_bytes + last * (size + _TAG_SIZE) + _TAG_SIZE + last_size,
        skip=start - first * size,
        take=end - start,
        first_chunk=first,
        last_chunk=last,
    )
