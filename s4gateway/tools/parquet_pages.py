"""Pages of a Parquet column chunk: found, decompressed within a bound, and compressed again.

Rule: what is encoded in a page is never decoded, so nothing about a value can change: levels,
encodings and statistics stay the bytes they were. A page takes exactly the memory its header claims
and no more, and is refused before that is much.
https://parquet.apache.org/docs/file-format/data-pages/
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import pyarrow as pa
import zstandard

from s4gateway.tools.parquet_format import Chunk, Codec, Damaged, Read, Refusal, Refused, parse_at
from s4gateway.tools.parquet_thrift import Shape, Struct, ThriftError

LARGEST_PAGE: Final = 128 * 1024 * 1024  # bytes, stored or not; DuckDB writes up to 100 MB
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


class PageKind(IntEnum):
    """What a page holds."""

    DATA = 0
    INDEX = 1
    DICTIONARY = 2
    DATA_V2 = 3


class PageField(IntEnum):
    """Fields of PageHeader; sizes in bytes without the header."""

    KIND = 1
    FULL_SIZE = 2
    SIZE = 3
    CRC = 4
    V2 = 8


class V2Field(IntEnum):
    """Fields of DataPageHeaderV2, whose levels are never compressed."""

    DEFINITION_SIZE = 5
    REPETITION_SIZE = 6
    IS_COMPRESSED = 7


_SHAPE: Final[Shape] = {PageField.V2: {}}


@dataclass(frozen=True, slots=True)
class Page:
    """A page by its header; offsets in the file."""

    start: int
    header: Struct
    header_size: int
    kind: PageKind
    size: int
    full_size: int

    @property
    def body(self) -> int:
        """Offset of what is behind the header."""
        return self.start + self.header_size

    @property
    def end(self) -> int:
        """Offset of what is behind it."""
        return self.body + self.size

    @property
    def is_data(self) -> bool:
        """Whether it holds rows, and so has a place in the offset index."""
        return self.kind is not PageKind.DICTIONARY

    @property
    def levels(self) -> int:
        """Bytes in front that are not compressed."""
        if self.kind is not PageKind.DATA_V2:
            return 0
        header = self.header.struct(PageField.V2)
        sizes = header.required(V2Field.DEFINITION_SIZE), header.required(V2Field.REPETITION_SIZE)
        if min(sizes) < 0 or sum(sizes) > min(self.size, self.full_size):
            raise Damaged(f"levels of {sizes} bytes in a page of {self.size}")
        return sum(sizes)


def pages(read: Read, chunk: Chunk) -> Iterator[Page]:
    """The pages of a chunk in their order; raises Damaged, Refused."""
    at, end = chunk.start, chunk.start + chunk.size
    while at < end:
        try:
            page = _page(read, at, end)
        except (ThriftError, Damaged) as error:
            raise Damaged(f"{chunk.where}, page at {at}: {error}") from error
        yield page
        at = page.end


def _page(read: Read, at: int, end: int) -> Page:
    header, header_size = parse_at(read, at, end, _SHAPE)
    size, full = header.required(PageField.SIZE), header.required(PageField.FULL_SIZE)
    number = header.required(PageField.KIND)
    if number not in set(PageKind) - {PageKind.INDEX}:
        raise Refused(Refusal.STRUCTURE, f"a page of type {number} at {at}")
    if min(size, full) < 0 or at + header_size + size > end:
        raise Damaged(f"{size} bytes, {full} when decompressed, in a chunk that ends at {end}")
    if max(size, full) > LARGEST_PAGE:
        raise Refused(Refusal.PAGE, f"a page of {max(size, full)} bytes at {at}")
    return Page(at, header, header_size, PageKind(number), size, full)


def plain(page: Page, codec: int, data: bytes) -> bytes:
    """What a page's stored bytes decompress to, its levels in front; raises Damaged.

    Its checksum is compared where it has one.
    """
    crc = page.header.number(PageField.CRC)
    if crc is not None and zlib.crc32(data) != crc & 0xFFFFFFFF:
        raise Damaged(f"page at {page.start}: its CRC is not {crc & 0xFFFFFFFF:#010x}")
    levels = page.levels
    if page.kind is PageKind.DATA_V2 and not _is_compressed(page):
        codec = Codec.UNCOMPRESSED
    try:
        values = _decompress(codec, data[levels:], page.full_size - levels)
    except MemoryError:
        raise  # one of Arrow's exceptions as well
    except (pa.ArrowException, zlib.error, zstandard.ZstdError, OSError, ValueError) as error:
        raise Damaged(f"page at {page.start}: {error}") from error
    if len(values) != page.full_size - levels:
        expected = page.full_size - levels
        raise Damaged(f"page at {page.start}: {len(values)} bytes, its header says {expected}")
    return data[:levels] + values if levels else values


def compressed(page: Page, content: bytes, compressor: zstandard.ZstdCompressor) -> bytes:
    """The page again, header and body, as zstd; changes its header."""
    header, levels = page.header, page.levels
    values = content[levels:] if levels else content
    body = compressor.compress(values)
    if page.kind is PageKind.DATA_V2:
        shrinks = len(body) < len(values)
        if not shrinks:
            body = values
        if shrinks != _is_compressed(page):
            header.struct(PageField.V2).set_flag(V2Field.IS_COMPRESSED, value=shrinks)
    if levels:
        body = content[:levels] + body
    header.set_number(PageField.SIZE, len(body))
    if PageField.CRC in header:
        crc = zlib.crc32(body)
        header.set_number(PageField.CRC, crc - (1 << 32) if crc >> 31 else crc)
    return header.pack() + body


def _is_compressed(page: Page) -> bool:
    return page.header.struct(PageField.V2).flag(V2Field.IS_COMPRESSED, default=True)


def _decompress(codec: int, data: bytes, size: int) -> bytes:
    """Decompress to `size` bytes, or to one more or less where they are not so many."""
    if not size and not data:
        return b""  # as parquet-java writes a page of nulls only
    if codec == Codec.UNCOMPRESSED:
        return data
    if codec == Codec.GZIP:
        return _gunzip(data, size)
    if codec == Codec.ZSTD:
        return _unzstd(data, size)
    if codec == Codec.BROTLI:
        with pa.CompressedInputStream(pa.BufferReader(data), "brotli") as stream:
            return bytes(stream.read(size + 1))
    if codec == Codec.SNAPPY:
        if _snappy_size(data) != size:
            raise ValueError(f"{_snappy_size(data)} bytes of snappy, its header says {size}")
        return _arrow("snappy", data, size)
    if codec == Codec.LZ4_RAW:
        return _unlz4(data, size)
    raise Refused(Refusal.CODEC, f"codec {codec}")


def _arrow(codec: str, data: bytes, size: int) -> bytes:
    found: bytes = pa.Codec(codec).decompress(data, size, asbytes=True)
    return found


def _snappy_size(data: bytes) -> int:
    """What a snappy block says that it becomes: a varint in front of it."""
    value = 0
    for position, byte in enumerate(data[:5]):
        value |= (byte & 127) << 7 * position
        if byte < 128:
            return value
    raise ValueError("no size in front of a snappy block")


def _unlz4(data: bytes, size: int) -> bytes:
    """A block does not say its size: it is right if one byte less is too little room."""
    found = _arrow("lz4_raw", data, size)
    if size:
        try:
            _arrow("lz4_raw", data, size - 1)
        except (pa.ArrowException, OSError, ValueError):
            return found
        raise ValueError(f"an LZ4 block of fewer than {size} bytes")
    return found


def _unzstd(data: bytes, size: int) -> bytes:
    claimed = zstandard.frame_content_size(data)
    if claimed != size:
        raise ValueError(f"a zstd frame of {claimed} bytes, its header says {size}")
    return zstandard.ZstdDecompressor().decompress(data)


def _gunzip(data: bytes, size: int) -> bytes:
    """All members of a gzip stream, one byte beyond `size` at most."""
    found = b""
    while data and len(found) <= size:
        member = zlib.decompressobj(_GZIP_OR_ZLIB)
        found += member.decompress(data, size + 1 - len(found))
        if not member.eof and len(found) <= size:
            raise ValueError("a gzip stream that breaks off")
        data = member.unused_data
    return found
