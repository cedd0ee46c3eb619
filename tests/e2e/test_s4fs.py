"""The fsspec filesystem over a real store, beside a real gateway, with the programs that use it.

s3fs and boto3 need different versions of botocore, so the checks are tests of their own
(`tests/programs/s4fs`), run by pytest under the interpreter of `.venv-s3fs`. One process checks a
file; what it has to say is the failure's text.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import live

pytestmark = pytest.mark.e2e

CHECKS = live.ROOT / "tests" / "programs" / "s4fs"
SECONDS = 900.0


@pytest.fixture(scope="module")
def gateways(
    seaweedfs: live.Seaweedfs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[live.Gateway, live.Gateway]]:
    """One that writes zstd, and one that writes gzip."""
    folder = tmp_path_factory.mktemp("s4fs-gateways")
    with (
        live.gateway(seaweedfs, folder) as one,
        live.gateway(seaweedfs, folder, "--codec", "cpu-gzip") as other,
    ):
        yield one, other


@pytest.fixture
def check(
    seaweedfs: live.Seaweedfs,
    gateways: tuple[live.Gateway, live.Gateway],
    bucket: str,
    tmp_path: Path,
) -> Callable[..., str]:
    """Run the checks of one file; what it printed."""
    python = live.ROOT / ".venv-s3fs" / "bin" / "python"
    if not (python.parent.parent / ".installed").exists():
        pytest.skip("s3fs not installed: make clients")
    environment = live.environment(tmp_path) | {
        "S4FS_STORE": seaweedfs.endpoint_url,
        "S4FS_GATEWAY": gateways[0].endpoint_url,
        "S4FS_GZIP_GATEWAY": gateways[1].endpoint_url,
        "S4FS_ACCESS": seaweedfs.access_key,
        "S4FS_SECRET": seaweedfs.secret_key,
        "S4FS_BUCKET": bucket,
    }

    def run(name: str, *options: str) -> str:
        # Without --confcutdir the fixtures of the tests around would be loaded there, too.
        command = [python, "-m", "pytest", "-q", "-s", "-c", CHECKS / "pytest.ini", "--rootdir",
                   CHECKS, "--confcutdir", CHECKS, *options, CHECKS / name]  # fmt: skip
        done = subprocess.run(
            command, cwd=CHECKS, env=environment, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]
        return done.stdout

    return run


def test_both_sides_read_what_the_other_writes(check: Callable[..., str]):
    check("check_interop.py")


def test_pandas_pyarrow_polars_and_duckdb_read_and_write(check: Callable[..., str]):
    check("check_engines.py")


def test_the_tests_of_fsspec_itself_pass(check: Callable[..., str]):
    check("check_abstract.py")


@pytest.mark.slow
def test_two_columns_of_a_large_parquet_file_cost_their_share(check: Callable[..., str]):
    check("check_columns.py")


def test_the_suites_are_all_run(request: Any):
    """Each file of checks is named by a test here."""
    source = Path(request.path).read_text()
    assert {each.name for each in CHECKS.glob("check_*.py")} == {
        name for name in source.split('"') if name.startswith("check_") and name.endswith(".py")
    }
