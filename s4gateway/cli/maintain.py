"""`s4 maintain`: the rules of a policy file, once, or again and again.

exit status   0 done, or told to stop   1 the policy is wrong, or a rule failed (without --interval)
              2 the command line or configuration is wrong
"""

import asyncio
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import click

from s4gateway.backend.base import Backend
from s4gateway.cli import options, progress, render
from s4gateway.cli.rewrite import migrate_table, recompact_table
from s4gateway.gateway import logs
from s4gateway.gateway.config import GatewayConfig
from s4gateway.tools import maintain as tool
from s4gateway.tools import rules as policies
from s4gateway.tools.maintain import (
    ActionReport,
    Done,
    Failed,
    MaintainReport,
    RuleRun,
    Setting,
)
from s4gateway.tools.maintain_cycles import Cycles, run_cycles
from s4gateway.tools.migrate import MigrateReport
from s4gateway.tools.objects import Making
from s4gateway.tools.recompact import RecompactReport
from s4gateway.tools.rules import PolicyError
from s4gateway.tools.target import Target
from s4gateway.tools.transition_report import TransitionReport
from s4gateway.tools.upload_gc import UploadGcReport

_SHORTEST: Final = timedelta(seconds=1)
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@click.command("maintain")
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The rules, in TOML.",
)
@click.option("--execute", is_flag=True, help="Write; otherwise only say what would be written.")
@click.option(
    "--interval",
    type=options.DURATION,
    metavar="DURATION",
    help="Stay, and run again this long after each run, as in 6h; logs instead of printing.",
)
@options.format_option
@options.backend_options(
    "zstd_level",
    "codec_threads",
    "spool_dir",
    "savings_ledger_state_file",
    "log_format",
    "log_level",
)
def maintain(
    *,
    config: GatewayConfig,
    policy: Path,
    execute: bool,
    interval: timedelta | None,
    form: str,
) -> int:
    """Carry out the rules of a policy in their order.

    Actions are migrate, recompact, transition (to another storage class) and mpu-state-gc (what
    forgotten uploads left). Nothing is written without --execute. With --interval the process
    stays, logs each cycle to stderr, and reads the policy anew for each. SIGTERM and SIGINT let the
    rule in flight finish and begin no other; a second one ends the process at once.
    """
    if interval is not None and interval < _SHORTEST:
        raise click.UsageError("--interval: give at least 1s")
    rules = _load(policy)
    setting = Setting(_making(config), execute, config.savings_ledger_state_file)
    if interval is None:

        async def once(backend: Backend) -> MaintainReport:
            with _told_to_stop() as stop, progress.bar("maintain") as shown:
                return await tool.run_rules(backend, rules, setting, stop, shown)

        report = options.run_tool(once, config)
        render.emit(report, form, _table)
        return 1 if report.rules_failed else 0

    logs.configure(config.log_format, config.log_level)
    cycles = Cycles(policy, interval, setting)

    async def stay(backend: Backend) -> None:
        with _told_to_stop() as stop:
            await run_cycles(backend, cycles, rules, stop)

    options.run_tool(stay, config)
    return 0


def _load(policy: Path) -> tuple[policies.Rule, ...]:
    try:
        return policies.load(policy)
    except PolicyError as error:
        lines = [f"{error.headline}:", *(f"- {problem}" for problem in error.problems)]
        raise click.ClickException("\n".join(map(render.visible, lines))) from error


def _making(config: GatewayConfig) -> Making:
    return Making(
        threads=config.codec_threads,
        zstd_level=config.zstd_level,
        spool=config.spool_dir,
        conditional_writes=config.backend_profile.conditional_writes,
    )


@contextmanager
def _told_to_stop() -> Iterator[asyncio.Event]:
    """An event that the first signal sets; the second one does what it does to any process."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def release() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    def told() -> None:
        stop.set()
        release()

    for number in _SIGNALS:
        loop.add_signal_handler(number, told)
    try:
        yield stop
    finally:
        release()


def _table(report: MaintainReport) -> Iterable[str]:
    mode = "dry-run (pass --execute to write)" if report.dry_run else "execute"
    yield f"S4 maintain — {mode}"
    yield f"rules: {report.rules_total} ({report.rules_run} run, {report.rules_failed} failed)"
    for run in report.rules:
        yield ""
        yield f'=== rule "{run.name}" — {run.action} {Target(run.bucket, run.prefix)} ==='
        yield from _outcome(run)


def _outcome(run: RuleRun) -> Iterator[str]:
    match run.outcome:
        case Failed(_, message):
            yield f"error: {message}"
        case Done(_, report):
            yield from _lines(report)
            yield from (f"note: {note}" for note in report.notes)


def _lines(report: ActionReport) -> Iterable[str]:
    """The table of the rule's action."""
    match report:
        case MigrateReport():
            return migrate_table(report)
        case RecompactReport():
            return recompact_table(report)
        case TransitionReport():
            return _transitioned(report)
        case _:
            return _collected(report)


def _transitioned(report: TransitionReport) -> Iterator[str]:
    age = report.older_than_secs
    older = "" if age is None else f"   older than: {timedelta(seconds=age)}"
    yield f"target storage class: {report.storage_class}{older}"
    size = report.total_bytes
    yield f"objects: {report.total_objects}   total: {render.human_bytes(size)} ({size} bytes)"
    done = "would transition" if report.dry_run else "transitioned"
    anew = f" ({report.rebound_sidecars} bound anew)" if report.rebound_sidecars else ""
    moved = render.human_bytes(report.transitioned_bytes)
    yield (
        f"{done}: {report.transitioned} objects, {moved},"
        f" + {report.transitioned_sidecars} sidecars{anew}"
    )
    yield f"skipped: {_skipped(report)}"
    yield f"failed: {report.failed}"
    for failure in report.failures:
        yield f"- {failure.key} [{failure.op}]: {failure.cause}"


def _collected(report: UploadGcReport) -> Iterator[str]:
    yield f"older than: {timedelta(seconds=report.older_than_secs)}"
    yield f"records: {report.records_listed}   live uploads: {report.live_uploads}"
    done = "would delete" if report.dry_run else "deleted"
    completions = report.completion_records
    yield f"{done}: {report.deleted} of {report.orphaned} orphaned, {completions} of completions"
    yield f"skipped: {_skipped(report)}"
    yield f"failed: {report.failed}"
    for key in report.phantom_committed_keys:
        yield f"- {key}: completed without its index"


def _skipped(report: TransitionReport | UploadGcReport) -> str:
    return ", ".join(
        f"{name.removeprefix('skipped_').replace('_', '-')} {count}"
        for name, count in render.as_json(report).items()
        if name.startswith("skipped_")
    )
