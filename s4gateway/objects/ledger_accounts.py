"""The accounts of a ledger: every write in its turn, to its end, and on disk before it is answered.

Rule: two writes of one key in this process come one after the other, from the look at what is there
to the last counter, so that none takes away what another has taken away already. Once the store
may have been asked, leaving is no way out: a client that goes leaves a write that is still counted.
What other processes write meanwhile is told by the store's conditions, where it decides them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from s4gateway.backend.base import (
    BackendProtocolError,
    Head,
    HeaderList,
    ObjectStream,
)
from s4gateway.backend.multipart import DOCUMENT_LIMIT
from s4gateway.objects.accounted_deletion import AccountedDeletion
from s4gateway.objects.accounted_write import UNCHANGED, AccountedWrite, Change
from s4gateway.objects.accounting import Deleted, Ledger, Removal, Swap, Write
from s4gateway.objects.bucket_versioning import BucketVersioning
from s4gateway.objects.cache import ObjectName
from s4gateway.objects.footprint import MARK, Footprint
from s4gateway.objects.key_locks import KeyLocks
from s4gateway.objects.sidecar_slot import Books
from s4gateway.s3 import completion
from s4gateway.s3.errors import S3Error

_Result = TypeVar("_Result")

_CUSTOMER_KEY = "x-amz-server-side-encryption-customer-algorithm"


class LedgerAccounts:
    """Counts every write in `ledger`; shared by all requests of a process."""

    def __init__(self, ledger: Ledger, books: Books) -> None:
        self._ledger = ledger
        self._books = books
        self._locks: KeyLocks[ObjectName] = KeyLocks()
        self._versioning = BucketVersioning(books.backend)

    def mark(self, headers: HeaderList) -> HeaderList:
        """Everything is marked but what only its owner's key would let anybody look at."""
        return () if any(name == _CUSTOMER_KEY for name, _ in headers) else (MARK,)

    def forget(self, bucket: str) -> None:
        """Ask again whether the bucket keeps versions."""
        self._versioning.forget(bucket)

    async def around(self, name: ObjectName, work: Callable[[Swap], Awaitable[_Result]]) -> _Result:
        """Do the work of one write, alone at its key and to its end."""
        entry = _Entry(self._ledger, name[0])
        return await entry.settled(self._write(name, work, entry))

    async def _write(
        self, name: ObjectName, work: Callable[[Swap], Awaitable[_Result]], entry: "_Entry"
    ) -> _Result:
        bucket = name[0]
        await self._locks.acquire(name)
        try:
            versioning = self._versioning.known(bucket) or await self._versioning.of(bucket)
            write = AccountedWrite(self._books, name, versioning, entry.expect)
            try:
                return await work(write)
            finally:
                if write.contradicted:
                    self.forget(bucket)
                entry.count(write.change - write.expected)
        finally:
            self._locks.release(name)

    async def delete(self, removal: Removal) -> Head:
        """Delete an object or a version, alone at its key and to the end."""
        entry = _Entry(self._ledger, removal.name[0])
        return await entry.settled(self._delete(removal, entry))

    async def _delete(self, removal: Removal, entry: "_Entry") -> Head:
        bucket = removal.name[0]
        async with self._locks.hold(removal.name):
            deletion = AccountedDeletion(self._books, bucket, await self._versioning.of(bucket))
            try:
                return await deletion.delete(removal)
            finally:
                entry.count(deletion.change)

    async def delete_many(
        self,
        bucket: str,
        targets: Sequence[tuple[str, str]],
        send: Callable[[], Awaitable[Deleted]],
    ) -> None:
        """Delete many, alone at each of the keys and to the end."""
        entry = _Entry(self._ledger, bucket)
        await entry.settled(self._delete_many(bucket, targets, send, entry))

    async def _delete_many(
        self,
        bucket: str,
        targets: Sequence[tuple[str, str]],
        send: Callable[[], Awaitable[Deleted]],
        entry: "_Entry",
    ) -> None:
        async with self._locks.hold(*((bucket, key) for key, _ in targets)):
            deletion = AccountedDeletion(self._books, bucket, await self._versioning.of(bucket))
            try:
                await deletion.delete_many(targets, send)
            finally:
                entry.count(deletion.change)

    async def replace_raw(
        self, name: ObjectName, send: Callable[[], Awaitable[ObjectStream]]
    ) -> ObjectStream:
        """Pass a completion on and wait for what becomes of it.

        What it makes carries no mark and is not counted; what it replaces may have been.
        """

        async def work(swap: Swap) -> ObjectStream:
            async def sent(_: HeaderList) -> _Read:
                async with await send() as stream:
                    return _Read(stream.head, await stream.read(DOCUMENT_LIMIT))

            answer, _ = await swap.replace(Write(sent, is_made=lambda _: False, repeats=False))
            if answer.is_success:
                swap.stored(answer.head.version_id, Footprint(0, 0))
                await swap.drop_sidecar(name, None, as_known=False)
            return answer

        return await self.around(name, work)


class _Entry:
    """What one request changes in a bucket's counters, and when that is on disk."""

    __slots__ = ("_bucket", "_ledger", "_run")

    def __init__(self, ledger: Ledger, bucket: str) -> None:
        self._ledger = ledger
        self._bucket = bucket
        self._run = 0  # the last write to disk that takes something of it

    def expect(self, change: Change) -> None:
        """Count what is about to happen and let the disk begin; `count` brings the difference."""
        self.count(change)
        self._ledger.begin()

    def count(self, change: Change) -> None:
        """Count what has happened."""
        if change != UNCHANGED:
            self._run = self._ledger.apply(
                self._bucket,
                original=change.original,
                stored=change.stored,
                objects=change.objects,
                skipped=change.skipped,
            )
        elif not self._run:
            # It may have met what another request did and, its client gone, nobody waited for.
            self._run = self._ledger.holding(self._bucket)

    async def settled(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Do the work to its end; nobody hears of it, of its failure neither, before the disk."""
        try:
            return await _to_its_end(work)
        except asyncio.CancelledError:
            self._run = 0  # nobody is there to hear
            self._ledger.begin()
            raise
        finally:
            if self._run:
                await self._ledger.settled(self._run)


async def _to_its_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Do the work although whoever waits for it may be cancelled, and wait for it even so.

    What it uses, such as the bytes of a body, belongs to whoever waits.
    """
    loop = asyncio.get_running_loop()
    task, ended = loop.create_task(work), loop.create_future()
    task.add_done_callback(partial(_tell, ended))
    try:
        await ended
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # read: it is nobody's any more
        raise
    return task.result()


def _tell(ended: asyncio.Future[None], _: asyncio.Task[Any]) -> None:
    if not ended.done():
        ended.set_result(None)


class _Read(ObjectStream):
    """An answer that was read to its end."""

    __slots__ = ("_document",)

    def __init__(self, head: Head, document: bytes) -> None:
        self.head = head
        self._document = document

    @property
    def is_success(self) -> bool:
        """An object was made: errors may come as documents under status 200."""
        if self.head.status >= 300:
            return False
        try:
            completion.parse_result(self._document)
        except (S3Error, ValueError):
            return False
        return True

    async def read(self, limit: int) -> bytes:
        """Return the document."""
        if len(self._document) > limit:
            msg = f"answer is larger than {limit} bytes"
            raise BackendProtocolError(msg)
        return self._document

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._document:
            yield self._document

    async def close(self) -> None:
        """Nothing is open."""
