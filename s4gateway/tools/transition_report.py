"""What a transition is asked for, what it says afterwards, and what it cannot keep.

Rule: whatever a copy changes, besides the class, is said in the report, whether it happened in this
run or not: the reader decides about a rule, not about a run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from s4gateway.objects.copying import LARGEST
from s4gateway.tools.failure import NAMED, Failure
from s4gateway.tools.patience import Patience
from s4gateway.tools.target import Target

ARCHIVES: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})  # nothing in these is read at once


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionParams:
    """What to move into `storage_class`; `older_than` leaves alone what was written since."""

    target: Target
    storage_class: str
    execute: bool = False
    older_than: timedelta | None = None
    concurrency: int = 4
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionReport:
    """What was moved, or would be in a dry run; sizes in bytes, `failures` names the first of them.

    Every object listed is in exactly one count: `transitioned`, `failed` or one that begins with
    `skipped_`. `skipped_etag_raced` were replaced or deleted by others meanwhile, `skipped_acl`
    have grants that no header expresses, `skipped_locked` are under Object Lock,
    `skipped_encrypted` under a key that is not here, `skipped_archived` must be restored first.
    `transitioned_sidecars` counts also those of objects that had been moved before;
    `rebound_sidecars` of them were written anew for the ETag of the copy, or from the object's
    frames. A sidecar that failed is in `failures` and in `failed` beside its object, which stays
    moved. `versioning_enabled` is None where that could not be found out.
    """

    bucket: str
    prefix: str
    dry_run: bool
    storage_class: str
    older_than_secs: int | None
    total_objects: int
    total_bytes: int
    transitioned: int
    transitioned_bytes: int
    transitioned_sidecars: int
    rebound_sidecars: int
    skipped_already_target_class: int
    skipped_too_recent: int
    skipped_etag_raced: int
    skipped_too_large: int
    skipped_acl: int
    skipped_locked: int
    skipped_encrypted: int
    skipped_archived: int
    failed: int
    failures: tuple[Failure, ...]
    versioning_enabled: bool | None
    notes: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """Bucket and prefix."""
        return str(Target(self.bucket, self.prefix))


@dataclass(frozen=True, slots=True)
class Findings:
    """What a run learned about the store.

    `conditional`: it takes a condition on what a copy replaces; `grants`: it lets ACLs be read.
    `counted` of the objects moved are in a savings ledger.
    """

    conditional: bool
    grants: bool
    counted: int = 0


def notes(report: TransitionReport, found: Findings) -> Iterator[str]:
    """What is to be said beside the figures of a report."""
    if not report.total_objects:
        yield f"no objects under {report.target}"
    if report.dry_run:
        yield "a dry run: nothing was written; every object was judged by the listing alone"
    yield from _PRESERVED
    if report.storage_class in ARCHIVES:
        yield (
            f"{report.storage_class} objects cannot be read, through a gateway or without one,"
            " until they are restored; neither can their sidecars"
        )
    if report.skipped_archived:
        yield "archived objects must be restored before they can be moved"
    if report.skipped_too_large:
        yield (
            f"objects above {LARGEST} stored bytes are too large for one copy: a lifecycle rule of"
            " the store moves them, but not their sidecars"
        )
    yield from _about_store(report, found)
    if found.counted and report.versioning_enabled is not False:
        yield (
            f"{found.counted} objects that a savings ledger counts may have a version more than it"
            " knows of: its counters are due for s4 savings --rescan --write"
        )
    if report.failed:
        yield "what failed is tried again by the next run"
    if report.failed > len(report.failures):
        yield f"only the first {NAMED} failures met are named"


def _about_store(report: TransitionReport, found: Findings) -> Iterator[str]:
    if report.versioning_enabled is None:
        yield "could not determine whether the bucket keeps versions"
    elif report.versioning_enabled:
        yield (
            "WARNING: versioning is Enabled: what is moved also stays, and is billed, as a"
            " noncurrent version in its old class until a lifecycle rule expires it"
        )
    if not found.conditional:
        yield (
            "WARNING: the store takes no condition on what a copy replaces: the source was pinned,"
            " but what a client wrote during a copy may have been overwritten by it"
        )
    if not found.grants:
        yield "ACLs could not be read: grants to others than the owner are not kept"


_PRESERVED: Final = (
    (
        "each copy is pinned to the ETag seen, and says again: user metadata, Content-Type,"
        " Cache-Control, Content-Disposition, Content-Encoding, Content-Language, Expires,"
        " WebsiteRedirectLocation, grants, and encryption by the store's keys as the store shows"
        " it; tags follow by themselves"
    ),
    (
        "what the store encrypts without saying so is encrypted again by the bucket's default;"
        " what is under a customer's key (SSE-C) cannot be moved"
    ),
    (
        "S3 copies what was uploaded in parts into one part, so that its ETag and checksum at the"
        " store change; its sidecar is bound to the new ETag"
    ),
    "a sidecar follows its object; one without an object is left to sweep-orphan-sidecars",
    "some stores keep the class as a mere label: there, moving objects saves nothing",
)
