"""`s4 migrate` and `s4 recompact`: rewrite what is stored, with nothing written without --execute.

exit status   0 done, or the dry run came to its end   1 something failed, or was refused
              2 the command line or configuration is wrong
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from s4gateway.backend.base import Backend
from s4gateway.cli import options, render, rewriting
from s4gateway.gateway.config import GatewayConfig
from s4gateway.tools import migrate as migrating
from s4gateway.tools import recompact as recompacting
from s4gateway.tools.migrate import MigrateParams, MigrateReport
from s4gateway.tools.progress import Progress
from s4gateway.tools.recompact import RecompactParams, RecompactReport
from s4gateway.tools.target import Target


@click.command("migrate")
@click.argument("target", metavar="BUCKET[/PREFIX]", type=options.TARGET)
@click.option("--undo", is_flag=True, help="Turn gateway objects back into plain ones.")
@rewriting.rewriting_options
@options.format_option
@options.backend_options("zstd_level", *rewriting.SETTINGS)
def migrate(config: GatewayConfig, target: Target, *, undo: bool, form: str, **chosen: Any) -> int:
    """Compress what was stored before there was a gateway, as the gateway would have.

    Each object is decoded again and compared before it replaces what it was made of, and only that
    version is replaced, where the store knows conditional writes. Bytes, metadata, tags and ETag
    stay what clients saw. Without --execute everything is done but the writes.
    """
    params = MigrateParams(target=target, undo=undo, **rewriting.common(config, **chosen))

    async def work(backend: Backend, shown: Progress) -> MigrateReport:
        return await migrating.migrate(backend, params, shown)

    report = rewriting.run("restore" if undo else "migrate", work, config)
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
@rewriting.rewriting_options
@options.format_option
@options.backend_options(*rewriting.SETTINGS)
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
        **rewriting.common(config, **chosen),
    )

    async def work(backend: Backend, shown: Progress) -> RecompactReport:
        return await recompacting.recompact(backend, params, shown)

    report = rewriting.run("recompact", work, config)
    render.emit(report, form, recompact_table)
    return 1 if report.failed else 0


# --- tables


def migrate_table(report: MigrateReport) -> Iterable[str]:
    """The lines of a report for people."""
    yield from rewriting.head("migrate --undo" if report.undo else "migrate", report)
    done = "restored" if report.undo else "migrated"
    if report.dry_run:
        done = "would restore" if report.undo else "would migrate"
    yield rewriting.changed(
        done, report.migrated, report.migrated_bytes_before, report.migrated_bytes_after
    )
    yield from rewriting.left(report)
    if report.codecs:
        yield "codecs: " + ", ".join(
            f"{each.wrote_with} x {each.objects}"
            + ("" if each.picked == each.wrote_with else f" (picked {each.picked})")
            for each in report.codecs
        )
    yield from rewriting.failures(report)


def recompact_table(report: RecompactReport) -> Iterable[str]:
    """The lines of a report for people."""
    yield from rewriting.head("recompact", report)
    older = "" if report.older_than is None else f"   older than: {report.older_than}"
    yield (
        f"zstd level: {report.target_zstd_level}   minimum gain: {report.min_gain_percent:g} %"
        f"{older}"
    )
    done = "would recompact" if report.dry_run else "recompacted"
    yield rewriting.changed(
        done, report.recompacted, report.recompacted_bytes_before, report.recompacted_bytes_after
    )
    yield from rewriting.left(report)
    if report.remembered:
        yield f"known from earlier runs: {report.remembered}"
    yield from rewriting.failures(report)
