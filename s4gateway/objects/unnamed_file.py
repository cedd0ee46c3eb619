"""A temporary file without a name, shared safely between the event loop and disk threads.

Rule: its descriptor is closed only when no thread is inside a read or write of it. A request that
is cancelled closes its files at once while a thread may still be writing; closing the number under
that thread would let it write into whatever file gets the number next.
"""

import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

Piece = bytes | bytearray | memoryview


class UnnamedFile:
    """Append, read anywhere, close from any thread; the bytes vanish with the last of them.

    Raises OSError when the directory cannot be written or the disk is full, and on use after close.
    """

    __slots__ = ("_closed", "_descriptor", "_lock")

    def __init__(self, directory: Path | None = None) -> None:
        self._descriptor = _open(directory)
        self._lock = threading.Lock()
        self._closed = False

    def append(self, pieces: Sequence[Piece]) -> None:
        """Write every byte of `pieces` at the end."""
        try:
            with self._lock:
                self._check()
                for piece in pieces:
                    view = memoryview(piece)
                    while view:
                        view = view[os.write(self._descriptor, view) :]
        finally:
            self._close_if_asked()

    def read(self, count: int, offset: int) -> bytes:
        """Return up to `count` bytes at `offset`."""
        try:
            with self._lock:
                self._check()
                return os.pread(self._descriptor, count, offset)
        finally:
            self._close_if_asked()

    def duplicate(self) -> int:
        """Return a descriptor of its own for the same bytes, to be closed by the caller."""
        try:
            with self._lock:
                self._check()
                return os.dup(self._descriptor)
        finally:
            self._close_if_asked()

    def close(self) -> None:
        """Close now, or when the thread that is using the file has finished; never waits."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            try:
                if self._descriptor >= 0:
                    os.close(self._descriptor)
                    self._descriptor = -1
            finally:
                self._lock.release()

    def _check(self) -> None:
        if self._closed:
            msg = "the file is closed"
            raise OSError(msg)

    def _close_if_asked(self) -> None:
        if self._closed:
            self.close()


def _open(directory: Path | None) -> int:
    where = directory if directory is not None else Path(tempfile.gettempdir())
    try:
        return os.open(where, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (AttributeError, OSError):  # not Linux, or a filesystem without O_TMPFILE
        descriptor, name = tempfile.mkstemp(dir=where, prefix="s4-spool-")
        Path(name).unlink()
        return descriptor
