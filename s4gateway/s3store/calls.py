"""Every request of a dataset: its turn, its retries, and the check that what was sent was stored.

Rule: a request holds one of the target's places from its first try to its last, the pauses between
them and what is done on its thread included, so that a store in trouble is not asked more. Five
tries at most; what may have helped is tried again (no whole answer, 429, 5xx, a body that is not
what was sent), anything else ends the request at once, as does cancellation.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, TypeVar

from s4gateway.s3store import errors, layout
from s4gateway.s3store.clock import Clock
from s4gateway.s3store.telemetry import Telemetry
from s4gateway.s3store.transport import (
    HeadInfo,
    ListPage,
    PutInfo,
    RangeInfo,
    ThreadedTransport,
    Transport,
)

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

ATTEMPTS: Final = 5
PAUSES: Final = ((0.1, 0.3), (0.3, 0.5), (0.5, 0.8), (0.5, 0.8))  # seconds, before try 2 to 5
_TRANSIENT: Final = (
    errors.Throttled,
    errors.ServerError,
    errors.ConnectionFailed,
    errors.IntegrityError,
)
_WORTH_A_RETRY: Final = frozenset({"RequestTimeout", "SlowDown", "ConditionalRequestConflict"})
_OFF_LOOP: Final = 1024 * 1024  # bytes from which a digest is computed in a thread


def is_transient(error: errors.TransportError) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, _TRANSIENT):
        return True
    return error.status == 408 or error.code in _WORTH_A_RETRY


class S3Calls:
    """Requests through a transport, at most `limit` of them at a time."""

    def __init__(
        self,
        transport: Transport,
        telemetry: Telemetry,
        *,
        limit: int,
        headers: Mapping[str, str],
        verify_etag: bool = True,
    ) -> None:
        self.limit = limit
        self._transport = transport
        self._threaded = transport if isinstance(transport, ThreadedTransport) else None
        self._telemetry = telemetry
        self._clock = telemetry.clock
        self._headers = headers
        self._verify_etag = verify_etag
        self._places = asyncio.Semaphore(limit)

    async def put(
        self,
        key: str,
        body: bytes = b"",
        *,
        content_type: str = layout.CONTENT_TYPE,
        metadata: Mapping[str, str] | None = None,
        if_none_match: bool = False,
    ) -> PutInfo:
        """Store an object and check its ETag."""
        digest = await _md5(body) if self._verify_etag else ""

        async def send() -> PutInfo:
            stored = await self._transport.put(
                key,
                body,
                content_type=content_type,
                metadata=metadata,
                if_none_match=if_none_match,
                headers=self._headers,
            )
            _check_etag(key, stored, digest)
            self._telemetry.sent("put", len(body))
            return stored

        return await self._call("put", key, send)

    async def get(self, key: str) -> bytes:
        """Return an object's body; raises NotFound."""

        async def send() -> bytes:
            body = await self._transport.get(key, headers=self._headers)
            self._telemetry.received(len(body))
            return body

        return await self._call("get", key, send)

    @property
    def is_threaded(self) -> bool:
        """Whether `get_then` has a thread to work on."""
        return self._threaded is not None

    async def get_then(self, key: str, work: Callable[[bytes], _Result]) -> _Result:
        """Return what `work` makes of an object's body, on the thread where that has arrived.

        Raises NotFound, and what `work` raises. The request counts as ended when its body is there;
        its place is free, and its span ends, when the thread is done. What arrives for a caller who
        has left is dropped. For transports that are threaded.
        """
        transport = self._threaded
        assert transport is not None, "see is_threaded"
        landing: _Landing[_Result] = _Landing(work, self._clock)

        async def send() -> None:
            landing.arrived = None
            await transport.get_then(key, landing.land, headers=self._headers)

        try:
            await self._call("get", key, send, landing)
        except BaseException:
            landing.is_wanted = False
            raise
        finally:
            if landing.arrived is not None:
                self._telemetry.received(landing.size)
        return landing.result()

    async def get_range(self, key: str, start: int | None, length: int) -> RangeInfo:
        """Return part of an object; raises NotFound."""

        async def send() -> RangeInfo:
            part = await self._transport.get_range(key, start, length, headers=self._headers)
            self._telemetry.received(len(part.body))
            return part

        return await self._call("get", key, send)

    async def head(self, key: str) -> HeadInfo | None:
        """Return what HEAD says, None for a key that is absent."""
        return await self._call(
            "head", key, lambda: self._transport.head(key, headers=self._headers)
        )

    async def list_pages(
        self, prefix: str, *, start_after: str = "", max_keys: int = 1000
    ) -> AsyncGenerator[ListPage, None]:
        """Yield the pages of the keys under `prefix`, each asked for when it is wanted."""
        token = ""
        while True:

            async def send(token: str = token) -> ListPage:
                return await self._transport.list_page(
                    prefix,
                    start_after=start_after,
                    token=token,
                    max_keys=max_keys,
                    headers=self._headers,
                )

            page = await self._call("list", prefix, send)
            yield page
            token = page.next_token
            if not token:
                return

    async def _call(
        self,
        op: str,
        key: str,
        send: Callable[[], Awaitable[_Result]],
        landing: "_Landing[Any] | None" = None,
    ) -> _Result:
        attempts = 0
        failure: BaseException | None = None
        started = self._clock.monotonic()
        with self._telemetry.tracer.start_as_current_span(f"s3store.s3.{op}"):
            try:
                async with self._place():
                    started = self._clock.monotonic()
                    while True:
                        attempts += 1
                        try:
                            return await send()
                        except errors.TransportError as error:
                            await self._pause_or_raise(op, attempts, error)
            except BaseException as error:
                failure = error
                raise
            finally:
                ended = landing.arrived if landing is not None else None
                if ended is None:
                    ended = self._clock.monotonic()
                elif isinstance(failure, asyncio.CancelledError):
                    failure = None  # it was the work that was cancelled
                self._telemetry.requested(op, ended - started, attempts, failure)

    async def _pause_or_raise(self, op: str, attempt: int, error: errors.TransportError) -> None:
        if attempt == ATTEMPTS or not is_transient(error):
            error.attempts = attempt
            raise error
        _log.warning("%s failed, attempt %d of %d: %s", op, attempt, ATTEMPTS, error.said)
        self._telemetry.masked(op, attempt, error)
        await self._clock.sleep(random.uniform(*PAUSES[attempt - 1]))

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        telemetry = self._telemetry
        started = self._clock.monotonic()
        telemetry.add("s3store.target.waiting")
        outcome = "canceled"
        try:
            await self._places.acquire()
            outcome = "success"
        finally:
            telemetry.add("s3store.target.waiting", -1)
            telemetry.add("s3store.target.semaphore.acquires", 1, {"s3store.outcome": outcome})
        telemetry.record(
            "s3store.target.semaphore.wait.duration", self._clock.monotonic() - started
        )
        telemetry.add("s3store.target.inflight")
        try:
            yield
        finally:
            telemetry.add("s3store.target.inflight", -1)
            self._places.release()


