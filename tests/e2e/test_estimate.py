"""`s4 estimate` against what a real gateway then stores of the same objects."""

import json
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests import clients, corpus, live

pytestmark = pytest.mark.e2e


def mixed(count: int) -> dict[str, bytes]:
    """Objects of five kinds and of very different sizes."""
    draw = random.Random(11)
    found = {}
    for number in range(count):
        size = int(draw.lognormvariate(9.5, 1.6)) + 1
        kind = ("log", "json", "txt", "jpg", "bin")[number % 5]
        if kind == "log":
            data = corpus.log(size, number)
        elif kind == "json":
            data = json.dumps([{"n": draw.random(), "name": "event"}] * (size // 40 + 1)).encode()
        elif kind == "txt":
            data = corpus.text(size, number)
        else:
            data = draw.randbytes(min(size, 60_000))
        found[f"{kind}/{number}.{kind}"] = data
    return found


def estimated(store: live.Endpoint, bucket: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [str(live.program("s4")), "estimate", bucket, "--format", "json", *arguments],
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
        env=live.environment(live.ROOT)
        | {
            "AWS_ACCESS_KEY_ID": store.access_key,
            "AWS_SECRET_ACCESS_KEY": store.secret_key,
            "S4_ENDPOINT_URL": store.endpoint_url,
        },
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.huge)])
def test_the_projection_is_within_5_percent_of_what_is_then_stored(
    count: int, seaweedfs: live.Seaweedfs, gateway: live.Gateway, direct: Any, make_bucket: Any
):
    raw, behind = make_bucket(), make_bucket()
    through = clients.boto3_client(gateway)
    bodies = mixed(count)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: direct.put_object(Bucket=raw, Key=each[0], Body=each[1]),
                      bodies.items()))  # fmt: skip
        list(pool.map(lambda each: through.put_object(Bucket=behind, Key=each[0], Body=each[1]),
                      bodies.items()))  # fmt: skip
    pages = direct.get_paginator("list_objects_v2").paginate(Bucket=behind)
    stored = sum(each["Size"] for page in pages for each in page["Contents"])
    report = estimated(seaweedfs, raw, "--samples-per-stratum", "24")
    assert report["total_bytes"] == sum(map(len, bodies.values()))
    assert report["projected_total_bytes"] == pytest.approx(stored, rel=0.05)
    assert stored < 0.8 * report["total_bytes"]


def test_a_bucket_that_is_not_there_is_one_line_and_status_1(seaweedfs: live.Seaweedfs):
    done = subprocess.run(
        [str(live.program("s4")), "estimate", "no-such-bucket-here"],
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
        env=live.environment(live.ROOT)
        | {
            "AWS_ACCESS_KEY_ID": seaweedfs.access_key,
            "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_key,
            "S4_ENDPOINT_URL": seaweedfs.endpoint_url,
        },
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "NoSuchBucket" in done.stderr
