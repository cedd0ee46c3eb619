"""The metadata of a commit marker: the one record of which attempt counts.

Rule: all four values are there and exact, or reading stops with an error that names the object. A
marker that lies must never look like one that is absent, which would hide committed rows.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from s4gateway.s3store import clock, layout
from s4gateway.s3store.errors import CommitMetadataError
from s4gateway.s3store.results import WriteResult

_is_int: Final = re.compile(r"[+-]?[0-9]+", re.ASCII).fullmatch
_INT64: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Commit:
    """Which attempt of a (partition, token) is the canonical one.

    >>> Commit("0" * 32, ref_us=5, inserted_us=4, rows=2).to_metadata()["rowcount"]
    '2'
    """

    attempt: str
    ref_us: int
    inserted_us: int
    rows: int

    def to_metadata(self) -> dict[str, str]:
        """Return the user metadata of the marker."""
        return {
            "attemptid": self.attempt,
            "refmicrots": str(self.ref_us),
            "insertedat": str(self.inserted_us),
            "rowcount": str(self.rows),
        }

    @classmethod
    def parse(cls, key: str, metadata: Mapping[str, str]) -> "Commit":
        """Return what the marker `key` says; raises CommitMetadataError.

        Names may come in any case: HTTP servers change it.
        """
        lowered = {name.lower(): value for name, value in metadata.items()}
        attempt = lowered.get("attemptid")
        if attempt is None:
            raise CommitMetadataError(key, "attemptid", "is missing")
        if not layout.is_attempt(attempt):
            raise CommitMetadataError(key, "attemptid", f"is no attempt id: {attempt!r}")
        numbers = [_number(key, name, lowered) for name in ("refmicrots", "insertedat", "rowcount")]
        return cls(attempt, *numbers)

    def result(self, keys: layout.Keys, partition: str, token: str) -> WriteResult:
        """Return what the write that made this marker returned."""
        ref = keys.ref(self.ref_us, token, self.attempt, partition)
        data = keys.data(partition, token, self.attempt)
        return WriteResult(ref, data, ref, clock.from_us(self.inserted_us), self.rows)


def _number(key: str, field: str, metadata: Mapping[str, str]) -> int:
    text = metadata.get(field)
    if text is None:
        raise CommitMetadataError(key, field, "is missing")
    if not _is_int(text) or len(text) > 4000:
        raise CommitMetadataError(key, field, f"is no decimal integer: {text[:80]!r}")
    value = int(text)
    if not -_INT64 <= value < _INT64:
        raise CommitMetadataError(key, field, f"does not fit 64 bits: {text[:80]!r}")
    if field != "rowcount":
        _check_moment(key, field, value)
    return value


def _check_moment(key: str, field: str, value: int) -> None:
    try:
        clock.from_us(value)
    except OverflowError:
        raise CommitMetadataError(
            key, field, f"is no moment of the years 1 to 9999: {value}"
        ) from None
