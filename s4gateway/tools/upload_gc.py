"""What forgotten multipart uploads left below `.s4mpu/`, as an action of `s4 maintain`.

Rule: how it is found out that nothing alive is touched stands in objects/collection.py. Parts that
the store itself keeps of an upload nobody completes are not meant: a lifecycle rule aborts those
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpu-abort-incomplete-mpu-lifecycle-config.html),
and what the gateway kept about them goes with the next run here.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from s4gateway.backend.base import Backend
from s4gateway.objects.collection import collect_uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadGcReport:
    """Records below `.s4mpu/`, of which `deleted` are gone, or would go in a dry run.

    The other counts are those of `objects.collection.CollectionReport`: `live_uploads` are uploads;
    `phantom_committed_keys` objects that were completed without their index.
    """

    bucket: str
    dry_run: bool
    older_than_secs: int
    records_listed: int
    live_uploads: int
    orphaned: int
    deleted: int
    skipped_too_recent: int
    skipped_unparseable: int
    completion_records: int
    phantom_committed_keys: tuple[str, ...]
    failed: int
    notes: tuple[str, ...] = ()


async def collect(
    backend: Backend,
    bucket: str,
    *,
    older_than: timedelta,
    execute: bool,
    now: datetime | None = None,
) -> UploadGcReport:
    """Collect what was last written before `now - older_than`; raises BackendError."""
    moment = now or datetime.now(UTC)
    found = await collect_uploads(
        backend, bucket, now=moment, older_than=older_than, execute=execute
    )
    return UploadGcReport(
        bucket=bucket,
        dry_run=not execute,
        older_than_secs=int(older_than.total_seconds()),
        records_listed=found.records_listed,
        live_uploads=found.live_uploads,
        orphaned=found.orphaned,
        deleted=found.deleted,
        skipped_too_recent=found.skipped_too_recent,
        skipped_unparseable=found.skipped_unparseable,
        completion_records=found.completion_records,
        phantom_committed_keys=found.phantom_committed_keys,
        failed=found.failed,
        notes=_notes(found.phantom_committed_keys, found.skipped_unparseable, execute=execute),
    )


def _notes(phantoms: tuple[str, ...], unparseable: int, *, execute: bool) -> tuple[str, ...]:
    notes = []
    if not execute:
        notes.append("a dry run: nothing was deleted")
    if phantoms:
        notes.append(
            "objects completed without their index are whole, but ranges of them cost more: give"
            " each of them one with repair-sidecar"
        )
    if unparseable:
        notes.append("records that cannot be read are left for a person to look at")
    return tuple(notes)
