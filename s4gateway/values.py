"""`@immutable`: a dataclass that type checkers hold to be frozen and that costs little to make.

Rule: one request makes dozens of small records. A frozen dataclass assigns each field through
`object.__setattr__`, which makes creating it four to six times as expensive, so records on the path
of every request are frozen where it matters, in the type checker, and plain at run time. Everything
else is a frozen dataclass.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_Class = TypeVar("_Class")

_make: Callable[[type], type] = dataclass(slots=True, unsafe_hash=True)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def immutable(cls: type[_Class]) -> type[_Class]:
    """Make a slotted dataclass, compared and hashed by its fields, that nobody assigns to.

    >>> @immutable
    ... class Point:
    ...     x: int
    ...     y: int = 0
    >>> Point(1), Point(1) == Point(1, 0), hash(Point(1)) == hash(Point(1))
    (Point(x=1, y=0), True, True)
    """
    return _make(cls)
