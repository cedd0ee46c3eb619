"""Write one object: the body with its manifest, then its sidecar: the only way to write one.

Rule: metadata and body go in one PUT, so that no reader ever meets a compressed body it does not
recognise. The sidecar follows and is bound to the ETag the PUT returned; a crash in between leaves
an object that is whole, and whose ranges cost more. A sidecar that the new version does not need is
removed, except on a versioned bucket, where an older version may still use it.
"""

from dataclasses import dataclass

from s4gateway.backend.base import Backend, Head, HeaderList
from s4gateway.objects.cache import AttributeCache, KnownObject, ObjectName
from s4gateway.objects.encoding import EncodedObject
from s4gateway.objects.sidecar import Sidecars
from s4gateway.s3.headers import USER_METADATA_PREFIX


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

    async def store(
        self,
        backend: Backend,
        name: ObjectName,
        encoded: EncodedObject,
        headers: list[tuple[str, str]],
    ) -> WrittenObject:
        """PUT body and manifest with the client's `headers`; raises BackendError."""
        bucket, key = name
        entries = encoded.manifest.to_metadata()
        sent = headers + [(USER_METADATA_PREFIX + name, text) for name, text in entries.items()]
        before = self._attributes.last(name)
        try:
            head = await backend.put(bucket, key, encoded.body, sent)
        except BaseException:
            self._attributes.forget(name)  # the store may or may not have taken it
            raise
        written = await self._index(name, encoded, head, before)
        self._remember(name, encoded, head, indexed=bool(written))
        return WrittenObject(head, encoded.stored_size, written)

    async def _index(
        self, name: ObjectName, encoded: EncodedObject, head: Head, before: KnownObject | None
    ) -> bool | None:
        index = encoded.index
        if index is not None:
            return await self._sidecars.write(name, index, head.etag, encoded.stored_size)
        if head.version_id is None:
            await self.drop_sidecar(name, before)
        return None

    async def drop_sidecar(self, name: ObjectName, before: KnownObject | None) -> None:
        """Remove what may be left of the version `before`; at once when it is known to have one.

        Another gateway may have written an indexed version since, so that none is ever certain.
        """
        if before is not None and before.indexed:
            await self._sidecars.remove(name)
        else:
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
