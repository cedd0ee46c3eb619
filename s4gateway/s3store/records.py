"""A record type as a table: the columns it has, rows into columns, columns into rows.

`record` is a dataclass, a pydantic model, or a `pyarrow.Schema`, whose rows are dicts. Rule: values
move a column at a time, in both directions; no Python object is made per row except the row itself.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from s4gateway.s3store import columns, conform, fields
from s4gateway.s3store.errors import ConfigError, DecodeError, EncodeError

T = TypeVar("T")
NONE: Final[Mapping[str, Any]] = {}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICKS: Final = {
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}


class RecordSpec(Generic[T]):
    """The columns of a record type.

    >>> spec = RecordSpec(pa.schema([pa.field("id", pa.int64(), nullable=False)]))
    >>> spec.to_rows(spec.to_table([{"id": 1}, {"id": 2}]))
    [{'id': 1}, {'id': 2}]
    """

    def __init__(self, record: type[T] | pa.Schema) -> None:
        self.record = record
        self.is_schema = isinstance(record, pa.Schema)
        found = fields.of_schema(record) if self.is_schema else fields.of_class(record)
        self.fields: tuple[fields.Field, ...] = found.fields
        self.schema: pa.Schema = pa.schema([f.kind.field(f.column) for f in found.fields])
        self._found = found
        self._by_column = {field.column: field for field in found.fields}

    def field(self, column: str) -> fields.Field:
        """Return the field of a column; raises ConfigError."""
        try:
            return self._by_column[column]
        except KeyError:
            names = ", ".join(self.schema.names)
            raise ConfigError(f"the record has no column {column!r}; it has {names}") from None

    def narrowed(self, names: Sequence[str]) -> pa.Schema:
        """Return the schema of some of the columns, in the record's order; raises ConfigError."""
        wanted = {self.field(column).column for column in names}
        return pa.schema([member for member in self.schema if member.name in wanted])

    def absent(self, column: str) -> Any:
        """Return the packed value of a column that a file does not have."""
        return self._by_column[column].packed_absent()

    def _default(self, column: str) -> Any:
        """The same for a table to be written, where only defaults and nulls may be missing."""
        field = self._by_column[column]
        if field.default is None and not field.kind.nullable:
            raise KeyError(column)
        return field.packed_absent()

    # --- rows into columns

    def to_table(self, rows: Sequence[T], constants: Mapping[str, Any] = NONE) -> pa.Table:
        """Return the rows as a table; `constants` replace columns. Raises EncodeError."""
        if self.is_schema:
            self._check_names(rows)
        arrays = [
            conform.constant(constants[field.column], self.schema.field(field.column), len(rows))
            if field.column in constants
            else self._column(field, rows)
            for field in self.fields
        ]
        return pa.table(arrays, schema=self.schema)

    def for_writing(self, table: pa.Table, constants: Mapping[str, Any] = NONE) -> pa.Table:
        """Return a caller's table in the record's columns; raises EncodeError."""
        return conform.for_writing(table, self.schema, self._default, constants)

    def _check_names(self, rows: Sequence[Any]) -> None:
        for position, row in enumerate(rows):
            if not row.keys() <= self._by_column.keys():
                extra = min(row.keys() - self._by_column.keys())
                raise EncodeError(f"row {position}: the record has no column {extra!r}")

    def _column(self, field: fields.Field, rows: Sequence[Any]) -> pa.Array:
        try:
            if self.is_schema:
                values = [row.get(field.column) for row in rows]
            else:
                values = list(map(attrgetter(field.attribute), rows))
            if (pack := field.kind.pack) is not None:
                values = [None if value is None else pack(value) for value in values]
            array = _array(values, field.kind.type)
        except (pa.ArrowException, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise EncodeError(f"column {field.column!r}: {error}") from error
        if array.null_count and not field.kind.nullable:
            row = values.index(None) if None in values else 0
            raise EncodeError(
                f"column {field.column!r}, row {row}: None, but the record says it never is"
            )
        return array

    # --- columns into rows

    def to_rows(self, table: pa.Table) -> list[T]:
        """Return a table that fits the record as rows; raises DecodeError.

        Columns left out of the table take the field's default or zero value.
        """
        count = table.num_rows
        try:
            values = [self._values(field, table, count) for field in self._used(table)]
            return self._rows(values, self._used(table))
        except (ValueError, TypeError, OverflowError) as error:
            raise DecodeError("", f"no {self._name()} can be made: {error}") from error

    def _used(self, table: pa.Table) -> tuple[fields.Field, ...]:
        """Dicts have the columns that were read; classes need every field."""
        if not self.is_schema:
            return self.fields
        return tuple(field for field in self.fields if field.column in table.column_names)

    def _rows(self, values: list[list[Any]], used: tuple[fields.Field, ...]) -> list[T]:
        make = self._found.make
        if self._found.positional:
            return list(map(make, *values))
        names = [field.attribute for field in used]
        made = (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))
        return list(made) if self.is_schema else [make(**row) for row in made]  # type: ignore[arg-type]

    def _values(self, field: fields.Field, table: pa.Table, count: int) -> list[Any]:
        if field.column not in table.column_names:
            return [field.absent() for _ in range(count)]
        column = table.column(field.column)
        values = _python_values(column)
        unpack = field.kind.unpack
        if unpack is None:
            return values
        return [None if value is None else unpack(value) for value in values]

    def _name(self) -> str:
        return "dict" if self.is_schema else str(getattr(self.record, "__name__", "record"))


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    packed = columns.packed_type(type_)
    array = pa.array(values, packed)
    return array if packed == type_ else conform.cast(array, type_)


def _python_values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column; Arrow would look up the zone of each moment."""
    column = _for_python(column)
    if not pa.types.is_timestamp(column.type):
        values: list[Any] = column.to_pylist()
        return values
    counts = pc.cast(column, pa.int64()).to_pylist()
    tick = _TICKS[column.type.unit]
    if column.null_count:
        return [None if count is None else _EPOCH + count * tick for count in counts]
    return list(map(_EPOCH.__add__, map(tick.__mul__, counts)))


def _for_python(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times as Python has them: in microseconds, and in a zone that needs no zone database."""
    wanted = _python_type(column.type)
    if wanted == column.type:
        return column
    return pc.cast(column, options=pc.CastOptions(wanted, allow_time_truncate=True))


def _python_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us" if type_.unit == "ns" else type_.unit, "+00:00")
    if pa.types.is_map(type_):
        item = type_.item_field
        return pa.map_(type_.key_type, item.with_type(_python_type(item.type)))
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(_python_type(type_.value_type)))
    if pa.types.is_struct(type_):
        return pa.struct([member.with_type(_python_type(member.type)) for member in type_])
    return type_
