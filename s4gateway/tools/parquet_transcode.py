"""A Parquet file written again with its pages as zstd, and nothing else changed.

    for each chunk      pages as they are, or decompressed and compressed again
    then                Bloom filters and column indexes as they are, offset indexes moved
    last                the footer with new offsets, sizes and codecs

Rule: what readers plan by stays: schema, row groups, pages, dictionaries, statistics, page indexes,
Bloom filters, sort order, key-value metadata, `created_by`. All of it fits in the memory of a page
and of the footer. https://parquet.apache.org/docs/file-format/
"""

import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import zstandard

from s4gateway.tools import parquet_pages
from s4gateway.tools.parquet_format import (
    MAGIC,
    Chunk,
    ChunkField,
    Codec,
    Damaged,
    File,
    Footer,
    GroupField,
    MetaField,
    chunks_of,
)
from s4gateway.tools.parquet_layout import Layout, Region
from s4gateway.tools.parquet_thrift import Shape, Struct, ThriftError, parse

LOCATIONS: Final = 1  # field of OffsetIndex
INDEX_SHAPE: Final[Shape] = {LOCATIONS: {}}
LOCATION_OFFSET: Final = 1  # fields of PageLocation
LOCATION_SIZE: Final = 2
_BLOCK: Final = 1024 * 1024


class Sink:
    """A file written from its start, by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.length = 0

    def write(self, data: bytes) -> None:
        """Append all of it; raises OSError."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self._descriptor, view, self.length)
            self.length += count
            view = view[count:]


@dataclass(slots=True)
class Moved:
    """Where a chunk's pages went: data pages in their order, by old offset, new offset, new size.

    `shift` is set instead where the whole chunk moved as it was.
    """

    old: "array[int]" = field(default_factory=lambda: array("q"))
    new: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    shift: int | None = None


def transcode(source: File, sink: Sink, footer: Footer, found: Layout, level: int) -> None:
    """Write the file anew into `sink`; changes `footer`. Raises Damaged, Refused, OSError."""
    compressor = zstandard.ZstdCompressor(level=level)
    moved: dict[int, Moved] = {}
    fulls: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for chunk in footer.chunks():
        key = id(chunk.chunk)
        fulls[key] = chunk.meta.required(MetaField.FULL_SIZE)
        sizes[key] = chunk.size
    sink.write(MAGIC)
    for region in found.chunks:
        moved[id(region.chunk.chunk)] = _chunk(source, sink, region, compressor)
    for region in found.blooms:
        region.chunk.meta.set_number(MetaField.BLOOM, sink.length)
        _copy(source, sink, region)
    for region in found.column_indexes:
        region.chunk.chunk.set_number(ChunkField.COLUMN_INDEX, sink.length)
        _copy(source, sink, region)
    for region in found.offset_indexes:
        _offset_index(source, sink, region, moved.get(id(region.chunk.chunk), Moved()))
    for number, group in enumerate(footer.row_groups):
        _group(group, number, fulls, sizes)
    sink.write(footer.pack())


def _copy(source: File, sink: Sink, region: Region) -> None:
    for at in range(region.start, region.end, _BLOCK):
        sink.write(source.read(at, min(_BLOCK, region.end - at)))


def _chunk(source: File, sink: Sink, region: Region, compressor: zstandard.ZstdCompressor) -> Moved:
    """Write a chunk's pages; its metadata say afterwards where they are."""
    chunk, begin = region.chunk, sink.length
    if not chunk.is_transcoded:
        _copy(source, sink, region)
        _relocate(chunk, lambda at: at - region.start + begin)
        return Moved(shift=begin - region.start)
    moved = Moved()
    full = 0
    places: dict[int, int] = {}
    wanted = {chunk.meta.number(each) for each in (MetaField.DATA, MetaField.DICTIONARY)}
    wanted.add(chunk.chunk.number(ChunkField.OFFSET))
    for page in parquet_pages.pages(source.read, chunk):
        stored = source.read(page.body, page.size)
        content = parquet_pages.plain(page, chunk.codec, stored)
        data = parquet_pages.compressed(page, content, compressor)
        if page.start in wanted:
            places[page.start] = sink.length
        if page.is_data:
            moved.old.append(page.start)
            moved.new.append(sink.length)
            moved.sizes.append(len(data))
        full += len(data) - page.header.required(parquet_pages.PageField.SIZE) + page.full_size
        sink.write(data)
    _relocate(chunk, places.get)
    chunk.meta.set_number(MetaField.CODEC, Codec.ZSTD)
    chunk.meta.set_number(MetaField.SIZE, sink.length - begin)
    chunk.meta.set_number(MetaField.FULL_SIZE, full)
    return moved


