"""What `s4 migrate`, `s4 recompact` and `s4 parquet-recompact` share: flags, run, lines of a table.

Rule: nothing is written without --execute, and a table shows every count of its report.
"""

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, Final, TypeVar

import click

from s4gateway.backend.base import Backend
from s4gateway.cli import options, progress, render
from s4gateway.cli.settings import Command
from s4gateway.gateway.config import GatewayConfig
from s4gateway.state.files import StateFileError
from s4gateway.tools.failure import Failure
from s4gateway.tools.objects import Making
from s4gateway.tools.progress import Progress
from s4gateway.tools.rewrite_order import RewriteRefused, RewriteReport

# Fields of the gateway's table that say how to rewrite.
SETTINGS: Final = ("codec_threads", "spool_dir", "savings_ledger_state_file")

_Report = TypeVar("_Report", bound=RewriteReport)


def rewriting_options(command: Command) -> Command:
    """What the commands share; the values arrive under the names of RewriteParams."""
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


def common(
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
    """The fields that the parameters of all kinds share."""
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


def run(
    label: str,
    rewrite: Callable[[Backend, Progress], Awaitable[_Report]],
    config: GatewayConfig,
) -> _Report:
    """Do it over the store, under a bar that is called `label`; what is refused is one line."""

    async def work(backend: Backend) -> _Report:
        with progress.bar(label) as shown:
            return await rewrite(backend, shown)

    try:
        return options.run_tool(work, config)
    except (RewriteRefused, StateFileError) as error:
        raise click.ClickException(str(error)) from error


# --- tables


def head(name: str, report: RewriteReport) -> Iterable[str]:
    """What was asked for, and of how much."""
    mode = "dry-run (pass --execute to write)" if report.dry_run else "execute"
    yield f"S4 {name} {report.target} — {mode}"
    cut = " (listing truncated)" if report.listing_truncated else ""
    size = report.total_bytes
    yield (
        f"objects: {report.total_objects}{cut}   total: {render.human_bytes(size)} ({size} bytes)"
    )


def changed(done: str, count: int, before: int, after: int) -> str:
    """How many objects became how much smaller."""
    line = f"{done}: {count}   {render.human_bytes(before)} -> {render.human_bytes(after)}"
    saved = before - after
    if not before or saved < 0:
        return f"{line}   grows {render.human_bytes(-saved)}" if saved else line
    return f"{line}   saves {render.human_bytes(saved)} ({saved / before:.1%})"


def left(report: RewriteReport) -> Iterable[str]:
    """How many objects were left alone, by their reasons, and how many failed."""
    counts = {
        name.removeprefix("skipped_").replace("_", "-"): count
        for name, count in render.as_json(report).items()
        if name.startswith("skipped_")
    }
    yield "skipped: " + ", ".join(f"{name} {count}" for name, count in counts.items())
    yield f"failed: {report.failed}"


def failures(report: RewriteReport) -> Iterable[str]:
    """The failures that are named."""
    yield from named("Failures", report.failures)


def named(title: str, found: Iterable[Failure]) -> Iterable[str]:
    """Keys with what was wrong, under a title if there are any."""
    for number, failure in enumerate(found):
        if not number:
            yield f"\n{title}:"
        yield f"- {failure.key} [{failure.op}]: {failure.cause}"
