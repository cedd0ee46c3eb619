"""The six requests a dataset needs of a store, as a protocol anybody's client can be put behind.

Rule: a transport sends each request once and says how it went, in the errors of this package; it
neither retries nor waits its turn, which is what `calls.S3Calls` does for every transport alike.
Bodies are whole `bytes`, never streams, so that a repeated PUT cannot send a drained body.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, Protocol, TypeVar, runtime_checkable

from s4gateway.s3store import layout

_Result = TypeVar("_Result")

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PutInfo:
    """The answer to a PUT. `opaque_etag`: encryption makes the ETag something else than an MD5."""

    etag: str
    opaque_etag: bool = False


@dataclass(frozen=True, slots=True)
class RangeInfo:
    """Part of an object, from byte `start` on, and the size of the whole."""

    body: bytes
    start: int
    total: int


@dataclass(frozen=True, slots=True)
class HeadInfo:
    """What HEAD says; the names of `metadata` are lower case."""

    size: int
    etag: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing."""

    key: str
    size: int
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of ListObjectsV2; `next_token` is empty on the last."""

    objects: tuple[Listed, ...]
    next_token: str = ""


@runtime_checkable
class Transport(Protocol):
    """Requests to one bucket. Every method raises `errors.TransportError` and its kinds."""

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = layout.CONTENT_TYPE,
        metadata: Mapping[str, str] | None = None,
        if_none_match: bool = False,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> PutInfo:
        """Store an object; with `if_none_match` only when the key is free, else 412."""

    async def get(self, key: str, *, headers: Mapping[str, str] = NO_HEADERS) -> bytes:
        """Return an object's body; raises NotFound."""

    async def get_range(
        self,
        key: str,
        start: int | None,
        length: int,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> RangeInfo:
        """Return `length` bytes from `start`, the last ones when `start` is None."""

    async def head(self, key: str, *, headers: Mapping[str, str] = NO_HEADERS) -> HeadInfo | None:
        """Return what HEAD says, None for a key that is absent."""

    async def list_page(
        self,
        prefix: str,
        *,
        start_after: str = "",
        token: str = "",
        max_keys: int = 1000,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> ListPage:
        """Return one page of the keys that begin with `prefix`, in the order of their bytes."""

    async def aclose(self) -> None:
        """Give up what the transport itself holds."""


@runtime_checkable
class ThreadedTransport(Transport, Protocol):
    """A transport whose requests have threads of their own, on which more can be done."""

    async def get_then(
        self, key: str, work: Callable[[bytes], _Result], *, headers: Mapping[str, str] = NO_HEADERS
    ) -> _Result:
        """Return what `work` makes of an object's body, on the thread where that has arrived.

        What `work` raises is raised as it is; of the request itself NotFound and the like.
        """
