"""Entity tags: the quoted strings S3 names a body's version by.

Inside the gateway an ETag is bare (no quotes, no `W/`); on the wire it is quoted. A multipart
object's is the MD5 of its parts' binary MD5s, a dash and the number of parts.
RFC 9110 section 8.8.3; https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def is_weak(etag: str) -> bool:
    """Whether the tag is marked as good for weak comparison only."""
    return etag.startswith("W/")


def strip(etag: str) -> str:
    """The bare tag, without quotes and without the weakness mark.

    >>> strip('W/"abc"'), strip('"abc"'), strip("abc")
    ('abc', 'abc', 'abc')
    """
    opaque = etag.removeprefix("W/")
    if len(opaque) >= 2 and opaque[0] == opaque[-1] == '"':
        return opaque[1:-1]
    return opaque


def quote(etag: str) -> str:
    """The tag as a header or a document carries it; one already quoted stays as it is.

    >>> quote("abc"), quote('W/"abc"')
    ('"abc"', 'W/"abc"')
    """
    return etag if etag.endswith('"') else f'"{etag}"'


def composite(md5s: Iterable[str]) -> str:
    """The bare ETag of a multipart object, from the hex MD5s of its parts in order.

    >>> composite(["900150983cd24fb0d6963f7d28e17f72"])
    'af5da9f45af7a300e3aded972f8ff687-1'
    """
    digests = [bytes.fromhex(md5) for md5 in md5s]
    whole = hashlib.md5(b"".join(digests), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(digests)}"


def part_count(etag: str) -> int | None:
    """How many parts a composite ETag counts; None when the tag has not that shape.

    >>> part_count('"0678a5c0864e58f1854f042ceb36b1c4-2"'), part_count("abc")
    (2, None)
    """
    _, dash, count = strip(etag).rpartition("-")
    return int(count) if dash and len(count) <= 5 and count.isascii() and count.isdigit() else None
