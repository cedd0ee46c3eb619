"""State files: read whole and bounded, replaced whole or not at all, locked, set aside when bad.

Rules: a reader sees the old content or the new one, never a part, and after a power failure, too:
the new content is on the disk before it gets its name (fsync of the file, rename, fsync of the
directory, https://pubs.opengroup.org/onlinepubs/9799919799/functions/fsync.html). Whoever changes a
file that processes share holds its lock while it reads and writes. What cannot be read is renamed,
never overwritten.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_PRIVATE: Final = 0o600
_PIECE: Final = 1024 * 1024
_TURN_SECONDS: Final = 0.002  # between looks at a lock that is waited for with a limit
# A directory on these file systems cannot be synchronised; a rename there is as durable as it gets.
_NO_SYNC: Final = frozenset((errno.EINVAL, errno.ENOTSUP))


class StateFileError(Exception):
    """Something is wrong with a state file; the message is one line that names it.

    StateFileRead    it cannot be read
    StateFileParse   it was read and is not what it should be
    StateFileWrite   it could not be replaced, or not made durable
    """

    def __init__(self, path: Path, cause: str) -> None:
        self.path = path
        self.cause = cause
        super().__init__(f"{path}: {cause}")


class StateFileRead(StateFileError):
    """The file is there and cannot be read."""


class StateFileParse(StateFileError):
    """The file's content is not a state of the kind it should hold."""


class StateFileWrite(StateFileError):
    """The file was not written; with `replaced` it was, and may not survive a power failure."""

    def __init__(self, path: Path, cause: str, *, replaced: bool = False) -> None:
        super().__init__(path, cause)
        self.replaced = replaced


def reason(error: OSError) -> str:
    """What the system says about a failure, without the path."""
    return error.strerror or str(error)


def read(path: Path, limit: int) -> bytes | None:
    """Return the file's bytes, None when there is none.

    Raises StateFileRead, and StateFileParse for more than `limit` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateFileRead(path, reason(error)) from error
    try:
        if (what := _odd(os.fstat(descriptor).st_mode)) is not None:
            raise StateFileRead(path, what)
        return _read_all(descriptor, path, limit)
    except OSError as error:
        raise StateFileRead(path, reason(error)) from error
    finally:
        with contextlib.suppress(OSError):  # nothing was written that could be lost by it
            os.close(descriptor)


def _read_all(descriptor: int, path: Path, limit: int) -> bytes:
    pieces = []
    count = 0
    while piece := os.read(descriptor, _PIECE):
        pieces.append(piece)
        count += len(piece)
        if count > limit:
            raise StateFileParse(path, f"larger than {limit} bytes")
    return b"".join(pieces)


def odd(path: Path) -> str | None:
    """Say what stands there instead of a file; None when a file does, or nothing."""
    try:
        return _odd(path.stat().st_mode)
    except OSError:
        return None


def _odd(mode: int) -> str | None:
    if stat.S_ISREG(mode):
        return None
    return "is a directory" if stat.S_ISDIR(mode) else "is not a regular file"


def write_atomic(path: Path, data: bytes, limit: int) -> None:
    """Replace the file by one with these bytes, on disk when this returns; raises StateFileWrite.

    A new file belongs to its owner alone (mode 0600); one that was there hands on its mode. More
    than `limit` bytes are refused: they could not be read again.
    """
    if len(data) > limit:
        raise StateFileWrite(path, f"would be larger than {limit} bytes")
    temporary, descriptor = _open_beside(path)
    try:
        try:
            _hand_on_mode(path, descriptor)
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)  # noqa: PTH105 - system calls stand here as what they are
    except OSError as error:
        # An error of the rename does not tell whether it was done; the old name's absence does.
        replaced = not os.path.lexists(temporary)
        if not replaced:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise StateFileWrite(path, reason(error), replaced=replaced) from error
    _sync_directory(path)


def check_writable(path: Path) -> None:
    """Raise StateFileWrite unless files can be made beside `path`."""
    temporary, descriptor = _open_beside(path)
    try:
        os.close(descriptor)
        temporary.unlink()
    except OSError as error:
        raise StateFileWrite(path, reason(error)) from error


def _open_beside(path: Path) -> tuple[Path, int]:
    """A new file in the directory of `path`, which a rename can put in its place."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return temporary, os.open(temporary, flags, _PRIVATE)
    except OSError as error:
        raise StateFileWrite(path, reason(error)) from error


def _hand_on_mode(path: Path, descriptor: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode != _PRIVATE:
            os.fchmod(descriptor, mode)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(path: Path) -> None:
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise StateFileWrite(path, reason(error), replaced=True) from error


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of writers that were killed; only while holding the file's lock."""
    leftover = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if leftover.fullmatch(entry.name):
                Path(entry.path).unlink(missing_ok=True)


def set_aside(path: Path, now: datetime) -> Path:
    """Rename the file to `<path>.corrupt-<utc>`; returns the new name. Raises StateFileWrite."""
    stem = f"{path.name}.corrupt-{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"
    target = path.with_name(stem)
    number = 1
    while os.path.lexists(target):
        number += 1
        target = path.with_name(f"{stem}-{number}")
    try:
        os.rename(path, target)  # noqa: PTH104 - as above
    except OSError as error:
        raise StateFileWrite(path, f"cannot be set aside: {reason(error)}") from error
    return target


class LockFile:
    """Mutual exclusion between processes by flock(2), on a file that is never replaced.

    Opening raises StateFileWrite. Two LockFiles of one process exclude each other, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = self._open()

    @contextlib.contextmanager
    def held(self, seconds: float | None = None) -> Iterator[int]:
        """Wait for the lock and hold it; gives the descriptor.

        Without `seconds` those who wait are served in turn, however long it takes. Raises
        StateFileWrite, also when `seconds` have passed.
        """
        try:
            self._acquire(None if seconds is None else time.monotonic() + seconds)
        except BlockingIOError as error:
            raise StateFileWrite(self.path, "another process holds the lock") from error
        except OSError as error:
            raise StateFileWrite(self.path, reason(error)) from error
        try:
            yield self._descriptor
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _acquire(self, deadline: float | None) -> None:
        while True:
            self._flock(deadline)
            try:
                here = self.path.stat()
            except FileNotFoundError:
                here = None
            if here is not None and os.path.samestat(here, os.fstat(self._descriptor)):
                return
            # The file was removed meanwhile: a lock on it excludes nobody who comes later.
            descriptor = self._open()
            os.close(self._descriptor)
            self._descriptor = descriptor

    def _flock(self, deadline: float | None) -> None:
        if deadline is None:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            return
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_TURN_SECONDS)
            else:
                return

    def _open(self) -> int:
        try:
            return os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, _PRIVATE
            )
        except OSError as error:
            raise StateFileWrite(self.path, reason(error)) from error

    def close(self) -> None:
        """Give the lock up for good; further calls do nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
