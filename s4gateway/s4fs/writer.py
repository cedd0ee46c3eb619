"""Writes of objects: body and metadata together, then the sidecar.

    body first      with its metadata, so that no reader ever takes frames for the original
    sidecar second  bound to the ETag the store answered, so that a stale one is never believed
    caches last     forgotten in every path, also when something failed on the way

Rule: an object is readable from the moment its body is stored; what follows only makes ranges of it
cheaper. A sidecar that is left of the object before it is removed.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from s4gateway.codecs.base import Buffer
from s4gateway.s4fs import paths
from s4gateway.s4fs.encoding import BodyEncoder, Encoded, WriteCodec
from s4gateway.s4fs.errors import (
    S4ReservedKeyError,
    S4SidecarWriteError,
    S4UnsupportedError,
)
from s4gateway.s4fs.store import Store
from s4gateway.wire import manifest
from s4gateway.wire.index import CONTENT_TYPE, FrameIndex

# Arguments of one write that would make it unreadable for whoever does not repeat them.
_ENCRYPTION: Final = ("SSE", "ServerSideEncryption")
_VERSIONS: Final = ("version_id", "VersionId")


class Writer:
    """Writes over one store. `forget` drops everything cached about a path."""

    def __init__(
        self, store: Store, codec: WriteCodec, level: int, forget: Callable[[str], None]
    ) -> None:
        self._store = store
        self._codec: WriteCodec = codec
        self._level = level
        self._forget = forget

    def check(self, path: str, options: Mapping[str, Any]) -> None:
        """Refuse what cannot be written, before anything is read or encoded."""
        _, key = self._store.split(path)
        if not key:
            msg = f"{path}: a bucket is no object"
            raise IsADirectoryError(msg)
        if paths.is_hidden(self._store, path):
            raise S4ReservedKeyError(path)
        if paths.VERSION_MARK in path or any(name in options for name in _VERSIONS):
            msg = f"{path}: a version cannot be written"
            raise S4UnsupportedError(msg, "write the object; the store gives the version")
        encryption = [name for name in options if name.startswith(_ENCRYPTION)]
        if encryption:
            msg = f"{path}: {encryption[0]} for one write"
            raise S4UnsupportedError(
                msg, "set the bucket's default encryption, or write through the gateway"
            )

    def encoder(self, length: int | None) -> BodyEncoder:
        """Open the encoding of a body of `length` bytes, None when that is not known."""
        return BodyEncoder(self._codec, self._level, length)

    def write(
        self, path: str, pieces: Iterable[Buffer], length: int | None,
        *, create: bool, options: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Store an object; raises FileExistsError, S4SidecarWriteError and what `check` refuses."""
        self.check(path, options)
        encoder = self.encoder(length)
        with contextlib.closing(encoder):
            for piece in pieces:
                encoder.feed(piece)
            self.store(path, encoder.finish(), create=create, options=options)

    def store(
        self, path: str, encoded: Encoded, *, create: bool, options: Mapping[str, Any]
    ) -> None:
        """Store what was encoded, and close it."""
        rest = dict(options)
        own = manifest.strip_reserved(rest.pop("Metadata", None) or {})
        try:
            with encoded.body:
                if create:
                    self._require_absent(path)
                etag = self._store.write(
                    path, encoded.body, encoded.stored_size, {**own, **encoded.metadata},
                    create=create, options=rest,
                )  # fmt: skip
            if encoded.index is not None:
                self._write_sidecar(path, encoded.index.bind(etag, encoded.stored_size))
            else:
                self._remove_sidecar(path)
        finally:
            self._forget(path)

    def _require_absent(self, path: str) -> None:
        """Look before writing, for stores that ignore the condition of the write."""
        try:
            self._store.head(path)
        except FileNotFoundError:
            return
        raise FileExistsError(path)

    def _write_sidecar(self, path: str, index: FrameIndex) -> None:
        data = index.encode()
        options = {"ContentType": CONTENT_TYPE} if self._store.pins else {}
        try:
            self._store.write(
                paths.sidecar_path(path), io.BytesIO(data), len(data), {},
                create=False, options=options,
            )  # fmt: skip
        except Exception as error:
            raise S4SidecarWriteError(path, error) from error

    def _remove_sidecar(self, path: str) -> None:
        with contextlib.suppress(OSError):  # one that stays is bound to another version
            self._store.remove(paths.sidecar_path(path))