def _relocate(chunk: Chunk, place: Callable[[int], int | None]) -> None:
    """Set the offsets in a chunk's metadata; `place` knows where a page went."""
    meta, at = chunk.meta, chunk.chunk.number(ChunkField.OFFSET)
    is_inside = at is not None and chunk.start <= at < chunk.start + chunk.size
    data, dictionary = meta.required(MetaField.DATA), meta.number(MetaField.DICTIONARY)
    for which, old in (MetaField.DATA, data), (MetaField.DICTIONARY, dictionary):
        if old:  # without rows there is no data, and without a dictionary no place of it
            moved = place(old)
            if moved is None:
                raise Damaged(f"{chunk.where}: no page at {old}")
            meta.set_number(which, moved)
    if at is not None:  # deprecated: the format wants 0 where it names no page
        chunk.chunk.set_number(ChunkField.OFFSET, (place(at) or 0) if is_inside else 0)


def _offset_index(source: File, sink: Sink, region: Region, moved: Moved) -> None:
    """Write a chunk's offset index with the places its pages have now."""
    where = region.chunk.where
    try:
        index, end = parse(source.read(region.start, region.size), INDEX_SHAPE)
        locations = index.structs(LOCATIONS)
        if end != region.size:
            raise Damaged(f"{where}: bytes behind its offset index")
        if moved.shift is None:
            _relocated(locations, moved, where)
        else:
            for each in locations:
                each.set_number(LOCATION_OFFSET, each.required(LOCATION_OFFSET) + moved.shift)
    except ThriftError as error:
        raise Damaged(f"{where}: its offset index: {error}") from error
    chunk, data = region.chunk.chunk, index.pack()
    chunk.set_number(ChunkField.OFFSET_INDEX, sink.length)
    chunk.set_number(ChunkField.OFFSET_INDEX_SIZE, len(data))
    sink.write(data)


def _relocated(locations: list[Struct], moved: Moved, where: str) -> None:
    if len(locations) != len(moved.old):
        raise Damaged(f"{where}: {len(moved.old)} pages, {len(locations)} in its offset index")
    for each, old, new, size in zip(locations, moved.old, moved.new, moved.sizes, strict=True):
        if each.required(LOCATION_OFFSET) != old:
            raise Damaged(f"{where}: its offset index names no page at {old}")
        each.set_number(LOCATION_OFFSET, new)
        each.set_number(LOCATION_SIZE, size)


def _group(group: Struct, number: int, fulls: dict[int, int], sizes: dict[int, int]) -> None:
    """Bring a row group's sums and its place up to its chunks."""
    full = size = 0
    first: int | None = None
    for chunk in chunks_of(group, number):
        key = id(chunk.chunk)
        full += chunk.meta.required(MetaField.FULL_SIZE) - fulls[key]
        size += chunk.size - sizes[key]
        if chunk.size and (first is None or chunk.start < first):
            first = chunk.start
    group.set_number(GroupField.FULL_SIZE, group.required(GroupField.FULL_SIZE) + full)
    if GroupField.SIZE in group:
        group.set_number(GroupField.SIZE, group.required(GroupField.SIZE) + size)
    if GroupField.OFFSET in group and first is not None:
        group.set_number(GroupField.OFFSET, first)
