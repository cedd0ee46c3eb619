"""Percent-encoding and query strings, the way S3 does them.

Rule: what arrives is decoded exactly once; what leaves is encoded once with S3's UriEncode: every
byte but the unreserved set of RFC 3986 (letters, digits, "-", ".", "_", "~") becomes "%XX" in
upper case, "/" stays in a path and is encoded in a query. In a query a literal "+" is a space, as
S3 reads it; in a path it is a plus.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib import parse

from s4gateway.s3.errors import S3Error

# Most names are their own encoding, which is quicker to see than to compute.
_UNRESERVED: Final = re.compile("[A-Za-z0-9._~-]*").fullmatch
_UNRESERVED_PATH: Final = re.compile("[A-Za-z0-9._~/-]*").fullmatch


def quote(text: str, safe: str = "") -> str:
    """S3's UriEncode of text; ``safe`` names the reserved characters left alone.

    >>> quote("a b/ü~", safe="/"), quote("a b/ü~")
    ('a%20b/%C3%BC~', 'a%20b%2F%C3%BC~')
    """
    return text if _UNRESERVED(text) else parse.quote(text, safe=safe)


def quote_path(key: str) -> str:
    """Encode an object key for a request path: "/" is kept, and so are "//", "." and "..".

    >>> quote_path("year=2024/a+b//../c")
    'year%3D2024/a%2Bb//../c'
    """
    return key if _UNRESERVED_PATH(key) else parse.quote(key, safe="/")


def unquote(raw: str) -> str:
    """Percent-decode once; "+" is kept. Bytes that are no UTF-8 raise ``InvalidURI``.

    A "%" that no two hex digits follow stands for itself.
    """
    if "%" not in raw:
        return raw
    try:
        return parse.unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise S3Error("InvalidURI", URI=raw) from error


def parse_query(raw_query: str) -> list[tuple[str, str]]:
    """Decode a query string into its parameters, in order, repeats and empty values kept.

    A name without "=" has the value "". Invalid UTF-8 raises ``InvalidURI``.

    >>> parse_query("prefix=a+b%2Fc&acl&max-keys=")
    [('prefix', 'a b/c'), ('acl', ''), ('max-keys', '')]
    """
    if not raw_query:
        return []
    pairs: list[tuple[str, str]] = []
    for field in raw_query.replace("+", " ").split("&"):
        if field:
            name, _, value = field.partition("=")
            pairs.append((unquote(name), unquote(value)))
    return pairs


def format_query(pairs: Iterable[tuple[str, str]]) -> str:
    """Encode parameters into a query string, in the order given.

    >>> format_query([("prefix", "a b/c"), ("acl", "")])
    'prefix=a%20b%2Fc&acl='
    """
    return "&".join([f"{quote(name)}={quote(value)}" for name, value in pairs])
