"""The names that belong to the gateway, in every bucket it serves.

Sidecars stand beside their object, version shadows below it, dictionaries and the records of
multipart uploads under a prefix at the bucket root. One place decides what clients may not see, not
write and not read, so that no operation forgets a pattern. Prefixes are reserved at the root only:
``data/.s4dict/x`` is an ordinary key.
"""

import re
from typing import Final

SIDECAR_SUFFIX: Final = ".s4index"
DICTIONARY_PREFIX: Final = ".s4dict/"
PARTS_PREFIX: Final = ".s4mpu/"
SHADOW_INFIX: Final = ".__s4ver__/"

_ROOT_PREFIXES: Final = (DICTIONARY_PREFIX, PARTS_PREFIX)
_is_dictionary_id: Final = re.compile("[0-9a-f]{16}").fullmatch


def sidecar_key(key: str) -> str:
    """Return the key of the sidecar of the object `key`.

    >>> sidecar_key("logs/app.log")
    'logs/app.log.s4index'
    """
    return key + SIDECAR_SUFFIX


def is_dictionary_id(text: str) -> bool:
    """Whether `text` names a dictionary: 16 lower-case hexadecimal digits and nothing else."""
    return _is_dictionary_id(text) is not None


def dictionary_key(dictionary_id: str) -> str | None:
    """Return the key of a dictionary, None for what is no id: metadata may say ``../``.

    >>> dictionary_key("0123456789abcdef")
    '.s4dict/0123456789abcdef'
    """
    return DICTIONARY_PREFIX + dictionary_id if is_dictionary_id(dictionary_id) else None


def is_hidden(key: str) -> bool:
    """Whether listings leave this key out."""
    return key.endswith(SIDECAR_SUFFIX) or is_hidden_prefix(key)


def is_hidden_prefix(common_prefix: str) -> bool:
    """Whether every key that starts with `common_prefix` is hidden, so that it must be, too."""
    return common_prefix.startswith(_ROOT_PREFIXES) or SHADOW_INFIX in common_prefix


def is_write_reserved(key: str) -> bool:
    """Whether a client may not create, change, copy onto or delete this key."""
    return is_hidden(key)


def is_read_reserved(key: str) -> bool:
    """Whether this key does not exist for a client that reads it.

    Dictionaries may be read: with one in hand, an object is readable without the gateway.
    """
    return is_hidden(key) and not _is_plain_dictionary(key)


def _is_plain_dictionary(key: str) -> bool:
    return (
        key.startswith(DICTIONARY_PREFIX)
        and not key.endswith(SIDECAR_SUFFIX)
        and SHADOW_INFIX not in key
    )
