"""Ceph's s3-tests twice: on the backend direct, and through the gateway in front of another one.

    python -m tests.s3tests_differential PATH [--group NAME] [--only TEST] [--https] [--keep]

PATH is a checkout of https://github.com/ceph/s3-tests; it is not part of this project. What counts
is the difference: a test that the backend passes and the gateway fails is a promise broken, and any
such test makes the exit status 1. What the backend itself fails says nothing about the gateway.

Rule: every test of the suite belongs to a group by the one table below. Groups that this version
leaves out are printed with their size, and so are tests that no row of the table knows; nothing is
dropped in silence. The suite runs in a virtual environment of its own beside the checkout.
"""

import argparse
import configparser
import contextlib
import fnmatch
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element

import defusedxml.ElementTree

from tests import live

SUITE: Final = ("s3tests/functional/test_s3.py", "s3tests/functional/test_headers.py")
TEST_SECONDS: Final = 60  # of one test; the slowest that passes on either side takes about 20
USERS: Final = ("s3 main", "s3 alt", "s3 tenant", "iam", "iam root", "iam alt root")

# Over https boto3 itself leaves the header out that this test wants to be refused.
CLEARTEXT_ONLY: Final = ("test_object_create_bad_contentlength_empty",)

UNKNOWN: Final = "unknown"
GROUPS: Final = (
    *("single-object", "listing", "header", "authentication"),
    *("forwarded", "versioning", "object lock", "encryption"),
)

# The first row with a pattern that fits decides. Groups not in GROUPS are out of scope.
TABLE: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("single-object", ("test_non_multipart_get_part",)),
    ("post object", ("*post_object*",)),
    ("multipart", ("*multipart*", "*upload_part*", "test_bucket_logging_mpu*")),
    ("copy", ("*copy*",)),
    ("object attributes", ("*object_attributes*",)),
    # Signature Version 2 in the Authorization header; presigned URLs of it are in scope.
    ("signature v2", ("*_aws2",)),
    ("select, torrent", ("*select*", "*torrent*")),
    ("logging", ("*bucket_logging*",)),
    ("encryption", ("test_encrypt*", "*sse_*", "*_enc_*", "*_enc", "*noenc", "*_kms*")),
    ("lifecycle", ("test_lifecycle*", "test_restore_*", "test_read_through")),
    ("object lock", ("test_object_lock_*",)),
    (
        "versioning",
        (
            "test_versioning_*",
            "test_versioned_*",
            "*_version_*",
            "*_versioning",
            "*_current_*",
            "test_delete_marker_*",
        ),
    ),
    (
        "authentication",
        (
            "*authorization*",
            "*_bad_date_*",
            "*_amz_date*",
            "*_presigned_*",
            "*anonymous*",
            "*_auth",
            "test_object_raw_*",
            "test_object_anon_*",
            "test_object_put_authenticated",
            "test_access_bucket_*",
        ),
    ),
    (
        "header",
        (
            "test_object_create_*",
            "test_bucket_create_bad_*",
            "test_bucket_create_contentlength_none",
            "test_object_acl_create_contentlength_none",
            "test_bucket_put_bad_canned_acl",
            "test_100_continue*",
            "test_object_content_encoding_aws_chunked",
            "test_object_write_with_chunked_transfer_encoding",
            "test_object_requestid_matches_header_on_error",
            "test_expected_bucket_owner",
        ),
    ),
    (
        "listing",
        (
            "test_bucket_list_*",
            "test_bucket_listv2_*",
            "test_bucket_notexist",
            "test_bucketv2_notexist",
            "test_basic_key_count",
            "test_bucket_create_special_key_names",
            "test_buckets_*",
            "test_list_buckets_*",
        ),
    ),
    ("forwarded", ("*_acl", "*_acl_*", "*_acls", "*policy*", "*_tags*", "*_tagging*")),
    (
        "single-object",
        (
            "test_object_*",
            "test_multi_object*",
            "test_get_object_*",
            "test_put_object_*",
            "test_head_object_*",
            "test_delete_object_*",
            "test_delete_objects_*",
            "test_atomic_*",
            "test_ranged_*",
        ),
    ),
    (
        "forwarded",
        (
            "test_bucket_*",
            "test_bucketv2_*",
            "test_create_bucket_*",
            "test_put_bucket_*",
            "test_get_bucket_*",
            "test_delete_bucket_*",
            "test_head_bucket_*",
            "test_set_cors",
            "test_cors_*",
            "test_block_public_*",
            "test_*_public_block*",
            "test_account_usage",
        ),
    ),
)


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


