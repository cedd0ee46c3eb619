"""From a request target to a bucket and a key.

Path style (`/bucket/key`) or virtual-host style (`bucket.domain/key`, for the domains configured).
The key comes from the raw path, percent-decoded exactly once: `//`, `.`, `..` and `%2F` are part of
the name, nothing is folded. What is no UTF-8, has a broken escape or a NUL is refused with 400,
never repaired: two names must not become one.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from s4gateway.s3.errors import S3Error
from s4gateway.values import immutable

MAX_KEY_BYTES: Final = 1024

# The names S3 has ever allowed. What a new bucket may be called is the backend's business.
_BUCKET: Final = re.compile(r"[A-Za-z0-9._-]{3,255}")
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@immutable
class Address:
    """What a request is about: the service (no bucket), a bucket (no key) or an object.

    `raw_bucket` and `raw_key` are as the client wrote them, percent-encoded.
    """

    bucket: str | None = None
    key: str | None = None
    raw_bucket: str | None = None
    raw_key: str | None = None


SERVICE: Final = Address()


@lru_cache(maxsize=1024)
def host_bucket(host: str, domains: tuple[str, ...]) -> str | None:
    """The bucket a Host header names in front of a configured domain; None means path style.

    Domains are lower-case names without port. Where several fit, the longest one counts.

    >>> host_bucket("photos.s3.example.com:8014", ("s3.example.com",))
    'photos'
    """
    if not domains:
        return None
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    name = name.rstrip(".").lower()
    if name in domains:
        return None
    fitting = [domain for domain in domains if name.endswith(f".{domain}")]
    return name[: -len(max(fitting, key=len)) - 1] if fitting else None


def _decode(raw: str) -> str:
    if raw.isascii() and "%" not in raw:
        return raw
    if _BROKEN_ESCAPE.search(raw):
        raise S3Error("InvalidURI", URI=raw)
    try:
        # Servers hand over bytes above 0x7F as Latin-1 characters.
        return unquote_to_bytes(raw.encode("latin-1")).decode()
    except UnicodeError as error:
        raise S3Error("InvalidURI", URI=raw) from error


def parse_bucket(raw: str) -> str:
    """A bucket's name from its percent-encoded form; InvalidBucketName when it can be none."""
    name = raw if _BUCKET.fullmatch(raw) else _decode(raw)
    if not _BUCKET.fullmatch(name):
        raise S3Error("InvalidBucketName", BucketName=name)
    return name


def parse_key(raw: str) -> str:
    """An object's key from its percent-encoded form.

    InvalidURI when it is no UTF-8, InvalidObjectName when it holds a NUL (which some stores take
    for its end), KeyTooLongError above 1,024 bytes.
    """
    key = _decode(raw)
    if "\0" in key:
        raise S3Error("InvalidObjectName", "Object keys may not contain a NUL character.")
    if len(key) * 4 > MAX_KEY_BYTES and (size := len(key.encode())) > MAX_KEY_BYTES:
        raise S3Error("KeyTooLongError", Size=size, MaxSizeAllowed=MAX_KEY_BYTES)
    return key


def resolve(raw_path: str, host: str, domains: tuple[str, ...] = ()) -> Address:
    """The address of a request, from its path as received and its Host header.

    >>> resolve("/photos/2024//a%20b", "localhost")
    Address(bucket='photos', key='2024//a b', raw_bucket='photos', raw_key='2024//a%20b')
    """
    if raw_path[:1] != "/":
        raise S3Error("InvalidURI", URI=raw_path)
    raw_bucket = host_bucket(host, domains)
    if raw_bucket is None:
        if raw_path == "/":
            return SERVICE
        raw_bucket, _, raw_key = raw_path[1:].partition("/")
    else:
        raw_key = raw_path[1:]
    bucket = parse_bucket(raw_bucket)
    if not raw_key:
        return Address(bucket, None, raw_bucket, None)
    return Address(bucket, parse_key(raw_key), raw_bucket, raw_key)
