"""pandas, pyarrow, Polars, DuckDB and dask's way of reading, at `s4://`, found by its protocol."""

import json
from typing import Any

import duckdb
import fsspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import Counting

from s4gateway.s4fs import S4FileSystem

ROWS = 200_000


def table() -> pa.Table:
    """A table of a service's requests, a few MiB in frames of 4 MiB."""
    return pa.table(
        {
            "id": pa.array(range(ROWS), pa.int64()),
            "path": [f"/v1/items/{number * 7919 % 100_003}" for number in range(ROWS)],
            "status": pa.array([200 if number % 17 else 500 for number in range(ROWS)], pa.int32()),
            "seconds": [number % 997 / 1000 for number in range(ROWS)],
        }
    )


@pytest.fixture
def place(folder: str) -> str:
    return f"s4://{folder}"


def test_the_protocol_is_found_by_its_entry_point(options: dict[str, Any]):
    assert isinstance(fsspec.filesystem("s4", **options), S4FileSystem)
    assert fsspec.get_filesystem_class("s4") is S4FileSystem


def test_pandas_writes_and_reads_parquet_csv_and_json(
    place: str, options: dict[str, Any], gateway: Counting
):
    frame = table().to_pandas()
    frame.to_parquet(f"{place}/t.parquet", storage_options=options)
    assert pd.read_parquet(f"{place}/t.parquet", storage_options=options).equals(frame)
    part = pd.read_parquet(f"{place}/t.parquet", storage_options=options, columns=["status"])
    assert part.equals(frame[["status"]])
    frame.to_csv(f"{place}/t.csv", index=False, storage_options=options)
    assert pd.read_csv(f"{place}/t.csv", storage_options=options).id.equals(frame.id)
    frame[:1000].to_json(f"{place}/t.jsonl", orient="records", lines=True, storage_options=options)
    again = pd.read_json(f"{place}/t.jsonl", lines=True, storage_options=options)
    assert again.path.equals(frame[:1000].path)
    with gateway.open(f"{place.removeprefix('s4://')}/t.parquet") as file:
        assert pq.read_table(file).to_pandas().equals(frame)


def test_pandas_reads_what_the_gateway_stored(
    place: str, options: dict[str, Any], gateway: Counting
):
    where = place.removeprefix("s4://")
    with gateway.open(f"{where}/t.parquet", "wb") as file:
        pq.write_table(table(), file, compression="none")
    assert pa.Table.from_pandas(
        pd.read_parquet(f"{place}/t.parquet", storage_options=options)
    ).num_rows == ROWS  # fmt: skip


def test_a_dataset_of_many_files_is_written_and_filtered(
    place: str, options: dict[str, Any], gateway: Counting
):
    fs = fsspec.filesystem("s4", **options)
    where = place.removeprefix("s4://")
    ds.write_dataset(
        table(), f"{where}/set", filesystem=fs, format="parquet", partitioning=["status"],
        partitioning_flavor="hive", existing_data_behavior="overwrite_or_ignore",
    )  # fmt: skip
    for over in (fs, gateway):
        found = ds.dataset(f"{where}/set", filesystem=over, partitioning="hive")
        slow = found.to_table(filter=(ds.field("status") == 500) & (ds.field("seconds") > 0.99))
        expected = [n for n in range(ROWS) if n % 17 == 0 and n % 997 / 1000 > 0.99]
        assert sorted(slow["id"].to_pylist()) == expected
        assert found.count_rows() == ROWS
    assert {file.rpartition("/")[0] for file in fs.find(where)} == {
        f"{where}/set/status=200", f"{where}/set/status=500"
    }  # fmt: skip


