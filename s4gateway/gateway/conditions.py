"""Conditional writes and deletes, made atomic by the backend.

Rule: the gateway compares only to translate. What the client wrote about the logical ETag becomes
the same condition about the backend's ETag, and the backend alone decides the race.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html
"""

from s4gateway.backend.base import BackendAnswer
from s4gateway.gateway import relay
from s4gateway.gateway.context import HeaderPairs, RequestContext
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.reader import Source
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
        if none_match.strip() != "*":
            raise S3Error("NotImplemented", "If-None-Match on a write takes only *.")
        return [("if-none-match", "*")]
    assert match is not None
    attributes = await _existing(context)
    tags = EntityTags.parse(match)
    if tags is None or not tags.match_strongly(attributes.etag):
        raise S3Error("PreconditionFailed", Condition="If-Match")
    return [("if-match", etag.quote(attributes.head.etag))]


async def _existing(context: RequestContext) -> Attributes:
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
            raise S3Error("NoSuchKey", Key=context.key) from error
        raise
