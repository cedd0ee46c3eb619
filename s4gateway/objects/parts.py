"""One part of a multipart upload, on its way into the store: the only way to write one.

    staged   small once compressed: its frames lie in the part's record, until Complete joins them
    direct   large enough to be a part of the store's own upload: sent there at once

Rule: the record comes last and is what makes the part exist; until it is stored, what was sent
before under the same number still counts. A part is always a sequence of frames, cut by the same
policy as an object's body, because parts are joined byte by byte and ranges must stay cheap.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from s4gateway.backend import multipart
from s4gateway.backend.base import Backend, Body, Head, HeaderList
from s4gateway.backend.multipart import Upload
from s4gateway.codecs import dispatcher as dispatching
from s4gateway.codecs import encoder as framing
from s4gateway.objects.encoding import (
    EMPTY_FRAME,
    SMALL_BODY,
    EncodedObject,
    Fit,
    ObjectEncoder,
    Workshop,
    manifest_of,
)
from s4gateway.objects.part_facts import PartFacts
from s4gateway.objects.unnamed_file import Piece
from s4gateway.objects.uploads import MAX_PART_NUMBER, UploadRecord, Uploads
from s4gateway.s3.checksums import Digests
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.index import FrameEntry, FrameIndex

# S3 wants every part but the last to have as much; a part that has it, encoded, goes direct.
MIN_DIRECT: Final = 5 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PartTarget:
    """Where a part belongs; `part_size` is the length all parts have, where it is fixed."""

    upload: Upload
    record: UploadRecord
    number: int
    part_size: int | None = None


@dataclass(frozen=True, slots=True)
class StoredPart:
    """What was stored, and the head the store answered with."""

    facts: PartFacts
    head: Head


def uniform_size(part_size: int) -> int:
    """Bytes of each stored part, where all must have the same: room for frames, and padding.

    >>> uniform_size(8 * 1024**2)
    8400896
    """
    return part_size + part_size // 1024 + 4096


class PartWriter:
    """Encodes and stores parts over any Backend; shared by all requests of a process."""

    def __init__(
        self, uploads: Uploads, workshop: Workshop, dispatcher: dispatching.Dispatcher
    ) -> None:
        self._uploads = uploads
        self._workshop = workshop
        self._dispatcher = dispatcher
        self._turns: WeakValueDictionary[tuple[Upload, int], asyncio.Lock] = WeakValueDictionary()

    async def target(
        self, upload: Upload, record: UploadRecord, number: int, length: int
    ) -> PartTarget:
        """Say where a part of `length` bytes belongs, before its body is read.

        Where the store wants equal parts, number 1 fixes their length. Raises BackendError.
        """
        uploads = self._uploads
        if not uploads.uniform:
            return PartTarget(upload, record, number)
        bucket, upload_id = upload.bucket, upload.upload_id
        size = await uploads.part_size(bucket, upload_id)
        if size is None and number == 1 and uniform_size(length) >= MIN_DIRECT:
            await uploads.fix_part_size(bucket, upload_id, length)
            size = await uploads.part_size(bucket, upload_id)
        return PartTarget(upload, record, number, size)

    async def encode(
        self, target: PartTarget, pieces: AsyncIterator[Piece], length: int, digests: Digests
    ) -> EncodedObject:
        """Take a body of `length` bytes and make frames of it; to be closed by the caller.

        `digests` see all of it. Raises what `pieces` raises, and S3Error("SlowDown").
        """
        if length <= SMALL_BODY:
            data = b"".join([bytes(piece) async for piece in pieces])
            digests.update(data)
            return self._encode_small(data, digests)
        encoder = ObjectEncoder(
            self._workshop, self._dispatcher, digests, length, always_framed=True
        )
        try:
            async for piece in pieces:
                await encoder.feed(piece)
            return await encoder.finish(self._fit(target, await self._part_size(target)))
        finally:
            encoder.close()

    def _encode_small(self, data: bytes, digests: Digests) -> EncodedObject:
        codec = self._dispatcher.pick(data[: dispatching.SAMPLE_SIZE])
        encoded = framing.encode_body(
            data, self._workshop.codecs.get(codec), framing.pick_chunk_size(len(data))
        )
        body, index = b"".join(encoded.frames), encoded.index
        if not data:
            body = EMPTY_FRAME.pack()
            index = FrameIndex.from_entries([FrameEntry(0, 0, 0, len(body))])
        manifest = manifest_of(codec, digests, len(data), len(body), framed=True)
        return EncodedObject(Body.of(body, md5=_md5(body)), manifest, index)

    async def _part_size(self, target: PartTarget) -> int | None:
        """The length all parts have, also when part number 1 began to come after this one."""
        if target.part_size is not None or not self._uploads.uniform:
            return target.part_size
        return await self._uploads.part_size(target.upload.bucket, target.upload.upload_id)

    def _fit(self, target: PartTarget, size: int | None) -> Fit | None:
        if size is None or target.number == MAX_PART_NUMBER:
            return None

        def fit(original: int, stored: int) -> int:
            # Padding a part that shrank would cost what compressing it saved.
            goes = original == size and stored * 16 > 15 * original
            return uniform_size(size) if goes else stored

        return fit

    async def encode_plain(
        self, pieces: AsyncIterator[Piece], length: int, digests: Digests
    ) -> EncodedObject:
        """Spool a body as it comes, for an upload that is not ours."""
        plain = dispatching.Dispatcher(CodecId.PASSTHROUGH)
        encoder = ObjectEncoder(self._workshop, plain, digests, length)
        try:
            async for piece in pieces:
                await encoder.feed(piece)
            return await encoder.finish()
        finally:
            encoder.close()

    async def store(
        self,
        backend: Backend,
        target: PartTarget,
        encoded: EncodedObject,
        checksums: Mapping[str, str],
        headers: HeaderList = (),
    ) -> StoredPart:
        """Store a verified part, in the client's name where it goes direct; raises BackendError.

        `headers` go with the request whose answer the client sees. One part number is stored by
        one request at a time in this process, so that record and part agree.
        """
        key = (target.upload, target.number)
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with turn:
            if self._goes_direct(target, encoded, await self._part_size(target)):
                return await self._store_direct(backend, target, encoded, checksums, headers)
            if backend is not self._uploads.backend:
                await _prove(backend, target, headers)
            facts = _facts(target, encoded, checksums, None)
            bucket = target.upload.bucket
            head = await self._uploads.store_part(
                bucket, target.record, facts, encoded.body, headers
            )
            return StoredPart(facts, head)

    def _goes_direct(self, target: PartTarget, encoded: EncodedObject, size: int | None) -> bool:
        if target.number == MAX_PART_NUMBER:  # Complete must be able to write behind it
            return False
        if not self._uploads.uniform:
            return encoded.stored_size >= MIN_DIRECT
        return size is not None and encoded.stored_size == uniform_size(size)

    async def _store_direct(
        self,
        backend: Backend,
        target: PartTarget,
        encoded: EncodedObject,
        checksums: Mapping[str, str],
        headers: HeaderList,
    ) -> StoredPart:
        upload = target.upload
        head = await multipart.put_part(backend, upload, target.number, encoded.body, headers)
        facts = _facts(target, encoded, checksums, head.etag)
        assert encoded.index is not None
        index = encoded.index.encode()
        body = Body.of(index, md5=_md5(index))
        await self._uploads.store_part(upload.bucket, target.record, facts, body)
        return StoredPart(facts, head)


async def _prove(backend: Backend, target: PartTarget, headers: HeaderList) -> None:
    """Let the store decide whether this client may upload the part; raises BackendAnswer.

    The staged part itself is stored under the gateway's own name, which may do more than a client
    that has a name of its own there. The empty part is never asked for at Complete.
    """
    await multipart.put_part(
        backend, target.upload, target.number, Body.of(b"", md5=_md5(b"")), headers
    )


def _facts(
    target: PartTarget,
    encoded: EncodedObject,
    checksums: Mapping[str, str],
    backend_etag: str | None,
) -> PartFacts:
    manifest, body = encoded.manifest, encoded.body
    assert manifest.logical_etag is not None
    return PartFacts(
        target.number,
        manifest.logical_etag,
        manifest.original_size,
        encoded.stored_size,
        None if body.md5 is None else base64.b64decode(body.md5).hex(),
        backend_etag,
        checksums,
    )


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
