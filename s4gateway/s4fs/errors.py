"""What this filesystem refuses, and what it could not do; each message says what to do instead.

Damage of stored bytes is told by the classes of `s4gateway.codec` (S4Error and those below it),
with the path in front. What the store answers (FileNotFoundError, PermissionError, OSError) is
passed on as the underlying filesystem raises it.

    S4ReadOnlyError(OSError, NotImplementedError)     a write, but writing was not asked for
    S4UnsupportedError(NotImplementedError)           append, copy, rename, delete, versions, SSE
    ├── S4WriteCodecError                             a codec only the gateway writes
    ├── S4MetadataUnsupportedError                    the filesystem below cannot store metadata
    ├── S4EncryptedObjectError                        an object in a gateway's encryption envelope
    └── S4GpuCodecError(S4UnregisteredCodecError)     a frame only a GPU build reads
    S4ReservedKeyError(ValueError)                    a name that belongs to the gateway
    S4InexactSizeError(ValueError)                    nothing tells where the object ends
    S4SidecarWriteError(OSError)                      the object is stored, its sidecar is not
    S4ObjectChangedError(OSError)                     overwritten while it was being read
"""

import errno
from typing import Final

from s4gateway.codecs.base import CodecError
from s4gateway.codecs.face_errors import (
    S4DictionaryError,
    S4Error,
    S4IoError,
    S4UnregisteredCodecError,
    kind_of,
)
from s4gateway.wire.errors import WireError

_GATEWAY: Final = "use the gateway's endpoint with any S3 client"
_DAMAGED: Final = "the stored object is damaged: restore an older version or another copy of it"


class S4ReadOnlyError(OSError, NotImplementedError):
    """A write on a filesystem that was not opened for writing."""

    def __init__(self, operation: str) -> None:
        super().__init__(
            errno.EROFS,
            f"{operation}: this filesystem is read-only; pass write_enabled=True to write",
        )


class S4UnsupportedError(NotImplementedError):
    """An operation this filesystem does not offer."""

    def __init__(self, problem: str, instead: str = _GATEWAY) -> None:
        super().__init__(f"{problem}; {instead}")


class S4WriteCodecError(S4UnsupportedError):
    """A codec that is not written here."""


class S4MetadataUnsupportedError(S4UnsupportedError):
    """The filesystem below cannot store metadata in the request that stores the body."""


class S4EncryptedObjectError(S4UnsupportedError):
    """An object in an encryption envelope of a gateway."""

    def __init__(self, path: str, how: str) -> None:
        super().__init__(f"{path} is encrypted by a gateway ({how})", "read it through that one")


class S4GpuCodecError(S4UnregisteredCodecError, S4UnsupportedError):
    """A frame that only a build with GPU codecs can read."""


class S4ReservedKeyError(ValueError):
    """A name that belongs to the gateway: sidecars, dictionaries, parts, shadows."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is a name of the gateway's own; choose another one")


class S4InexactSizeError(ValueError):
    """Neither metadata nor sidecar nor frames tell how long the original is."""

    def __init__(self, path: str, fault: str) -> None:
        super().__init__(
            f"{path}: nothing tells the original's length ({fault}); with "
            "allow_inexact_open=True the part in front of the fault can be read"
        )


class S4SidecarWriteError(OSError):
    """The object was stored and is readable; its sidecar was not, so ranges of it are slow."""

    def __init__(self, path: str, cause: BaseException) -> None:
        super().__init__(
            errno.EIO,
            f"{path} is stored, but its sidecar is not ({cause}); ranges of it cost a request for "
            "each frame until it is written again, or `s4 repair-sidecar` has been run",
        )


class S4ObjectChangedError(OSError):
    """The object was overwritten or removed while it was being read."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ESTALE, f"{path} was changed while it was being read; open it again")


def damaged(error: CodecError | WireError, path: str) -> Exception:
    """Return a fault found in stored bytes as the class its reader can tell it by."""
    kind = kind_of(error)
    if error.code == "codec-unavailable":
        return S4GpuCodecError(f"{path}: {error}", "read it through a gateway with a GPU build")
    if error.code == "unknown-codec":
        return kind(f"{path}: {error}; install a newer s4gateway")
    if kind is S4IoError:
        return S4IoError(errno.EIO, f"{path}: {error}; {_DAMAGED}")
    return kind(f"{path}: {error}; {_DAMAGED}")


__all__ = [
    "S4DictionaryError", "S4EncryptedObjectError", "S4Error", "S4GpuCodecError",
    "S4InexactSizeError", "S4IoError", "S4MetadataUnsupportedError", "S4ObjectChangedError",
    "S4ReadOnlyError", "S4ReservedKeyError", "S4SidecarWriteError", "S4UnregisteredCodecError",
    "S4UnsupportedError", "S4WriteCodecError", "damaged",
]  # fmt: skip
