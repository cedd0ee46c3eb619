"""Write one object: the body with its manifest, then its sidecar: the only way to write one.

Rule: metadata and body go in one PUT, so that no reader ever meets a compressed body it does not
recognise. The sidecar follows and is bound to the ETag the PUT returned; a crash in between leaves
an object that is whole, and whose ranges cost more. A sidecar that the new version does not need is
removed, except on a versioned bucket, where an older version may still use it. A body too large
for one PUT, or wanted in parts, goes by a multipart upload, whose parts mean nothing to readers.

Removing costs the store as much as half a small write, so a small write first asks, in the same
request, whether what is known is still true: `If-None-Match: *` for a key never seen, `If-Match`
for the version last seen. When the store says no, the write is sent again without the question. A
store's yes is only believed once it is known to say no where it must; others are never asked.
"""

from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import Final

from s4gateway.backend.base import Backend, BackendError, Head, HeaderList
from s4gateway.backend.conditional import ConditionalWrites
from s4gateway.backend.probe import ConditionalVerb
from s4gateway.objects.accounting import (
    Accounts,
    NullAccounts,
    Removal,
    Swap,
    Write,
    question,
)
from s4gateway.objects.cache import AttributeCache, KnownObject, ObjectName
from s4gateway.objects.encoding import EncodedObject
from s4gateway.objects.footprint import MARK, Footprint, Found
from s4gateway.objects.part_sending import LARGEST, PART_SIZE, PartSender
from s4gateway.objects.sidecar import Sidecars
from s4gateway.s3.headers import USER_METADATA_PREFIX
from s4gateway.values import immutable
from s4gateway.wire.index import FrameIndex
from s4gateway.wire.manifest import LEDGER

_TRUST: Final = 64
_LOST: Final = 4  # a question answered with no costs as much as so many save
_CONDITIONS: Final = frozenset({"if-match", "if-none-match"})
_PAUSE: Final = 256  # writes without a question once too many were lost


@immutable
class WrittenObject:
    """What the store answered, and whether an index was to be written and was."""

    head: Head
    stored_size: int
    sidecar: bool | None


