"""Conditional reads: the If-Match family against an object's ETag and modification time.

Order and comparison are those of RFC 9110 section 13.2.2, which S3 keeps: If-Match beats
If-Unmodified-Since, If-None-Match beats If-Modified-Since; If-Match and If-Range compare strongly,
If-None-Match weakly; a date that cannot be read is as good as absent. Tags are also accepted
without quotes, as AWS does. Conditions on writes are the backend's to decide, never ours.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-reads.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

from s4gateway.s3 import etag as etags
from s4gateway.s3.headers import Headers

# Both branches consume what they look at, so a hostile header costs no more than its length.
_TAG: Final = re.compile(r'(?:W/)?"[^"]*"|[^\s",]+')


class Verdict(Enum):
    """What the conditions make of a read."""

    OK = "ok"
    NOT_MODIFIED = "not-modified"
    PRECONDITION_FAILED = "precondition-failed"


@dataclass(frozen=True, slots=True)
class EntityTags:
    """The tags of an If-Match or If-None-Match; `any` stands for `*`, which matches what exists.

    >>> EntityTags.parse('"a", W/"b"').match_strongly("b")
    False
    """

    any: bool
    strong: frozenset[str]
    weak: frozenset[str]

    @classmethod
    def parse(cls, header: str) -> EntityTags | None:
        """Tags of a header value; None when it holds none."""
        if header.strip(" \t") == "*":
            return cls(any=True, strong=frozenset(), weak=frozenset())
        tags = _TAG.findall(header)
        if not tags:
            return None
        return cls(
            any=False,
            strong=frozenset(etags.strip(tag) for tag in tags if not etags.is_weak(tag)),
            weak=frozenset(etags.strip(tag) for tag in tags if etags.is_weak(tag)),
        )

    def match_strongly(self, etag: str | None) -> bool:
        """Whether an object's tag (None: it has none) equals one here, neither of them weak."""
        if self.any:
            return True
        return etag is not None and not etags.is_weak(etag) and etags.strip(etag) in self.strong

    def match_weakly(self, etag: str | None) -> bool:
        """Whether an object's tag (None: it has none) equals one here, weak or not."""
        if self.any:
            return True
        opaque = None if etag is None else etags.strip(etag)
        return opaque in self.strong or opaque in self.weak


def parse_date(header: str | None) -> datetime | None:
    """An HTTP date (RFC 9110 section 5.6.7, all forms) in UTC; None when absent or unreadable.

    >>> parse_date("Sun, 06 Nov 1994 08:49:37 GMT")
    datetime.datetime(1994, 11, 6, 8, 49, 37, tzinfo=datetime.timezone.utc)
    """
    if header is None:
        return None
    try:
        moment = parsedate_to_datetime(header)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, IndexError):
        return None


@dataclass(frozen=True, slots=True)
class ReadConditions:
    """The conditions a read carries; each is None when absent or unreadable."""

    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None
    if_modified_since: datetime | None = None
    if_unmodified_since: datetime | None = None

    @classmethod
    def parse(cls, headers: Headers, prefix: str = "") -> ReadConditions:
        """The conditions in request headers.

        `prefix` is `x-amz-copy-source-` for those on the source of a copy.
        """
        get = headers.get
        match = get(prefix + "if-match")
        none_match = get(prefix + "if-none-match")
        modified = get(prefix + "if-modified-since")
        unmodified = get(prefix + "if-unmodified-since")
        if match is none_match is modified is unmodified is None:
            return UNCONDITIONAL
        return cls(
            if_match=None if match is None else EntityTags.parse(match),
            if_none_match=None if none_match is None else EntityTags.parse(none_match),
            if_modified_since=parse_date(modified),
            if_unmodified_since=parse_date(unmodified),
        )

    def evaluate(self, etag: str | None, last_modified: datetime | None) -> Verdict:
        """The verdict for an object that exists, from its logical ETag and modification time (UTC).

        A copy answers PreconditionFailed for NOT_MODIFIED too. An object whose time is not known
        passes conditions on it.
        """
        # HTTP dates are whole seconds; a listing's are not.
        moment = None if last_modified is None else last_modified.replace(microsecond=0)
        if self.if_match is not None:
            if not self.if_match.match_strongly(etag):
                return Verdict.PRECONDITION_FAILED
        elif moment and self.if_unmodified_since and moment > self.if_unmodified_since:
            return Verdict.PRECONDITION_FAILED
        if self.if_none_match is not None:
            if self.if_none_match.match_weakly(etag):
                return Verdict.NOT_MODIFIED
        elif moment and self.if_modified_since and moment <= self.if_modified_since:
            return Verdict.NOT_MODIFIED
        return Verdict.OK


UNCONDITIONAL: Final = ReadConditions()


def range_applies(if_range: str | None, etag: str | None, last_modified: datetime | None) -> bool:
    """Whether a Range still holds under If-Range (RFC 9110 section 13.1.5); if not, send it all.

    The validator must be the object's strong ETag, or exactly its modification time.
    """
    if if_range is None:
        return True
    validator = if_range.strip(" \t")
    moment = None if validator.endswith('"') else parse_date(validator)
    if moment is not None:
        return last_modified is not None and last_modified.replace(microsecond=0) == moment
    if etag is None or etags.is_weak(validator) or etags.is_weak(etag):
        return False
    return etags.strip(validator) == etags.strip(etag)
