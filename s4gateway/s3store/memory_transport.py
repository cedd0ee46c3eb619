"""A store in memory: a bucket for tests of programs that use datasets, and for this package's own.

Rule: it does what S3 does, no more: keys in the order of their bytes, `If-None-Match: *` decided
atomically, a write visible to the next request.
"""

import bisect
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from s4gateway.s3store import errors, layout
from s4gateway.s3store.transport import (
    NO_HEADERS,
    HeadInfo,
    Listed,
    ListPage,
    PutInfo,
    RangeInfo,
)


@dataclass(frozen=True, slots=True)
class Stored:
    """One object of a `MemoryTransport`."""

    body: bytes
    content_type: str
    metadata: Mapping[str, str]
    last_modified: datetime

    @property
    def etag(self) -> str:
        """The MD5 of the body, in quotes."""
        return f'"{hashlib.md5(self.body).hexdigest()}"'


class MemoryTransport:
    """One bucket; `objects` is what it holds, by key.

    >>> import asyncio
    >>> bucket = MemoryTransport()
    >>> asyncio.run(bucket.put("k", b"body")).etag
    '"841a2d689ad86bd1611447453c22c6fc"'
    """

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}

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
        """Store an object."""
        if if_none_match and key in self.objects:
            raise errors.PreconditionFailed("put", key, status=412, code="PreconditionFailed")
        described = {name.lower(): value for name, value in (metadata or {}).items()}
        stored = Stored(body, content_type, described, datetime.now(UTC))
        self.objects[key] = stored
        return PutInfo(stored.etag)

    async def get(self, key: str, *, headers: Mapping[str, str] = NO_HEADERS) -> bytes:
        """Return an object's body."""
        return self._stored(key).body

    async def get_range(
        self,
        key: str,
        start: int | None,
        length: int,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> RangeInfo:
        """Return part of an object."""
        body = self._stored(key).body
        first = max(0, len(body) - length) if start is None else start
        if first >= len(body):
            raise errors.ClientError("get", key, status=416, code="InvalidRange")
        return RangeInfo(body[first : first + length], first, len(body))

    async def head(self, key: str, *, headers: Mapping[str, str] = NO_HEADERS) -> HeadInfo | None:
        """Return what HEAD says, None for a key that is absent."""
        stored = self.objects.get(key)
        if stored is None:
            return None
        return HeadInfo(len(stored.body), stored.etag, stored.metadata)

    async def list_page(
        self,
        prefix: str,
        *,
        start_after: str = "",
        token: str = "",
        max_keys: int = 1000,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> ListPage:
        """Return one page of the keys under `prefix`; the token is the last key."""
        keys = sorted((key for key in self.objects if key.startswith(prefix)), key=str.encode)
        after = (token or start_after).encode()
        first = bisect.bisect_right(keys, after, key=str.encode) if after else 0
        page = keys[first : first + max_keys]
        listed = [(key, self.objects[key]) for key in page]
        entries = tuple(Listed(key, len(o.body), o.last_modified) for key, o in listed)
        more = page and first + max_keys < len(keys)
        return ListPage(entries, page[-1] if more else "")

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _stored(self, key: str) -> Stored:
        try:
            return self.objects[key]
        except KeyError:
            raise errors.NotFound("get", key, status=404, code="NoSuchKey") from None
