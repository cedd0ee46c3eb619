"""What a write tells the savings ledger about the object it makes and the one it replaces.

    Accounts   one for a process: NullAccounts, or those of a ledger
      Swap     one write of one key, from the look at what is there to the sidecar of what is new

Rule: every write of an object goes through here, whether it is counted or not, so that counting
changes which object stands here and no writer. Without a ledger nothing is looked at, nothing is
marked, and nothing is asked of the store that the write would not ask for its own sake.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from s4gateway.backend.base import (
    BackendAnswer,
    BackendUnavailable,
    Head,
    HeaderList,
    ObjectStream,
)
from s4gateway.backend.probe import ConditionalVerb
from s4gateway.objects import deletion
from s4gateway.objects.cache import KnownObject, ObjectName
from s4gateway.objects.deletion import Deletion
from s4gateway.objects.footprint import Footprint, Found
from s4gateway.objects.sidecar import Sidecars
from s4gateway.s3 import etag
from s4gateway.values import immutable
from s4gateway.wire.index import FrameIndex

_Answer = TypeVar("_Answer")
_Result = TypeVar("_Result")


class Ledger(Protocol):
    """Counters by bucket, kept on disk."""

    def apply(
        self,
        bucket: str,
        *,
        original: int = 0,
        stored: int = 0,
        objects: int = 0,
        skipped: int = 0,
    ) -> int:
        """Add signed differences to a bucket's counters; what would fall below 0 stays at 0.

        Returns the number of the write to disk that will take them.
        """
        ...

    def holding(self, bucket: str) -> int:
        """Number of the write that takes what is not on disk yet of a bucket, 0 for nothing."""
        ...

    def begin(self) -> None:
        """Have what was applied so far written, without waiting for it."""
        ...

    async def settled(self, run: int) -> None:
        """Return when the write of this number is over; a disk that fails raises nothing."""
        ...


@immutable
class Write(Generic[_Answer]):
    """One request that puts an object where perhaps another is.

    `send` sends it with more headers. `is_made` tells from a look whether it was carried out, for
    answers that get lost. `verb` names what decides conditions on it, None where nothing does;
    `asked` are the client's own, which `send` sends. `before` is what was last known of the key,
    None for nothing; with `guesses` it may be tried on that, unseen. `is_large`: sending it again
    costs a large body. `repeats`: it may be sent again although its answer was lost. `makes` is
    what the object will count for, where that is known before it is sent.
    """

    send: Callable[[HeaderList], Awaitable[_Answer]]
    is_made: Callable[[Found | None], bool]
    verb: ConditionalVerb | None = None
    asked: HeaderList = ()
    before: KnownObject | None = None
    guesses: bool = False
    is_large: bool = False
    repeats: bool = True
    makes: Footprint | None = None


@immutable
class Removal:
    """One DeleteObject; `query` names a version, `asked` are the client's conditions.

    `send` sends it with more headers in place of these. `before` is what was known of the object.
    """

    name: ObjectName
    query: str
    send: Callable[[HeaderList], Awaitable[Head]]
    asked: HeaderList = ()
    before: KnownObject | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """What has become of a DeleteObjects: what was done, and keys with something refused."""

    done: Sequence[Deletion] = ()
    refused: frozenset[str] = frozenset()


class Swap(Protocol):
    """One write of one key under way."""

    async def replace(self, write: Write[_Answer]) -> tuple[_Answer, bool | None]:
        """Send the write; also whether a guess was confirmed, None when none was tried.

        Raises BackendError.
        """
        ...

    def stored(self, version_id: str | None, footprint: Footprint) -> None:
        """The store has taken the object, under this version id if it told one."""
        ...

    def resumed(self, footprint: Footprint) -> None:
        """The object was stored before, by a write that was interrupted behind that."""
        ...

    async def write_sidecar(
        self, name: ObjectName, index: FrameIndex, tag: str, size: int
    ) -> int | None:
        """Write the index of the object just stored; its bytes, None when that failed."""
        ...

    async def drop_sidecar(
        self, name: ObjectName, before: KnownObject | None, *, as_known: bool
    ) -> None:
        """Remove what may be left of the version before; raises nothing."""
        ...


class Accounts(Protocol):
    """The accounts of a process."""

    def mark(self, headers: HeaderList) -> HeaderList:
        """The metadata that marks an object written with these request headers as counted."""
        ...

    async def around(self, name: ObjectName, work: Callable[[Swap], Awaitable[_Result]]) -> _Result:
        """Do the work of one write; returns when it is accounted. Raises what `work` raises."""
        ...

    async def delete(self, removal: Removal) -> Head:
        """Delete an object or a version; its sidecar follows. Raises BackendError."""
        ...

    async def delete_many(
        self,
        bucket: str,
        targets: Sequence[tuple[str, str]],
        send: Callable[[], Awaitable[Deleted]],
    ) -> None:
        """Delete keys, each with the query that names its version; sidecars follow."""
        ...

    async def replace_raw(
        self, name: ObjectName, send: Callable[[], Awaitable[ObjectStream]]
    ) -> ObjectStream:
        """Send a completion that is passed on as it came, and makes an object as it is."""
        ...

    def forget(self, bucket: str) -> None:
        """The settings of a bucket have changed."""
        ...


class NullAccounts:
    """No ledger: writes go their plain way. It is its own Swap, for it keeps nothing."""

    def __init__(self, sidecars: Sidecars) -> None:
        self._sidecars = sidecars

    def mark(self, headers: HeaderList) -> HeaderList:
        """Nothing is marked."""
        return ()

    async def around(self, name: ObjectName, work: Callable[[Swap], Awaitable[_Result]]) -> _Result:
        """Do it."""
        return await work(self)

    async def replace(self, write: Write[_Answer]) -> tuple[_Answer, bool | None]:
        """Send it with the guess as its condition; without, when that is refused or fails."""
        if not write.guesses:
            return await write.send(()), None
        try:
            return await write.send((question(write.before),)), True
        except (BackendAnswer, BackendUnavailable):
            return await write.send(()), False

    def stored(self, version_id: str | None, footprint: Footprint) -> None:
        """Count nothing."""

    def resumed(self, footprint: Footprint) -> None:
        """Count nothing."""

    async def write_sidecar(
        self, name: ObjectName, index: FrameIndex, tag: str, size: int
    ) -> int | None:
        """Write the index."""
        return await self._sidecars.write(name, index, tag, size)

    async def drop_sidecar(
        self, name: ObjectName, before: KnownObject | None, *, as_known: bool
    ) -> None:
        """Remove the sidecar; at once when the version before is known to have one.

        Without the store's word another gateway may have written an indexed version since.
        """
        if before is not None and before.indexed:
            await self._sidecars.remove(name)
        elif not as_known or (before is not None and before.indexed is None):
            self._sidecars.removals.add(name)

    async def delete(self, removal: Removal) -> Head:
        """Delete, and let the sidecar follow."""
        head = await removal.send(removal.asked)
        await deletion.follow(self._sidecars, [deletion_of(removal, head)])
        return head

    async def delete_many(
        self,
        bucket: str,
        targets: Sequence[tuple[str, str]],
        send: Callable[[], Awaitable[Deleted]],
    ) -> None:
        """Delete, and let the sidecars follow."""
        deleted = await send()
        await deletion.follow(self._sidecars, deleted.done)

    async def replace_raw(
        self, name: ObjectName, send: Callable[[], Awaitable[ObjectStream]]
    ) -> ObjectStream:
        """Pass it on; a sidecar that is there describes nothing any more."""
        stream = await send()
        if stream.head.status == 200 and stream.head.version_id is None:
            self._sidecars.removals.add(name)
        return stream

    def forget(self, bucket: str) -> None:
        """Nothing is remembered."""


def question(before: KnownObject | None) -> tuple[str, str]:
    """The condition that holds when `before` is what is there.

    >>> question(None), question(KnownObject("e", 1, 1, "e", None))
    (('if-none-match', '*'), ('if-match', '"e"'))
    """
    return ("if-none-match", "*") if before is None else ("if-match", etag.quote(before.etag))


def deletion_of(removal: Removal, head: Head) -> Deletion:
    """What the store says it has done."""
    marker = head.headers.get("x-amz-delete-marker", "").lower() == "true"
    versioned = marker or head.version_id is not None
    return Deletion(removal.name, bool(removal.query), marker, versioned, removal.before)
