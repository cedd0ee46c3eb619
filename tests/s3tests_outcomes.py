"""What became of the tests of s3-tests: read from reports, kept in files, compared, printed."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element

import defusedxml.ElementTree

from tests.s3tests_groups import EXCEPTIONS, group_of, name_of


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one test; `reason` is one line, empty for one that passed."""

    status: str
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.status == "passed"


NOT_RUN: Final = Outcome("failed", "not run: the test process ended before it")

Results = dict[str, Outcome]


def say(text: str) -> None:
    """Print at once: a run takes minutes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def short_name(test: str) -> str:
    """The file's stem and the test's name, which a report and a node id have in common."""
    path, _, name = test.partition("::")
    return f"{Path(path).stem}::{name}"


def read_report(path: Path) -> Results:
    """Read a JUnit report; a test that passes and then fails to clean up has failed."""
    results: Results = {}
    for case in defusedxml.ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        outcome = _outcome(case)
        if name not in results or results[name].passed:
            results[name] = outcome
    return results


def _outcome(case: Element) -> Outcome:
    for tag, status in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        if (found := case.find(tag)) is not None:
            text = re.sub(r"\s+", " ", found.get("message") or found.text or tag)
            return Outcome(status, text.strip()[:200])
    return Outcome("passed")


def read_results(path: Path | None) -> Results:
    """Read what an earlier run has found; nothing without a file."""
    if path is None or not path.exists():
        return {}
    return {test: Outcome(*found) for test, found in json.loads(path.read_text()).items()}


def write_results(path: Path, results: Results) -> None:
    """Write outcomes for `read_results`."""
    found = {test: (outcome.status, outcome.reason) for test, outcome in results.items()}
    path.write_text(json.dumps(found, indent=1))


def print_counts(direct: Results, through: Results) -> None:
    """Print one row for each group that ran, and one for all; `n/a` fails on the backend itself."""
    head = ("tests", "n/a", "direct", "gateway", "lost", "excepted", "gained")
    say("\n" + f"{'group':<20}" + "".join(f"{name:>9}" for name in head))
    total = [0] * len(head)
    for group in dict.fromkeys(map(group_of, direct)):
        tests = [test for test in direct if group_of(test) == group]
        passed = sum(direct[test].passed for test in tests)
        survived = sum(through[test].passed for test in tests)
        lost = lost_tests(direct, through, group)
        excepted = sum(name_of(test) in EXCEPTIONS for test in lost)
        gained = survived - passed + len(lost)
        row = [len(tests), len(tests) - passed, passed, survived]
        row += [len(lost) - excepted, excepted, gained]
        total = [sum(pair) for pair in zip(total, row, strict=True)]
        say(f"{group:<20}" + "".join(f"{count:>9}" for count in row))
    say(f"{'all':<20}" + "".join(f"{count:>9}" for count in total))


def write_report(path: Path, direct: Results, through: Results) -> None:
    """Write one line for each test: group, test, direct, gateway, why; separated by tabs."""
    lines = ["group\ttest\tdirect\tgateway\treason"]
    for test, outcome in direct.items():
        found = through[test]
        reason = EXCEPTIONS.get(name_of(test), "") or found.reason or outcome.reason
        row = (group_of(test), short_name(test), outcome.status, found.status, reason)
        lines.append("\t".join(row))
    path.write_text("\n".join([*lines, ""]))


def lost_tests(direct: Results, through: Results, group: str | None = None) -> list[str]:
    """Tests that pass direct and not through the gateway."""
    return [
        test
        for test, outcome in direct.items()
        if outcome.passed and not through[test].passed and group in {None, group_of(test)}
    ]


def print_difference(direct: Results, through: Results) -> int:
    """Print each lost test with its reason; return how many are no exception."""
    lost = lost_tests(direct, through)
    broken = [test for test in lost if name_of(test) not in EXCEPTIONS]
    say(f"\npass direct and fail through the gateway: {len(broken)}")
    for test in broken:
        say(f"  [{group_of(test)}] {short_name(test)}\n      {through[test].reason}")
    for test in lost:
        if test not in broken:
            say(f"  excepted: {short_name(test)}\n      {EXCEPTIONS[name_of(test)]}")
    for test in direct:
        if name_of(test) in EXCEPTIONS and test not in lost:
            say(f"  an exception no longer needed: {short_name(test)}")
    return len(broken)
