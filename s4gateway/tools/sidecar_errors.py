"""Why a sidecar cannot be judged or made.

Operators see the name of the class, so each is one reason and one thing to do about it.

    SidecarToolError
      EncryptedSidecarUnsupported  the frames lie in an envelope, which is not opened here
      NotFramed                    the metadata says that there are no frames to index
      FrameScan                    the body is no sequence of frames, or not the one it should be
      BodyTooLarge                 more stored bytes than the caller allowed
      SidecarTooLarge              an index that no gateway would read
      MissingContentLength         the store does not say how large the object is, or which version
      OverwrittenDuringRepair      another version stands there now; do it again
"""


class SidecarToolError(Exception):
    """A sidecar cannot be judged or made; the kind is the name of the class."""


class EncryptedSidecarUnsupported(SidecarToolError):
    """The frames lie in an encryption envelope."""


class NotFramed(SidecarToolError):
    """An object without frames has no index."""


class FrameScan(SidecarToolError):
    """The body is no sequence of frames, or its frames are not those of the object."""


class BodyTooLarge(SidecarToolError):
    """The object has more stored bytes than the caller allowed."""


class SidecarTooLarge(SidecarToolError):
    """An index larger than any gateway reads."""


class MissingContentLength(SidecarToolError):
    """The store's answer carries no size or no ETag, so nothing can be bound to it."""


class OverwrittenDuringRepair(SidecarToolError):
    """The object or its sidecar was replaced while the index was made."""
