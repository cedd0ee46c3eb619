"""The original bytes of one stored version, whatever its form; read by spans.

    VerbatimContent   the stored bytes are the original ones
    FramedContent     frames, found through an index
    PayloadContent    one compressed payload without frames

Rule: an index is believed only as far as the frames agree with it: the header at each place it
names must have the sizes it says, or the next better source is asked: sidecar, then frame headers.
Every read of the store is pinned to the version.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final, Protocol

from s4gateway.codecs import decoder
from s4gateway.codecs.base import CodecError
from s4gateway.codecs.encoder import MEDIUM_CHUNK
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.s4fs.attributes import Attributes
from s4gateway.s4fs.errors import S4InexactSizeError, damaged
from s4gateway.s4fs.indexes import Indexes
from s4gateway.s4fs.lru import Lru
from s4gateway.s4fs.plain import CODECS, LARGE, LargePayload, Plain, decode, large_frame
from s4gateway.s4fs.store import Head, Store
from s4gateway.wire import frame
from s4gateway.wire.errors import FrameError, WireError
from s4gateway.wire.index import FrameEntry, FrameIndex
from s4gateway.wire.manifest import Manifest

Span = tuple[int, int]
Slice = tuple[int, int, bytes]  # which span, where in it, what
Job = Callable[[], list[Slice]]
Plains = Lru[tuple[str, str, int], Plain]

RUN: Final = 4 * 1024 * 1024  # stored bytes that are read with one request
_PAYLOAD: Final = -1  # where the one payload of an unframed object is kept
_WORTH_KEEPING: Final = 128 * 1024  # bytes below which decoding again is cheap
_LAST: Final = 64 * 1024  # a look at the end of an object reads this much


class IndexMismatch(Exception):
    """The frames are not where the index says."""


class Content(Protocol):
    """The original bytes of one version."""

    @property
    def size(self) -> int:
        """How many there are."""

    def plan(self, spans: Sequence[Span], max_gap: int) -> tuple[list[Slice], list[Job]]:
        """Return the slices of `spans` that are at hand, and the work that gets the others.

        Stored bytes that lie up to `max_gap` apart are read with one request. A job may raise
        IndexMismatch: everything is to be planned again after `distrust`.
        """

    def block(self, offset: int, want: int) -> Span:
        """Return what to load in order to read `want` bytes at `offset`."""

    def load(self, block: Span) -> Plain:
        """Return a block."""

    def distrust(self) -> None:
        """The index was wrong: take the next better one."""


class VerbatimContent:
    """Foreign objects, and those stored as they came."""

    def __init__(self, store: Store, head: Head) -> None:
        self._store = store
        self._head = head
        self.size = head.size

    def plan(self, spans: Sequence[Span], max_gap: int) -> tuple[list[Slice], list[Job]]:
        """Merge neighbouring spans, and cut long ones into requests that go side by side."""
        jobs: list[Job] = []
        for start, end, numbers in _merged(spans, max_gap):
            wanted = [(number, spans[number]) for number in numbers]
            jobs += [self._job(low, min(low + RUN, end), wanted) for low in range(start, end, RUN)]
        return [], jobs

    def _job(self, low: int, high: int, wanted: list[tuple[int, Span]]) -> Job:
        def run() -> list[Slice]:
            data = self._store.read(self._head, low, high)
            return [
                (number, max(low - start, 0), data[max(start - low, 0) : end - low])
                for number, (start, end) in wanted
                if start < high and low < end
            ]

        return run

    def block(self, offset: int, want: int) -> Span:
        """What is asked for; near the end everything that is left."""
        if offset + want > self.size - _LAST:
            return min(offset, max(self.size - _LAST, 0)), self.size
        return offset, offset + want

    def load(self, block: Span) -> Plain:
        """Read a block."""
        return Plain(self._store.read(self._head, *block))

    def distrust(self) -> None:
        """There is no index."""


def _merged(spans: Sequence[Span], max_gap: int) -> Iterator[tuple[int, int, list[int]]]:
    """Spans in order, joined where the gap between them is small; with their numbers."""
    order = sorted((span, number) for number, span in enumerate(spans) if span[0] < span[1])
    if not order:
        return
    (start, end), number = order[0]
    numbers = [number]
    for (low, high), number in order[1:]:
        if low - end > max_gap:
            yield start, end, numbers
            start, end, numbers = low, high, []
        numbers.append(number)
        end = max(end, high)
    yield start, end, numbers


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
        self._index = self._next_index()
        self.size = self._index.total_original

    def _next_index(self) -> FrameIndex:
        while True:
            index = self._sources.pop(0)()
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

    def distrust(self) -> None:
        """Take the next better index; what is wrong is raised when there is none."""
        self._indexes.distrust(self._head)
        if not self._sources:
            detail = "the frames are not where their headers were"
            raise damaged(FrameError("bad-magic", detail), self._head.path)
        self._index = self._next_index()

    def plan(self, spans: Sequence[Span], max_gap: int) -> tuple[list[Slice], list[Job]]:
        """Find the frames of the spans; those at hand are cut, the others read in runs."""
        needs: dict[int, list[tuple[int, Span]]] = {}
        for number, (start, end) in enumerate(spans):
            if start < end:
                for position in range(self._index.find(start), self._index.find(end - 1) + 1):
                    needs.setdefault(position, []).append((number, (start, end)))
        ready: list[Slice] = []
        missing: list[int] = []
        for position in sorted(needs):
            entry = self._index[position]
            plain = self._plains.get(self._name(entry))
            if plain is None:
                missing.append(position)
            else:
                ready += _cut(plain, entry, needs[position])
        return ready, [self._job(run, needs) for run in self._runs(missing, max_gap)]

    def _runs(self, positions: list[int], max_gap: int) -> Iterator[list[int]]:
        """Group frames that stand close together, up to RUN stored bytes and LARGE original."""
        run: list[int] = []
        for position in positions:
            if run:
                first, last, entry = (self._index[each] for each in (run[0], run[-1], position))
                gap = entry.compressed_offset - _stored_end(last)
                long = _stored_end(entry) - first.compressed_offset > RUN
                wide = entry.original_offset + entry.original_size - first.original_offset > LARGE
                if gap > max_gap or long or wide:
                    yield run
                    run = []
            run.append(position)
        if run:
            yield run

    def _job(self, run: list[int], needs: dict[int, list[tuple[int, Span]]]) -> Job:
        entries = [self._index[position] for position in run]

        def work() -> list[Slice]:
            slices: list[Slice] = []
            for position, entry, plain in zip(run, entries, self._fetch(entries), strict=True):
                cuts = _cut(plain, entry, needs[position])
                slices += cuts
                if sum(len(data) for _, _, data in cuts) < plain.length:
                    self._keep(entry, plain)
            return slices

        return work

    def _fetch(self, entries: list[FrameEntry]) -> Iterator[Plain]:
        """Read neighbouring frames with one request and decode them; one alone may be large."""
        if len(entries) == 1 and max(entries[0].compressed_size, entries[0].original_size) > LARGE:
            yield self._fetch_large(entries[0])
            return
        base = entries[0].compressed_offset
        view = memoryview(self._store.read(self._head, base, _stored_end(entries[-1])))
        for entry in entries:
            start = entry.compressed_offset - base
            header = self._header(view[start : start + frame.HEADER_SIZE], entry)
            payload = view[start + frame.HEADER_SIZE : start + entry.compressed_size]
            yield Plain(b"".join(decode(header, [payload], self._dictionary, self._head.path)))

    def _header(self, data: bytes | memoryview, entry: FrameEntry) -> frame.FrameHeader:
        try:
            header = frame.FrameHeader.parse(data)
        except WireError as error:
            raise IndexMismatch from error
        found = (header.stored_size, header.original_size)
        if found != (entry.compressed_size, entry.original_size):
            raise IndexMismatch
        return header

    def _fetch_large(self, entry: FrameEntry) -> Plain:
        start, end = entry.compressed_offset, _stored_end(entry)
        header = self._header(self._store.read(self._head, start, start + frame.HEADER_SIZE), entry)
        try:
            return _through_file(
                self._store, self._head, (start + frame.HEADER_SIZE, end),
                large_frame(header, self._dictionary),
            )  # fmt: skip
        except CodecError as error:
            raise damaged(error, self._head.path) from error

    def _name(self, entry: FrameEntry) -> tuple[str, str, int]:
        return self._head.path, self._head.version, entry.compressed_offset

    def _keep(self, entry: FrameEntry, plain: Plain) -> None:
        if plain.length >= _WORTH_KEEPING:
            self._plains.put(self._name(entry), plain)

    def block(self, offset: int, want: int) -> Span:
        """The frame that holds the byte at `offset`."""
        entry = self._index[self._index.find(offset)]
        return entry.original_offset, entry.original_offset + entry.original_size

    def load(self, block: Span) -> Plain:
        """Return a frame: kept, or read and decoded. IndexMismatch."""
        entry = self._index[self._index.find(block[0])]
        plain = self._plains.get(self._name(entry))
        if plain is None:
            (plain,) = self._fetch([entry])
            self._keep(entry, plain)
        return plain


def _stored_end(entry: FrameEntry) -> int:
    return entry.compressed_offset + entry.compressed_size


def _cut(plain: Plain, entry: FrameEntry, wanted: list[tuple[int, Span]]) -> list[Slice]:
    """The parts of a frame that belong to the spans."""
    first, last = entry.original_offset, entry.original_offset + entry.original_size
    return [
        (number, max(first - start, 0), plain.read(max(start - first, 0), min(end, last) - first))
        for number, (start, end) in wanted
    ]


def _through_file(store: Store, head: Head, span: Span, large: LargePayload) -> Plain:
    """Decode a large payload into a file while it is read."""
    try:
        for low, high in pairwise([*range(span[0], span[1], RUN), span[1]]):
            large.feed(store.read(head, low, high))
        return large.finish()
    finally:
        large.close()


class PayloadContent:
    """One payload of a codec, which the manifest describes; any of its bytes takes all."""

    def __init__(self, store: Store, plains: Plains, attributes: Attributes) -> None:
        self._store = store
        self._plains = plains
        self._head = attributes.head
        assert attributes.stored.manifest is not None
        self._manifest = attributes.stored.manifest
        self.size = self._manifest.original_size

    def plan(self, spans: Sequence[Span], max_gap: int) -> tuple[list[Slice], list[Job]]:
        """One job for everything, unless the payload is at hand."""
        wanted = [(number, span) for number, span in enumerate(spans) if span[0] < span[1]]
        whole = FrameEntry(0, self.size, 0, self._head.size)
        plain = self._plains.get(self._name)
        if plain is not None:
            return _cut(plain, whole, wanted), []
        return [], [lambda: _cut(self.load((0, self.size)), whole, wanted)] if wanted else []

    def block(self, offset: int, want: int) -> Span:
        """Everything."""
        return 0, self.size

    def load(self, block: Span) -> Plain:
        """Return everything: kept, or read and decoded."""
        plain = self._plains.get(self._name)
        if plain is None:
            plain = self._decode()
            self._plains.put(self._name, plain)
        return plain

    @property
    def _name(self) -> tuple[str, str, int]:
        return self._head.path, self._head.version, _PAYLOAD

    def _decode(self) -> Plain:
        try:
            payload = payload_decoder(self._manifest)
            large = LargePayload(payload, self._manifest.codec)
            plain = _through_file(self._store, self._head, (0, self._head.size), large)
        except CodecError as error:
            raise damaged(error, self._head.path) from error
        return Plain(plain.read(0, plain.length)) if plain.length <= LARGE else plain

    def distrust(self) -> None:
        """There is no index."""


def payload_decoder(manifest: Manifest) -> decoder.PayloadDecoder:
    """Open the decoding of an unframed body; raises CodecError."""
    return decoder.PayloadDecoder(
        CODECS.get(manifest.codec),
        manifest.original_size,
        manifest.compressed_size,
        manifest.crc32c,
    )
