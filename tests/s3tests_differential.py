"""Ceph's s3-tests twice: on the backend direct, and through the gateway in front of another one.

    python -m tests.s3tests_differential PATH [--group NAME] [--only TEST] [--https] [--keep]
                                        [--direct FILE] [--report FILE]

PATH is a checkout of https://github.com/ceph/s3-tests; it is not part of this project. What counts
is the difference: a test that the backend passes and the gateway fails is a promise broken, unless
it is one of the exceptions that are listed with their reasons, and any such test makes the exit
status 1. What the backend itself fails says nothing about the gateway; it is counted.

Rule: nothing is dropped in silence. Every test of every file of the suite belongs to a group
(tests/s3tests_groups.py), all groups run unless some are named, and a row is printed for each.
The suite runs in a virtual environment of its own beside the checkout.
"""

import argparse
import configparser
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests import live
from tests.s3tests_groups import GROUPS, group_of
from tests.s3tests_outcomes import (
    NOT_RUN,
    Results,
    print_counts,
    print_difference,
    read_report,
    read_results,
    say,
    short_name,
    write_report,
    write_results,
)

SUITE: Final = "s3tests/functional"
TEST_SECONDS: Final = 60  # of one test; the slowest that passes on either side takes about 20
USERS: Final = ("s3 main", "s3 alt", "s3 tenant", "iam", "iam root", "iam alt root")

# Over https boto3 itself leaves the header out that this test wants to be refused.
CLEARTEXT_ONLY: Final = ("test_object_create_bad_contentlength_empty",)


@dataclass(frozen=True, slots=True)
class User:
    """A user of the suite, known to the backend and to the gateway by the same key pair."""

    section: str
    user_id: str
    access_key: str
    secret: str = field(repr=False)

    @property
    def email(self) -> str:
        return f"{self.user_id}@example.com"

    @classmethod
    def create(cls, section: str) -> "User":
        name = "".join(word.capitalize() for word in section.split())
        return cls(section, name, "S4TEST" + secrets.token_hex(7).upper(), secrets.token_hex(20))


class Suite:
    """A checkout of s3-tests and the interpreter it runs with."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout.resolve()
        if not (self.checkout / SUITE / "test_s3.py").is_file():
            raise SystemExit(f"{checkout} is no checkout of s3-tests: no {SUITE}/test_s3.py")
        self._environment = self.checkout.with_name(self.checkout.name + "-venv")
        self._python = self._environment / "bin" / "python"

    def install(self) -> None:
        """Make the virtual environment, once."""
        stamp = self._environment / ".installed"
        if stamp.exists():
            return
        say(f"installing the suite's requirements into {self._environment}")
        subprocess.run([sys.executable, "-m", "venv", self._environment], check=True)
        pip = [str(self._python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        requirements = self.checkout / "requirements.txt"
        subprocess.run([*pip, "-r", str(requirements), "pytest-timeout"], check=True)
        stamp.touch()

    def collect(self, configuration: Path) -> list[str]:
        """Return the node ids of all tests."""
        done = self._pytest(configuration, "--collect-only", "-q", SUITE)
        if done.returncode != 0:
            raise SystemExit(f"pytest cannot collect the suite:\n{done.stdout[-4000:]}")
        found = (line for line in done.stdout.splitlines() if "::" in line)
        return list(dict.fromkeys(found))

    def run(self, configuration: Path, tests: Sequence[str], report: Path) -> Results:
        """Run tests one after the other; a test that takes too long fails."""
        chosen = report.with_suffix(".tests")
        chosen.write_text("\n".join(tests))
        started = time.monotonic()
        limits = (f"--timeout={TEST_SECONDS}", "-p", "no:randomly", "-p", "no:xdist")
        done = self._pytest(configuration, "-q", *limits, f"--junitxml={report}", f"@{chosen}")
        report.with_suffix(".log").write_text(done.stdout)
        if not report.exists():
            raise SystemExit(f"pytest wrote no report:\n{done.stdout[-4000:]}")
        results = read_report(report)
        say(f"  {len(tests)} tests in {time.monotonic() - started:.0f} s")
        return {test: results.get(short_name(test), NOT_RUN) for test in tests}

    def _pytest(self, configuration: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._python, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            check=False,
            cwd=self.checkout,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "LC_ALL": "C.UTF-8",
                "PYTHONDONTWRITEBYTECODE": "1",
                "S3TEST_CONF": str(configuration),
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_DEFAULT_REGION": live.REGION,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextlib.contextmanager
def backend(folder: Path, users: Iterable[User]) -> Iterator[live.Seaweedfs]:
    """A SeaweedFS with nothing in it that knows every user as an account of its own."""
    folder.mkdir()
    owner = User.create("gateway")
    document = {
        "identities": [_identity(user) for user in (owner, *users)],
        "accounts": [_account(user) for user in users],
    }
    keys = folder / "s3.json"
    keys.touch(0o600)
    keys.write_text(json.dumps(document, indent=2))
    with live.seaweedfs(folder) as server:
        yield server


def _identity(user: User) -> dict[str, object]:
    """Only what ACLs and policies grant is open to alt: the one who must be kept out of things."""
    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    identity: dict[str, object] = {
        "name": user.user_id,
        "credentials": [{"accessKey": user.access_key, "secretKey": user.secret}],
        "actions": [] if user.section == "s3 alt" else everything,
    }
    return identity if user.section == "gateway" else identity | {"account": _account(user)}


def _account(user: User) -> dict[str, str]:
    return {"id": user.user_id, "displayName": user.user_id, "emailAddress": user.email}


@contextlib.contextmanager
def gateway(
    folder: Path, server: live.Seaweedfs, users: Iterable[User], tls: live.Tls | None
) -> Iterator[live.Gateway]:
    """The gateway as one would run it to keep the backend's own access rules in force."""
    tables = [
        f'[keys.{user.access_key}]\nsecret = "{user.secret}"\nbackend = "own"\n' for user in users
    ]
    credentials = folder / "credentials.toml"
    credentials.touch(0o600)
    credentials.write_text("\n".join(tables))
    flags = ("--credentials", str(credentials), "--anonymous", "backend")
    with live.gateway(server, folder, *flags, tls=tls) as running:
        yield running


