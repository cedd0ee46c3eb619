"""The requests of a multipart upload as typed verbs, over any Backend's `forward`.

Rule: an answer that is not the one asked for is a typed error here, too, so that what calls these
needs no second way to tell success from failure.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from s4gateway.backend.base import (
    ERROR_LIMIT,
    Backend,
    BackendAnswer,
    BackendProtocolError,
    Body,
    Head,
    HeaderList,
    ObjectStream,
)
from s4gateway.s3 import completion, documents, query
from s4gateway.s3.errors import S3Error

DOCUMENT_LIMIT: Final = 8 * 1024 * 1024  # bytes of an answer that is a document


@dataclass(frozen=True, slots=True)
class Upload:
    """One multipart upload at the store."""

    bucket: str
    key: str
    upload_id: str

    @property
    def path(self) -> str:
        """The path of its requests."""
        return object_path(self.bucket, self.key)

    def query(self, **parameters: str) -> str:
        """The query of a request about it, further parameters first."""
        return query.format_query([*parameters.items(), ("uploadId", self.upload_id)])


def object_path(bucket: str, key: str) -> str:
    """The path of an object, percent-encoded."""
    return f"/{query.quote(bucket)}/{query.quote_path(key)}"


async def create(
    backend: Backend, bucket: str, key: str, headers: HeaderList
) -> tuple[Head, bytes]:
    """CreateMultipartUpload; returns the head and the document of the answer."""
    return await ask(backend, "POST", object_path(bucket, key), "uploads=", headers)


async def put_part(
    backend: Backend, upload: Upload, number: int, body: Body, headers: HeaderList = ()
) -> Head:
    """UploadPart; an answer without an ETag is a BackendProtocolError."""
    raw_query = upload.query(partNumber=str(number))
    head, _ = await ask(backend, "PUT", upload.path, raw_query, headers, body)
    if not head.etag:
        msg = "the store gave a part no ETag"
        raise BackendProtocolError(msg)
    return head


async def look(backend: Backend, upload: Upload, headers: HeaderList = ()) -> tuple[Head, bytes]:
    """ListParts of one part at most: whether the upload is there, and whose it is."""
    raw_query = query.format_query([("max-parts", "1"), ("uploadId", upload.upload_id)])
    return await ask(backend, "GET", upload.path, raw_query, headers)


async def abort(backend: Backend, upload: Upload, headers: HeaderList = ()) -> Head:
    """AbortMultipartUpload."""
    head, _ = await ask(backend, "DELETE", upload.path, upload.query(), headers)
    return head


async def complete(
    backend: Backend, upload: Upload, document: bytes, headers: HeaderList = ()
) -> tuple[str, Head]:
    """CompleteMultipartUpload; returns the object's bare ETag and the head of the answer.

    An error document under status 200, which S3 sends before it knows, is raised as an error.
    """
    md5 = base64.b64encode(hashlib.md5(document, usedforsecurity=False).digest()).decode()
    body = Body.of(document, md5=md5)
    head, answer = await ask(backend, "POST", upload.path, upload.query(), headers, body)
    try:
        return completion.parse_result(answer), head
    except S3Error as error:
        raise BackendAnswer(
            error.status, error.code, error.message, head.headers, answer
        ) from error
    except ValueError as error:
        raise BackendProtocolError(
            "CompleteMultipartUpload answered oddly: " + str(error)
        ) from error


async def ask(
    backend: Backend,
    method: str,
    raw_path: str,
    raw_query: str,
    headers: HeaderList,
    body: Body | None = None,
) -> tuple[Head, bytes]:
    """Send one request, read its answer of at most DOCUMENT_LIMIT bytes; raises BackendError."""
    async with await backend.forward(method, raw_path, raw_query, headers, body) as stream:
        if stream.head.status >= 300:
            raise await refusal(stream)
        return stream.head, await stream.read(DOCUMENT_LIMIT)


async def refusal(stream: ObjectStream) -> BackendAnswer:
    """The typed error of an answer that is none of 2xx."""
    head = stream.head
    body = await stream.read(ERROR_LIMIT)
    code, message = documents.parse_error(body)
    if not code:
        code = "InternalError" if head.status >= 500 else "InvalidRequest"
    return BackendAnswer(head.status, code, message, head.headers, body)
