"""The frame index beside an object: `<key>.s4index`, read, checked, written and removed.

Rule: a sidecar only ever makes reads cheaper. It is believed when it is bound to the live object's
ETag and size and its frames lie inside that object; anything else counts as absent. No failure here
fails a client's request.
"""

import asyncio
import base64
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from s4gateway.backend.base import Backend, BackendError, Body, Head, HeaderList
from s4gateway.objects import removal
from s4gateway.objects.cache import IndexCache, ObjectName
from s4gateway.objects.lanes import Lanes
from s4gateway.s3 import query
from s4gateway.s3.errors import S3Error
from s4gateway.s3.versions import VersionPage
from s4gateway.wire import keys
from s4gateway.wire.errors import SidecarError
from s4gateway.wire.index import CONTENT_TYPE, MAX_SIDECAR_BYTES, FrameIndex

_INLINE_DECODE: Final = 64 * 1024  # larger ones are decoded on a thread
_BATCH: Final = 1000
_LOOKED_AT: Final = 50  # versions of an object and its sidecar that are listed to find any
_PENDING_LIMIT: Final = 100_000
_BATCH_DELAY: Final = 0.05  # seconds in which removals gather into one request

_log = logging.getLogger("s4.sidecar")

Send = Callable[[HeaderList], Awaitable[Head]]  # sends one request with more headers
Via = Callable[[Send, Body], Awaitable[object]]  # does so its own way; the body is sent along


class Sidecars:
    """Reads and writes sidecars with the gateway's own identity; keeps the decoded ones."""

    def __init__(self, backend: Backend, cache: IndexCache, lanes: Lanes) -> None:
        self._backend = backend
        self._cache = cache
        self._lanes = lanes
        self.removals = PendingRemovals(backend)

    def known(self, name: ObjectName, etag: str) -> FrameIndex | None:
        """Return the index of this version if it is at hand."""
        return self._cache.lookup(name, etag)[1]

    def adopt(self, name: ObjectName, etag: str, index: FrameIndex) -> None:
        """Keep an index of this version that was made from its frames."""
        self._cache.remember(name, etag, index)

    async def load(self, name: ObjectName, etag: str, stored_size: int) -> FrameIndex | None:
        """Return the index of exactly this version; None when there is none to be trusted."""
        known, index = self._cache.lookup(name, etag)
        if known:
            return index
        try:
            index = await self._fetch(name, etag, stored_size)
        except BackendError as error:
            if not getattr(error, "missing", False):
                _log.warning(
                    "sidecar unreadable", extra={"fields": {"bucket": name[0], "error": str(error)}}
                )
                return None  # not remembered: the next read asks again
            index = None
        self._cache.remember(name, etag, index)
        return index

    async def _fetch(self, name: ObjectName, etag: str, stored_size: int) -> FrameIndex | None:
        bucket, key = name
        async with await self._backend.get(bucket, keys.sidecar_key(key)) as stream:
            length = stream.head.content_length
            if length is None or length > MAX_SIDECAR_BYTES:
                return None
            data = await stream.read(MAX_SIDECAR_BYTES)
        try:
            if len(data) <= _INLINE_DECODE:
                index = FrameIndex.decode(data)
            else:
                loop = asyncio.get_running_loop()
                index = await loop.run_in_executor(self._lanes.codec, FrameIndex.decode, data)
        except SidecarError as error:
            _log.warning(
                "sidecar refused", extra={"fields": {"bucket": bucket, "error": str(error)}}
            )
            return None
        return index if index.describes(etag, stored_size) else None

    async def write(
        self, name: ObjectName, index: FrameIndex, etag: str, size: int, via: Via | None = None
    ) -> int | None:
        """Store the index of the version just written; its bytes, None when that failed.

        `via` sends it in its own way.
        """
        bucket, key = name
        bound = index.bind(etag, size)
        data = bound.encode()
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        body = Body.of(data, md5=md5)  # buckets with Object Lock take nothing without

        async def send(headers: HeaderList) -> Head:
            fields = [("content-type", CONTENT_TYPE), *headers]
            return await self._backend.put(bucket, keys.sidecar_key(key), body, fields)

        await self.removals.withhold(name)
        try:
            await (send(()) if via is None else via(send, body))
        except BackendError as error:
            _warn("sidecar not written", bucket, error)
            return None
        self._cache.remember(name, etag, bound)
        return len(data)

    async def remove(self, *names: ObjectName) -> None:
        """Delete the sidecars now; of one bucket."""
        bucket, key = names[0]
        try:
            if len(names) == 1:
                await self._backend.delete(bucket, keys.sidecar_key(key))
            else:
                await self._backend.delete_many(bucket, [keys.sidecar_key(key) for _, key in names])
        except BackendError as error:
            _warn("sidecar not removed", bucket, error)

    async def retire(self, name: ObjectName) -> None:
        """Delete the sidecar if there is one: where there is none, a marker would be left behind.

        On a versioned bucket its versions stay, as those of its object do.
        """
        bucket, key = name
        try:
            await self._backend.head(bucket, keys.sidecar_key(key))
        except BackendError as error:
            if not getattr(error, "missing", False):
                _warn("sidecar not removed", bucket, error)
            return
        await self.remove(name)

    async def revive(self, name: ObjectName) -> None:
        """Remove the delete marker that stands before the sidecar, if one does."""
        bucket, key = name
        sidecar = keys.sidecar_key(key)
        try:
            page = await self._versions(bucket, sidecar, 1)
            for each in page.entries[:1]:
                if each.key == sidecar and each.is_marker and each.is_latest:
                    version = query.format_query([("versionId", each.version_id)])
                    await self._backend.delete(bucket, sidecar, query=version)
        except (BackendError, S3Error) as error:
            _warn("sidecar not brought back", bucket, error)

    async def purge(self, name: ObjectName) -> bool:
        """Delete all versions of the sidecar if the object has none left; whether that was so."""
        try:
            doomed = await self.left_behind(name)
            if doomed is None:
                return False
            return not doomed or await removal.delete(self._backend, name[0], doomed, by_id=True)
        except (BackendError, S3Error) as error:
            _warn("sidecar not removed", name[0], error)
            return False

    async def left_behind(
        self, name: ObjectName, *, markers: bool = True
    ) -> list[removal.Version] | None:
        """Versions of the sidecar of an object that has none left; None when it has any.

        `markers`: delete markers are versions. A page that is cut says nothing: stores differ in
        the order they list versions in. Raises BackendError, S3Error.
        """
        bucket, key = name
        sidecar = keys.sidecar_key(key)
        page = await self._versions(bucket, key, _LOOKED_AT)
        if page.is_truncated or any(
            each.key == key and (markers or not each.is_marker) for each in page.entries
        ):
            return None
        return [
            removal.Version(sidecar, each.version_id)
            for each in page.entries
            if each.key == sidecar
        ]

    async def _versions(self, bucket: str, prefix: str, count: int) -> VersionPage:
        asked = [("max-keys", str(count)), ("prefix", prefix), ("versions", "")]
        return VersionPage.parse(await self._backend.list(bucket, query.format_query(asked)))

    async def has_no_object(self, name: ObjectName) -> bool:
        """Whether the store says that there is nothing to be read at `name`."""
        try:
            await self._backend.head(*name)
        except BackendError as error:
            return getattr(error, "missing", False)
        return False

    async def close(self) -> None:
        """Carry out what is pending."""
        await self.removals.close()


