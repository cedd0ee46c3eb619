"""DeleteObject and DeleteBucket: what goes takes the gateway's own objects along.

Rule: a bucket that shows a client nothing is empty, as on S3, where unfinished uploads end with
their bucket. What else is in it is the gateway's own and goes first, once the store has refused and
a look at every version has shown that nothing else is there: dictionaries last, for any object
written meanwhile may need them.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObject.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteBucket.html
"""

from s4gateway.backend.base import BackendAnswer, BackendError, ObjectStream
from s4gateway.gateway import relay
from s4gateway.gateway.conditions import write_conditions
from s4gateway.gateway.context import Outcome, Relay, RequestContext, Response
from s4gateway.objects import removal
from s4gateway.objects.listing import ListRequest, visible_page
from s4gateway.objects.version_listing import VersionRequest, visible_versions
from s4gateway.wire import keys


async def delete_object(context: RequestContext) -> Outcome:
    """Delete one object, or one version of it."""
    conditions = await write_conditions(context)
    head = await context.services.writer.delete(
        context.backend,
        context.name,
        relay.version_query(context),
        relay.delete_headers(context.headers) + conditions,
    )
    return Outcome(Response(204, relay.result_headers(head.headers)))


async def delete_bucket(context: RequestContext) -> Outcome:
    """Delete a bucket; when only internal leftovers keep it from being empty, they go first."""
    removals = context.services.sidecars.removals
    await removals.flush()
    stream = await _delete_bucket(context)
    if stream.head.status == 409 and await _remove_leftovers(context):
        await stream.close()
        stream = await _delete_bucket(context)
    context.services.writer.accounts.forget(context.bucket)
    answer = Relay(stream, stream.close)
    headers = relay.relayed_headers(stream.head.headers)
    return Outcome(Response(stream.head.status, headers, answer, stream.head.content_length))


async def _delete_bucket(context: RequestContext) -> ObjectStream:
    return await context.backend.forward(
        "DELETE",
        f"/{context.address.raw_bucket}",
        "",
        relay.forwarded_headers(context.headers),
    )


async def _remove_leftovers(context: RequestContext) -> bool:
    """Delete all versions of everything in a bucket that holds only internal objects.

    False when it holds more, and when something stays.
    """
    bucket, backend = context.bucket, context.services.backend
    try:
        if await _shows_anything(context):
            return False
        found = [
            each for each in await removal.versions(backend, bucket, "") if keys.is_hidden(each.key)
        ]
        last = [each for each in found if each.key.startswith(keys.DICTIONARY_PREFIX)]
        first = [each for each in found if not each.key.startswith(keys.DICTIONARY_PREFIX)]
        if not await removal.delete(backend, bucket, first, by_id=True):
            return False
        return await removal.delete(backend, bucket, last, by_id=True)
    except BackendError:
        return False  # the store's refusal is the answer


async def _shows_anything(context: RequestContext) -> bool:
    """Whether a client sees an object, an old version or a delete marker."""
    bucket, backend = context.bucket, context.services.backend

    async def fetch(raw_query: str) -> bytes:
        return await backend.list(bucket, raw_query)

    page = await visible_page(ListRequest(2, max_keys=1), fetch)
    if page.contents:
        return True
    try:
        versions = await visible_versions(VersionRequest(max_keys=1), fetch)
    except BackendAnswer as error:
        if error.status not in {400, 405, 501}:
            raise
        return False  # a store that has no versions
    return bool(versions.entries)
