"""HeadObject: https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html.

Rule: HEAD says what GET would send, and never asks the backend for a byte of the body of an object
this gateway wrote.
"""

from s4gateway.gateway import relay
from s4gateway.gateway.context import Outcome, RequestContext, Response
from s4gateway.objects.opening import Source
from s4gateway.s3 import ranges
from s4gateway.s3.conditions import Verdict
from s4gateway.s3.errors import S3Error
from s4gateway.wire.manifest import Form


async def head_object(context: RequestContext) -> Outcome:
    """Describe an object."""
    source = Source(
        context.backend,
        context.name,
        relay.version_query(context),
        relay.read_headers(context.headers),
    )
    part = relay.part_number(context)
    attributes = await context.services.reader.attributes(source)
    verdict = relay.check_read(context, attributes)
    if verdict is Verdict.PRECONDITION_FAILED:
        raise S3Error("PreconditionFailed")
    if verdict is Verdict.NOT_MODIFIED:
        return Outcome(Response(304, relay.object_headers(context, attributes, whole=False)))
    if part is not None and attributes.stored.form is Form.FOREIGN:
        return await _part_of_backend(context, source, part)
    span = relay.wanted_part(part, attributes) or relay.wanted_range(context, attributes)
    headers = relay.object_headers(context, attributes, whole=span is None, part=part)
    size = attributes.size if attributes.size is not None else attributes.head.size
    if span is None:
        return Outcome(Response(200, headers, length=size))
    headers.append(("content-range", ranges.content_range(*span, size)))
    return Outcome(Response(206, headers, length=span[1] - span[0]))


async def _part_of_backend(context: RequestContext, source: Source, part: int) -> Outcome:
    """What the parts of an object are that this gateway did not write, the backend alone knows."""
    query = relay.part_query(context, part)
    head = await source.backend.head(*source.name, query=query, headers=source.headers)
    headers = relay.backend_part_headers(context, head)
    return Outcome(Response(head.status, headers, length=head.content_length))
