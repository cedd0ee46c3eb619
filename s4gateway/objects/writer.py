"""Write one object: the body with its manifest, then its sidecar: the only way to write one.

Rule: metadata and body go in one PUT, so that no reader ever meets a compressed body it does not
recognise. The sidecar follows and is bound to the ETag the PUT returned; a crash in between leaves
an object that is whole, and whose ranges cost more. A sidecar that the new version does not need is
removed, except on a versioned bucket, where an older version may still use it.

Removing costs the store as much as half a small write, so a small write first asks, in the same
request, whether what is known is still true: `If-None-Match: *` for a key never seen, `If-Match`
for the version last seen. When the store says no, the write is sent again without the question.
"""

from dataclasses import dataclass
from typing import Final

from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendUnavailable,
    Head,
    HeaderList,
)
from s4gateway.objects.cache import AttributeCache, KnownObject, ObjectName
from s4gateway.objects.encoding import EncodedObject
from s4gateway.objects.sidecar import Sidecars
from s4gateway.s3 import etag
from s4gateway.s3.headers import USER_METADATA_PREFIX

_TRUST: Final = 64
_LOST: Final = 4  # a question answered with no costs as much as so many save
_PAUSE: Final = 256  # writes without a question once too many were lost


@dataclass(frozen=True, slots=True)
class WrittenObject:
    """What the store answered, and whether an index was to be written and was."""

    head: Head
    stored_size: int
    sidecar: bool | None


class ObjectWriter:
    """Stores encoded objects over any Backend; shared by all requests of a process."""

    def __init__(self, sidecars: Sidecars, attributes: AttributeCache) -> None:
        self._sidecars = sidecars
        self._attributes = attributes
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
        written: bool | None = None
        if encoded.index is not None:
            index, size = encoded.index, encoded.stored_size
            written = await self._sidecars.write(name, index, head.etag, size)
        elif head.version_id is None:
            await self._drop_sidecar(name, before, as_known=as_known)
        self._remember(name, encoded, head, indexed=bool(written))
        return WrittenObject(head, encoded.stored_size, written)

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
        if isinstance(body.chunks, bytes) and self._trust > 0 and _is_unconditional(headers):
            question = ("if-none-match", "*")
            if before is not None:
                question = ("if-match", etag.quote(before.etag))
            try:
                head = await backend.put(bucket, key, body, [*headers, question])
            except (BackendAnswer, BackendUnavailable):
                self._trust -= _LOST
                if self._trust <= 0:
                    self._trust = -_PAUSE
            else:
                self._trust = min(self._trust + 1, _TRUST)
                return head, True
        elif self._trust <= 0:
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

    def _remember(
        self, name: ObjectName, encoded: EncodedObject, head: Head, *, indexed: bool
    ) -> None:
        manifest = encoded.manifest
        self._attributes.remember(
            name,
            KnownObject(
                head.etag,
                encoded.stored_size,
                manifest.original_size,
                manifest.logical_etag or head.etag,
                indexed,
            ),
        )

    async def delete(
        self, backend: Backend, name: ObjectName, query: str = "", headers: HeaderList = ()
    ) -> Head:
        """DELETE the object and, on an unversioned bucket, its sidecar; raises BackendError."""
        bucket, key = name
        before = self._attributes.last(name)
        self._attributes.forget(name)
        head = await backend.delete(bucket, key, query=query, headers=headers)
        versioned = head.version_id is not None or "x-amz-delete-marker" in head.headers
        if not versioned and not query:
            if before is None or before.indexed is not False:
                await self._sidecars.remove(name)
            else:
                self._sidecars.removals.add(name)
        return head


def _is_unconditional(headers: list[tuple[str, str]]) -> bool:
    return all(name not in {"if-match", "if-none-match"} for name, _ in headers)
