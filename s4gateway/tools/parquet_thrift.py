"""Thrift's compact protocol, as far as rewriting Parquet's metadata needs it.

Rule: what is not understood is kept, byte for byte. A structure is taken apart only where a `Shape`
asks for it; every other value stays the bytes it was read as, and numbers keep their type, so that
fields of later versions of the format survive. Nothing that a length or a count claims is believed
before the bytes are there, and nesting is bounded.
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Collection, Mapping
from typing import Final, Union

_TRUE: Final = 1
_FALSE: Final = 2
_BYTE: Final = 3
_NUMBERS: Final = frozenset({4, 5, 6})  # i16, i32, i64: zigzag varints
_DOUBLE: Final = 7
_BINARY: Final = 8
_SEQUENCES: Final = frozenset({9, 10})  # list, set
_MAP: Final = 11
_STRUCT: Final = 12
_UUID: Final = 13
_SIZES: Final = {_BYTE: 1, _DOUBLE: 8, _UUID: 16, _TRUE: 1, _FALSE: 1}  # inside collections

_LONG_LIST: Final = 15
_DEEPEST: Final = 32
_VARINT: Final = 10  # bytes of a 64-bit number at most

Shape = Mapping[int, "Shape"]
Value = Union[int, bool, bytes, "Struct", "list[Struct]"]


class ThriftError(Exception):
    """The bytes are no structure of the compact protocol, or another one than expected."""


class Truncated(ThriftError):
    """The bytes end inside the structure."""


class Struct:
    """Fields by number, in the order they were written; `kinds` are their wire types."""

    __slots__ = ("kinds", "values")

    def __init__(self) -> None:
        self.values: dict[int, Value] = {}
        self.kinds: dict[int, int] = {}

    def __contains__(self, field: int) -> bool:
        return field in self.values

    def number(self, field: int) -> int | None:
        """The integer in a field, None without one; raises ThriftError."""
        value = self.values.get(field)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ThriftError(f"field {field} is no number")
        return value

    def required(self, field: int) -> int:
        """The integer that must be there; raises ThriftError."""
        value = self.number(field)
        if value is None:
            raise ThriftError(f"field {field} is missing")
        return value

    def flag(self, field: int, *, default: bool) -> bool:
        """The boolean in a field; raises ThriftError."""
        value = self.values.get(field, default)
        if not isinstance(value, bool):
            raise ThriftError(f"field {field} is no boolean")
        return value

    def struct(self, field: int) -> "Struct":
        """The structure in a field that its shape names; raises ThriftError."""
        value = self.values.get(field)
        if not isinstance(value, Struct):
            raise ThriftError(f"field {field} is no structure")
        return value

    def structs(self, field: int) -> "list[Struct]":
        """The structures of a list that its shape names; raises ThriftError."""
        value = self.values.get(field)
        if not isinstance(value, list):
            raise ThriftError(f"field {field} is no list of structures")
        return value

    def set_number(self, field: int, value: int) -> None:
        """Change the integer in a field that is there."""
        self.required(field)
        self.values[field] = value

    def set_flag(self, field: int, *, value: bool) -> None:
        """Set a boolean, which may be new."""
        self.values[field] = value
        self.kinds[field] = _TRUE

    def is_same(self, other: "Struct", but: Collection[int] = ()) -> bool:
        """Whether both have the same fields with the same values, `but` for those of some.

        Those must be there in both, or in neither. Structures that were taken apart are compared
        by whoever took them apart.
        """
        if self.values.keys() != other.values.keys():
            return False
        return all(
            other.values[field] == value
            for field, value in self.values.items()
            if field not in but and not isinstance(value, (Struct, list))
        )

    def pack(self) -> bytes:
        """The structure's bytes."""
        out = bytearray()
        self._append(out)
        return bytes(out)

    def _append(self, out: bytearray) -> None:
        last = 0
        for field, value in self.values.items():
            kind = self.kinds[field]
            if isinstance(value, bool):
                kind = _TRUE if value else _FALSE
            if 0 < field - last <= 15:
                out.append((field - last) << 4 | kind)
            else:
                out.append(kind)
                _append_varint(out, _zigzag(field))
            last = field
            if isinstance(value, bool):
                continue
            if isinstance(value, int):
                _append_varint(out, _zigzag(value))
            elif isinstance(value, bytes):
                out += value
            elif isinstance(value, Struct):
                value._append(out)
            else:
                _append_list(out, value)
        out.append(0)


