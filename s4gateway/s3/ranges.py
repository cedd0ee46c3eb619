"""The Range header: one byte range of a representation, or none that we act on.

Ignoring a Range and sending the whole body is always allowed, so whatever is malformed, counts in
another unit or asks for several ranges is no range here, as on AWS; only a well-formed range that
lies outside the object is an error, 416. A copy's `x-amz-copy-source-range` is no such hint: there
anything but first and last is refused. RFC 9110 section 14;
https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from s4gateway.s3.errors import S3Error
from s4gateway.values import immutable

# Positions of more than 32 digits are taken for noise rather than for numbers.
_ONE_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]{0,32})-([0-9]{0,32})[ \t]*", re.IGNORECASE)


@immutable
class FromTo:
    """`bytes=first-last`: both positions count from zero and are included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"bytes={self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class From:
    """`bytes=first-`: everything from a position on."""

    first: int

    def __str__(self) -> str:
        return f"bytes={self.first}-"


@dataclass(frozen=True, slots=True)
class Suffix:
    """`bytes=-length`: the last bytes."""

    length: int

    def __str__(self) -> str:
        return f"bytes=-{self.length}"


ByteRange = FromTo | From | Suffix


def parse(header: str | None) -> ByteRange | None:
    """The one range a Range header asks for; None when there is none to act on.

    >>> parse("bytes=0-499"), parse("bytes=-1"), parse("bytes=5-2"), parse("bytes=0-1,5-6")
    (FromTo(first=0, last=499), Suffix(length=1), None, None)
    """
    if header is None:
        return None
    match = _ONE_RANGE.fullmatch(header.strip(" \t"))
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return Suffix(int(last)) if last else None
    if not last:
        return From(int(first))
    span = FromTo(int(first), int(last))
    return span if span.first <= span.last else None


def parse_copy_source(header: str) -> FromTo:
    """The range of an `x-amz-copy-source-range`; InvalidArgument unless it names both ends."""
    span = parse(header)
    if not isinstance(span, FromTo):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first "
            "and last are the zero-based offsets of the first and last bytes to copy",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=header,
        )
    return span


def resolve(span: ByteRange, total: int) -> tuple[int, int]:
    """Start and exclusive end within an object of `total` bytes; InvalidRange when nothing is left.

    Nothing is left of any range of an empty object, nor of a suffix of no bytes.

    >>> resolve(From(100), 230), resolve(FromTo(0, 5000), 230), resolve(Suffix(9999), 230)
    ((100, 230), (0, 230), (0, 230))
    """
    if isinstance(span, Suffix):
        start, end = max(total - span.length, 0), total
    elif isinstance(span, From):
        start, end = span.first, total
    else:
        start, end = span.first, min(span.last + 1, total)
    if start >= end:
        raise S3Error(
            "InvalidRange",
            headers={"content-range": f"bytes */{total}"},
            RangeRequested=span,
            ActualObjectSize=total,
        )
    return start, end


def content_range(start: int, end: int, total: int) -> str:
    """The Content-Range of a 206 that carries bytes `start` to `end` (exclusive) of `total`.

    >>> content_range(0, 500, 1234)
    'bytes 0-499/1234'
    """
    return f"bytes {start}-{end - 1}/{total}"
