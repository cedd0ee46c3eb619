"""The sidecar: where the frames of an object stand, so that a range reads only what it needs.

    S4IX  magic, version u32, n u64, total_original u64, total_padded u64
    v2+   source_compressed_size u64 (0 = absent), etag_len u32, ETag without quotes
    v3    what the encryption envelope looks like, 30 bytes
    then  n entries of four u64: original offset and size, stored offset and size

All little-endian. Version 1 is only read, 2 is written, 3 only with an encryption binding. A
sidecar is an object of its own and outlives what it describes, so an index is trusted only when the
ETag or size it is bound to is that of the live object. Entries stay packed: there may be millions.
"""

import bisect
import itertools
import operator
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from s4gateway.values import immutable
from s4gateway.wire import errors

MAGIC: Final = b"S4IX"
CONTENT_TYPE: Final = "application/x-s4-index"

MAX_FRAMES: Final = 16_777_216
MAX_ETAG_BYTES: Final = 4096
# What a gateway reads of a sidecar before it goes on as if there were none.
MAX_SIDECAR_BYTES: Final = 64 * 1024**2

_U64_MAX: Final = 2**64 - 1
_HEAD: Final = struct.Struct("<4sIQQQ")
_BINDING: Final = struct.Struct("<QI")
_SSE: Final = struct.Struct("<IIH8sQI")
_ENTRY_SIZE: Final = 32

# The four fields of all entries, each packed as 64-bit integers.
Columns = tuple["array[int]", "array[int]", "array[int]", "array[int]"]


@immutable
class FrameEntry:
    """Where one data frame stands.

    Offsets and sizes in bytes; `compressed_offset` is that of the frame header within the frame
    body, and `compressed_size` counts the header too. Padding frames have no entry.
    """

    original_offset: int
    original_size: int
    compressed_offset: int
    compressed_size: int


@dataclass(frozen=True, slots=True)
class SseBinding:
    """The shape of the chunked envelope around a frame body, without its keys.

    `chunk_size` counts plaintext bytes, `plaintext_len` is the length of the frame body and
    `header_bytes` what stands before the first chunk. SidecarError (out-of-range) when a value does
    not fit its field or says "no binding".
    """

    chunk_size: int
    chunk_count: int
    key_id: int
    salt: bytes
    plaintext_len: int
    header_bytes: int

    def __post_init__(self) -> None:
        if not (self.chunk_size and self.chunk_count and len(self.salt) == 8):
            raise errors.SidecarError("out-of-range", f"{self} binds nothing")
        try:
            self.pack()
        except struct.error as error:
            raise errors.SidecarError("out-of-range", f"{self} does not fit") from error

    def pack(self) -> bytes:
        """Return the 30 bytes as stored."""
        return _SSE.pack(
            self.chunk_size,
            self.chunk_count,
            self.key_id,
            self.salt,
            self.plaintext_len,
            self.header_bytes,
        )


