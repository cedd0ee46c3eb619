"""Data files fetched as far as they are needed: whole, or the chunks of the wanted columns.

Small files are fetched whole. Of a large one the end comes first, which holds the footer; then the
wanted column chunks, neighbours together, unless they are most of the file. Rule: what is fetched
never changes what is decoded; a reader that finds a hole gets the whole file. What one file teaches
about the share of the wanted columns decides how the next is fetched.
https://parquet.apache.org/docs/file-format/
"""

import io
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from s4gateway.s3store import parquet
from s4gateway.s3store.calls import S3Calls
from s4gateway.s3store.errors import DecodeError
from s4gateway.s3store.fan_out import fan_out
from s4gateway.s3store.telemetry import Telemetry

WHOLE: Final = 1024 * 1024  # bytes up to which a file is fetched at one go
TAIL: Final = 64 * 1024
GAP: Final = 512 * 1024  # unwanted bytes that cost less than another request
REQUESTS: Final = 16  # for one file, if that costs no more unwanted bytes than GAP each
MOST: Final = 0.6  # share of a file from which its rest comes along
_MAGIC: Final = b"PAR1"


class Span(NamedTuple):
    """Bytes `start` up to, not including, `end` of a file."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """A data file in memory, perhaps with holes; `size` is what was fetched of it.

    `table` is what it was decoded to, where that was done on arrival.
    """

    key: str
    source: Any
    size: int
    table: pa.Table | None = None


Decode = Callable[[Fetched], pa.Table | None]


class Fetcher:
    """Fetches the data files of one read; `columns` are those it wants."""

    def __init__(self, calls: S3Calls, telemetry: Telemetry, columns: Sequence[str]) -> None:
        self._calls = calls
        self._telemetry = telemetry
        self._columns = columns
        self._narrow: bool | None = None  # whether the columns are a small part of the files

    async def fetch(self, key: str, size: int | None, decode: Decode | None = None) -> Fetched:
        """Return a file, `size` bytes long if that is known; raises NotFound, DecodeError.

        With `decode`, which the transport must have threads for, a file that is fetched whole is
        decoded on arrival.
        """
        if self._wants_parts(size):
            parts = await self._in_parts(key)
            if parts is not None:
                return parts
        if decode is None:
            return await self.whole(key)

        def landed(body: bytes) -> Fetched:
            fetched = _whole(key, body)
            try:
                table = decode(fetched)
            except DecodeError:  # told where the table is asked for
                table = None
            return fetched if table is None else replace(fetched, source=None, table=table)

        return await self._calls.get_then(key, landed)

    async def whole(self, key: str) -> Fetched:
        """Return all of a file."""
        return _whole(key, await self._calls.get(key))

    def _wants_parts(self, size: int | None) -> bool:
        if size is None:
            return bool(self._narrow)
        return size > WHOLE and self._narrow is not False

    def learn(self, file: pq.ParquetFile, size: int) -> None:
        """Take notice of the share of the wanted columns in a file that was fetched whole."""
        if size > WHOLE:
            wanted = sum(end - start for start, end in _chunks(file.metadata, self._columns))
            self._narrow = wanted < MOST * size

    async def _in_parts(self, key: str) -> Fetched | None:
        """The wanted parts; None when the footer cannot be read without more of the file."""
        tail = await self._calls.get_range(key, None, TAIL)
        sparse = SparseFile(tail.total)
        sparse.add(tail.start, tail.body)
        footer = _footer(key, tail.body, tail.total)
        if footer.start < tail.start:
            await self._fill(key, sparse, [Span(footer.start, tail.start)])
        try:
            spans = self._spans(key, sparse, min(tail.start, footer.start))
        except DecodeError:
            if sparse.was_asked_for_more:
                return None
            raise
        await self._fill(key, sparse, spans)
        return Fetched(key, sparse, sparse.filled)

    def _spans(self, key: str, sparse: "SparseFile", known_from: int) -> list[Span]:
        """What is still missing, below what is known."""
        if sparse.size <= WHOLE:
            return [Span(0, known_from)] if known_from else []
        metadata = parquet.open_file(sparse, key).metadata
        merged = merge(_chunks(metadata, self._columns))
        self._narrow = sum(end - start for start, end in merged) < MOST * sparse.size
        if not self._narrow:
            return [Span(0, known_from)]
        return [Span(start, min(end, known_from)) for start, end in merged if start < known_from]

    async def _fill(self, key: str, sparse: "SparseFile", spans: Sequence[Span]) -> None:
        async def fill(span: Span) -> None:
            part = await self._calls.get_range(key, span.start, span.end - span.start)
            sparse.add(part.start, part.body)

        await fan_out(self._telemetry, spans, fill, self._calls.limit)


def _whole(key: str, body: bytes) -> Fetched:
    return Fetched(key, pa.BufferReader(body), len(body))


def _footer(key: str, tail: bytes, total: int) -> Span:
    """Where the footer lies, as the last eight bytes of a Parquet file say."""
    if len(tail) < 12 or tail[-4:] != _MAGIC:
        raise DecodeError(key, "is no Parquet file: its last bytes are not PAR1")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length + len(_MAGIC) > total:
        raise DecodeError(key, "is no Parquet file: its footer is longer than the file")
    return Span(total - length, total)


def _chunks(metadata: pq.FileMetaData, columns: Sequence[str]) -> list[Span]:
    """The bytes of the wanted columns' chunks."""
    wanted = set(columns)
    spans = []
    for group_number in range(metadata.num_row_groups):
        group = metadata.row_group(group_number)
        for number in range(group.num_columns):
            chunk = group.column(number)
            if chunk.path_in_schema.partition(".")[0] in wanted:
                start = chunk.data_page_offset
                if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                    start = min(start, chunk.dictionary_page_offset)
                spans.append(Span(start, start + chunk.total_compressed_size))
    return spans


