"""Text as it may stand inside an S3 XML document.

S3 keys may hold any character, XML 1.0 text may not: C0 controls are written as numeric references
(`&#x1;`), as AWS does, although a strict XML 1.0 reader refuses them (that is why
`encoding-type=url` exists). Tab, newline and carriage return are references too, so that no reader
normalises them away, and so are U+FFFE and U+FFFF. Errors and documents both write through this,
and `unescape` reads it back.
https://www.w3.org/TR/xml/#charsets
"""

from __future__ import annotations

import re
from typing import Final

_NAMED: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}
_ESCAPES: Final = {
    **_NAMED,
    **{chr(code): f"&#x{code:x};" for code in (*range(0x20), 0x7F, 0xFFFE, 0xFFFF)},
}
_NAMES: Final = {reference: character for character, reference in _NAMED.items()}
_REFERENCE: Final = re.compile("&(?:#x([0-9A-Fa-f]{1,6})|#([0-9]{1,7})|[a-z]+);|&")
_SPECIAL: Final = re.compile("[&<>\"'\x00-\x1f\x7f\ufffe\uffff]")


def _reference(match: re.Match[str]) -> str:
    return _ESCAPES[match[0]]


def is_special(text: str) -> bool:
    """Whether `escape` would change this text."""
    # What is printable has no character that is special but these; a pattern looks for them slower.
    if text.isprintable() and not ("&" in text or "<" in text or ">" in text):
        return '"' in text or "'" in text
    return _SPECIAL.search(text) is not None


def escape(text: str) -> str:
    r"""Text with everything XML gives a meaning to, or forbids, replaced by a reference.

    >>> escape("a&b\x01")
    'a&amp;b&#x1;'
    """
    if not is_special(text):
        return text
    return _SPECIAL.sub(_reference, text)


def _character(match: re.Match[str]) -> str:
    hexadecimal, decimal = match.groups()
    if hexadecimal or decimal:
        code = int(hexadecimal, 16) if hexadecimal else int(decimal)
        if not 0xD800 <= code < 0xE000:
            return chr(code)
    elif match[0] in _NAMES:
        return _NAMES[match[0]]
    raise ValueError(f"{match[0]!r} is no character of XML")


def unescape(text: str) -> str:
    """Text with its references resolved; ValueError when one is none of XML's own.

    >>> unescape("a&amp;b&#x20;")
    'a&b '
    """
    return _REFERENCE.sub(_character, text) if "&" in text else text