class FrameIndex:
    """The frames of one object in stored order, and the object they belong to.

    Immutable. `source_size` and `etag` name the stored object this index is bound to, None when
    absent; the ETag is kept as it was written. `total_padded` is the length of the frame body,
    padding included and encryption not.

    >>> index = FrameIndex.from_entries([FrameEntry(0, 100, 0, 50), FrameEntry(100, 80, 60, 40)])
    >>> index.total_original, index.find(100), index[1].compressed_offset
    (180, 1, 60)
    >>> bound = index.bind('"0123456789abcdef0123456789abcdef"', 100)
    >>> FrameIndex.decode(bound.encode()).is_bound_to("0123456789abcdef0123456789abcdef", 100)
    True
    """

    __slots__ = ("_columns", "_contiguous", "etag", "source_size", "sse", "total_padded")

    etag: str | None
    source_size: int | None
    sse: SseBinding | None
    total_padded: int

    def __init__(
        self,
        columns: Columns,
        *,
        total_padded: int,
        etag: str | None = None,
        source_size: int | None = None,
        sse: SseBinding | None = None,
    ) -> None:
        self._columns = columns
        _check_order(columns)
        self._contiguous = _covers(columns[0], columns[1])
        self.total_padded = total_padded
        self.etag = etag
        self.source_size = source_size
        self.sse = sse

    @classmethod
    def from_entries(
        cls,
        entries: Iterable[FrameEntry],
        *,
        total_padded: int | None = None,
        sse: SseBinding | None = None,
    ) -> Self:
        """Build an unbound index from frames in stored order.

        `total_padded` is the length of the frame body, by default the end of the last frame.
        SidecarError: entry-overflow, non-monotonic, too-many-frames, out-of-range.
        """
        columns: Columns = (array("Q"), array("Q"), array("Q"), array("Q"))
        for entry in entries:
            try:
                columns[0].append(entry.original_offset)
                columns[1].append(entry.original_size)
                columns[2].append(entry.compressed_offset)
                columns[3].append(entry.compressed_size)
            except OverflowError as error:
                raise errors.SidecarError("out-of-range", f"{entry} does not fit") from error
        if len(columns[0]) > MAX_FRAMES:
            raise errors.SidecarError("too-many-frames", f"{len(columns[0])} > {MAX_FRAMES}")
        if total_padded is None:
            total_padded = columns[2][-1] + columns[3][-1] if columns[2] else 0
        else:
            _check_u64(total_padded)
        return cls(columns, total_padded=total_padded, sse=sse)

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, position: int) -> FrameEntry:
        a, b, c, d = self._columns
        return FrameEntry(a[position], b[position], c[position], d[position])

    def __iter__(self) -> Iterator[FrameEntry]:
        return map(FrameEntry, *self._columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrameIndex):
            return NotImplemented
        return self._state() == other._state()

    def __hash__(self) -> int:
        return hash((self.etag, self.source_size, self.total_padded, len(self)))

    def __repr__(self) -> str:
        return (
            f"FrameIndex({len(self)} frames, total_original={self.total_original}, "
            f"total_padded={self.total_padded}, etag={self.etag!r}, "
            f"source_size={self.source_size}, sse={self.sse})"
        )

    @property
    def total_original(self) -> int:
        """Length of the original object: the end of the last entry."""
        offsets, sizes = self._columns[0], self._columns[1]
        return offsets[-1] + sizes[-1] if offsets else 0

    @property
    def is_contiguous(self) -> bool:
        """Whether the entries cover the original object from byte 0 without a hole."""
        return self._contiguous

    def find(self, original_offset: int) -> int:
        """Return the position of the entry that holds this original byte, -1 when none does."""
        offsets, sizes = self._columns[0], self._columns[1]
        # Only the last entry that starts at or before the byte can hold it: entries ascend, and of
        # those with the same start all but the last are empty.
        position = bisect.bisect_right(offsets, original_offset) - 1
        if position < 0 or original_offset - offsets[position] >= sizes[position]:
            return -1
        return position

    def bind(self, etag: str | None, size: int | None) -> "FrameIndex":
        """Return this index bound to the stored object of that ETag and length in bytes.

        Quotes and a weak mark around the ETag are dropped. SidecarError: etag-too-long,
        out-of-range.
        """
        etag = _opaque(etag) if etag else None
        if etag is not None and len(_utf8(etag)) > MAX_ETAG_BYTES:
            raise errors.SidecarError("etag-too-long", f"{len(etag)} characters")
        if size is not None:
            _check_u64(size)
        bound = object.__new__(FrameIndex)  # the shared entries have been checked
        bound._columns = self._columns
        bound._contiguous = self._contiguous
        bound.total_padded = self.total_padded
        bound.sse = self.sse
        bound.etag = etag or None
        bound.source_size = size or None
        return bound

    def is_bound_to(self, etag: str | None, size: int | None) -> bool:
        """Whether this index describes the live object of that ETag and stored length.

        An ETag must be equal when the index has one, and so must the sizes when both are known. An
        index with only a size is accepted for an object of that size; an unbound one never is.
        """
        sizes_known = self.source_size is not None and size is not None
        if sizes_known and self.source_size != size:
            return False
        if self.etag is None:
            return sizes_known
        return etag is not None and _opaque(self.etag) == _opaque(etag)

    def describes(self, etag: str | None, size: int) -> bool:
        """Whether ranges of the live object of that ETag and stored length may be read by this.

        Bound to it, without an encryption binding, with frames that lie inside it and cover the
        original without a hole.
        """
        if not len(self) or self.sse is not None or not self.is_bound_to(etag, size):
            return False
        last = self[len(self) - 1]
        return (
            self.is_contiguous
            and last.compressed_offset + last.compressed_size <= size
            and self.total_padded <= size
        )

    def encode(self) -> bytes:
        """Return the sidecar's bytes: version 3 with an encryption binding, else version 2."""
        etag = _utf8(self.etag or "")
        packed = array("Q", bytes(_ENTRY_SIZE * len(self)))
        for number, column in enumerate(self._columns):
            packed[number::4] = column
        return b"".join(
            (
                _HEAD.pack(
                    MAGIC,
                    2 if self.sse is None else 3,
                    len(self),
                    self.total_original,
                    self.total_padded,
                ),
                _BINDING.pack(self.source_size or 0, len(etag)),
                etag,
                b"" if self.sse is None else self.sse.pack(),
                _little_endian(packed).tobytes(),
            )
        )

    @classmethod
    def decode(
        cls, data: bytes | bytearray | memoryview, max_frames: int = MAX_FRAMES
    ) -> "FrameIndex":
        """Read a sidecar; SidecarError for everything that is not one.

        Codes in the order they are checked: too-short, bad-magic, too-many-frames,
        unsupported-version, etag-too-long, entry-count-mismatch, entry-overflow, non-monotonic.
        """
        view = memoryview(data).cast("B")
        _need(view, 0, _HEAD.size)
        magic, version, count, _, total_padded = _HEAD.unpack_from(view)
        if magic != MAGIC:
            raise errors.SidecarError("bad-magic", f"expected S4IX, found {magic!r}")
        if count > max_frames:
            raise errors.SidecarError("too-many-frames", f"{count} > {max_frames}")
        if version not in {1, 2, 3}:
            raise errors.SidecarError("unsupported-version", f"{version}")
        position = _HEAD.size
        etag, source_size, sse = None, None, None
        if version >= 2:
            etag, source_size, position = _decode_binding(view, position)
        if version == 3:
            sse, position = _decode_sse(view, position)
        if len(view) - position != _ENTRY_SIZE * count:
            raise errors.SidecarError(
                "entry-count-mismatch", f"{count} entries in {len(view) - position} bytes"
            )
        return cls(
            _unpack_entries(view[position:]),
            total_padded=total_padded,
            etag=etag,
            source_size=source_size,
            sse=sse,
        )

    def _state(self) -> tuple[object, ...]:
        return (self._columns, self.total_padded, self.etag, self.source_size, self.sse)


