"""From the records of an upload to what its object is made of, and to the index of the whole.

Rule: the same records give the same plan in every process, so an index can be made again after the
object is there, as long as its records are. An index is only ever an aid: where one cannot be made,
the object is complete without it.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from s4gateway.backend.base import Backend, BackendError
from s4gateway.backend.multipart import Upload
from s4gateway.objects import completion_checks
from s4gateway.objects.assembly import Assembler, Indexes, Material, join_indexes
from s4gateway.objects.completion_request import Wanted
from s4gateway.objects.encoding import Workshop
from s4gateway.objects.errors import ObjectError
from s4gateway.objects.fan_out import fan_out
from s4gateway.objects.part_facts import PartFacts
from s4gateway.objects.segments import plan
from s4gateway.objects.uploads import PartRef, UploadRecord, Uploads
from s4gateway.s3.errors import S3Error
from s4gateway.wire.errors import WireError
from s4gateway.wire.index import FrameIndex
from s4gateway.wire.tail import Tail

_HEADS: Final = 16  # records asked for at a time

_log = logging.getLogger("s4.completion")


class Materials:
    """Reads the records of uploads; `backend` carries the gateway's own identity."""

    def __init__(self, workshop: Workshop, backend: Backend, uploads: Uploads) -> None:
        self._workshop = workshop
        self._backend = backend
        self._uploads = uploads

    def assembler(self, upload: Upload) -> Assembler:
        """What reads and sends the parts of this upload."""
        return Assembler(self._workshop, self._backend, self._uploads, upload.bucket)

    async def gather(self, wanted: Wanted, record: UploadRecord) -> tuple[Material, Tail]:
        """Compare a request with the records, and plan.

        Raises S3Error (InvalidPart, EntityTooSmall, BadDigest, InvalidRequest), DamagedObject,
        BackendError: 412 or 404 when a record was replaced or removed meanwhile.
        """
        refs, facts = await self._facts(wanted)
        tail = completion_checks.tail_of(record, facts)
        wanted.whole.verify(tail.checksum, tail.original_size)
        return self._planned(refs, facts, tail), tail

    async def _facts(self, wanted: Wanted) -> tuple[Sequence[PartRef], Sequence[PartFacts]]:
        upload = wanted.upload
        listed = await self._uploads.parts(upload.bucket, upload.upload_id)
        refs = completion_checks.choose(wanted.parts, listed, upload.upload_id)
        facts = await fan_out(refs, partial(self._uploads.facts, upload.bucket), _HEADS)
        completion_checks.check(wanted.parts, facts, upload.upload_id)
        return refs, facts

    def _planned(self, refs: Sequence[PartRef], facts: Sequence[PartFacts], tail: Tail) -> Material:
        encoded = tail.encode()
        segments = plan(facts, len(encoded), uniform=self._uploads.uniform)
        return Material(refs, facts, segments, encoded)

    async def join(
        self, material: Material, direct: Indexes | None, staged: Indexes
    ) -> FrameIndex | None:
        """Return the index of the whole; None for an empty object or one of too many frames."""
        if direct is None or not any(known.size for known in material.facts):
            return None
        loop = asyncio.get_running_loop()
        executor = self._workshop.lanes.codec
        return await loop.run_in_executor(executor, join_indexes, material, direct | staged)

    async def rebuild_index(
        self, wanted: Wanted, tail: Tail, stored_size: int
    ) -> FrameIndex | None:
        """Make the index of a finished object from the records; None when they do not suffice."""
        upload = wanted.upload
        try:
            refs, facts = await self._facts(wanted)
            material = self._planned(refs, facts, tail)
            if material.stored_size != stored_size:
                return None
            assembler = self.assembler(upload)
            direct = await assembler.direct_indexes(material)
            staged = [each for each, known in enumerate(facts) if known.staged]
            return await self.join(
                material, direct, await assembler.staged_indexes(material, staged)
            )
        except (BackendError, ObjectError, S3Error, WireError) as error:
            fields = {"bucket": upload.bucket, "key": upload.key, "error": str(error)}
            _log.warning("index not made", extra={"fields": fields})
            return None
