"""The sidecar of one key as something that is counted: what stands there, what came, what went.

Rule: a sidecar is counted when it carries the mark, or stands beside a counted object where there
are no versions. Its bytes are added when it was written and subtracted when it went, each as the
store has confirmed it; what could not be removed stays counted, for it still costs. No failure here
fails a client's request.
"""

import asyncio
import base64
import logging
from dataclasses import dataclass
from functools import partial
from typing import Final

from s4gateway.backend.base import Backend, BackendError, Body, Head, HeaderList
from s4gateway.backend.conditional import ConditionalWrites
from s4gateway.backend.probe import ConditionalVerb
from s4gateway.objects import removal
from s4gateway.objects.bucket_versioning import Versioning
from s4gateway.objects.cache import ObjectName, TailCache
from s4gateway.objects.footprint import (
    MARK,
    NULL_VERSIONS,
    Found,
    head_of,
    is_accounted,
    look,
    sidecar_head,
)
from s4gateway.objects.guarded import Guarded, is_open
from s4gateway.objects.sidecar import Send, Sidecars
from s4gateway.s3 import etag, query
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys
from s4gateway.wire.index import FrameIndex

NULL_VERSION: Final = "versionId=null"
_PAUSE: Final = 0.25  # seconds in which another process comes from its look to its deletion

_log = logging.getLogger("s4.ledger")


@dataclass(frozen=True, slots=True)
class Books:
    """What accounting looks with, under the gateway's own identity."""

    backend: Backend
    sidecars: Sidecars
    tails: TailCache
    conditional: ConditionalWrites

    async def look(self, name: ObjectName, version_query: str = "") -> Found | None:
        """Look at an object or a version; raises BackendError."""
        return await look(self.backend, name, version_query, self.sidecars, self.tails)

    def decides(self, verb: ConditionalVerb | None, versioning: Versioning) -> bool:
        """Whether the store confirms what a request meets: of versions, it knows the current."""
        if verb is None or versioning not in (Versioning.OFF, Versioning.UNKNOWN):
            return False
        return self.conditional.known(verb) is True


@dataclass(slots=True)
class SidecarSlot:
    """`change` is by how many bytes what is counted there has changed.

    `owned`: what stands there now counts even without a mark, for it stands beside a counted object
    in a bucket without versions.
    """

    books: Books
    name: ObjectName
    versioning: Versioning
    owned: bool = False
    change: int = 0

    async def write(
        self, index: FrameIndex, tag: str, size: int, *, counted: bool, expected: bool
    ) -> int | None:
        """Store an index; its bytes, None when that failed.

        `counted`: it stands beside an object that is counted. `expected`: one may be there.
        """
        marks = (MARK,) if counted else ()
        md5 = ""

        async def via(send: Send, body: Body) -> None:
            nonlocal md5
            md5 = _md5(body)
            guarded = self._guarded(partial(_marked, send, marks), body)
            head: Head | None
            try:
                head = await self._sent(guarded, expected=expected)
            except BackendError:
                head = guarded.seen
                if not guarded.carried_out or head is None:
                    raise
            self.change += body.length * counted
            if head.version_id in NULL_VERSIONS:  # else nothing was replaced
                self.change -= self._counted(guarded.old)

        length = await self.books.sidecars.write(self.name, index, tag, size, via)
        if length is not None and self.versioning is not Versioning.ENABLED:
            self.owned = False  # what stands there now tells by its mark whether it counts
            await self._stay_beside(tag, md5)
        return length

    async def _stay_beside(self, tag: str, md5: str) -> None:
        """Remove the sidecar just written if its object had gone before it came.

        Whoever replaced or deleted the object (another gateway: in this one the writes of a key
        take turns) looked for a sidecar then and found none; whoever does so later finds this one.
        """
        try:
            head = await head_of(self.books.backend, self.name, self._current)
        except BackendError:
            return  # `sweep-orphan-sidecars` finds what may be left
        if head is None or head.etag != tag:
            await asyncio.sleep(_PAUSE)  # who comes just now may have seen it, and remove it, too
            await self.remove(only=md5)

    async def _sent(self, guarded: "Guarded[Head, Head]", *, expected: bool) -> Head:
        if self.versioning is Versioning.ENABLED:
            return await guarded.once()
        head = await guarded.guess(None) if guarded.decides and not expected else None
        return await guarded.run() if head is None else head

    def _guarded(self, send: Send, body: Body) -> "Guarded[Head, Head]":
        md5 = _md5(body)
        return Guarded(
            send=send,
            look=self._look,
            is_made=lambda seen: seen is not None and seen.etag == md5,
            decides=self.books.decides(ConditionalVerb.PUT, self.versioning),
        )

    async def remove(self, only: str = "") -> bool:
        """Delete it, where nothing needs it any more; whether it was there. Raises nothing.

        `only`: the ETag of the one that is meant.
        """
        bucket, key = self.name
        try:
            seen = await self._look()
            if seen is None or (only and seen.etag != only):
                return False
            pin: HeaderList = ()
            if self.books.decides(ConditionalVerb.DELETE, self.versioning) and seen.etag:
                pin = (("if-match", etag.quote(seen.etag)),)
            head = await self._delete(bucket, keys.sidecar_key(key), pin)
        except BackendError as error:
            _warn(bucket, error)
            return True
        if head is None or head.version_id in NULL_VERSIONS:
            self.change -= self._counted(seen)
        return True

    async def _delete(self, bucket: str, key: str, pin: HeaderList) -> Head | None:
        """DELETE; None when it went although the answer was lost. A refusal leaves another's."""
        try:
            return await self.books.backend.delete(bucket, key, headers=pin)
        except BackendError as error:
            if is_open(error) and await self._look() is None:
                return None
            raise

    async def retire(self) -> None:
        """Put it behind a delete marker, as its object was; raises nothing."""
        if not await self.remove() and self.versioning is Versioning.SUSPENDED:
            await self.books.sidecars.retire(self.name)

    async def purge(self) -> bool:
        """Delete all its versions if the object has none left; whether that was so.

        Delete markers bring nothing back then, and SeaweedFS does not remove all of them.
        """
        sidecars, bucket = self.books.sidecars, self.name[0]
        try:
            doomed = await sidecars.left_behind(self.name, markers=False)
            if doomed is None:
                return False
            sizes = await asyncio.gather(*map(self._weigh, doomed))
            if doomed and not await removal.delete(self.books.backend, bucket, doomed, by_id=True):
                return False
        except (BackendError, S3Error) as error:
            _warn(bucket, error)
            return False
        self.change -= sum(sizes)
        return True

    async def _weigh(self, version: removal.Version) -> int:
        """Bytes that are counted of one version."""
        named = query.format_query([("versionId", version.version_id)])
        return self._counted(await sidecar_head(self.books.backend, self.name, named))

    async def _look(self) -> Head | None:
        """What a write replaces and a deletion takes away."""
        return await sidecar_head(self.books.backend, self.name, self._current)

    @property
    def _current(self) -> str:
        """The query that names the version the next write replaces."""
        return NULL_VERSION if self.versioning is Versioning.SUSPENDED else ""

    def _counted(self, head: Head | None) -> int:
        if head is None or not (self.owned or is_accounted(head.metadata)):
            return 0
        return head.size


def _md5(body: Body) -> str:
    return base64.b64decode(body.md5 or "").hex()


async def _marked(send: Send, marks: HeaderList, headers: HeaderList) -> Head:
    return await send([*marks, *headers])


def _warn(bucket: str, error: Exception) -> None:
    _log.warning("sidecar not removed", extra={"fields": {"bucket": bucket, "error": str(error)}})
