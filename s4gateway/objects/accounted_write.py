"""One write of one key as the ledger counts it: what is new is added, what it replaced goes.

    believed ─ confirmed by the store ─┐
    look ───── confirmed by the store ─┼─ stored ─ sidecar ─ change
    look ───── sent without condition ─┘

Rule: when a write is answered, what is counted is what the store has taken, and nothing is taken
away that was not added: an object without the mark leaves only a tally. What a write adds is what a
look would find. On a bucket that keeps versions a write replaces nothing, whatever is there.
"""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from s4gateway.backend.base import BackendError
from s4gateway.objects.accounting import Write
from s4gateway.objects.bucket_versioning import Versioning
from s4gateway.objects.cache import KnownObject, ObjectName
from s4gateway.objects.footprint import NULL_VERSIONS, Footprint, Found
from s4gateway.objects.guarded import ATTEMPTS, FEW_ATTEMPTS, Guarded
from s4gateway.objects.sidecar_slot import NULL_VERSION, Books, SidecarSlot
from s4gateway.s3 import etag
from s4gateway.values import immutable
from s4gateway.wire.index import FrameIndex

_Answer = TypeVar("_Answer")

_log = logging.getLogger("s4.ledger")


@immutable
class Change:
    """Signed differences of a bucket's counters."""

    original: int = 0
    stored: int = 0
    objects: int = 0
    skipped: int = 0

    @classmethod
    def removal(cls, old: Found) -> "Change":
        """What goes with an object.

        >>> Change.removal(Found("e", Footprint(9, 5, accounted=True)))
        Change(original=-9, stored=-5, objects=-1, skipped=0)
        >>> Change.removal(Found("e", Footprint(9, 5)))
        Change(original=0, stored=0, objects=0, skipped=1)
        """
        footprint = old.footprint
        if not footprint.accounted:
            return cls(skipped=1)
        return cls(-footprint.original, -footprint.stored, -1)

    @classmethod
    def addition(cls, new: Footprint) -> "Change":
        """What comes with an object where none was.

        >>> Change.addition(Footprint(9, 5, accounted=True))
        Change(original=9, stored=5, objects=1, skipped=0)
        """
        return cls(new.original, new.stored, 1) if new.accounted else UNCHANGED

    def __sub__(self, other: "Change") -> "Change":
        return Change(
            self.original - other.original,
            self.stored - other.stored,
            self.objects - other.objects,
            self.skipped - other.skipped,
        )

    def __add__(self, other: "Change") -> "Change":
        return Change(
            self.original + other.original,
            self.stored + other.stored,
            self.objects + other.objects,
            self.skipped + other.skipped,
        )


UNCHANGED: Final = Change()


