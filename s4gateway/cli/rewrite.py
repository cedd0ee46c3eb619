"""`s4 migrate` and `s4 recompact`: rewrite what is stored, with nothing written without --execute.

exit status   0 done, or the dry run came to its end   1 something failed, or was refused
              2 the command line or configuration is wrong
"""

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from s4gateway.backend.base import Backend
from s4gateway.cli import options, progress, render
from s4gateway.cli.settings import Command
from s4gateway.gateway.config import GatewayConfig
from s4gateway.state.files import StateFileError
from s4gateway.tools import migrate as migrating
from s4gateway.tools import recompact as recompacting
from s4gateway.tools.migrate import MigrateParams, MigrateReport
from s4gateway.tools.objects import Making
from s4gateway.tools.progress import Progress
from s4gateway.tools.recompact import RecompactParams, RecompactReport
from s4gateway.tools.rewrite_order import RewriteRefused, RewriteReport
from s4gateway.tools.target import Target

_Report = TypeVar("_Report", bound=RewriteReport)
_SETTINGS = ("codec_threads", "spool_dir", "savings_ledger_state_file")


def _rewriting_options(command: Command) -> Command:
    """What both commands take; the values arrive under the names of RewriteParams."""
    added = (
        click.option("--execute", is_flag=True, help="Write. Without it, only measure and tell."),
        options.concurrency_option(4),
        click.option(
            "--max-objects",
            type=click.IntRange(1),
            metavar="N",
            help="Look at the first N objects of the listing only.",
        ),
        click.option(
            "--max-body-bytes",
            type=click.IntRange(0),
            metavar="BYTES",
            help="Leave larger objects alone, as stored or as decoded. Default: none is too large.",
        ),
        click.option(
            "--older-than",
            type=options.DURATION,
            metavar="DURATION",
            help="Leave alone what was written since: a number and s, m, h or d.",
        ),
        click.option("--no-tags", is_flag=True, help="Neither read nor carry over tags."),
        click.option(
            "--noncurrent-ok",
            is_flag=True,
            help="Write to a bucket that keeps versions, where the old ones stay stored.",
        ),
    )
    for add in reversed(added):
        command = add(command)
    return command


@click.command("migrate")
@click.argument("target", metavar="BUCKET[/PREFIX]", type=options.TARGET)
@click.option("--undo", is_flag=True, help="Turn gateway objects back into plain ones.")
@_rewriting_options
@options.format_option
@options.backend_options("zstd_level", *_SETTINGS)
def migrate(config: GatewayConfig, target: Target, *, undo: bool, form: str, **chosen: Any) -> int:
    """Compress what was stored before there was a gateway, as the gateway would have.

    Each object is decoded again and compared before it replaces what it was made of, and only that
    version is replaced, where the store knows conditional writes. Bytes, metadata, tags and ETag
    stay what clients saw. Without --execute everything is done but the writes.
    """
    params = MigrateParams(target=target, undo=undo, **_params(config, **chosen))

    async def work(backend: Backend, shown: Progress) -> MigrateReport:
        return await migrating.migrate(backend, params, shown)

    report = _run("restore" if undo else "migrate", work, config)
    render.emit(report, form, migrate_table)
    return 1 if report.failed else 0


@click.command("recompact")
@click.argument("target", metavar="BUCKET[/PREFIX]", type=options.TARGET)
@click.option(
    "--target-zstd-level",
    type=click.IntRange(1, 22),
    default=19,
    show_default=True,
    metavar="1-22",
    help="Level to compress at. Above 19 a thread takes hundreds of MiB.",
)
@click.option(
    "--min-gain-percent",
    type=click.FloatRange(0, 100),
    default=3.0,
    show_default=True,
    metavar="PERCENT",
    help="Replace only what becomes smaller by so much.",
)
@click.option(
    "--assume-unstamped-framed",
    is_flag=True,
    help="Take objects without metadata that begin as frames do for frames.",
)
@click.option(
    "--state-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Remember what gained too little, and do not read it again.",
)
@_rewriting_options
@options.format_option
@options.backend_options(*_SETTINGS)
def recompact(
    config: GatewayConfig,
    target: Target,
    *,
    target_zstd_level: int,
    min_gain_percent: float,
    assume_unstamped_framed: bool,
    state_file: Path | None,
    form: str,
    **chosen: Any,
) -> int:
    """Compress what gateways stored once more, harder, and without the padding of parts.

    What clients see of an object stays, its parts and checksum included. Only what gains enough is
    replaced; with --state-file the rest is not read again by the next run. Without --execute
    everything is done but the writes.
    """
    params = RecompactParams(
        target=target,
        zstd_level=target_zstd_level,
        min_gain_percent=min_gain_percent,
        assume_unstamped_framed=assume_unstamped_framed,
        state_file=state_file,
        **_params(config, **chosen),
    )

    async def work(backend: Backend, shown: Progress) -> RecompactReport:
        return await recompacting.recompact(backend, params, shown)

    report = _run("recompact", work, config)
    render.emit(report, form, recompact_table)
    return 1 if report.failed else 0