class _Landing(Generic[_Result]):
    """A body that is worked on where it arrives: when that was, and what came of it.

    A failure of the work is kept for who asked for it: it is none of the request.
    """

    __slots__ = ("_clock", "_failure", "_made", "_work", "arrived", "is_wanted", "size")

    def __init__(self, work: Callable[[bytes], _Result], clock: Clock) -> None:
        self.arrived: float | None = None
        self.size = 0
        self.is_wanted = True
        self._work = work
        self._clock = clock
        self._made: list[_Result] = []
        self._failure: Exception | None = None

    def land(self, body: bytes) -> None:
        """Do the work, anew when the body comes again."""
        if not self.is_wanted:
            return
        self.size = len(body)
        self.arrived = self._clock.monotonic()
        self._made, self._failure = [], None
        try:
            self._made = [self._work(body)]
        except Exception as error:
            self._failure = error

    def result(self) -> _Result:
        """Return what was made; raises what the work raised."""
        failure, self._failure = self._failure, None
        if failure is None:
            return self._made[0]
        try:
            raise failure
        finally:
            failure = None  # its traceback knows this place, and the body


async def _md5(body: bytes) -> str:
    if len(body) < _OFF_LOOP:
        return hashlib.md5(body, usedforsecurity=False).hexdigest()
    digest = await asyncio.to_thread(hashlib.md5, body, usedforsecurity=False)
    return digest.hexdigest()


def _check_etag(key: str, stored: PutInfo, digest: str) -> None:
    """An ETag is the MD5 of a single PUT, unless encryption or several parts made it."""
    etag = stored.etag.strip('"').lower()
    if not digest or not etag or "-" in etag or stored.opaque_etag or etag == digest:
        return
    raise errors.IntegrityError(
        "put", key, code="ETagMismatch", message=f"sent {digest}, the store has {etag}"
    )
