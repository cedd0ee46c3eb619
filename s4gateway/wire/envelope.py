"""Encryption envelopes, recognised by their first four bytes.

An envelope is opened, or refused, because the object's metadata says it is encrypted; the magic
alone never decides, for clients may store bytes that look like one. Recognising it tells which
kind is refused and keeps ciphertext from being taken for frames.
"""

from typing import Final

MAGIC_SIZE: Final = 4

# S4E7 and S4E8 are reserved for successors.
_MAGICS: Final = {f"S4E{number}".encode(): f"S4E{number}" for number in range(1, 9)}


def recognise(prefix: bytes) -> str | None:
    """Return the name of the envelope that starts with `prefix`, None when it is none.

    >>> recognise(b"S4E6 and what follows"), recognise(b"S4F2")
    ('S4E6', None)
    """
    return _MAGICS.get(prefix[:MAGIC_SIZE])