def _params(
    config: GatewayConfig,
    *,
    execute: bool,
    concurrency: int,
    max_objects: int | None,
    max_body_bytes: int | None,
    older_than: timedelta | None,
    no_tags: bool,
    noncurrent_ok: bool,
) -> dict[str, Any]:
    return {
        "execute": execute,
        "concurrency": concurrency,
        "max_objects": max_objects,
        "max_body_bytes": max_body_bytes,
        "older_than": older_than,
        "carry_tags": not no_tags,
        "noncurrent_ok": noncurrent_ok,
        "ledger_file": config.savings_ledger_state_file,
        "making": Making(
            threads=config.codec_threads,
            zstd_level=config.zstd_level,
            spool=config.spool_dir,
            conditional_writes=config.backend_profile.conditional_writes,
        ),
    }


def _run(
    label: str,
    rewrite: Callable[[Backend, Progress], Awaitable[_Report]],
    config: GatewayConfig,
) -> _Report:
    async def work(backend: Backend) -> _Report:
        with progress.bar(label) as shown:
            return await rewrite(backend, shown)

    try:
        return options.run_tool(work, config)
    except (RewriteRefused, StateFileError) as error:
        raise click.ClickException(str(error)) from error


# --- tables


def migrate_table(report: MigrateReport) -> Iterable[str]:
    """The lines of a report for people."""
    yield from _head("migrate --undo" if report.undo else "migrate", report)
    done = "restored" if report.undo else "migrated"
    if report.dry_run:
        done = "would restore" if report.undo else "would migrate"
    yield _changed(done, report.migrated, report.migrated_bytes_before, report.migrated_bytes_after)
    yield from _tail(report)
    if report.codecs:
        yield "codecs: " + ", ".join(
            f"{each.wrote_with} x {each.objects}"
            + ("" if each.picked == each.wrote_with else f" (picked {each.picked})")
            for each in report.codecs
        )
    yield from _failures(report)


def recompact_table(report: RecompactReport) -> Iterable[str]:
    """The lines of a report for people."""
    yield from _head("recompact", report)
    older = "" if report.older_than is None else f"   older than: {report.older_than}"
    yield (
        f"zstd level: {report.target_zstd_level}   minimum gain: {report.min_gain_percent:g} %"
        f"{older}"
    )
    done = "would recompact" if report.dry_run else "recompacted"
    yield _changed(
        done, report.recompacted, report.recompacted_bytes_before, report.recompacted_bytes_after
    )
    yield from _tail(report)
    if report.remembered:
        yield f"known from earlier runs: {report.remembered}"
    yield from _failures(report)


def _head(name: str, report: RewriteReport) -> Iterable[str]:
    mode = "dry-run (pass --execute to write)" if report.dry_run else "execute"
    yield f"S4 {name} {report.target} — {mode}"
    cut = " (listing truncated)" if report.listing_truncated else ""
    size = report.total_bytes
    yield (
        f"objects: {report.total_objects}{cut}   total: {render.human_bytes(size)} ({size} bytes)"
    )


def _changed(done: str, count: int, before: int, after: int) -> str:
    line = f"{done}: {count}   {render.human_bytes(before)} -> {render.human_bytes(after)}"
    saved = before - after
    if not before or saved < 0:
        return f"{line}   grows {render.human_bytes(-saved)}" if saved else line
    return f"{line}   saves {render.human_bytes(saved)} ({saved / before:.1%})"


def _tail(report: RewriteReport) -> Iterable[str]:
    counts = {
        name.removeprefix("skipped_").replace("_", "-"): count
        for name, count in render.as_json(report).items()
        if name.startswith("skipped_")
    }
    yield "skipped: " + ", ".join(f"{name} {count}" for name, count in counts.items())
    yield f"failed: {report.failed}"


def _failures(report: RewriteReport) -> Iterable[str]:
    if report.failures:
        yield "\nFailures:"
    for failure in report.failures:
        yield f"- {failure.key} [{failure.op}]: {failure.cause}"
