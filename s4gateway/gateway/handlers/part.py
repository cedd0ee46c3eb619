"""UploadPart and UploadPartCopy.

Rule: a part is received, encoded and verified completely before the backend sees anything of it, as
an object is. Its ETag and checksums are those of what the client sent, or of the plaintext that was
copied, whatever the source is stored as.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html
"""

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import BackendAnswer, Head
from s4gateway.backend.multipart import Upload
from s4gateway.gateway import copy_source
from s4gateway.gateway.context import HeaderPairs, Outcome, RequestContext, Response
from s4gateway.gateway.responses import XML
from s4gateway.gateway.upload_request import CUSTOMER_KEY, passed_on, upload_of
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.encoding import DIGESTS, EncodedObject
from s4gateway.objects.errors import DamagedObject
from s4gateway.objects.opening import OpenObject, Source
from s4gateway.objects.unnamed_file import Piece
from s4gateway.objects.uploads import UploadRecord
from s4gateway.s3 import etag, ranges
from s4gateway.s3.checksums import CHECKSUM_PREFIX, Declared, Digests
from s4gateway.s3.errors import S3Error
from s4gateway.s3.multipart import CopiedPart, parse_part_number

MAX_PART_SIZE: Final = 5 * 1024**3
_ATTEMPTS: Final = 3  # versions to look at before a busily overwritten source is unavailable
_CUSTOMER: Final = "x-amz-server-side-encryption-customer-"
_SHOWN: Final = ("access-control-", "vary", "x-amz-request-charged", "x-amz-server-side-encryption")


async def upload_part(context: RequestContext) -> Outcome:
    """Store one part."""
    number = parse_part_number(context.query.get("partNumber", ""))
    length = context.body.length
    if length is None:
        raise S3Error("MissingContentLength")
    if length > MAX_PART_SIZE:
        raise S3Error("EntityTooLarge", ProposedSize=length, MaxSizeAllowed=MAX_PART_SIZE)
    upload, body = upload_of(context), context.body
    record = await _record(context, upload, body.declared)
    sent = _Sent(context, upload, number, length, record)
    digests = sent.digests(body.declared.algorithms)
    encoded = await sent.encode(body.pieces(), digests)
    try:
        checksums = _with_own(record, digests, body.verify(digests))
        part_etag, head = await sent.store(encoded, checksums)
    finally:
        encoded.close()
    answer = _shown(head)
    answer.append(("etag", etag.quote(part_etag)))
    answer += [(CHECKSUM_PREFIX + name, value) for name, value in checksums.items()]
    return _outcome(encoded, Response(200, answer))


async def upload_part_copy(context: RequestContext) -> Outcome:
    """Store a part that is an object, or a range of one."""
    number = parse_part_number(context.query.get("partNumber", ""))
    if context.body.is_announced:
        await context.read_document()
    upload = upload_of(context)
    source = copy_source.open_for(context)
    asked = context.headers.get("x-amz-copy-source-range")
    span = None if asked is None else ranges.parse_copy_source(asked)
    record = await _record(context, upload, None)
    opened = await _open(context, source, span)
    try:
        sent = _Sent(context, upload, number, opened.end - opened.start, record)
        digests = sent.digests(())
        encoded = await sent.encode(_content(opened), digests)
    finally:
        await opened.aclose()
    try:
        checksums = _with_own(record, digests, {})
        part_etag, head = await sent.store(encoded, checksums)
    finally:
        encoded.close()
    answer = [*_shown(head), ("content-type", XML)]
    if (version := opened.attributes.head.version_id) is not None:
        answer.append(("x-amz-copy-source-version-id", version))
    modified = f"{context.now:%Y-%m-%dT%H:%M:%S}.000Z"
    document = CopiedPart(part_etag, modified, checksums).serialize()
    return _outcome(encoded, Response(200, answer, document))


async def _record(
    context: RequestContext, upload: Upload, declared: Declared | None
) -> UploadRecord | None:
    """The record of the upload, held against what the request says; None when it is not ours."""
    record = await context.services.uploads.find(context.bucket, context.key, upload.upload_id)
    if record is None:
        return None
    if CUSTOMER_KEY in context.headers:
        raise S3Error(
            "InvalidRequest",
            "The multipart upload initiate did not request encryption with a customer-provided "
            "key. Part requests must not include such a key.",
        )
    wanted = record.checksum_algorithm
    if declared is not None and wanted is not None:
        for algorithm in _declared_algorithms(declared):
            if algorithm != wanted:
                raise S3Error(
                    "InvalidRequest",
                    f"Checksum Type mismatch occurred, expected checksum Type: {wanted}, actual "
                    f"checksum Type: {algorithm}",
                )
    return record


