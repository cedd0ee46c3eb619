"""A run over everything below a target that rewrites objects, and the counts it leaves.

Rule: memory does not grow with the bucket, and no object ends the run: what became of each is
counted, and the first failures are named.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from s4gateway.backend.base import Backend, BackendAnswer
from s4gateway.state.live_ledger import LiveLedger
from s4gateway.tools.failure import NAMED, Bounded, Failure
from s4gateway.tools.objects import Objects, open_objects
from s4gateway.tools.progress import Progress
from s4gateway.tools.rewrite_encoding import Encoder
from s4gateway.tools.rewrite_kind import Failed, Kind, Outcome, Rewritten, Skipped
from s4gateway.tools.rewrite_order import RewriteParams, RewriteRefused
from s4gateway.tools.rewriting import Rewriter
from s4gateway.tools.walk import Listed, each, versioning, walk

_EACH: Final = 96 * 1024 * 1024  # memory for one object: two frames of 16 MiB, and ahead


class Tally:
    """What became of the objects of one run."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.codecs: Counter[str] = Counter()
        self.failures: Bounded[Failure] = Bounded()
        self.objects = self.size = self.before = self.after = 0
        self.truncated = False
        self.acl_unreadable = 0
        self.unlike_etags = 0
        self.versioning: str | None = None
        self.versioning_unknown = ""
        self.conditional: bool | None = None

    def rewritten(self, done: Rewritten) -> None:
        """Count an object that was rewritten, or would be."""
        self.outcomes[Outcome.REWRITTEN] += 1
        self.codecs[done.codec] += 1
        self.before += done.before
        self.after += done.after

    def failed(self, key: str, failure: Failed) -> None:
        """Count an object that could not be rewritten."""
        self.outcomes[Outcome.FAILED] += 1
        self.failures.add(Failure(key, failure.op, failure.cause))

    def common(self, params: RewriteParams) -> dict[str, Any]:
        """The fields that reports of all kinds share, but for the notes."""
        count = self.outcomes
        return {
            "bucket": params.target.bucket,
            "prefix": params.target.prefix,
            "dry_run": not params.execute,
            "total_objects": self.objects,
            "total_bytes": self.size,
            "listing_truncated": self.truncated,
            "max_objects": params.max_objects,
            "older_than": params.older_than,
            "no_tags": not params.carry_tags,
            "versioning": self.versioning,
            "conditional_writes": self.conditional,
            "skipped_too_large": count[Outcome.TOO_LARGE],
            "skipped_too_recent": count[Outcome.TOO_RECENT],
            "skipped_etag_raced": count[Outcome.ETAG_RACED],
            "skipped_vanished": count[Outcome.VANISHED],
            "skipped_tags_unreadable": count[Outcome.TAGS_UNREADABLE],
            "skipped_acl": count[Outcome.ACL],
            "skipped_locked": count[Outcome.LOCKED],
            "skipped_encrypted": count[Outcome.ENCRYPTED],
            "skipped_archived": count[Outcome.ARCHIVED],
            "failed": count[Outcome.FAILED],
            "failures": self.failures.sorted(),
        }

    def notes(self, params: RewriteParams) -> list[str]:
        """What a reader of the figures should know, of runs of all kinds."""
        found = [*self._of_the_listing(params), *self._of_the_writes(params)]
        if self.outcomes[Outcome.TAGS_UNREADABLE]:
            found.append(
                "Objects whose tags could not be read were left alone: allow s3:GetObjectTagging,"
                " or give --no-tags where there are no tags to lose."
            )
        if self.acl_unreadable:
            found.append(
                f"The ACLs of {self.acl_unreadable} objects could not be read (denied, or not"
                " supported by the store); none is carried over."
            )
        if self.unlike_etags:
            found.append(
                f"The ETags of {self.unlike_etags} objects are not the MD5s of their bytes, and the"
                " store shows no checksum of them: they were read twice, with the same result."
            )
        if not params.carry_tags and self.outcomes[Outcome.REWRITTEN]:
            found.append("Tags were neither read nor carried over (--no-tags).")
        if self.outcomes[Outcome.FAILED]:
            found.append("Run again to try what failed; what is done is not done twice.")
        if self.failures.is_cut:
            found.append(f"Only the first {NAMED} failures are named.")
        return found

    def _of_the_listing(self, params: RewriteParams) -> list[str]:
        if not self.objects:
            return [f"No objects found under {params.target}."]
        if self.truncated:
            return [f"The listing was cut at {params.max_objects} objects (--max-objects)."]
        return []

    def _of_the_writes(self, params: RewriteParams) -> list[str]:
        found = []
        done = self.outcomes[Outcome.REWRITTEN]
        if not params.execute:
            found.append("Dry run: sizes are those of real output, and nothing was written.")
        elif self.conditional is False:
            found.append(
                "The store knows no conditional writes: each key was looked at right before its"
                " write, and a client's write between the two would have been lost."
            )
        if self.versioning == "Enabled" and done:
            verb = "stay" if params.execute else "would stay"
            found.append(
                f"WARNING: the bucket keeps versions: {self.before} bytes {verb} stored as"
                " noncurrent versions until a lifecycle rule expires them."
            )
        if self.versioning_unknown:
            found.append(
                "Could not determine whether the bucket keeps versions"
                f" ({self.versioning_unknown})."
            )
        if done:
            found.append(
                "Rewriting sets Last-Modified: lifecycle ages count from then, and tools that"
                " compare times see a change."
            )
        return found


