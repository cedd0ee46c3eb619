"""A Backend that counts: every request to the store, by verb and by how it ended.

Rule: behaviour is added by wrapping the same verbs, so that nothing below knows about metrics.
"""

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendError,
    BackendUnavailable,
    Body,
    DeleteFailures,
    Head,
    HeaderList,
    ObjectStream,
)
from s4gateway.gateway.metrics import Metrics
from s4gateway.s3.sigv4 import Credentials

_Result = TypeVar("_Result")


class ObservedBackend:
    """Delegates every verb to `inner` and reports it to `metrics`."""

    def __init__(self, inner: Backend, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def _watch(self, verb: str, call: Awaitable[_Result]) -> _Result:
        try:
            result = await call
        except BackendError as error:
            self._metrics.backend_request(verb, _ending(error))
            raise
        self._metrics.backend_request(verb, "ok")
        return result

    async def put(self, bucket: str, key: str, body: Body, headers: HeaderList = ()) -> Head:
        """PutObject."""
        return await self._watch("put", self._inner.put(bucket, key, body, headers))

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
        """GetObject."""
        call = self._inner.get(
            bucket, key, byte_range=byte_range, if_match=if_match, query=query, headers=headers
        )
        return await self._watch("get", call)

    async def head(
        self, bucket: str, key: str, *, query: str = "", headers: HeaderList = ()
    ) -> Head:
        """HeadObject."""
        return await self._watch(
            "head", self._inner.head(bucket, key, query=query, headers=headers)
        )

    async def delete(
        self, bucket: str, key: str, *, query: str = "", headers: HeaderList = ()
    ) -> Head:
        """DeleteObject."""
        return await self._watch(
            "delete", self._inner.delete(bucket, key, query=query, headers=headers)
        )

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> DeleteFailures:
        """DeleteObjects."""
        return await self._watch("delete_many", self._inner.delete_many(bucket, keys))

    async def list(self, bucket: str, raw_query: str, headers: HeaderList = ()) -> bytes:
        """ListObjects in any version."""
        return await self._watch("list", self._inner.list(bucket, raw_query, headers))

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: HeaderList,
        body: Body | None = None,
    ) -> ObjectStream:
        """Any other request."""
        call = self._inner.forward(method, raw_path, raw_query, headers, body)
        return await self._watch("forward", call)

    async def ping(self) -> None:
        """Probe the store."""
        await self._watch("ping", self._inner.ping())

    def with_identity(self, credentials: Credentials | None) -> "ObservedBackend":
        """Return the same for another signer."""
        return ObservedBackend(self._inner.with_identity(credentials), self._metrics)

    async def close(self) -> None:
        """Close the connections."""
        await self._inner.close()


def _ending(error: BackendError) -> str:
    if isinstance(error, BackendAnswer):
        return "answer"
    return "unavailable" if isinstance(error, BackendUnavailable) else "protocol"