def _warn(event: str, bucket: str, error: Exception) -> None:
    _log.warning(event, extra={"fields": {"bucket": bucket, "error": str(error)}})


class PendingRemovals:
    """Sidecars that may exist and no longer describe anything, deleted many at a time.

    A small object overwrites whatever stood at its key, perhaps a large one with a sidecar. Asking
    each time would double the requests of small writes, and a stale sidecar is harmless, so the
    keys gather for a moment and go in one DeleteObjects. What does not fit the bound is left to
    `sweep-orphan-sidecars`.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._pending: dict[str, dict[str, None]] = {}
        self._count = 0
        self._deleting: frozenset[ObjectName] = frozenset()
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def add(self, name: ObjectName) -> None:
        """Remove the sidecar of `name` soon."""
        if self._count >= _PENDING_LIMIT:
            return
        bucket, key = name
        waiting = self._pending.setdefault(bucket, {})
        if key not in waiting:
            waiting[key] = None
            self._count += 1
        if self._task is None and not self._closing.is_set():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def withhold(self, name: ObjectName) -> None:
        """A new sidecar is about to be written for `name`; returns when none will be removed."""
        bucket, key = name
        waiting = self._pending.get(bucket)
        if waiting is not None and key in waiting:
            del waiting[key]
            self._count -= 1
        if name in self._deleting:
            async with self._turn:
                pass

    async def _run(self) -> None:
        try:
            while self._pending:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_BATCH_DELAY):
                        await self._closing.wait()
                await self.flush()
        finally:
            self._task = None

    async def flush(self) -> None:
        """Carry out what is pending now, and what is under way."""
        async with self._turn:
            for bucket in list(self._pending):
                waiting = self._pending.pop(bucket)
                self._count -= len(waiting)
                self._deleting = frozenset((bucket, key) for key in waiting)
                try:
                    await self._delete(bucket, list(waiting))
                finally:
                    self._deleting = frozenset()

    async def _delete(self, bucket: str, names: list[str]) -> None:
        for first in range(0, len(names), _BATCH):
            batch = [keys.sidecar_key(key) for key in names[first : first + _BATCH]]
            try:
                await self._backend.delete_many(bucket, batch)
            except BackendError as error:
                _log.warning(
                    "sidecars not removed",
                    extra={"fields": {"bucket": bucket, "error": str(error)}},
                )

    async def close(self) -> None:
        """Carry out what is pending, then accept no more."""
        self._closing.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        await self.flush()
