"""Header fields and the request line as S3 sees them, on both sides of the gateway.

Rule: a value is *text* inside the gateway and UTF-8 on the wire. S3 specifies US-ASCII for header
values, and reads and writes user metadata beyond that as UTF-8, so bytes that are valid UTF-8 are
decoded as such; anything else is taken as Latin-1, byte for byte, as RFC 9110 section 5.5 does for
obs-text. Names compare without case and are kept in lower case. Signatures are verified over
``Headers.raw``, the bytes as they arrived, never over the decoded text.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Final, cast, overload

from s4gateway.s3 import query as s3_query
from s4gateway.values import immutable

USER_METADATA_PREFIX: Final = "x-amz-meta-"

# What a request says about itself, whatever it is about: how consistent its answer must be
# (StorageGRID), whose bucket it expects, who pays. It goes with each request that serves it.
OF_THE_REQUEST: Final = (
    "consistency-control",
    "x-amz-expected-bucket-owner",
    "x-amz-request-payer",
)

# RFC 9110 section 7.6.1, and the two de-facto names old proxies still send.
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

RawHeaders = list[tuple[bytes, bytes]]
HeaderSource = (
    Iterable[tuple[bytes, bytes]]
    | Iterable[tuple[str, str]]
    | Iterable[list[str]]
    | Mapping[str, str]
)


def _decode(value: bytes) -> str:
    """Text of a header value: UTF-8 where it is valid, Latin-1 otherwise."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def to_raw(items: Iterable[tuple[str, str]]) -> RawHeaders:
    r"""Encode text headers for the wire, as ASGI wants them: lower-case names, UTF-8 values.

    >>> to_raw([("X-Amz-Meta-City", "Zürich")])
    [(b'x-amz-meta-city', b'Z\xc3\xbcrich')]
    """
    return [(name.lower().encode("latin-1"), value.encode()) for name, value in items]


def _text(raw: RawHeaders) -> list[tuple[str, str]]:
    """All fields as text, names in lower case."""
    try:
        return [(name.lower().decode("latin-1"), value.decode()) for name, value in raw]
    except UnicodeDecodeError:
        return [(name.lower().decode("latin-1"), _decode(value)) for name, value in raw]


class Headers:
    """An immutable, ordered multimap of header fields with lower-case names.

    Construction keeps a reference to what it is given; text and lookup table are made on first
    use. Repeated fields are joined with a comma by ``get`` (RFC 9110 section 5.3) and kept apart by
    ``items``, ``getall`` and ``raw``.

    >>> headers = Headers([(b"Host", b"example.com"), (b"x-a", b"1"), (b"X-A", b"2")])
    >>> headers["HOST"], headers.get("x-a"), headers.getall("x-a"), headers.get("etag")
    ('example.com', '1,2', ['1', '2'], None)
    """

    __slots__ = ("_items", "_map", "_raw", "_source")

    def __init__(self, source: HeaderSource = ()) -> None:
        self._source = source
        self._raw: RawHeaders | None = None
        self._items: list[tuple[str, str]] | None = None
        self._map: dict[str, str] | None = None

    @property
    def raw(self) -> RawHeaders:
        """Lower-case names and the value bytes as received (UTF-8 when built from text)."""
        raw = self._raw
        if raw is None:
            pairs = self._pairs()
            if pairs and isinstance(pairs[0][0], bytes):
                raw = [(name.lower(), value) for name, value in pairs]
            else:
                raw = to_raw(self.items())
            self._raw = raw
        return raw

    def items(self) -> list[tuple[str, str]]:
        """All fields in order, repeats kept."""
        items = self._items
        if items is None:
            pairs = self._pairs()
            if pairs and isinstance(pairs[0][0], bytes):
                items = _text(pairs)
            else:
                text = cast("list[tuple[str, str]]", pairs)
                items = [(name.lower(), value) for name, value in text]
            self._items = items
        return items

    def _pairs(self) -> list[tuple[bytes, bytes]] | list[tuple[str, str]]:
        """What this was made of, as a list that can be gone through again."""
        source = self._source
        if type(source) is not list:
            pairs = list(source.items() if isinstance(source, Mapping) else source)
            self._source = source = cast("list[tuple[str, str]]", pairs)
        return source

    @property
    def _table(self) -> dict[str, str]:
        table = self._map
        if table is None:
            items = self.items()
            table = dict(items)
            if len(table) != len(items):
                table = {}
                for name, value in items:
                    table[name] = f"{table[name]},{value}" if name in table else value
            self._map = table
        return table

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    @overload
    def get(self, name: str, default: None) -> str | None: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """Value of a field, repeats joined with ",", or the default."""
        table = self._map
        if table is None:
            table = self._table
        value = table.get(name)  # callers write lower case; only others pay for lower()
        if value is not None:
            return value
        return default if name.islower() else table.get(name.lower(), default)

    def named(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """The fields of these lower-case names, in the order of the names, repeats joined.

        >>> Headers({"Range": "bytes=0-1", "Host": "h"}).named(("host", "etag"))
        [('host', 'h')]
        """
        table = self._table
        return [(name, table[name]) for name in names if name in table]

    def getall(self, name: str) -> list[str]:
        """Every value of a field in order; empty when absent."""
        name = name.lower()
        return [value for each, value in self.items() if each == name]

    def __getitem__(self, name: str) -> str:
        return self._table[name.lower()]

    def __contains__(self, name: object) -> bool:
        table = self._map
        if table is None:
            table = self._table
        return name in table or (isinstance(name, str) and name.lower() in table)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self.items())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self.items() == other.items()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Names only: values hold signatures, tokens and customers' metadata."""
        return f"Headers({[name for name, _ in self.items()]})"


def user_metadata(headers: Headers) -> dict[str, str]:
    """User metadata by lower-case name without its prefix, repeats joined with ",".

    >>> user_metadata(Headers({"X-Amz-Meta-Owner": "me", "Content-Type": "text/plain"}))
    {'owner': 'me'}
    """
    found: dict[str, str] = {}
    for name, value in headers.items():
        if name.startswith(USER_METADATA_PREFIX):
            key = name[len(USER_METADATA_PREFIX) :]
            found[key] = f"{found[key]},{value}" if key in found else value
    return found


@immutable
class RequestHead:
    """A request line and its headers as received: path and query percent-encoded, undecoded.

    ``raw_query`` has no leading "?".
    """

    method: str
    raw_path: str
    raw_query: str
    headers: Headers
    _query: list[tuple[str, str]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def query(self) -> list[tuple[str, str]]:
        """Decoded query parameters in order, parsed on first use. See ``query.parse_query``."""
        parsed = self._query
        if parsed is None:
            parsed = s3_query.parse_query(self.raw_query)
            object.__setattr__(self, "_query", parsed)
        return parsed
