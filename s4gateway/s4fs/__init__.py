"""An fsspec filesystem that reads and writes S4 objects with no gateway."""

from s4gateway.s4fs.errors import (
    S4EncryptedObjectError,
    S4GpuCodecError,
    S4InexactSizeError,
    S4MetadataUnsupportedError,
    S4ObjectChangedError,
    S4ReadOnlyError,
    S4ReservedKeyError,
    S4SidecarWriteError,
    S4UnsupportedError,
    S4WriteCodecError,
)
from s4gateway.s4fs.filesystem import S4FileSystem

__all__ = [
    "S4EncryptedObjectError",
    "S4FileSystem",
    "S4GpuCodecError",
    "S4InexactSizeError",
    "S4MetadataUnsupportedError",
    "S4ObjectChangedError",
    "S4ReadOnlyError",
    "S4ReservedKeyError",
    "S4SidecarWriteError",
    "S4UnsupportedError",
    "S4WriteCodecError",
]
