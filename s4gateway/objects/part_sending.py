"""An encoded body into the store by a multipart upload: what no single PUT takes, or must not.

Rule: parts are plain ranges of the body, so frames may cross their borders: once completed, nothing
tells that there were parts but the ETag. Metadata go with the request that begins the upload,
conditions with the one that completes it, and an upload that is not completed is aborted, whatever
ended it.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
"""

import asyncio
import base64
import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import (
    Backend,
    BackendError,
    BackendProtocolError,
    Body,
    Head,
    HeaderList,
)
from s4gateway.backend.multipart import Upload
from s4gateway.objects.cache import ObjectName
from s4gateway.objects.encoding import EncodedObject
from s4gateway.objects.fan_out import fan_out
from s4gateway.objects.part_copying import is_carried
from s4gateway.s3 import completion, etag, xml
from s4gateway.s3.checksums import Digests
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers

LARGEST: Final = 5 * 1024**3  # bytes S3 takes in one PUT
PART_SIZE: Final = 512 * 1024 * 1024
_MOST_PARTS: Final = 10_000
_MIB: Final = 1024 * 1024
_AT_ONCE: Final = 4
_ABORT_SECONDS: Final = 30.0
_CONDITIONS: Final = frozenset({"if-match", "if-none-match"})


class PartSender:
    """Sends bodies in parts of `part_size` bytes, larger ones where 10,000 are not enough."""

    def __init__(self, part_size: int = PART_SIZE) -> None:
        self._part_size = part_size

    async def send(
        self, backend: Backend, name: ObjectName, encoded: EncodedObject, headers: HeaderList
    ) -> Head:
        """Store the body with these headers; raises BackendError."""
        conditions = [each for each in headers if each[0] in _CONDITIONS]
        create = [each for each in headers if each[0] not in _CONDITIONS]
        always = [each for each in create if is_carried(each[0])]
        upload = await _create(backend, name, create)
        try:
            parts = await self._send_parts(backend, upload, encoded, always)
            document = completion.parts_document(parts)
            fields = [("content-type", "application/xml"), *always, *conditions]
            tag, head = await multipart.complete(backend, upload, document, fields)
        except BaseException:
            await _abort(backend, upload, always)
            raise
        known = [each for each in head.headers.items() if each[0] != "etag"]
        return Head(head.status, Headers([*known, ("etag", etag.quote(tag))]))

    async def _send_parts(
        self, backend: Backend, upload: Upload, encoded: EncodedObject, headers: HeaderList
    ) -> list[tuple[int, str]]:
        async def send(part: tuple[int, tuple[int, int]]) -> tuple[int, str]:
            number, span = part
            body = await _range(encoded, *span)
            head = await multipart.put_part(backend, upload, number, body, headers)
            return number, head.etag

        return await fan_out(enumerate(self._spans(encoded), start=1), send, _AT_ONCE)

    def _spans(self, encoded: EncodedObject) -> Iterator[tuple[int, int]]:
        size = encoded.stored_size
        start = 0
        for each in encoded.parts:
            yield start, start + each
            start += each
        least = -(-size // _MOST_PARTS)
        step = max(self._part_size, -(-least // _MIB) * _MIB)
        for first in range(start, size, step):
            yield first, min(first + step, size)


async def _range(encoded: EncodedObject, start: int, end: int) -> Body:
    """Bytes [start, end) of the body, their MD5 known before they leave."""
    chunks = encoded.body.chunks
    if isinstance(chunks, bytes):
        data = chunks[start:end]
        md5 = Digests(("md5",))
        md5.update(data)
        return Body.of(data, md5=base64.b64encode(md5["md5"]).decode())
    assert encoded.spool is not None
    read = partial(encoded.spool.read, start, end)
    digests = Digests(("md5",))
    async for piece in read():
        await asyncio.to_thread(digests.update, piece)
    return Body(end - start, read, md5=base64.b64encode(digests["md5"]).decode())


async def _create(backend: Backend, name: ObjectName, headers: HeaderList) -> Upload:
    _, document = await multipart.create(backend, *name, headers)
    try:
        upload_id = xml.parse(document).findtext("UploadId")
    except S3Error as error:
        raise BackendProtocolError("CreateMultipartUpload was answered with no XML") from error
    if not upload_id:
        raise BackendProtocolError("CreateMultipartUpload was answered without an UploadId")
    return Upload(*name, upload_id)


async def _abort(backend: Backend, upload: Upload, headers: HeaderList) -> None:
    """Give up the parts; an upload that was completed after all is none any more."""
    with contextlib.suppress(BackendError, TimeoutError):
        async with asyncio.timeout(_ABORT_SECONDS):
            await multipart.abort(backend, upload, headers)
