"""What a tool's run takes of memory over a bucket of 200,000 keys, told by the kernel."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import live
from tests.e2e import wide_store
from tests.e2e.wide_store import BUCKET, Holding

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
LIMIT = 300 * MIB
OBJECTS = 200_000
# `s4`, and at its end the most memory its process ever had, in KiB, into the file named first.
MEASURED = """
import atexit, pathlib, sys
from s4gateway.cli.main import main

def tell(place=pathlib.Path(sys.argv.pop(1))):
    status = pathlib.Path("/proc/self/status").read_text()
    place.write_text(status.partition("VmHWM:")[2].split()[0])

atexit.register(tell)
main()
"""


@dataclass(frozen=True, slots=True)
class Run:
    """The report of a command, and the peak of its resident memory in bytes."""

    report: dict[str, Any]
    peak: int


def measured(store: live.Endpoint, folder: Path, *arguments: str) -> Run:
    peak = folder / "peak"
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(peak), *arguments, "--format", "json"],
        capture_output=True,
        timeout=1800,
        check=False,
        cwd=folder,
        env=live.environment(folder)
        | {
            "AWS_ACCESS_KEY_ID": store.access_key,
            "AWS_SECRET_ACCESS_KEY": store.secret_key,
            "S4_ENDPOINT_URL": store.endpoint_url,
        },
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return Run(json.loads(done.stdout), int(peak.read_text()) * 1024)


POLICY = """
[[rule]]
name = "compress"
bucket = "{bucket}"
action = "migrate"
[[rule]]
name = "squeeze"
bucket = "{bucket}"
action = "recompact"
[[rule]]
name = "cool"
bucket = "{bucket}"
action = "transition"
storage-class = "GLACIER_IR"
[[rule]]
name = "clean"
bucket = "{bucket}"
action = "mpu-state-gc"
"""


def run(holding: Holding, folder: Path, *arguments: str) -> dict[str, Any]:
    """The report of a run that stayed within its memory."""
    with wide_store.serving(holding) as store:
        found = measured(store, folder, *arguments)
    assert found.peak < LIMIT, found.peak / MIB
    return found.report


def test_estimate_of_200_000_keys(tmp_path: Path):
    holding = Holding(OBJECTS, every=100)
    report = run(holding, tmp_path, "estimate", BUCKET, "--max-list-keys", str(OBJECTS))
    assert (report["total_objects"], report["listing_truncated"]) == (OBJECTS, False)


@pytest.mark.huge
@pytest.mark.parametrize(
    ("command", "counted"),
    [
        (("migrate", BUCKET, "--concurrency", "32"), "total_objects"),
        (("recompact", BUCKET, "--concurrency", "32"), "skipped_not_s4"),
        (("verify", BUCKET, "--concurrency", "32"), "objects"),
        (("savings", "--rescan", BUCKET), "unaccounted_objects"),
    ],
)
def test_a_look_at_each_of_200_000_objects(tmp_path: Path, command: tuple[str, ...], counted: str):
    assert run(Holding(OBJECTS), tmp_path, *command)[counted] == OBJECTS


@pytest.mark.huge
def test_a_policy_of_every_action_over_200_000_keys(tmp_path: Path):
    """Most objects are empty, which is all that is to be known of them."""
    report = maintained(Holding(OBJECTS, every=1000), tmp_path)
    assert [each["report"].get("total_objects") for each in report] == [*[OBJECTS] * 3, None]


@pytest.mark.huge
def test_200_000_records_of_forgotten_uploads(tmp_path: Path):
    *_, found = maintained(Holding(1000, records=OBJECTS), tmp_path)
    assert found["report"]["records_listed"] == found["report"]["deleted"] == OBJECTS


def maintained(holding: Holding, folder: Path) -> list[dict[str, Any]]:
    """The outcomes of the rules in a dry run."""
    path = folder / "policy.toml"
    path.write_text(POLICY.format(bucket=BUCKET))
    report = run(holding, folder, "maintain", "--policy", str(path))
    assert report["rules_failed"] == 0
    return [each["outcome"] for each in report["rules"]]
