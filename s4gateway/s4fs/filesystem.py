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
from fsspec.spec import AbstractFileSystem

from s4gateway.codecs import zstd
from s4gateway.codecs.base import Buffer
from s4gateway.s4fs import paths
from s4gateway.s4fs.attributes import Attributes
from s4gateway.s4fs.encoding import checked_codec
from s4gateway.s4fs.errors import S4InexactSizeError, S4ReadOnlyError, S4UnsupportedError
from s4gateway.s4fs.file import S4ReadFile, S4WriteFile
from s4gateway.s4fs.listing import Listings, presented
from s4gateway.s4fs.reader import MAX_GAP, Ask, Reader
from s4gateway.s4fs.s3_store import S3Store, is_s3fs
from s4gateway.s4fs.store import FsspecStore, Store
from s4gateway.s4fs.writer import Writer

_PIECE: Final = 4 * 1024 * 1024
# What fsspec itself takes; everything else is for the filesystem below.
_FSSPEC_OPTIONS: Final = (
    "use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache",
    "asynchronous", "loop", "batch_size",
)  # fmt: skip


class S4FileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
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
        if getattr(fs, "asynchronous", False):
            msg = "the filesystem below is asynchronous; give one made without asynchronous=True"
            raise ValueError(msg)
        self.fs = fs
        self._store: Store = S3Store(fs) if is_s3fs(fs) else FsspecStore(fs)
        self._reader = Reader(self._store)
        self._listings = Listings(self._store, self._reader, physical=physical_listings)
        self._writable = write_enabled
        self._inexact = allow_inexact_open
        codec = checked_codec(write_codec)
        self._writer = Writer(self._store, codec, write_zstd_level, self._wrote)

    # --- what is there

    def _visible(self, path: str, options: Mapping[str, Any] | None = None) -> str:
        """The path without its protocol; FileNotFoundError for internal names.

        A version that is named by an argument, as s3fs takes it, becomes part of the path.
        """
        stripped: str = self._strip_protocol(path)
        version = (options or {}).get("version_id")
        if version is not None:
            stripped += f"{paths.VERSION_MARK}{version}"
        if paths.is_hidden(self._store, stripped):
            raise FileNotFoundError(path)
        return stripped

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """List a directory; sizes and ETags are those of the originals."""
        entries = self._listings.visible(self.fs.ls(self._visible(path), detail=True, **kwargs))
        if not detail:
            return sorted(entry["name"] for entry in entries)
        return self._listings.complete(entries)

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False,
        detail: bool = False, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """List everything below a path."""
        found = self.fs.find(
            self._visible(path), maxdepth=maxdepth, withdirs=withdirs, detail=True, **kwargs
        )
        return self._entries(found, detail=detail)

    def glob(self, path: str, maxdepth: int | None = None, **kwargs: Any) -> Any:
        """List what matches a pattern."""
        detail = kwargs.pop("detail", False)
        found = self.fs.glob(self._strip_protocol(path), maxdepth=maxdepth, detail=True, **kwargs)
        return self._entries(found, detail=detail)

    def _entries(self, found: Mapping[str, Any], *, detail: bool) -> Any:
        entries = self._listings.visible(list(found.values()))
        if not detail:
            return sorted(entry["name"] for entry in entries)
        return {entry["name"]: entry for entry in self._listings.complete(entries)}

    def walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True,
        on_error: Any = "omit", **kwargs: Any,
    ) -> Iterator[tuple[str, Any, Any]]:  # fmt: skip
        """Walk a tree; names alone cost no request of their own."""
        detail = kwargs.pop("detail", False)
        walked = self.fs.walk(
            self._visible(path), maxdepth=maxdepth, topdown=topdown, on_error=on_error,
            detail=True, **kwargs,
        )  # fmt: skip
        for where, directories, files in walked:
            for listed in (directories, files):
                shown = {each["name"] for each in self._listings.visible([*listed.values()])}
                for name in [name for name, each in listed.items() if each["name"] not in shown]:
                    del listed[name]  # in place: a walk goes where its directories say
            if not detail:
                names = list(directories)
                yield where, names, list(files)
                for name in set(directories) - set(names):
                    del directories[name]
                continue
            complete = self._listings.complete([*files.values()])
            yield where, directories, dict(zip(files, complete, strict=True))

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Describe an object as its readers see it, or a directory."""
        stripped = self._visible(path, kwargs)
        _, key = self._store.split(stripped)
        if key:
            try:
                attributes = self._reader.look(stripped)
            except FileNotFoundError:
                pass
            else:
                head = attributes.head
                entry = {"name": stripped, "type": "file", "size": 0, **head.facts}
                return presented(entry, attributes)
        found: dict[str, Any] = dict(self.fs.info(stripped, **kwargs))
        if found["type"] == "file":  # it was removed, and the filesystem below does not know
            self.fs.invalidate_cache(self._parent(stripped))
            raise FileNotFoundError(path)
        return found

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether there is something readers can see."""
        stripped = self._strip_protocol(path)
        return not paths.is_hidden(self._store, stripped) and bool(
            self.fs.exists(stripped, **kwargs)
        )

    def isdir(self, path: str) -> bool:
        """Whether there is something below this path."""
        stripped = self._strip_protocol(path)
        return not paths.is_hidden(self._store, stripped, directory=True) and bool(
            self.fs.isdir(stripped)
        )

    def created(self, path: str) -> Any:
        """When the object was made, where the filesystem below knows."""
        return self.fs.created(self._visible(path))

    def modified(self, path: str) -> Any:
        """When the object was written."""
        return self.fs.modified(self._visible(path))

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget listings of the filesystem below."""
        self.fs.invalidate_cache(None if path is None else self._strip_protocol(path))
        super().invalidate_cache(path)

    # --- reading

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """Return original bytes [start, end), negative ones counted from the end."""
        stripped = self._visible(path, kwargs)
        if start is None and end is None:
            return self._reader.whole(stripped)
        (answer,) = self._reader.cat([Ask(stripped, start, end)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cat_ranges(
        self, paths: list[str], starts: Any, ends: Any, max_gap: int | None = None,
        on_error: str = "return", **kwargs: Any,
    ) -> list[Any]:  # fmt: skip
        """Return ranges of many objects; what they share is read once.

        Stored bytes up to `max_gap` apart (64 KiB by default) are read with one request. An answer
        is bytes, or with `on_error="return"` the exception that stood in the way.
        """
        if not isinstance(paths, list):
            raise TypeError(paths)
        first = starts if isinstance(starts, list) else [starts] * len(paths)
        last = ends if isinstance(ends, list) else [ends] * len(paths)
        asks = [Ask(self._strip_protocol(path), start, end)
                for path, start, end in zip(paths, first, last, strict=True)]  # fmt: skip
        answers = self._reader.cat(
            [ask for ask in asks if not self._hides(ask)], MAX_GAP if max_gap is None else max_gap
        )
        remaining = iter(answers)
        found = [FileNotFoundError(ask.path) if self._hides(ask) else next(remaining)
                 for ask in asks]  # fmt: skip
        failed = next((each for each in found if isinstance(each, Exception)), None)
        if failed is not None and on_error != "return":
            raise failed
        return found

    def _hides(self, ask: Ask) -> bool:
        return paths.is_hidden(self._store, ask.path)

    def get_file(
        self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, outfile: Any = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Copy an object to a local file, or into one that is open.

        What fails on the way leaves no local file.
        """
        stripped = self._visible(rpath, kwargs)
        if outfile is None and hasattr(lpath, "write"):
            outfile = lpath
        if outfile is not None:
            _copy(self._reader.stream(stripped), outfile, callback)
            return
        try:
            opened = self._reader.stream(stripped)
        except FileNotFoundError:
            if not self.isdir(stripped):
                raise
            Path(lpath).mkdir(parents=True, exist_ok=True)
            return
        target = Path(lpath)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("wb") as local:
                _copy(opened, local, callback)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

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

    def _open_to_read(self, path: str, block_size: int | None) -> S4ReadFile:
        attributes = self._reader.look(path)
        try:
            content = self._reader.content(attributes)
        except S4InexactSizeError:
            if not self._inexact:
                raise
            content = self._reader.content(attributes, inexact=True)
        entry = {"name": path, "type": "file", "size": 0, **attributes.head.facts}
        details = {**presented(entry, attributes), "size": content.size}
        return S4ReadFile(self, attributes, content, details, block_size)

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


def _copy(opened: tuple[Attributes, Iterator[bytes]], local: Any, callback: Any) -> None:
    attributes, pieces = opened
    callback.set_size(attributes.size)
    for piece in pieces:
        local.write(piece)
        callback.relative_update(len(piece))


def _creates(mode: str) -> bool:
    if mode not in {"overwrite", "create"}:
        msg = f"mode is 'overwrite' or 'create', not {mode!r}"
        raise ValueError(msg)
    return mode == "create"


def _read(local: io.BufferedReader, callback: Any) -> Iterator[Buffer]:
    while piece := local.read(_PIECE):
        yield piece
        callback.relative_update(len(piece))
