"""Durations as Go's time.ParseDuration reads them: the grammar of the two timing objects.

Rule: the verdict and the nanoseconds are Go's, down to its float64 fractions, because writers in
both languages must agree about when a commit is final. https://pkg.go.dev/time#ParseDuration
"""

import re
from typing import Final

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, micro sign
    "μs": 1_000,  # U+03BC, Greek mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_TERM: Final = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?([^0-9.]+)")
_LIMIT: Final = 1 << 63  # of the magnitude; only a negative duration may reach it


def parse(text: str) -> int:
    """Return nanoseconds; raises ValueError with the reason.

    >>> parse("1m30s"), parse("1.5h"), parse(".5us"), parse("0")
    (90000000000, 5400000000000, 500, 0)
    >>> parse("5")
    Traceback (most recent call last):
    ...
    ValueError: '5' is no duration: write a number and a unit, as in 15s or 500ms
    """
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    if unsigned == "0":
        return 0
    total = _magnitude(text, unsigned)
    negative = text.startswith("-")
    if total > _LIMIT - (not negative):
        raise ValueError(f"{text!r} is no duration: more than 292 years")
    return -total if negative else total


def _magnitude(text: str, unsigned: str) -> int:
    total = position = 0
    while True:
        term = _TERM.match(unsigned, position)
        if term is None:
            raise _malformed(text)
        total += _term(text, term)
        if total > _LIMIT:
            raise ValueError(f"{text!r} is no duration: more than 292 years")
        position = term.end()
        if position == len(unsigned):
            return total


def _term(text: str, term: re.Match[str]) -> int:
    whole, _, fraction, unit_name = term.groups()
    unit = _UNITS.get(unit_name)
    if unit is None or not (whole or fraction):
        raise _malformed(text)
    count = int(whole.lstrip("0")[:20] or "0")  # the 20th digit alone is beyond 63 bits
    return count * unit + _fraction(fraction or "", unit)


def _fraction(digits: str, unit: int) -> int:
    """In float64, and without the digits that would overflow 63 bits, as Go computes it."""
    value, scale = 0, 1.0
    for digit in digits:
        longer = value * 10 + int(digit)
        if value > (_LIMIT - 1) // 10 or longer > _LIMIT:
            break
        value, scale = longer, scale * 10
    return int(float(value) * (float(unit) / scale))


def _malformed(text: str) -> ValueError:
    return ValueError(f"{text!r} is no duration: write a number and a unit, as in 15s or 500ms")


def serialize(nanoseconds: int) -> str:
    """Return a text that `parse` reads back, in the largest unit that needs no fraction.

    >>> serialize(90_000_000_000), serialize(1_500_000), serialize(0)
    ('90s', '1500us', '0s')
    """
    for name in ("s", "ms", "us"):
        if nanoseconds % _UNITS[name] == 0:
            return f"{nanoseconds // _UNITS[name]}{name}"
    return f"{nanoseconds}ns"
