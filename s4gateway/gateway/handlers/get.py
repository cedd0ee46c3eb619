"""GetObject: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html.

An unconditional read of a whole object is one backend request. Conditions, ranges and parts need to
know the object first; everything after that is pinned to the version that was looked at, and a
version that is overwritten meanwhile is looked at again. What the parts of an object are that this
gateway did not write, the backend alone knows.
"""

from typing import Final

from s4gateway.backend.base import BackendAnswer
from s4gateway.gateway import relay
from s4gateway.gateway.context import Outcome, Relay, RequestContext, Response
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.opening import OpenObject, Source
from s4gateway.s3 import ranges
from s4gateway.s3.conditions import Verdict
from s4gateway.s3.errors import S3Error
from s4gateway.wire.manifest import Form

_ATTEMPTS: Final = 3  # versions to look at before a busily overwritten key is called unavailable
_LOOK_FIRST: Final = frozenset(
    ("range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
)


async def get_object(context: RequestContext) -> Outcome:
    """Read an object or a range of it."""
    source = Source(
        context.backend,
        context.name,
        relay.version_query(context),
        relay.read_headers(context.headers),
    )
    part = relay.part_number(context)
    if part is None and _LOOK_FIRST.isdisjoint(context.headers):
        opened = await context.services.reader.open_whole(source)
        return _outcome(context, opened, opened.attributes)
    for _ in range(_ATTEMPTS):
        try:
            return await _look_then_read(context, source, part)
        except BackendAnswer as error:
            if error.status != 412:
                raise
    raise S3Error("ServiceUnavailable", headers={"Retry-After": "1"})


async def _look_then_read(context: RequestContext, source: Source, part: int | None) -> Outcome:
    reader = context.services.reader
    attributes = await reader.attributes(source)
    verdict = relay.check_read(context, attributes)
    if verdict is Verdict.PRECONDITION_FAILED:
        raise S3Error("PreconditionFailed")
    if verdict is Verdict.NOT_MODIFIED:
        headers = relay.object_headers(context, attributes, whole=False)
        return Outcome(Response(304, headers), op="get", codec=attributes.codec)
    if part is not None and attributes.stored.form is Form.FOREIGN:
        return await _part_of_backend(context, source, attributes, part)
    span = relay.wanted_part(part, attributes) or relay.wanted_range(context, attributes)
    if span is None:
        opened = await reader.open_whole(source, if_match=attributes.head.etag)
    else:
        opened = await reader.open_range(source, attributes, *span)
    return _outcome(context, opened, attributes, span, part)


async def _part_of_backend(
    context: RequestContext, source: Source, attributes: Attributes, part: int
) -> Outcome:
    bucket, key = source.name
    stream = await source.backend.get(
        bucket,
        key,
        if_match=attributes.head.etag,
        query=relay.part_query(context, part),
        headers=source.headers,
    )
    headers = relay.backend_part_headers(context, stream.head)
    content = Relay(stream, stream.close)
    response = Response(stream.head.status, headers, content, stream.head.content_length)
    return Outcome(response, op="get", codec=attributes.codec)


def _outcome(
    context: RequestContext,
    opened: OpenObject,
    attributes: Attributes,
    span: tuple[int, int] | None = None,
    part: int | None = None,
) -> Outcome:
    headers = relay.object_headers(context, attributes, whole=span is None, part=part)
    status = 200
    if span is not None:
        status = 206
        assert attributes.size is not None
        headers.append(("content-range", ranges.content_range(*span, attributes.size)))
    response = Response(status, headers, opened, opened.end - opened.start)
    codec = attributes.codec if span is None else "partial"
    return Outcome(response, op="get", codec=codec, fallback=opened.fallback)
