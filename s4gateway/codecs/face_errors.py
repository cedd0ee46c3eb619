"""What goes wrong with stored bytes, as the users of this package see it.

Inside, faults carry a code (`wire.errors`, `codecs.base`); outside, each is a class of its own, so
that a caller can tell a damaged object from one this build cannot read without comparing strings.
The names are part of the guaranteed face.

    S4Error(ValueError)                stored bytes are not what they should be
    ├── S4CrcMismatchError             decoded bytes have another CRC-32C
    ├── S4SizeMismatchError            more or less came out than was promised
    ├── S4CodecMismatchError           the payload is one of another codec
    ├── S4UnregisteredCodecError       a GPU codec, a newer one, or no dictionary for it
    ├── S4ManifestSizeExceedsLimitError  a size beyond what one payload may hold
    ├── S4ManifestSizeMismatchError    the payload is not as long as its header says
    ├── S4DictionaryError              a dictionary that cannot serve, or is another one
    ├── S4FrameError                   no sequence of frames
    └── S4IndexError                   no sidecar, or one that contradicts itself
    S4BackendError(RuntimeError)       the compression library failed
    S4IoError(OSError)                 a stream that cannot be read to its end
"""

from typing import Final

from s4gateway.codecs.base import CodecError
from s4gateway.wire.errors import FrameError, ManifestError, SidecarError, TailError, WireError


class S4Error(ValueError):
    """Stored bytes are not what they should be."""


class S4CrcMismatchError(S4Error):
    """The decoded bytes have another CRC-32C than the header or the manifest says."""


class S4SizeMismatchError(S4Error):
    """More or fewer bytes come out than were promised."""


class S4CodecMismatchError(S4Error):
    """The payload was made by another codec."""


class S4UnregisteredCodecError(S4Error):
    """A codec that is not available here."""


class S4ManifestSizeExceedsLimitError(S4Error):
    """A promised size is beyond what one payload may hold."""


class S4ManifestSizeMismatchError(S4Error):
    """The payload is not as long as its header or manifest says."""


class S4DictionaryError(S4Error):
    """Bytes that cannot serve as a dictionary, or not as the one that was asked for."""


class S4FrameError(S4Error):
    """Bytes that are not a sequence of frames."""


class S4IndexError(S4Error):
    """Bytes that are no sidecar, or an index that contradicts itself."""


class S4BackendError(RuntimeError):
    """The compression library failed."""


class S4IoError(OSError):
    """A stream could not be read to its end."""


_CODEC_FAULTS: Final[dict[str, type[Exception]]] = {
    "manifest-size-exceeds-limit": S4ManifestSizeExceedsLimitError,
    "manifest-size-mismatch": S4ManifestSizeMismatchError,
    "codec-io": S4IoError,
    "bomb": S4SizeMismatchError,
    "size-mismatch": S4SizeMismatchError,
    "crc-mismatch": S4CrcMismatchError,
    "codec-unavailable": S4UnregisteredCodecError,
    "unknown-codec": S4UnregisteredCodecError,
    "dictionary-missing": S4UnregisteredCodecError,
    "dictionary-mismatch": S4DictionaryError,
    "dictionary-invalid": S4DictionaryError,
    "frame-size-exceeds-limit": S4ManifestSizeExceedsLimitError,
}
_WIRE_FAULTS: Final[tuple[tuple[type[WireError], type[Exception]], ...]] = (
    (FrameError, S4FrameError),
    (SidecarError, S4IndexError),
    (TailError, S4FrameError),
    (ManifestError, S4Error),
)


def kind_of(error: CodecError | WireError) -> type[Exception]:
    """Return the class of the face that stands for a fault found inside.

    >>> kind_of(CodecError("bomb", "more than 10 bytes")).__name__
    'S4SizeMismatchError'
    """
    found = _CODEC_FAULTS.get(error.code)
    if found is not None:
        return found
    return next((face for kind, face in _WIRE_FAULTS if isinstance(error, kind)), S4Error)


def translated(error: CodecError | WireError, where: str = "") -> Exception:
    """Return the fault as its class of the face; `where` names what is at fault.

    >>> translated(CodecError("crc-mismatch", "CRC-32C is 0"), "bucket/key")
    S4CrcMismatchError('bucket/key: crc-mismatch: CRC-32C is 0')
    """
    return kind_of(error)(f"{where}: {error}" if where else str(error))