class AccountedWrite:
    """The Swap of a ledger; `change` is what it amounts to, as far as it came.

    `contradicted`: by the store's answer the bucket's versioning is not what was believed.

    What can only add is told to `expect` when it is sent, so that it is on its way to the disk
    while the store works; `expected` is what was told. What takes something away never is: a
    counter that two processes take the same from ends at zero, and forgets.
    """

    def __init__(
        self,
        books: Books,
        name: ObjectName,
        versioning: Versioning,
        expect: Callable[[Change], None],
    ) -> None:
        self._books = books
        self._expect = expect
        self.expected = UNCHANGED
        self._name = name
        self._versioning = versioning
        self._old: Found | None = None
        self._new: Footprint | None = None
        self._adds = False
        self._counted_before = False
        self.contradicted = False
        self._sidecar: SidecarSlot | None = None

    @property
    def change(self) -> Change:
        """What has changed in the bucket."""
        new, old = self._new, self._replaced
        if new is None:
            return UNCHANGED
        sidecar = 0 if self._sidecar is None else self._sidecar.change
        if self._counted_before:
            return Change(stored=sidecar)
        change = UNCHANGED if old is None else Change.removal(old)
        return change + Change.addition(new) + Change(stored=sidecar)

    async def replace(self, write: Write[_Answer]) -> tuple[_Answer, bool | None]:
        """Send it, sure of what it replaces."""
        guarded = await self._guarded(write)
        try:
            return await self._sent(guarded, write)
        except BackendError:
            if guarded.carried_out and guarded.seen is not None:
                self.stored(guarded.seen.version_id, guarded.seen.footprint)
            raise
        finally:
            self._old = guarded.old

    async def _guarded(self, write: Write[_Answer]) -> Guarded[Found, _Answer]:
        books, verb = self._books, write.verb
        unknown = verb is not None and books.conditional.known(verb) is None
        if verb is not None and unknown and self._versioning is Versioning.OFF:
            await books.conditional.learn(verb, self._name[0])
        return Guarded(
            send=write.send,
            look=self._look,
            is_made=write.is_made,
            decides=books.decides(verb, self._versioning),
            repeats=write.repeats,
            attempts=FEW_ATTEMPTS if write.is_large else ATTEMPTS,
        )

    async def _sent(
        self, guarded: Guarded[Found, _Answer], write: Write[_Answer]
    ) -> tuple[_Answer, bool | None]:
        if self._versioning is Versioning.ENABLED:
            self._adds_soon(write)
            return await guarded.once(), None
        if write.asked:
            guarded.old = await self._asked_for(guarded, write)
            return await guarded.once(), None
        confirmed: bool | None = None
        before = write.before
        if write.guesses and guarded.decides:
            expected = None if before is None else Found.known(before)
            if before is None or expected is not None:
                if before is None:
                    self._adds_soon(write)
                answer = await guarded.guess(expected)
                if answer is not None:
                    return answer, True
                confirmed = False
        return await guarded.run(), confirmed

    def _adds_soon(self, write: Write[_Answer]) -> None:
        if write.makes is not None and write.makes.accounted:
            self.expected = Change.addition(write.makes)
            self._expect(self.expected)

    async def _asked_for(
        self, guarded: Guarded[Found, _Answer], write: Write[_Answer]
    ) -> Found | None:
        """What stands there if the client's condition holds, which the store decides."""
        if self._versioning is Versioning.SUSPENDED:
            return await guarded.see()
        pinned = [etag.strip(value) for name, value in write.asked if name == "if-match"]
        if not pinned:
            return None
        before = write.before
        if before is not None and before.etag in pinned:
            known = Found.known(before)
            if known is not None:
                return known
        seen = await guarded.see()
        return seen if seen is not None and seen.etag in pinned else None

    async def _look(self) -> Found | None:
        """What the write replaces."""
        named = NULL_VERSION if self._versioning is Versioning.SUSPENDED else ""
        return await self._books.look(self._name, named)

    def stored(self, version_id: str | None, footprint: Footprint) -> None:
        """Count it; what has a version id of its own replaced nothing."""
        self._new = footprint
        self._adds = version_id not in NULL_VERSIONS
        if self._versioning is not Versioning.UNKNOWN:
            self.contradicted = self._adds is not (self._versioning is Versioning.ENABLED)

    def resumed(self, footprint: Footprint) -> None:
        """The object was made before, by a write nobody can tell whether it was counted."""
        self._new = footprint
        self._counted_before = True
        if footprint.accounted:
            fields = {"bucket": self._name[0], "key": self._name[1]}
            _log.warning(
                "resumed after an interruption, counted perhaps not", extra={"fields": fields}
            )

    @property
    def _replaced(self) -> Found | None:
        if self._adds or self._old is None or self._old.version_id not in NULL_VERSIONS:
            return None
        return self._old

    async def write_sidecar(
        self, name: ObjectName, index: FrameIndex, tag: str, size: int
    ) -> int | None:
        """Write the index; it counts if its object does."""
        assert self._new is not None
        old = self._replaced
        expected = self._counted_before or (old is not None and old.may_be_indexed)
        counted = self._new.accounted
        return await self._slot().write(index, tag, size, counted=counted, expected=expected)

    async def drop_sidecar(
        self, name: ObjectName, before: KnownObject | None, *, as_known: bool
    ) -> None:
        """Remove the sidecar of what was replaced, if that is of a kind that has one."""
        replaced = self._replaced
        if self._counted_before or (replaced is not None and replaced.may_be_indexed):
            await self._slot().remove()

    def _slot(self) -> SidecarSlot:
        """The sidecar's place; without versions, it counted as the object it stood beside."""
        if self._sidecar is None:
            versioned = self._versioning in (Versioning.ENABLED, Versioning.SUSPENDED)
            old = self._replaced
            owned = not versioned and old is not None and old.footprint.accounted
            self._sidecar = SidecarSlot(self._books, self._name, self._versioning, owned)
        return self._sidecar
