"""CreateMultipartUpload, ListParts, ListMultipartUploads and AbortMultipartUpload.

Rule: the upload is the backend's, its id included, and the backend decides whether it exists; the
gateway keeps beside it what the backend cannot know. An upload without such a record is none of
ours (begun elsewhere, or under a customer's own key) and everything about it is passed on.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateMultipartUpload.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListParts.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html
"""

import contextlib
import secrets
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import BackendAnswer, BackendError, BackendProtocolError
from s4gateway.backend.multipart import Upload
from s4gateway.gateway import forwarding, relay
from s4gateway.gateway.context import HeaderPairs, Outcome, RequestContext, Response
from s4gateway.gateway.responses import XML
from s4gateway.gateway.upload_request import CUSTOMER_KEY, passed_on, upload_of
from s4gateway.objects.upload_listing import visible_uploads
from s4gateway.objects.uploads import UploadRecord, is_storable
from s4gateway.s3 import multipart as documents
from s4gateway.s3 import query
from s4gateway.s3.headers import USER_METADATA_PREFIX, Headers
from s4gateway.s3.multipart import InitiateResult, PartsPage, ShownPart
from s4gateway.wire import keys, manifest

_ALGORITHM: Final = "x-amz-checksum-algorithm"
_TYPE: Final = "x-amz-checksum-type"
_ENCRYPTION: Final = "x-amz-server-side-encryption"
_INITIATED: Final = "x-amz-if-match-initiated-time"
_LISTING: Final = frozenset(
    {
        "delimiter",
        "encoding-type",
        "key-marker",
        "max-uploads",
        "prefix",
        "upload-id-marker",
        "uploads",
    }
)


async def create_multipart_upload(context: RequestContext) -> Outcome:
    """Begin an upload."""
    headers = context.headers
    stored = relay.stored_headers(headers)
    if context.body.is_announced:
        await context.read_document()
    algorithm, kind = documents.parse_checksum(headers.get(_ALGORITHM), headers.get(_TYPE))
    if CUSTOMER_KEY in headers:
        return await _begin_foreign(context, stored)
    token = secrets.token_hex(8)
    entries = manifest.multipart_metadata(context.services.config.codec, tail=token)
    stored += [(USER_METADATA_PREFIX + name, text) for name, text in entries.items()]
    marks = context.services.writer.accounts.mark(stored)
    stored += marks
    head, document = await multipart.create(context.backend, context.bucket, context.key, stored)
    upload_id = _upload_id(document)
    record = UploadRecord(
        upload_id, context.key, token, algorithm, kind, _encryption(headers), ledger=bool(marks)
    )
    await _begin(context, record)
    answer = relay.result_headers(head.headers)
    answer.append(("content-type", XML))
    if algorithm is not None and kind is not None:
        answer += [(_ALGORITHM, algorithm.upper()), (_TYPE, kind)]
    result = InitiateResult(context.bucket, context.key, upload_id)
    return Outcome(Response(200, answer, result.serialize()))


async def _begin_foreign(context: RequestContext, stored: HeaderPairs) -> Outcome:
    """Begin an upload whose parts are stored as they come, under a key only the client has."""
    declared = [
        (name, value) for name, value in context.headers.items() if name in {_ALGORITHM, _TYPE}
    ]
    head, document = await multipart.create(
        context.backend, context.bucket, context.key, stored + declared
    )
    headers = relay.relayed_headers(head.headers)
    return Outcome(Response(200, headers, document))


def _upload_id(document: bytes) -> str:
    try:
        upload_id = InitiateResult.parse(document).upload_id
    except ValueError as error:
        msg = f"the backend began no upload: {error}"
        raise BackendProtocolError(msg) from error
    if not is_storable(upload_id):
        msg = f"the backend's upload id of {len(upload_id)} characters fits no key"
        raise BackendProtocolError(msg)
    return upload_id


def _encryption(headers: Headers) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in headers.items() if name.startswith(_ENCRYPTION))


async def _begin(context: RequestContext, record: UploadRecord) -> None:
    """Store the record; an upload that has none must not be left behind as if it were ours."""
    try:
        await context.services.uploads.begin(context.bucket, record)
    except BaseException:
        upload = Upload(context.bucket, context.key, record.upload_id)
        with contextlib.suppress(BackendError):
            await multipart.abort(context.backend, upload)
        raise


async def list_parts(context: RequestContext) -> Outcome:
    """List the parts of an upload as the client sent them."""
    upload = upload_of(context)
    limit = documents.parse_limit("max-parts", context.query.get("max-parts"), documents.MAX_PARTS)
    limit = min(limit, documents.MAX_PARTS)
    name = "part-number-marker"
    marker = documents.parse_limit(name, context.query.get(name), 0)
    services = context.services
    record = await services.uploads.find(context.bucket, context.key, upload.upload_id)
    if record is None:
        return await forwarding.forward(context)
    headers = passed_on(context.headers, "origin")
    head, document = await multipart.look(context.backend, upload, headers)
    try:
        people = documents.parse_people(document)
    except ValueError as error:
        raise BackendProtocolError(str(error)) from error
    found = await services.uploads.described(
        context.bucket,
        upload.upload_id,
        marker,
        limit + 1,
        services.config.listing_head_concurrency,
    )
    page = PartsPage(
        InitiateResult(context.bucket, context.key, upload.upload_id),
        marker,
        limit,
        len(found) > limit > 0,
        tuple(
            ShownPart(ref.number, facts.md5, facts.size, ref.modified, facts.checksums)
            for ref, facts in found[:limit]
        ),
        people,
        record.checksum_algorithm,
        record.checksum_type,
    )
    answer = [*relay.result_headers(head.headers), ("content-type", XML)]
    return Outcome(Response(200, answer, page.serialize()))


async def list_multipart_uploads(context: RequestContext) -> Outcome:
    """List the uploads under way, the gateway's own keys left out."""
    path, headers = f"/{query.quote(context.bucket)}", passed_on(context.headers, "origin")
    answer: HeaderPairs = []

    async def fetch(raw_query: str) -> bytes:
        head, document = await multipart.ask(context.backend, "GET", path, raw_query, headers)
        answer[:] = relay.result_headers(head.headers)
        return document

    asked = {name: value for name, value in context.query.items() if name in _LISTING}
    shown = await visible_uploads(asked, fetch)
    return Outcome(Response(200, [*answer, ("content-type", XML)], shown))


async def abort_multipart_upload(context: RequestContext) -> Outcome:
    """Abort an upload at the backend, then remove what was kept about it.

    An upload that expired at the backend leaves records behind; they go too, unless they are what
    is left to do of one that was completed. Some backends abort what is not there without a word,
    so it is looked for first.
    """
    upload = upload_of(context)
    uploads = context.services.uploads
    await uploads.find(context.bucket, context.key, upload.upload_id)  # for another key: refused
    try:
        await multipart.look(context.backend, upload, passed_on(context.headers))
    except BackendAnswer as error:
        if error.code == "NoSuchUpload":
            await _sweep(context, upload)
            raise
    head = await multipart.abort(
        context.backend, upload, passed_on(context.headers, "origin", _INITIATED)
    )
    await uploads.remove(context.bucket, upload.upload_id)
    return Outcome(Response(204, relay.result_headers(head.headers)))


async def _sweep(context: RequestContext, upload: Upload) -> None:
    uploads, completion = context.services.uploads, keys.completion_key(upload.upload_id)
    if await uploads.read(context.bucket, upload.upload_id, completion) is None:
        await uploads.remove(context.bucket, upload.upload_id)
