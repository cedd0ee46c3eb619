"""The fields of a record class, and what their annotations mean as Parquet columns.

Rule: what a class declares is read once, at construction of a reader or writer; a class that cannot
be stored is a ConfigError that names the field. Dataclasses and pydantic models are seen alike;
pydantic is never imported: a model brings it.
"""

import dataclasses
import enum
import functools
import operator
import types
import typing
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, get_args, get_origin

import pyarrow as pa

from s4gateway.s3store import conform
from s4gateway.s3store.columns import (
    YEAR_ONE,
    Column,
    Kind,
    aware,
    check_type,
    day,
    each,
    listed,
    octets,
    pack_of,
)
from s4gateway.s3store.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record. `default` makes the value of a column that a file does not have."""

    attribute: str
    column: str
    kind: Kind
    default: Callable[[], Any] | None = None

    def absent(self) -> Any:
        """Return the value of this field in a file without its column."""
        value = self.default() if self.default else None
        return self.kind.zero() if value is None and not self.kind.nullable else value

    def packed_absent(self) -> Any:
        """Return the same as Arrow takes it."""
        value = self.absent()
        return value if value is None or self.kind.pack is None else self.kind.pack(value)


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a class, and how to make one of it from `attribute=value`."""

    fields: tuple[Field, ...]
    make: Callable[..., Any]
    positional: bool  # `make` also takes the values in the order of `fields`


def of_class(record: type, where: str = "") -> Fields:
    """Return the fields of a dataclass or pydantic model; raises ConfigError."""
    if dataclasses.is_dataclass(record):
        found = _of_dataclass(record)
    elif hasattr(record, "model_fields"):
        found = _of_model(record)
    else:
        what = f"{where}: " if where else ""
        raise ConfigError(f"{what}{record!r} is no dataclass, pydantic model or pyarrow.Schema")
    names = [field.column for field in found.fields]
    if not names:
        raise ConfigError(f"{record.__name__} has no fields")
    if len(set(names)) != len(names):
        raise ConfigError(f"{record.__name__}: two fields have the same column, {names}")
    return found


def of_schema(schema: pa.Schema) -> Fields:
    """Return the fields of rows that are dicts."""
    found = []
    for member in schema:
        stored = conform.stored_type(member)
        zero = functools.partial(conform.zero_of, stored)
        kind = Kind(stored, zero, member.nullable, pack=pack_of(stored))
        found.append(Field(member.name, member.name, kind))
    names = [field.column for field in found]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"a schema needs columns with different names, not {names}")
    return Fields(tuple(found), dict, positional=False)


def _of_dataclass(record: type) -> Fields:
    hints = _hints(record)
    found = []
    positional = True
    for declared in dataclasses.fields(record):
        if not declared.init:
            continue
        positional = positional and not declared.kw_only
        annotation = hints[declared.name]
        column = declared.metadata.get("column") or column_of(annotation)
        default = _default(declared.default, declared.default_factory, dataclasses.MISSING)
        found.append(_field(record, declared.name, declared.name, annotation, column, default))
    return Fields(tuple(found), record, positional)


def _of_model(record: Any) -> Fields:
    """A pydantic model; its values are validated when rows are made."""
    found = []
    inputs = {}
    for name, info in record.model_fields.items():
        column = next((extra for extra in info.metadata if isinstance(extra, Column)), None)
        alias = info.serialization_alias or info.alias or name
        inputs[name] = info.validation_alias if isinstance(info.validation_alias, str) else name
        default = None
        if not info.is_required():
            default = functools.partial(info.get_default, call_default_factory=True)
        found.append(_field(record, name, alias, info.annotation, column, default))

    def make(**values: Any) -> Any:
        return record.model_validate({inputs[name]: value for name, value in values.items()})

    return Fields(tuple(found), make, positional=False)


def _field(
    record: type,
    attribute: str,
    name: str,
    annotation: Any,
    column: Column | None,
    default: Callable[[], Any] | None,
) -> Field:
    kind = kind_of(annotation, column, f"{record.__name__}.{attribute}")
    return Field(attribute, (column and column.name) or name, kind, default)


def _default(value: Any, factory: Any, missing: object) -> Callable[[], Any] | None:
    if value is not missing:
        return lambda: value
    return factory if factory is not missing else None


