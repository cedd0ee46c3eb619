"""The policy of `s4 maintain`: a TOML file of rules, and all that is wrong in it in one pass.

    [[rule]]
    name       = "cold-logs"
    bucket     = "prod-logs"
    prefix     = "app/"
    action     = "transition"       # migrate, recompact, transition, mpu-state-gc
    older-than = "30d"
    storage-class = "GLACIER_IR"

Rule: nothing is guessed. A key that the rule's action does not have is a mistake, not a remark: a
misspelt `older-than` would move what was written this morning.

    PolicyError
      PolicyRead     the file cannot be read
      PolicyParse    it is no TOML
      PolicyInvalid  it is, and says what no policy says; `problems` are all of them
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from s4gateway.tools.rule_reading import RuleReading, shown, unknown
from s4gateway.tools.target import Target

MAX_FILE: Final = 256 * 1024  # bytes of a policy
COLLECTED_AFTER: Final = timedelta(days=1)  # since an upload's records were written
STORAGE_CLASSES: Final = (
    "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING",
    "GLACIER", "GLACIER_IR", "DEEP_ARCHIVE", "OUTPOSTS", "SNOW", "EXPRESS_ONEZONE", "FSX_OPENZFS",
    "FSX_ONTAP",
)  # fmt: skip

_TABLE: Final = "rule"
_CONCURRENCY: Final = 256
_COMMON: Final = ("name", "bucket", "action", "older-than")
_REWRITE: Final = (
    *_COMMON, "prefix", "concurrency", "max-objects", "max-body-bytes", "no-tags", "noncurrent-ok",
)  # fmt: skip


class PolicyError(Exception):
    """The policy cannot be used. `problems` are lines for a person."""

    def __init__(self, headline: str, problems: Sequence[str]) -> None:
        super().__init__(f"{headline}: {'; '.join(problems)}")
        self.headline = headline
        self.problems = tuple(problems)


class PolicyRead(PolicyError):
    """The file cannot be read, or is larger than any policy."""


class PolicyParse(PolicyError):
    """The file is not TOML in UTF-8."""


class PolicyInvalid(PolicyError):
    """The file says what no policy says."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        count = f"{len(problems)} error{'' if len(problems) == 1 else 's'}"
        super().__init__(f"invalid maintain policy {path} ({count})", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriting:
    """What migrate and recompact have in common; the meaning is that of the commands' options."""

    concurrency: int = 4
    max_objects: int | None = None
    max_body_bytes: int | None = None
    carry_tags: bool = True
    noncurrent_ok: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrating(Rewriting):
    """`action = "migrate"`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recompacting(Rewriting):
    """`action = "recompact"`."""

    zstd_level: int = 19
    min_gain_percent: float = 3.0
    assume_unstamped_framed: bool = False
    state_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Transitioning:
    """`action = "transition"`."""

    storage_class: str
    concurrency: int = 4


@dataclass(frozen=True, slots=True)
class Collecting:
    """`action = "mpu-state-gc"`."""


Action = Migrating | Recompacting | Transitioning | Collecting

KEYS: Final[Mapping[str, Sequence[str]]] = {
    "migrate": _REWRITE,
    "recompact": (
        *_REWRITE,
        "target-zstd-level",
        "min-gain-percent",
        "assume-unstamped-framed",
        "state-file",
    ),
    "transition": (*_COMMON, "prefix", "concurrency", "storage-class"),
    "mpu-state-gc": _COMMON,
}
"""Every action and the keys a rule of it may have."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `older_than` None takes objects of any age, and uploads after `COLLECTED_AFTER`."""

    name: str
    target: Target
    action: str
    older_than: timedelta | None
    how: Action


def load(path: Path) -> tuple[Rule, ...]:
    """Read a policy file; raises PolicyError with every problem found in it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise PolicyRead(f"cannot read {path}", (error.strerror or str(error),)) from error
    if len(data) > MAX_FILE:
        raise PolicyRead(f"cannot read {path}", (f"larger than {MAX_FILE} bytes",))
    try:
        table = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise PolicyParse(f"{path} is not UTF-8", (f"at byte {error.start}",)) from error
    except (ValueError, RecursionError) as error:
        raise PolicyParse(f"{path} is not TOML", (str(error),)) from error
    problems: list[str] = []
    rules = parse_table(table, problems)
    if problems:
        raise PolicyInvalid(path, problems)
    return rules


def parse_table(table: Mapping[str, Any], problems: list[str]) -> tuple[Rule, ...]:
    """The rules of a policy that are right; what is wrong is added to `problems`.

    >>> problems = []
    >>> parse_table({"rule": [{"bucket": "b", "action": "migrate"}]}, problems)
    ()
    >>> problems
    ['rule #1: name is missing']
    """
    problems += [unknown(key, (_TABLE,)) for key in table if key != _TABLE]
    tables = table.get(_TABLE)
    if tables is None or tables == []:
        problems.append("no [[rule]]: a policy needs at least one")
        return ()
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        problems.append("rule is no list of tables: write [[rule]]")
        return ()
    found: list[Rule] = []
    names: dict[str, int] = {}
    for number, entries in enumerate(tables, start=1):
        reading = RuleReading(entries, number, problems)
        rule = _parse_rule(reading)
        name = reading.name
        if name is not None and (first := names.setdefault(name, number)) != number:
            problems.append(f"rule #{number}: the name {shown(name)} is that of rule #{first}")
        if rule is not None:
            found.append(rule)
    return tuple(found)


def _parse_rule(reading: RuleReading) -> Rule | None:
    """The rule, if nothing in it is wrong."""
    name = reading.text("name", required=True)
    bucket = reading.text("bucket", required=True)
    if bucket is not None and "/" in bucket:
        reading.fail(f"bucket {shown(bucket)} has a slash: give the prefix as prefix")
    action = reading.choice("action", KEYS)
    older_than = reading.duration("older-than")
    every = {key: None for keys in KEYS.values() for key in keys}
    known = every if action is None else dict.fromkeys(KEYS[action])
    reading.refuse_others(known, every, f"action {action}")
    prefix = reading.text("prefix") if "prefix" in known else None
    how = _HOW[action](reading) if action is not None else None
    if reading.failed or name is None or bucket is None or action is None or how is None:
        return None
    return Rule(name, Target(bucket, prefix or ""), action, older_than, how)


def _concurrency(reading: RuleReading) -> int:
    return reading.whole("concurrency", 4, 1, _CONCURRENCY) or 4


def _rewriting(reading: RuleReading) -> dict[str, Any]:
    return {
        "concurrency": _concurrency(reading),
        "max_objects": reading.whole("max-objects", None, 1, None),
        "max_body_bytes": reading.whole("max-body-bytes", None, 1, None),
        "carry_tags": not reading.flag("no-tags"),
        "noncurrent_ok": reading.flag("noncurrent-ok"),
    }


def _migrating(reading: RuleReading) -> Action:
    return Migrating(**_rewriting(reading))


def _recompacting(reading: RuleReading) -> Action:
    return Recompacting(
        **_rewriting(reading),
        zstd_level=reading.whole("target-zstd-level", 19, 1, 22) or 19,
        min_gain_percent=reading.percent("min-gain-percent", 3.0),
        assume_unstamped_framed=reading.flag("assume-unstamped-framed"),
        state_file=reading.path("state-file"),
    )


def _transitioning(reading: RuleReading) -> Action | None:
    concurrency = _concurrency(reading)
    chosen = reading.choice("storage-class", STORAGE_CLASSES)
    return None if chosen is None else Transitioning(chosen, concurrency)


def _collecting(_: RuleReading) -> Action:
    return Collecting()


_HOW: Final = {
    "migrate": _migrating,
    "recompact": _recompacting,
    "transition": _transitioning,
    "mpu-state-gc": _collecting,
}
