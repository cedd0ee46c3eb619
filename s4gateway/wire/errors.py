"""What can be wrong with stored bytes, as one family of exceptions.

Stored objects come from other writers, older versions and hostile hands; every way in which their
bytes can break the format ends here, and nothing else leaves this package: no `struct.error`, no
`UnicodeDecodeError`, no `OverflowError`.

    WireError
    ├── FrameError           a frame sequence: too-short, bad-magic, payload-truncated,
    │   │                    manifest-size-exceeds-limit, frame-size-exceeds-limit, out-of-range
    │   └── CodecIdError     unknown-codec: the frame names a codec no version here knows
    ├── SidecarError         a sidecar: too-short, bad-magic, too-many-frames,
    │                        unsupported-version, etag-too-long, entry-count-mismatch,
    │                        entry-overflow, non-monotonic, out-of-range
    ├── TailError            a tail: too-short, bad-magic, too-large, length-mismatch, crc-mismatch,
    │                        token-mismatch, bad-tail
    └── ManifestError        metadata about to be written: out-of-range, bad-dict-id, bad-etag
"""


class WireError(Exception):
    """Stored bytes, or values about to be stored, that the format does not allow.

    `code` is the format's own word for the fault (``too-short``, ``bad-magic``, …): stable, meant
    for tests, logs and tools. The message adds the values.

    >>> error = WireError("bad-magic", "expected S4F2, found 'GARB'")
    >>> error.code, str(error)
    ('bad-magic', "bad-magic: expected S4F2, found 'GARB'")
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class FrameError(WireError):
    """A body that is not a sequence of frames."""


class CodecIdError(FrameError):
    """A frame written with a codec that has no number here: a newer version wrote it."""

    def __init__(self, codec_id: int) -> None:
        super().__init__("unknown-codec", f"codec id {codec_id} was written by a newer version")
        self.args = (codec_id,)  # the exception copies and pickles through its arguments
        self.codec_id = codec_id


class SidecarError(WireError):
    """A sidecar that cannot be trusted; readers go on as if there were none."""


class TailError(WireError):
    """A tail that cannot be trusted; readers go on as if there were none."""


class ManifestError(WireError):
    """Values that must not be stamped on an object."""
