"""CompleteMultipartUpload: from records and parts to one object, in steps that may be repeated.

    check ─ send segments ─ record ─ COMMIT ─ sidecar ─ record ─ remove the parts' records
                                       │
                      the store's own CompleteMultipartUpload

Rule: nothing is visible before the commit, and everything behind it can be made up for by whoever
is asked next, in this process or another: the object carries the token of its upload and a tail
that names its ETag, so "has this been done?" is always answered by the object itself. Before the
commit a repetition begins anew; after it, it does what is left and gives the same answer. The work
is proportional to the number of parts and the bytes staged, never to the size of the object.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendError,
    Head,
    HeaderList,
)
from s4gateway.backend.multipart import Upload
from s4gateway.backend.probe import ConditionalVerb
from s4gateway.objects import completion_record
from s4gateway.objects.accounting import Swap, Write
from s4gateway.objects.assembly import Indexes, Material, Sent
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.cache import AttributeCache, KnownObject
from s4gateway.objects.completion_record import CompletionRecord
from s4gateway.objects.completion_request import Completed, Standing, Wanted
from s4gateway.objects.detached import Detached
from s4gateway.objects.encoding import Workshop
from s4gateway.objects.footprint import Footprint, Found
from s4gateway.objects.materials import Materials
from s4gateway.objects.opening import Source
from s4gateway.objects.reader import ObjectReader
from s4gateway.objects.sidecar import Sidecars
from s4gateway.objects.uploads import UploadRecord, Uploads
from s4gateway.objects.writer import ObjectWriter
from s4gateway.s3 import completion as s3_completion
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys
from s4gateway.wire.index import FrameIndex
from s4gateway.wire.tail import Tail

REMEMBERED: Final = 15 * 60.0  # seconds a completed upload can be completed again
_MOST_REMEMBERED: Final = 10_000
_CLOSE_SECONDS: Final = 10.0
_PART_BYTES: Final = 1024  # memory that is counted for each part
_ATTEMPTS: Final = 3  # when parts are sent again meanwhile
_SERVER_FAULT: Final = 500
_NO_OBJECT: Final = frozenset({404, 405})  # 405: the newest version is a delete marker
_RECORD_GONE: Final = frozenset({"NoSuchKey", "PreconditionFailed"})

_log = logging.getLogger("s4.completion")

Conditions = Callable[[], Awaitable[HeaderList]]


@dataclass(frozen=True, slots=True)
class Objects:
    """How a process reads and writes objects, and what it knows about them."""

    reader: ObjectReader
    writer: ObjectWriter
    sidecars: Sidecars
    attributes: AttributeCache


class _Changed(Exception):
    """A record is not there any more, or another one is, since it was listed."""


@dataclass(frozen=True, slots=True)
class _Committed:
    """The object at the store: its ETag there, stored size, version; `head` of the commit."""

    etag: str
    size: int
    version_id: str | None
    head: Head | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An upload whose parts lie at the store; `asked` are the client's conditions."""

    wanted: Wanted
    record: UploadRecord
    tail: Tail
    material: Material
    direct: Indexes | None
    sent: Sent
    asked: HeaderList