def parse(data: bytes, shape: Shape, start: int = 0) -> tuple[Struct, int]:
    r"""The structure at `start` and where it ends; raises ThriftError, Truncated.

    >>> found, end = parse(bytes([0x15, 0x02, 0x18, 0x01, 0x61, 0x00]), {})
    >>> found.number(1), found.values[2], end
    (1, b'\x01a', 6)
    """
    reader = _Reader(data, start)
    try:
        return reader.struct(shape, 0), reader.at
    except IndexError:
        raise Truncated(f"the structure goes on behind byte {len(data)}") from None


class _Reader:
    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def struct(self, shape: Shape, depth: int) -> Struct:
        found = Struct()
        last = 0
        while head := self._byte():
            kind = head & 15
            last = last + (head >> 4) if head >> 4 else self._number()
            if last in found.values:
                raise ThriftError(f"field {last} twice")
            found.kinds[last] = kind
            found.values[last] = self._value(kind, shape.get(last), depth)
        return found

    def _value(self, kind: int, shape: Shape | None, depth: int) -> Value:
        if kind in _NUMBERS:
            return self._number()
        if kind in {_TRUE, _FALSE}:
            return kind == _TRUE
        if shape is not None and kind == _STRUCT:
            return self.struct(shape, depth + 1)
        if shape is not None and kind in _SEQUENCES:
            return self._structs(shape, depth + 1)
        start = self.at
        self._skip(kind, depth + 1)
        return self.data[start : self.at]

    def _structs(self, shape: Shape, depth: int) -> list[Struct]:
        count, kind = self._list_header()
        if kind != _STRUCT and count:
            raise ThriftError(f"a list of type {kind} instead of structures")
        return [self.struct(shape, depth) for _ in range(count)]

    def _skip(self, kind: int, depth: int) -> None:
        """Go behind a value of a field, or of a collection, whose booleans take a byte."""
        if depth > _DEEPEST:
            raise ThriftError(f"structures nested deeper than {_DEEPEST}")
        if kind in _NUMBERS:
            self._varint()
        elif kind == _BINARY:
            self._forward(self._varint())
        elif kind == _STRUCT:
            self._skip_fields(depth + 1)
        elif kind in _SEQUENCES:
            count, inner = self._list_header()
            for _ in range(count):
                self._skip(inner, depth + 1)
        elif kind == _MAP:
            count = self._count(self._varint())
            kinds = self._byte() if count else 0
            for _ in range(count):
                self._skip(kinds >> 4, depth + 1)
                self._skip(kinds & 15, depth + 1)
        elif kind in _SIZES:
            self._forward(_SIZES[kind])
        else:
            raise ThriftError(f"type {kind} is none of the protocol")

    def _skip_fields(self, depth: int) -> None:
        while head := self._byte():
            if not head >> 4:
                self._varint()
            if head & 15 not in {_TRUE, _FALSE}:
                self._skip(head & 15, depth)

    def _list_header(self) -> tuple[int, int]:
        head = self._byte()
        count = head >> 4
        if count == _LONG_LIST:
            count = self._varint()
        return self._count(count), head & 15

    def _count(self, count: int) -> int:
        """A count of elements, each of which takes a byte at least."""
        if count > len(self.data) - self.at:
            raise Truncated(f"{count} elements in {len(self.data) - self.at} bytes")
        return count

    def _forward(self, count: int) -> None:
        if count > len(self.data) - self.at:
            raise Truncated(f"a value of {count} bytes goes on behind byte {len(self.data)}")
        self.at += count

    def _byte(self) -> int:
        value = self.data[self.at]
        self.at += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        for _ in range(_VARINT):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ThriftError("a number of more than 64 bits")

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else ((-value) << 1) - 1


def _append_varint(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def _append_list(out: bytearray, structs: list[Struct]) -> None:
    if len(structs) < _LONG_LIST:
        out.append(len(structs) << 4 | _STRUCT)
    else:
        out.append(_LONG_LIST << 4 | _STRUCT)
        _append_varint(out, len(structs))
    for each in structs:
        each._append(out)
