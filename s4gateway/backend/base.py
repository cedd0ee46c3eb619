"""What the layers above may ask of an object store, and the values that go both ways.

`Backend` is the whole surface: typed verbs for the requests the gateway makes for itself, and
`forward` for every other S3 request (https://docs.aws.amazon.com/AmazonS3/latest/API/). The rule
it keeps: no HTTP library's type or exception is visible here, every answer that is not the one
asked for is a typed error, and bytes that may be wrong are never handed out as right ones.

    BackendError
      BackendAnswer         the store answered: an S3 error code, or 304 and 412
      BackendUnavailable    no answer: refused, reset, timed out, no credentials
      BackendProtocolError  an answer that cannot be trusted: truncated, wrong range, not HTTP
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from types import TracebackType
from typing import Protocol, Self

from s4gateway.s3 import etag, sigv4
from s4gateway.s3.headers import Headers, user_metadata
from s4gateway.values import immutable

HeaderList = Sequence[tuple[str, str]]

LIST_LIMIT = 16 * 1024 * 1024  # bytes of one listing page; 1,000 keys of 1 KiB, escaped, stay below
ERROR_LIMIT = 256 * 1024  # bytes of an error document that are read
DELETE_LIMIT = 1000  # keys in one DeleteObjects request

_NO_HEADERS = Headers([])


class BackendError(Exception):
    """A request to the store did not give what was asked for."""


class BackendAnswer(BackendError):
    """The store answered with an error, or with 304 to a conditional read.

    `code` is the S3 code of the error document; answers without a body (HEAD, 304) get the code S3
    documents for their status. `body` is the error document as it came.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str = "",
        headers: Headers | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(f"{status} {code}: {message}" if message else f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers if headers is not None else _NO_HEADERS
        self.body = body

    @property
    def missing(self) -> bool:
        """The key, version or bucket does not exist."""
        return self.status == 404


class BackendUnavailable(BackendError):
    """No usable answer came: the request may or may not have been carried out.

    `retryable`: asking again later may succeed. `unsent`: the connection never stood, so the store
    certainly did not see the request.
    """

    def __init__(self, message: str, *, retryable: bool = True, unsent: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.unsent = unsent


class BackendProtocolError(BackendError):
    """The answer breaks HTTP or S3: its bytes must not be used."""


@immutable
class Body:
    """A request body of known length.

    `chunks` is the bytes themselves or a function that starts a fresh iteration over them;
    `replayable` says whether that function may be called again for a retry. `sha256` is lower-case
    hex, `md5` base64 as Content-MD5 carries it, `checksum` the name of an algorithm and its base64
    value as x-amz-checksum-* carries it; all describe exactly these bytes. Which of them is sent
    is the store's matter.
    """

    length: int
    chunks: bytes | Callable[[], AsyncIterator[bytes]]
    replayable: bool = True
    sha256: str | None = None
    md5: str | None = None
    checksum: tuple[str, str] | None = None

    @classmethod
    def of(cls, data: bytes, *, md5: str | None = None) -> Self:
        """A body held in memory.

        >>> Body.of(b"abc").length
        3
        """
        return cls(len(data), data, md5=md5)


EMPTY = Body.of(b"")


@lru_cache(maxsize=1024)  # readers of an object meet one date again and again
def parse_date(value: str | None) -> datetime | None:
    """The moment an HTTP date names (RFC 9110 section 5.6.7), in UTC; None when it is none.

    >>> parse_date("Sun, 06 Nov 1994 08:49:37 GMT").isoformat()
    '1994-11-06T08:49:37+00:00'
    """
    if not value:
        return None
    try:
        moment = parsedate_to_datetime(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter at the ends of the calendar
        return None


@immutable
class Head:
    """Status and headers of an answer, with S3's names for what they say."""

    status: int
    headers: Headers

    @property
    def etag(self) -> str:
        """ETag without its quotes; empty when the answer has none."""
        value = self.headers.get("etag")
        return etag.strip(value) if value else ""

    @property
    def content_length(self) -> int | None:
        """Bytes of this answer's body; None when it does not say."""
        value = self.headers.get("content-length")
        return int(value) if value is not None and value.isascii() and value.isdigit() else None

    @property
    def size(self) -> int:
        """Bytes of the whole stored object, also on a 206.

        Raises BackendProtocolError when the answer does not say.
        """
        if self.status == 206:
            total = self.headers.get("content-range", "").rpartition("/")[2]
            if total.isascii() and total.isdigit():
                return int(total)
        elif (length := self.content_length) is not None:
            return length
        msg = f"answer {self.status} carries no object size"
        raise BackendProtocolError(msg)

    @property
    def metadata(self) -> dict[str, str]:
        """User metadata: lower-case names without `x-amz-meta-`."""
        return user_metadata(self.headers)

    @property
    def last_modified(self) -> datetime | None:
        """Last-Modified, in UTC; None when absent or malformed."""
        return parse_date(self.headers.get("last-modified"))

    @property
    def version_id(self) -> str | None:
        """x-amz-version-id."""
        return self.headers.get("x-amz-version-id")

    @property
    def content_type(self) -> str | None:
        """Content-Type as stored."""
        return self.headers.get("content-type")


class ObjectStream(ABC):
    """An open answer: its head, then its body once, in order.

    Close it in every path, best with `async with`; closing twice is harmless and never waits, so
    it is safe while the task is being cancelled. A body that ends early or stalls raises
    BackendError from the iteration, never a clean end.
    """

    __slots__ = ("head",)

    head: Head

    @abstractmethod
    async def read(self, limit: int) -> bytes:
        """Return the whole body; raises BackendProtocolError when it is larger than `limit`."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body's non-empty pieces."""

    @abstractmethod
    async def close(self) -> None:
        """Give the connection back when the body was read to its end, else drop it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    """A key that DeleteObjects did not delete."""

    key: str
    code: str
    message: str


DeleteFailures = list[DeleteFailure]  # `list` is a verb inside Backend


class Backend(Protocol):
    """An S3 store.

    Keys are decoded text; `query` and `raw_query` are already percent-encoded, without `?`.
    `headers` are extra request headers (content-type, x-amz-meta-*, if-match, ...), sent and signed
    as they are. Verbs other than `forward` raise BackendAnswer for every status of 300 and above.
    """

    async def put(self, bucket: str, key: str, body: Body, headers: HeaderList = ()) -> Head:
        """PutObject."""
        ...

    async def get(
        self,
        bucket: str,
        key: str,
        *,
        byte_range: tuple[int, int] | None = None,
        if_match: str | None = None,
        query: str = "",
        headers: HeaderList = (),
    ) -> ObjectStream:
        """GetObject; `byte_range` is (start, end) with end exclusive, `if_match` an ETag unquoted.

        A range that the store ignored, or answered with other bytes, is a BackendProtocolError.
        """
        ...

    async def head(
        self, bucket: str, key: str, *, query: str = "", headers: HeaderList = ()
    ) -> Head:
        """HeadObject."""
        ...

    async def delete(
        self, bucket: str, key: str, *, query: str = "", headers: HeaderList = ()
    ) -> Head:
        """DeleteObject; a key that does not exist is no error."""
        ...

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> DeleteFailures:
        """DeleteObjects of any number of keys, 1,000 a request; returns what was not deleted."""
        ...

    async def list(self, bucket: str, raw_query: str, headers: HeaderList = ()) -> bytes:
        """Return the XML of ListObjects, ListObjectsV2 or ListObjectVersions, at most 16 MiB."""
        ...

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: HeaderList,
        body: Body | None = None,
    ) -> ObjectStream:
        """Send any other S3 request; a status of 300 and above is returned, not raised.

        `raw_path` is percent-encoded and reaches the store byte for byte.
        """
        ...

    async def ping(self) -> None:
        """Raise BackendError unless the store answers; an answer of 4xx counts as alive."""
        ...

    def with_identity(self, credentials: sigv4.Credentials | None) -> "Backend":
        """Return the same store and connections for another signer; None signs nothing."""
        ...

    async def close(self) -> None:
        """Close the connections, for every identity."""
        ...
