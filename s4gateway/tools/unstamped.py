"""Objects that are frames by their bytes only: read as such because their owner says so.

Metadata decides how an object is read, never its first bytes, for a client may store a file that
looks like frames. Where metadata were lost, as in a copy that dropped them, an operator may vouch
for them; what is not a whole sequence of sound frames is still refused by the reader.
"""

from collections.abc import AsyncIterator
from typing import cast

from s4gateway.backend.base import Backend, Head, HeaderList, ObjectStream
from s4gateway.s3.headers import USER_METADATA_PREFIX, Headers
from s4gateway.wire import manifest
from s4gateway.wire.codec_id import CodecId


def vouched(backend: Backend) -> Backend:
    """The same store for reads of bodies, saying of each object that it is frames."""
    return cast("Backend", _Vouched(backend))


class _Vouched:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

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
        return _Stream(
            await self._backend.get(
                bucket, key, byte_range=byte_range, if_match=if_match, query=query, headers=headers
            )
        )


class _Stream(ObjectStream):
    """An answer with the metadata it should have had."""

    __slots__ = ("_inner",)

    def __init__(self, inner: ObjectStream) -> None:
        entries = manifest.multipart_metadata(CodecId.CPU_ZSTD)
        stamped = [(USER_METADATA_PREFIX + name, text) for name, text in entries.items()]
        self.head = Head(inner.head.status, Headers([*inner.head.headers.items(), *stamped]))
        self._inner = inner

    async def read(self, limit: int) -> bytes:
        return await self._inner.read(limit)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._inner)

    async def close(self) -> None:
        await self._inner.close()
