"""Whether an engine reads the same values from two Parquet files: pyarrow, column by column.

Rule: this says what readers see, where `parquet_verify` says what is stored. Numbers with a point
are compared by their bits, so NaN equals itself and -0.0 differs from 0.0. One column of one row
group is read at a time, in batches that shrink where they do not fit into memory.
https://arrow.apache.org/docs/python/parquet.html
"""

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from s4gateway.tools.parquet_verify import Mismatch

_ROWS: Final = 64 * 1024  # of a batch at most
_BATCH: Final = 16 * 1024 * 1024  # bytes of a batch, as far as a chunk's size tells
_FEWER: Final = 64
_BUFFER: Final = 1024 * 1024
_BITS: Final = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}

Tell = Callable[[int], None]


class Unreadable(Exception):
    """pyarrow does not read the old file, so that there is nothing to compare with."""


class ValueMismatch(Mismatch):
    """pyarrow reads other values from the new file."""


def compare(old: BinaryIO, new: BinaryIO, tell: Tell) -> None:
    """Raise Mismatch, ValueMismatch or Unreadable; `tell` is called as batches are compared."""
    before = _opened(old)
    try:
        after = _opened(new)
    except Unreadable as error:
        raise Mismatch(f"pyarrow does not open what was made: {error}") from error
    with before, after:
        _check_metadata(before, after)
        for group in range(before.metadata.num_row_groups):
            for name in dict.fromkeys(before.schema_arrow.names):
                _check_column(before, after, group, name, tell)


def _opened(file: BinaryIO) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER)
    except MemoryError:
        raise  # one of Arrow's exceptions as well
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def _check_metadata(old: pq.ParquetFile, new: pq.ParquetFile) -> None:
    before, after = old.metadata, new.metadata
    told = ("num_rows", "num_columns", "num_row_groups", "created_by", "format_version", "metadata")
    for name in told:
        if getattr(before, name) != getattr(after, name):
            raise Mismatch(f"pyarrow reads another {name}")
    if not before.schema.equals(after.schema):
        raise Mismatch("pyarrow reads another physical schema")
    if not old.schema_arrow.equals(new.schema_arrow, check_metadata=True):
        raise Mismatch("pyarrow reads another schema")


def _check_column(
    old: pq.ParquetFile, new: pq.ParquetFile, group: int, name: str, tell: Tell
) -> None:
    rows = _batch_rows(old, group, name)
    while True:
        try:
            _check_batches(old, new, group, name, rows, tell)
        except MemoryError:
            if rows == 1:
                raise
            rows = max(1, rows // _FEWER)
        else:
            return


def _batch_rows(file: pq.ParquetFile, group: int, name: str) -> int:
    """Rows of the column that are likely to fit into a batch."""
    meta = file.metadata.row_group(group)
    top = f"{name}."
    size = sum(
        column.total_uncompressed_size
        for column in map(meta.column, range(meta.num_columns))
        if column.path_in_schema == name or column.path_in_schema.startswith(top)
    )
    rows = int(meta.num_rows)
    return max(1, min(_ROWS, rows * _BATCH // max(int(size), 1)))


def _check_batches(
    old: pq.ParquetFile, new: pq.ParquetFile, group: int, name: str, rows: int, tell: Tell
) -> None:
    where = f"row group {group}, column {name!r}"
    seen = 0
    pairs = zip_longest(
        _batches(old, group, name, rows, Unreadable), _batches(new, group, name, rows, Mismatch)
    )
    for before, after in pairs:
        if before is None or after is None or before.num_rows != after.num_rows:
            raise Mismatch(f"{where}: another number of rows")
        if not before.num_columns:
            raise Unreadable(f"{where}: no such column for pyarrow")
        for mine, made in zip(before.columns, after.columns, strict=True):
            if not is_same(mine, made):
                raise ValueMismatch(f"{where}: other values in rows from {seen}")
        seen += before.num_rows
        tell(before.nbytes)


def _batches(
    file: pq.ParquetFile, group: int, name: str, rows: int, failure: type[Exception]
) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(
            batch_size=rows, row_groups=[group], columns=[name], use_threads=False
        )
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise failure(
            f"row group {group}, column {name!r}: {type(error).__name__}: {error}"
        ) from error


def is_same(old: Any, new: Any) -> bool:
    """Whether two Arrow arrays hold the same, numbers with a point by their bits.

    >>> nan = pa.array([float("nan"), 0.0])
    >>> is_same(nan, nan), is_same(nan, pa.array([float("nan"), -0.0]))
    (True, False)
    """
    kind = old.type
    if kind != new.type or len(old) != len(new):
        return False
    if isinstance(kind, pa.BaseExtensionType):
        return is_same(old.storage, new.storage)
    if not _has_floats(kind):
        return bool(old.equals(new))
    if pa.types.is_floating(kind):
        bits = _BITS[kind.bit_width]
        return bool(old.view(bits).equals(new.view(bits)))
    if not old.is_null().equals(new.is_null()):
        return False
    if pa.types.is_dictionary(kind):
        return is_same(old.dictionary_decode(), new.dictionary_decode())
    if pa.types.is_struct(kind):
        pairs = zip(old.flatten(), new.flatten(), strict=True)
        return all(is_same(mine, made) for mine, made in pairs)
    if pa.types.is_map(kind):
        entries = pa.list_(kind.field(0))
        return is_same(old.cast(entries), new.cast(entries))
    if not (pa.types.is_fixed_size_list(kind) or old.value_lengths().equals(new.value_lengths())):
        return False
    return is_same(old.flatten(), new.flatten())


def _has_floats(kind: Any) -> bool:
    """Whether a type is, or is made of, numbers with a point."""
    if pa.types.is_dictionary(kind):
        return _has_floats(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _has_floats(kind.storage_type)
    inner = range(kind.num_fields)
    return pa.types.is_floating(kind) or any(_has_floats(kind.field(each).type) for each in inner)
