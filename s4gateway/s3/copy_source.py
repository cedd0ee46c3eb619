"""The x-amz-copy-source header: which object, and which version of it, a copy reads.

Rule: `?versionId=` is cut off first, then what stands before it is percent-decoded exactly once, so
that a key holding `%3FversionId=` stays a key. "+" stands for a space, as in a query: S3 reads the
header so, and clients that mean a plus send "%2B".
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from s4gateway.s3 import addressing, query
from s4gateway.s3.errors import S3Error

_VERSION: Final = "?versionId="


@dataclass(frozen=True, slots=True)
class CopySource:
    """The source of a copy; `version_id` is None for the current version."""

    bucket: str
    key: str
    version_id: str | None = None

    @property
    def query(self) -> str:
        """The query of requests for it, percent-encoded; empty for the current version."""
        return "" if self.version_id is None else f"versionId={query.quote(self.version_id)}"

    @property
    def address(self) -> addressing.Address:
        """The source as the address of a request."""
        return addressing.Address(
            self.bucket, self.key, query.quote(self.bucket), query.quote_path(self.key)
        )


def parse(header: str) -> CopySource:
    """Read the header; raises InvalidArgument for what names no object.

    >>> parse("/photos/a%20b%2Bc?versionId=v1")
    CopySource(bucket='photos', key='a b+c', version_id='v1')
    """
    path, found, version = header.rpartition(_VERSION)
    if not found:
        path, version = header, ""
    elif not version:
        raise _invalid("Version id cannot be the empty string", "versionId", version)
    try:
        name = query.unquote(path.replace("+", " ")).removeprefix("/")
        version = query.unquote(version)
    except S3Error as error:
        raise _invalid("Invalid copy source encoding.", "x-amz-copy-source", header) from error
    bucket, _, key = name.partition("/")
    if name.startswith("arn:"):
        raise S3Error("NotImplemented", "Copying from an access point is not implemented.")
    if not _is_bucket(bucket) or not key or "\0" in key:
        text = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        raise _invalid(text, "x-amz-copy-source", header)
    size, limit = len(key.encode()), addressing.MAX_KEY_BYTES
    if size > limit:
        raise S3Error("KeyTooLongError", Size=size, MaxSizeAllowed=limit)
    return CopySource(bucket, key, version if found else None)


def _is_bucket(name: str) -> bool:
    try:
        return "%" not in name and addressing.parse_bucket(name) == name
    except S3Error:
        return False


def _invalid(message: str, argument: str, value: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName=argument, ArgumentValue=value)