def test_pyarrow_reads_row_groups_by_its_own_filesystem_layer(place: str, options: dict[str, Any]):
    fs = fsspec.filesystem("s4", **options)
    where = place.removeprefix("s4://")
    with fs.open(f"{where}/t.parquet", "wb") as file:
        pq.write_table(table(), file, row_group_size=20_000)
    found = pq.read_table(f"{where}/t.parquet", filesystem=fs, filters=[("id", ">=", ROWS - 5)])
    assert found["id"].to_pylist() == list(range(ROWS - 5, ROWS))
    with pq.ParquetFile(fs.open(f"{where}/t.parquet"), pre_buffer=True) as parquet:
        assert parquet.read_row_group(3, columns=["id"])["id"][0].as_py() == 60_000


def test_polars_writes_and_reads_parquet_and_csv(place: str, options: dict[str, Any]):
    frame = pl.from_arrow(table())
    assert isinstance(frame, pl.DataFrame)
    with fsspec.open(f"{place}/t.parquet", "wb", **options) as file:
        frame.write_parquet(file)
    with fsspec.open(f"{place}/t.parquet", **options) as file:
        assert pl.read_parquet(file).equals(frame)
    with fsspec.open(f"{place}/t.parquet", **options) as file:
        assert pl.read_parquet(file, columns=["id"], n_rows=7)["id"].to_list() == list(range(7))
    with fsspec.open(f"{place}/t.csv", "wb", **options) as file:
        frame.write_csv(file)
    with fsspec.open(f"{place}/t.csv", **options) as file:
        assert pl.read_csv(file).equals(frame.cast({"status": pl.Int64}))


def test_polars_scans_a_dataset_lazily(place: str, options: dict[str, Any]):
    fs = fsspec.filesystem("s4", **options)
    where = place.removeprefix("s4://")
    pq.write_to_dataset(table(), f"{where}/set", filesystem=fs)
    scanned = pl.scan_pyarrow_dataset(ds.dataset(f"{where}/set", filesystem=fs))
    errors = scanned.filter(pl.col("status") == 500).select(pl.len()).collect().item()
    assert errors == len([n for n in range(ROWS) if n % 17 == 0])


def test_duckdb_reads_and_writes_parquet_and_csv(place: str, options: dict[str, Any]):
    fs = fsspec.filesystem("s4", **options)
    with duckdb.connect() as database:
        database.register_filesystem(fs)
        database.register("requests", table())
        database.execute(f"COPY requests TO '{place}/t.parquet' (FORMAT parquet)")
        database.execute(f"COPY requests TO '{place}/t.csv' (FORMAT csv, HEADER)")
        for source in (f"read_parquet('{place}/t.parquet')", f"read_csv('{place}/t.csv')",
                       f"read_parquet('{place}/*.parquet')"):  # fmt: skip
            query = f"SELECT count(*), sum(id), max(path) FROM {source} WHERE status = 500"  # noqa: S608
            found = database.execute(query).fetchone()
            bad = [n for n in range(ROWS) if n % 17 == 0]
            paths = max(f"/v1/items/{n * 7919 % 100_003}" for n in bad)
            assert found == (len(bad), sum(bad), paths)


def test_text_files_are_read_and_written_line_by_line(place: str, options: dict[str, Any]):
    with fsspec.open(f"{place}/log.jsonl", "wt", encoding="utf-8", **options) as file:
        for number in range(1000):
            file.write(json.dumps({"n": number}) + "\n")
    with fsspec.open(f"{place}/log.jsonl", "rt", encoding="utf-8", **options) as file:
        assert [json.loads(line)["n"] for line in file] == list(range(1000))
    with fsspec.open(f"{place}/log.gz", "wt", compression="gzip", **options) as file:
        file.write("inside gzip\n")
    with fsspec.open(f"{place}/log.gz", "rt", compression="infer", **options) as file:
        assert file.read() == "inside gzip\n"


def test_blocks_are_read_as_dask_reads_them(place: str, options: dict[str, Any]):
    fs = fsspec.filesystem("s4", **options)
    lines = b"".join(b"%09d\n" % number for number in range(600_000))
    fs.pipe_file(f"{place}/lines", lines)
    found = b"".join(
        fs.read_block(f"{place}/lines", offset, 700_001, delimiter=b"\n")
        for offset in range(0, len(lines), 700_001)
    )
    assert found == lines