def group_of(test: str) -> str:
    """Return the group of a test, by its name without parameters."""
    name = test.rpartition("::")[2].partition("[")[0]
    for group, patterns in TABLE:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return group
    return UNKNOWN


class Suite:
    """A checkout of s3-tests and the interpreter it runs with."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout.resolve()
        missing = [name for name in SUITE if not (self.checkout / name).is_file()]
        if missing:
            raise SystemExit(f"{checkout} is no checkout of s3-tests: no {missing[0]}")
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
        done = self._pytest(configuration, "--collect-only", "-q", *SUITE)
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
        return {test: results.get(_short(test), NOT_RUN) for test in tests}

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


def _short(test: str) -> str:
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
        }
    with path.open("w") as file:
        document.write(file)
    return path


def differential(
    suite: Suite, tests: Sequence[str], folder: Path, *, https: bool
) -> tuple[Results, Results]:
    """Run the tests on both sides, each with a backend of its own."""
    users = [User.create(section) for section in USERS]
    say("direct: SeaweedFS")
    with backend(folder / "direct", users) as server:
        configuration = write_configuration(folder / "direct.conf", server.port, users)
        direct = suite.run(configuration, tests, folder / "direct.xml")
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


def print_counts(direct: Results, through: Results, everything: Sequence[str]) -> None:
    """Print one row for each group that ran, and one line for those that did not."""
    say(f"\n{'group':<20}{'tests':>7}{'direct':>9}{'gateway':>9}{'lost':>7}{'gained':>8}")
    ran = Counter(map(group_of, direct))
    for group, count in ran.items():
        tests = [test for test in direct if group_of(test) == group]
        passed = sum(direct[test].passed for test in tests)
        survived = sum(through[test].passed for test in tests)
        lost = len(lost_tests(direct, through, group))
        gained = survived - passed + lost
        say(f"{group:<20}{count:>7}{passed:>9}{survived:>9}{lost:>7}{gained:>8}")
    left_out = Counter(group_of(test) for test in everything if group_of(test) not in GROUPS)
    unknown = left_out.pop(UNKNOWN, 0)
    say("\nout of scope: " + ", ".join(f"{name} {n}" for name, n in left_out.items()))
    say(f"in no row of the table: {unknown}")
    for test in everything:
        if group_of(test) == UNKNOWN:
            say(f"  {_short(test)}")


def lost_tests(direct: Results, through: Results, group: str | None = None) -> list[str]:
    """Tests that pass direct and not through the gateway."""
    return [
        test
        for test, outcome in direct.items()
        if outcome.passed and not through[test].passed and group in {None, group_of(test)}
    ]


def print_difference(direct: Results, through: Results) -> int:
    """Print each lost test with its reason; return how many there are."""
    lost = lost_tests(direct, through)
    say(f"\npass direct and fail through the gateway: {len(lost)}")
    for test in lost:
        say(f"  [{group_of(test)}] {_short(test)}\n      {through[test].reason}")
    return len(lost)


def chosen_tests(
    everything: Sequence[str], groups: Sequence[str], only: Sequence[str]
) -> list[str]:
    """Select by test name, else by group; raises SystemExit when nothing is left."""
    if only:
        chosen = [test for test in everything if test.partition("::")[2] in only]
    else:
        chosen = [test for test in everything if group_of(test) in (groups or GROUPS)]
    if not chosen:
        known = ", ".join(sorted({group_of(test) for test in everything}))
        raise SystemExit(f"no such test; groups are {known}")
    return chosen


def say(text: str) -> None:
    """Print at once: a run takes minutes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run; exit status 1 when the gateway loses a test."""
    parser = argparse.ArgumentParser(prog="python -m tests.s3tests_differential")
    parser.add_argument("path", type=Path, help="checkout of ceph/s3-tests")
    parser.add_argument("--group", action="append", default=[], help="only this group; repeatable")
    parser.add_argument("--only", action="append", default=[], help="only this test; repeatable")
    parser.add_argument("--https", action="store_true", help="the gateway speaks TLS")
    parser.add_argument("--keep", action="store_true", help="keep logs, reports and data")
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
        direct, through = differential(suite, tests, folder, https=arguments.https)
        print_counts(direct, through, everything)
        return 1 if print_difference(direct, through) else 0
    finally:
        if arguments.keep:
            say(f"\nkept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
