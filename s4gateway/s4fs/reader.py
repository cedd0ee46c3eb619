"""Reads of objects: what they look like, ranges of them, whole ones.

    look    one HEAD, and for some multipart objects a read of their end
    cat     ranges: neighbouring ones merged, frames fetched and decoded beside each other
    stream  everything, with one request where the object is small

Rule: what is answered is one version of an object, and the newest when the call began. What was
known of a version is used without asking again only where the store itself refuses to read another
one; then a change costs another look, never a wrong byte.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Final, TypeVar

from s4gateway.codecs.base import CodecError
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.s4fs import threads
from s4gateway.s4fs.attributes import Attributes, Measure, describe
from s4gateway.s4fs.content import (
    Content,
    IndexMismatch,
    PayloadContent,
    Plains,
    Slice,
    Span,
    VerbatimContent,
)
from s4gateway.s4fs.dictionaries import Dictionaries
from s4gateway.s4fs.errors import S4EncryptedObjectError, S4ObjectChangedError, damaged
from s4gateway.s4fs.framed import FramedContent
from s4gateway.s4fs.indexes import Indexes
from s4gateway.s4fs.lru import Lru
from s4gateway.s4fs.plain import Plain
from s4gateway.s4fs.store import Store
from s4gateway.s4fs.stream import FIRST, read_into_one, read_whole
from s4gateway.wire.manifest import Form

_T = TypeVar("_T")
MAX_GAP: Final = 64 * 1024  # stored bytes between two frames that are read rather than skipped
FRAME_CACHE: Final = 64 * 1024 * 1024  # bytes of decoded frames that are kept
_LATEST: Final = 1000  # objects whose newest known version is remembered
_SMALL: Final = 1024 * 1024  # bytes of an original that are not worth setting room aside
_GROWTH: Final = 256  # times a stored byte that is believed without seeing frames
_ATTEMPTS: Final = 3  # versions to look at while an object is overwritten busily


@dataclass(frozen=True, slots=True)
class Ask:
    """Original bytes [start, end) of an object, as slices count: negative from the end."""

    path: str
    start: int | None
    end: int | None

    def span(self, size: int) -> Span:
        """Return the bytes of an object of that size.

        >>> Ask("a", -3, None).span(10), Ask("a", 4, 99).span(10), Ask("a", 7, 4).span(10)
        ((7, 10), (4, 10), (7, 7))
        """
        start, end, _ = slice(self.start, self.end).indices(size)
        return start, max(start, end)


class Reader:
    """Reads over one store; shared by all threads that use a filesystem."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.indexes = Indexes(store)
        self._dictionaries = Dictionaries(store)
        self._measure = Measure(store, self.indexes)
        self._plains: Plains = Lru(FRAME_CACHE, lambda plain: plain.weight)
        self._latest: Lru[str, Attributes] = Lru(_LATEST)

    def look(self, path: str) -> Attributes:
        """Return what the newest version looks like; FileNotFoundError."""

        def look() -> Attributes:
            return self._measure(describe(self._store.head(path)), hop=True)

        attributes = _settled(look)
        self._latest.put(path, attributes)
        return attributes

    def glance(self, path: str) -> Attributes:
        """Return what the newest version looks like, at the cost of three small reads at most."""
        return _settled(lambda: self._measure(describe(self._store.head(path)), hop=False))

    def forget(self, path: str) -> None:
        """Drop everything known about an object."""
        self._latest.drop(path)
        self._plains.drop_where(lambda key: key[0] == path)

    def content(self, attributes: Attributes, *, inexact: bool = False) -> Content:
        """Return the original bytes of a version.

        Raises S4EncryptedObjectError, S4InexactSizeError, S4Error for what is damaged. `inexact`
        accepts the frames in front of a fault.
        """
        form, head, stored = attributes.stored.form, attributes.head, attributes.stored
        if form is Form.ENCRYPTED:
            raise S4EncryptedObjectError(head.path, "its metadata says so")
        if form is Form.PASSTHROUGH and attributes.size != head.size:
            detail = f"{head.size} bytes are stored, the manifest says {attributes.size}"
            raise damaged(CodecError("manifest-size-mismatch", detail), head.path)
        if form in {Form.FOREIGN, Form.PASSTHROUGH}:
            return VerbatimContent(self._store, head)
        if form is Form.UNFRAMED:
            return PayloadContent(self._store, self._plains, attributes)
        dictionary = None
        if stored.dict_id is not None:
            dictionary = self._dictionaries.get(head.path, stored.dict_id)
        return FramedContent(
            self._store, self.indexes, self._plains, attributes, dictionary, inexact=inexact
        )

    def cat(self, asks: Sequence[Ask], max_gap: int = MAX_GAP) -> list[bytes | Exception]:
        """Return the bytes of every ask, or why they could not be read."""
        groups: dict[str, list[int]] = {}
        for number, ask in enumerate(asks):
            groups.setdefault(ask.path, []).append(number)
        plans = threads.together(
            [
                partial(_outcome, partial(self._plan, [asks[each] for each in group], max_gap))
                for group in groups.values()
            ],
            "look",
        )
        begun = [plan.begin() if isinstance(plan, _Plan) else plan for plan in plans]
        answers: list[bytes | Exception] = [b""] * len(asks)
        for group, plan in zip(groups.values(), begun, strict=True):
            for number, answer in zip(
                group, self._answers([asks[each] for each in group], plan), strict=True
            ):
                answers[number] = answer
        return answers

    def _plan(self, asks: Sequence[Ask], max_gap: int, *, fresh: bool = False) -> "_Plan":
        """Find out what is needed for asks of one object."""
        path = asks[0].path
        attributes = None if fresh or not self._store.pins else self._latest.get(path)
        is_known = attributes is not None
        if attributes is None:
            attributes = self.look(path)
        content = self.content(attributes)
        spans = [ask.span(content.size) for ask in asks]
        plan = _Plan(content, spans, max_gap)
        if is_known and not plan.jobs:
            return self._plan(asks, max_gap, fresh=True)  # nobody else would notice a change
        return plan

    def _answers(
        self, asks: Sequence[Ask], plan: "_Plan | Exception"
    ) -> Sequence[bytes | Exception]:
        found = plan if isinstance(plan, Exception) else _outcome(plan.result)
        if not isinstance(found, Exception):
            return found
        if isinstance(found, S4ObjectChangedError):
            self.forget(asks[0].path)
        elif len(asks) == 1:
            return [found]
        return [_outcome(partial(self._alone, ask)) for ask in asks]  # each has a fate of its own

    def _alone(self, ask: Ask) -> bytes:
        """Answer one ask from what is there now."""

        def read() -> bytes:
            (answer,) = self._plan([ask], MAX_GAP, fresh=True).result()
            return answer

        return _settled(read)

    def stream(self, path: str) -> tuple[Attributes, Iterator[bytes]]:
        """Open a whole object; the iterator raises what is found to be wrong on the way.

        S4ObjectChangedError when it is overwritten meanwhile.
        """
        attributes, first, dictionary = self._begun(path)
        return attributes, read_whole(self._store, attributes, first, dictionary)

    def _begun(self, path: str) -> tuple[Attributes, bytes, ZstdDict | None]:
        """Look at an object and read its beginning."""

        def begin() -> tuple[Attributes, bytes]:
            head, first = self._store.first(path, FIRST)
            return self._measure(describe(head), hop=False), first

        attributes, first = _settled(begin)
        self._latest.put(path, attributes)
        if attributes.stored.form is Form.ENCRYPTED:
            raise S4EncryptedObjectError(path, "its metadata says so")
        dict_id = attributes.stored.dict_id
        dictionary = None if dict_id is None else self._dictionaries.get(path, dict_id)
        return attributes, first, dictionary

    def whole(self, path: str) -> bytes:
        """Return a whole object."""

        def read() -> bytes:
            attributes, first, dictionary = self._begun(path)
            if _is_placed(attributes):
                return read_into_one(self._store, attributes, first, dictionary)
            return _joined_up(read_whole(self._store, attributes, first, dictionary))

        return _settled(read)


