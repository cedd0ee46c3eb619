"""Data files: one table as Parquet bytes, and Parquet bytes as the columns a reader wants.

Rule: the same rows, insertion time and codec give the same bytes, on any machine: a table is put
into one chunk first, every writer option is pinned, and choices depend on the data alone. What a Go
reader would misread without an error (INT96, decimals as fixed-length bytes) is never written.
https://parquet.apache.org/docs/file-format/
"""

import enum
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from s4gateway.s3store import conform
from s4gateway.s3store.errors import ConfigError, DecodeError, EncodeError
from s4gateway.s3store.records import RecordSpec

_ROW_GROUP_ROWS: Final = 1024 * 1024
_SAMPLE: Final = 1024
_SMALL_ROWS: Final = 10_000  # not worth the way to other threads
_REPEATING: Final = 0.5  # share of different values up to which a dictionary is worth building


class Compression(enum.StrEnum):
    """The codecs that every reader of the format has."""

    SNAPPY = "snappy"
    ZSTD = "zstd"
    GZIP = "gzip"
    UNCOMPRESSED = "uncompressed"


class Encoder:
    """Tables into Parquet bytes with one codec.

    >>> encoder = Encoder("zstd", level=3)
    >>> encoder.encode(pa.table({"a": [1, 2]}))[:4]
    b'PAR1'
    """

    def __init__(self, compression: str = "snappy", level: int | None = None) -> None:
        try:
            self.compression = Compression(compression)
        except ValueError:
            allowed = ", ".join(Compression)
            raise ConfigError(f"compression {compression!r} is none of {allowed}") from None
        if level is not None and self.compression in (
            Compression.SNAPPY,
            Compression.UNCOMPRESSED,
        ):
            raise ConfigError(f"compression {compression!r} has no levels")
        self._level = level

    def encode(self, table: pa.Table) -> bytes:
        """Return the table as a Parquet file; raises EncodeError."""
        plain = table.combine_chunks().replace_schema_metadata(None)
        sink = pa.BufferOutputStream()
        none = self.compression is Compression.UNCOMPRESSED
        try:
            pq.write_table(
                plain,
                sink,
                row_group_size=_ROW_GROUP_ROWS,
                version="2.6",
                data_page_version="1.0",
                use_dictionary=_repeating(plain),
                compression="none" if none else self.compression.value,
                compression_level=self._level,
                use_deprecated_int96_timestamps=False,
                store_decimal_as_integer=True,
                store_schema=False,
                write_statistics=True,
            )
        except (pa.ArrowException, ValueError, OSError) as error:
            raise EncodeError(f"the rows cannot be written as Parquet: {error}") from error
        octets: bytes = sink.getvalue().to_pybytes()
        return octets


def _repeating(table: pa.Table) -> list[str]:
    """The columns whose values repeat, judged by evenly spaced rows: those get a dictionary."""
    rows = table.num_rows
    step = max(1, rows // _SAMPLE)
    sample = table.take(pa.array(range(0, rows, step), pa.int64())) if step > 1 else table
    return [
        name
        for name in table.column_names
        if pa.types.is_nested(table.schema.field(name).type)
        or _share(sample.column(name)) <= _REPEATING
    ]


def _share(column: pa.ChunkedArray) -> float:
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.combine_chunks().storage
    different: int = pc.count_distinct(column, mode="all").as_py()
    return different / max(1, len(column))


# --- reading


def open_file(source: Any, key: str) -> pq.ParquetFile:
    """Return a Parquet file in memory; raises DecodeError naming its key."""
    try:
        return pq.ParquetFile(source)
    except (pa.ArrowException, ValueError, OSError) as error:
        problem = f"is no Parquet file: {error}; restore it, or hide it: delete its commit marker"
        raise DecodeError(key, problem) from error


def present(file: pq.ParquetFile, wanted: Sequence[str]) -> list[str]:
    """Return which of the wanted columns a file has."""
    has = {path.partition(".")[0] for path in _paths(file.metadata)}
    top = set(file.schema_arrow.names) | has
    return [name for name in wanted if name in top]


def _paths(metadata: pq.FileMetaData) -> list[str]:
    return [metadata.schema.column(index).path for index in range(metadata.num_columns)]


def decode(
    file: pq.ParquetFile,
    key: str,
    spec: RecordSpec[Any],
    schema: pa.Schema,
    *,
    alone: bool = True,
) -> pa.Table:
    """Return the columns of `schema` out of a file, as the record has them; raises DecodeError.

    A file that is decoded `alone` has its columns decoded side by side; beside other files that
    would only have more threads contend for the same cores.
    """
    threads = alone and file.metadata.num_rows > _SMALL_ROWS
    try:
        stored = file.read(columns=present(file, schema.names), use_threads=threads)
        if not stored.num_columns:
            stored = pa.table({"": pa.nulls(file.metadata.num_rows)})
        return conform.to_schema(stored, schema, spec.absent)
    except conform.Unfit as error:
        raise DecodeError(key, str(error)) from error
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DecodeError(key, f"cannot be decoded: {error}") from error


def uncompressed_bytes(file: pq.ParquetFile, wanted: Sequence[str]) -> int:
    """Return the size of the wanted columns when decoded, as the file's footer tells it."""
    metadata = file.metadata
    names = set(wanted)
    chosen = [i for i, path in enumerate(_paths(metadata)) if path.partition(".")[0] in names]
    return sum(
        metadata.row_group(group).column(column).total_uncompressed_size
        for group in range(metadata.num_row_groups)
        for column in chosen
    )
