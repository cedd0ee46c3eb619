"""One table of a policy, asked key by key; what is wrong gathers in a list.

Rule: a wrong value never ends the reading. Its question is answered with the default, so that the
next mistake is found, too, and nothing that was read with a mistake in it is used.
"""

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from s4gateway.tools.durations import parse_duration

LONGEST: Final = timedelta(days=36_525)  # a hundred years: no object is older
_SHOWN: Final = 100  # characters of what is quoted


class RuleReading:
    """One rule's table; each question names its own problem and is answered with a usable value.

    >>> problems: list[str] = []
    >>> reading = RuleReading({"name": "cold", "concurrency": 0}, 1, problems)
    >>> reading.whole("concurrency", 4, 1, 256), problems
    (4, ["rule 'cold': concurrency is 0, not a number from 1 to 256"])
    """

    def __init__(self, entries: Mapping[str, Any], number: int, problems: list[str]) -> None:
        self._entries = entries
        self._problems = problems
        self._number = number
        self.failed = False
        name = entries.get("name")
        self.name = name if isinstance(name, str) and name.strip() else None

    def fail(self, problem: str) -> None:
        """Add a problem of this rule."""
        label = f"#{self._number}" if self.name is None else shown(self.name)
        self._problems.append(f"rule {label}: {problem}")
        self.failed = True

    def text(self, key: str, *, required: bool = False) -> str | None:
        """A string; a required one is not empty."""
        value = self._entries.get(key)
        if value is None:
            if required:
                self.fail(f"{key} is missing")
            return None
        if not isinstance(value, str):
            self.fail(f"{key} is no string")
            return None
        if required and not value.strip():
            self.fail(f"{key} is empty")
            return None
        return value

    def flag(self, key: str) -> bool:
        """True or false; false where it is not said."""
        value = self._entries.get(key, False)
        if not isinstance(value, bool):
            self.fail(f"{key} is neither true nor false")
            return False
        return value

    def whole(self, key: str, default: int | None, least: int, most: int | None) -> int | None:
        """A whole number within bounds."""
        value = self._entries.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"{key} is no whole number")
        elif value < least or (most is not None and value > most):
            bounds = f"from {least} up" if most is None else f"from {least} to {most}"
            self.fail(f"{key} is {shown(value)}, not a number {bounds}")
        else:
            return value
        return default

    def percent(self, key: str, default: float) -> float:
        """A number from 0 to below 100."""
        value = self._entries.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(f"{key} is no number")
        elif not (math.isfinite(value) and 0 <= value < 100):
            self.fail(f"{key} is {shown(value)}, not a number from 0 to below 100")
        else:
            return float(value)
        return default

    def duration(self, key: str) -> timedelta | None:
        """A duration."""
        if (text := self.text(key)) is None:
            return None
        try:
            found = parse_duration(text)
        except ValueError as error:
            self.fail(f"{key}: {error}")
            return None
        if found > LONGEST:
            self.fail(f"{key} {shown(text)} is more than a hundred years")
        return found

    def path(self, key: str) -> Path | None:
        """The name of a file."""
        text = self.text(key)
        if text is not None and (not text.strip() or "\0" in text):
            self.fail(f"{key} names no file")
            return None
        return None if text is None else Path(text)

    def choice(self, key: str, values: Iterable[str]) -> str | None:
        """One of some words."""
        text = self.text(key)
        if text is not None and text in values:
            return text
        if text is not None or key not in self._entries:
            wrong = "missing" if text is None else f"unknown: {shown(text)}"
            self.fail(f"{key} is {wrong}; give one of {', '.join(values)}")
        return None

    def refuse_others(self, known: Collection[str], elsewhere: Collection[str], where: str) -> None:
        """Name the keys that mean nothing here, apart those that would mean something elsewhere."""
        for key in self._entries:
            if key in known:
                continue
            if key in elsewhere:
                self.fail(f"{shown(key)} is no key of {where}")
            else:
                self.fail(unknown(key, known))


def unknown(key: str, known: Iterable[str]) -> str:
    """Say that a key is not known, and which one may have been meant."""
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"unknown key {shown(key)}" + (f" (did you mean {close[0]}?)" if close else "")


def shown(value: object) -> str:
    """A value as it stood in the file, of bounded length and without control characters."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write out numbers of thousands of digits
        return "far too large"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
