"""Who may ask: the access keys of clients, read from one TOML file.

    anonymous-read-buckets = ["public"]

    [keys.AKIDEXAMPLE]
    secret = "..."
    buckets = ["logs", "shared/team-a/"]   # a bucket, or a bucket and a key prefix; absent: all
    read-only = true                       # default false
    backend = "own"                        # sign to the backend with this pair; default "gateway"

A key without limits may do what the backend lets the gateway do. The file is checked as a whole and
every problem is reported in one pass; a secret is in no message and in no repr.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from s4gateway.s3.sigv4 import Credentials

_TOP_KEYS: Final = frozenset(("keys", "anonymous-read-buckets"))
_KEY_KEYS: Final = frozenset(("secret", "buckets", "read-only", "backend"))
_ACCESS_KEY: Final = re.compile(r"[A-Za-z0-9_.+=@-]{1,128}")  # "/" and "," end a Credential
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_SHORTEST_SECRET: Final = 8


class ClientKeysError(Exception):
    """The credentials file cannot be used; `problems` has one line for each reason."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class BackendIdentity(StrEnum):
    """Whose key pair signs a client's requests to the backend."""

    GATEWAY = "gateway"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class BucketScope:
    """A bucket, or the keys of it that begin with a prefix."""

    bucket: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ClientKey:
    """One client's key pair and what it may be used for; no scopes means every bucket."""

    access_key: str
    secret: str = field(repr=False)
    scopes: tuple[BucketScope, ...] = ()
    read_only: bool = False
    backend: BackendIdentity = BackendIdentity.GATEWAY
    session_token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, pair: Credentials) -> "ClientKey":
        """A client's key that is the gateway's own pair, and has no limits of its own."""
        return cls(pair.access_key, pair.secret, session_token=pair.session_token)

    def may_reach(self, bucket: str | None, key: str | None) -> bool:
        """Whether this bucket or object is in scope.

        Without a key it is about the bucket as a whole (its settings, its deletion), for which a
        prefix of it is not enough; without a bucket about the service, which every client reaches.

        >>> mine = ClientKey("a", "secret", (BucketScope("b", "x/"),))
        >>> mine.may_reach("b", "x/y"), mine.may_reach("b", "y"), mine.may_reach("b", None)
        (True, False, False)
        """
        if bucket is None or not self.scopes:
            return True
        return any(
            scope.bucket == bucket and (key or "").startswith(scope.prefix) for scope in self.scopes
        )

    def may_list(self, bucket: str, prefix: str) -> bool:
        """Whether every key of the bucket that begins with `prefix` is in scope."""
        return self.may_reach(bucket, prefix)

    def may_see(self, bucket: str) -> bool:
        """Whether anything of the bucket is in scope, so that its existence is no secret."""
        return not self.scopes or any(scope.bucket == bucket for scope in self.scopes)

    @property
    def signs_backend(self) -> bool:
        """Whether requests to the backend are signed with this pair: it shall see this client."""
        return self.backend is BackendIdentity.OWN


