"""What DuckDB and Polars make of Parquet files in a store, each through an S3 client of its own.

    python -m tests.s3store.engines     # stdin: where, and the files; stdout: what each engine says

DuckDB's own S3 client is an extension it downloads; here it reads through Arrow's, which is the AWS
SDK for C++. Polars has one written in Rust.
"""

import json
import os
import sys
from typing import Any

import duckdb
import polars as pl
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import S3FileSystem

QUERY = """
select customer, count(*), sum(amount), max(version), count(distinct text)
from files where version >= 2 group by customer order by customer
"""


class _Arrow(ArrowFSWrapper):
    protocol = "arrow"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        """Arrow wants bucket and key; what this is made from takes the bucket for a host."""
        return path.removeprefix("arrow://")


def by_duckdb(where: dict[str, Any]) -> list[Any]:
    arrow = S3FileSystem(
        access_key=where["key"],
        secret_key=where["secret"],
        endpoint_override=where["url"],
        region="us-east-1",
    )
    names = [f"arrow://{where['bucket']}/{key}" for key in where["files"]]
    with duckdb.connect() as connection:
        connection.register_filesystem(_Arrow(arrow))
        files = connection.read_parquet(names)
        return [list(row) for row in files.query("files", QUERY).fetchall()]


def by_polars(where: dict[str, Any]) -> list[Any]:
    options = {
        "aws_access_key_id": where["key"],
        "aws_secret_access_key": where["secret"],
        "aws_endpoint_url": where["url"],
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
    }
    names = [f"s3://{where['bucket']}/{key}" for key in where["files"]]
    found = (
        pl.scan_parquet(names, storage_options=options)
        .filter(pl.col("version") >= 2)
        .group_by("customer")
        .agg(
            pl.len(),
            pl.col("amount").sum(),
            pl.col("version").max(),
            pl.col("text").n_unique().alias("texts"),
        )
        .sort("customer")
        .collect()
    )
    return [list(row) for row in found.rows()]


if __name__ == "__main__":
    told = json.load(sys.stdin)
    json.dump({"duckdb": by_duckdb(told), "polars": by_polars(told)}, sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # Arrow's S3 client may not end when Python does
