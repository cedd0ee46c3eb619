"""`s4 verify-sidecar`, `s4 repair-sidecar`, `s4 sweep-orphan-sidecars`: indexes and their objects.

exit status   0 nothing is wrong, or it was put right   1 something is wrong, or it failed
              2 the command line or configuration is wrong
"""

from collections.abc import Iterable
from typing import Any

import click

from s4gateway.backend.base import Backend
from s4gateway.cli import options, progress, render
from s4gateway.gateway.config import GatewayConfig
from s4gateway.tools import sidecar_repair, sidecar_sweep, sidecars
from s4gateway.tools.sidecar_errors import SidecarToolError
from s4gateway.tools.sidecar_sweep import Sweep, SweepReport
from s4gateway.tools.target import Target


class _Object(click.ParamType):  # type: ignore[type-arg]
    """BUCKET/KEY, as a pair."""

    name = "object"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        target: Target = options.TARGET.convert(value, param, ctx)
        if not target.prefix:
            self.fail(f"{value!r} names no object: give BUCKET/KEY", param, ctx)
        return target.bucket, target.prefix


OBJECT = _Object()

_max_body_bytes = click.option(
    "--max-body-bytes",
    type=click.IntRange(min=0),
    default=sidecars.LARGEST_OBJECT,
    show_default=True,
    metavar="BYTES",
    help="Leave objects with more stored bytes alone.",
)


@click.command("verify-sidecar")
@click.argument("name", metavar="BUCKET/KEY", type=OBJECT)
@_max_body_bytes
@options.format_option
@options.backend_options()
def verify_sidecar(
    config: GatewayConfig, name: tuple[str, str], max_body_bytes: int, form: str
) -> int:
    """Check the sidecar (range index) of one object against the object's frame headers.

    Exits with status 1 when it is missing where it is needed, stale, broken or wrong. Readers are
    right in any case: an index that cannot be trusted is ignored.
    """

    async def work(backend: Backend) -> sidecars.VerifyReport:
        return await sidecars.verify_sidecar(backend, name, max_body_bytes=max_body_bytes)

    report = run_sidecar_tool(work, config)
    render.emit(report, form, _verdict)
    return 0 if report.verdict.is_sound else 1


def _verdict(report: sidecars.VerifyReport) -> Iterable[str]:
    yield f"{report.verdict}  {report.bucket}/{report.key}: {report.detail}"


@click.command("repair-sidecar")
@click.argument("name", metavar="BUCKET/KEY", type=OBJECT)
@_max_body_bytes
@options.format_option
@options.backend_options()
def repair_sidecar(
    config: GatewayConfig, name: tuple[str, str], max_body_bytes: int, form: str
) -> int:
    """Make the sidecar (range index) of one object anew, from the object's frame headers.

    The object is read pinned to its ETag and never written. When it is replaced in the meantime
    nothing is left behind, and the repair has to be done again.
    """

    async def work(backend: Backend) -> sidecar_repair.RepairReport:
        return await sidecar_repair.repair_sidecar(backend, name, max_body_bytes=max_body_bytes)

    report = run_sidecar_tool(work, config)
    render.emit(report, form, _repaired)
    return 0


def _repaired(report: sidecar_repair.RepairReport) -> Iterable[str]:
    what = {
        "rebuilt": f"rebuilt, {render.human_bytes(report.sidecar_bytes)}",
        "removed": "removed, for it is not needed",
        "unneeded": "there is none, and none is needed",
    }[report.action]
    yield f"{report.bucket}/{report.key}: {what}"
    yield (
        f"frames: {report.frames}   original: {render.human_bytes(report.original_size)}   "
        f"stored: {render.human_bytes(report.stored_size)}   ETag: {report.etag}"
    )


@click.command("sweep-orphan-sidecars")
@click.argument("bucket")
@click.option("--delete", is_flag=True, help="Delete what describes nothing; otherwise only look.")
@click.option(
    "--delete-undecodable",
    is_flag=True,
    help="Delete also what ends in .s4index and is no sidecar. Needs --delete.",
)
@options.concurrency_option(8)
@options.format_option
@options.backend_options()
def sweep_orphan_sidecars(
    config: GatewayConfig,
    bucket: str,
    delete: bool,
    delete_undecodable: bool,
    concurrency: int,
    form: str,
) -> int:
    """Find sidecars (range indexes) that describe no object any more; delete them if asked to.

    Exits with status 1 when there are any and --delete is not given, and when something failed.
    """
    if delete_undecodable and not delete:
        raise click.UsageError("--delete-undecodable needs --delete")
    if not bucket or "/" in bucket:
        raise click.UsageError(f"{bucket!r} is no bucket: give BUCKET alone")
    sweep = Sweep(bucket, delete, delete_undecodable, concurrency)

    async def work(backend: Backend) -> SweepReport:
        with progress.bar("sidecars") as shown:
            return await sidecar_sweep.sweep_orphans(backend, sweep, shown)

    report = run_sidecar_tool(work, config)
    render.emit(report, form, _swept)
    return 0 if report.is_clean else 1


def _swept(report: SweepReport) -> Iterable[str]:
    mode = "delete" if report.deleting else "dry-run (pass --delete to delete)"
    yield f"S4 sweep-orphan-sidecars {report.bucket} — {mode}"
    yield f"sidecars: {report.sidecars}   paired: {report.paired}"
    yield "orphans: " + ", ".join(f"{kind} {count}" for kind, count in report.counts.items())
    verb = "deleted" if report.deleting else "would delete"
    count = report.deleted if report.deleting else sum(report.counts.values())
    yield f"{verb}: {count}, {render.human_bytes(report.orphan_bytes)}"
    if report.kept_undecodable:
        yield f"kept: {report.kept_undecodable} that cannot be decoded"
    yield f"failed: {report.failed}"
    if report.orphans:
        yield "\nOrphans:"
    for orphan in report.orphans:
        done = ", deleted" if orphan.deleted else ""
        yield f"- {orphan.key} [{orphan.kind}{done}]: {orphan.detail}"
    if report.failures:
        yield "\nFailures:"
    for failure in report.failures:
        yield f"- {failure.key} [{failure.op}]: {failure.cause}"


def run_sidecar_tool(work: options.Work[Any], config: GatewayConfig) -> Any:
    """Run a tool; what it refuses is one line with the kind of the refusal."""
    try:
        return options.run_tool(work, config)
    except SidecarToolError as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from error
