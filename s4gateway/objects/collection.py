"""What crashed processes and forgotten uploads leave below `.s4mpu/`, found and removed.

Rule: nothing of an upload that is alive is ever removed. Records are listed before the live uploads
are, so an upload that begins in between has no record on the list; what is on the list and not
among the live is asked for once more by its id, because some stores list uploads only in part; and
what was written lately is left alone, for its completion may be under way.
"""

import logging
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import Backend, BackendAnswer, BackendError, BackendProtocolError
from s4gateway.backend.multipart import Upload
from s4gateway.objects import removal
from s4gateway.objects.completion_record import CompletionRecord
from s4gateway.objects.errors import DamagedObject
from s4gateway.objects.fan_out import fan_out
from s4gateway.objects.removal import Version
from s4gateway.objects.uploads import UploadRecord, Uploads
from s4gateway.s3 import query, xml
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys, manifest

_PAGES: Final = 10_000  # of live uploads; a store that never comes to an end is not believed
_AT_ONCE: Final = 8  # uploads looked at and removed
_HELD: Final = 10_000  # records held in memory, and those of one upload above that

_log = logging.getLogger("s4.collection")


@dataclass(slots=True)
class CollectionReport:
    """What was found and done, in records unless it says otherwise.

    `records_listed` all below `.s4mpu/`; `live_uploads` uploads the store says are under way;
    `orphaned` belong to no live upload and are old enough; of these `deleted` are gone, or would go
    without `execute`, and `failed` are not, because something could not be found out or removed.
    `skipped_too_recent` and `skipped_unparseable` are left alone. `completion_records` are among
    the orphaned; `phantom_committed_keys` names objects that were completed without their index:
    they are whole, but ranges of them cost more.
    """

    records_listed: int = 0
    live_uploads: int = 0
    orphaned: int = 0
    deleted: int = 0
    skipped_too_recent: int = 0
    skipped_unparseable: int = 0
    completion_records: int = 0
    phantom_committed_keys: tuple[str, ...] = ()
    failed: int = 0


async def collect_uploads(
    backend: Backend, bucket: str, *, now: datetime, older_than: timedelta, execute: bool
) -> CollectionReport:
    """Find what is left of uploads that are no more, last written before `now - older_than`.

    Removes it with `execute`, otherwise only reports. `backend` carries the gateway's own identity.
    Raises BackendError when records or live uploads cannot be listed.
    """
    report = CollectionReport()
    collecting = _Collecting(backend, bucket, now - older_than, execute, report)
    async with aclosing(_groups(backend, bucket, report)) as batches:
        async for batch in batches:
            live, report.live_uploads = await _live_uploads(backend, bucket, batch)
            gone = [(each, records) for each, records in batch.items() if each not in live]
            await fan_out(gone, collecting.upload, _AT_ONCE)
    return report


_Groups = dict[str, list[Version]]


async def _groups(
    backend: Backend, bucket: str, report: CollectionReport
) -> AsyncGenerator[_Groups, None]:
    """Records by upload, whole uploads together, so many at a time that they fit into memory.

    A listing has all records of an upload one after the other. At least one batch comes.
    """
    groups: _Groups = {}
    held, last = 0, ""
    async with aclosing(removal.pages(backend, bucket, keys.PARTS_PREFIX)) as pages:
        async for page in pages:
            report.records_listed += len(page)
            for each in page:
                parsed = keys.parse_upload_key(each.key)
                if parsed is None:
                    report.skipped_unparseable += 1
                    continue
                last = parsed[0]
                groups.setdefault(last, []).append(each)
                held += 1
            if held >= _HELD and len(groups) > 1:
                unfinished = groups.pop(last)
                yield groups
                groups, held = {last: unfinished}, len(unfinished)
    yield groups


async def _live_uploads(
    backend: Backend, bucket: str, wanted: Collection[str]
) -> tuple[frozenset[str], int]:
    """Which of `wanted` are ids of uploads under way, and how many uploads are.

    Raises BackendError rather than miss one.
    """
    found: set[str] = set()
    count = 0
    marker: list[tuple[str, str]] = []
    for _ in range(_PAGES):
        raw_query = query.format_query([("uploads", ""), ("encoding-type", "url"), *marker])
        path = f"/{query.quote(bucket)}"
        _, document = await multipart.ask(backend, "GET", path, raw_query, ())
        try:
            root = xml.parse(document)
        except S3Error as error:
            raise BackendProtocolError("the listing of uploads is malformed") from error
        if root.tag != "ListMultipartUploadsResult":
            raise BackendProtocolError(f"the listing of uploads is a <{root.tag}>")
        for each in root.findall("Upload"):
            count += 1
            upload_id = each.findtext("UploadId")
            if upload_id is not None and upload_id in wanted:
                found.add(upload_id)
        if (root.findtext("IsTruncated") or "").strip() != "true":
            return frozenset(found), count
        marker = _next_marker(root, marker)
    raise BackendProtocolError("the listing of uploads has no end")


