"""Whether a store refuses a write whose condition does not hold: it is asked to do wrong.

Rule: a header that is taken and ignored looks like success, so only refusals prove anything. An
object of our own is written below the gateway's prefix, and then written, completed and deleted
again under conditions that do not hold; a store that does any of it cannot be trusted with a
client's. What was written is removed, its versions by their ids where there are versions.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

import base64
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

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
from s4gateway.s3 import etag, query, xml
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys

_DATA: Final = b"s4 probe"
# Neither holds for an object that exists.
_CONDITIONS: Final = (
    ("if-none-match", "*"),
    ("if-match", '"00000000000000000000000000000000"'),
)
_REFUSED: Final = frozenset({409, 412})
_NOT_TAKEN: Final = frozenset({400, 405, 501})  # the header, or its value, is nothing it knows
_REFUSALS: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})

_log = logging.getLogger("s4.probe")


class ConditionalVerb(Enum):
    """The requests whose conditions a store honours or not, each by itself."""

    PUT = "PutObject"
    DELETE = "DeleteObject"
    COMPLETE = "CompleteMultipartUpload"


Findings = dict[ConditionalVerb, bool]


async def probe(
    backend: Backend, bucket: str, verb: ConditionalVerb, key: str | None = None
) -> Findings:
    """Find out about `verb`, and what comes along, in `bucket`, with an object at `key`.

    Without `key` it is one of the gateway's own. Raises BackendError when the store's answers tell
    nothing, for example AccessDenied.
    """
    key = keys.probe_key(secrets.token_hex(16)) if key is None else key
    async with _object(backend, bucket, key) as tried:
        if verb is ConditionalVerb.COMPLETE:
            return {verb: await _completes_refused(tried)}
        put = await _all_refused(tried.write)
        return {
            ConditionalVerb.PUT: put,
            ConditionalVerb.DELETE: await _refused(tried.delete([_CONDITIONS[1]])),
        }


@dataclass(slots=True)
class _Tried:
    """An object to try things on, and the versions that were made of it."""

    backend: Backend
    bucket: str
    key: str
    versions: set[str | None] = field(default_factory=set)

    async def write(self, conditions: HeaderList = ()) -> None:
        """Write it, with its MD5, which buckets with Object Lock insist on."""
        self._made(await self.backend.put(self.bucket, self.key, _body(), conditions))

    async def delete(self, conditions: HeaderList) -> None:
        self._made(await self.backend.delete(self.bucket, self.key, headers=conditions))

    async def complete(self, upload: multipart.Upload, part: str, conditions: HeaderList) -> None:
        """Complete the upload of one part; a refusal may come as a document under status 200."""
        inner = xml.leaf("PartNumber", "1") + xml.leaf("ETag", etag.quote(part))
        manifest = Body.of(xml.document("CompleteMultipartUpload", f"<Part>{inner}</Part>"))
        head, document = await multipart.ask(
            self.backend, "POST", upload.path, upload.query(), conditions, manifest
        )
        root = _parsed(document)
        if root.tag == "Error":
            code = root.findtext("Code") or "InternalError"
            raise BackendAnswer(412 if code in _REFUSALS else 500, code)
        self._made(head)

    def _made(self, head: Head) -> None:
        self.versions.add(head.version_id)

    async def remove(self) -> None:
        for version in self.versions or {None}:
            named = "" if version is None else f"versionId={query.quote(version)}"
            await _try(self.backend.delete(self.bucket, self.key, query=named))


@asynccontextmanager
async def _object(backend: Backend, bucket: str, key: str) -> AsyncIterator[_Tried]:
    tried = _Tried(backend, bucket, key)
    try:
        await tried.write()
        yield tried
    finally:
        await tried.remove()


async def _completes_refused(tried: _Tried) -> bool:
    backend, bucket, key = tried.backend, tried.bucket, tried.key
    _, document = await multipart.create(backend, bucket, key, [])
    upload = multipart.Upload(bucket, key, _parsed(document).findtext("UploadId") or "")
    try:
        part = await multipart.put_part(backend, upload, 1, _body())
        return await _all_refused(lambda sent: tried.complete(upload, part.etag, sent))
    finally:
        await _try(multipart.abort(backend, upload))


async def _all_refused(request: Callable[[HeaderList], Awaitable[None]]) -> bool:
    for condition in _CONDITIONS:
        if not await _refused(request([condition])):
            return False
    return True


async def _refused(request: Awaitable[None]) -> bool:
    """Whether the store refuses this request because its condition does not hold."""
    try:
        await request
    except BackendAnswer as answer:
        if answer.status in _REFUSED:
            return True
        if answer.status in _NOT_TAKEN:
            return False
        raise
    return False


async def _try(cleanup: Awaitable[Any]) -> None:
    """What cannot be removed stays hidden, and is collected like any other leftover."""
    try:
        await cleanup
    except BackendError as error:
        _log.debug("probe not removed", extra={"fields": {"error": str(error)}})


def _body() -> Body:
    md5 = hashlib.md5(_DATA, usedforsecurity=False).digest()
    return Body.of(_DATA, md5=base64.b64encode(md5).decode())


def _parsed(document: bytes) -> xml.Element:
    try:
        return xml.parse(document)
    except S3Error as error:
        raise BackendProtocolError("the answer about an upload is malformed") from error
