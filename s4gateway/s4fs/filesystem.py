"""`s4://`: an fsspec filesystem that reads and writes stored objects with no gateway.

It stands over another fsspec filesystem, s3fs by default, which does the requests; pandas, pyarrow,
DuckDB, Polars and dask find it by its protocol. Sizes, ETags and bytes are those of the originals.
Writing must be asked for. What would break objects (append, copy, rename, delete) is refused with a
pointer to the gateway, whose endpoint offers all of S3.
"""

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.callbacks import DEFAULT_CALLBACK

from s4gateway.codecs import zstd
from s4gateway.codecs.base import Buffer
from s4gateway.s4fs import paths
from s4gateway.s4fs.encoding import checked_codec
from s4gateway.s4fs.errors import S4ReadOnlyError, S4UnsupportedError
from s4gateway.s4fs.file import S4WriteFile
from s4gateway.s4fs.listing import Listings
from s4gateway.s4fs.reader import Reader
from s4gateway.s4fs.reading import Readable
from s4gateway.s4fs.s3_store import S3Store, is_s3fs
from s4gateway.s4fs.store import FsspecStore, Store
from s4gateway.s4fs.writer import Writer

_PIECE: Final = 4 * 1024 * 1024
# What fsspec itself takes; everything else is for the filesystem below.
_FSSPEC_OPTIONS: Final = (
    "use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache",
    "asynchronous", "loop", "batch_size",
)  # fmt: skip


