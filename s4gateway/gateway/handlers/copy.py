"""CopyObject: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html.

Rule: the backend copies the stored bytes; the gateway looks at the source first, holds it against
the client's conditions, and lets the backend copy that version only. A source that is overwritten
meanwhile is looked at again. Sizes, ETags and checksums in the answer are those of the original.
"""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Final

from s4gateway.backend.base import BackendAnswer
from s4gateway.gateway import copy_source, keep_alive, relay
from s4gateway.gateway.conditions import conflicts, write_conditions
from s4gateway.gateway.context import Outcome, Relay, RequestContext, Response
from s4gateway.gateway.responses import XML
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.copying import CopiedObject, CopyOrder, is_description
from s4gateway.objects.opening import Source
from s4gateway.s3.checksums import ALGORITHMS
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers

_ATTEMPTS: Final = 3  # versions to look at before a busily overwritten source is unavailable
_DIRECTIVES: Final = frozenset({"COPY", "REPLACE"})
_VERSION: Final = "x-amz-copy-source-version-id"

_Copied = tuple[Attributes, CopiedObject]


async def copy_object(context: RequestContext) -> Outcome:
    """Copy an object, from one key to another or onto itself."""
    order = _order(context)
    if context.body.is_announced:
        await context.read_document()
    source = copy_source.open_for(context)
    task = asyncio.get_running_loop().create_task(_copy(context, source, order))
    try:
        done = await keep_alive.is_done(task)
    except asyncio.CancelledError:
        await _give_up(task)
        raise
    if not done:
        answer = keep_alive.late_document(context, task, partial(_document, task))
        relayed = Relay(answer, partial(_give_up, task))
        return Outcome(Response(200, [("content-type", XML)], relayed))
    attributes, copied = task.result()
    headers = relay.result_headers(copied.head.headers)
    if source.query and _VERSION not in copied.head.headers and attributes.head.version_id:
        headers.append((_VERSION, attributes.head.version_id))
    headers.append(("content-type", XML))
    response = Response(200, headers, copied.result.serialize())
    return Outcome(response, codec=attributes.codec, sidecar=copied.sidecar)


def _document(task: "asyncio.Task[_Copied]") -> bytes:
    _, copied = task.result()
    return copied.result.serialize()


async def _give_up(task: "asyncio.Task[_Copied]") -> None:
    """End a copy nobody waits for, and wait until it has cleaned up."""
    task.cancel()
    await asyncio.wait([task])


async def _copy(context: RequestContext, source: Source, order: CopyOrder) -> _Copied:
    copier = context.services.copier
    with conflicts(context):
        for _ in range(_ATTEMPTS):
            attributes = await copy_source.look(context, source)
            conditions = await write_conditions(context)
            try:
                return attributes, await copier.copy(
                    source, attributes, replace(order, conditions=conditions)
                )
            except BackendAnswer as error:
                if error.status != 412 or not await _has_changed(context, source, attributes):
                    raise
    raise S3Error("ServiceUnavailable", headers={"Retry-After": "1"})


async def _has_changed(context: RequestContext, source: Source, looked_at: Attributes) -> bool:
    """Tell a source that was overwritten from a condition on the destination that failed."""
    latest = await context.services.reader.attributes(source)
    return latest.head.etag != looked_at.head.etag


def _order(context: RequestContext) -> CopyOrder:
    """What the request's headers ask for; raises InvalidArgument, InvalidRequest."""
    headers = context.headers
    replaces = _directive(headers, "metadata")
    kept = relay.stored_headers(headers)
    return CopyOrder(
        name=context.name,
        settings=[each for each in kept if not is_description(each[0])],
        access=copy_source.access_headers(headers),
        description=[each for each in kept if is_description(each[0])] if replaces else None,
        replace_tags=_directive(headers, "tagging"),
        checksum_algorithm=_checksum_algorithm(headers),
    )


def _directive(headers: Headers, subject: str) -> bool:
    """Whether what the client sends replaces what the source has."""
    name = f"x-amz-{subject}-directive"
    directive = headers.get(name, "COPY")
    if directive not in _DIRECTIVES:
        raise S3Error(
            "InvalidArgument",
            f"Unknown {subject} directive.",
            ArgumentName=name,
            ArgumentValue=directive,
        )
    return directive == "REPLACE"


def _checksum_algorithm(headers: Headers) -> str | None:
    algorithm = headers.get("x-amz-checksum-algorithm")
    if algorithm is not None and algorithm.lower() not in ALGORITHMS:
        raise S3Error(
            "InvalidRequest",
            "Checksum algorithm provided is unsupported. Please try again with any of the valid "
            f"types: [{', '.join(name.upper() for name in ALGORITHMS)}]",
        )
    return algorithm
