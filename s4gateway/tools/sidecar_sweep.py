"""Sidecars of a bucket that describe nothing any more, found and, if asked for, deleted.

Rule: only what has been decoded as a sidecar is deleted, because a client may have kept files of
that name before there was a gateway; and only the very sidecar that was judged, because a gateway
may be writing a new one. Whatever cannot be found out is left alone and counted.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer, BackendError
from s4gateway.objects import removal
from s4gateway.objects.cache import IndexCache, ObjectName
from s4gateway.objects.lanes import Lanes
from s4gateway.objects.sidecar import Sidecars
from s4gateway.s3.errors import S3Error
from s4gateway.tools.failure import NAMED, Bounded, Failure
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.sidecar_errors import MissingContentLength
from s4gateway.tools.sidecar_repair import remove_sidecar
from s4gateway.tools.sidecars import identity, load_sidecar
from s4gateway.tools.target import Target
from s4gateway.tools.walk import Listed, each, versioning, walk
from s4gateway.wire.index import MAX_SIDECAR_BYTES, FrameIndex
from s4gateway.wire.keys import SIDECAR_SUFFIX

_IS_MARKER: Final = 405  # of a GET that names the version of a delete marker


class Orphan(StrEnum):
    """Why a sidecar describes nothing."""

    PAIRED_MISSING = "PairedMissing"
    """There is no object beside it."""
    PAIRED_ETAG_MISMATCH = "PairedEtagMismatch"
    """The object is another version."""
    PAIRED_SIZE_MISMATCH = "PairedSizeMismatch"
    """The object has another size."""
    UNDECODABLE = "SidecarUndecodable"
    """It is no sidecar, or a broken one: perhaps a client's own file."""


