"""The savings ledger's counters: arithmetic, and the state file they are kept in.

    {"buckets":{"<bucket>":{"objects":1,"original_bytes":9,"stored_bytes":5}},
     "skipped_unaccounted":{"<bucket>":0}}

Rules: a counter is a whole number from 0 to 2^64 - 1, in memory and in the file; what would leave
that range stays at its end. A file is a state as a whole or not at all: nothing in it is guessed,
and what is not a state never becomes zeros by itself.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from s4gateway.state import files
from s4gateway.values import immutable

HIGHEST: Final = 2**64 - 1
FILE_LIMIT: Final = 64 * 1024 * 1024  # bytes, some 300,000 buckets
_NAME_LIMIT: Final = 255  # characters; S3 allows 63, and 255 in old buckets


@immutable
class Counters:
    """What one bucket holds: bytes as uploaded, bytes at the store, objects; all of them accounted.

    `skipped_unaccounted` counts removed or overwritten objects that had never been added.
    """

    original_bytes: int = 0
    stored_bytes: int = 0
    objects: int = 0
    skipped_unaccounted: int = 0


@immutable
class Delta:
    """A signed change of Counters, not bounded.

    >>> Delta(1, 2, 3) + Delta(-1, 1)
    Delta(original_bytes=0, stored_bytes=3, objects=3, skipped_unaccounted=0)
    """

    original_bytes: int = 0
    stored_bytes: int = 0
    objects: int = 0
    skipped_unaccounted: int = 0

    def __add__(self, other: "Delta") -> "Delta":
        return Delta(
            self.original_bytes + other.original_bytes,
            self.stored_bytes + other.stored_bytes,
            self.objects + other.objects,
            self.skipped_unaccounted + other.skipped_unaccounted,
        )

    def beyond_zero(self, counters: Counters) -> "Delta":
        """The part that `counters` cannot take because they end at zero; no field above 0.

        >>> Delta(-5, -5).beyond_zero(Counters(2, 7))
        Delta(original_bytes=-3, stored_bytes=0, objects=0, skipped_unaccounted=0)
        """
        return Delta(
            min(0, counters.original_bytes + self.original_bytes),
            min(0, counters.stored_bytes + self.stored_bytes),
            min(0, counters.objects + self.objects),
            min(0, counters.skipped_unaccounted + self.skipped_unaccounted),
        )


EMPTY: Final = Counters()
NOTHING: Final = Delta()

_SKIPPED: Final = "skipped_unaccounted"
_COUNTED: Final = ("original_bytes", "stored_bytes", "objects")

Totals = Mapping[str, Counters]  # by bucket
Deltas = Mapping[str, Delta]


def changed(counters: Counters, delta: Delta) -> Counters:
    """Counters after a change, each kept in its range.

    >>> changed(Counters(10, 5, 1), Delta(-11, 1, -1))
    Counters(original_bytes=0, stored_bytes=6, objects=0, skipped_unaccounted=0)
    """
    return Counters(
        _clamped(counters.original_bytes + delta.original_bytes),
        _clamped(counters.stored_bytes + delta.stored_bytes),
        _clamped(counters.objects + delta.objects),
        _clamped(counters.skipped_unaccounted + delta.skipped_unaccounted),
    )


def _clamped(value: int) -> int:
    return 0 if value < 0 else min(value, HIGHEST)


def summed(one: Deltas, other: Deltas) -> dict[str, Delta]:
    """Both changes as one."""
    result = dict(one)
    for bucket, delta in other.items():
        result[bucket] = result.get(bucket, NOTHING) + delta
    return result


# --- the state file


def load(path: Path) -> dict[str, Counters] | None:
    """Read a state file; None when there is none, nothing counted when it is blank.

    Raises files.StateFileRead and files.StateFileParse; changes nothing.
    """
    data = files.read(path, FILE_LIMIT)
    return None if data is None else parse(data, path)


def parse(data: bytes, path: Path) -> dict[str, Counters]:
    """Return what a state file says by its bytes; StateFileParse names `path` and what is wrong.

    >>> parse(render({"b": Counters(9, 5, 1)}), Path("x"))["b"].stored_bytes
    5
    """
    if not data.strip():
        return {}
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        return _totals(document)
    except (_Malformed, ValueError, RecursionError) as error:
        raise files.StateFileParse(path, _said(error)) from error


def render(totals: Totals) -> bytes:
    """The state file's bytes: compact, keys sorted.

    >>> render({"b": Counters(9, 5, 1, 2)})
    b'{"buckets":{"b":{"objects":1,"original_bytes":9,"stored_bytes":5}},"skipped_unaccounted":{"b":2}}'
    """
    document = {
        "buckets": {
            bucket: {name: getattr(counters, name) for name in _COUNTED}
            for bucket, counters in totals.items()
        },
        "skipped_unaccounted": {
            bucket: counters.skipped_unaccounted
            for bucket, counters in totals.items()
            if counters.skipped_unaccounted
        },
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


class _Malformed(Exception):
    """Sound JSON that is no state; the message says where."""


def _totals(document: Any) -> dict[str, Counters]:
    """Check a document's shape; keys nobody defined are left out. Raises _Malformed."""
    if not isinstance(document, dict) or "buckets" not in document:
        raise _Malformed("no object with the key buckets")
    totals = {}
    for bucket, entry in _members(document["buckets"], "buckets"):
        where = f"buckets.{bucket!r}"
        if not isinstance(entry, dict):
            raise _Malformed(f"{where}: not an object")
        totals[bucket] = Counters(*(_number(entry.get(name), where, name) for name in _COUNTED))
    for bucket, value in _members(document.get(_SKIPPED, {}), _SKIPPED):
        skipped = _number(value, _SKIPPED, repr(bucket))
        totals[bucket] = changed(totals.get(bucket, EMPTY), Delta(skipped_unaccounted=skipped))
    return totals


def _members(value: Any, name: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise _Malformed(f"{name}: not an object")
    for bucket in value:
        if not 0 < len(bucket) <= _NAME_LIMIT:
            raise _Malformed(f"{name}: a bucket name of {len(bucket)} characters")
        bucket.encode()  # a lone surrogate could be written nowhere; UnicodeEncodeError
    return value.items()


def _number(value: Any, where: str, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Malformed(f"{where}: {name}: not a whole number")
    if not 0 <= value <= HIGHEST:
        raise _Malformed(f"{where}: {name}: not between 0 and 2^64 - 1")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one that says a key twice says nothing that could be trusted."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Malformed("a key stands twice in one object")
    return members


def _said(error: Exception) -> str:
    """What is wrong with a content, in one short line."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    said = f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
    return said.replace("\n", " ")[:200]