class Completer:
    """Completes uploads over any Backend; shared by all requests of a process.

    `backend` carries the gateway's own identity, for records; the object is made under the
    client's.
    """

    def __init__(
        self, workshop: Workshop, backend: Backend, uploads: Uploads, objects: Objects
    ) -> None:
        self._workshop = workshop
        self._materials = Materials(workshop, backend, uploads)
        self._backend = backend
        self._uploads = uploads
        self._objects = objects
        self._running: Detached[Completed] = Detached()
        self._removals: Detached[bool] = Detached()
        self._forgetting: dict[Upload, asyncio.TimerHandle] = {}

    async def find(self, upload: Upload) -> Standing | None:
        """Return what is recorded; None when nothing is, for then the upload is the store's own.

        Raises NoSuchUpload when the upload is for another key, DamagedObject, BackendError.
        """
        bucket, key, upload_id = upload.bucket, upload.key, upload.upload_id
        record, completion = await asyncio.gather(
            self._uploads.find(bucket, key, upload_id),
            completion_record.load(self._uploads, bucket, key, upload_id),
        )
        return Standing(record, completion) if record or completion else None

    def begin(
        self, backend: Backend, wanted: Wanted, standing: Standing, conditions: Conditions
    ) -> "asyncio.Task[Completed]":
        """Complete the upload in a task that outlives the request; see `complete`.

        A repetition that comes while the work is under way gets the same task.
        """
        call = partial(self.complete, backend, wanted, standing, conditions)
        return self._running.begin((backend, wanted), call)

    async def complete(
        self, backend: Backend, wanted: Wanted, standing: Standing, conditions: Conditions
    ) -> Completed:
        """Complete the upload, or say again what it was completed to.

        `conditions` translates the client's into those of the store. Raises S3Error, BackendError
        (412 when the store refused the conditions), ObjectError.
        """
        for _ in range(_ATTEMPTS):
            done = await self._again(wanted, standing)
            if done is not None:
                return done
            if standing.record is None:
                raise _no_such_upload(wanted)
            try:
                return await self._make(backend, wanted, standing.record, conditions)
            except _Changed:
                found = await self.find(wanted.upload)
            except S3Error as error:
                if error.code != "InvalidPart":
                    raise
                found = await self.find(wanted.upload)
                if found is not None and found.record is not None:
                    raise  # it is the list that is wrong: the upload has not ended meanwhile
            if found is None:
                raise _no_such_upload(wanted)
            standing = found
        raise S3Error("OperationAborted")

    async def _again(self, wanted: Wanted, standing: Standing) -> Completed | None:
        """Answer a repeated request, having done what was left; None when nothing was done yet."""
        completion = standing.completion
        if completion is None or completion.manifest != wanted.manifest:
            return None
        if not completion.committed:
            return await self._resume(wanted, completion.token)
        if standing.record is not None:
            await self._remove(wanted.upload)
        self._forget_later(wanted.upload)
        version_id = completion.version_id
        return Completed(completion.etag, completion.checksum, version_id=version_id)

    async def _resume(self, wanted: Wanted, token: str) -> Completed | None:
        """Do what is left when the object has been made already; None when it has not."""
        found = await self._made(wanted, token)
        if found is None or found.tail is None:
            return None
        head, tail = found.head, found.tail
        committed = _Committed(head.etag, head.size, head.version_id)
        counted = found.stored.ledger

        async def finish(swap: Swap) -> bool | None:
            swap.resumed(_footprint(committed, tail, counted=counted))
            if await self._objects.sidecars.load(wanted.name, head.etag, head.size) is not None:
                return None
            index = await self._materials.rebuild_index(wanted, tail, head.size)
            if index is None:
                return None
            return await self._settle(swap, wanted, committed, tail, index, counted=counted)

        written = await self._objects.writer.accounts.around(wanted.name, finish)
        return await self._close(wanted, committed, tail, written)

    async def _made(self, wanted: Wanted, token: str) -> Attributes | None:
        """The object, if it is what this request makes."""
        try:
            found = await self._objects.reader.attributes(Source(self._backend, wanted.name))
        except BackendAnswer as error:
            if error.status in _NO_OBJECT:
                return None
            raise
        made = found.stored.tail == token and found.tail is not None and wanted.is_made(found.tail)
        return found if made else None

    async def _make(
        self, backend: Backend, wanted: Wanted, record: UploadRecord, conditions: Conditions
    ) -> Completed:
        reservation = self._workshop.budget.share(_PART_BYTES * len(wanted.parts))
        try:
            with _records_change():
                material, tail = await self._materials.gather(wanted, record)
            asked = await conditions()
            assembler = self._materials.assembler(wanted.upload)
            with _records_change():
                await reservation.grow(assembler.index_bytes(material))
                direct = await assembler.direct_indexes(material)
                sent = await assembler.send(backend, wanted.upload, material, wanted.headers)
            await self._record(wanted, tail, None)
            prepared = _Prepared(wanted, record, tail, material, direct, sent, asked)
            call = partial(self._put_in_place, backend, prepared)
            committed, written = await self._objects.writer.accounts.around(wanted.name, call)
            return await self._close(wanted, committed, tail, written)
        except BackendAnswer as error:
            if error.code != "NoSuchUpload":
                raise
            done = await self._resume(wanted, record.token)
            if done is None:
                self._forget_later(wanted.upload)
                raise _no_such_upload(wanted) from error
            return done
        finally:
            reservation.release()

    async def _put_in_place(
        self, backend: Backend, prepared: "_Prepared", swap: Swap
    ) -> tuple[_Committed, bool | None]:
        """Commit, and bring the sidecar up to it; also whether an index was written."""
        wanted, tail, sent = prepared.wanted, prepared.tail, prepared.sent
        before = self._objects.attributes.last(wanted.name)
        send = partial(self._commit, backend, prepared)
        write = Write(send, _never, ConditionalVerb.COMPLETE, prepared.asked, before, repeats=False)
        committed, _ = await swap.replace(write)
        counted = prepared.record.ledger and bool(self._objects.writer.accounts.mark(()))
        swap.stored(committed.version_id, _footprint(committed, tail, counted=counted))
        index = await self._materials.join(prepared.material, prepared.direct, sent.indexes)
        return committed, await self._settle(swap, wanted, committed, tail, index, counted=counted)

    async def _commit(
        self, backend: Backend, prepared: "_Prepared", more: HeaderList
    ) -> _Committed:
        """Have the store join the parts, under the client's conditions and `more`.

        When its answer leaves open whether it has, the object tells.
        """
        wanted, token, material = prepared.wanted, prepared.record.token, prepared.material
        document = s3_completion.parts_document(prepared.sent.parts)
        headers = [("content-type", "application/xml"), *wanted.headers, *prepared.asked, *more]
        try:
            etag, head = await multipart.complete(backend, wanted.upload, document, headers)
        except BackendError as error:
            if isinstance(error, BackendAnswer) and error.status < _SERVER_FAULT:
                raise
            found = await self._made_after(wanted, token)
            if found is None:
                raise
            return _Committed(found.head.etag, found.head.size, found.head.version_id)
        return _Committed(etag, material.stored_size, head.version_id, head)

    async def _made_after(self, wanted: Wanted, token: str) -> Attributes | None:
        try:
            return await self._made(wanted, token)
        except BackendError:
            return None

    async def _settle(
        self,
        swap: Swap,
        wanted: Wanted,
        committed: _Committed,
        tail: Tail,
        index: FrameIndex | None,
        *,
        counted: bool,
    ) -> bool | None:
        """Write the sidecar and remember the object; whether an index was written."""
        name, attributes = wanted.name, self._objects.attributes
        known = KnownObject(
            committed.etag,
            committed.size,
            tail.original_size,
            tail.etag,
            indexed=False,
            accounted=counted,
        )
        versioned = committed.version_id is not None
        before = attributes.last(name)
        writer = self._objects.writer
        written = await writer.settle(swap, name, known, index, before, versioned=versioned)
        attributes.tails.remember(name, committed.etag, tail.encode())
        return written

    async def _close(
        self, wanted: Wanted, committed: _Committed, tail: Tail, written: bool | None
    ) -> Completed:
        """Record that all is done and remove what was kept about the parts; fails nothing."""
        try:
            await self._record(wanted, tail, committed)
        except BackendError as error:
            _log_failure("completion not recorded", wanted.upload, error)
        else:
            await self._remove(wanted.upload)
            self._forget_later(wanted.upload)
        version_id = committed.version_id
        return Completed(tail.etag, tail.checksum, committed.head, version_id, written)

    async def _record(self, wanted: Wanted, tail: Tail, committed: _Committed | None) -> None:
        upload = wanted.upload
        record = CompletionRecord(
            upload.upload_id,
            upload.key,
            tail.token,
            wanted.manifest,
            tail.etag,
            tail.checksum,
            committed is not None,
            None if committed is None else committed.version_id,
        )
        await completion_record.store(self._backend, upload.bucket, record)

    async def _remove(self, upload: Upload) -> None:
        """Remove all records but the one that makes the completion repeatable."""
        keep = [keys.completion_key(upload.upload_id)]
        await self._uploads.remove(upload.bucket, upload.upload_id, keep)

    def _forget_later(self, upload: Upload) -> None:
        """Remove that one, too, when no client asks again any more."""
        if upload in self._forgetting or len(self._forgetting) >= _MOST_REMEMBERED:
            return  # what is not removed here is collected
        loop = asyncio.get_running_loop()
        self._forgetting[upload] = loop.call_later(REMEMBERED, self._forget, upload)

    def _forget(self, upload: Upload) -> None:
        del self._forgetting[upload]
        call = partial(self._uploads.remove, upload.bucket, upload.upload_id)
        self._removals.begin(upload, call)

    async def close(self) -> None:
        """Let what is under way end, for a few seconds; what does not can be taken up again."""
        for timer in self._forgetting.values():
            timer.cancel()
        self._forgetting.clear()
        await self._running.close(_CLOSE_SECONDS)
        await self._removals.close(_CLOSE_SECONDS)


@contextlib.contextmanager
def _records_change() -> Iterator[None]:
    """Tell a record that was replaced or removed while it was read."""
    try:
        yield
    except BackendAnswer as error:
        if error.code in _RECORD_GONE:
            raise _Changed from error
        raise


def _never(seen: Found | None) -> bool:
    """A completion whose answer was lost has looked for its work itself."""
    return False


def _footprint(committed: _Committed, tail: Tail, *, counted: bool) -> Footprint:
    return Footprint(tail.original_size, committed.size, accounted=counted)


def _no_such_upload(wanted: Wanted) -> S3Error:
    return S3Error("NoSuchUpload", UploadId=wanted.upload.upload_id)


def _log_failure(event: str, upload: Upload, error: Exception) -> None:
    fields = {"bucket": upload.bucket, "key": upload.key, "error": str(error)}
    _log.warning(event, extra={"fields": fields})
