"""What stands where in a Parquet file, and that nothing else does.

Rule: a rewrite moves everything, so every byte must be accounted for. Bytes that no footer names
may be padding (zeros) or a copy of a column's metadata, as older writers left behind each chunk;
anything else might be found by an offset that is kept elsewhere, and the file is refused.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from s4gateway.tools.parquet_format import (
    MAGIC,
    Chunk,
    ChunkField,
    Damaged,
    Footer,
    MetaField,
    Read,
    Refusal,
    Refused,
    parse_at,
)
from s4gateway.tools.parquet_thrift import Struct, ThriftError

_BLOCK: Final = 1024 * 1024
_BLOOM_BYTES: Final = 1  # field of BloomFilterHeader: bytes of the filter behind it


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes of the file that belong to a chunk."""

    start: int
    size: int
    chunk: Chunk

    @property
    def end(self) -> int:
        """Offset of what is behind it."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Layout:
    """All regions of a file, each kind in the order of the file."""

    chunks: tuple[Region, ...]
    blooms: tuple[Region, ...]
    column_indexes: tuple[Region, ...]
    offset_indexes: tuple[Region, ...]


def layout(read: Read, footer: Footer) -> Layout:
    """Find everything that `footer` names; raises Damaged, Refused."""
    chunks: list[Region] = []
    blooms: list[Region] = []
    columns: list[Region] = []
    offsets: list[Region] = []
    for chunk in footer.chunks():
        _check_fields(chunk)
        if chunk.size:
            chunks.append(Region(chunk.start, chunk.size, chunk))
        blooms += _bloom(read, chunk, footer.start)
        columns += _named(chunk, ChunkField.COLUMN_INDEX, ChunkField.COLUMN_INDEX_SIZE)
        offsets += _named(chunk, ChunkField.OFFSET_INDEX, ChunkField.OFFSET_INDEX_SIZE)
    every = sorted([*chunks, *blooms, *columns, *offsets], key=_start)
    for region in every:
        if region.size < 0 or region.start < len(MAGIC) or region.end > footer.start:
            raise Damaged(f"{region.chunk.where}: {region.size} bytes at {region.start}")
    copies = _copies(read, footer, {each.start for each in every})
    _check_gaps(read, sorted([*every, *copies], key=_start), footer.start)
    return Layout(*(tuple(sorted(kind, key=_start)) for kind in (chunks, blooms, columns, offsets)))


def _start(region: Region) -> int:
    return region.start


def _check_fields(chunk: Chunk) -> None:
    if (chunk.meta.number(MetaField.INDEX) or 0) > 0:
        raise Refused(Refusal.STRUCTURE, f"{chunk.where}: an index page")
    dictionary, data = (
        chunk.meta.number(MetaField.DICTIONARY) or 0,
        chunk.meta.required(MetaField.DATA),
    )
    if dictionary > data > 0:
        raise Refused(Refusal.STRUCTURE, f"{chunk.where}: the dictionary behind its data")


def _named(chunk: Chunk, offset: ChunkField, size: ChunkField) -> Iterator[Region]:
    at, count = chunk.chunk.number(offset), chunk.chunk.number(size)
    if at is None and count is None:
        return
    if at is None or count is None:
        raise Damaged(f"{chunk.where}: half a place of an index")
    yield Region(at, count, chunk)


def _bloom(read: Read, chunk: Chunk, end: int) -> Iterator[Region]:
    """The chunk's Bloom filter, whose size older writers say in its own header only."""
    at, size = chunk.meta.number(MetaField.BLOOM), chunk.meta.number(MetaField.BLOOM_SIZE)
    if at is None:
        return
    header, header_size = parse_at(read, at, end, {})
    found = header_size + header.required(_BLOOM_BYTES)
    if size is not None and size != found:
        raise Damaged(f"{chunk.where}: a Bloom filter of {found} bytes instead of {size}")
    yield Region(at, found, chunk)


def _copies(read: Read, footer: Footer, starts: set[int]) -> Iterator[Region]:
    """Copies of column metadata, which nobody reads.

    They are where the deprecated field `file_offset` says, or right behind their chunk, as Polars
    has them, whose field points elsewhere.
    """
    for chunk in footer.chunks():
        end = chunk.start + chunk.size
        for at in {end, chunk.chunk.number(ChunkField.OFFSET) or 0} - starts:
            if not len(MAGIC) <= at < footer.start or chunk.start <= at < end:
                continue
            with suppress(ThriftError):
                copy, size = parse_at(read, at, footer.start, {})
                if _is_copy(copy, chunk.meta):
                    yield Region(at, size, chunk)


def _is_copy(copy: Struct, meta: Struct) -> bool:
    """Whether it says the same as far as both say anything about the chunk's pages."""
    told = (MetaField.CODEC, MetaField.VALUES, MetaField.SIZE, MetaField.DATA)
    return all(copy.number(field) == meta.number(field) for field in told)


def _check_gaps(read: Read, every: list[Region], end: int) -> None:
    """Raise Refused for bytes of no region; raises Damaged where two regions share some."""
    at = len(MAGIC)
    for region in every:
        if region.start < at:
            raise Damaged(f"{region.chunk.where}: what stands at {region.start} overlaps another")
        _check_zeros(read, at, region.start)
        at = region.end
    _check_zeros(read, at, end)


def _check_zeros(read: Read, at: int, end: int) -> None:
    while at < end:
        block = read(at, min(_BLOCK, end - at))
        if block.count(0) != len(block):
            raise Refused(Refusal.STRUCTURE, f"bytes at {at} that no column accounts for")
        at += len(block)
