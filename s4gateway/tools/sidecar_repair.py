"""A sidecar made anew from the frame headers of the object it stands beside.

    HEAD -> frame headers, pinned to that ETag -> PUT, if the sidecar is still the one seen -> HEAD

Rule: what is written describes one version of the object and says which. When the object is another
one at the end, what was written is taken back, if it still stands there, and the repair has to be
done again. Payloads are not read: that they are sound is told by `verify`, not by an index.
"""

import base64
import hashlib
from dataclasses import dataclass, replace
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer, Body, Head, HeaderList
from s4gateway.objects import frame_headers
from s4gateway.objects.attributes import with_tail
from s4gateway.objects.cache import TailCache
from s4gateway.objects.footprint import MARK
from s4gateway.s3 import etag as etags
from s4gateway.s3 import query
from s4gateway.tools import sidecar_errors, sidecars
from s4gateway.tools.sidecars import Indexed, ObjectName
from s4gateway.wire import keys
from s4gateway.wire.errors import FrameError, SidecarError
from s4gateway.wire.index import CONTENT_TYPE, FrameIndex
from s4gateway.wire.manifest import Form

_NO_CONDITION: Final = frozenset({400, 405, 501})  # a store that does not know the header
_RACE_LOST: Final = frozenset({404, 409, 412})
_UNCOUNTED: Final = (
    "a savings ledger counts this object and does not know of the change: its counters are due for"
    " s4 savings --rescan --write"
)


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was done: "rebuilt", "removed" a sidecar nobody needs, or "unneeded"; sizes in bytes."""

    bucket: str
    key: str
    action: str
    etag: str
    stored_size: int
    original_size: int
    frames: int
    sidecar_bytes: int = 0
    notes: tuple[str, ...] = ()


async def repair_sidecar(
    backend: Backend, name: ObjectName, *, max_body_bytes: int = sidecars.LARGEST_OBJECT
) -> RepairReport:
    """Write the sidecar the object should have; raises BackendError, SidecarToolError.

    An object of one frame needs none, and loses the one it has, unless it is a multipart object
    that tells its size nowhere else.
    """
    found = await Indexed.look(backend, name)
    _refuse(found, max_body_bytes)
    try:
        return await _Repair(backend, name, found).run()
    except BackendAnswer as error:
        if error.status != 412:
            raise
        raise sidecar_errors.OverwrittenDuringRepair("the object was replaced meanwhile") from error


def _refuse(found: Indexed, max_body_bytes: int) -> None:
    form = found.stored.form
    if form is Form.ENCRYPTED:
        raise sidecar_errors.EncryptedSidecarUnsupported(
            "the object is encrypted, its frames are hidden"
        )
    if not found.has_frames:
        raise sidecar_errors.NotFramed(f"the object is stored as {form.value}, without frames")
    if found.size > max_body_bytes:
        raise sidecar_errors.BodyTooLarge(
            f"{found.size} stored bytes, at most {max_body_bytes} allowed"
        )


class _Repair:
    """One repair of one version."""

    def __init__(self, backend: Backend, name: ObjectName, found: Indexed) -> None:
        self._backend = backend
        self._bucket, self._key = name
        self._sidecar = keys.sidecar_key(self._key)
        self._found = found

    async def run(self) -> RepairReport:
        found = self._found
        before = await self._look()
        index = (await self._build()).bind(found.etag, found.size)
        report = RepairReport(
            self._bucket,
            self._key,
            "unneeded",
            found.etag,
            found.size,
            index.total_original,
            len(index),
        )
        if _is_needed(found, index):
            size = await self._write(index, before)
            return replace(report, action="rebuilt", sidecar_bytes=size, notes=self._notes())
        if before is None:
            return report
        if not await self._remove(before.etag, None):
            raise sidecar_errors.OverwrittenDuringRepair("the sidecar was replaced meanwhile")
        return replace(report, action="removed", notes=self._notes())

    def _notes(self) -> tuple[str, ...]:
        return (_UNCOUNTED,) if self._found.stored.ledger else ()

    async def _look(self) -> Head | None:
        """The sidecar that stands there; None when there is none."""
        try:
            return await self._backend.head(self._bucket, self._sidecar)
        except BackendAnswer as error:
            if not error.missing:
                raise
            return None

    async def _build(self) -> FrameIndex:
        found = self._found
        try:
            index = await frame_headers.build_index(found.read, found.size)
        except FrameError as error:
            raise sidecar_errors.FrameScan(f"the object is damaged: {error}") from error
        except SidecarError as error:
            raise sidecar_errors.SidecarTooLarge(str(error)) from error
        if not len(index):
            raise sidecar_errors.NotFramed("the object has no frames")
        told = await with_tail(found.attributes, found.source.name, found.read, TailCache())
        if told.size not in {None, index.total_original}:
            raise sidecar_errors.FrameScan(
                f"the frames hold {index.total_original} bytes, the object should have {told.size}"
            )
        return index

    async def _write(self, index: FrameIndex, before: Head | None) -> int:
        """Write the index and look whether it still describes the object; its size in bytes."""
        data = index.encode()
        written = await self._put(data, before)
        try:
            now = sidecars.identity(await self._backend.head(self._bucket, self._key))
            unchanged = now == (self._found.etag, self._found.size)
        except BackendAnswer as error:
            if not error.missing:
                raise
            unchanged = False
        if not unchanged:
            await self._remove(written.etag, written.version_id)
            raise sidecar_errors.OverwrittenDuringRepair("the object was replaced meanwhile")
        return len(data)

    async def _put(self, data: bytes, before: Head | None) -> Head:
        """Replace the sidecar that was seen, and no other where the store can tell."""
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        body = Body.of(data, md5=md5)  # buckets with Object Lock take nothing without
        fields = [("content-type", CONTENT_TYPE), *((MARK,) if self._found.stored.ledger else ())]
        condition = ("if-none-match", "*")
        if before is not None:
            condition = ("if-match", etags.quote(before.etag))
        try:
            return await self._backend.put(self._bucket, self._sidecar, body, [*fields, condition])
        except BackendAnswer as error:
            if error.status in _RACE_LOST and error.code != "NoSuchBucket":
                raise sidecar_errors.OverwrittenDuringRepair(
                    "the sidecar was replaced meanwhile"
                ) from error
            if error.status not in _NO_CONDITION:
                raise
            return await self._backend.put(self._bucket, self._sidecar, body, fields)

    async def _remove(self, tag: str, version: str | None) -> bool:
        """Delete the sidecar of that ETag, a version by its id; whether it was still there."""
        return await remove_sidecar(self._backend, self._bucket, self._sidecar, tag, version)


def _is_needed(found: Indexed, index: FrameIndex) -> bool:
    stored = found.stored
    tells_size = stored.logical_size is not None or stored.tail is not None
    return len(index) > 1 or (stored.multipart and not tells_size)


async def remove_sidecar(
    backend: Backend, bucket: str, sidecar: str, tag: str, version: str | None = None
) -> bool:
    """Delete the sidecar if it is the one of ETag `tag`; whether it was. Raises BackendError.

    Stores that know no conditional DELETE are asked first; what is written between the question
    and the deletion is lost, and made again by a repair. `version` names what is deleted for good.
    """
    named = "" if version is None else f"versionId={query.quote(version)}"
    try:
        now = await backend.head(bucket, sidecar)
    except BackendAnswer as error:
        if not error.missing:
            raise
        return False
    if now.etag != tag:
        return False
    condition: HeaderList = [("if-match", etags.quote(tag))]
    try:
        await backend.delete(bucket, sidecar, query=named, headers=condition)
    except BackendAnswer as error:
        if error.status in _RACE_LOST:
            return False
        if error.status not in _NO_CONDITION:
            raise
        await backend.delete(bucket, sidecar, query=named)
    return True