class ObjectWriter:
    """Stores encoded objects over any Backend; shared by all requests of a process.

    `accounts` are told of every write. Bodies of more than `largest` bytes are sent in parts of
    `part_size`.
    """

    def __init__(
        self,
        sidecars: Sidecars,
        attributes: AttributeCache,
        conditional: ConditionalWrites,
        accounts: Accounts | None = None,
        *,
        largest: int = LARGEST,
        part_size: int = PART_SIZE,
    ) -> None:
        self.accounts = accounts if accounts is not None else NullAccounts(sidecars)
        self._attributes = attributes
        self._conditional = conditional
        self._largest = largest
        self._parts = PartSender(part_size)
        self._trust = _TRUST  # how far questions are worth asking: they are lost on some workloads

    async def store(
        self,
        backend: Backend,
        name: ObjectName,
        encoded: EncodedObject,
        headers: list[tuple[str, str]],
        *,
        counted: bool | None = None,
    ) -> WrittenObject:
        """PUT body and manifest with the client's `headers`; raises BackendError.

        `counted` says whether the object carries the ledger's mark; None leaves it to the accounts.
        """
        if counted is None:
            counted = encoded.manifest.ledger or bool(self.accounts.mark(headers))
        counted = counted and not encoded.bare
        call = partial(self._store, backend, name, encoded, headers, counted)
        return await self.accounts.around(name, call)

    async def _store(
        self,
        backend: Backend,
        name: ObjectName,
        encoded: EncodedObject,
        headers: list[tuple[str, str]],
        counted: bool,
        swap: Swap,
    ) -> WrittenObject:
        entries = {} if encoded.bare else encoded.manifest.to_metadata()
        entries.pop(LEDGER, None)
        sent = headers + [(USER_METADATA_PREFIX + entry, text) for entry, text in entries.items()]
        if counted:
            sent.append(MARK)
        before = self._attributes.last(name)
        try:
            head, as_known = await self._put(backend, name, encoded, sent, before, swap)
        except BaseException:
            self._attributes.forget(name)  # the store may or may not have taken it
            raise
        known = _known(encoded, head, counted=counted)
        versioned = head.version_id is not None
        swap.stored(head.version_id, _footprint(encoded, counted=counted))
        written = await self.settle(
            swap, name, known, encoded.index, before, versioned=versioned, as_known=as_known
        )
        if not versioned:
            await self._conditional.learn(ConditionalVerb.PUT, name[0])
        return WrittenObject(head, encoded.stored_size, written)

    async def settle(
        self,
        swap: Swap,
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
            length = await swap.write_sidecar(name, index, known.etag, known.stored_size)
            written = length is not None
        elif not versioned:
            await swap.drop_sidecar(name, before, as_known=as_known)
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
        swap: Swap,
    ) -> tuple[Head, bool]:
        """PUT; say whether the store confirmed that `before` is what was there."""
        body = encoded.body
        in_parts = self.goes_in_parts(encoded)

        def send(conditions: HeaderList) -> Awaitable[Head]:
            if in_parts:
                return self._parts.send(backend, name, encoded, [*headers, *conditions])
            return backend.put(*name, body, [*headers, *conditions] if conditions else headers)

        def is_made(seen: Found | None) -> bool:
            if seen is None or encoded.bare:
                return seen is not None and seen.manifest is None
            return seen.manifest == replace(encoded.manifest, ledger=MARK in headers)

        verb = ConditionalVerb.COMPLETE if in_parts else ConditionalVerb.PUT
        honest = self._conditional.known(verb) is True
        asked = [each for each in headers if each[0] in _CONDITIONS]
        large = not isinstance(body.chunks, bytes)
        guesses = not asked and honest and not large and self._is_worth_it()
        makes = None if large else _footprint(encoded, counted=MARK in headers)
        write = Write(send, is_made, verb, asked, before, guesses, large, makes=makes)
        try:
            head, confirmed = await swap.replace(write)
        except BackendError:
            if guesses:
                self._learn(confirmed=False)
            raise
        if asked:
            return head, honest and question(before) in asked
        if confirmed is not None:
            self._learn(confirmed=confirmed)
        return head, confirmed is True

    def goes_in_parts(self, encoded: EncodedObject) -> bool:
        """Whether it is stored by a multipart upload."""
        return bool(encoded.parts) or encoded.stored_size > self._largest

    def _is_worth_it(self) -> bool:
        """Whether to ask what could be known; after too many lost questions, not for a while."""
        if self._trust > 0:
            return True
        self._trust += 1
        return False

    def _learn(self, *, confirmed: bool) -> None:
        if confirmed:
            self._trust = min(self._trust + 1, _TRUST)
            return
        self._trust -= _LOST
        if self._trust <= 0:
            self._trust = -_PAUSE

    async def delete(
        self, backend: Backend, name: ObjectName, query: str = "", headers: HeaderList = ()
    ) -> Head:
        """DELETE the object or one version; its sidecar follows. Raises BackendError."""
        before = self._attributes.last(name)
        self._attributes.forget(name)
        asked = [each for each in headers if each[0] in _CONDITIONS]
        plain = [each for each in headers if each[0] not in _CONDITIONS]

        async def send(conditions: HeaderList) -> Head:
            return await backend.delete(*name, query=query, headers=[*plain, *conditions])

        return await self.accounts.delete(Removal(name, query, send, asked, before))


def _footprint(encoded: EncodedObject, *, counted: bool) -> Footprint:
    """What an object counts for that has been encoded to its end."""
    return Footprint(encoded.manifest.original_size, encoded.stored_size, accounted=counted)


def _known(encoded: EncodedObject, head: Head, *, counted: bool) -> KnownObject:
    """What is known about an object just stored, its index not yet."""
    manifest = encoded.manifest
    return KnownObject(
        head.etag,
        encoded.stored_size,
        manifest.original_size,
        head.etag if encoded.bare else manifest.logical_etag or head.etag,
        indexed=False,
        accounted=counted,
        may_be_indexed=encoded.index is not None,
    )