async def run(
    backend: Backend, params: RewriteParams, kind: Kind, progress: Progress, tally: Tally
) -> None:
    """Rewrite everything below the target; raises BackendError, RewriteRefused, StateFileError."""
    async with opened(backend, params, tally) as objects:
        encoder = Encoder(objects, params, kind)
        rewriter = Rewriter(objects, params, kind, encoder.encode)
        await rewrite_all(objects, params, rewriter, progress, tally)
        tally.unlike_etags = encoder.unlike_etags


@asynccontextmanager
async def opened(backend: Backend, params: RewriteParams, tally: Tally) -> AsyncIterator[Objects]:
    """Have what a run needs while the block lasts; raises as `run` does."""
    await _look_at_versions(backend, params, tally)
    memory = max(params.making.memory, params.concurrency * _EACH)
    making = replace(params.making, memory=memory)
    async with _ledger(params) as ledger, open_objects(backend, making, ledger) as objects:
        yield objects


async def rewrite_all(
    objects: Objects, params: RewriteParams, rewriter: Rewriter, progress: Progress, tally: Tally
) -> None:
    """Rewrite everything below the target with `rewriter`; raises BackendError."""

    async def one(listed: Listed) -> None:
        progress.found(1, listed.size)
        try:
            await _count(rewriter, listed, tally)
        finally:
            progress.done(1, listed.size)

    await each(_listed(objects.backend, params, tally), one, params.concurrency)
    tally.conditional = rewriter.replacer.conditional
    tally.acl_unreadable = rewriter.acl_unreadable


async def _count(rewriter: Rewriter, listed: Listed, tally: Tally) -> None:
    try:
        tally.rewritten(await rewriter.rewrite(listed))
    except Skipped as skipped:
        tally.outcomes[skipped.outcome] += 1
    except Failed as failure:
        tally.failed(listed.key, failure)


async def _listed(
    backend: Backend, params: RewriteParams, tally: Tally
) -> AsyncGenerator[Listed, None]:
    """What is to be looked at; the rest is counted."""
    now = datetime.now(UTC)
    async with aclosing(walk(backend, params.target)) as found:
        async for listed in found:
            if params.max_objects is not None and tally.objects >= params.max_objects:
                tally.truncated = True
                return
            tally.objects += 1
            tally.size += listed.size
            if _is_too_recent(listed, params, now):
                tally.outcomes[Outcome.TOO_RECENT] += 1
            else:
                yield listed


def _is_too_recent(listed: Listed, params: RewriteParams, now: datetime) -> bool:
    """Whether it was written too lately; what has no readable date may have been."""
    if params.older_than is None:
        return False
    return listed.modified is None or now - listed.modified < params.older_than


async def _look_at_versions(backend: Backend, params: RewriteParams, tally: Tally) -> None:
    bucket = params.target.bucket
    try:
        tally.versioning = await versioning(backend, bucket)
    except BackendAnswer as error:
        if error.code == "NoSuchBucket":
            raise
        tally.versioning_unknown = str(error)
        if params.execute and not params.noncurrent_ok:
            raise RewriteRefused(
                f"could not determine whether {bucket} keeps versions ({error}), where everything"
                " rewritten would stay stored; give --noncurrent-ok to write all the same"
            ) from error
    if tally.versioning == "Enabled" and params.execute and not params.noncurrent_ok:
        raise RewriteRefused(
            f"{bucket} keeps versions: everything rewritten stays stored as a noncurrent version,"
            " too, until a lifecycle rule expires it; give --noncurrent-ok if that is wanted"
        )


def uncounted(objects: int) -> str:
    """The note about objects of a savings ledger that were rewritten without it."""
    return (
        f"{objects} objects that a savings ledger counts were rewritten without it: its counters"
        " are due for s4 savings --rescan --write (or give --savings-ledger-state-file)."
    )


class _NoObserver:
    """Nobody watches a tool's ledger."""

    def flush_failed(self) -> None:
        """Said by the log."""

    def load_failed(self, reason: str) -> None:
        """Said by the log."""


@asynccontextmanager
async def _ledger(params: RewriteParams) -> AsyncIterator[LiveLedger | None]:
    path: Path | None = params.ledger_file
    if path is None or not params.execute:
        yield None
        return
    ledger = LiveLedger(path, _NoObserver())
    try:
        yield ledger
    finally:
        await ledger.close()
