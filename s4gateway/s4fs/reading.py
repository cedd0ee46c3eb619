"""The reading half of the filesystem: what is there, and the bytes of it.

Sizes, ETags and bytes are those of the originals; internal names do not exist. What an object looks
like is asked anew by every call, and names alone are never looked at.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractFileSystem

from s4gateway.s4fs import paths
from s4gateway.s4fs.attributes import Attributes
from s4gateway.s4fs.errors import S4InexactSizeError
from s4gateway.s4fs.file import S4ReadFile
from s4gateway.s4fs.listing import Listings, presented
from s4gateway.s4fs.reader import MAX_GAP, Ask, Reader
from s4gateway.s4fs.store import Store


class Readable(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """Everything that changes nothing. What a filesystem is made of is set by the class below."""

    fs: Any
    _store: Store
    _reader: Reader
    _listings: Listings
    _inexact: bool

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

    def du(
        self, path: str, total: bool = True, maxdepth: int | None = None,
        withdirs: bool = False, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Add up the sizes a listing shows, or return them by name."""
        found = self.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True, **kwargs)
        sizes = {name: entry["size"] for name, entry in found.items()}
        return sum(sizes.values()) if total else sizes

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


def _copy(opened: tuple[Attributes, Iterator[bytes]], local: Any, callback: Any) -> None:
    attributes, pieces = opened
    callback.set_size(attributes.size)
    for piece in pieces:
        local.write(piece)
        callback.relative_update(len(piece))
