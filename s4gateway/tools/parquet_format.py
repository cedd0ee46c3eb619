"""A Parquet file's footer: where everything of the file stands, and what is refused at a look.

    "PAR1" | column chunks, bloom filters, page indexes | footer | its length, 4 bytes | "PAR1"

Rule: only field numbers that a rewrite must read or change have a name here; all other fields are
kept as they are. A file is refused for a reason that has a name, or it contradicts itself.
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from s4gateway.tools.parquet_thrift import Shape, Struct, ThriftError, Truncated, parse

MAGIC: Final = b"PAR1"
ENCRYPTED_MAGIC: Final = b"PARE"
TRAILER: Final = 8  # the footer's length and the magic
LARGEST_FOOTER: Final = 64 * 1024 * 1024
_GLANCE: Final = 4 * 1024
_LARGEST_STRUCT: Final = 16 * 1024 * 1024  # a page's header may hold two values of its column

Read = Callable[[int, int], bytes]  # offset, count -> exactly so many bytes


class Codec(IntEnum):
    """How the pages of a column chunk are compressed."""

    UNCOMPRESSED = 0
    SNAPPY = 1
    GZIP = 2
    LZO = 3
    BROTLI = 4
    LZ4 = 5
    ZSTD = 6
    LZ4_RAW = 7


# LZO is nowhere to be had, and LZ4 has been written in two ways that nothing tells apart.
READABLE: Final = frozenset(set(Codec) - {Codec.LZO, Codec.LZ4})


class FileField(IntEnum):
    """Fields of FileMetaData."""

    ROW_GROUPS = 4
    ENCRYPTION = 8
    SIGNING_KEY = 9


class GroupField(IntEnum):
    """Fields of RowGroup; sizes in bytes, FULL_SIZE as of pages that are not compressed."""

    COLUMNS = 1
    FULL_SIZE = 2
    ROWS = 3
    OFFSET = 5
    SIZE = 6


class ChunkField(IntEnum):
    """Fields of ColumnChunk."""

    PATH = 1
    OFFSET = 2
    META = 3
    OFFSET_INDEX = 4
    OFFSET_INDEX_SIZE = 5
    COLUMN_INDEX = 6
    COLUMN_INDEX_SIZE = 7
    ENCRYPTION = 8
    ENCRYPTED_META = 9


class MetaField(IntEnum):
    """Fields of ColumnMetaData."""

    CODEC = 4
    VALUES = 5
    FULL_SIZE = 6
    SIZE = 7
    DATA = 9
    INDEX = 10
    DICTIONARY = 11
    BLOOM = 14
    BLOOM_SIZE = 15


_SHAPE: Final[Shape] = {FileField.ROW_GROUPS: {GroupField.COLUMNS: {ChunkField.META: {}}}}


class Refusal(StrEnum):
    """Why a file is left as it is."""

    NOT_PARQUET = "not-parquet"
    ENCRYPTED = "parquet-encrypted"
    ALREADY_ZSTD = "already-zstd"
    CODEC = "unsupported-codec"
    STRUCTURE = "unsupported-structure"
    ROW_GROUP = "row-group-too-large"
    PAGE = "page-too-large"
    UNREADABLE = "not-verifiable"


class Refused(Exception):
    """The file is left as it is."""

    def __init__(self, refusal: Refusal, why: str) -> None:
        super().__init__(f"{refusal}: {why}")
        self.refusal = refusal
        self.why = why


class Damaged(Exception):
    """The file contradicts itself, or ends too early."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The pages of one column in one row group; `where` names it in messages."""

    chunk: Struct
    meta: Struct
    where: str

    @property
    def start(self) -> int:
        """Offset of its first page. The dictionary's page, if there is one, comes first.

        Arrow writes 0 as the place of the data where there are no rows.
        """
        data = self.meta.required(MetaField.DATA)
        dictionary = self.meta.number(MetaField.DICTIONARY) or 0
        return dictionary if 0 < dictionary < data or not data else data

    @property
    def size(self) -> int:
        """Bytes of its pages, headers included, as stored."""
        return self.meta.required(MetaField.SIZE)

    @property
    def codec(self) -> int:
        """A Codec, or a number that is none of them."""
        return self.meta.required(MetaField.CODEC)

    @property
    def is_transcoded(self) -> bool:
        """Whether its pages are to be compressed anew."""
        return self.codec != Codec.ZSTD


@dataclass(frozen=True, slots=True)
class Footer:
    """What stands at the end of a Parquet file; `start` is its offset in the file."""

    metadata: Struct
    start: int

    @property
    def row_groups(self) -> list[Struct]:
        """RowGroup structures."""
        return self.metadata.structs(FileField.ROW_GROUPS)

    def chunks(self) -> Iterator[Chunk]:
        """The chunks of all row groups."""
        for number, group in enumerate(self.row_groups):
            yield from chunks_of(group, number)

    def pack(self) -> bytes:
        """The footer with its length and the magic behind it."""
        data = self.metadata.pack()
        return data + len(data).to_bytes(4, "little") + MAGIC


