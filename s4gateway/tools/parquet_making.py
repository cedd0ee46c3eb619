"""One Parquet object read into a file, and the file that another process makes of it.

    footer, by a range read ── the whole, into a file ── rewritten and compared ── to be stored

Rule: the footer alone tells most of what there is to refuse, and is read first. Files have no
names, so that nothing is left behind, and memory does not grow with them. Which bytes of the object
are which is decided by its footer in a process of its own: see `parquet_child`.
"""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from s4gateway.backend.base import Body
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.cache import ObjectName
from s4gateway.objects.encoding import DIGESTS, EncodedObject, manifest_of
from s4gateway.objects.opening import OpenObject, Source
from s4gateway.objects.spool import Spool
from s4gateway.objects.unnamed_file import UnnamedFile
from s4gateway.s3.checksums import Digests
from s4gateway.tools import carrying, parquet_format
from s4gateway.tools.failure import Bounded, Failure
from s4gateway.tools.objects import Objects
from s4gateway.tools.parquet_format import (
    ENCRYPTED_MAGIC,
    MAGIC,
    TRAILER,
    Damaged,
    Refusal,
    Refused,
)
from s4gateway.tools.parquet_tables import Tables
from s4gateway.tools.parquet_workers import Work, WorkerDied, Workers
from s4gateway.tools.rewrite_kind import Failed, Looked, Outcome, Skipped, reading
from s4gateway.tools.source_check import SourceCheck
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.manifest import Form

_GLANCE: Final = 64 * 1024  # bytes of the file's end that hold most footers
_LARGEST_GLANCE: Final = 4 * 1024 * 1024  # a longer footer is read with the file
_PIECE: Final = 1024 * 1024
_OPS: Final = {"damaged": "parquet", "mismatch": "verify", "other-values": "verify"}
# These are told by name: what they are depends on more than a look at the key.
_NAMED: Final = frozenset(set(Refusal) - {Refusal.NOT_PARQUET, Refusal.ALREADY_ZSTD})


