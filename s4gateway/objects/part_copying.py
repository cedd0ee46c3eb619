"""Copy an object too large for one request: ranges of it into the parts of a multipart upload.

Rule: every range is pinned to the source's backend ETag, so the parts are of one version or there
is no copy. An upload that is not completed is aborted, whatever ended it. A multipart upload
inherits nothing from the source: metadata come with the order, tags are read here.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendError,
    BackendProtocolError,
    Body,
    Head,
    HeaderList,
)
from s4gateway.backend.multipart import Upload
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.cache import ObjectName
from s4gateway.objects.fan_out import fan_out
from s4gateway.objects.opening import Source
from s4gateway.s3 import completion, etag, query, xml
from s4gateway.s3.copying import CopyResult
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import OF_THE_REQUEST

PART_SIZE: Final = 512 * 1024 * 1024
_MOST_PARTS: Final = 10_000
_MIB: Final = 1024 * 1024
_AT_ONCE: Final = 4
_ABORT_SECONDS: Final = 30.0
_CUSTOMER_KEY: Final = "x-amz-server-side-encryption-customer-"


def is_carried(name: str) -> bool:
    """Whether a header goes with every request of an upload, not only with its first."""
    return name in OF_THE_REQUEST or name.startswith(_CUSTOMER_KEY)


def source_headers(source: Source, looked_at: Attributes) -> list[tuple[str, str]]:
    """Name the source of a copy, pinned to the version that was looked at."""
    name = multipart.object_path(*source.name)
    return [
        ("x-amz-copy-source", f"{name}?{source.query}" if source.query else name),
        ("x-amz-copy-source-if-match", etag.quote(looked_at.head.etag)),
    ]


def parse_result(document: bytes) -> CopyResult:
    """Read the answer to a copy; raises BackendAnswer, BackendProtocolError."""
    try:
        return CopyResult.parse(document)
    except S3Error as error:
        raise _answered(error) from error
    except ValueError as error:
        msg = f"a copy was answered with {error}"
        raise BackendProtocolError(msg) from error


def _answered(error: S3Error) -> BackendAnswer:
    """An error document that came under status 200, as if it had come under its own."""
    return BackendAnswer(error.status, error.code, error.message)


@dataclass(frozen=True, slots=True)
class UploadOrder:
    """The headers of each request of an upload that copies; `name` is where the copy goes.

    `create` begins it, `access` lets the store read the source, `always` go with every request,
    `conditions` with the one that completes it. `copies_tags`: the source's tags are the copy's.
    """

    name: ObjectName
    create: HeaderList
    access: HeaderList
    always: HeaderList
    conditions: HeaderList
    copies_tags: bool


class PartCopier:
    """Copies in parts of `part_size` bytes, larger ones where 10,000 of them are not enough."""

    def __init__(self, part_size: int = PART_SIZE) -> None:
        self._part_size = part_size

    async def copy(
        self, source: Source, looked_at: Attributes, order: UploadOrder
    ) -> tuple[Head, CopyResult]:
        """Copy the version that `looked_at` describes; raises BackendError."""
        headers = list(order.create)
        if order.copies_tags and (tags := await _tags(source)):
            headers.append(("x-amz-tagging", tags))
        upload = await _create(source.backend, order.name, headers)
        try:
            parts = await self._copy_parts(source, looked_at, order, upload)
            head, copied = await _complete(source.backend, upload, order, parts)
        except BaseException:
            await _abort(source.backend, upload, order)
            raise
        modified = await _modified(source.backend, order, head.version_id)
        return head, CopyResult(copied, modified)

    async def _copy_parts(
        self, source: Source, looked_at: Attributes, order: UploadOrder, upload: Upload
    ) -> list[tuple[int, str]]:
        """UploadPartCopy of all ranges, a few at once; returns numbers and ETags in order."""
        headers = [*source_headers(source, looked_at), *order.access, *order.always]

        async def copy_part(part: tuple[int, tuple[int, int]]) -> tuple[int, str]:
            number, (start, end) = part
            span = ("x-amz-copy-source-range", f"bytes={start}-{end - 1}")
            raw_query = upload.query(partNumber=str(number))
            _, document = await multipart.ask(
                source.backend, "PUT", upload.path, raw_query, [*headers, span]
            )
            return number, parse_result(document).etag

        spans = enumerate(self._spans(looked_at.head.size), start=1)
        return await fan_out(spans, copy_part, _AT_ONCE)

    def _spans(self, size: int) -> Iterator[tuple[int, int]]:
        least = -(-size // _MOST_PARTS)
        step = max(self._part_size, -(-least // _MIB) * _MIB)
        for start in range(0, size, step):
            yield start, min(start + step, size)


async def _create(backend: Backend, name: ObjectName, headers: HeaderList) -> Upload:
    _, document = await multipart.create(backend, *name, headers)
    try:
        upload_id = xml.parse(document).findtext("UploadId")
    except S3Error as error:
        raise BackendProtocolError("CreateMultipartUpload was answered with no XML") from error
    if not upload_id:
        raise BackendProtocolError("CreateMultipartUpload was answered without an UploadId")
    return Upload(*name, upload_id)


async def _complete(
    backend: Backend, upload: Upload, order: UploadOrder, parts: list[tuple[int, str]]
) -> tuple[Head, str]:
    """Complete the upload; returns the head of the answer and the bare ETag in it."""
    headers = [("content-type", "application/xml"), *order.always, *order.conditions]
    body = Body.of(completion.parts_document(parts))
    head, document = await multipart.ask(
        backend, "POST", upload.path, upload.query(), headers, body
    )
    try:
        return head, completion.parse_result(document.strip())
    except S3Error as error:
        raise _answered(error) from error
    except ValueError as error:
        msg = f"CompleteMultipartUpload was answered with {error}"
        raise BackendProtocolError(msg) from error


async def _abort(backend: Backend, upload: Upload, order: UploadOrder) -> None:
    """Give up the parts; one that was completed after all is none any more."""
    with contextlib.suppress(BackendError, TimeoutError):
        async with asyncio.timeout(_ABORT_SECONDS):
            await multipart.abort(backend, upload, order.always)


async def _tags(source: Source) -> str:
    """The source's tags as x-amz-tagging carries them; empty when it has none."""
    path = multipart.object_path(*source.name)
    raw_query = f"tagging=&{source.query}" if source.query else "tagging="
    headers = [each for each in source.headers if not each[0].startswith(_CUSTOMER_KEY)]
    try:
        _, document = await multipart.ask(source.backend, "GET", path, raw_query, headers)
        root = xml.parse(document)
    except BackendAnswer as error:
        if error.code in {"NoSuchTagSet", "NotImplemented"}:
            return ""
        raise
    except S3Error as error:
        raise BackendProtocolError("GetObjectTagging was answered with no XML") from error
    tags = [each for each in root.iter() if each.tag == "Tag"]
    return query.format_query(
        (each.findtext("Key") or "", each.findtext("Value") or "") for each in tags
    )


async def _modified(backend: Backend, order: UploadOrder, version: str | None) -> str | None:
    """When the copy came into being, which the answer to its completion does not say."""
    raw_query = "" if version is None else f"versionId={query.quote(version)}"
    try:
        head = await backend.head(*order.name, query=raw_query, headers=order.always)
    except BackendError:
        return None
    moment = head.last_modified
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
