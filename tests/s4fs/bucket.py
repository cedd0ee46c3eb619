"""A filesystem in memory that stores metadata and gives ETags, counts what is asked of it, and can
be made to fail; and stored objects of every form, put into it by hand.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

from s4gateway.s4fs import S4FileSystem
from s4gateway.wire import frame, keys
from s4gateway.wire.index import FrameEntry, FrameIndex

BUCKET = "bucket"


class Bucket(MemoryFileSystem):
    """Objects with metadata. `requests` are what was asked: a verb, a path, and a range."""

    protocol = "bucketfs"
    cachable = False
    s4fs_metadata_pipe_kwarg = "metadata"

    def __init__(self) -> None:
        super().__init__(global_store=False)
        self.kept: dict[str, dict[str, str]] = {}
        self.requests: list[tuple[str, str, int | None, int | None]] = []
        self.fails: Callable[[str, str], BaseException | None] = lambda verb, path: None
        self.invalidated: list[str | None] = []

    def _asked(self, verb: str, path: str, start: int | None = None, end: int | None = None):
        self.requests.append((verb, path, start, end))
        if (error := self.fails(verb, path)) is not None:
            raise error

    def pipe_file(self, path: str, value: bytes, mode="overwrite", metadata=None, **_: Any):
        path = self._strip_protocol(path)
        self._asked("PUT", path)
        super().pipe_file(path, bytes(value), mode=mode)
        self.kept[path] = dict(metadata or {})

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        self._asked("HEAD", path)
        found = super().info(path)
        if found["type"] == "file":
            found["ETag"] = f'"{self.etag(path)}"'
            found["metadata"] = self.kept.get(path, {})
        return found

    def etag(self, path: str) -> str:
        return hashlib.md5(self.stored(path)).hexdigest()

    def stored(self, path: str) -> bytes:
        return self.store[self._strip_protocol(path)].getvalue()

    def cat_file(self, path: str, start=None, end=None, **_: Any) -> bytes:
        path = self._strip_protocol(path)
        self._asked("GET", path, start, end)
        if path not in self.store:
            raise FileNotFoundError(path)
        return self.stored(path)[start:end]

    def _rm(self, path: str) -> None:
        path = self._strip_protocol(path)
        self._asked("DELETE", path)
        super()._rm(path)

    rm_file = _rm

    def invalidate_cache(self, path: str | None = None) -> None:
        self.invalidated.append(path)
        super().invalidate_cache(path)

    def verbs(self, verb: str) -> list[str]:
        return [path for asked, path, _, _ in self.requests if asked == verb]

    def fetched(self, path: str) -> int:
        """Bytes of an object that were read."""
        path = self._strip_protocol(path)
        return sum(end - start for verb, asked, start, end in self.requests
                   if (verb, asked) == ("GET", path))  # fmt: skip


def reading(below: Bucket, **options: Any) -> S4FileSystem:
    return S4FileSystem(fs=below, skip_instance_cache=True, **options)


def writing(below: Bucket, **options: Any) -> S4FileSystem:
    return reading(below, write_enabled=True, **options)


def put(
    below: Bucket, key: str, stored: bytes, metadata: Mapping[str, str],
    index: FrameIndex | None = None,
) -> str:  # fmt: skip
    """Store an object as another writer would; the index is bound to it. Forgets the requests."""
    path = f"{BUCKET}/{key}"
    below.pipe_file(path, stored, metadata=metadata)
    if index is not None:
        bound = index.bind(below.etag(path), len(stored))
        below.pipe_file(keys.sidecar_key(path), bound.encode())
    below.requests.clear()
    return path


def index_of(stored: bytes) -> FrameIndex:
    """The index the frames themselves give."""
    entries, original = [], 0
    for offset, header, _ in frame.walk(stored):
        size = header.original_size
        entries.append(FrameEntry(original, size, offset, header.stored_size))
        original += size
    return FrameIndex.from_entries(entries, total_padded=len(stored))
