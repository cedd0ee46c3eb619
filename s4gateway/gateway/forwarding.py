"""Every operation the gateway does not rewrite: signed again and passed on, answer and all.

Rule: the backend owns S3 semantics. Its answer, its error code included, is the answer; only the
headers of the hop and of the signature are ours. Request documents are read, verified and sent with
the integrity headers the client gave, which are still true.
"""

from typing import Final

from s4gateway.backend.base import Body, ObjectStream
from s4gateway.gateway import relay
from s4gateway.gateway.context import HeaderPairs, Outcome, Relay, RequestContext, Response
from s4gateway.s3 import query
from s4gateway.s3.checksums import CHECKSUM_PREFIX

_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SIGNATURE: Final = frozenset({"awsaccesskeyid", "signature", "expires"})


async def forward(context: RequestContext) -> Outcome:
    """Pass a request on, and its answer back."""
    return passed_back(await send(context))


async def send(context: RequestContext) -> ObjectStream:
    """Pass a request on."""
    headers = relay.forwarded_headers(context.headers)
    body: Body | None = None
    if context.head.method not in _WITHOUT_BODY:
        data = await context.read_document()
        body = Body.of(data) if data or context.body.is_announced else None
        headers += _trailing_checksums(context)
    return await context.backend.forward(
        context.head.method, _path(context), _query(context), headers, body
    )


def passed_back(stream: ObjectStream) -> Outcome:
    """The store's answer, as it comes."""
    response = Response(
        stream.head.status,
        relay.relayed_headers(stream.head.headers),
        Relay(stream, stream.close),
        stream.head.content_length,
    )
    return Outcome(response)


def _path(context: RequestContext) -> str:
    address = context.address
    if address.bucket is None:
        return "/"
    if address.key is None:
        return f"/{query.quote(address.bucket)}"
    return f"/{query.quote(address.bucket)}/{query.quote_path(address.key)}"


def _query(context: RequestContext) -> str:
    """Return the query without the client's own signature."""
    if not context.head.raw_query:
        return ""
    return "&".join(
        f"{query.quote(name)}={query.quote(value)}"
        for name, value in context.head.query
        if not name.lower().startswith("x-amz-") and name.lower() not in _SIGNATURE
    )


def _trailing_checksums(context: RequestContext) -> HeaderPairs:
    """Checksums that followed the body become headers: the body is no longer chunked."""
    return [
        (name, value)
        for name, value in context.body.trailers().items()
        if name.startswith(CHECKSUM_PREFIX)
    ]
