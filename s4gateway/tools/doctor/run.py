"""`s4 doctor`: everything that is asked of a store, in order, and what follows from the answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import Backend, BackendAnswer, BackendError, Head
from s4gateway.backend.profile import FLAG
from s4gateway.s3 import query
from s4gateway.tools.doctor import objects, settings, uploads
from s4gateway.tools.doctor.bench import Bench, bench
from s4gateway.tools.doctor.findings import Check, Finding, Verdict, answer
from s4gateway.tools.progress import SILENT, Progress

REACH: Final = "reach"
WRITES: Final = "writes"
CLEANUP: Final = "cleanup"

_PREFERRED: Final = ("checksums=crc32c", "checksums=crc64nvme", "checksums=crc32")


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What was found out about a bucket, and the words of `--backend-profile` that follow from it.

    `profile` is empty when nothing needs to be stated.
    """

    bucket: str
    findings: tuple[Finding, ...]
    profile: str
    flags: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_fit(self) -> bool:
        """A gateway can work over this bucket, as far as was found out."""
        return not any(each.verdict is Verdict.BROKEN for each in self.findings)


def _utc_now() -> datetime:
    return datetime.now(UTC)


async def examine(
    backend: Backend,
    bucket: str,
    *,
    now: Callable[[], datetime] = _utc_now,
    progress: Progress = SILENT,
) -> DoctorReport:
    """Ask everything; raises BackendUnavailable only when the store cannot be reached at all."""
    reached = await _reach(backend, bucket)
    if isinstance(reached, Finding):
        return _report(bucket, [reached])
    found = [Finding(REACH, Verdict.WORKS, "the store answers, and the keys may list the bucket")]
    found.append(settings.clock(reached, now()))
    found += await answer(settings.VERSIONING, partial(settings.versioning, backend, bucket))
    retained = False
    try:
        lock = await settings.retention(backend, bucket)
        retained = lock is not None and bool(lock.rule)
        found.append(settings.object_lock(lock))
    except BackendError as error:
        found.append(Finding(settings.OBJECT_LOCK, Verdict.UNKNOWN, str(error)))
    found += await answer(settings.LIFECYCLE, partial(settings.lifecycle, backend, bucket))
    if retained:
        detail = "not tried: default retention would keep what they write"
        return _report(bucket, [*found, Finding(WRITES, Verdict.SKIPPED, detail)])
    found += await _writes(backend, bucket, progress)
    return _report(bucket, found)


async def _reach(backend: Backend, bucket: str) -> Head | Finding:
    pairs = [("encoding-type", "url"), ("list-type", "2"), ("max-keys", "1")]
    path = f"/{query.quote(bucket)}"
    try:
        head, _ = await multipart.ask(backend, "GET", path, query.format_query(pairs), ())
    except BackendAnswer as error:
        hint = {
            "NoSuchBucket": "; is the bucket's name right?",
            "RequestTimeTooSkewed": "; set this machine's clock",
            "SignatureDoesNotMatch": "; are region and secret those of this store?",
            "InvalidAccessKeyId": "; are the keys those of this store?",
            "AuthorizationHeaderMalformed": "; is --region right?",
        }.get(error.code, "")
        return Finding(REACH, Verdict.BROKEN, f"{error}{hint}")
    return head


async def _writes(backend: Backend, bucket: str, progress: Progress) -> list[Finding]:
    """What can only be found out by writing, below a prefix that is removed in every path."""
    found: list[Finding] = []
    async with bench(backend, bucket) as tried:
        first = await answer(objects.OBJECTS, partial(objects.round_trip, tried))
        found += first
        checks = _checks(tried) if first[0].verdict is not Verdict.UNKNOWN else ()
        progress.found(len(checks))
        for name, check in checks:
            found += await answer(name, check)
            progress.done(1)
    if tried.leftover:
        found.append(Finding(CLEANUP, Verdict.BITES, f"not removed: {tried.leftover}"))
    return found


def _checks(tried: Bench) -> Sequence[tuple[str, Check]]:
    return (
        (objects.BODIES, partial(objects.bodies, tried)),
        (objects.PINNED, partial(objects.pinned_reads, tried)),
        (objects.CONDITIONS, partial(objects.conditional_writes, tried)),
        (objects.CONTENT_MD5, partial(objects.content_md5, tried)),
        (objects.CHECKSUMS, partial(objects.checksum_headers, tried)),
        (objects.TRAILERS, partial(objects.trailers, tried)),
        (objects.PAYLOAD, partial(objects.signed_payloads, tried)),
        (uploads.PARTS, partial(uploads.uneven_parts, tried)),
        (uploads.SMALLEST, partial(uploads.smallest_part, tried)),
        (uploads.LIVE_UPLOADS, partial(uploads.live_uploads, tried)),
        (objects.LISTINGS, partial(objects.listings, tried)),
        (objects.DELETIONS, partial(objects.deletions, tried)),
    )


def _report(bucket: str, found: Sequence[Finding]) -> DoctorReport:
    words = _words(found)
    profile = ",".join(words)
    return DoctorReport(
        bucket, tuple(found), profile, (FLAG, profile) if profile else (), tuple(_notes(found))
    )


def _words(found: Sequence[Finding]) -> list[str]:
    """What has to be stated: what differs from what the gateway assumes or finds out slowly."""
    by_name = {each.name: each for each in found}
    words = [
        word
        for name in (uploads.PARTS, objects.CONDITIONS)
        if name in by_name
        for word in by_name[name].words
    ]
    md5, sums = by_name.get(objects.CONTENT_MD5), by_name.get(objects.CHECKSUMS)
    if md5 is not None and md5.verdict is Verdict.BITES:
        verified = () if sums is None else sums.words
        words += [next((each for each in _PREFERRED if each in verified), "checksums=none")]
    return words


def _notes(found: Sequence[Finding]) -> list[str]:
    notes = []
    if any(each.verdict is Verdict.UNKNOWN for each in found):
        notes.append("what is unknown was not answered: the keys may lack the permission")
    if any("conditional-writes" in each.words for each in found):
        notes.append(
            "one question after another cannot tell whether conditions hold in a race: a store "
            "that checks and writes in two steps looks the same"
        )
    return notes