class ParquetMaker:
    """Makes the Parquet file that is to replace another; `refused` are those it was not made of.

    Files of more than `largest` bytes are left alone. A `tolerant` one leaves alone, too, what an
    engine reads other values from afterwards, instead of failing. Files of tables are left alone
    unless `tables` are wanted. `unlike_etags` counts those whose ETag is not their MD5.
    """

    def __init__(
        self,
        objects: Objects,
        workers: Workers,
        work: Work,
        *,
        largest: int | None = None,
        tolerant: bool = False,
        tables: bool = False,
    ) -> None:
        self._objects = objects
        self._tables = None if tables else Tables(objects.backend)
        self._workers = workers
        self._work = work
        self._largest = largest
        self._tolerant = tolerant
        self._unlike: dict[ObjectName, str] = {}  # of objects to be read again: their MD5
        self.unlike_etags = 0
        self.refused: Bounded[Failure] = Bounded()

    async def make(self, looked: Looked) -> tuple[Attributes, EncodedObject]:
        """Read the version that was looked at, and have it rewritten and compared.

        Raises Skipped, Failed.
        """
        if self._tables is not None:
            with reading("ListObjectsV2"):
                table = await self._tables.around(looked.name)
            if table:
                self.refused.add(Failure(looked.name[1], Outcome.TABLE_FILE, f"see {table}"))
                raise Skipped(Outcome.TABLE_FILE)
        with reading("GetObject(footer)"):
            await self._preflight(looked)
        directory = self._objects.workshop.spool_directory
        try:
            old, new = UnnamedFile(directory), UnnamedFile(directory)
        except OSError as error:
            raise Failed("spool", str(error)) from error
        try:
            with reading("GetObject"):
                attributes = await self._download(looked, old)
            length = await self._rewrite(looked, old, new)
            return attributes, await self._encoded(attributes, new, length)
        except BaseException:
            new.close()
            raise
        finally:
            old.close()

    # --- what its end tells

    async def _preflight(self, looked: Looked) -> None:
        """Raise Skipped or Failed where the footer tells that the file need not be read."""
        size = looked.attributes.size
        if size is None or size <= _GLANCE:
            return
        end = await self._range(looked, size - _GLANCE, size)
        if not (looked.attributes.is_verbatim or end.endswith((MAGIC, ENCRYPTED_MAGIC))):
            return  # how it begins was not seen: it may be anything
        with self._judging(looked):
            start = parquet_format.footer_start(end[-TRAILER:], size)
            if size - start > _LARGEST_GLANCE:
                return
            if size - start > len(end):
                end = await self._range(looked, start, size)
            data = end[start - size : -TRAILER]
            await self._in_thread(self._check_footer, data, start)

    def _check_footer(self, data: bytes, start: int) -> None:
        footer = parquet_format.parse_footer(data, start)
        parquet_format.check_worth(footer, self._work.row_group)

    async def _range(self, looked: Looked, start: int, end: int) -> bytes:
        reader = self._objects.reader
        source = Source(self._objects.backend, looked.name)
        opened = await reader.open_range(source, looked.attributes, start, end)
        try:
            data = b"".join([piece async for piece in _pieces(opened)])
        finally:
            await opened.aclose()
        if len(data) != end - start:
            raise Failed("GetObject(footer)", f"{len(data)} bytes came instead of {end - start}")
        return data

    # --- the whole

    async def _download(self, looked: Looked, file: UnnamedFile) -> Attributes:
        """Read the object into `file`, and compare it with what is known of it."""
        source = Source(self._objects.backend, looked.name, headers=[carrying.SHOW_CHECKSUM])
        opened = await self._objects.reader.open_whole(source, if_match=looked.head.etag)
        try:
            attributes = opened.attributes
            if self._largest is not None and (attributes.size or 0) > self._largest:
                raise Skipped(Outcome.TOO_LARGE)
            check = SourceCheck(attributes, md5=True)
            length = 0
            async for piece in _batches(_pieces(opened)):
                await self._in_thread(_take, file, check, piece)
                length += len(piece)
        finally:
            await opened.aclose()
        self._compare(looked, check, length)
        return attributes

    def _compare(self, looked: Looked, check: SourceCheck, length: int) -> None:
        """Raise Failed unless the bytes read are the object's; where only its ETag says no, again.

        Two reads that agree are taken.
        """
        if problem := check.problem(length):
            raise Failed("GetObject(body)", problem)
        before, md5 = self._unlike.pop(looked.name, None), check.unlike_its_etag
        if md5 and md5 != before:
            self._unlike[looked.name] = md5
            raise Failed("GetObject(body)", f"its MD5 is {md5}, its ETag is not", passing=True)
        self.unlike_etags += bool(md5)

    async def _rewrite(self, looked: Looked, old: UnnamedFile, new: UnnamedFile) -> int:
        """Have `old` rewritten into `new` and compared; raises Skipped, Failed."""
        descriptors = [old.duplicate()]
        try:
            descriptors.append(new.duplicate())
            answer = await self._workers.rewrite(self._work, *descriptors)
        except (WorkerDied, OSError) as error:
            raise Failed("rewrite", str(error)) from error
        finally:
            for each in descriptors:
                os.close(each)
        return self._judged(looked, answer)

    def _judged(self, looked: Looked, answer: dict[str, Any]) -> int:
        outcome = answer["outcome"]
        if outcome == "made":
            size: int = answer["size"]
            return size
        why: str = answer["why"]
        if outcome == "refused":
            raise self._refusal(looked, Refusal(answer["refusal"]), why)
        if outcome == "other-values" and self._tolerant:
            self.refused.add(Failure(looked.name[1], Outcome.VALUE_MISMATCH, why))
            raise Skipped(Outcome.VALUE_MISMATCH)
        raise Failed(_OPS.get(outcome, "rewrite"), why)

    def _refusal(self, looked: Looked, refusal: Refusal, why: str) -> Skipped:
        if refusal in _NAMED:
            self.refused.add(Failure(looked.name[1], refusal, why))
        return Skipped(Outcome(refusal.value))

    @contextmanager
    def _judging(self, looked: Looked) -> Iterator[None]:
        try:
            yield
        except Refused as error:
            raise self._refusal(looked, error.refusal, error.why) from error
        except Damaged as error:
            raise Failed("parquet", str(error)) from error

    # --- what is to be stored

    async def _encoded(self, source: Attributes, file: UnnamedFile, length: int) -> EncodedObject:
        """The new file as an object: anybody's if the old one was, or as a gateway stores it."""
        spool = Spool.over(self._objects.workshop.lanes.disk, file, length)
        digests = Digests(DIGESTS)
        with reading("spool"):
            async for piece in spool.read():
                await self._in_thread(digests.update, piece)
        stored = source.stored
        made = manifest_of(CodecId.PASSTHROUGH, digests, length, length, framed=False)
        body = Body(length, spool.read, md5=_base64(digests["md5"]))
        bare = stored.form is Form.FOREIGN and not stored.ledger
        return EncodedObject(body, replace(made, ledger=stored.ledger), None, spool, bare=bare)

    async def _in_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._objects.workshop.lanes.digest, work, *arguments)


def _take(file: UnnamedFile, check: SourceCheck, piece: bytes) -> None:
    check.digests.update(piece)
    if check.parts is not None:
        check.parts.update(piece)
    file.append([piece])


async def _pieces(opened: OpenObject) -> AsyncIterator[bytes]:
    if isinstance(opened.content, bytes):
        yield opened.content
        return
    async for piece in opened.content:
        yield bytes(piece)


async def _batches(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in fewer pieces: each costs a thread hop."""
    held: list[bytes] = []
    size = 0
    async for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
