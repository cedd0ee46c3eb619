"""Conditional writes and deletes, made atomic by the backend.

Rule: the gateway compares only to translate. What the client wrote about the logical ETag becomes
the same condition about the backend's ETag, and the backend alone decides the race. A write that
must not replace a certain ETag is allowed on exactly the state that was looked at: `If-Match` of
what is there, `If-None-Match: *` where nothing is. A backend that would ignore the condition gets
no conditional request: the client is told 501 instead of a success that means nothing.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html
https://www.rfc-editor.org/rfc/rfc9110#section-13
"""

import contextlib
from collections.abc import Iterator
from typing import Final

from s4gateway.backend.base import BackendAnswer
from s4gateway.backend.probe import ConditionalVerb
from s4gateway.backend.profile import FLAG
from s4gateway.gateway import relay
from s4gateway.gateway.context import HeaderPairs, RequestContext
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.opening import Source
from s4gateway.s3 import etag
from s4gateway.s3.conditions import EntityTags
from s4gateway.s3.errors import S3Error
from s4gateway.s3.operations import Operation

# Conditions that would be ignored on the way. AWS has the last two for directory buckets only; the
# size a client knows is the object's own, not the stored one.
_REFUSED: Final = (
    "if-unmodified-since",
    "x-amz-if-match-last-modified-time",
    "x-amz-if-match-size",
)
_ALL: Final = frozenset({*_REFUSED, "if-match", "if-none-match"})
_WRITES: Final = (ConditionalVerb.PUT,)
# The requests to the backend that carry the conditions; a large copy is an upload in parts.
_CARRIERS: Final = {
    Operation.CompleteMultipartUpload: (ConditionalVerb.COMPLETE,),
    Operation.CopyObject: (ConditionalVerb.PUT, ConditionalVerb.COMPLETE),
}


async def write_conditions(context: RequestContext) -> HeaderPairs:
    """Translate If-Match and If-None-Match of a write, copy, completion or deletion.

    Returns the headers of the backend's request. Raises PreconditionFailed, NoSuchKey, and
    NotImplemented for conditions that nobody would decide.
    """
    headers = context.headers
    if _ALL.isdisjoint(headers):
        return []
    for name in _REFUSED:
        if name in headers:
            raise S3Error("NotImplemented", Header=name)
    none_match, match = headers.get("if-none-match"), headers.get("if-match")
    deletes = context.operation is Operation.DeleteObject
    if none_match is not None and (match is not None or deletes):
        raise S3Error("NotImplemented", Header="If-None-Match")
    if match is not None and deletes:
        return await deletion_condition(context, context.key, relay.version_query(context), match)
    for verb in _CARRIERS.get(context.operation, _WRITES):
        await _require(context, verb)
    if match is not None:
        attributes = await _existing(context)
        if attributes is None:
            raise S3Error("NoSuchKey", Key=context.key)
        return _pinned(attributes, match)
    assert none_match is not None
    if _is_any(none_match):
        return [("if-none-match", "*")]
    return await _unless(context, EntityTags.parse(none_match))


async def deletion_condition(
    context: RequestContext, key: str, version_query: str, match: str
) -> HeaderPairs:
    """Translate the ETag that an object must have to be deleted.

    What is not there has no ETag to translate, and stores differ in what they make of it: their
    answer is the answer. Raises PreconditionFailed, and NotImplemented where the backend would not
    decide it.
    """
    await _require(context, ConditionalVerb.DELETE)
    source = Source(
        context.backend, (context.bucket, key), version_query, relay.read_headers(context.headers)
    )
    attributes = None if _is_any(match) else await _at(source, context)
    return [("if-match", match)] if attributes is None else _pinned(attributes, match)


def _pinned(attributes: Attributes, match: str) -> HeaderPairs:
    """The backend's form of an If-Match that holds; raises PreconditionFailed."""
    tags = EntityTags.parse(match)
    if tags is None or not tags.match_strongly(attributes.etag):
        raise S3Error("PreconditionFailed", Condition="If-Match")
    return [("if-match", etag.quote(attributes.head.etag))]


@contextlib.contextmanager
def conflicts(context: RequestContext) -> Iterator[None]:
    """Tell the backend's refusal of a state that has changed from a failed condition.

    Raises ConditionalRequestConflict, which asks the client to try again, where the condition the
    client set may still hold for the object as it is now.
    """
    try:
        yield
    except BackendAnswer as error:
        if error.status == 412 and not _says_it_all(context):
            raise S3Error("ConditionalRequestConflict") from error
        raise


def _says_it_all(context: RequestContext) -> bool:
    """Whether what the backend was asked is what the client asked."""
    none_match, match = context.headers.get("if-none-match"), context.headers.get("if-match")
    if match is not None:
        tags = EntityTags.parse(match)
        return tags is None or (not tags.any and len(tags.strong | tags.weak) == 1)
    return none_match is None or _is_any(none_match)


def _is_any(header: str) -> bool:
    return header.strip() == "*"


async def _require(context: RequestContext, verb: ConditionalVerb) -> None:
    """Raise NotImplemented unless the backend is known to decide conditions on `verb`."""
    conditional = context.services.conditional
    try:
        honoured = await conditional.honoured(verb, context.bucket)
    except BackendAnswer as error:
        if error.status >= 500 or error.code == "NoSuchBucket":
            raise
        raise S3Error(
            "NotImplemented",
            "It could not be found out whether the backend honours conditions on"
            f" {verb.value} ({error.code}). The operator can state it with {FLAG}.",
        ) from error
    if honoured:
        return
    why = f"{FLAG} no-conditional-writes is set"
    if conditional.declared is None:
        why = f"it was asked and did not refuse a {verb.value} whose condition did not hold"
    raise S3Error("NotImplemented", f"The backend does not honour conditional requests: {why}.")


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
    return await _at(source, context)


async def _at(source: Source, context: RequestContext) -> Attributes | None:
    try:
        return await context.services.reader.attributes(source)
    except BackendAnswer as error:
        if error.status == 404:
            return None
        raise