_NO_BACKEND_PAIR: Final[Callable[[], ClientKey | None]] = lambda: None  # noqa: E731


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """All keys of one generation.

    `backend_pair` is the gateway's own key pair, accepted from clients when there is no file. It is
    asked on each look-up, because such credentials are renewed while the process runs.
    """

    keys: Mapping[str, ClientKey] = field(default_factory=dict, repr=False)
    anonymous_read_buckets: frozenset[str] = frozenset()
    backend_pair: Callable[[], ClientKey | None] = field(default=_NO_BACKEND_PAIR, repr=False)

    def lookup(self, access_key: str) -> ClientKey | None:
        """Return the key of that name, or None."""
        found = self.keys.get(access_key)
        if found is not None:
            return found
        pair = self.backend_pair()
        return pair if pair is not None and pair.access_key == access_key else None

    def secret_of(self, access_key: str) -> str | None:
        """Return the secret to verify that key's signatures with, or None."""
        key = self.lookup(access_key)
        return None if key is None else key.secret

    def is_open(self, bucket: str) -> bool:
        """Whether anyone may read this bucket."""
        return bucket in self.anonymous_read_buckets

    @classmethod
    def load(cls, path: Path) -> "ClientKeys":
        """Read a credentials file; raises ClientKeysError."""
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            raise ClientKeysError((f"{path}: {error.strerror}",)) from error
        except UnicodeDecodeError as error:
            raise ClientKeysError((f"{path}: not UTF-8",)) from error
        try:
            return cls.parse(text)
        except ClientKeysError as error:
            problems = tuple(f"{path}: {problem}" for problem in error.problems)
            raise ClientKeysError(problems) from None

    @classmethod
    def parse(cls, text: str) -> "ClientKeys":
        """Parse the text of a credentials file; raises ClientKeysError.

        >>> ClientKeys.parse('keys.AKID.secret = "correct horse"').lookup("AKID").read_only
        False
        """
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # of long numbers and deep nesting, too
            # The parser's message may quote the line; the position alone is safe.
            position = re.search(r"\(at [^()]*\)", str(error))
            raise ClientKeysError((f"not TOML {position[0] if position else ''}",)) from None
        problems: list[str] = []
        problems += [f"unknown key {name!r}" for name in table if name not in _TOP_KEYS]
        anonymous = list(_names(table.get("anonymous-read-buckets", []), _BUCKET))
        if None in anonymous:
            problems.append("anonymous-read-buckets: a list of bucket names expected")
        entries = table.get("keys", {})
        if not isinstance(entries, dict):
            problems.append("keys: tables [keys.ACCESS_KEY] expected")
            entries = {}
        keys = {name: _parse_key(name, entry, problems) for name, entry in entries.items()}
        if not entries and not anonymous and not problems:
            problems.append("no keys: nobody could connect")
        if problems:
            raise ClientKeysError(tuple(problems))
        return cls(keys, frozenset(name for name in anonymous if name is not None))


def _names(value: object, form: re.Pattern[str]) -> Iterator[str | None]:
    """The strings of a list; None for what does not fit."""
    for item in value if isinstance(value, list) else [None]:
        yield item if isinstance(item, str) and form.fullmatch(item) else None


def _parse_key(name: str, entry: object, problems: list[str]) -> ClientKey:
    where = f"keys.{name}"
    if not _ACCESS_KEY.fullmatch(name):
        problems.append(f"{where}: an access key is 1-128 letters, digits or _.+=@-")
    if not isinstance(entry, dict):
        problems.append(f"{where}: a table expected")
        return ClientKey(name, "")
    problems += [f"{where}: unknown key {key!r}" for key in entry if key not in _KEY_KEYS]
    secret = entry.get("secret")
    if not isinstance(secret, str) or len(secret) < _SHORTEST_SECRET:
        problems.append(f"{where}: secret: at least {_SHORTEST_SECRET} characters expected")
        secret = ""
    read_only = entry.get("read-only", False)
    if not isinstance(read_only, bool):
        problems.append(f"{where}: read-only: true or false expected")
    backend = entry.get("backend", BackendIdentity.GATEWAY.value)
    if backend not in tuple(BackendIdentity):
        problems.append(f'{where}: backend: "gateway" or "own" expected')
        backend = BackendIdentity.GATEWAY
    scopes = tuple(_scopes(where, entry, problems))
    return ClientKey(name, secret, scopes, read_only is True, BackendIdentity(backend))


def _scopes(where: str, entry: Mapping[str, object], problems: list[str]) -> Iterator[BucketScope]:
    if "buckets" not in entry:
        return
    value = entry["buckets"]
    if not isinstance(value, list) or not value:
        # An empty list would read as "no bucket" and, without limits, mean every bucket.
        problems.append(f"{where}: buckets: a list of at least one bucket expected")
        return
    for item in value:
        bucket, _, prefix = item.partition("/") if isinstance(item, str) else ("", "", "")
        if _BUCKET.fullmatch(bucket):
            yield BucketScope(bucket, prefix)
        else:
            problems.append(f"{where}: buckets: {item!r} is neither BUCKET nor BUCKET/PREFIX")
