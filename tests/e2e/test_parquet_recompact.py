"""`s4 parquet-recompact` on a real store: files of three engines, read back by them."""

import functools
import io
import random
import time
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from tests import live
from tests.e2e import rewriting
from tests.e2e.operators import Operator
from tests.tools import parquet_made

pytestmark = pytest.mark.e2e

TWO = ("--concurrency", "2")  # each costs a process that loads pyarrow
PLAIN_COLUMNS = ["number", "text", "bytes", "decimal", "zoned", "list", "struct"]


@functools.cache
def table(rows: int = 20_000) -> pa.Table:
    return parquet_made.table(rows)


def simple(rows: int = 20_000) -> pa.Table:
    """What all three engines can write."""
    return table(rows).select(PLAIN_COLUMNS)


@pytest.fixture
def operator(seaweedfs: live.Seaweedfs, tmp_path: Path) -> Operator:
    return Operator(seaweedfs, tmp_path)


def of_duckdb(folder: Path) -> bytes:
    path = folder / "duckdb.parquet"
    with duckdb.connect() as engine:
        engine.register("rows", simple())
        engine.sql(f"COPY rows TO '{path}' (FORMAT parquet, CODEC 'snappy')")
    return path.read_bytes()


def of_polars() -> bytes:
    sink = io.BytesIO()
    frame = pl.from_arrow(simple())
    assert isinstance(frame, pl.DataFrame)
    frame.write_parquet(sink, compression="snappy")
    return sink.getvalue()


def noise() -> list[bytes]:
    """What a gateway stores as it comes, for its first bytes do not compress."""
    draw = random.Random(1)
    return [draw.randbytes(20) for _ in range(2_000)]


def files(folder: Path) -> dict[str, bytes]:
    return {
        "pyarrow.parquet": parquet_made.indexed(table(), row_group_size=8_000),
        "plain.parquet": parquet_made.written(simple(), "none"),
        "duckdb.parquet": of_duckdb(folder),
        "polars.parquet": of_polars(),
    }


def read_by_all(data: bytes, folder: Path) -> list[Any]:
    """The rows as each engine reads them."""
    path = folder / "read.parquet"
    path.write_bytes(data)
    columns = ["number", "text", "decimal"]
    with duckdb.connect() as engine:
        rows = engine.read_parquet(str(path)).select(*columns).fetchall()
    return [rows, pl.read_parquet(path, columns=columns).rows(), pq.read_table(path).num_rows]


def test_files_of_three_engines_are_smaller_and_read_the_same(
    operator: Operator, bucket: str, direct: Any, s3: Any, tmp_path: Path
):
    bodies = files(tmp_path)
    for key, body in bodies.items():
        direct.put_object(
            Bucket=bucket, Key=key, Body=body, Metadata={"made": "by-hand"}, Tagging="a=1"
        )
    logs = [f"{n % 40} of a log, {n}" * 5 for n in range(2_000)]
    through = parquet_made.written(pa.table({"noise": noise(), "text": logs}), use_dictionary=False)
    s3.put_object(Bucket=bucket, Key="through.parquet", Body=through)
    assert direct.head_object(Bucket=bucket, Key="through.parquet")["Metadata"]["s4-codec"] == (
        "passthrough"
    )
    said = operator.s4("parquet-recompact", bucket, "--execute", *TWO, json=True)
    assert (said.status, said.report["recompacted"]) == (0, len(bodies) + 1), said.report
    assert said.report["conditional_writes"] is True
    for key, old in bodies.items():
        new = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        assert len(new) < len(old) * 0.95
        assert read_by_all(new, tmp_path) == read_by_all(old, tmp_path)
        assert direct.head_object(Bucket=bucket, Key=key)["Metadata"] == {"made": "by-hand"}
        assert direct.get_object_tagging(Bucket=bucket, Key=key)["TagSet"] == [
            {"Key": "a", "Value": "1"}
        ]
    now = s3.get_object(Bucket=bucket, Key="through.parquet")
    made = now["Body"].read()
    assert len(made) == now["ContentLength"] < len(through)
    assert pq.read_table(io.BytesIO(made)).equals(pq.read_table(io.BytesIO(through)))
    assert pq.read_metadata(
        io.BytesIO(s3.get_object(Bucket=bucket, Key="pyarrow.parquet")["Body"].read())
    ).metadata.keys() >= {b"ARROW:schema", b"made"}
    again = operator.s4("parquet-recompact", bucket, "--execute", json=True)
    assert again.report["skipped_already_zstd"] == len(bodies) + 1
    assert operator.s4("verify", bucket).status == 0


