"""Tables brought to a record's columns: what was read, and what a caller wants to write.

Stored files differ in what does not matter (ms, us or ns; int32 or int64; string, large_string or
dictionary; columns added later). Rule: reading is lenient where Go's reader is (a column that is
absent or null becomes the field's default or zero value, times lose what is below a microsecond)
and an error wherever a value would change otherwise; writing is strict.
"""

import decimal
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from s4gateway.s3store import columns
from s4gateway.s3store.errors import EncodeError

Absent = Callable[[str], Any]  # the packed value of a column that a table does not have


class Unfit(ValueError):
    """A column that cannot be brought to its type."""


def stored_type(member: pa.Field) -> pa.DataType:
    """Return the type a schema's column is stored in; raises ConfigError."""
    return columns.check_type(member.type, f"column {member.name!r}")


def zero_of(type_: pa.DataType) -> Any:
    """Return what stands for a value that is absent, as Arrow takes it."""
    if pa.types.is_timestamp(type_):
        return _first_moment(type_)
    if pa.types.is_struct(type_):
        return {member.name: zero_of(member.type) for member in type_}
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_map(type_):
        return []
    if pa.types.is_decimal(type_):
        return decimal.Decimal(0)
    if pa.types.is_fixed_size_binary(type_):
        return bytes(type_.byte_width)
    if isinstance(type_, pa.BaseExtensionType):
        return zero_of(type_.storage_type)
    if pa.types.is_date(type_):
        return columns.YEAR_ONE.date()
    return _ZEROS.get(type_, 0)


_ZEROS = {
    pa.string(): "",
    pa.large_string(): "",
    pa.binary(): b"",
    pa.large_binary(): b"",
    pa.bool_(): False,
}


def _first_moment(type_: pa.DataType) -> Any:
    """Year 1; in nanoseconds, which do not reach it, 1970."""
    return 0 if type_.unit == "ns" else columns.YEAR_ONE


def constant(value: Any, member: pa.Field, length: int) -> pa.Array:
    """Return a column that holds `value`, as Arrow takes it, in every row."""
    type_ = member.type
    if isinstance(type_, pa.BaseExtensionType):
        stored = constant(_bytes_of(value), pa.field("", type_.storage_type), length)
        return pa.ExtensionArray.from_storage(type_, stored)
    return pa.repeat(pa.scalar(value, type_), length)


def _bytes_of(value: Any) -> Any:
    return getattr(value, "bytes", value)  # a UUID's storage


# --- reading


def to_schema(table: pa.Table, schema: pa.Schema, absent: Absent) -> pa.Table:
    """Return a table with exactly the columns of `schema`; raises Unfit naming the column."""
    made = []
    for member in schema:
        if member.name not in table.column_names:
            made.append(constant(absent(member.name), member, table.num_rows))
            continue
        try:
            made.append(_fit(table.column(member.name), member))
        except (pa.ArrowException, ValueError) as error:
            raise Unfit(f"column {member.name!r} does not fit {member.type}: {error}") from None
    return pa.table(made, schema=schema)


def _fit(column: Any, member: pa.Field) -> Any:
    fitted = cast(column, member.type)
    if member.nullable or not fitted.null_count:
        return fitted
    if isinstance(member.type, pa.BaseExtensionType):
        storage = pa.field("", member.type.storage_type, nullable=False)
        return pa.ExtensionArray.from_storage(member.type, _fit(_storage(fitted), storage))
    return pc.coalesce(fitted, pa.scalar(zero_of(member.type), member.type))


def cast(column: Any, wanted: pa.DataType) -> Any:
    """Return a column in another type of the same meaning; raises ArrowException, ValueError."""
    if column.type == wanted:
        return column
    if pa.types.is_dictionary(column.type):
        return cast(pc.cast(column, column.type.value_type), wanted)
    if isinstance(column.type, pa.BaseExtensionType):
        return cast(_storage(column), wanted)
    if isinstance(wanted, pa.BaseExtensionType):
        stored = cast(_whole(column), wanted.storage_type)
        return pa.ExtensionArray.from_storage(wanted, stored)
    if pa.types.is_struct(wanted) and pa.types.is_struct(column.type):
        return _cast_struct(_whole(column), wanted)
    if pa.types.is_map(wanted) and pa.types.is_map(column.type):
        return _cast_map(_whole(column), wanted)
    if pa.types.is_list(wanted) and pa.types.is_list(column.type):
        return _cast_list(_whole(column), wanted)
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        column = pc.cast(column, pa.timestamp(column.type.unit, "UTC"))
    return pc.cast(column, options=pc.CastOptions(wanted, allow_time_truncate=True))


def _cast_struct(array: Any, wanted: pa.DataType) -> Any:
    present = {member.name for member in array.type}
    members = [
        _fit(pc.struct_field(array, member.name), member)
        if member.name in present
        else constant(None if member.nullable else zero_of(member.type), member, len(array))
        for member in wanted
    ]
    nulls = pc.is_null(array) if array.null_count else None
    return pa.StructArray.from_arrays(members, fields=list(wanted), mask=nulls)


def _cast_list(array: Any, wanted: pa.DataType) -> Any:
    values = _fit(array.values, wanted.value_field)
    return pa.ListArray.from_arrays(_offsets(array), values, type=wanted)


def _cast_map(array: Any, wanted: pa.DataType) -> Any:
    keys = cast(array.keys, wanted.key_type)
    items = _fit(array.items, wanted.item_field)
    return pa.MapArray.from_arrays(_offsets(array), keys, items, type=wanted)


def _offsets(array: Any) -> Any:
    """The offsets of lists, null where the list is."""
    if not array.null_count:
        return array.offsets
    nulls = pa.concat_arrays([pc.is_null(array), pa.array([False])])
    return pc.if_else(nulls, pa.scalar(None, array.offsets.type), array.offsets)


def _storage(column: Any) -> Any:
    return _whole(column).storage


def _whole(column: Any) -> Any:
    """One array of a chunked one."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


# --- writing


def for_writing(
    table: pa.Table, schema: pa.Schema, absent: Absent, constants: Mapping[str, Any]
) -> pa.Table:
    """Return a caller's table in the record's columns, with `constants` in theirs.

    Raises EncodeError for columns the record does not have, for those it needs, for nulls in
    required ones, for times without a zone, and for values that would change.
    """
    if extra := [name for name in table.column_names if name not in schema.names]:
        raise EncodeError(f"the record has no column {extra[0]!r}; it has {schema.names}")
    made = []
    for member in schema:
        if member.name in constants:
            made.append(constant(constants[member.name], member, table.num_rows))
        elif member.name in table.column_names:
            made.append(_exactly(table.column(member.name), member))
        else:
            made.append(constant(_needed(absent, member), member, table.num_rows))
    return pa.table(made, schema=schema)


def _needed(absent: Absent, member: pa.Field) -> Any:
    try:
        return absent(member.name)
    except KeyError:
        raise EncodeError(f"column {member.name!r} is missing, and has no default") from None


def _exactly(column: Any, member: pa.Field) -> Any:
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        raise EncodeError(f"column {member.name!r} holds times without a time zone")
    if column.null_count and not member.nullable:
        raise EncodeError(f"column {member.name!r} holds nulls, but the record says it never does")
    try:
        if pa.types.is_timestamp(column.type) and pa.types.is_timestamp(member.type):
            return pc.cast(column, member.type)
        return cast(column, member.type)
    except (pa.ArrowException, ValueError) as error:
        raise EncodeError(f"column {member.name!r} does not fit {member.type}: {error}") from None
