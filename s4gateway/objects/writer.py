"""Write one object: the body with its manifest, then its sidecar: the only way to write one.

Rule: metadata and body go in one PUT, so that no reader ever meets a compressed body it does not
recognise. The sidecar follows and is bound to the ETag the PUT returned; a crash in between leaves
an object that is whole, and whose ranges cost more. A sidecar that the new version does not need is
removed, except on a versioned bucket, where an older version may still use it.

Removing costs the store as much as half a small write, so a small write first asks, in the same
request, whether what is known is still true: `If-None-Match: *` for a key never seen, `If-Match`
for the version last seen. When the store says no, the write is sent again without the question. A
store's yes is only believed once it is known to say no where it must; others are never asked.
"""

from dataclasses import replace
from typing import Final

from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendUnavailable,
    Head,
    HeaderList,
)
from s4gateway.backend.conditional import ConditionalWrites
from s4gateway.backend.probe import ConditionalVerb
from s4gateway.objects import deletion
from s4gateway.objects.cache import AttributeCache, KnownObject, ObjectName
from s4gateway.objects.deletion import Deletion
from s4gateway.objects.encoding import EncodedObject
from s4gateway.objects.sidecar import Sidecars
from s4gateway.s3 import etag
from s4gateway.s3.headers import USER_METADATA_PREFIX
from s4gateway.values import immutable
from s4gateway.wire.index import FrameIndex

_TRUST: Final = 64
_LOST: Final = 4  # a question answered with no costs as much as so many save
_PAUSE: Final = 256  # writes without a question once too many were lost


@immutable
class WrittenObject:
    """What the store answered, and whether an index was to be written and was."""

    head: Head
    stored_size: int
    sidecar: bool | None


class ObjectWriter:
    """Stores encoded objects over any Backend; shared by all requests of a process."""

    def __init__(
        self, sidecars: Sidecars, attributes: AttributeCache, conditional: ConditionalWrites
    ) -> None:
        self._sidecars = sidecars
        self._attributes = attributes
        self._conditional = conditional
        self._trust = _TRUST  # how far questions are worth asking: they are lost on some workloads

    async def store(
        self,
        backend: Backend,
        name: ObjectName,
        encoded: EncodedObject,
        headers: list[tuple[str, str]],
    ) -> WrittenObject:
        """PUT body and manifest with the client's `headers`; raises BackendError."""
        entries = encoded.manifest.to_metadata()
        sent = headers + [(USER_METADATA_PREFIX + entry, text) for entry, text in entries.items()]
        before = self._attributes.last(name)
        try:
            head, as_known = await self._put(backend, name, encoded, sent, before)
        except BaseException:
            self._attributes.forget(name)  # the store may or may not have taken it
            raise
        known = _known(encoded, head)
        versioned = head.version_id is not None
        written = await self.settle(
            name, known, encoded.index, before, versioned=versioned, as_known=as_known
        )
        if not versioned:
            await self._conditional.learn(ConditionalVerb.PUT, name[0])
        return WrittenObject(head, encoded.stored_size, written)

    async def settle(
        self,
        name: ObjectName,
        known: KnownObject | None,
        index: FrameIndex | None,
        before: KnownObject | None,
        *,
        versioned: bool,
        as_known: bool = False,
    ) -> bool | None:
        """Bring sidecar and cache up to the version just stored; whether an index was written.

        `known` describes that version, None when its size is not known; `index` is that of its
        frames, None when it needs none, and the answer is None then, too. `before` is what the
        cache held when the write began, `as_known` says that the store has confirmed it.
        """
        written: bool | None = None
        if index is not None and known is not None:
            written = await self._sidecars.write(name, index, known.etag, known.stored_size)
        elif not versioned:
            await self._drop_sidecar(name, before, as_known=as_known)
        if known is None:
            self._attributes.forget(name)
        else:
            self._attributes.remember(name, replace(known, indexed=True) if written else known)
        return written

    async def _put(
        self,
        backend: Backend,
        name: ObjectName,
        encoded: EncodedObject,
        headers: list[tuple[str, str]],
        before: KnownObject | None,
    ) -> tuple[Head, bool]:
        """PUT; say whether the store confirmed that `before` is what was there."""
        bucket, key = name
        body = encoded.body
        question = ("if-none-match", "*")
        if before is not None:
            question = ("if-match", etag.quote(before.etag))
        honest = self._conditional.known(ConditionalVerb.PUT) is True
        if not _is_unconditional(headers):
            head = await backend.put(bucket, key, body, headers)
            return head, honest and question in headers
        if not isinstance(body.chunks, bytes) or not honest:
            return await backend.put(bucket, key, body, headers), False
        if self._trust > 0:
            try:
                head = await backend.put(bucket, key, body, [*headers, question])
            except (BackendAnswer, BackendUnavailable):
                self._trust -= _LOST
                if self._trust <= 0:
                    self._trust = -_PAUSE
            else:
                self._trust = min(self._trust + 1, _TRUST)
                return head, True
        else:
            self._trust += 1
        return await backend.put(bucket, key, body, headers), False

    async def _drop_sidecar(
        self, name: ObjectName, before: KnownObject | None, *, as_known: bool
    ) -> None:
        """Remove what may be left of the version before; at once when it is known to have one.

        Without the store's word another gateway may have written an indexed version since.
        """
        if before is not None and before.indexed:
            await self._sidecars.remove(name)
        elif not as_known or (before is not None and before.indexed is None):
            self._sidecars.removals.add(name)

    async def delete(
        self, backend: Backend, name: ObjectName, query: str = "", headers: HeaderList = ()
    ) -> Head:
        """DELETE the object or one version; its sidecar follows. Raises BackendError."""
        bucket, key = name
        before = self._attributes.last(name)
        self._attributes.forget(name)
        head = await backend.delete(bucket, key, query=query, headers=headers)
        marker = head.headers.get("x-amz-delete-marker", "").lower() == "true"
        versioned = marker or head.version_id is not None
        done = Deletion(name, bool(query), marker, versioned, before)
        await deletion.follow(self._sidecars, [done])
        return head


def _known(encoded: EncodedObject, head: Head) -> KnownObject:
    """What is known about an object just stored, its index not yet."""
    manifest = encoded.manifest
    return KnownObject(
        head.etag,
        encoded.stored_size,
        manifest.original_size,
        manifest.logical_etag or head.etag,
        indexed=False,
    )


def _is_unconditional(headers: list[tuple[str, str]]) -> bool:
    return all(name not in {"if-match", "if-none-match"} for name, _ in headers)
