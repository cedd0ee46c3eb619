"""Delta Lake and Iceberg tables that several processes write through two gateways at once.

Both formats trust the store: Delta's commit is a PUT with `If-None-Match: *` on the next number of
its log, Iceberg's files must be readable the moment a catalogue names them. A lost or torn answer
shows as a missing row, a winner too many as a row lost to another one's commit. Conflicts are the
formats' own affair: they are counted and tried again, as every user of them does.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import live

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WRITERS = 6
COMMITS = 4
ROWS = 500
PROGRAMS = live.ROOT / "tests" / "programs"
SECONDS = 300.0
LARGE = 24 * 1024  # bytes of filler in each row: a data file of 12 MB, sent in parts

Task = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Program:
    """A program of `tests/programs` and the virtual environment it needs."""

    environment: str
    script: str

    def start(self, folder: Path) -> subprocess.Popen[str]:
        python = live.ROOT / f".venv-{self.environment}" / "bin" / "python"
        if not (python.parent.parent / ".installed").exists():
            pytest.skip(f"{self.environment} not installed: make clients")
        return subprocess.Popen(
            [python, PROGRAMS / self.script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=live.environment(folder),
        )

    def ask(self, folder: Path, task: Task) -> dict[str, int]:
        """Run one to its end; what its last line says."""
        with self.start(folder) as process:
            return finish(process, json.dumps(task) + "\n")

    def together(self, folder: Path, tasks: Sequence[Task]) -> list[dict[str, int]]:
        """Run one for each task, all of them ready before the first begins."""
        with contextlib.ExitStack() as running:
            processes = [running.enter_context(self.start(folder)) for _ in tasks]
            for process, task in zip(processes, tasks, strict=True):
                assert process.stdin
                process.stdin.write(json.dumps(task) + "\n")
                process.stdin.flush()
            for process in processes:
                assert process.stdout
                if not process.stdout.readline():
                    finish(process)
            for process in processes:
                assert process.stdin
                process.stdin.write("\n")
                process.stdin.flush()
            return [finish(process) for process in processes]


def finish(process: subprocess.Popen[str], said: str | None = None) -> dict[str, int]:
    output, errors = process.communicate(said, timeout=SECONDS)
    assert process.returncode == 0, errors[-4000:]
    answer: dict[str, int] = json.loads(output.splitlines()[-1])
    return answer


@pytest.fixture(scope="module")
def gateways(
    seaweedfs: live.Seaweedfs, tls: live.Tls, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[live.Gateway]]:
    """Two processes in front of one store, which know nothing of each other."""
    folder = tmp_path_factory.mktemp("two-gateways")
    with live.gateway(seaweedfs, folder) as one, live.gateway(seaweedfs, folder) as two:
        yield [one, two]


def delta_options(gateway: live.Gateway) -> dict[str, str]:
    return {
        "aws_access_key_id": gateway.access_key,
        "aws_secret_access_key": gateway.secret_key,
        "aws_endpoint_url": gateway.endpoint_url,
        "aws_region": live.REGION,
        "aws_allow_http": "true",
        "aws_conditional_put": "etag",
    }


def iceberg_options(gateway: live.Gateway, bucket: str, folder: Path) -> dict[str, str]:
    return {
        "uri": f"sqlite:///{folder}/catalog.db?timeout=60",
        "warehouse": f"s3://{bucket}/warehouse",
        "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
        "s3.endpoint": gateway.endpoint_url,
        "s3.access-key-id": gateway.access_key,
        "s3.secret-access-key": gateway.secret_key,
        "s3.region": live.REGION,
        "s3.force-virtual-addressing": "false",
    }


@pytest.mark.parametrize("filler", [0, LARGE], ids=["small", "large"])
def test_delta_writers_on_two_gateways_lose_no_row(
    filler: int, gateways: list[live.Gateway], direct: Any, bucket: str, tmp_path: Path
):
    append, read = (Program("deltalake", f"{verb}_delta.py") for verb in ("append", "read"))
    uri = f"s3://{bucket}/tables/appended"
    commits = 1 if filler else COMMITS
    # The making of a table is one of Delta's own conflicts with every append at the same time.
    first, *rest = [
        {"uri": uri, "options": delta_options(gateways[writer % 2]), "writer": writer,
         "commits": commits, "rows": ROWS, "filler": filler}
        for writer in range(WRITERS + 1)
    ]  # fmt: skip
    append.together(tmp_path, [first])
    said = append.together(tmp_path, rest)
    assert [each["conflicts"] for each in said] == [0] * WRITERS  # appends never conflict in Delta

    expected = (WRITERS + 1) * commits * ROWS
    for gateway in gateways:
        found = read.ask(tmp_path, {"uri": uri, "options": delta_options(gateway)})
        assert found == {
            "version": (WRITERS + 1) * commits - 1, "rows": expected, "different": expected
        }  # fmt: skip
    kept = read.ask(tmp_path, {"uri": uri, "options": first["options"], "maintain": True})
    assert (kept["rows"], kept["different"]) == (expected, expected)
    log = direct.list_objects_v2(Bucket=bucket, Prefix="tables/appended/_delta_log/")["Contents"]
    numbers = [each["Key"].rpartition("/")[2] for each in log if each["Key"].endswith("0.json")]
    assert f"{0:020d}.json" in numbers


@pytest.mark.parametrize("filler", [0, LARGE], ids=["small", "large"])
def test_iceberg_writers_on_two_gateways_lose_no_row(
    filler: int, gateways: list[live.Gateway], bucket: str, tmp_path: Path
):
    append, read = (Program("pyiceberg", f"{verb}_iceberg.py") for verb in ("append", "read"))
    commits = 1 if filler else COMMITS
    task = {"writer": 0, "commits": 0, "rows": ROWS, "filler": filler}
    options = [iceberg_options(gateway, bucket, tmp_path) for gateway in gateways]
    append.together(tmp_path, [task | {"options": options[0]}])
    append.together(
        tmp_path,
        [
            task | {"writer": writer, "commits": commits, "options": options[writer % 2]}
            for writer in range(WRITERS)
        ],
    )
    expected = WRITERS * commits * ROWS
    for each in options:
        found = read.ask(tmp_path, {"options": each})
        assert found == {
            "snapshots": WRITERS * commits, "rows": expected, "different": expected
        }  # fmt: skip
