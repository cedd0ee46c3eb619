"""Frames behind an index, read by spans.

    known     an index that is at hand
    guess     of an object too small for a second frame
    sidecar   bound to the version
    headers   what the frames themselves say, one small read each

Rule: an index is believed only as far as the frames agree with it: the header at each place it
names must have the sizes it says, or the next source is asked. Of the last one, what is wrong is
wrong with the object.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Final

from s4gateway.codecs.base import CodecError
from s4gateway.codecs.encoder import MEDIUM_CHUNK
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.s4fs.attributes import Attributes
from s4gateway.s4fs.content import (
    RUN,
    IndexMismatch,
    Job,
    Plains,
    Slice,
    Span,
    cut,
    through_file,
)
from s4gateway.s4fs.errors import S4InexactSizeError, damaged
from s4gateway.s4fs.indexes import Indexes
from s4gateway.s4fs.plain import LARGE, Plain, decode, large_frame
from s4gateway.s4fs.store import Store
from s4gateway.wire import frame
from s4gateway.wire.errors import FrameError, WireError
from s4gateway.wire.index import FrameEntry, FrameIndex

_WORTH_KEEPING: Final = 128 * 1024  # bytes below which decoding again is cheap


class FramedContent:
    """Frames behind an index."""

    def __init__(
        self,
        store: Store,
        indexes: Indexes,
        plains: Plains,
        attributes: Attributes,
        dictionary: ZstdDict | None,
        *,
        inexact: bool = False,
    ) -> None:
        self._store = store
        self._indexes = indexes
        self._plains = plains
        self._attributes = attributes
        self._head = attributes.head
        self._dictionary = dictionary
        self._inexact = inexact
        self._sources = [self._known, self._guess, self._sidecar, self._headers]
        self._changing = threading.Lock()  # reads go on beside each other, each with one index
        self._index = self._next_index()
        self.size = self._index.total_original

    def _next_index(self) -> FrameIndex:
        while True:
            index = self._sources[0]()  # asked again when it fails
            del self._sources[0]
            if index is not None:
                return index

    def _known(self) -> FrameIndex | None:
        return self._fitting(self._indexes.known(self._head))

    def _fitting(self, index: FrameIndex | None) -> FrameIndex | None:
        fits = index is not None and self._attributes.size in {None, index.total_original}
        return index if fits else None

    def _guess(self) -> FrameIndex | None:
        """The index of an object too small for a second frame, which has no sidecar."""
        size = self._attributes.size
        if self._attributes.stored.multipart or size is None or not 0 < size <= MEDIUM_CHUNK:
            return None
        return FrameIndex.from_entries([FrameEntry(0, size, 0, self._head.size)])

    def _sidecar(self) -> FrameIndex | None:
        return self._fitting(self._indexes.load(self._head)) if self._head.size else None

    def _headers(self) -> FrameIndex | None:
        """The index the frames themselves give; the last source, so what is wrong is raised."""
        path, size = self._head.path, self._attributes.size
        walked = self._indexes.hop(self._head)
        if walked.index is None:
            if self._inexact:
                return walked.before_fault
            fault = walked.fault or FrameError("too-many-frames", f"{len(walked.before_fault)}")
            if size is None:
                raise S4InexactSizeError(path, str(fault)) from fault
            raise damaged(fault, path) from fault
        if size not in {None, walked.index.total_original}:
            detail = f"frames hold {walked.index.total_original} bytes, not {size}"
            raise damaged(CodecError("size-mismatch", detail), path)
        return walked.index

    def distrust(self, wrong: FrameIndex) -> None:
        """Take the next better index; what is wrong is raised when there is none."""
        with self._changing:
            if self._index is not wrong:
                return
            self._indexes.distrust(self._head)
            if not self._sources:
                detail = "the frames are not where their headers were"
                raise damaged(FrameError("bad-magic", detail), self._head.path)
            self._index = self._next_index()

    def plan(self, spans: Sequence[Span], max_gap: int) -> tuple[list[Slice], list[Job]]:
        """Find the frames of the spans; those at hand are cut, the others read in runs."""
        index = self._index
        needs: dict[int, list[tuple[int, Span]]] = {}
        for number, (start, end) in enumerate(spans):
            if start < end:
                for position in range(index.find(start), index.find(end - 1) + 1):
                    needs.setdefault(position, []).append((number, (start, end)))
        ready: list[Slice] = []
        missing: list[int] = []
        for position in sorted(needs):
            plain = self._kept(index[position])
            if plain is None:
                missing.append(position)
            else:
                ready += cut(plain, index[position], needs[position])
        return ready, [self._job(index, run, needs) for run in _runs(index, missing, max_gap)]

    def _job(
        self, index: FrameIndex, run: list[int], needs: dict[int, list[tuple[int, Span]]]
    ) -> Job:
        entries = [index[position] for position in run]

        def work() -> list[Slice]:
            slices: list[Slice] = []
            plains = self._fetch(index, entries)
            for position, entry, plain in zip(run, entries, plains, strict=True):
                cuts = cut(plain, entry, needs[position])
                slices += cuts
                if sum(len(data) for _, _, data in cuts) < plain.length:
                    self._keep(entry, plain)
            return slices

        return work

    def _fetch(self, index: FrameIndex, entries: list[FrameEntry]) -> Iterator[Plain]:
        """Read neighbouring frames with one request and decode them; one alone may be large."""
        if len(entries) == 1 and max(entries[0].compressed_size, entries[0].original_size) > LARGE:
            yield self._fetch_large(index, entries[0])
            return
        base = entries[0].compressed_offset
        view = memoryview(self._store.read(self._head, base, _stored_end(entries[-1])))
        for entry in entries:
            start = entry.compressed_offset - base
            header = _header(view[start : start + frame.HEADER_SIZE], index, entry)
            payload = view[start + frame.HEADER_SIZE : start + entry.compressed_size]
            yield Plain(b"".join(decode(header, [payload], self._dictionary, self._head.path)))

    def _fetch_large(self, index: FrameIndex, entry: FrameEntry) -> Plain:
        start, end = entry.compressed_offset, _stored_end(entry)
        data = self._store.read(self._head, start, start + frame.HEADER_SIZE)
        header = _header(data, index, entry)
        try:
            return through_file(
                self._store, self._head, (start + frame.HEADER_SIZE, end),
                large_frame(header, self._dictionary),
            )  # fmt: skip
        except CodecError as error:
            raise damaged(error, self._head.path) from error

    def _name(self, entry: FrameEntry) -> tuple[str, str, int]:
        return self._head.path, self._head.version, entry.compressed_offset

    def _kept(self, entry: FrameEntry) -> Plain | None:
        """The plaintext of a frame, if it is at hand and as long as the index says."""
        plain = self._plains.get(self._name(entry))
        return plain if plain is not None and plain.length == entry.original_size else None

    def _keep(self, entry: FrameEntry, plain: Plain) -> None:
        if plain.length >= _WORTH_KEEPING:
            self._plains.put(self._name(entry), plain)

    def block(self, offset: int, want: int) -> Span:
        """The frame that holds the byte at `offset`."""
        entry = self._index[self._index.find(offset)]
        return entry.original_offset, entry.original_offset + entry.original_size

    def load(self, offset: int, want: int) -> tuple[Span, Plain]:
        """Return the frame that holds the byte at `offset`: kept, or read and decoded."""
        index = self._index
        entry = index[index.find(offset)]
        plain = self._kept(entry)
        if plain is None:
            (plain,) = self._fetch(index, [entry])
            self._keep(entry, plain)
        return (entry.original_offset, entry.original_offset + entry.original_size), plain


def _runs(index: FrameIndex, positions: list[int], max_gap: int) -> Iterator[list[int]]:
    """Group frames that stand close together, up to RUN stored bytes and LARGE original."""
    run: list[int] = []
    for position in positions:
        if run:
            first, last, entry = (index[each] for each in (run[0], run[-1], position))
            gap = entry.compressed_offset - _stored_end(last)
            long = _stored_end(entry) - first.compressed_offset > RUN
            wide = entry.original_offset + entry.original_size - first.original_offset > LARGE
            if gap > max_gap or long or wide:
                yield run
                run = []
        run.append(position)
    if run:
        yield run


def _header(data: bytes | memoryview, index: FrameIndex, entry: FrameEntry) -> frame.FrameHeader:
    try:
        header = frame.FrameHeader.parse(data)
    except WireError as error:
        raise IndexMismatch(index) from error
    if (header.stored_size, header.original_size) != (entry.compressed_size, entry.original_size):
        raise IndexMismatch(index)
    return header


def _stored_end(entry: FrameEntry) -> int:
    return entry.compressed_offset + entry.compressed_size
