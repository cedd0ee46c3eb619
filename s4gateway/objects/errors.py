"""Why a stored object cannot be served.

    ObjectError
      DamagedObject      its bytes are not what its metadata and checksums say
      UnreadableObject   sound as far as can be told, but needs what this gateway does not have

Rule: neither ever carries the object's bytes, and no byte that failed a check leaves the gateway.
"""


class ObjectError(Exception):
    """A stored object cannot be served."""


class DamagedObject(ObjectError):
    """Stored bytes, metadata and checksums do not agree."""


class UnreadableObject(ObjectError):
    """Encrypted by a gateway key, made by a codec or a dictionary this process does not have."""
