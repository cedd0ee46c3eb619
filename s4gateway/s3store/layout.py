"""The keys of a dataset: what each object is called, and what a name says about its object.

A dataset is everything under `<bucket>/<prefix>/`; the prefix is used as it is. Names are the
records here: a ref's name is the whole entry of the change stream, a view marker's name is a row.

    P/data/<partition>/<token>-<attempt>.parquet     rows
    P/data/<partition>/<token>.commit                which attempt of the token counts
    P/_ref/<us16>-<token>-<attempt>;<escaped partition>.ref
    P/_matview/<view>/<column>=<value>/.../m.matview
    P/_config/commit-timeout, P/_config/max-clock-skew

Rule: bytes are what other writers of the format (a Go library among them) make, so that datasets
are shared; what does not parse exactly is nobody's and is ignored or refused, never guessed at.
"""

import os
import random
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from s4gateway.s3store.errors import ConfigError, PartitionKeyError, TokenError
from s4gateway.s3store.results import Offset

COMMIT_TIMEOUT: Final = "commit-timeout"
MAX_CLOCK_SKEW: Final = "max-clock-skew"
CONTENT_TYPE: Final = "application/octet-stream"
MAX_KEY_BYTES: Final = 1024  # of S3
MAX_MARKER_BYTES: Final = 1000
MAX_TOKEN_BYTES: Final = 200

_DATA_SUFFIX: Final = ".parquet"
_COMMIT_SUFFIX: Final = ".commit"
_REF_SUFFIX: Final = ".ref"
_MARKER_NAME: Final = "m.matview"
_UNESCAPED: Final = "$&+=:@"  # besides letters, digits and -_.~

_is_attempt: Final = re.compile(r"[0-9a-f]{32}").fullmatch
_is_token: Final = re.compile(r"[\x21-\x7e]+").fullmatch
_attempt_name: Final = re.compile(r"(.+)-([0-9a-f]{32})", re.DOTALL).fullmatch
_ref_name: Final = re.compile(r"([0-9]{16})-(.+)-([0-9a-f]{32})", re.DOTALL).fullmatch
_bad_escape: Final = re.compile(r"%(?![0-9A-Fa-f]{2})").search


def us16(microseconds: int) -> str:
    """Return the stamp of a ref: its order as text is the order in time from 2001 to 2286.

    >>> us16(1710684000123456), us16(-5)
    ('1710684000123456', '-000000000000005')
    """
    return format(microseconds, "016d")


# --- attempts and tokens


class _Attempts:
    """UUIDv7 (RFC 9562, method 3) that grows strictly, also when the clock is set back."""

    def __init__(self) -> None:
        self._last = 0
        self._start()
        os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        """A child process must draw other numbers, and its parent's lock may be held for ever."""
        self._lock = threading.Lock()
        self._draw = random.Random(os.urandom(32))

    def new(self) -> str:
        stamp = time.time_ns() * 4096 // 1_000_000  # 48 bits of ms, 12 of its fraction
        with self._lock:
            self._last = stamp = max(self._last + 1, stamp)
            tail = 1 << 63 | self._draw.getrandbits(62)
        return f"{stamp >> 12:012x}7{stamp & 0xFFF:03x}{tail:016x}"


new_attempt: Final = _Attempts().new


def is_attempt(text: str) -> bool:
    """Whether `text` is an attempt id: 32 lower-case hexadecimal digits, of any version."""
    return _is_attempt(text) is not None


def check_token(token: object) -> str:
    """Return the caller's token; raises TokenError."""
    if not isinstance(token, str) or not token:
        raise TokenError(token, "must be a text of 1 to 200 characters; leave it out for none")
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenError(token, f"has {len(token)} characters, 200 are allowed")
    if not _is_token(token) or "/" in token or ";" in token or ".." in token:
        raise TokenError(token, "may hold visible ASCII except '/', ';' and '..'")
    return token


# --- partitions


def check_parts(parts: Sequence[str], what: str = "partition_key_parts") -> tuple[str, ...]:
    """Return the names of partition parts, or of a view's columns; raises ConfigError."""
    if isinstance(parts, str) or not parts:
        raise ConfigError(f"{what}: give a sequence of at least one name, not {parts!r}")
    for part in parts:
        if not part or "=" in part or "/" in part:
            raise ConfigError(f"{what}: {part!r} is empty, or holds '=' or '/'")
    if len(set(parts)) != len(parts):
        raise ConfigError(f"{what}: {list(parts)!r} names one twice")
    return tuple(parts)


def value_problem(value: str) -> str | None:
    """What is wrong with the value of a partition part or a view column, None when nothing."""
    if not value:
        return "the value is empty"
    if "/" in value or ".." in value:
        return "the value holds '/' or '..'"
    return None


def split_partition(parts: Sequence[str], key: str) -> tuple[str, ...]:
    """Return the values of a partition key; raises PartitionKeyError.

    >>> split_partition(("period", "customer"), "period=2026-03/customer=a=b")
    ('2026-03', 'a=b')
    """
    segments = key.split("/")
    if len(segments) != len(parts):
        shape = "/".join(f"{part}=..." for part in parts)
        raise PartitionKeyError(key, f"has {len(segments)} segments, write {shape}")
    values = []
    for part, segment in zip(parts, segments, strict=True):
        name, equals, value = segment.partition("=")
        problem = value_problem(value) if equals and name == part else f"must begin with {part}="
        if problem:
            raise PartitionKeyError(key, f"segment {segment!r}: {problem}", segment)
        values.append(value)
    try:
        key.encode()
    except UnicodeEncodeError:
        raise PartitionKeyError(key, "is no valid Unicode") from None
    return tuple(values)


