"""Conditional writes and deletes, made atomic by the backend.

Rule: the gateway compares only to translate. What the client wrote about the logical ETag becomes
the same condition about the backend's ETag, and the backend alone decides the race. A write that
must not replace a certain ETag is allowed on exactly the state that was looked at: `If-Match` of
what is there, `If-None-Match: *` where nothing is.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html
"""

import contextlib
from collections.abc import Iterator

from s4gateway.backend.base import BackendAnswer
from s4gateway.gateway import relay
from s4gateway.gateway.context import HeaderPairs, RequestContext
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.opening import Source
from s4gateway.s3 import etag
from s4gateway.s3.conditions import EntityTags
from s4gateway.s3.errors import S3Error


async def write_conditions(context: RequestContext) -> HeaderPairs:
    """Translate If-Match and If-None-Match of a write; raises PreconditionFailed, NoSuchKey."""
    headers = context.headers
    none_match, match = headers.get("if-none-match"), headers.get("if-match")
    if none_match is None and match is None:
        return []
    if none_match is not None and match is not None:
        raise S3Error("NotImplemented", "If-Match and If-None-Match cannot be combined on a write.")
    if none_match is not None:
        if _is_any(none_match):
            return [("if-none-match", "*")]
        return await _unless(context, EntityTags.parse(none_match))
    assert match is not None
    attributes = await _existing(context)
    if attributes is None:
        raise S3Error("NoSuchKey", Key=context.key)
    tags = EntityTags.parse(match)
    if tags is None or not tags.match_strongly(attributes.etag):
        raise S3Error("PreconditionFailed", Condition="If-Match")
    return [("if-match", etag.quote(attributes.head.etag))]


@contextlib.contextmanager
def conflicts(context: RequestContext) -> Iterator[None]:
    """Tell the backend's refusal of a state that has changed from a failed condition.

    Raises ConditionalRequestConflict, which asks the client to try again.
    """
    try:
        yield
    except BackendAnswer as error:
        if error.status == 412 and not _is_any(context.headers.get("if-none-match", "*")):
            raise S3Error("ConditionalRequestConflict") from error
        raise


def _is_any(header: str) -> bool:
    return header.strip() == "*"


async def _unless(context: RequestContext, tags: EntityTags | None) -> HeaderPairs:
    """Translate If-None-Match with ETags."""
    attributes = await _existing(context)
    if attributes is None:
        return [("if-none-match", "*")]
    if tags is not None and tags.match_weakly(attributes.etag):
        raise S3Error("PreconditionFailed", Condition="If-None-Match")
    return [("if-match", etag.quote(attributes.head.etag))]


async def _existing(context: RequestContext) -> Attributes | None:
    source = Source(
        context.backend,
        context.name,
        relay.version_query(context),
        relay.read_headers(context.headers),
    )
    try:
        return await context.services.reader.attributes(source)
    except BackendAnswer as error:
        if error.status == 404:
            return None
        raise
