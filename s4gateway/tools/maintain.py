"""The rules of a policy carried out one after the other, once.

Rule: strictly in order, and every rule is tried: what a rule does may depend on what the one before
it did, never on whether that one failed. A run that is told to stop finishes the rule in flight,
begins no other, and says which were left out.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from s4gateway.backend.base import Backend, BackendError
from s4gateway.state.files import StateFileError
from s4gateway.tools import migrate, recompact, transition, upload_gc
from s4gateway.tools.migrate import MigrateParams, MigrateReport
from s4gateway.tools.objects import Making
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.recompact import RecompactParams, RecompactReport
from s4gateway.tools.rewrite_order import RewriteRefused
from s4gateway.tools.rules import (
    COLLECTED_AFTER,
    Migrating,
    Recompacting,
    Rule,
    Transitioning,
)
from s4gateway.tools.transition_report import TransitionParams, TransitionReport
from s4gateway.tools.upload_gc import UploadGcReport

ActionReport = MigrateReport | RecompactReport | TransitionReport | UploadGcReport

_DRY_RUN: Final = (
    "a dry run: no rule sees what the rules before it would have done; pass --execute to write"
)

_log = logging.getLogger("s4.maintain")


@dataclass(frozen=True, slots=True)
class Done:
    """A rule that was carried out; objects it failed on are in its report. `result`: its action."""

    result: str
    report: ActionReport

    @property
    def failed(self) -> bool:
        """Whether anything failed."""
        return self.report.failed > 0


@dataclass(frozen=True, slots=True)
class MigrateDone(Done):
    """The same, with what the rule's age kept back of the objects listed."""

    skipped_too_recent: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A rule that could not be carried out. `result` is "error"."""

    result: str
    message: str

    @property
    def failed(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, slots=True)
class RuleRun:
    """What became of one rule."""

    name: str
    bucket: str
    prefix: str
    action: str
    older_than_secs: int | None
    outcome: Done | Failed


@dataclass(frozen=True, slots=True)
class MaintainReport:
    """What became of a policy; `interrupted`: told to stop, so that not all rules were run."""

    dry_run: bool
    rules_total: int
    rules_run: int
    rules_failed: int
    interrupted: bool
    rules: tuple[RuleRun, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """What holds for all rules of a run.

    `making` is how objects are read and written, `ledger_file` the savings ledger that counts them.
    """

    making: Making
    execute: bool = False
    ledger_file: Path | None = None


def _nobody(_: RuleRun) -> None:
    """Nobody wants to be told of single rules."""


async def run_rules(
    backend: Backend,
    rules: Sequence[Rule],
    setting: Setting,
    stop: asyncio.Event,
    progress: Progress = SILENT,
    *,
    tell: Callable[[RuleRun], None] = _nobody,
) -> MaintainReport:
    """Carry out the rules in order until `stop` is set; `tell` hears of each as it ends.

    No failure of a rule is raised.
    """
    runs: list[RuleRun] = []
    for rule in rules:
        if stop.is_set():
            break
        outcome = await _outcome(backend, rule, setting, progress)
        runs.append(_ran(rule, outcome))
        tell(runs[-1])
    left = [rule.name for rule in rules[len(runs) :]]
    notes = [] if setting.execute else [_DRY_RUN]
    if left:
        notes.append(f"told to stop; not run: {', '.join(left)}")
    return MaintainReport(
        dry_run=not setting.execute,
        rules_total=len(rules),
        rules_run=len(runs),
        rules_failed=sum(run.outcome.failed for run in runs),
        interrupted=bool(left),
        rules=tuple(runs),
        notes=tuple(notes),
    )


def _ran(rule: Rule, outcome: Done | Failed) -> RuleRun:
    age = None if rule.older_than is None else int(rule.older_than.total_seconds())
    return RuleRun(rule.name, rule.target.bucket, rule.target.prefix, rule.action, age, outcome)


async def _outcome(
    backend: Backend, rule: Rule, setting: Setting, progress: Progress
) -> Done | Failed:
    try:
        report = await _carry_out(backend, rule, setting, progress)
    except (BackendError, RewriteRefused, StateFileError) as error:
        return Failed("error", str(error))
    except Exception as error:
        # What a rule meets must not keep the rules after it from being run, whatever it is.
        _log.debug("unexpected", exc_info=True)
        return Failed("error", f"{type(error).__name__}: {error}")
    if isinstance(report, MigrateReport):
        return MigrateDone(rule.action, report, report.skipped_too_recent)
    return Done(rule.action, report)


async def _carry_out(
    backend: Backend, rule: Rule, setting: Setting, progress: Progress
) -> ActionReport:
    match rule.how:
        case Migrating():
            return await migrate.migrate(backend, _migrate(rule, rule.how, setting), progress)
        case Recompacting():
            return await recompact.recompact(backend, _recompact(rule, rule.how, setting), progress)
        case Transitioning(storage_class, concurrency):
            params = TransitionParams(
                target=rule.target,
                storage_class=storage_class,
                execute=setting.execute,
                older_than=rule.older_than,
                concurrency=concurrency,
            )
            return await transition.transition(backend, params, progress)
        case _:
            return await upload_gc.collect(
                backend,
                rule.target.bucket,
                older_than=COLLECTED_AFTER if rule.older_than is None else rule.older_than,
                execute=setting.execute,
            )


def _migrate(rule: Rule, how: Migrating, setting: Setting) -> MigrateParams:
    return MigrateParams(
        target=rule.target,
        execute=setting.execute,
        concurrency=how.concurrency,
        max_objects=how.max_objects,
        max_body_bytes=how.max_body_bytes,
        older_than=rule.older_than,
        carry_tags=how.carry_tags,
        noncurrent_ok=how.noncurrent_ok,
        ledger_file=setting.ledger_file,
        making=setting.making,
    )


def _recompact(rule: Rule, how: Recompacting, setting: Setting) -> RecompactParams:
    return RecompactParams(
        target=rule.target,
        execute=setting.execute,
        concurrency=how.concurrency,
        max_objects=how.max_objects,
        max_body_bytes=how.max_body_bytes,
        older_than=rule.older_than,
        carry_tags=how.carry_tags,
        noncurrent_ok=how.noncurrent_ok,
        making=setting.making,
        zstd_level=how.zstd_level,
        min_gain_percent=how.min_gain_percent,
        assume_unstamped_framed=how.assume_unstamped_framed,
        state_file=how.state_file,
        ledger_file=setting.ledger_file,
    )
