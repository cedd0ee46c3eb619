"""HMAC-SHA-256 (RFC 2104) as signatures need it: many short texts under few keys.

An HMAC hashes two blocks that depend on the key alone. Here they are hashed once for each key and
copied for each text, which halves the cost of a signature. The keys kept are those of a day, a
region and a client: no secret stays that was not in memory anyway.
"""

import hashlib
from functools import lru_cache
from typing import Final

_BLOCK: Final = hashlib.sha256().block_size
_INNER_PAD: Final = bytes([byte ^ 0x36 for byte in range(256)])
_OUTER_PAD: Final = bytes([byte ^ 0x5C for byte in range(256)])


def hmac_sha256(key: bytes, text: bytes) -> str:
    """The authentication code of `text` under a key of at most 64 bytes, in lower-case hex.

    >>> hmac_sha256(b"key", b"The quick brown fox jumps over the lazy dog")[:16]
    'f7bc83f430538424'
    """
    inner_start, outer_start = _padded(key)
    inner, outer = inner_start.copy(), outer_start.copy()
    inner.update(text)
    outer.update(inner.digest())
    return outer.hexdigest()


@lru_cache(maxsize=4096)
def _padded(key: bytes) -> "tuple[hashlib._Hash, hashlib._Hash]":
    if len(key) > _BLOCK:
        msg = f"key of {len(key)} bytes"
        raise ValueError(msg)
    block = key.ljust(_BLOCK, b"\0")
    return (
        hashlib.sha256(block.translate(_INNER_PAD)),
        hashlib.sha256(block.translate(_OUTER_PAD)),
    )
