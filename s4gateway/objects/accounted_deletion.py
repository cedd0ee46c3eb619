"""Deletions as the ledger counts them: what a look has found goes from the counters when it went.

Rule: what is subtracted is what was there, as the store has confirmed it: a deletion carries the
ETag that was looked at where the store decides such conditions. A delete marker takes nothing away,
and a marker removed brings nothing back. The sidecar follows its object at once, never later.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from s4gateway.backend.base import BackendAnswer, BackendError, Head, HeaderList
from s4gateway.backend.probe import ConditionalVerb
from s4gateway.objects.accounted_write import UNCHANGED, Change
from s4gateway.objects.accounting import Deleted, Removal, deletion_of
from s4gateway.objects.bucket_versioning import Versioning
from s4gateway.objects.cache import ObjectName
from s4gateway.objects.deletion import Deletion
from s4gateway.objects.fan_out import fan_out
from s4gateway.objects.footprint import NULL_VERSIONS, Found
from s4gateway.objects.guarded import Guarded, is_open, is_refused
from s4gateway.objects.sidecar_slot import NULL_VERSION, Books, SidecarSlot
from s4gateway.s3 import etag
from s4gateway.s3.headers import Headers

_AT_ONCE: Final = 16  # requests about the keys of one DeleteObjects
_UNVERSIONED: Final = frozenset({Versioning.OFF, Versioning.UNKNOWN})

# Where nothing is, a deletion must take nothing away that has come meanwhile.
_NOTHING: Final = (("if-match", '"00000000000000000000000000000000"'),)
_DELETED: Final = Head(204, Headers([]))

_log = logging.getLogger("s4.ledger")

Target = tuple[str, str]  # a key, and the query that names a version of it


class AccountedDeletion:
    """Deletions from one bucket; `change` is what they amount to, as far as they came."""

    def __init__(self, books: Books, bucket: str, versioning: Versioning) -> None:
        self._books = books
        self._bucket = bucket
        self._versioning = versioning
        self.change = UNCHANGED

    async def delete(self, removal: Removal) -> Head:
        """Delete one object or version, and let its sidecar follow; raises BackendError."""
        guarded = await self._guarded(removal)
        try:
            head = await self._sent(guarded, removal)
        except BackendError:
            if guarded.carried_out:
                self._went(guarded.old, removal.query)
            raise
        old = guarded.old
        if removal.query or head.version_id in NULL_VERSIONS:
            self._went(old, removal.query)
        await self._follow([deletion_of(removal, head)], {removal.name: old})
        return head

    async def _guarded(self, removal: Removal) -> Guarded[Found, Head]:
        verb, named = ConditionalVerb.DELETE, self._named(removal.query)
        if self._versioning is Versioning.OFF and not removal.query:
            await self._books.conditional.learn(verb, self._bucket)

        async def look() -> Found | None:
            return None if named is None else await self._books.look(removal.name, named)

        async def send(pin: HeaderList) -> Head:
            try:
                return await removal.send(pin or removal.asked)
            except BackendAnswer as error:
                if pin != _NOTHING or not is_refused(error) or await look() is not None:
                    raise
                return _DELETED

        return Guarded(
            send=send,
            look=look,
            is_made=lambda seen: seen is None,
            decides=not removal.query and self._books.decides(verb, self._versioning),
            absent=() if removal.asked else _NOTHING,
        )

    def _named(self, version_query: str) -> str | None:
        """The version a deletion takes away, None for none."""
        if version_query or self._versioning in _UNVERSIONED:
            return version_query
        return NULL_VERSION if self._versioning is Versioning.SUSPENDED else None

    async def _sent(self, guarded: Guarded[Found, Head], removal: Removal) -> Head:
        pinned = [etag.strip(value) for _, value in removal.asked if value.strip() != "*"]
        if pinned:
            seen = await guarded.see()
            guarded.old = seen if seen is not None and seen.etag in pinned else None
            return await guarded.once()
        return await guarded.run()  # no guess: stores differ in what they say when nothing is there

    def _went(self, old: Found | None, version_query: str) -> None:
        if old is not None and (version_query or old.version_id in NULL_VERSIONS):
            self.change += Change.removal(old)

    async def delete_many(
        self, targets: Sequence[Target], send: Callable[[], Awaitable[Deleted]]
    ) -> None:
        """Delete many, each as far as the store takes it; raises what `send` raises."""
        wanted = list(dict.fromkeys((key, self._named(named)) for key, named in targets))
        found = dict(zip(wanted, await fan_out(wanted, self._seen, _AT_ONCE), strict=True))
        there = {target: old for target, old in found.items() if old is not None}
        try:
            deleted = await send()
        except BackendError as error:
            if is_open(error):
                await self._count_gone(there)
            raise
        refused = {target: old for target, old in there.items() if target[0] in deleted.refused}
        await self._count_gone(refused)
        for target, old in there.items():
            if target not in refused:
                self._went(old, target[1] or "")
        olds = {(self._bucket, key): old for (key, _), old in found.items()}
        await self._follow(deleted.done, olds)

    async def _seen(self, target: tuple[str, str | None]) -> Found | None:
        key, named = target
        if named is None:
            return None
        try:
            return await self._books.look((self._bucket, key), named)
        except BackendError as error:
            fields = {"bucket": self._bucket, "key": key, "error": str(error)}
            _log.warning("not known what a deletion removes", extra={"fields": fields})
            return None

    async def _count_gone(self, there: dict[tuple[str, str | None], Found]) -> None:
        """Look again, where the store's answer leaves open what went."""
        left = await fan_out(there, self._seen, _AT_ONCE)
        for (target, old), seen in zip(there.items(), left, strict=True):
            if seen is None:
                self._went(old, target[1] or "")

    async def _follow(
        self, deletions: Sequence[Deletion], olds: dict[ObjectName, Found | None]
    ) -> None:
        """Let the sidecars follow what was deleted; raises nothing."""
        named: dict[ObjectName, bool] = {}  # whether a delete marker was removed
        left: dict[ObjectName, Deletion] = {}
        for each in deletions:
            if each.of_version:
                named[each.name] = each.marker or named.get(each.name, False)
            else:
                left[each.name] = each
        works: list[Callable[[], Awaitable[None]]] = [
            partial(self._leave, each, olds.get(name))
            for name, each in left.items()
            if name not in named
        ]
        works += [
            partial(self._look_at, name, olds.get(name), came_back=back)
            for name, back in named.items()
        ]
        await fan_out(works, _call, _AT_ONCE)

    async def _leave(self, deletion: Deletion, old: Found | None) -> None:
        """The object went from its key, to come back perhaps where versions are kept."""
        slot = self._slot(deletion.name, old)
        if deletion.versioned:
            await slot.retire()
        elif old is None or old.may_be_indexed:
            await slot.remove()
        self.change += Change(stored=slot.change)

    async def _look_at(self, name: ObjectName, old: Found | None, *, came_back: bool) -> None:
        """Versions were deleted: see what the sidecar stands beside now."""
        slot = self._slot(name, old)
        if not await self._books.sidecars.has_no_object(name):
            if came_back:
                await self._books.sidecars.revive(name)
        elif not await slot.purge():
            await slot.retire()
        self.change += Change(stored=slot.change)

    def _slot(self, name: ObjectName, old: Found | None) -> SidecarSlot:
        owned = self._versioning in _UNVERSIONED and old is not None and old.footprint.accounted
        return SidecarSlot(self._books, name, self._versioning, owned)


async def _call(work: Callable[[], Awaitable[None]]) -> None:
    await work()