def _declared_algorithms(declared: Declared) -> list[str]:
    names = [name.removeprefix(CHECKSUM_PREFIX) for name in declared.trailers]
    return names if declared.checksum is None else [*names, declared.checksum[0]]


def _with_own(
    record: UploadRecord | None, digests: Digests, verified: Mapping[str, str]
) -> dict[str, str]:
    """The verified checksums, and the one the upload declared."""
    checksums = dict(verified)
    if record is not None and record.checksum_algorithm is not None:
        digest = digests[record.checksum_algorithm]
        checksums[record.checksum_algorithm] = base64.b64encode(digest).decode()
    return checksums


class _Sent:
    """One part on its way: framed into an upload of ours, as it comes into any other."""

    def __init__(
        self,
        context: RequestContext,
        upload: Upload,
        number: int,
        length: int,
        record: UploadRecord | None,
    ) -> None:
        self._context = context
        self._upload = upload
        self._number = number
        self._length = length
        self._record = record

    def digests(self, declared: tuple[str, ...]) -> Digests:
        """What must be computed over the plaintext."""
        own = self._record.checksum_algorithm if self._record is not None else None
        return Digests(dict.fromkeys((*DIGESTS, *declared, *((own,) if own else ()))))

    async def encode(self, pieces: AsyncIterator[Piece], digests: Digests) -> EncodedObject:
        """Take the plaintext; the caller closes what comes of it."""
        parts, record = self._context.services.parts, self._record
        if record is None:
            return await parts.encode_plain(pieces, self._length, digests)
        self._target = await parts.target(self._upload, record, self._number, self._length)
        return await parts.encode(self._target, pieces, self._length, digests)

    async def store(self, encoded: EncodedObject, checksums: dict[str, str]) -> tuple[str, Head]:
        """Store it; returns the ETag for the client and the head of the backend's answer."""
        context = self._context
        headers = passed_on(context.headers, "origin")
        if self._record is not None:
            stored = await context.services.parts.store(
                context.backend, self._target, encoded, checksums, headers
            )
            return stored.facts.md5, stored.head
        headers += [(name, value) for name, value in context.headers.items() if _is_customer(name)]
        headers += [(CHECKSUM_PREFIX + name, value) for name, value in checksums.items()]
        head = await multipart.put_part(
            context.backend, self._upload, self._number, encoded.body, headers
        )
        return head.etag, head


def _is_customer(name: str) -> bool:
    return name.startswith(_CUSTOMER)


def _shown(head: Head) -> HeaderPairs:
    """Of the backend's answer, what is also true of the part."""
    return [(name, value) for name, value in head.headers.items() if name.startswith(_SHOWN)]


def _outcome(encoded: EncodedObject, response: Response) -> Outcome:
    manifest = encoded.manifest
    return Outcome(
        response,
        op="put",
        codec=manifest.codec.label,
        bytes_in=manifest.original_size,
        bytes_out=encoded.stored_size,
    )


async def _open(
    context: RequestContext, source: Source, wanted: ranges.FromTo | None
) -> OpenObject:
    """Open what is to be copied, of the version that was held against the conditions."""
    reader = context.services.reader
    for _ in range(_ATTEMPTS):
        attributes = await copy_source.look(context, source)
        start, end = _span(attributes, wanted)
        try:
            if wanted is None:
                return await reader.open_whole(source, if_match=attributes.head.etag)
            return await reader.open_range(source, attributes, start, end)
        except BackendAnswer as error:
            if error.status != 412:
                raise
    raise S3Error("ServiceUnavailable", headers={"Retry-After": "1"})


def _span(attributes: Attributes, wanted: ranges.FromTo | None) -> tuple[int, int]:
    """The bytes of the original to copy; a range must lie inside it."""
    size = attributes.size
    if size is None:
        msg = "neither metadata nor frames tell the object's size"
        raise DamagedObject(msg)
    start, end = (0, size) if wanted is None else (wanted.first, wanted.last + 1)
    if end > size:
        raise S3Error("InvalidRange", RangeRequested=wanted, ActualObjectSize=size)
    if end - start > MAX_PART_SIZE:
        raise S3Error(
            "InvalidRequest",
            "The specified copy source is larger than the maximum allowable size for a copy "
            f"source: {MAX_PART_SIZE}",
        )
    return start, end


async def _content(opened: OpenObject) -> AsyncIterator[Piece]:
    content = opened.content
    if isinstance(content, bytes):
        yield content
        return
    async with aclosing(content):
        async for piece in content:
            yield bytes(piece)  # the encoder keeps pieces, and a view would keep its frame
