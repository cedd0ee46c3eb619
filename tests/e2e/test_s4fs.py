"""The fsspec filesystem over a real store, beside a real gateway, with the programs that use it.

s3fs and boto3 need different versions of botocore, so the checks are tests of their own
(`tests/programs/s4fs`), run by pytest under the interpreter of `.venv-s3fs`. One process checks a
file; what it has to say is the failure's text.
"""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tests import clients, live

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


Check = Callable[..., None]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Run the checks of one file."""
    python = live.ROOT / ".venv-s3fs" / "bin" / "python"
    if not (python.parent.parent / ".installed").exists():
        pytest.skip("s3fs not installed: make clients")

    def run(name: str, servers: dict[str, str], *options: str) -> None:
        # Without --confcutdir the fixtures of the tests around would be loaded there, too.
        command = [python, "-m", "pytest", "-q", "-c", CHECKS / "pytest.ini", "--rootdir", CHECKS,
                   "--confcutdir", CHECKS, *options, CHECKS / name]  # fmt: skip
        done = subprocess.run(
            command, cwd=CHECKS, env=live.environment(tmp_path) | servers, capture_output=True,
            text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]

    return run


@pytest.fixture
def servers(
    seaweedfs: live.Seaweedfs, gateways: tuple[live.Gateway, live.Gateway], bucket: str
) -> dict[str, str]:
    """Where the store and the gateways are, as the checks are told."""
    return {
        "S4FS_STORE": seaweedfs.endpoint_url,
        "S4FS_GATEWAY": gateways[0].endpoint_url,
        "S4FS_GZIP_GATEWAY": gateways[1].endpoint_url,
        "S4FS_ACCESS": seaweedfs.access_key,
        "S4FS_SECRET": seaweedfs.secret_key,
        "S4FS_BUCKET": bucket,
    }


@pytest.fixture
def moto() -> Iterator[dict[str, str]]:
    """A store in which a directory ends with its last object; SeaweedFS's go on a while."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        endpoint = live.Endpoint(f"http://127.0.0.1:{port}", "access", "secret-of-moto")
        with contextlib.closing(clients.boto3_client(endpoint)) as client:
            client.create_bucket(Bucket="bucket")
        yield {"S4FS_STORE": endpoint.endpoint_url, "S4FS_ACCESS": endpoint.access_key,
               "S4FS_SECRET": endpoint.secret_key, "S4FS_BUCKET": "bucket"}  # fmt: skip
    finally:
        server.stop()


@pytest.mark.slow
def test_both_sides_read_what_the_other_writes(check: Check, servers: dict[str, str]):
    check("check_interop.py", servers)


def test_pandas_pyarrow_polars_and_duckdb_read_and_write(check: Check, servers: dict[str, str]):
    check("check_engines.py", servers)


@pytest.mark.slow
def test_the_tests_of_fsspec_itself_pass(check: Check, moto: dict[str, str]):
    """All but those of patterns, which tests/s4fs runs over memory."""
    check("check_abstract.py", moto, "-k", "not edge_cases and not glob")


@pytest.mark.slow
def test_two_columns_of_a_large_parquet_file_cost_their_share(
    check: Check, servers: dict[str, str]
):
    check("check_columns.py", servers)


def test_every_file_of_checks_is_run():
    source = Path(__file__).read_text()
    files = [each.name for each in CHECKS.iterdir() if each.name.startswith("check_")]
    assert [name for name in files if f'check("{name}", ' not in source] == []
