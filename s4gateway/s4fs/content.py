"""The original bytes of one stored version, whatever its form; read by spans.

    VerbatimContent   the stored bytes are the original ones
    FramedContent     frames, found through an index (framed.py)
    PayloadContent    one compressed payload without frames

Rule: every read of the store is pinned to the version, and nothing is handed on that was not
verified, as far as there is anything to verify it by.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final, Protocol

from s4gateway.codecs import decoder
from s4gateway.codecs.base import CodecError
from s4gateway.s4fs.attributes import Attributes
from s4gateway.s4fs.errors import damaged
from s4gateway.s4fs.lru import Lru
from s4gateway.s4fs.plain import CODECS, LARGE, LargePayload, Plain
from s4gateway.s4fs.store import Head, Store
from s4gateway.wire.index import FrameEntry, FrameIndex
from s4gateway.wire.manifest import Manifest

Span = tuple[int, int]
Slice = tuple[int, int, bytes]  # which span, where in it, what
Job = Callable[[], list[Slice]]
Plains = Lru[tuple[str, str, int], Plain]

RUN: Final = 8 * 1024 * 1024  # stored bytes that are read with one request
_PAYLOAD: Final = -1  # where the one payload of an unframed object is kept
_WORTH_KEEPING: Final = 128 * 1024  # bytes below which decoding again is cheap
_LAST: Final = 64 * 1024  # a look at the end of an object reads this much


class IndexMismatch(Exception):
    """The frames are not where `index` says."""

    def __init__(self, index: FrameIndex) -> None:
        super().__init__(index)
        self.index = index


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

    def load(self, offset: int, want: int) -> tuple[Span, Plain]:
        """Return a block that holds the byte at `offset`, and where it stands. IndexMismatch."""

    def distrust(self, wrong: FrameIndex) -> None:
        """Take the next better index, unless another thread already has."""


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

    def load(self, offset: int, want: int) -> tuple[Span, Plain]:
        """Read a block."""
        block = self.block(offset, want)
        return block, Plain(self._store.read(self._head, *block))

    def distrust(self, wrong: FrameIndex) -> None:
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
            return cut(plain, whole, wanted), []
        return [], [lambda: cut(self._everything(), whole, wanted)] if wanted else []

    def block(self, offset: int, want: int) -> Span:
        """Everything."""
        return 0, self.size

    def load(self, offset: int, want: int) -> tuple[Span, Plain]:
        """Return everything."""
        return (0, self.size), self._everything()

    def _everything(self) -> Plain:
        """The original: kept, or read and decoded."""
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
            plain = through_file(self._store, self._head, (0, self._head.size), large)
        except CodecError as error:
            raise damaged(error, self._head.path) from error
        return Plain(plain.read(0, plain.length)) if plain.length <= LARGE else plain

    def distrust(self, wrong: FrameIndex) -> None:
        """There is no index."""


def payload_decoder(manifest: Manifest) -> decoder.PayloadDecoder:
    """Open the decoding of an unframed body; raises CodecError."""
    return decoder.PayloadDecoder(
        CODECS.get(manifest.codec),
        manifest.original_size,
        manifest.compressed_size,
        manifest.crc32c,
    )


def cut(plain: Plain, entry: FrameEntry, wanted: list[tuple[int, Span]]) -> list[Slice]:
    """Return the parts of a frame that belong to the spans, which are numbered."""
    first, last = entry.original_offset, entry.original_offset + entry.original_size
    return [
        (number, max(first - start, 0), plain.read(max(start - first, 0), min(end, last) - first))
        for number, (start, end) in wanted
    ]


def through_file(store: Store, head: Head, span: Span, large: LargePayload) -> Plain:
    """Decode a large payload into a file while it is read; raises CodecError."""
    try:
        for low, high in pairwise([*range(span[0], span[1], RUN), span[1]]):
            large.feed(store.read(head, low, high))
        return large.finish()
    finally:
        large.close()
