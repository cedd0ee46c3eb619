"""Files of the filesystem: random access over frames, and writing as one object.

Reading holds the block it is in, a frame where there are frames, and while the reads follow each
other the next ones are fetched and decoded beforehand. All reads of an open file see the version it
was opened at. Writing encodes as it goes; the object is stored when the file is closed without an
error, and not at all otherwise.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Final

from fsspec.spec import AbstractBufferedFile

from s4gateway.codecs.base import Buffer
from s4gateway.s4fs import reader, threads
from s4gateway.s4fs.attributes import Attributes
from s4gateway.s4fs.content import Content, Span
from s4gateway.s4fs.plain import Plain
from s4gateway.s4fs.writer import Writer

_SMALLEST: Final = 64 * 1024  # bytes read of an object without frames, when less is asked for
_DEFAULT_LARGEST: Final = 4 * 1024 * 1024  # and at most, while reads follow each other
_PATIENCE: Final = 1  # blocks that may follow each other by chance
_AHEAD: Final = 2  # blocks fetched before they are asked for
_LONG: Final = 2  # blocks; a read of more is done at once, beside each other
_LINE: Final = 8192


class S4ReadFile(AbstractBufferedFile):  # type: ignore[misc] # fsspec has no types
    """An object opened for reading, of the version it had then."""

    loc: int
    closed: bool

    def __init__(
        self, fs: Any, attributes: Attributes, content: Content, details: Mapping[str, Any],
        block_size: int | None,
    ) -> None:  # fmt: skip
        self._details = dict(details)
        super().__init__(
            fs, attributes.path, "rb", block_size, cache_type="none", size=content.size
        )
        self._content = content
        self._largest = max(block_size or _DEFAULT_LARGEST, _SMALLEST)
        self._want = _SMALLEST
        self._followed = 0  # blocks entered one after the other
        self._span: Span = (0, 0)
        self._plain = Plain(b"")
        self._coming: dict[Span, Future[tuple[Span, Plain]]] = {}

    def read(self, length: int | None = -1) -> bytes:
        """Return up to `length` bytes from here on, all that are left by default."""
        self._require_open()
        end = self.size if length is None or length < 0 else min(self.size, self.loc + length)
        if self._span[0] <= self.loc < end <= self._span[1]:
            data = self._plain.read(self.loc - self._span[0], end - self._span[0])
        else:
            pieces = [*self._pieces(end)]
            alone = pieces[0] if len(pieces) == 1 else None
            data = alone if isinstance(alone, bytes) else b"".join(pieces)
        self.loc += len(data)
        return data

    def readinto(self, b: Any) -> int:
        """Fill a buffer from here on; return how many bytes there were."""
        self._require_open()
        out = memoryview(b).cast("B")
        filled = 0
        for piece in self._pieces(min(self.size, self.loc + len(out))):
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
        self.loc += filled
        return filled

    def _require_open(self) -> None:
        if self.closed:
            msg = "I/O operation on closed file."
            raise ValueError(msg)

    def _is_read_at_once(self, position: int, end: int) -> bool:
        """Whether a read is not done block by block: a long one, or one that jumps over borders.

        Neighbouring frames come with one request then.
        """
        start, stop = self._content.block(position, self._largest)
        if end - position > _LONG * (stop - start):
            return True
        known = (self._span, *self._coming)
        jumps = position != self._span[1] and not any(_holds(span, position) for span in known)
        return jumps and end > stop

    def _pieces(self, end: int) -> Iterator[Buffer]:
        """Yield the bytes from here to `end`."""
        position = self.loc
        if position < end and self._is_read_at_once(position, end):
            yield from reader.read_spans(self._content, [(position, end)])
            self._span, self._plain = (end, end), Plain(b"")
            return
        while position < end:
            self._enter(position, end - position)
            start, stop = self._span
            stop = min(stop, end)
            yield self._plain.view(position - start, stop - start)
            position = stop

    def _enter(self, position: int, want: int) -> None:
        """Make the block that holds `position` the one at hand."""
        if _holds(self._span, position):
            return
        follows = position == self._span[1]  # as the beginning of the object does
        self._followed = self._followed + 1 if follows else 0
        grown = min(self._want * 2, self._largest) if position else _SMALLEST
        self._want = grown if follows else _SMALLEST
        self._span, self._plain = (position, position), Plain(b"")  # one block less in memory
        found = self._arriving(position, max(self._want, want))
        if found is None or not _holds(found[0], position):  # planned by an index that was wrong
            found = reader.load(self._content, position, max(self._want, want))
        self._span, self._plain = found

    def _arriving(self, position: int, want: int) -> tuple[Span, Plain] | None:
        """Return the block at `position` if it was fetched ahead, and see to the next ones."""
        if not any(_holds(span, position) for span in self._coming):
            self._abandon(self._coming)
        self._abandon([span for span in self._coming if span[1] <= position])
        if self._followed > _PATIENCE:
            self._fetch_ahead(position, want)
        block = next((span for span in self._coming if _holds(span, position)), None)
        return None if block is None else self._coming.pop(block).result()

    def _fetch_ahead(self, position: int, want: int) -> None:
        """Have the block at `position` and those after it on their way."""
        for span in self._coming:
            position = max(position, span[1])
        while len(self._coming) <= _AHEAD and position < self.size:
            span = self._content.block(position, want)
            self._coming[span] = threads.pool().submit(reader.load, self._content, position, want)
            position, want = span[1], self._want

    def _abandon(self, spans: Iterable[Span]) -> None:
        threads.settle([self._coming.pop(span) for span in [*spans]])

    def readuntil(self, char: bytes = b"\n", blocks: int | None = None) -> bytes:
        """Return the bytes up to and including `char`, or to the end."""
        self._require_open()
        pieces: list[bytes] = []
        while self.loc < self.size:
            start = self.loc
            self._enter(start, blocks or _LINE)
            rest = self.read(min(blocks or _LINE, self._span[1] - start))
            found = rest.find(char)
            if found >= 0:
                pieces.append(rest[: found + len(char)])
                self.loc = start + found + len(char)
                break
            pieces.append(rest)
        return b"".join(pieces)

    def _fetch_range(self, start: int, end: int) -> bytes:
        (data,) = reader.read_spans(self._content, [(start, end)])
        return data

    def close(self) -> None:
        """Let go of what is held; what is under way is waited for."""
        if not self.closed and hasattr(self, "_coming"):
            self._abandon(self._coming)
            self._plain = Plain(b"")
            self._span = (0, 0)
        super().close()

    def __reduce__(self) -> Any:
        return _reopened, (self.fs, self.path, self.blocksize, self.loc)


def _holds(span: Span, position: int) -> bool:
    return span[0] <= position < span[1]


def _reopened(fs: Any, path: str, block_size: int, position: int) -> Any:
    file = fs.open(path, "rb", block_size=block_size)
    file.seek(position)
    return file


class S4WriteFile(AbstractBufferedFile):  # type: ignore[misc] # fsspec has no types
    """An object being written; stored by `close`, or by `commit` of a transaction.

    Left by an exception, or never closed, it stores nothing.
    """

    loc: int
    closed: bool

    def __init__(
        self, fs: Any, writer: Writer, path: str, mode: str, *, autocommit: bool,
        options: Mapping[str, Any],
    ) -> None:  # fmt: skip
        super().__init__(fs, path, mode, autocommit=autocommit)
        self._writer = writer
        self._options = options
        self._encoder = writer.encoder(None)

    def write(self, data: Buffer) -> int:
        """Take the next bytes; they are encoded at once."""
        if self.closed or self.forced:
            msg = "I/O operation on closed file."
            raise ValueError(msg)
        length = memoryview(data).nbytes
        self._encoder.feed(data)
        self.loc += length
        return length

    def flush(self, force: bool = False) -> None:
        """Do nothing: an object cannot be stored in part."""

    def close(self) -> None:
        """Store the object, unless a transaction will."""
        if self.closed:
            return
        self.closed = True
        self.forced = True
        if self.autocommit:
            self.commit()

    def commit(self) -> None:
        """Store the object."""
        try:
            encoded = self._encoder.finish()
            self._writer.store(self.path, encoded, create=self.mode == "xb", options=self._options)
        finally:
            self._encoder.close()

    def discard(self) -> None:
        """Store nothing."""
        self.closed = True
        self.forced = True
        if hasattr(self, "_encoder"):
            self._encoder.close()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        self.discard()
