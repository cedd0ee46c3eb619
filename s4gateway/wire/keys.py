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

ROOT_PREFIXES: Final = (DICTIONARY_PREFIX, PARTS_PREFIX)
_HIDDEN_PART: Final = ".s4"  # of every hidden key but shadows
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


def upload_prefix(upload_id: str) -> str:
    """Return the prefix of everything that is kept about one multipart upload.

    >>> upload_prefix("a/1")
    '.s4mpu/612f31/'
    """
    return f"{PARTS_PREFIX}{upload_id.encode().hex()}/"


def create_key(upload_id: str) -> str:
    """Return the key of the record written when an upload begins."""
    return upload_prefix(upload_id) + "create"


def part_key(upload_id: str, number: int) -> str:
    """Return the key of one part, numbered 1 to 10,000.

    >>> part_key("u", 7)
    '.s4mpu/75/00007'
    """
    return f"{upload_prefix(upload_id)}{number:05d}"


def completion_key(upload_id: str) -> str:
    """Return the key of the record that makes completing an upload repeatable."""
    return upload_prefix(upload_id) + "completion"


def probe_key(token: str) -> str:
    """Return a key to try the store out with: a record of an upload that never was.

    What is left of it is collected with other such records.

    >>> parse_upload_key(probe_key("0123"))
    ('probe-0123', 'probe')
    """
    return upload_prefix(f"probe-{token}") + "probe"


def parse_upload_key(key: str) -> tuple[str, str] | None:
    """Return (upload id, name of the record); None for what is no such key.

    >>> parse_upload_key(".s4mpu/612f31/00007")
    ('a/1', '00007')
    """
    prefix, _, rest = key.partition("/")
    encoded, _, name = rest.partition("/")
    if prefix + "/" != PARTS_PREFIX or not encoded or not name or "/" in name:
        return None
    try:
        upload_id = bytes.fromhex(encoded).decode()
    except ValueError:
        return None
    return (upload_id, name) if upload_prefix(upload_id) + name == key else None


def is_hidden(key: str) -> bool:
    """Whether listings leave this key out."""
    return key.endswith(SIDECAR_SUFFIX) or is_hidden_prefix(key)


def may_hide(text: str) -> bool:
    """Whether a key inside `text`, which may be many keys joined, can be one that is hidden.

    >>> may_hide("a b c"), may_hide("a a.s4index b")
    (False, True)
    """
    return _HIDDEN_PART in text or SHADOW_INFIX in text


def is_hidden_prefix(common_prefix: str) -> bool:
    """Whether every key that starts with `common_prefix` is hidden, so that it must be, too."""
    return common_prefix.startswith(ROOT_PREFIXES) or SHADOW_INFIX in common_prefix


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
