"""The filesystem below, reduced to what stored objects need of it.

    head     size, ETag and user metadata of one version
    first    the same and the first bytes, in one request where that is possible
    read     stored bytes of exactly the version a head describes
    write    body and user metadata in one request, perhaps only where nothing is
    remove   delete

Rule: a reader never mixes two versions of an object. Either the store takes part in that (`pins`),
or the version is looked at again after each read. Errors of the filesystem below pass through.
"""

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Final, Protocol

from s4gateway.s4fs.errors import S4MetadataUnsupportedError, S4ObjectChangedError

_METADATA_KEYS: Final = ("metadata", "Metadata")
_ETAG_KEYS: Final = ("ETag", "etag")
_TIME_KEYS: Final = ("LastModified", "mtime", "updated", "modified", "last_modified", "created")


@dataclass(frozen=True, slots=True)
class Head:
    """One stored version: `size` in stored bytes, `etag` without quotes, None where there is none.

    `metadata` is that of the user, names in lower case; `facts` are the entries of `info` that go
    through as they are. `version` is equal for two heads only if the object is the same.
    """

    path: str
    size: int
    etag: str | None
    version: str
    metadata: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)


class Store(Protocol):
    """What holds the stored bytes."""

    @property
    def pins(self) -> bool:
        """Whether a read fails by itself when the object has changed."""

    def split(self, path: str) -> tuple[str, str]:
        """Return bucket and key of a path, without a version."""

    def head(self, path: str) -> Head:
        """Look at an object; FileNotFoundError when it is none."""

    def first(self, path: str, limit: int, *, whole: bool = False) -> tuple[Head, bytes]:
        """Look at an object and read its first `limit` bytes.

        With `whole`, nothing is read of a longer one.
        """

    def read(self, head: Head, start: int, end: int) -> bytes:
        """Return stored bytes [start, end) of that version; S4ObjectChangedError."""

    def write(
        self, path: str, body: IO[bytes], size: int, metadata: Mapping[str, str],
        *, create: bool, options: Mapping[str, Any],
    ) -> str | None:  # fmt: skip
        """Store `size` bytes from the start of `body`; return the ETag, None when it is not known.

        `create`: only where nothing is, FileExistsError otherwise. S4MetadataUnsupportedError.
        """

    def remove(self, path: str) -> None:
        """Delete an object."""


class FsspecStore:
    """Any synchronous fsspec filesystem.

    Metadata is read from its `info`, or by its method `metadata`. It can be written to when the
    attribute `s4fs_metadata_pipe_kwarg` names the argument of `pipe_file` that takes it.
    """

    pins: Final = False

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        # One that is not asynchronous inside may share a file position between threads.
        self._turn: contextlib.AbstractContextManager[Any] = (
            contextlib.nullcontext() if getattr(fs, "async_impl", False) else threading.Lock()
        )

    def split(self, path: str) -> tuple[str, str]:
        """Return the first word of the path, and the rest."""
        bucket, _, key = path.lstrip("/").partition("/")
        return bucket, key

    def head(self, path: str) -> Head:
        """Look at an object; FileNotFoundError when it is none."""
        info = self._fs.info(path)
        if info["type"] != "file":
            raise FileNotFoundError(path)
        etag = _opaque(next((info[name] for name in _ETAG_KEYS if info.get(name)), None))
        times = "/".join(str(info[name]) for name in _TIME_KEYS if name in info)
        version = etag or f"{info['size']}/{times}"
        return Head(path, info["size"], etag, version, self._metadata(path, info), info)

    def _metadata(self, path: str, info: Mapping[str, Any]) -> dict[str, str]:
        found = next((info[name] for name in _METADATA_KEYS if info.get(name)), None)
        if found is None and hasattr(self._fs, "metadata"):
            found = self._fs.metadata(path)
        return {str(name).lower(): str(value) for name, value in (found or {}).items()}

    def first(self, path: str, limit: int, *, whole: bool = False) -> tuple[Head, bytes]:
        """Look at an object, then read its first bytes."""
        head = self.head(path)
        if not head.size or (whole and head.size > limit):
            return head, b""
        return head, self.read(head, 0, min(limit, head.size))

    def read(self, head: Head, start: int, end: int) -> bytes:
        """Read, then look whether the object is still the same."""
        with self._turn:
            data: bytes = self._fs.cat_file(head.path, start=start, end=end)
        try:
            now = self.head(head.path)
        except FileNotFoundError as error:
            raise S4ObjectChangedError(head.path) from error
        if now.version != head.version or len(data) != end - start:
            raise S4ObjectChangedError(head.path)
        return data

    def write(
        self, path: str, body: IO[bytes], size: int, metadata: Mapping[str, str],
        *, create: bool, options: Mapping[str, Any],
    ) -> str | None:  # fmt: skip
        """Write the body from memory: `pipe_file` takes nothing else."""
        arguments = dict(options)
        if metadata:
            arguments[self._metadata_argument()] = dict(metadata)
        if create and self._fs.exists(path):
            raise FileExistsError(path)
        body.seek(0)
        self._fs.pipe_file(path, body.read(size), **arguments)
        return self.head(path).etag

    def _metadata_argument(self) -> str:
        name = getattr(self._fs, "s4fs_metadata_pipe_kwarg", None)
        if not isinstance(name, str):
            msg = f"{type(self._fs).__name__} is not known to store user metadata with an object"
            raise S4MetadataUnsupportedError(
                msg,
                "write over s3fs, or set s4fs_metadata_pipe_kwarg on the filesystem to the name of "
                "the argument of its pipe_file that takes metadata",
            )
        return name

    def remove(self, path: str) -> None:
        """Delete an object; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)


def _opaque(etag: Any) -> str | None:
    """An ETag without quotes and weak mark."""
    return str(etag).strip().removeprefix("W/").strip('"') or None if etag else None
