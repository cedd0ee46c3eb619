"""Times as texts in the names of view markers, and back.

Rule: the same moment gives the same text on every side, whoever writes: in UTC, in a form that the
view fixes once. Another form makes other names, and the markers of the old one are not found any
more. RFC 3339 is written as Go writes it, with Z for UTC. https://www.rfc-editor.org/rfc/rfc3339
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Final

from s4gateway.s3store.errors import ConfigError
from s4gateway.s3store.layout import value_problem

_SAMPLE: Final = datetime(2026, 3, 17, 14, 4, 5, 123456, UTC)
_directives: Final = re.compile(r"%.", re.DOTALL)
_is_rfc3339: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII
).fullmatch


@dataclass(frozen=True, slots=True)
class Layout:
    """How a view writes its time columns: a strftime pattern, `RFC3339` or `RFC3339_NANO`.

    Moments have microseconds; what a column holds beyond them is cut.

    >>> Layout("%Y-%m-%d").format(datetime(2026, 3, 17, 9, 30, tzinfo=UTC))
    '2026-03-17'
    """

    RFC3339: ClassVar[str] = "2006-01-02T15:04:05Z07:00"
    RFC3339_NANO: ClassVar[str] = "2006-01-02T15:04:05.999999999Z07:00"

    time: str | None = None

    def __post_init__(self) -> None:
        if self.time is None or self._is_rfc3339:
            return
        if "%" not in self.time:
            raise ConfigError(
                f"layout: {self.time!r} is no strftime pattern; write one, Layout.RFC3339 or"
                " Layout.RFC3339_NANO"
            )
        try:
            text = self.format(_SAMPLE)
            self.parse(text)
        except ValueError as error:
            raise ConfigError(f"layout: {self.time!r} cannot be read again: {error}") from None
        if problem := value_problem(text):
            raise ConfigError(f"layout: {self.time!r} makes {text!r}: {problem}")

    @property
    def _is_rfc3339(self) -> bool:
        return self.time in (self.RFC3339, self.RFC3339_NANO)

    def format(self, moment: datetime) -> str:
        """Return the text of a moment, in UTC."""
        moment = moment.astimezone(UTC)
        if not self._is_rfc3339:
            return _strftime(moment, self.time or "")
        seconds = moment.replace(microsecond=0, tzinfo=None).isoformat()
        fraction = ""
        if self.time == self.RFC3339_NANO and moment.microsecond:
            fraction = f".{moment.microsecond:06d}".rstrip("0")
        return f"{seconds}{fraction}Z"

    def parse(self, text: str) -> datetime:
        """Return the moment in UTC, which is also the zone of a text without one.

        Raises ValueError.
        """
        if self._is_rfc3339:
            if not _is_rfc3339(text):
                raise ValueError(f"{text!r} is no RFC 3339 time")
            return datetime.fromisoformat(text).astimezone(UTC)
        moment = datetime.strptime(text, self.time or "")  # noqa: DTZ007 - UTC in the next line
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)


def _strftime(moment: datetime, pattern: str) -> str:
    """`strftime` with four digits for every year; libc leaves the zeros out."""

    def directive(found: re.Match[str]) -> str:
        return f"{moment.year:04d}" if found[0] == "%Y" else moment.strftime(found[0])

    return _directives.sub(directive, pattern)
