"""What compressing an object again came to, so that it is not read again to find that out.

A mark on the object itself would be a copy of it: a write for each object that gains nothing, a new
Last-Modified, and on a versioned bucket a version. So it is kept beside the run, in an SQLite file
(https://www.sqlite.org/), by bucket, key, ETag and level: an object that was written since has
another ETag. What was measured is kept, not the verdict: another gain can be asked for.

Rule: the file only ever saves work. It holds so many rows and forgets the oldest, and when it fails
the run goes on without it.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from s4gateway.objects.cache import ObjectName
from s4gateway.state.files import StateFileError, StateFileParse, StateFileRead

LIMIT: Final = 2_000_000  # rows; about 200 bytes each
_WAIT: Final = 0.5  # seconds for another run's write; the event loop waits, too
_SLACK: Final = 10_000  # rows above the limit before the oldest are dropped
_TABLE: Final = """
create table if not exists recompacted (
    number integer primary key, bucket text, key text, etag text, level integer, size integer,
    unique (bucket, key, level) on conflict replace
)
"""


class Remembered:
    """Stored sizes by object and level, in the file at `path`; None remembers nothing.

    Opening raises StateFileError. Used by one thread.

    >>> with_nothing = Remembered(None)
    >>> with_nothing.add(("bucket", "key"), "etag", 19, 100)
    >>> with_nothing.size(("bucket", "key"), "etag", 19) is None
    True
    """

    def __init__(self, path: Path | None, limit: int = LIMIT) -> None:
        self.notes: tuple[str, ...] = ()  # what went wrong with it
        self._limit = limit
        self._added = 0
        self._rows: sqlite3.Connection | None = None
        if path is not None:
            self._rows = _open(path)

    def size(self, name: ObjectName, etag: str, level: int) -> int | None:
        """Bytes this version took at that level; None when that is not known."""
        found = None
        with self._file() as rows:
            if rows is not None:
                found = rows.execute(
                    "select etag, size from recompacted where bucket = ? and key = ? and level = ?",
                    (*map(_text, name), level),
                ).fetchone()
        return found[1] if found is not None and found[0] == etag else None

    def add(self, name: ObjectName, etag: str, level: int, size: int) -> None:
        """Remember it."""
        with self._file() as rows:
            if rows is None:
                return
            rows.execute(
                "insert into recompacted (bucket, key, etag, level, size) values (?, ?, ?, ?, ?)",
                (*map(_text, name), etag, level, size),
            )
            self._added += 1
            if self._added % _SLACK == 0:
                self._forget(rows)

    @contextlib.contextmanager
    def _file(self) -> Iterator[sqlite3.Connection | None]:
        """The file, which is given up once it fails: a wait for it holds up the whole run."""
        try:
            yield self._rows
        except sqlite3.Error as error:
            self.notes = (f"The state file was given up during the run: {error}.",)
            rows, self._rows = self._rows, None
            if rows is not None:
                with contextlib.suppress(sqlite3.Error):
                    rows.close()

    def _forget(self, rows: sqlite3.Connection) -> None:
        rows.execute(
            "delete from recompacted where number <= (select max(number) from recompacted) - ?",
            (self._limit,),
        )

    def close(self) -> None:
        """Close the file; everything is in it already."""
        with self._file() as rows:
            if rows is not None:
                self._forget(rows)
                self._rows = None
                rows.close()


def _open(path: Path) -> sqlite3.Connection:
    try:
        rows = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
    except sqlite3.Error as error:
        raise StateFileRead(path, str(error)) from error
    try:
        # Losing the last rows in a power failure costs reading those objects again.
        rows.execute("pragma journal_mode = wal")
        rows.execute("pragma synchronous = normal")
        rows.execute(_TABLE)
    except sqlite3.Error as error:
        rows.close()
        raise _refusal(path, error) from error
    return rows


def _refusal(path: Path, error: sqlite3.Error) -> StateFileError:
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return StateFileParse(path, "is no file of this tool")
    return StateFileRead(path, str(error))


def _text(text: str) -> str:
    """Keys may hold what is no UTF-8, which SQLite takes no text of."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
