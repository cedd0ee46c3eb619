"""Engines that read Parquet themselves, given the committed files of a dataset."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from s4gateway.s3store import DataFile, Store, init_dataset_blocking
from tests import live
from tests.e2e import datasets
from tests.s3store.program import config

pytestmark = pytest.mark.e2e

SECONDS = 300.0
COUNT = 20_000


def rows(version: int) -> pa.Table:
    return pa.table(
        {
            "period": ["2026-03"] * COUNT,
            "customer": [f"c{number % 3}" for number in range(COUNT)],
            "version": pa.array([version] * COUNT, pa.int64()),
            "amount": [number / 4 for number in range(COUNT)],
            "text": [f"line {number * 7919 % 100_003} of many" for number in range(COUNT)],
        }
    )


@pytest.fixture(params=["straight", "via"])
def written(request: pytest.FixtureRequest, straight: Any, bucket: str) -> list[DataFile]:
    """The committed files of a dataset that was written directly, or through the gateway.

    Two versions are committed. A third is not: its marker is gone.
    """
    client = request.getfixturevalue(request.param)
    init_dataset_blocking(client, bucket, "orders")
    with Store.open(config(client, bucket), rows(1).schema, compression="uncompressed") as orders:
        for version in (1, 2):
            orders.write(rows(version))
        for lost in orders.write(rows(3), token="lost"):
            folder = lost.data_path.rpartition("/")[0]
            straight.delete_object(Bucket=bucket, Key=f"{folder}/lost.commit")
        files = orders.committed_files("*")
    assert len(files) == 2 * 3
    stored = straight.head_object(Bucket=bucket, Key=files[0].key)["ContentLength"]
    assert (stored < files[0].size / 2) == (request.param == "via")
    return files


def engines(endpoint: live.Endpoint, bucket: str, folder: Path, files: list[DataFile]) -> Any:
    ask: dict[str, Any] = datasets.ask_of(endpoint, bucket)
    done = subprocess.run(
        [sys.executable, "-m", "tests.s3store.engines"],
        input=json.dumps(ask | {"files": [file.key for file in files]}),
        capture_output=True,
        text=True,
        cwd=live.ROOT,
        env=live.environment(folder),
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


EXPECTED = [
    [
        f"c{each}",
        len(range(each, COUNT, 3)),
        sum(number / 4 for number in range(each, COUNT, 3)),
        2,
        len(range(each, COUNT, 3)),
    ]
    for each in range(3)
]


@pytest.mark.parametrize("written", ["straight", "via"], indirect=True)
def test_duckdb_and_polars_read_the_committed_files_through_the_gateway(
    gateway: live.Gateway, bucket: str, tmp_path: Path, written: list[DataFile]
):
    said = engines(gateway, bucket, tmp_path, written)
    assert said == {"duckdb": EXPECTED, "polars": EXPECTED}


@pytest.mark.parametrize("written", ["straight"], indirect=True)
def test_duckdb_and_polars_read_the_committed_files_of_the_store_itself(
    seaweedfs: live.Seaweedfs, bucket: str, tmp_path: Path, written: list[DataFile]
):
    said = engines(seaweedfs, bucket, tmp_path, written)
    assert said == {"duckdb": EXPECTED, "polars": EXPECTED}
