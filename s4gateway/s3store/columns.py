"""Parquet columns: what a user may say about one, and what is known of one.

Rule: a column is REQUIRED unless the annotation says `| None`, because that is what other writers
of the format make of plain fields; and no type is used that a Go reader would read as something
else without noticing (INT96, decimals beyond 18 digits, times without a zone).
"""

import operator
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import pyarrow as pa

from s4gateway.s3store.errors import ConfigError

Convert = Callable[[Any], Any]
_MAX_PRECISION: Final = 18


@dataclass(frozen=True, slots=True)
class Column:
    """How one field is stored: the column's name, and an Arrow type instead of the usual one.

    >>> Column("amount", type=pa.decimal128(18, 6)).type
    Decimal128Type(decimal128(18, 6))
    """

    name: str | None = None
    type: pa.DataType | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """One annotation: its Arrow type, what stands for a value that is absent, and conversions.

    `pack` turns a value into what Arrow takes, `unpack` what Arrow gives into the value; None where
    nothing needs to be done. Neither sees None.
    """

    type: pa.DataType
    zero: Callable[[], Any]
    nullable: bool = False
    pack: Convert | None = None
    unpack: Convert | None = None

    def field(self, name: str) -> pa.Field:
        """Return the Arrow field of that name."""
        return pa.field(name, self.type, nullable=self.nullable)


def check_type(type_: pa.DataType, where: str) -> pa.DataType:
    """Return the type as it is stored; raises ConfigError for what others would read wrongly."""
    if pa.types.is_dictionary(type_):
        return check_type(type_.value_type, where)
    if pa.types.is_decimal(type_) and type_.precision > _MAX_PRECISION:
        raise ConfigError(f"{where}: {type_} has more than {_MAX_PRECISION} digits")
    if pa.types.is_timestamp(type_):
        if type_.tz is None:
            raise ConfigError(f"{where}: {type_} has no time zone, write tz='UTC'")
        return pa.timestamp(type_.unit, "UTC")
    if pa.types.is_map(type_):
        item = _checked_field(type_.item_field, where)
        return pa.map_(check_type(type_.key_type, where), item)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return pa.list_(_checked_field(type_.value_field, where))
    if pa.types.is_struct(type_):
        return pa.struct([_checked_field(field, where) for field in type_])
    return type_


def _checked_field(field: pa.Field, where: str) -> pa.Field:
    return pa.field(field.name, check_type(field.type, f"{where}.{field.name}"), field.nullable)


# --- values that Arrow would change without a word


def aware(moment: datetime) -> datetime:
    """Return the moment; raises ValueError for one without a zone, which Arrow takes for UTC."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    return moment


def day(value: date) -> date:
    """Return the date; raises ValueError for a datetime, which Arrow would cut."""
    if isinstance(value, datetime):
        raise ValueError(f"{value!r} is a moment, not a date")  # noqa: TRY004 - told as EncodeError
    return value


def octets(value: uuid.UUID) -> bytes:
    """Return the bytes of a UUID, which Arrow does not take inside of lists."""
    return value.bytes


def each(convert: Convert) -> Convert:
    """Return the conversion of lists by that of their items."""
    return lambda values: [None if value is None else convert(value) for value in values]


def listed(pack: Convert | None) -> Convert:
    """Return the conversion of lists; a text is none, although Arrow takes its letters."""
    inner = each(pack) if pack else list

    def checked(values: Any) -> list[Any]:
        if isinstance(values, str | bytes):
            raise TypeError(f"{values!r} is no list")
        items: list[Any] = inner(values)
        return items

    return checked


def pack_of(type_: pa.DataType) -> Convert | None:
    """Return what refuses values of a type that Arrow would change, None where it does not."""
    if pa.types.is_integer(type_):
        return operator.index  # 1.5 would become 1
    if pa.types.is_timestamp(type_):
        return aware
    if pa.types.is_date(type_):
        return day
    if type_ == pa.uuid():
        return octets
    if pa.types.is_list(type_):
        return listed(pack_of(type_.value_type))
    if pa.types.is_map(type_):
        return _mapped(pack_of(type_.item_type))
    if pa.types.is_struct(type_):
        return _structured({member.name: pack_of(member.type) for member in type_})
    return None


def _mapped(pack: Convert | None) -> Convert:
    def pairs(mapping: Any) -> list[tuple[Any, Any]]:
        found = mapping.items() if isinstance(mapping, Mapping) else mapping
        return [(k, v if v is None or pack is None else pack(v)) for k, v in found]

    return pairs


def _structured(packs: Mapping[str, Convert | None]) -> Convert:
    def members(value: Mapping[str, Any]) -> dict[str, Any]:
        if extra := value.keys() - packs.keys():
            raise ValueError(f"there is no member {min(extra)!r}")
        made = {}
        for name, item in value.items():
            pack = packs[name]
            made[name] = item if item is None or pack is None else pack(item)
        return made

    return members


def packed_type(type_: pa.DataType) -> pa.DataType:
    """Return the type of packed values: extension types as what they are stored in."""
    if isinstance(type_, pa.BaseExtensionType):
        return type_.storage_type
    if pa.types.is_list(type_):
        return pa.list_(_packed_field(type_.value_field))
    if pa.types.is_map(type_):
        return pa.map_(type_.key_type, _packed_field(type_.item_field))
    if pa.types.is_struct(type_):
        return pa.struct([_packed_field(member) for member in type_])
    return type_


def _packed_field(member: pa.Field) -> pa.Field:
    return member.with_type(packed_type(member.type))


YEAR_ONE: Final = datetime(1, 1, 1, tzinfo=UTC)
