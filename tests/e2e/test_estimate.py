"""`s4 estimate` against what `s4 migrate --execute` then really stores of the same objects."""

import io
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests import corpus, live
from tests.e2e import rewriting
from tests.e2e.operators import Operator

pytestmark = pytest.mark.e2e


@pytest.fixture
def operator(seaweedfs: live.Seaweedfs, tmp_path: Path) -> Operator:
    return Operator(seaweedfs, tmp_path)


def lines(draw: random.Random, size: int) -> bytes:
    """Events as JSON, one a line."""
    pieces, total = [], 0
    while total < size:
        event = {
            "id": draw.getrandbits(40),
            "at": f"2026-03-{draw.randrange(1, 29):02}T{draw.randrange(24):02}:00:00Z",
            "event": draw.choice(["click", "view", "buy", "login"]),
            "amount": round(draw.random() * 100, 2),
        }
        pieces.append(json.dumps(event))
        total += len(pieces[-1]) + 1
    return "\n".join(pieces).encode()[:size]


def table(draw: random.Random, rows: int) -> bytes:
    """A Parquet file, compressed by its writer or not."""
    columns = {
        "id": [draw.getrandbits(40) for _ in range(rows)],
        "event": [draw.choice(["click", "view", "buy"]) for _ in range(rows)],
        "amount": [draw.random() for _ in range(rows)],
    }
    sink = io.BytesIO()
    parquet.write_table(pa.table(columns), sink, compression=draw.choice(["snappy", "none"]))
    return sink.getvalue()


def made(kind: str, draw: random.Random) -> tuple[str, bytes]:
    """A suffix and a body of very different sizes."""
    size = int(draw.lognormvariate(9.5, 1.6)) + 1
    match kind:
        case "log":
            return ".log", corpus.log(size, draw.getrandbits(16))
        case "json":
            return ".json", lines(draw, size)
        case "parquet":
            return ".parquet", table(draw, draw.randrange(50, 3000))
        case "jpeg":
            return ".jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF" + draw.randbytes(min(size, 200_000))
        case _:
            return "", lines(draw, draw.randrange(20, 900))


KINDS = ("log", "json", "parquet", "jpeg", "tiny")


def bodies(kinds: tuple[str, ...], count: int, seed: int) -> dict[str, bytes]:
    """So many objects, of one kind after the other."""
    draw = random.Random(seed)
    found = {}
    for number in range(count):
        kind = kinds[number % len(kinds)]
        suffix, body = made(kind, draw)
        found[f"{kind}/{number}{suffix}"] = body
    return found


@pytest.mark.parametrize(
    ("kinds", "count", "seed"),
    [
        (KINDS, 150, 1),
        *(pytest.param(KINDS, 1000, seed, marks=pytest.mark.huge) for seed in (2, 3)),
        *(pytest.param((kind,), 1000, 4, marks=pytest.mark.huge) for kind in KINDS),
    ],
)
def test_the_projection_is_within_5_percent_of_what_migrate_then_stores(
    operator: Operator,
    bucket: str,
    direct: Any,
    kinds: tuple[str, ...],
    count: int,
    seed: int,
    record_property: Callable[[str, object], None],
):
    found = bodies(kinds, count, seed)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: rewriting.fill(direct, bucket, dict([each])), found.items()))
    report = operator.s4("estimate", bucket, json=True).report
    done = operator.s4("migrate", bucket, "--execute", json=True)
    assert (done.status, done.report["failed"]) == (0, 0), done.report["failures"]
    stored = sum(size for _, _, size in rewriting.times(direct, bucket).values())
    record_property("projected", (report["projected_total_bytes"], report["margin_bytes"]))
    record_property("stored", stored)
    assert report["total_bytes"] == sum(map(len, found.values()))
    assert report["projected_total_bytes"] == pytest.approx(stored, rel=0.05)


def test_a_person_sees_the_margin(operator: Operator, bucket: str, direct: Any):
    rewriting.fill(direct, bucket, {"a.log": corpus.log(50_000)})
    said = operator.s4("estimate", bucket)
    assert said.status == 0
    assert "± 0 B" in said.text


def test_a_bucket_that_is_not_there_is_one_line_and_status_1(operator: Operator):
    said = operator.s4("estimate", "no-such-bucket-here")
    assert (said.status, said.err.count("\n")) == (1, 1)
    assert "NoSuchBucket" in said.err