def chunks_of(group: Struct, number: int) -> Iterator[Chunk]:
    """The chunks of a row group."""
    for position, chunk in enumerate(group.structs(GroupField.COLUMNS)):
        yield Chunk(chunk, chunk.struct(ChunkField.META), f"row group {number}, column {position}")


def footer_start(trailer: bytes, size: int) -> int:
    """Where the footer begins of a file of `size` bytes that ends with `trailer`.

    Raises Refused, Damaged.
    """
    magic = trailer[-4:]
    if magic == ENCRYPTED_MAGIC:
        raise Refused(Refusal.ENCRYPTED, "its footer is encrypted")
    if magic != MAGIC:
        raise Damaged(f"it ends with {magic!r}, not with {MAGIC!r}: truncated?")
    length = int.from_bytes(trailer[-8:-4], "little")
    if length > LARGEST_FOOTER:
        raise Refused(Refusal.STRUCTURE, f"a footer of {length} bytes")
    start = size - TRAILER - length
    if start < len(MAGIC):
        raise Damaged(f"a footer of {length} bytes in a file of {size}")
    return start


def read_footer(read: Read, size: int) -> Footer:
    """Read a file's footer; raises Refused, Damaged."""
    if size < len(MAGIC) + TRAILER or (begin := read(0, 4)) not in {MAGIC, ENCRYPTED_MAGIC}:
        raise Refused(Refusal.NOT_PARQUET, "it does not begin as a Parquet file does")
    if begin == ENCRYPTED_MAGIC:
        raise Refused(Refusal.ENCRYPTED, "its footer is encrypted")
    start = footer_start(read(size - TRAILER, TRAILER), size)
    return parse_footer(read(start, size - TRAILER - start), start)


def parse_footer(data: bytes, start: int) -> Footer:
    """Read the footer at offset `start`; raises Damaged, Refused where it is encrypted."""
    try:
        metadata, end = parse(data, _SHAPE)
        if end != len(data):
            _check_signature(metadata)
            raise Damaged(f"{len(data) - end} bytes behind the footer's end")
        _check_signature(metadata)
        for group in metadata.structs(FileField.ROW_GROUPS):
            for chunk in group.structs(GroupField.COLUMNS):
                _check_plain(chunk)
    except ThriftError as error:
        raise Damaged(f"its footer: {error}") from error
    return Footer(metadata, start)


def _check_signature(metadata: Struct) -> None:
    if FileField.ENCRYPTION in metadata or FileField.SIGNING_KEY in metadata:
        raise Refused(Refusal.ENCRYPTED, "its columns are encrypted, or its footer is signed")


def _check_plain(chunk: Struct) -> None:
    if ChunkField.ENCRYPTION in chunk or ChunkField.ENCRYPTED_META in chunk:
        raise Refused(Refusal.ENCRYPTED, "its columns are encrypted")
    if chunk.values.get(ChunkField.PATH, b"\0") != b"\0":
        raise Refused(Refusal.STRUCTURE, "its columns stand in another file")
    if ChunkField.META not in chunk:
        raise Damaged("a column without metadata")


def check_worth(footer: Footer, largest_row_group: int | None = None) -> None:
    """Raise Refused where the footer tells that nothing is to be done, or that it cannot be."""
    try:
        codecs = {chunk.codec for chunk in footer.chunks() if chunk.size}
        full = [group.required(GroupField.FULL_SIZE) for group in footer.row_groups]
    except ThriftError as error:
        raise Damaged(f"its footer: {error}") from error
    if unknown := codecs - READABLE:
        raise Refused(Refusal.CODEC, ", ".join(map(_codec_name, sorted(unknown))))
    if codecs <= {Codec.ZSTD}:
        raise Refused(Refusal.ALREADY_ZSTD, "all its column chunks are zstd")
    if largest_row_group is not None and max(full, default=0) > largest_row_group:
        raise Refused(Refusal.ROW_GROUP, f"a row group of {max(full)} bytes")


def _codec_name(number: int) -> str:
    try:
        return Codec(number).name
    except ValueError:
        return f"codec {number}"


def parse_at(read: Read, at: int, end: int, shape: Shape) -> tuple[Struct, int]:
    """The structure at offset `at`, which ends before `end`, and its size in bytes.

    No more is read than is likely to hold it. Raises ThriftError, Truncated, Damaged.
    """
    glance = _GLANCE
    while True:
        window = min(glance, end - at)
        try:
            return parse(read(at, window), shape)
        except Truncated:
            if window == end - at or glance >= _LARGEST_STRUCT:
                raise
            glance *= 16


class File:
    """A file by its descriptor, read at offsets; raises Damaged where it ends too early.

    `seen` is told of the bytes that were read.
    """

    def __init__(self, descriptor: int, seen: Callable[[int], None]) -> None:
        self._descriptor = descriptor
        self._seen = seen
        self.size = os.fstat(descriptor).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes at `offset`."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise Damaged(f"{count} bytes at {offset} of a file of {self.size}")
        data = os.pread(self._descriptor, count, offset)
        while len(data) < count:
            more = os.pread(self._descriptor, count - len(data), offset + len(data))
            if not more:
                raise Damaged(f"the file ends at {offset + len(data)}")
            data += more
        self._seen(count)
        return data
