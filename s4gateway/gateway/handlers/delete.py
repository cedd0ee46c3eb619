"""DeleteObject, DeleteObjects and DeleteBucket: what goes takes the gateway's own objects along.

Rule: a sidecar goes after its object, and only where the object is really gone: on a versioned
bucket an older version may still use it. Internal keys are never reported.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
"""

import base64
import hashlib
from typing import Final

from s4gateway.backend.base import Body, ObjectStream
from s4gateway.gateway import relay
from s4gateway.gateway.conditions import write_conditions
from s4gateway.gateway.context import Outcome, Relay, RequestContext, Response
from s4gateway.s3 import xml
from s4gateway.s3.documents import ListPage
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys

_MOST_KEYS: Final = 1000
_LARGEST_ANSWER: Final = 8 * 1024 * 1024


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


async def delete_objects(context: RequestContext) -> Outcome:
    """Delete many objects; reserved keys are refused one by one."""
    root = xml.parse(await context.read_document())
    objects = list(root.findall("Object"))
    if root.tag != "Delete" or not 0 < len(objects) <= _MOST_KEYS:
        raise S3Error("MalformedXML")
    quiet = (root.findtext("Quiet") or "").strip().lower() == "true"
    refused = [each for each in objects if keys.is_write_reserved(each.findtext("Key") or "")]
    kept = [each for each in objects if each not in refused]
    results = await _delete(context, kept) if kept else []
    for each in refused:
        text = xml.leaf("Key", each.findtext("Key")) + xml.leaf("Code", "InvalidObjectName")
        results.append(xml.parse(f"<Error>{text}</Error>".encode()))
    for each in results:
        if each.tag == "Deleted" and each.find("DeleteMarkerVersionId") is None:
            _forget(context, each)
    shown = [each for each in results if not (quiet and each.tag == "Deleted")]
    inner = "".join(map(xml.write, shown))
    document = xml.document("DeleteResult", inner)
    return Outcome(Response(200, [("content-type", "application/xml")], document))


async def _delete(context: RequestContext, objects: list[xml.Element]) -> list[xml.Element]:
    """Send the request on, never quiet: only what was deleted loses its sidecar."""
    document = xml.document("Delete", "".join(map(xml.write, objects)))
    md5 = base64.b64encode(hashlib.md5(document, usedforsecurity=False).digest()).decode()
    stream = await context.backend.forward(
        "POST",
        f"/{context.address.raw_bucket}",
        "delete=",
        [*relay.delete_headers(context.headers), ("content-type", "application/xml")],
        Body.of(document, md5=md5),
    )
    async with stream:
        answer = await stream.read(_LARGEST_ANSWER)
    if stream.head.status >= 300:
        root = relay.backend_document(answer)
        raise S3Error(
            root.findtext("Code") or "InternalError",
            root.findtext("Message"),
            status=stream.head.status,
        )
    root = relay.backend_document(answer)
    return [each for each in root.children if each.tag in {"Deleted", "Error"}]


def _forget(context: RequestContext, deleted: xml.Element) -> None:
    key = deleted.findtext("Key")
    if key is None:
        return
    name = (context.bucket, key)
    services = context.services
    services.attributes.forget(name)
    versioned = deleted.find("VersionId") is not None or deleted.find("DeleteMarker") is not None
    if not versioned:
        services.sidecars.removals.add(name)


async def delete_bucket(context: RequestContext) -> Outcome:
    """Delete a bucket; when only internal leftovers keep it from being empty, they go first."""
    removals = context.services.sidecars.removals
    await removals.flush()
    stream = await _delete_bucket(context)
    if stream.head.status == 409 and await _remove_leftovers(context):
        await stream.close()
        stream = await _delete_bucket(context)
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
    """Delete internal objects of a bucket that holds nothing else; False when it holds more."""
    bucket = context.bucket
    removed = False
    while True:
        page = ListPage.parse(await context.backend.list(bucket, "encoding-type=url"))
        if not page.contents or any(not keys.is_hidden(each.key) for each in page.contents):
            return removed and not page.contents
        failures = await context.backend.delete_many(bucket, [each.key for each in page.contents])
        if failures:
            return False
        removed = True