def _decode_binding(view: memoryview, position: int) -> tuple[str | None, int | None, int]:
    _need(view, position, _BINDING.size)
    source_size, etag_len = _BINDING.unpack_from(view, position)
    if etag_len > MAX_ETAG_BYTES:
        raise errors.SidecarError("etag-too-long", f"{etag_len} bytes")
    start = position + _BINDING.size
    _need(view, start, etag_len)
    end = start + etag_len
    try:
        etag = str(view[start:end], "utf-8") or None
    except UnicodeDecodeError:
        etag = None  # an ETag nobody could have sent binds nothing
    return etag, source_size or None, end


def _decode_sse(view: memoryview, position: int) -> tuple[SseBinding | None, int]:
    _need(view, position, _SSE.size)
    chunk_size, chunk_count, *rest = _SSE.unpack_from(view, position)
    sse = SseBinding(chunk_size, chunk_count, *rest) if chunk_size and chunk_count else None
    return sse, position + _SSE.size


def _unpack_entries(view: memoryview) -> Columns:
    packed = array("Q")
    packed.frombytes(view)
    packed = _little_endian(packed)
    return (packed[0::4], packed[1::4], packed[2::4], packed[3::4])


def _check_order(columns: Columns) -> None:
    """Check that entries ascend without wrapping, on whole columns: a million takes no second."""
    original, compressed = columns[:2], columns[2:]
    if _ascends(*original) and _ascends(*compressed):
        return
    ends = itertools.chain(map(operator.add, *original), map(operator.add, *compressed))
    if max(ends) > _U64_MAX:
        raise errors.SidecarError("entry-overflow", "an entry ends beyond 64 bits")
    raise errors.SidecarError("non-monotonic", "an entry starts before its predecessor ends")


def _ascends(offsets: "array[int]", sizes: "array[int]") -> bool:
    # Where every entry ends before the next starts, only the last can end beyond 64 bits.
    if offsets and offsets[-1] + sizes[-1] > _U64_MAX:
        return False
    ends = map(operator.add, offsets, sizes)
    return all(map(operator.le, ends, itertools.islice(offsets, 1, None)))


def _covers(offsets: "array[int]", sizes: "array[int]") -> bool:
    ends = map(operator.add, offsets, sizes)
    return all(map(operator.eq, offsets, itertools.chain((0,), ends)))


def _little_endian(packed: "array[int]") -> "array[int]":
    """Return entries in the byte order of the file, or of this machine: the swap is the same."""
    if sys.byteorder == "big":
        packed.byteswap()
    return packed


def _utf8(etag: str) -> bytes:
    # A lone surrogate becomes bytes that no reader takes for an ETag; encoding never fails.
    return etag.encode("utf-8", "surrogatepass")


def _opaque(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


def _need(view: memoryview, position: int, length: int) -> None:
    if len(view) - position < length:
        raise errors.SidecarError(
            "too-short", f"{len(view) - position} of {length} bytes are there"
        )


def _check_u64(value: int) -> None:
    if not 0 <= value <= _U64_MAX:
        raise errors.SidecarError("out-of-range", f"{value} is no 64-bit length")