def merge(spans: Iterable[Span]) -> list[Span]:
    """Return spans that hold those given, few of them and little more than they hold.

    The smallest gaps are closed first: all that together are a tenth of what is wanted, and more
    (up to GAP each) while there are more than REQUESTS spans.

    >>> merge([Span(50, 60), Span(0, 100), Span(105, 200), Span(900, 950)])
    [Span(start=0, end=200), Span(start=900, end=950)]
    """
    apart: list[Span] = []
    for span in sorted(spans):
        if apart and span.start <= apart[-1].end:
            apart[-1] = Span(apart[-1].start, max(apart[-1].end, span.end))
        else:
            apart.append(span)
    spare = sum(end - start for start, end in apart) // 10
    too_many = len(apart) - REQUESTS
    gaps = sorted((b.start - a.end, b.start) for a, b in itertools.pairwise(apart))
    closed = set()
    for gap, start in gaps:
        if gap > spare and (too_many <= 0 or gap >= GAP):
            break
        spare -= gap
        too_many -= 1
        closed.add(start)
    merged: list[Span] = []
    for span in apart:
        if span.start in closed:
            merged[-1] = Span(merged[-1].start, span.end)
        else:
            merged.append(span)
    return merged


class Hole(OSError):
    """A read of bytes that were not fetched."""


class SparseFile(io.RawIOBase):
    """A file of which some spans are known; reading any other raises Hole."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.was_asked_for_more = False
        self._position = 0
        self._parts: list[tuple[int, bytes]] = []

    @property
    def filled(self) -> int:
        """How many bytes are known."""
        return sum(len(body) for _, body in self._parts)

    def add(self, start: int, body: bytes) -> None:
        """Enter the bytes from `start` on; spans may touch and do not overlap."""
        self._parts.append((start, body))
        self._parts.sort(key=lambda part: part[0])

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return bytes from the position on; raises Hole."""
        start = self._position
        end = self.size if size < 0 else min(self.size, start + size)
        if start >= end:
            return b""
        found = []
        at = start
        for begins, body in self._parts:
            if begins <= at < begins + len(body):
                found.append(body[at - begins : end - begins])
                at += len(found[-1])
        if at < end:
            self.was_asked_for_more = True
            raise Hole(f"bytes {start}-{end} of {self.size} were not fetched")
        self._position = end
        return found[0] if len(found) == 1 else b"".join(found)