def _next_marker(root: xml.Element, before: list[tuple[str, str]]) -> list[tuple[str, str]]:
    encoded = root.findtext("EncodingType") == "url"
    key, upload_id = root.findtext("NextKeyMarker"), root.findtext("NextUploadIdMarker")
    pairs = [("key-marker", query.unquote(key) if encoded and key else key or "")]
    if upload_id:
        pairs.append(("upload-id-marker", upload_id))
    if not key or pairs == before:
        raise BackendProtocolError("the listing of uploads does not say where it goes on")
    return pairs


class _Collecting:
    """One run over the uploads of a bucket."""

    def __init__(
        self,
        backend: Backend,
        bucket: str,
        before: datetime,
        execute: bool,
        report: CollectionReport,
    ) -> None:
        self._backend = backend
        self._bucket = bucket
        self._before = before
        self._execute = execute
        self._report = report
        self._uploads = Uploads(backend)

    async def upload(self, left: tuple[str, Sequence[Version]]) -> None:
        """Deal with what is left of one upload: its id, and its records."""
        upload_id, records = left
        report, count = self._report, len(records)
        if any(not self._is_old(each) for each in records):
            report.skipped_too_recent += count
            return
        try:
            began, completed = await self._read(upload_id)
            key = next((known.key for known in (began, completed) if known is not None), None)
            if key is not None and not await self._is_gone(Upload(self._bucket, key, upload_id)):
                return  # alive, although it was not listed
            report.orphaned += count
            if completed is not None:
                await self._note(upload_id, completed, records)
            if self._execute and not await self._delete(upload_id, records):
                report.failed += count
                return
            report.deleted += count
        except DamagedObject as error:
            report.skipped_unparseable += count
            self._log("record unreadable", upload_id, error)
        except (BackendError, S3Error) as error:
            report.failed += count
            self._log("upload not collected", upload_id, error)

    def _is_old(self, record: Version) -> bool:
        try:
            modified = datetime.fromisoformat(record.modified)
        except ValueError:
            return False  # not known to be old
        if modified.tzinfo is None:
            modified = modified.replace(tzinfo=UTC)
        return modified <= self._before

    async def _read(self, upload_id: str) -> tuple[UploadRecord | None, CompletionRecord | None]:
        read, bucket = self._uploads.read, self._bucket
        began = await read(bucket, upload_id, keys.create_key(upload_id))
        completed = await read(bucket, upload_id, keys.completion_key(upload_id))
        return (
            None if began is None else UploadRecord.decode(began),
            None if completed is None else CompletionRecord.decode(completed),
        )

    async def _is_gone(self, upload: Upload) -> bool:
        try:
            await multipart.look(self._backend, upload)
        except BackendAnswer as error:
            if error.code == "NoSuchUpload":
                return True
            raise
        return False

    async def _note(
        self, upload_id: str, completed: CompletionRecord, records: Sequence[Version]
    ) -> None:
        """Count what a completion has left behind, and whether it was finished."""
        report, name = self._report, keys.completion_key(upload_id)
        report.completion_records += sum(each.key == name for each in records)
        if completed.committed:
            return
        try:
            head = await self._backend.head(self._bucket, completed.key)
        except BackendAnswer:
            return
        if head.metadata.get(manifest.TAIL) == completed.token:
            report.phantom_committed_keys += (completed.key,)

    async def _delete(self, upload_id: str, records: Sequence[Version]) -> bool:
        """Delete exactly what was listed; what names the upload goes when all else is gone."""
        create = keys.create_key(upload_id)
        first = [each for each in records if each.key != create]
        if not await removal.delete(self._backend, self._bucket, first):
            return False
        last = [each for each in records if each.key == create]
        return await removal.delete(self._backend, self._bucket, last)

    def _log(self, event: str, upload_id: str, error: Exception) -> None:
        fields = {"bucket": self._bucket, "upload_id": upload_id, "error": str(error)}
        _log.warning(event, extra={"fields": fields})
