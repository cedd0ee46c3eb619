"""The other side: pyarrow and boto3 with threads, and not one line more than the job needs."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.datasets.data import SALES, Sale

THREADS = 32


class Script:
    """A bucket and a prefix, read and written by hand."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._pool = ThreadPoolExecutor(THREADS)

    def keys(self, under: str, suffix: str = ".parquet") -> list[str]:
        """The keys of the data files, in their order."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}/{under}"
        )
        listed = (entry["Key"] for page in pages for entry in page.get("Contents", ()))
        return [key for key in listed if key.endswith(suffix)]

    def get(self, key: str) -> bytes:
        """One body."""
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return body

    def put(self, key: str, body: bytes = b"", **more: Any) -> None:
        """One object."""
        self._client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{key}", Body=body, **more)

    def head(self, key: str) -> dict[str, str]:
        """The metadata of one object."""
        answer = self._client.head_object(Bucket=self._bucket, Key=key)
        return dict(answer["Metadata"])

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Each item in one of the threads."""
        return list(self._pool.map(work, items))

    def table(self, key: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One file, decoded by the thread that fetched it."""
        return pq.ParquetFile(pa.BufferReader(self.get(key))).read(columns, use_threads=False)

    def read_table(self, under: str = "data/", columns: Sequence[str] | None = None) -> pa.Table:
        """All files as one table."""
        tables = self.map(lambda key: self.table(key, columns), self.keys(under))
        return pa.concat_tables(tables)

    def read_latest(self, under: str = "data/") -> pa.Table:
        """All partitions, each with the latest version of each entity."""
        keys = self.keys(under)
        tables = dict(zip(keys, self.map(self.table, keys), strict=True))
        groups: dict[str, list[pa.Table]] = {}
        for key in keys:
            groups.setdefault(key.rpartition("/")[0], []).append(tables.pop(key))
        return pa.concat_tables(
            self.map(latest, (pa.concat_tables(group) for group in groups.values()))
        )

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def latest(table: pa.Table) -> pa.Table:
    """Sort by entity, version and place; keep the last row of each entity."""
    keys = pa.table(
        {
            "sku": table["sku"],
            "version": table["version"],
            "row": pa.array(range(table.num_rows)),
        }
    )
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
    sku = keys["sku"].take(order)
    changes = pc.not_equal(sku.slice(1), sku.slice(0, len(sku) - 1)).combine_chunks()
    last = pa.concat_arrays([changes, pa.array([True])])
    return table.take(pc.filter(order, last))


def latest_by_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with Python objects."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["sku"], row["version"])):
        found[row["sku"]] = row
    return list(found.values())


def zipped(table: pa.Table) -> list[Sale]:
    """Rows out of columns."""
    return [Sale(*row) for row in zip(*(column.to_pylist() for column in table), strict=True)]


def by_dicts(table: pa.Table) -> list[Sale]:
    """Rows out of dicts, the way of the documentation."""
    return [Sale(**row) for row in table.to_pylist()]


def by_columns(rows: Sequence[Sale]) -> pa.Table:
    """A table out of rows, a column at a time."""
    names = SALES.names
    arrays = [
        pa.array([getattr(row, name) for row in rows], field.type)
        for name, field in zip(names, SALES, strict=True)
    ]
    return pa.table(arrays, schema=SALES)


def encoded(table: pa.Table) -> bytes:
    """A Parquet file with the settings everybody has."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    octets: bytes = sink.getvalue().to_pybytes()
    return octets