@dataclass(frozen=True, slots=True)
class FoundOrphan:
    """One orphan, by the key of the sidecar; what became of it."""

    key: str
    kind: Orphan
    detail: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What was found in a bucket; `orphans` and `failures` name the first of them, by key.

    `orphan_bytes` counts all orphans that are, or would be, deleted. `kept_undecodable` were left
    although `deleting`.
    """

    bucket: str
    deleting: bool
    sidecars: int
    paired: int
    counts: dict[str, int]
    orphan_bytes: int
    deleted: int
    kept_undecodable: int
    replaced: int
    failed: int
    orphans: tuple[FoundOrphan, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Nothing was found, or all that may be deleted is, and nothing failed."""
        found = sum(self.counts.values())
        return not self.failed and (self.deleting or not found)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What to sweep, and how far to go."""

    bucket: str
    delete: bool = False
    delete_undecodable: bool = False
    concurrency: int = 8


async def sweep_orphans(backend: Backend, sweep: Sweep, progress: Progress = SILENT) -> SweepReport:
    """Judge every `*.s4index` of a bucket; raises BackendError when it cannot be listed."""
    state = await versioning(backend, sweep.bucket)
    lanes = Lanes(1)
    sweeping = _Sweeping(backend, sweep, Sidecars(backend, IndexCache(), lanes), state, progress)
    try:
        listing = walk(backend, Target(sweep.bucket), internal=True)
        await each(listing, sweeping.judge, sweep.concurrency)
    finally:
        lanes.close()
    return sweeping.report()


@dataclass(slots=True)
class _Sweeping:
    backend: Backend
    sweep: Sweep
    sidecars: Sidecars
    state: str | None
    progress: Progress
    seen: int = 0
    paired: int = 0
    deleted: int = 0
    kept: int = 0
    replaced: int = 0
    freed: int = 0
    counts: Counter[Orphan] = field(default_factory=Counter)
    orphans: Bounded[FoundOrphan] = field(default_factory=Bounded)
    failures: Bounded[Failure] = field(default_factory=Bounded)

    async def judge(self, listed: Listed) -> None:
        key = listed.key.removesuffix(SIDECAR_SUFFIX)
        if key == listed.key or not key:
            return
        self.seen += 1
        self.progress.found(1, listed.size)
        try:
            await self._judge(listed, key)
        except (BackendError, MissingContentLength) as error:
            self._fail(listed.key, "read", error)
        finally:
            self.progress.done(1, listed.size)

    async def _judge(self, listed: Listed, key: str) -> None:
        loaded = await load_sidecar(self.backend, (self.sweep.bucket, key))
        if loaded is None:
            self.replaced += 1  # gone since it was listed
            return
        if loaded.index is None:
            await self._found(listed, loaded.etag, Orphan.UNDECODABLE, loaded.problem)
            return
        orphan = await self._orphan(key, loaded.index)
        if orphan is None:
            self.paired += 1
        else:
            await self._found(listed, loaded.etag, *orphan)

    async def _orphan(self, key: str, index: FrameIndex) -> tuple[Orphan, str] | None:
        """Why the index describes nothing; None when it describes the object beside it."""
        try:
            tag, size = identity(await self.backend.head(self.sweep.bucket, key))
        except BackendAnswer as error:
            if not error.missing:
                raise
            return Orphan.PAIRED_MISSING, "no object stands beside it"
        if index.source_size not in {None, size}:
            detail = f"it is of {index.source_size} bytes, the object has {size}"
            return Orphan.PAIRED_SIZE_MISMATCH, detail
        if index.etag is not None and not index.is_bound_to(tag, size):
            detail = f"it is of ETag {index.etag}, the object has {tag}"
            return Orphan.PAIRED_ETAG_MISMATCH, detail
        return None

    async def _found(self, listed: Listed, tag: str, kind: Orphan, detail: str) -> None:
        deleted = False
        if self._may_delete(kind):
            try:
                deleted = await self._delete(listed.key, tag, kind)
            except BackendError as error:
                self._fail(listed.key, "delete", error)
            else:
                if not deleted:
                    self.replaced += 1
                    return
        elif self.sweep.delete:
            self.kept += 1
        self.deleted += deleted
        if deleted or not self.sweep.delete:
            self.freed += listed.size
        self.counts[kind] += 1
        self.orphans.add(FoundOrphan(listed.key, kind, detail, deleted))

    def _may_delete(self, kind: Orphan) -> bool:
        decoded = kind is not Orphan.UNDECODABLE
        return self.sweep.delete and (decoded or self.sweep.delete_undecodable)

    async def _delete(self, sidecar: str, tag: str, kind: Orphan) -> bool:
        """Delete it, with all its versions when its object has none left either."""
        bucket = self.sweep.bucket
        name = bucket, sidecar.removesuffix(SIDECAR_SUFFIX)
        alone = self.state is not None and kind is Orphan.PAIRED_MISSING
        if alone and await self._purge(name):
            return True
        return await remove_sidecar(self.backend, bucket, sidecar, tag)

    async def _purge(self, name: ObjectName) -> bool:
        """Delete all versions if the object has none left and each is a sidecar; whether so."""
        try:
            doomed = await self.sidecars.left_behind(name)
        except S3Error:
            return False  # a listing that makes no sense says nothing
        for version in doomed or ():
            try:
                loaded = await load_sidecar(self.backend, name, version.version_id)
            except BackendAnswer as error:
                if error.status != _IS_MARKER:
                    raise
            else:
                if loaded is not None and loaded.index is None:
                    return False
        return bool(doomed) and await removal.delete(
            self.backend, name[0], doomed or (), by_id=True
        )

    def _fail(self, key: str, op: str, error: Exception) -> None:
        self.failures.add(Failure(key, op, str(error)))

    def report(self) -> SweepReport:
        return SweepReport(
            bucket=self.sweep.bucket,
            deleting=self.sweep.delete,
            sidecars=self.seen,
            paired=self.paired,
            counts={kind.value: self.counts[kind] for kind in Orphan},
            orphan_bytes=self.freed,
            deleted=self.deleted,
            kept_undecodable=self.kept,
            replaced=self.replaced,
            failed=self.failures.count,
            orphans=self.orphans.sorted(),
            failures=self.failures.sorted(),
            notes=tuple(self._notes()),
        )

    def _notes(self) -> list[str]:
        notes = []
        if self.counts[Orphan.UNDECODABLE]:
            notes.append(
                f"what cannot be decoded, or has more than {MAX_SIDECAR_BYTES} bytes, may be a "
                "client's own file: look at it before --delete-undecodable"
            )
        if self.state is not None:
            notes.append(
                f"versioning is {self.state}: only current sidecars were judged, and deleting one "
                "whose object has versions left leaves a delete marker in front of its versions"
            )
        if self.orphans.is_cut:
            notes.append(f"only the first {NAMED} orphans met are named")
        if self.replaced:
            notes.append(f"{self.replaced} were replaced or deleted by others meanwhile")
        return notes