# --- escaping


def escape(text: str) -> str:
    """Percent-encode a partition key for a ref's name.

    >>> escape("period=X/customer=a;b c")
    'period=X%2Fcustomer=a%3Bb%20c'
    """
    return quote(text, safe=_UNESCAPED)


def unescape(text: str) -> str | None:
    """Undo `escape`, strictly; None for a bad escape or what is not UTF-8."""
    if _bad_escape(text):
        return None
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return None


# --- names


@dataclass(frozen=True, slots=True)
class Ref:
    """What the name of a ref says."""

    us: int
    token: str
    attempt: str
    partition: str


def split_data_name(name: str) -> tuple[str, str] | None:
    """Return (token, attempt) of a data file's name; None for what is none.

    >>> split_data_name("a-b-" + 32 * "0" + ".parquet")
    ('a-b', '00000000000000000000000000000000')
    """
    if not name.endswith(_DATA_SUFFIX):
        return None
    found = _attempt_name(name.removesuffix(_DATA_SUFFIX))
    return (found[1], found[2]) if found else None


def commit_token(name: str) -> str | None:
    """Return the token of a commit marker's name; None for what is none."""
    return (name.removesuffix(_COMMIT_SUFFIX) or None) if name.endswith(_COMMIT_SUFFIX) else None


def parse_ref(key: str) -> Ref | None:
    """Return what a ref's key or bare name says; None when it is malformed."""
    name = key.rpartition("/")[2].removesuffix(_REF_SUFFIX)
    left, semicolon, right = name.partition(";")
    found = _ref_name(left) if semicolon else None
    partition = unescape(right)
    if found is None or partition is None:
        return None
    return Ref(int(found[1]), found[2], found[3], partition)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of the dataset under `prefix`.

    >>> Keys("sales").commit("period=X", "tok")
    'sales/data/period=X/tok.commit'
    """

    prefix: str

    @property
    def data_root(self) -> str:
        """What the keys of data files and commit markers begin with."""
        return f"{self.prefix}/data/"

    @property
    def ref_root(self) -> str:
        """What the keys of refs begin with."""
        return f"{self.prefix}/_ref/"

    def view_root(self, view: str) -> str:
        """What the keys of a view's markers begin with."""
        return f"{self.prefix}/_matview/{view}/"

    def config(self, name: str) -> str:
        """Return the key of a timing object."""
        return f"{self.prefix}/_config/{name}"

    def data(self, partition: str, token: str, attempt: str) -> str:
        """Return the key of a data file."""
        return f"{self.data_root}{partition}/{token}-{attempt}{_DATA_SUFFIX}"

    def commit(self, partition: str, token: str) -> str:
        """Return the key of a commit marker."""
        return f"{self.data_root}{partition}/{token}{_COMMIT_SUFFIX}"

    def ref(self, us: int, token: str, attempt: str, partition: str) -> Offset:
        """Return the key of a ref, which is also its offset."""
        name = f"{us16(us)}-{token}-{attempt};{escape(partition)}{_REF_SUFFIX}"
        return Offset(self.ref_root + name)

    def offset(self, us: int) -> Offset:
        """Return the offset that is below every ref stamped at `us` or later, above all others."""
        return Offset(self.ref_root + us16(us))

    def marker(self, view: str, columns: Sequence[str], values: Sequence[str]) -> str:
        """Return the key of a view marker; raises ConfigError for values it cannot hold."""
        for column, value in zip(columns, values, strict=True):
            if problem := value_problem(value):
                raise ConfigError(f"view {view!r}, column {column!r}: {problem}: {value!r}")
        row = "".join(f"{c}={v}/" for c, v in zip(columns, values, strict=True))
        key = f"{self.view_root(view)}{row}{_MARKER_NAME}"
        if len(key.encode()) > MAX_MARKER_BYTES:
            raise ConfigError(f"view {view!r}: the key {key!r} is longer than 1000 bytes")
        return key

    def parse_marker(self, view: str, columns: Sequence[str], key: str) -> tuple[str, ...]:
        """Return the values in a view marker's key; raises ValueError naming the key."""
        root = self.view_root(view)
        segments = key.removeprefix(root).split("/")
        fits = key.startswith(root) and segments[-1] == _MARKER_NAME
        if not fits or len(segments) != len(columns) + 1:
            raise ValueError(f"{key}: no marker of view {view!r} with columns {list(columns)}")
        values = []
        for column, segment in zip(columns, segments, strict=False):
            if not segment.startswith(f"{column}="):
                raise ValueError(f"{key}: segment {segment!r} does not begin with {column}=")
            values.append(segment[len(column) + 1 :])
        return tuple(values)

    def split_data_key(self, key: str) -> tuple[str, str] | None:
        """Return (partition, name) of a key under `data_root`; None for any other."""
        if not key.startswith(self.data_root):
            return None
        partition, slash, name = key[len(self.data_root) :].rpartition("/")
        return (partition, name) if slash else None

    def check_lengths(self, partition: str, token: str) -> None:
        """Raise PartitionKeyError when S3 would refuse the data file's or the ref's key."""
        sample = 32 * "0"
        for what, key in (
            ("data file", self.data(partition, token, sample)),
            ("ref", self.ref(10**15, token, sample, partition)),
        ):
            if (size := len(key.encode())) > MAX_KEY_BYTES:
                raise PartitionKeyError(
                    partition, f"the key of its {what} has {size} bytes, S3 allows {MAX_KEY_BYTES}"
                )