def _hints(record: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(record, include_extras=True)
    except NameError as error:
        raise ConfigError(f"{record.__name__}: an annotation cannot be resolved: {error}") from None


# --- annotations


def kind_of(annotation: Any, column: Column | None, where: str) -> Kind:
    """Return what an annotation means; raises ConfigError naming the field `where`."""
    if get_origin(annotation) is Annotated:
        inner, *extras = get_args(annotation)
        own = next((extra for extra in extras if isinstance(extra, Column)), None)
        return kind_of(inner, own or column, where)
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return _optional(annotation, column, where)
    kind = _plain(annotation, column, where)
    if column is None or column.type is None:
        return kind
    return _overridden(annotation, kind, check_type(column.type, where))


def column_of(annotation: Any) -> Column | None:
    """Return the `Column` in an annotation, None when there is none."""
    if get_origin(annotation) is not Annotated:
        return None
    return next((extra for extra in get_args(annotation) if isinstance(extra, Column)), None)


def _optional(annotation: Any, column: Column | None, where: str) -> Kind:
    choices = [choice for choice in get_args(annotation) if choice is not types.NoneType]
    if len(choices) != 1:
        raise ConfigError(f"{where}: {annotation} is no column; a union may only add None")
    inner = kind_of(choices[0], column, where)
    return Kind(inner.type, lambda: None, True, inner.pack, inner.unpack)


def _plain(annotation: Any, column: Column | None, where: str) -> Kind:
    if (kind := _SIMPLE.get(annotation)) is not None:
        return kind
    if get_origin(annotation) is list:
        return _list(kind_of(get_args(annotation)[0], None, f"{where}[]"))
    if get_origin(annotation) is dict:
        key, value = get_args(annotation)
        if key is not str:
            raise ConfigError(f"{where}: {annotation} is no column; keys of a map are str")
        return _map(kind_of(value, None, f"{where}{{}}"))
    if annotation is Decimal:
        if column is None or column.type is None:
            raise ConfigError(f"{where}: Decimal needs Column(type=pa.decimal128(digits, scale))")
        return Kind(column.type, Decimal)
    if isinstance(annotation, type):
        if issubclass(annotation, enum.Enum):
            return _enum(annotation, where)
        return _record(annotation, where)
    raise ConfigError(f"{where}: {annotation!r} is no column; give a Column(type=...) it has")


def _overridden(annotation: Any, kind: Kind, type_: pa.DataType) -> Kind:
    """Another Arrow type under the same Python type."""
    unpack = kind.unpack
    if pa.types.is_decimal(type_) and annotation in (int, float):
        unpack = annotation
    return Kind(type_, kind.zero, kind.nullable, kind.pack, unpack)


_SIMPLE: Final[dict[Any, Kind]] = {
    str: Kind(pa.string(), str),
    int: Kind(pa.int64(), int, pack=operator.index),
    float: Kind(pa.float64(), float),
    bool: Kind(pa.bool_(), bool),
    bytes: Kind(pa.binary(), bytes),
    datetime: Kind(pa.timestamp("us", "UTC"), lambda: YEAR_ONE, pack=aware),
    date: Kind(pa.date32(), lambda: date.min, pack=day),
    uuid.UUID: Kind(pa.uuid(), lambda: uuid.UUID(int=0), pack=octets),
}


def _list(item: Kind) -> Kind:
    unpack = None if item.unpack is None else each(item.unpack)
    return Kind(pa.list_(item.field("element")), list, False, listed(item.pack), unpack)


def _map(value: Kind) -> Kind:
    pack, unpack = value.pack or _same, value.unpack or _same

    def to_pairs(mapping: dict[str, Any]) -> list[tuple[str, Any]]:
        return [(k, None if v is None else pack(v)) for k, v in mapping.items()]

    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {k: None if v is None else unpack(v) for k, v in pairs}

    return Kind(pa.map_(pa.string(), value.field("value")), dict, False, to_pairs, to_dict)


def _enum(kind: type[enum.Enum], where: str) -> Kind:
    if issubclass(kind, str):
        stored = pa.string()
    elif issubclass(kind, int):
        stored = pa.int64()
    else:
        raise ConfigError(f"{where}: {kind.__name__} must also be a str or an int (StrEnum)")
    zero = next((member for member in kind if not member.value), next(iter(kind)))
    return Kind(stored, lambda: zero, False, lambda member: kind(member).value, kind)


def _record(kind: type, where: str) -> Kind:
    """A record inside a record: a struct."""
    inner = of_class(kind, where)
    packs = [(f.attribute, f.column, f.kind.pack or _same) for f in inner.fields]
    unpacks = [(f.attribute, f.column, f.kind.unpack or _same) for f in inner.fields]

    def to_dict(record: Any) -> dict[str, Any]:
        values = ((column, getattr(record, name), pack) for name, column, pack in packs)
        return {column: None if v is None else pack(v) for column, v, pack in values}

    def to_record(stored: dict[str, Any]) -> Any:
        values = ((name, stored[column], unpack) for name, column, unpack in unpacks)
        return inner.make(**{name: None if v is None else unpack(v) for name, v, unpack in values})

    def zero() -> Any:
        return inner.make(**{field.attribute: field.absent() for field in inner.fields})

    members = pa.struct([field.kind.field(field.column) for field in inner.fields])
    return Kind(members, zero, False, to_dict, to_record)


def _same(value: Any) -> Any:
    return value