def test_columns_are_read_by_ranges_through_the_gateway_afterwards(
    operator: Operator, bucket: str, direct: Any, gateway: live.Gateway
):
    body = parquet_made.indexed(table(), row_group_size=6_000)
    direct.put_object(Bucket=bucket, Key="a.parquet", Body=body)
    said = operator.s4("parquet-recompact", bucket, "--execute", json=True)
    assert (said.status, said.report["recompacted"]) == (0, 1), said
    filesystem = pa.fs.S3FileSystem(
        access_key=gateway.access_key,
        secret_key=gateway.secret_key,
        endpoint_override=gateway.endpoint_url,
        region="us-east-1",
    )
    found = pq.read_table(f"{bucket}/a.parquet", filesystem=filesystem, columns=["text"])
    assert found.equals(table().select(["text"]))


def test_a_person_reads_a_table_and_is_told_what_was_left_alone(
    operator: Operator, bucket: str, direct: Any
):
    sound = parquet_made.written(simple(3_000))
    bodies = {
        "day/a.parquet": sound,
        "day/cut.parquet": sound[:-9],
        "day/notes.txt": b"text",
        "table/_delta_log/0.json": b"{}",
        "table/a.parquet": sound,
    }
    rewriting.fill(direct, bucket, bodies)
    before = rewriting.times(direct, bucket)
    said = operator.s4("parquet-recompact", bucket)
    lines = said.text.splitlines()
    assert said.status == 1
    assert lines[0] == f"S4 parquet-recompact {bucket} — dry-run (pass --execute to write)"
    assert any(line.startswith("would recompact: 1   ") for line in lines)
    assert any("other-suffix 2" in line and "table-file 1" in line for line in lines)
    assert "- table/a.parquet [table-file]: see table/_delta_log/0.json" in lines
    assert any(line.startswith("- day/cut.parquet [parquet]: ") for line in lines)
    assert rewriting.times(direct, bucket) == before
    assert any("another ETag, length and checksum" in line for line in lines)


@pytest.mark.slow
def test_killed_in_the_middle_it_finishes_the_next_time(
    operator: Operator, bucket: str, direct: Any
):
    body = parquet_made.written(simple(3_000))
    bodies = {f"{number:02}.parquet": body for number in range(16)}
    rewriting.fill(direct, bucket, bodies)
    before = rewriting.times(direct, bucket)
    running = operator.start("parquet-recompact", bucket, "--execute", *TWO)

    def changed() -> list[str]:
        found = rewriting.times(direct, bucket)
        return [key for key in bodies if found[key][2] != before[key][2]]

    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(changed()) < 2:
            pass
    finally:
        running.kill()
        running.wait()
    done = changed()
    assert len(done) >= 2
    said = operator.s4("parquet-recompact", bucket, "--execute", json=True)
    assert (said.status, said.report["failed"]) == (0, 0), said.report
    # A write that was under way when it was killed may have come to its end.
    assert said.report["skipped_already_zstd"] >= len(done)
    assert said.report["recompacted"] == len(bodies) - said.report["skipped_already_zstd"]
    stored = {direct.get_object(Bucket=bucket, Key=key)["Body"].read() for key in bodies}
    assert stored == {parquet_made.rewritten(body)}
