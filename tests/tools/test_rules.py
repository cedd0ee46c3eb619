"""Policies: what a right one means, and everything that is wrong with a wrong one at once."""

import itertools
from datetime import timedelta
from pathlib import Path

import pytest

from s4gateway.tools import rules
from s4gateway.tools.rules import (
    Collecting,
    Migrating,
    PolicyError,
    PolicyInvalid,
    PolicyParse,
    PolicyRead,
    Recompacting,
    Rule,
    Transitioning,
)
from s4gateway.tools.target import Target

EVERYTHING = """
[[rule]]
name = "new"
bucket = "logs"
prefix = "app/"
action = "migrate"
older-than = "7d"
no-tags = true
noncurrent-ok = true
concurrency = 9
max-objects = 100000
max-body-bytes = 1048576

[[rule]]
name = "old"
bucket = "logs"
action = "recompact"
target-zstd-level = 12
min-gain-percent = 5
assume-unstamped-framed = true
state-file = "/var/lib/s4/recompact"

[[rule]]
name = "cold"
bucket = "logs"
prefix = ""
action = "transition"
older-than = "36h"
storage-class = "GLACIER_IR"
concurrency = 2

[[rule]]
name = "forgotten"
bucket = "logs"
action = "mpu-state-gc"
older-than = "2d"
"""

MISTAKES = """
version = 1
rules = "a table of another name"

[[rule]]
bucket = "b"
action = "migrate"

[[rule]]
name = ""
bucket = "b"
action = "migrate"

[[rule]]
name = "once"
bucket = ""
action = "migrate"

[[rule]]
name = "once"
bucket = "b"
action = "migrate"

[[rule]]
name = "no-action"
bucket = "b"

[[rule]]
name = "odd"
bucket = "b/with-a-prefix"
action = "Migrate"
older-than = "1.5h"
colour = "blue"

[[rule]]
name = "mixed"
bucket = "b"
action = "migrate"
storage-class = "GLACIER"
target-zstd-level = 3
older_than = "7d"
concurrency = 0
max-objects = 0
max-body-bytes = -1
no-tags = "yes"

[[rule]]
name = "recompact"
bucket = "b"
action = "recompact"
target-zstd-level = 23
min-gain-percent = nan
state-file = ""

[[rule]]
name = "cold"
bucket = "b"
prefix = 7
action = "transition"
concurrency = 2.0

[[rule]]
name = "colder"
bucket = "b"
action = "transition"
storage-class = "glacier_ir"
older-than = "99999999999d"

[[rule]]
name = "forgotten"
bucket = "b"
prefix = "p/"
action = "mpu-state-gc"
older-than = "40000d"
"""

SAID = (
    "unknown key 'version'",
    "unknown key 'rules' (did you mean rule?)",
    "rule #1: name is missing",
    "rule #2: name is empty",
    "rule 'once': bucket is empty",
    "rule #4: the name 'once' is that of rule #3",
    "rule 'no-action': action is missing; give one of migrate, ",
    "rule 'odd': bucket 'b/with-a-prefix' has a slash",
    "rule 'odd': action is unknown: 'Migrate'; give one of migrate, recompact, transition, mpu-",
    "rule 'odd': older-than: '1.5h' is no duration",
    "rule 'odd': unknown key 'colour'",
    "rule 'mixed': 'storage-class' is no key of action migrate",
    "rule 'mixed': 'target-zstd-level' is no key of action migrate",
    "rule 'mixed': unknown key 'older_than' (did you mean older-than?)",
    "rule 'mixed': concurrency is 0, not a number from 1 to 256",
    "rule 'mixed': max-objects is 0, not a number from 1 up",
    "rule 'mixed': max-body-bytes is -1, not a number from 1 up",
    "rule 'mixed': no-tags is neither true nor false",
    "rule 'recompact': target-zstd-level is 23, not a number from 1 to 22",
    "rule 'recompact': min-gain-percent is nan, not a number from 0 to below 100",
    "rule 'recompact': state-file names no file",
    "rule 'cold': prefix is no string",
    "rule 'cold': storage-class is missing; give one of STANDARD, ",
    "rule 'cold': concurrency is no whole number",
    "rule 'colder': storage-class is unknown: 'glacier_ir'; give one of STANDARD, ",
    "rule 'colder': older-than: '99999999999d' is too long a duration",
    "rule 'forgotten': 'prefix' is no key of action mpu-state-gc",
    "rule 'forgotten': older-than '40000d' is more than a hundred years",
)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def refused(path: Path) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        rules.load(path)
    return caught.value