class S4FileSystem(Readable):
    r"""Objects as their writers sent them, over a filesystem that holds them compressed.

    `fs` is the filesystem below, or `target_protocol` and `target_options` say which to open; other
    options go there, too. `write_enabled` allows to write, as `write_codec` ("cpu-zstd",
    "passthrough", or "auto": whichever the gateway would choose) at `write_zstd_level` (1 to 22).
    `allow_inexact_open` opens what lies in front of a fault in objects whose length nothing tells.
    With `physical_listings`, listings show stored sizes and ETags and cost no further requests.

    >>> from fsspec.implementations.memory import MemoryFileSystem
    >>> class Store(MemoryFileSystem):
    ...     s4fs_metadata_pipe_kwarg = "metadata"
    ...     kept = {}
    ...     def pipe_file(self, path, value, metadata=None, **_):
    ...         super().pipe_file(path, value)
    ...         self.kept[self._strip_protocol(path)] = metadata
    ...     def metadata(self, path):
    ...         return self.kept.get(self._strip_protocol(path))
    >>> fs = S4FileSystem(fs=Store(), write_enabled=True)
    >>> fs.pipe_file("s4://bucket/log", b"one line\n" * 10_000)
    >>> fs.info("s4://bucket/log")["size"], fs.cat_file("s4://bucket/log", -9, None)
    (90000, b'one line\n')
    """

    protocol = "s4"
    root_marker = ""

    def __init__(  # noqa: PLR0913 - options of a filesystem come by name
        self,
        fs: Any = None,
        target_protocol: str = "s3",
        target_options: Mapping[str, Any] | None = None,
        *,
        allow_inexact_open: bool = False,
        write_enabled: bool = False,
        write_codec: str = "cpu-zstd",
        write_zstd_level: int = zstd.DEFAULT_LEVEL,
        physical_listings: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{name: kwargs[name] for name in _FSSPEC_OPTIONS if name in kwargs})
        rest = {name: value for name, value in kwargs.items() if name not in _FSSPEC_OPTIONS}
        if fs is None:
            fs = fsspec.filesystem(target_protocol, **(target_options or {}), **rest)
        elif rest or target_options:
            msg = (
                f"{', '.join([*rest, *(target_options or {})])}: set these on the fs that is given"
            )
            raise ValueError(msg)
        if kwargs.get("asynchronous") or getattr(fs, "asynchronous", False):
            msg = "asynchronous=True: this filesystem and the one below are called from threads"
            raise ValueError(msg)
        self.fs = fs
        self._store: Store = S3Store(fs) if is_s3fs(fs) else FsspecStore(fs)
        self._reader = Reader(self._store)
        self._listings = Listings(self._store, self._reader, physical=physical_listings)
        self._writable = write_enabled
        self._inexact = allow_inexact_open
        codec = checked_codec(write_codec)
        self._writer = Writer(self._store, codec, write_zstd_level, self._wrote)

    def _open(
        self, path: str, mode: str = "rb", block_size: int | None = None,
        autocommit: bool = True, cache_options: Any = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Open an object: "rb", or "wb" and "xb" (only where nothing is) if writing is enabled."""
        if mode == "rb":
            return self._open_to_read(self._visible(path, kwargs), block_size)
        if mode not in {"wb", "xb"}:
            msg = f"{path}: mode {mode!r}"
            raise S4UnsupportedError(msg, "an object is written whole: read it, and write it anew")
        self._require_writable(f"open({path!r}, {mode!r})")
        self._writer.check(path, kwargs)
        if mode == "xb" and self.exists(path):
            raise FileExistsError(path)
        return S4WriteFile(self, self._writer, path, mode, autocommit=autocommit, options=kwargs)

    # --- writing

    def _require_writable(self, operation: str) -> None:
        if not self._writable:
            raise S4ReadOnlyError(operation)

    def _wrote(self, path: str) -> None:
        """Forget what was known about a path, above and below."""
        self._reader.forget(path)
        for name in (path, paths.sidecar_path(path), self._parent(path)):
            self.invalidate_cache(name)

    def pipe_file(self, path: str, value: Buffer, mode: str = "overwrite", **kwargs: Any) -> None:
        """Store bytes as an object; with `mode="create"` only where nothing is.

        `Metadata`, `ContentType` and other arguments of a PUT go to the store.
        """
        self._require_writable(f"pipe_file({path!r})")
        view = memoryview(value).cast("B")
        pieces = (view[low : low + _PIECE] for low in range(0, len(view), _PIECE))
        self._writer.write(
            self._strip_protocol(path), pieces, len(view),
            create=_creates(mode), options=kwargs,
        )  # fmt: skip

    def put_file(
        self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite",
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Store a local file as an object; with `mode="create"` only where nothing is."""
        self._require_writable(f"put_file({rpath!r})")
        if Path(lpath).is_dir():
            return
        with Path(lpath).open("rb") as local:
            size = os.fstat(local.fileno()).st_size
            callback.set_size(size)
            self._writer.write(
                self._strip_protocol(rpath), _read(local, callback), size,
                create=_creates(mode), options=kwargs,
            )  # fmt: skip

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Store an empty object."""
        self._require_writable(f"touch({path!r})")
        if not truncate and self.exists(path):
            msg = f"touch({path!r}, truncate=False)"
            raise S4UnsupportedError(msg, "the time of an object is that of its last write")
        self.pipe_file(path, b"", **kwargs)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Do nothing: a directory is there as soon as something is in it."""
        self._require_writable(f"mkdir({path!r})")

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing, as `mkdir`."""
        self._require_writable(f"makedirs({path!r})")

    def _refuse(self, operation: str) -> None:
        self._require_writable(operation)
        raise S4UnsupportedError(operation)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Refused: metadata, sidecar and dictionary of a copy are the gateway's work."""
        self._refuse(f"cp_file({path1!r}, {path2!r})")

    def copy(self, path1: Any, path2: Any, *args: Any, **kwargs: Any) -> None:
        """Refused, as `cp_file`."""
        self._refuse(f"copy({path1!r}, {path2!r})")

    def mv(self, path1: Any, path2: Any, *args: Any, **kwargs: Any) -> None:
        """Refused, as `cp_file`."""
        self._refuse(f"mv({path1!r}, {path2!r})")

    def rm(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Refused: objects are deleted through the gateway, with their sidecars."""
        self._refuse(f"rm({path!r})")

    def rm_file(self, path: str) -> None:
        """Refused, as `rm`."""
        self._refuse(f"rm_file({path!r})")

    def _rm(self, path: str) -> None:
        self._refuse(f"rm({path!r})")

    def rmdir(self, path: str) -> None:
        """Refused: directories are not objects of their own."""
        self._refuse(f"rmdir({path!r})")


def _creates(mode: str) -> bool:
    if mode not in {"overwrite", "create"}:
        msg = f"mode is 'overwrite' or 'create', not {mode!r}"
        raise ValueError(msg)
    return mode == "create"


def _read(local: io.BufferedReader, callback: Any) -> Iterator[Buffer]:
    while piece := local.read(_PIECE):
        yield piece
        callback.relative_update(len(piece))
