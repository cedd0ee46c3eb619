"""Patterns over partition keys and view columns: parsed once, matched often, planned as a LIST.

    pattern := "" | "*" | segment ("/" segment)*         one segment for each part
    segment := "*" | part "=" value
    value   := literal | literal "*" | from ".." to      from <= value < to, either may be absent

Rule: all patterns of a call are parsed before its first request, and the first bad one is an error
that says which and why. Values are compared by their UTF-8 bytes.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from s4gateway.s3store.errors import KeyPatternError

_REJECTED: Final = "/?[]{}"


@dataclass(frozen=True, slots=True)
class Prefix:
    """In the mapping form of a pattern: values that begin with `text`."""

    text: str


Choice: TypeAlias = str | Prefix | tuple[str | None, str | None] | None
Pattern: TypeAlias = str | Mapping[str, Choice]


@dataclass(frozen=True, slots=True)
class _Segment:
    """What one segment of a key must be: `exact`, else begin with `head`, and be in the range."""

    label: str
    exact: str | None = None
    head: str = ""
    low: bytes | None = None
    high: bytes | None = None

    def matches(self, segment: str) -> bool:
        name, equals, value = segment.partition("=")
        if not equals or name != self.label:
            return False
        if self.exact is not None:
            return value == self.exact
        return value.startswith(self.head) and self._in_range(value)

    def _in_range(self, value: str) -> bool:
        if self.low is None and self.high is None:
            return True
        octets = value.encode()
        above = self.low is None or octets >= self.low
        return above and (self.high is None or octets < self.high)

    @property
    def common(self) -> str:
        """What every matching value begins with."""
        if not self.low or not self.high:
            return self.head
        pairs = zip(self.low, self.high, strict=False)
        shared = bytes(
            low for low, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
        )
        return shared.decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class Plan:
    """One parsed pattern: where to list, and which of the keys found there belong to it."""

    segments: tuple[_Segment | None, ...] | None  # None: every key, whatever its shape

    def matches(self, key: str) -> bool:
        """Whether a partition key belongs to the pattern."""
        if self.segments is None:
            return True
        found = key.split("/")
        if len(found) != len(self.segments):
            return False
        return all(
            wanted is None or wanted.matches(segment)
            for wanted, segment in zip(self.segments, found, strict=True)
        )

    @property
    def list_prefix(self) -> str:
        """What every matching key begins with, as far as a LIST prefix can say it.

        >>> parse(("period", "customer"), "period=2026-03-01..2026-04-01/customer=abc").list_prefix
        'period=2026-0'
        """
        prefix = ""
        for segment in self.segments or ():
            if segment is None:
                return prefix
            if segment.exact is None:
                return f"{prefix}{segment.label}={segment.common}" if _narrows(segment) else prefix
            prefix += f"{segment.label}={segment.exact}/"
        return prefix


def _narrows(segment: _Segment) -> bool:
    """Whether listing may be confined to the label: not when no shared text follows a range."""
    ranged = segment.low is not None or segment.high is not None
    return bool(segment.common) or not ranged


def compile_all(parts: Sequence[str], patterns: Pattern | Sequence[Pattern]) -> list[Plan]:
    """Parse the patterns of one call, the literally repeated ones once.

    A single pattern may stand without a list around it. Raises KeyPatternError.
    """
    given = patterns if isinstance(patterns, list | tuple) else [patterns]
    seen: dict[str, Plan] = {}
    for index, pattern in enumerate(given):
        if not isinstance(pattern, str | Mapping):
            raise KeyPatternError(index, pattern, "is neither a text nor a mapping")
        text = pattern if isinstance(pattern, str) else _text(parts, pattern, index)
        if text not in seen:
            seen[text] = parse(parts, text, index)
    return list(seen.values())


def parse(parts: Sequence[str], pattern: str, index: int = 0) -> Plan:
    """Parse one pattern; raises KeyPatternError."""
    if pattern in ("", "*"):
        return Plan(None)
    segments = pattern.split("/")
    if len(segments) != len(parts):
        reason = f"has {len(segments)} segments, {len(parts)} are needed"
        raise KeyPatternError(index, pattern, reason)
    try:
        return Plan(tuple(_segment(p, s) for p, s in zip(parts, segments, strict=True)))
    except _Rejected as rejected:
        raise KeyPatternError(index, pattern, str(rejected)) from None


class _Rejected(ValueError):
    """Why a pattern is none; leaves this module as a KeyPatternError."""


def _segment(part: str, text: str) -> _Segment | None:
    if text == "*":
        return None
    name, equals, value = text.partition("=")
    if not equals or name != part:
        raise _Rejected(f"segment {text!r} must be '*' or begin with {part}=")
    if bad := set(value) & set(_REJECTED):
        raise _Rejected(f"segment {text!r} holds {min(bad)!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Rejected(f"segment {text!r} is no valid Unicode") from None
    if ".." in value:
        return _range(part, text, value)
    star = value.find("*")
    if star < 0:
        return _Segment(part, exact=value)
    if star != len(value) - 1:
        raise _Rejected(f"segment {text!r} has a '*' that is not its only and last one")
    return _Segment(part, head=value[:-1])


def _range(part: str, text: str, value: str) -> _Segment:
    pieces = value.split("..")
    if len(pieces) != 2:
        raise _Rejected(f"segment {text!r} holds '..' more than once")
    low, high = (piece.encode() for piece in pieces)
    if not low and not high:
        raise _Rejected(f"segment {text!r} is a range without ends, write '*'")
    if "*" in value:
        raise _Rejected(f"segment {text!r} has a '*' in a range")
    if low and high and low > high:
        raise _Rejected(f"segment {text!r} is a range whose end is before its beginning")
    return _Segment(part, low=low or None, high=high or None)


def _text(parts: Sequence[str], choices: Mapping[str, Choice], index: int) -> str:
    """The text of the mapping form."""
    if unknown := [name for name in choices if name not in parts]:
        reason = f"there is no part {unknown[0]!r}, the parts are {', '.join(parts)}"
        raise KeyPatternError(index, dict(choices), reason)
    try:
        return "/".join(_choice(part, choices.get(part)) for part in parts)
    except _Rejected as reason:
        raise KeyPatternError(index, dict(choices), str(reason)) from None


def _choice(part: str, choice: Choice) -> str:
    match choice:
        case None | "*":
            return "*"
        case Prefix(text):
            return f"{part}={text}*"
        case (low, high):
            return f"{part}={low or ''}..{high or ''}"
        case str() if "*" in choice or ".." in choice:
            raise _Rejected(f"{part}: {choice!r} is no value; write Prefix(...) or a tuple")
        case str():
            return f"{part}={choice}"
    raise _Rejected(f"{part}: {choice!r} is no text, Prefix, tuple or None")
