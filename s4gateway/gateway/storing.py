"""From a client's plaintext to a stored object: the one way of PutObject and of form uploads.

Rule: the body is received, encoded and verified completely before the backend sees anything, so a
client that lies or dies leaves nothing behind. Conditional writes are decided by the backend:
`If-None-Match: *` goes there unchanged, `If-Match` is compared with what the client sees and then
replaced by the backend's own ETag.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from s4gateway.gateway import relay
from s4gateway.gateway.body import Piece
from s4gateway.gateway.conditions import conflicts, write_conditions
from s4gateway.gateway.context import Outcome, RequestContext, Response
from s4gateway.objects import dictionary_encoding
from s4gateway.objects.dictionary_store import Choice
from s4gateway.objects.encoding import (
    DIGESTS,
    SMALL_BODY,
    EncodedObject,
    ObjectEncoder,
    encode_small,
)
from s4gateway.s3 import etag
from s4gateway.s3.checksums import Declared, Digests


class Plaintext(Protocol):
    """What is to be stored: read once to its end, then verified.

    `length` is the most bytes that can come, None when that is not known. Whatever makes the body
    unfit to be stored is raised from the iteration or from `verify`.
    """

    @property
    def length(self) -> int | None: ...  # noqa: D102

    @property
    def declared(self) -> Declared: ...  # noqa: D102

    def pieces(self) -> AsyncIterator[Piece]: ...  # noqa: D102

    def verify(self, digests: Digests) -> dict[str, str]: ...  # noqa: D102


async def store_object(context: RequestContext, body: Plaintext) -> Outcome:
    """Store `body` under the key and the headers of the request."""
    headers = relay.stored_headers(context.headers)
    conditions = await write_conditions(context)
    digests = Digests((*DIGESTS, *body.declared.algorithms))
    choice = context.dictionaries.choose(*context.name, body.length)
    if choice is not None:
        encoded, verified = await _encode_tried(context, body, digests, choice)
    elif body.length is not None and body.length <= SMALL_BODY:
        encoded, verified = await _encode_small(context, body, digests)
    else:
        encoded, verified = await _encode_large(context, body, digests)
    encoded = encoded.with_checksum(next(iter(verified.items()), None))
    try:
        with conflicts(context):
            written = await context.services.writer.store(
                context.backend, context.name, encoded, headers + conditions
            )
    finally:
        encoded.close()
    manifest = encoded.manifest
    answer = relay.result_headers(written.head.headers)
    answer.append(("etag", etag.quote(manifest.logical_etag or written.head.etag)))
    for algorithm, value in verified.items():
        answer.append((f"x-amz-checksum-{algorithm}", value))
        answer.append(("x-amz-checksum-type", "FULL_OBJECT"))
    return Outcome(
        Response(200, answer),
        op="put",
        codec=manifest.codec.label,
        bytes_in=manifest.original_size,
        bytes_out=written.stored_size,
        sidecar=written.sidecar,
        tried=encoded.tried,
    )


async def _encode_small(
    context: RequestContext, body: Plaintext, digests: Digests
) -> tuple[EncodedObject, dict[str, str]]:
    data = await _whole(body)
    digests.update(data)
    verified = body.verify(digests)
    services = context.services
    return encode_small(data, digests, services.dispatcher, services.workshop.codecs), verified


async def _whole(body: Plaintext) -> bytes:
    parts = [piece async for piece in body.pieces()]
    return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)


async def _encode_tried(
    context: RequestContext, body: Plaintext, digests: Digests, choice: Choice
) -> tuple[EncodedObject, dict[str, str]]:
    """Encode a body with a dictionary and without; the smaller result is stored."""
    shop, dispatcher = context.services.workshop, context.services.dispatcher
    length = body.length
    assert length is not None
    if length <= dictionary_encoding.INLINE:
        data = await _whole(body)
        digests.update(data)
        verified = body.verify(digests)
        encoded = dictionary_encoding.encode_inline(data, digests, dispatcher, shop.codecs, choice)
        return encoded, verified
    memory = shop.budget.share(length)
    try:
        encoded = await dictionary_encoding.encode_in_memory(
            shop, await _whole(body), digests, dispatcher, choice, memory
        )
        return encoded, body.verify(digests)
    except BaseException:
        memory.release()
        raise


async def _encode_large(
    context: RequestContext, body: Plaintext, digests: Digests
) -> tuple[EncodedObject, dict[str, str]]:
    services = context.services
    encoder = ObjectEncoder(services.workshop, services.dispatcher, digests, body.length)
    try:
        async for piece in body.pieces():
            await encoder.feed(piece)
        encoded = await encoder.finish()
        try:
            return encoded, body.verify(digests)
        except BaseException:
            encoded.close()
            raise
    finally:
        encoder.close()