def test_every_key_of_every_action_is_read(policy: Path):
    policy.write_text(EVERYTHING)
    assert rules.load(policy) == (
        Rule(
            "new",
            Target("logs", "app/"),
            "migrate",
            timedelta(days=7),
            Migrating(
                concurrency=9,
                max_objects=100_000,
                max_body_bytes=1_048_576,
                carry_tags=False,
                noncurrent_ok=True,
            ),
        ),
        Rule(
            "old",
            Target("logs"),
            "recompact",
            None,
            Recompacting(
                zstd_level=12,
                min_gain_percent=5.0,
                assume_unstamped_framed=True,
                state_file=Path("/var/lib/s4/recompact"),
            ),
        ),
        Rule(
            "cold",
            Target("logs"),
            "transition",
            timedelta(hours=36),
            Transitioning("GLACIER_IR", concurrency=2),
        ),
        Rule("forgotten", Target("logs"), "mpu-state-gc", timedelta(days=2), Collecting()),
    )


def test_what_is_not_said_has_the_default_of_the_command(policy: Path):
    policy.write_text('[[rule]]\nname = "n"\nbucket = "b"\naction = "recompact"\n')
    (rule,) = rules.load(policy)
    assert rule.how == Recompacting(
        concurrency=4,
        max_objects=None,
        max_body_bytes=None,
        carry_tags=True,
        zstd_level=19,
        min_gain_percent=3.0,
    )


def test_every_mistake_is_told_in_one_pass(policy: Path):
    policy.write_text(MISTAKES)
    error = refused(policy)
    assert isinstance(error, PolicyInvalid)
    unsaid = [said for said in SAID if not any(each.startswith(said) for each in error.problems)]
    assert unsaid == []
    assert len(error.problems) == len(SAID)
    assert f"({len(SAID)} errors)" in error.headline


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no [[rule]]"),
        ("rule = []", "no [[rule]]"),
        ("[rule]\nname = 'n'", "rule is no list of tables"),
        ("rule = ['n']", "rule is no list of tables"),
        ("rule = 7", "rule is no list of tables"),
    ],
)
def test_a_policy_without_rules_is_a_mistake(policy: Path, text: str, said: str):
    policy.write_text(text)
    (problem,) = refused(policy).problems
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b"[[rule]]\nname = \xff", PolicyParse, "not UTF-8"),
        (b"[[rule]\n", PolicyParse, "not TOML"),
        (b"a = " + b"[" * 100_000, PolicyParse, "not TOML"),
        (b"a = " + b"9" * 100_000, PolicyParse, "not TOML"),
        (b"#" * (rules.MAX_FILE + 1), PolicyRead, "larger than"),
    ],
)
def test_what_is_no_policy_at_all_is_told_in_one_line(
    policy: Path, data: bytes, kind: type[PolicyError], said: str
):
    policy.write_bytes(data)
    error = refused(policy)
    assert type(error) is kind
    assert said in str(error)
    assert len(error.problems) == 1


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path):
    for path in (tmp_path / "none.toml", tmp_path):
        assert isinstance(refused(path), PolicyRead)


@pytest.mark.parametrize("key", sorted({key for keys in rules.KEYS.values() for key in keys}))
def test_values_of_any_type_are_judged_and_never_raise(key: str):
    for action, value in itertools.product(rules.KEYS, ["", 0, True, [], {}, 1.5]):
        table = {"name": "n", "bucket": "b", "action": action}
        if action == "transition":
            table["storage-class"] = "STANDARD_IA"
        problems: list[str] = []
        found = rules.parse_table({"rule": [table | {key: value}]}, problems)
        assert bool(found) != bool(problems)


def test_what_a_file_says_never_commands_a_terminal():
    problems: list[str] = []
    rules.parse_table({"\x1b[2J": 1, "rule": [{"name": "\x1b[31m", "x\x07": 1}]}, problems)
    assert problems
    assert all(problem.isprintable() for problem in problems)
