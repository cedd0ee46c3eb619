"""From a report to what is printed: a table for people, JSON for programs, notes in both.

Rule: a report is a dataclass and its JSON is that dataclass, field by field, so that nothing a
table shows is missing for a program. Standard output carries the report and nothing else.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, TypeVar

import click

_Report = TypeVar("_Report")
_COMMANDS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # all control characters but line feed
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def emit(report: _Report, form: str, table: Callable[[_Report], Iterable[str]]) -> None:
    """Print `report` as "json", or as the lines `table` makes of it with its notes behind them."""
    if form == "json":
        click.echo(json.dumps(as_json(report), indent=2))
        return
    for line in table(report):
        click.echo(visible(line))
    notes: Sequence[str] = getattr(report, "notes", ())
    if notes:
        click.echo("\nNotes:")
        for note in notes:
            click.echo(visible(f"- {note}"))


def visible(text: str) -> str:
    r"""Return text without what would command a terminal: keys and messages come from others.

    >>> visible("red \x1b[31m")
    'red \\x1b[31m'
    """
    text = _COMMANDS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return text.encode("utf-8", "backslashreplace").decode()


def as_json(value: Any) -> Any:
    """A report's value in JSON's terms; durations are seconds, moments ISO 8601."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: as_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Enum):
        return as_json(value.value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_json(each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def human_bytes(count: float) -> str:
    """Return a count of bytes in binary units with one decimal.

    >>> human_bytes(1536), human_bytes(512)
    ('1.5 KiB', '512 B')
    """
    size = float(count)
    for unit in _UNITS:
        if abs(size) < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def columns(titles: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> list[str]:
    """Lines of a table under its titles, the first `left` columns flush left, the others right.

    >>> columns(("key", "size"), [("a", 1), ("long", 20)])
    ['key   size', 'a        1', 'long    20']
    """
    cells = [tuple(map(str, titles)), *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        placed = [
            cell.ljust(width) if position < left else cell.rjust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(placed).rstrip()

    return [line(row) for row in cells]
