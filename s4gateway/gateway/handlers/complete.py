"""CompleteMultipartUpload: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html.

Rule: an answer that takes long begins early and is kept alive. The work is not the request's: it
goes on when the client leaves, and a client that comes back joins it.
"""

import asyncio
from functools import partial
from typing import Final

from s4gateway.gateway import forwarding, keep_alive, relay
from s4gateway.gateway.conditions import conflicts, write_conditions
from s4gateway.gateway.context import HeaderPairs, Outcome, Relay, RequestContext, Response
from s4gateway.gateway.responses import XML
from s4gateway.gateway.upload_request import passed_on, upload_of
from s4gateway.objects.completion_request import Completed, Wanted
from s4gateway.s3 import completion
from s4gateway.s3.completion import Assembled, DeclaredWhole

_CONDITIONS: Final = ("if-match", "if-none-match")

_Task = asyncio.Task[Completed]


async def complete_multipart_upload(context: RequestContext) -> Outcome:
    """Make an object of the parts of an upload."""
    completer = context.services.completer
    upload = upload_of(context)
    standing = await completer.find(upload)
    if standing is None:
        return await _complete_foreign(context)
    headers = context.headers
    wanted = Wanted(
        upload,
        completion.parse_parts(await context.read_document()),
        DeclaredWhole.parse(headers),
        tuple(passed_on(headers)),
        tuple(map(headers.get, _CONDITIONS)),
    )
    conditions = partial(write_conditions, context)
    task = completer.begin(context.backend, wanted, standing, conditions)
    if not await keep_alive.is_done(task):
        answer = keep_alive.late_document(
            context, task, lambda: _document(context, _result(context, task))
        )
        return Outcome(Response(200, [("content-type", XML)], Relay(answer, answer.aclose)))
    completed = _result(context, task)
    answered = [*_headers(completed), ("content-type", XML)]
    document = _document(context, completed)
    return Outcome(Response(200, answered, document), sidecar=completed.sidecar)


async def _complete_foreign(context: RequestContext) -> Outcome:
    """Pass on the completion of an upload the gateway has no part in; what it knew is outdated."""
    services = context.services
    send = partial(forwarding.send, context)
    try:
        stream = await services.writer.accounts.replace_raw(context.name, send)
    finally:
        services.attributes.forget(context.name)
    return forwarding.passed_back(stream)


def _result(context: RequestContext, task: _Task) -> Completed:
    with conflicts(context):
        return task.result()


def _headers(completed: Completed) -> HeaderPairs:
    if completed.head is not None:
        return relay.result_headers(completed.head.headers)
    if completed.version_id is not None:
        return [("x-amz-version-id", completed.version_id)]
    return []


def _document(context: RequestContext, completed: Completed) -> bytes:
    scheme = "http" if context.services.config.tls_cert is None else "https"
    host = context.head.headers.get("host", "")
    location = f"{scheme}://{host}{context.head.raw_path}"
    name = (context.bucket, context.key)
    return Assembled(location, *name, completed.etag, completed.checksum).serialize()
