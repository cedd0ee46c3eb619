"""Which dictionary new objects are compressed with: `<bucket>/<key prefix>` -> dictionary id.

Two sources, one grammar: flags, which last as long as the process, and a TOML file, which is read
again while it runs. Rule: a prefix has one dictionary and one place where that is written down, so
the same prefix in both sources is an error even when they agree. Files are somebody else's bytes:
their size is bounded, and everything that is wrong with one is told together.

    [mappings]
    "logs/app/" = "0123456789abcdef"
    "logs/"     = "fedcba9876543210"
"""

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from s4gateway.values import immutable
from s4gateway.wire import keys

MAX_FILE: Final = 1024 * 1024  # bytes of a map file
DEFAULT_MAX_BODY: Final = 1024 * 1024  # bytes of the largest body a dictionary is tried on
LARGEST_BODY: Final = 4 * 1024 * 1024  # one frame, which readers find without an index
_MAX_PREFIX: Final = 1024  # bytes of a key
_SHOWN: Final = 100  # characters of a value that is quoted in a message
_TABLE: Final = "mappings"


class DictMapError(Exception):
    """The mappings cannot be used; `problems` has one line for each reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@immutable
class DictMapping:
    """One line: objects of `bucket` whose keys start with `prefix` use dictionary `dict_id`."""

    bucket: str
    prefix: str
    dict_id: str

    @property
    def label(self) -> str:
        """The prefix as it was written, which names it in metrics and messages."""
        return f"{self.bucket}/{self.prefix}"

    @classmethod
    def parse(cls, place: str, dict_id: str) -> "DictMapping":
        """Read both sides of a line; ValueError says what is wrong.

        >>> DictMapping.parse("logs/app/", "0123456789abcdef").prefix
        'app/'
        """
        bucket, slash, prefix = place.partition("/")
        if not (bucket and slash):
            raise ValueError("is not BUCKET/PREFIX; the prefix may be empty, the slash may not")
        if len(prefix.encode("utf-8", "surrogateescape")) > _MAX_PREFIX:
            raise ValueError(f"has a prefix longer than any key ({_MAX_PREFIX} bytes)")
        if not place.isprintable():
            raise ValueError("holds characters that cannot be printed")
        if not keys.is_dictionary_id(dict_id):
            raise ValueError(f"{_shown(dict_id)} is no dictionary id (16 lower-case hex digits)")
        return cls(bucket, prefix, dict_id)

    @classmethod
    def parse_flag(cls, text: str) -> "DictMapping":
        """Read `BUCKET/PREFIX=ID`, cut at the last `=`; ValueError says what is wrong.

        >>> DictMapping.parse_flag("logs/day=1/=0123456789abcdef").label
        'logs/day=1/'
        """
        place, equals, dict_id = text.rpartition("=")
        if not equals:
            raise ValueError("is not BUCKET/PREFIX=ID")
        return cls.parse(place, dict_id)


class DictMap:
    """All mappings of one moment, never changed.

    >>> mappings = DictMap(
    ...     [DictMapping("logs", "", "0" * 16), DictMapping("logs", "app/", "1" * 16)]
    ... )
    >>> [mappings.match("logs", key).label for key in ("app/1", "db/1")]
    ['logs/app/', 'logs/']
    """

    __slots__ = ("_buckets", "mappings")

    mappings: tuple[DictMapping, ...]

    def __init__(self, mappings: Iterable[DictMapping] = ()) -> None:
        self.mappings = tuple(mappings)
        found: dict[str, dict[str, DictMapping]] = defaultdict(dict)
        for each in self.mappings:
            found[each.bucket][each.prefix] = each
        self._buckets = {
            bucket: (sorted({len(prefix) for prefix in prefixes}, reverse=True), prefixes)
            for bucket, prefixes in found.items()
        }

    def match(self, bucket: str, key: str) -> DictMapping | None:
        """Return the mapping with the longest prefix of `key`."""
        known = self._buckets.get(bucket)
        if known is None:
            return None
        lengths, prefixes = known
        for length in lengths:
            if length <= len(key) and (found := prefixes.get(key[:length])) is not None:
                return found
        return None


EMPTY: Final = DictMap()


def parse_flags(texts: Iterable[str]) -> DictMap:
    """Read the flags; one that is repeated as it is counts once. Raises DictMapError.

    >>> len(parse_flags(["b/p=0123456789abcdef", "b/p=0123456789abcdef"]).mappings)
    1
    """
    problems: list[str] = []
    found: dict[str, DictMapping] = {}
    for text in texts:
        try:
            mapping = DictMapping.parse_flag(text)
        except ValueError as error:
            problems.append(f"{_shown(text)} {error}")
            continue
        before = found.setdefault(mapping.label, mapping)
        if before != mapping:
            problems.append(
                f"{mapping.label} has two dictionaries: {before.dict_id} and {mapping.dict_id}"
            )
    if problems:
        raise DictMapError(problems)
    return DictMap(found.values())


def load(path: Path) -> DictMap:
    """Read a map file; raises DictMapError with every problem found in it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise DictMapError((f"{path}: {error.strerror}",)) from error
    if len(data) > MAX_FILE:
        raise DictMapError((f"{path}: larger than {MAX_FILE} bytes",))
    try:
        table = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise DictMapError((f"{path}: not UTF-8, at byte {error.start}",)) from error
    except (ValueError, RecursionError) as error:
        raise DictMapError((f"{path}: not TOML: {error}",)) from error
    try:
        return parse_table(table)
    except DictMapError as error:
        raise DictMapError(f"{path}: {problem}" for problem in error.problems) from error


def parse_table(table: dict[str, object]) -> DictMap:
    """Read what a map file holds; raises DictMapError.

    >>> parse_table({"mappings": {"b/p": "0123456789abcdef"}}).match("b", "p1").dict_id
    '0123456789abcdef'
    """
    problems = [f"unknown key {_shown(key)}, [{_TABLE}] expected" for key in table if key != _TABLE]
    entries = table.get(_TABLE)
    if entries is None and not problems:
        problems.append(f"no table [{_TABLE}]; it may be empty, but must be there")
    elif entries is not None and not isinstance(entries, dict):
        problems.append(f"{_TABLE} is not a table")
    found = list(_parse_entries(entries if isinstance(entries, dict) else {}, problems))
    if problems:
        raise DictMapError(problems)
    return DictMap(found)


def _parse_entries(entries: dict[str, object], problems: list[str]) -> Iterator[DictMapping]:
    for place, dict_id in entries.items():
        if not isinstance(dict_id, str):
            problems.append(f"mapping {_shown(place)}: is not mapped to a string")
            continue
        try:
            yield DictMapping.parse(place, dict_id)
        except ValueError as error:
            problems.append(f"mapping {_shown(place)}: {error}")


def merge(flags: DictMap, file: DictMap) -> DictMap:
    """Join both sources; raises DictMapError for prefixes that stand in both."""
    labels = {each.label for each in flags.mappings}
    twice = [each.label for each in file.mappings if each.label in labels]
    if twice:
        raise DictMapError(f"{label} stands in the flags and in the map file" for label in twice)
    return DictMap((*flags.mappings, *file.mappings))


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
