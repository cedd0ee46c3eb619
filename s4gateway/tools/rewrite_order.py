"""What is asked of a run that rewrites objects in place, and what is said about it afterwards.

Rule: a run is dry unless told otherwise, and every object that was listed is in exactly one of the
report's counts, so that nothing is left out silently.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from os import cpu_count
from pathlib import Path

from s4gateway.tools.failure import Failure
from s4gateway.tools.objects import Making
from s4gateway.tools.patience import Patience
from s4gateway.tools.target import Target


def _making() -> Making:
    return Making(threads=cpu_count() or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteParams:
    """What to rewrite and how much of it.

    `max_objects` ends the listing, `max_body_bytes` leaves larger objects alone, as stored and as
    decoded; None is no bound. `older_than` leaves alone what was written since. `carry_tags` False
    neither reads nor writes tags. `noncurrent_ok`: on a bucket that keeps versions, where what is
    rewritten stays stored as a noncurrent version, writing is refused without it. `ledger_file` is
    the savings ledger that counts what becomes of counted objects.
    """

    target: Target
    execute: bool = False
    concurrency: int = 4
    max_objects: int | None = None
    max_body_bytes: int | None = None
    older_than: timedelta | None = None
    carry_tags: bool = True
    noncurrent_ok: bool = False
    ledger_file: Path | None = None
    making: Making = field(default_factory=_making)
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteReport:
    """What every rewriting run reports; sizes in bytes, `total_bytes` as stored before.

    `versioning` is "Enabled", "Suspended", or None for a bucket without versions and where that
    could not be found out. `conditional_writes` says whether the store itself kept rewritten
    objects from replacing newer ones; None in a run that wrote nothing. `failures` names the first
    of the `failed`.

    Objects left alone: `skipped_etag_raced` changed since they were read, `skipped_vanished` are
    gone, `skipped_tags_unreadable` have tags that may not be read, `skipped_acl` grants that no
    header expresses, `skipped_locked` are under Object Lock, `skipped_encrypted` under a key that
    is not here, `skipped_archived` must be restored first.
    """

    bucket: str
    prefix: str
    dry_run: bool
    total_objects: int
    total_bytes: int
    listing_truncated: bool
    max_objects: int | None
    older_than: timedelta | None
    no_tags: bool
    versioning: str | None
    conditional_writes: bool | None
    skipped_too_large: int
    skipped_too_recent: int
    skipped_etag_raced: int
    skipped_vanished: int
    skipped_tags_unreadable: int
    skipped_acl: int
    skipped_locked: int
    skipped_encrypted: int
    skipped_archived: int
    failed: int
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]

    @property
    def target(self) -> str:
        """Bucket and prefix."""
        return str(Target(self.bucket, self.prefix))


class RewriteRefused(Exception):
    """The run was not begun: what it would do is not what is wanted, as far as anybody can tell."""
