"""Whether a Parquet file that was made of another says the same, page by page and field by field.

Rule: what was written is read back from its file and compared with the file it was made of: the
footers but for offsets, sizes and codecs, each page's header but for its size, what each page
decompresses to, and every index. Equal pages of equal schemas are equal values, NaN payloads,
signs of zero and 96-bit timestamps included; `parquet_values` asks an engine as well.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Final

from s4gateway.tools import parquet_pages, parquet_transcode
from s4gateway.tools.parquet_format import (
    Chunk,
    ChunkField,
    Codec,
    File,
    FileField,
    Footer,
    GroupField,
    MetaField,
    chunks_of,
)
from s4gateway.tools.parquet_layout import Layout, Region
from s4gateway.tools.parquet_pages import Page, PageField, V2Field
from s4gateway.tools.parquet_thrift import Struct, parse
from s4gateway.tools.parquet_transcode import LOCATION_OFFSET, LOCATION_SIZE, LOCATIONS

_BLOCK: Final = 1024 * 1024
_GROUP: Final = {GroupField.COLUMNS, GroupField.FULL_SIZE, GroupField.OFFSET, GroupField.SIZE}
_CHUNK: Final = {
    ChunkField.OFFSET,
    ChunkField.META,
    ChunkField.OFFSET_INDEX,
    ChunkField.OFFSET_INDEX_SIZE,
    ChunkField.COLUMN_INDEX,
}
_META: Final = {
    MetaField.CODEC,
    MetaField.FULL_SIZE,
    MetaField.SIZE,
    MetaField.DATA,
    MetaField.DICTIONARY,
    MetaField.BLOOM,
}


class Mismatch(Exception):
    """The new file does not say what the old one does."""


def verify(
    old: File, footer: Footer, found: Layout, new: File, made: Footer, placed: Layout
) -> None:
    """Raise Mismatch unless `new` with its footer is `old` as zstd; raises Damaged, ThriftError.

    `found` and `placed` are where everything stands in the old and in the new file.
    """
    _check_footers(footer, made)
    indexes = {region.chunk.where: region for region in placed.offset_indexes}
    for before, after in _pairs(found.chunks, placed.chunks):
        _check_chunk(old, before.chunk, new, after.chunk, indexes.get(after.chunk.where))
    for before, after in _pairs(found.blooms, placed.blooms):
        _check_bytes(old, before, new, after)
    for before, after in _pairs(found.column_indexes, placed.column_indexes):
        _check_bytes(old, before, new, after)
    for before, after in _pairs(found.offset_indexes, placed.offset_indexes):
        _check_index(old, before, new, after)


def _pairs(old: tuple[Region, ...], new: tuple[Region, ...]) -> Iterator[tuple[Region, Region]]:
    for before, after in zip_longest(old, new):
        if before is None or after is None or before.chunk.where != after.chunk.where:
            raise Mismatch(f"{len(old)} regions became {len(new)}, or changed places")
        yield before, after


# --- the footer


def _check_footers(old: Footer, new: Footer) -> None:
    if not old.metadata.is_same(new.metadata, {FileField.ROW_GROUPS}):
        raise Mismatch("the footers differ in schema, rows, key-value metadata or created_by")
    if len(old.row_groups) != len(new.row_groups):
        raise Mismatch(f"{len(old.row_groups)} row groups became {len(new.row_groups)}")
    for number, (before, after) in enumerate(zip(old.row_groups, new.row_groups, strict=True)):
        if not before.is_same(after, _GROUP):
            raise Mismatch(f"row group {number} differs in rows or sort order")
        chunks = list(chunks_of(before, number)), list(chunks_of(after, number))
        if len(chunks[0]) != len(chunks[1]):
            raise Mismatch(f"row group {number}: {len(chunks[0])} columns, {len(chunks[1])}")
        for one, other in zip(*chunks, strict=True):
            _check_meta(one, other)


def _check_meta(old: Chunk, new: Chunk) -> None:
    if not old.chunk.is_same(new.chunk, _CHUNK) or not old.meta.is_same(new.meta, _META):
        raise Mismatch(f"{old.where}: metadata or statistics differ")
    if new.size and new.codec != Codec.ZSTD:
        raise Mismatch(f"{old.where}: codec {new.codec}")


# --- pages


def _check_chunk(old: File, before: Chunk, new: File, after: Chunk, index: Region | None) -> None:
    locations = None if index is None else iter(_locations(new, index))
    pairs = zip_longest(parquet_pages.pages(old.read, before), parquet_pages.pages(new.read, after))
    for one, other in pairs:
        if one is None or other is None:
            raise Mismatch(f"{before.where}: another number of pages")
        if not _is_same_header(one, other) or not _is_same_content(
            old.read(one.body, one.size), one, before, new.read(other.body, other.size), other
        ):
            raise Mismatch(f"{before.where}: the page at {one.start} differs")
        if locations is not None and other.is_data:
            _check_location(next(locations, None), other, after)
    if locations is not None and next(locations, None) is not None:
        raise Mismatch(f"{after.where}: its offset index names more pages than there are")


def _is_same_header(old: Page, new: Page) -> bool:
    changed = {PageField.SIZE, PageField.CRC}
    if not old.header.is_same(new.header, changed) or old.levels != new.levels:
        return False
    if old.kind is not parquet_pages.PageKind.DATA_V2:
        return True
    before, after = old.header.struct(PageField.V2), new.header.struct(PageField.V2)
    return _without_flag(before).is_same(_without_flag(after))


def _without_flag(header: Struct) -> Struct:
    copy = Struct()
    copy.values = {
        field: value for field, value in header.values.items() if field != V2Field.IS_COMPRESSED
    }
    return copy


def _is_same_content(data: bytes, page: Page, chunk: Chunk, made: bytes, now: Page) -> bool:
    """Compare what both decompress to; a page of a chunk that moved as it was must be itself."""
    if not chunk.is_transcoded:
        return data == made
    content = parquet_pages.plain(page, chunk.codec, data)
    return content == parquet_pages.plain(now, Codec.ZSTD, made)


def _check_location(location: Struct | None, page: Page, chunk: Chunk) -> None:
    if (
        location is None
        or location.number(LOCATION_OFFSET) != page.start
        or location.number(LOCATION_SIZE) != page.end - page.start
    ):
        raise Mismatch(f"{chunk.where}: its offset index does not name the page at {page.start}")


# --- indexes


def _locations(file: File, region: Region) -> list[Struct]:
    index, _ = parse(file.read(region.start, region.size), parquet_transcode.INDEX_SHAPE)
    return index.structs(LOCATIONS)


def _check_index(old: File, before: Region, new: File, after: Region) -> None:
    shape = parquet_transcode.INDEX_SHAPE
    one, _ = parse(old.read(before.start, before.size), shape)
    other, _ = parse(new.read(after.start, after.size), shape)
    changed = {LOCATION_OFFSET, LOCATION_SIZE}
    pairs = zip(one.structs(LOCATIONS), other.structs(LOCATIONS), strict=False)
    same = len(one.structs(LOCATIONS)) == len(other.structs(LOCATIONS)) and one.is_same(other)
    if not same or not all(mine.is_same(made, changed) for mine, made in pairs):
        raise Mismatch(f"{before.chunk.where}: its offset index differs")


def _check_bytes(old: File, before: Region, new: File, after: Region) -> None:
    if before.size != after.size:
        raise Mismatch(f"{before.chunk.where}: an index of another size")
    for done in range(0, before.size, _BLOCK):
        count = min(_BLOCK, before.size - done)
        if old.read(before.start + done, count) != new.read(after.start + done, count):
            raise Mismatch(f"{before.chunk.where}: an index differs")
