"""`s4 dataset tail --follow` as it is used: a process of its own that ends with Control-C."""

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s4gateway.s3store import init_dataset_blocking, layout
from s4gateway.s3store.commit import Commit
from tests import live
from tests.s3store.world import KEY

pytestmark = pytest.mark.e2e

SECONDS = 600.0
INTERRUPTED = 130
HOUR_AGO_US = time.time_ns() // 1000 - 3_600_000_000


def commit(client: Any, bucket: str, number: int) -> str:
    """A commit an hour ago, whole the moment its ref is there; its offset."""
    keys, attempt, us = layout.Keys("orders"), layout.new_attempt(), HOUR_AGO_US + number
    described = Commit(attempt, us, us, number).to_metadata()
    marker, ref = keys.commit(KEY, f"t{number}"), keys.ref(us, f"t{number}", attempt, KEY)
    client.put_object(Bucket=bucket, Key=marker, Metadata=described)
    client.put_object(Bucket=bucket, Key=ref)
    return ref


@contextlib.contextmanager
def following(
    endpoint: live.Endpoint, bucket: str, folder: Path
) -> Iterator["subprocess.Popen[str]"]:
    """The command, killed when the test gives up or waits too long for it."""
    keys = {
        "AWS_ACCESS_KEY_ID": endpoint.access_key,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
        "S4_ENDPOINT_URL": endpoint.endpoint_url,
        "S4_REGION": live.REGION,
    }
    with subprocess.Popen(
        [
            str(live.program("s4")),
            "dataset",
            "tail",
            f"{bucket}/orders",
            "--follow",
            "--format",
            "json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=live.environment(folder) | keys,
    ) as process:
        limit = threading.Timer(SECONDS, process.kill)
        limit.start()
        try:
            yield process
        finally:
            limit.cancel()
            process.kill()


def interrupted(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Control-C; the exit status and what was still said, but for a line's end after `^C`."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    return process.returncode, out, err.strip()


@pytest.mark.parametrize("server", ["seaweedfs", "gateway"])
def test_commits_are_told_as_they_come_until_control_c(
    request: pytest.FixtureRequest, straight: Any, bucket: str, tmp_path: Path, server: str
):
    init_dataset_blocking(straight, bucket, "orders")
    expected = [commit(straight, bucket, 1), commit(straight, bucket, 2)]
    endpoint = request.getfixturevalue(server)
    with following(endpoint, bucket, tmp_path) as process:
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline()) for _ in range(2)]
        expected.append(commit(straight, bucket, 3))
        told.append(json.loads(process.stdout.readline()))
        assert interrupted(process) == (INTERRUPTED, "", "")
    assert [entry["offset"] for entry in told] == expected
    assert [entry["row_count"] for entry in told] == [1, 2, 3]