def write_configuration(
    path: Path, port: int, users: Iterable[User], *, secure: bool = False
) -> Path:
    """Write what the suite reads from S3TEST_CONF."""
    document = configparser.RawConfigParser()
    document["DEFAULT"] = {
        "host": "127.0.0.1",
        "port": str(port),
        "is_secure": str(secure),
        "ssl_verify": "False",
    }
    document["fixtures"] = {"bucket prefix": "s3t-{random}-"}
    for user in users:
        document[user.section] = {
            "display_name": user.user_id,
            "user_id": user.user_id,
            "email": user.email,
            "api_name": "",
            "access_key": user.access_key,
            "secret_key": user.secret,
            "tenant": "",
            "lc_debug_interval": "1",  # of Ceph, which can shorten a day; others need no wait
        }
    with path.open("w") as file:
        document.write(file)
    return path


def differential(
    suite: Suite, tests: Sequence[str], folder: Path, *, https: bool, known: Results
) -> tuple[Results, Results]:
    """Run the tests on both sides, each with a backend of its own; direct only those not known."""
    users = [User.create(section) for section in USERS]
    direct = {test: known[test] for test in tests if test in known}
    if left := [test for test in tests if test not in known]:
        say("direct: SeaweedFS")
        with backend(folder / "direct", users) as server:
            configuration = write_configuration(folder / "direct.conf", server.port, users)
            direct |= suite.run(configuration, left, folder / "direct.xml")
    say("through the gateway")
    tls = live.issue_tls(folder) if https else None
    with (
        backend(folder / "behind", users) as server,
        gateway(folder, server, users, tls) as running,
    ):
        target = folder / "gateway.conf"
        configuration = write_configuration(target, running.port, users, secure=https)
        through = suite.run(configuration, tests, folder / "gateway.xml")
    return direct, through


def chosen_tests(
    everything: Sequence[str], groups: Sequence[str], only: Sequence[str]
) -> list[str]:
    """Select by test name, else by group; raises SystemExit when nothing is left."""
    if only:
        chosen = [test for test in everything if test.partition("::")[2] in only]
    else:
        chosen = [test for test in everything if group_of(test) in (groups or GROUPS)]
    if not chosen:
        raise SystemExit(f"no such test; groups are {', '.join(GROUPS)}")
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Run; exit status 1 when the gateway loses a test."""
    parser = argparse.ArgumentParser(prog="python -m tests.s3tests_differential")
    parser.add_argument("path", type=Path, help="checkout of ceph/s3-tests")
    parser.add_argument("--group", action="append", default=[], help="only this group; repeatable")
    parser.add_argument("--only", action="append", default=[], help="only this test; repeatable")
    parser.add_argument("--https", action="store_true", help="the gateway speaks TLS")
    parser.add_argument("--keep", action="store_true", help="keep logs, reports and data")
    parser.add_argument("--direct", type=Path, help="keep direct outcomes here, and use them again")
    parser.add_argument("--report", type=Path, help="write one line for each test here")
    arguments = parser.parse_args(argv)
    suite = Suite(arguments.path)
    suite.install()
    folder = Path(tempfile.mkdtemp(prefix="s3tests-"))
    try:
        users = [User.create(section) for section in USERS]
        everything = suite.collect(write_configuration(folder / "collect.conf", 1, users))
        tests = chosen_tests(everything, arguments.group, arguments.only)
        if arguments.https:
            tests = [test for test in tests if not test.endswith(CLEARTEXT_ONLY)]
            say(f"left out, for plain http only: {', '.join(CLEARTEXT_ONLY)}")
        known = read_results(arguments.direct)
        direct, through = differential(suite, tests, folder, https=arguments.https, known=known)
        if arguments.direct:
            write_results(arguments.direct, known | direct)
        if arguments.report:
            write_report(arguments.report, direct, through)
        print_counts(direct, through)
        return 1 if print_difference(direct, through) else 0
    finally:
        if arguments.keep:
            say(f"\nkept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
