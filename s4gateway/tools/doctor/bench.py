"""Keys to try a store out with, all of which are gone afterwards.

Rule: everything is written below one prefix of the gateway's own, which listings hide and whose
leftovers are collected like those of any upload; and it is removed in every path, with all its
versions, whatever the store has done to it.
"""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from s4gateway.backend import multipart
from s4gateway.backend.base import Backend, BackendError, Body, Head, HeaderList
from s4gateway.backend.multipart import Upload
from s4gateway.objects import removal
from s4gateway.s3 import xml
from s4gateway.wire import keys


def md5_of(data: bytes) -> str:
    """Content-MD5 of data."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


@dataclass(slots=True)
class Bench:
    """A prefix in a bucket to write below; `leftover` says after the end what did not go away."""

    backend: Backend
    bucket: str
    prefix: str
    leftover: str = ""
    _keys: set[str] = field(default_factory=set)
    _uploads: list[Upload] = field(default_factory=list)

    def key(self, name: str) -> str:
        """The key of that name."""
        return self.prefix + name

    async def put(self, name: str, data: bytes, headers: HeaderList = ()) -> Head:
        """Write an object; raises BackendError."""
        self._keys.add(self.key(name))
        body = Body.of(data, md5=md5_of(data))
        return await self.backend.put(self.bucket, self.key(name), body, headers)

    async def put_body(self, name: str, body: Body, headers: HeaderList = ()) -> Head:
        """Write an object whose body may lie; raises BackendError."""
        self._keys.add(self.key(name))
        return await self.backend.put(self.bucket, self.key(name), body, headers)

    async def get(self, name: str, limit: int) -> tuple[Head, bytes]:
        """Read an object of at most `limit` bytes; raises BackendError."""
        async with await self.backend.get(self.bucket, self.key(name)) as stream:
            return stream.head, await stream.read(limit)

    async def begin(self, name: str) -> Upload:
        """Begin a multipart upload; raises BackendError, S3Error."""
        key = self.key(name)
        self._keys.add(key)
        _, document = await multipart.create(self.backend, self.bucket, key, [])
        upload = Upload(self.bucket, key, xml.parse(document).findtext("UploadId") or "")
        self._uploads.append(upload)
        return upload

    async def clear(self) -> None:
        """Remove everything; what does not go is said in `leftover`."""
        for upload in self._uploads:
            try:
                await multipart.abort(self.backend, upload)
            except BackendError as error:
                if getattr(error, "code", "") != "NoSuchUpload":  # those that were completed
                    self.leftover = f"upload {upload.upload_id} of {upload.key}: {error}"
        if not await removal.remove(self.backend, self.bucket, self.prefix):
            for key in self._keys:
                try:
                    await self.backend.delete(self.bucket, key)
                except BackendError as error:
                    self.leftover = f"{key}: {error}"


@asynccontextmanager
async def bench(backend: Backend, bucket: str) -> AsyncIterator[Bench]:
    """Have a bench while the block runs."""
    made = Bench(backend, bucket, keys.upload_prefix(f"probe-{secrets.token_hex(16)}"))
    try:
        yield made
    finally:
        clearing = asyncio.ensure_future(made.clear())
        try:
            await asyncio.shield(clearing)
        except asyncio.CancelledError:
            await clearing  # whoever is in a hurry waits for this
            raise