def _is_placed(attributes: Attributes) -> bool:
    """Whether room for the whole original may be set aside on the word of the metadata."""
    if attributes.stored.form not in {Form.FRAMED, Form.DICTIONARY} or attributes.size is None:
        return False
    return _SMALL < attributes.size <= attributes.head.size * _GROWTH


class _Plan:
    """Spans of one version, and the work that reads them."""

    def __init__(self, content: Content, spans: Sequence[Span], max_gap: int) -> None:
        self._content = content
        self._spans = spans
        self._max_gap = max_gap
        self._ready, self.jobs = content.plan(spans, max_gap)
        self._running: list[Future[list[Slice]]] | None = None

    def begin(self) -> "_Plan":
        """Start the work, so that other plans go on beside it."""
        if len(self.jobs) > 1:
            self._running = [threads.pool().submit(job) for job in self.jobs]
        return self

    def result(self) -> list[bytes]:
        """Wait for the work; with another index when this one was wrong."""
        try:
            if self._running is None:
                done = threads.together(self.jobs) if self.jobs else []
            else:
                done = [each.result() for each in self._running]
        except IndexMismatch as mismatch:
            threads.settle(self._running or ())
            self._content.distrust(mismatch.index)
            return _Plan(self._content, self._spans, self._max_gap).result()
        finally:
            threads.settle(self._running or ())
        return _joined(len(self._spans), [*self._ready, *chain.from_iterable(done)])


def read_spans(content: Content, spans: Sequence[Span]) -> list[bytes]:
    """Read spans of one version, beside each other."""
    return _Plan(content, spans, MAX_GAP).result()


def load(content: Content, offset: int, want: int) -> tuple[Span, Plain]:
    """Return a block that holds the byte at `offset`, and where in the original it stands."""
    while True:
        try:
            return content.load(offset, want)
        except IndexMismatch as mismatch:
            content.distrust(mismatch.index)


def _outcome(work: Callable[[], _T]) -> _T | Exception:
    try:
        return work()
    except Exception as error:
        return error


def _joined_up(pieces: Iterator[bytes]) -> bytes:
    """All pieces in one; each is let go as soon as it is copied, and one alone is not copied."""
    first = next(pieces, b"")
    whole: io.BytesIO | None = None
    for piece in pieces:
        if whole is None:
            whole = io.BytesIO()
            whole.write(first)
        whole.write(piece)
    return first if whole is None else whole.getvalue()


def _joined(count: int, slices: Sequence[Slice]) -> list[bytes]:
    """Put the slices of each span together."""
    parts: list[list[tuple[int, bytes]]] = [[] for _ in range(count)]
    for number, offset, data in slices:
        parts[number].append((offset, data))
    return [b"".join(data for _, data in sorted(each, key=lambda part: part[0])) for each in parts]


def _settled(read: Callable[[], _T]) -> _T:
    """Do what takes several requests again when the object is overwritten in between."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return read()
        except S4ObjectChangedError:
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError
