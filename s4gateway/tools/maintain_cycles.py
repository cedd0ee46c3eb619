"""A policy carried out again and again by a process that stays: run, log, wait, run.

Rule: nothing that happens in a cycle ends the process but being told to stop, and that never costs
an interval: the wait is for the word to stop, and the interval is only how long it lasts. The
policy is read anew for each cycle; one that is wrong by then is reported and the last good one
kept, because half of an edited file must not decide what is moved.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path

from s4gateway.backend.base import Backend
from s4gateway.tools import rules as policies
from s4gateway.tools.maintain import (
    Done,
    Failed,
    MaintainReport,
    RuleRun,
    Setting,
    run_rules,
)
from s4gateway.tools.rules import PolicyError, Rule

_log = logging.getLogger("s4.maintain")


@dataclass(frozen=True, slots=True)
class Cycles:
    """What is to be done again and again: `policy` is the file, `interval` the pause between."""

    policy: Path
    interval: timedelta
    setting: Setting


async def run_cycles(
    backend: Backend, cycles: Cycles, rules: Sequence[Rule], stop: asyncio.Event
) -> None:
    """Carry out `rules`, then whatever the policy file says by then, until `stop` is set.

    Logs `maintain-cycle`, `rule-complete`, `rule-failed` and `maintain-cycle-complete`.
    """
    number = 0
    while not stop.is_set():
        number += 1
        if number > 1:
            rules = await _reread(cycles.policy, rules)
        await _cycle(backend, cycles, rules, stop, number)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), cycles.interval.total_seconds())
    _say(logging.INFO, "maintain-stopped", cycles=number)


async def _cycle(
    backend: Backend, cycles: Cycles, rules: Sequence[Rule], stop: asyncio.Event, number: int
) -> MaintainReport:
    loop = asyncio.get_running_loop()
    began = loop.time()
    dry_run = not cycles.setting.execute
    _say(logging.INFO, "maintain-cycle", cycle=number, dry_run=dry_run, rules=len(rules))
    report = await run_rules(backend, rules, cycles.setting, stop, tell=_tell)
    _say(
        logging.INFO,
        "maintain-cycle-complete",
        cycle=number,
        seconds=round(loop.time() - began, 3),
        rules_run=report.rules_run,
        rules_failed=report.rules_failed,
        interrupted=report.interrupted,
    )
    return report


async def _reread(path: Path, rules: Sequence[Rule]) -> Sequence[Rule]:
    """The policy as it is by now; `rules` when it cannot be used."""
    try:
        found = await asyncio.to_thread(policies.load, path)
    except PolicyError as error:
        _say(
            logging.ERROR,
            "policy-not-reloaded",
            reason=error.headline,
            problems="; ".join(error.problems),
        )
        return rules
    if found != tuple(rules):
        _say(logging.INFO, "policy-reloaded", rules=len(found))
    return found


def _tell(run: RuleRun) -> None:
    named = {"rule": run.name, "action": run.action, "bucket": run.bucket, "prefix": run.prefix}
    match run.outcome:
        case Failed(_, message):
            _say(logging.ERROR, "rule-failed", **named, error=message)
        case Done() as done:
            level = logging.WARNING if done.failed else logging.INFO
            _say(level, "rule-complete", **named, **_counters(done))


def _counters(done: Done) -> dict[str, int]:
    """All counts of an action's report."""
    report = done.report
    found = {each.name: getattr(report, each.name) for each in fields(report)}
    return {name: value for name, value in found.items() if type(value) is int}


def _say(level: int, event: str, **values: object) -> None:
    _log.log(level, event, extra={"fields": values})
