"""One object or sidecar copied onto itself in another storage class, with all that belongs to it.

Rule: a copy onto itself replaces, so it must say again whatever CopyObject would not take along:
metadata, content headers, encryption by the store's keys, grants. Tags follow by themselves. Source
and target are both pinned to the ETag that was looked at, as far as the store knows such conditions
of a copy. What a copy cannot say again is a reason not to make it.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
"""

import base64
import hashlib
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final, TypeVar

from s4gateway.backend import multipart
from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendError,
    BackendProtocolError,
    Body,
    Head,
)
from s4gateway.objects.part_copying import parse_result
from s4gateway.s3 import etag as etags
from s4gateway.s3.headers import USER_METADATA_PREFIX
from s4gateway.tools import carrying, sidecars
from s4gateway.tools.carrying import NotExpressible
from s4gateway.tools.failure import Failure
from s4gateway.tools.patience import Patience
from s4gateway.tools.sidecar_errors import SidecarToolError
from s4gateway.tools.sidecar_repair import repair_sidecar
from s4gateway.tools.walk import STANDARD
from s4gateway.wire import keys, manifest
from s4gateway.wire.index import FrameIndex

_CLASS: Final = "x-amz-storage-class"
_REPLACED: Final = frozenset({409, 412})
_NO_CONDITION: Final = frozenset({400, 405, 501})  # a store that does not know the header
_DEFAULT_TYPE: Final = ("content-type", "binary/octet-stream")

_Result = TypeVar("_Result")
Headers = list[tuple[str, str]]


class Moved(Enum):
    """What was done about a sidecar."""

    NOTHING = "nothing"
    MOVED = "moved"
    REBOUND = "rebound"


class Left(Enum):
    """Why an object is not moved, which is no failure."""

    RACED = "replaced or deleted by others meanwhile"
    ACL = "grants that no header expresses"
    LOCKED = "under Object Lock"
    ENCRYPTED = "under a key that is not here"
    ARCHIVED = "archived: restore it first"


class MoveLeft(Exception):
    """The object stays as it is, for a reason that is counted."""

    def __init__(self, why: Left) -> None:
        super().__init__(why.value)
        self.why = why


class MoveFailed(Exception):
    """The store, or what it says, does not let the object be moved."""

    def __init__(self, key: str, op: str, cause: object) -> None:
        super().__init__(f"{key}: {op}: {cause}")
        self.failure = Failure(key, op, str(cause))


class Mover:
    """Moves keys of one bucket into `storage_class`.

    `conditional` becomes False when the store refuses a condition on what a copy replaces, `grants`
    when it does not let ACLs be read: they are then not carried.
    """

    def __init__(
        self, backend: Backend, bucket: str, storage_class: str, patience: Patience
    ) -> None:
        self._backend = backend
        self._bucket = bucket
        self._class = storage_class
        self._patience = patience
        self.conditional = True
        self.grants = True

    def is_there(self, head: Head) -> bool:
        """Whether what was looked at is in its class."""
        return (head.headers.get(_CLASS) or STANDARD) == self._class

    async def look(self, key: str, op: str) -> Head:
        """HeadObject; raises MoveLeft, MoveFailed."""
        head = await self._ask(key, op, lambda: self._backend.head(self._bucket, key))
        if not head.etag:
            raise MoveFailed(key, op, "the store gives the object no ETag to pin a copy to")
        return head

    async def move(self, key: str, head: Head) -> str:
        """Copy an object onto itself in its new class; the copy's ETag. Raises as `look`."""
        if carrying.is_locked(head):
            raise MoveLeft(Left.LOCKED)
        if carrying.is_under_customer_key(head):
            raise MoveLeft(Left.ENCRYPTED)
        if carrying.lacks_metadata(head):
            raise MoveFailed(key, "CopyObject", "it has metadata that the store does not show")
        granted = await self._grants(key)
        return await self._copy(key, head, "CopyObject", granted)

    async def follow(self, key: str, before: Head, after: str) -> Moved:
        """Take the sidecar of an object along that had the ETag of `before` and now has `after`.

        Raises as `look`; MoveLeft when the sidecar is another's by now.
        """
        sidecar = await self._sidecar(key)
        if sidecar is None:
            return Moved.NOTHING
        if before.etag != after:
            loaded = await self._load(key)
            index = None if loaded is None else loaded.index
            if index is not None and index.is_bound_to(before.etag, before.size):
                await self._rebind(key, sidecar, index.bind(after, before.size))
                return Moved.REBOUND
        return await self._move_sidecar(key, sidecar)

    async def realign(self, key: str, head: Head) -> Moved:
        """Bring a sidecar that was left behind to its object, which `head` shows.

        One of an older version of the object is made anew from the object's frames, where that can
        be done. Raises as `follow`.
        """
        loaded = await self._load(key)
        if loaded is None:
            return Moved.NOTHING
        index, moved = loaded.index, Moved.MOVED
        if index is not None and index.etag and not index.is_bound_to(head.etag, head.size):
            moved = await self._repair(key)
        sidecar = await self._sidecar(key)
        if sidecar is None:
            return Moved.NOTHING
        await self._move_sidecar(key, sidecar)
        return moved

    async def _grants(self, key: str) -> Headers:
        if not self.grants:
            return []
        try:
            return await self._patience.ask(
                lambda: carrying.grants(self._backend, (self._bucket, key))
            )
        except NotExpressible:
            raise MoveLeft(Left.ACL) from None
        except BackendAnswer as error:
            if error.missing:
                raise MoveLeft(Left.RACED) from error
            if not carrying.is_unsupported(error):
                raise MoveFailed(key, "GetObjectAcl", error) from error
            self.grants = False
            return []
        except BackendError as error:
            raise MoveFailed(key, "GetObjectAcl", error) from error

    async def _copy(self, key: str, head: Head, op: str, granted: Headers) -> str:
        """CopyObject onto itself, pinned; the copy's ETag."""
        path = multipart.object_path(self._bucket, key)
        pinned = etags.quote(head.etag)
        headers = [
            ("x-amz-copy-source", path),
            ("x-amz-copy-source-if-match", pinned),
            ("x-amz-metadata-directive", "REPLACE"),
            *self._described(head),
            *granted,
        ]

        async def copy(*condition: tuple[str, str]) -> str:
            _, document = await multipart.ask(
                self._backend, "PUT", path, "", [*headers, *condition]
            )
            return parse_result(document).etag

        return await self._ask(key, op, lambda: self._on_condition(pinned, copy))

    async def _on_condition(
        self, pinned: str, request: Callable[..., Awaitable[_Result]]
    ) -> _Result:
        """Send a write that must replace nothing else, as far as the store knows the condition."""
        if not self.conditional:
            return await request()
        try:
            return await request(("if-match", pinned))
        except BackendAnswer as error:
            if error.status not in _NO_CONDITION:
                raise
            result = await request()
            self.conditional = False
            return result

    def _described(self, head: Head) -> Headers:
        """All that is stored with the bytes, the gateway's own metadata included, in the class."""
        kept = [each for each in carrying.description(head) if each[0] != _CLASS]
        if all(name != _DEFAULT_TYPE[0] for name, _ in kept):
            kept.append(_DEFAULT_TYPE)
        kept += [
            (USER_METADATA_PREFIX + name, value)
            for name, value in head.metadata.items()
            if name.startswith(manifest.RESERVED_PREFIX)
        ]
        return [*kept, (_CLASS, self._class)]

    async def _sidecar(self, key: str) -> Head | None:
        """The sidecar beside an object; None when there is none."""
        try:
            return await self.look(keys.sidecar_key(key), "HeadObject(sidecar)")
        except MoveLeft:
            return None

    async def _load(self, key: str) -> sidecars.LoadedSidecar | None:
        """The sidecar's index; none that can be read is one that can be moved as it is."""
        name = (self._bucket, key)
        try:
            return await self._patience.ask(lambda: sidecars.load_sidecar(self._backend, name))
        except BackendError as error:
            raise MoveFailed(keys.sidecar_key(key), "GetObject(sidecar)", error) from error

    async def _move_sidecar(self, key: str, sidecar: Head) -> Moved:
        if self.is_there(sidecar):
            return Moved.NOTHING
        await self._copy(keys.sidecar_key(key), sidecar, "CopyObject(sidecar)", [])
        return Moved.MOVED

    async def _rebind(self, key: str, sidecar: Head, index: FrameIndex) -> None:
        """Write the index anew over the sidecar that was seen."""
        data = index.encode()
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        body = Body.of(data, md5=md5)  # buckets with Object Lock take nothing without
        headers = self._described(sidecar)
        name = keys.sidecar_key(key)

        async def put(*condition: tuple[str, str]) -> Head:
            return await self._backend.put(self._bucket, name, body, [*headers, *condition])

        pinned = etags.quote(sidecar.etag)
        await self._ask(name, "PutObject(sidecar)", lambda: self._on_condition(pinned, put))

    async def _repair(self, key: str) -> Moved:
        """Make the sidecar anew; one that cannot be is moved as it is."""
        try:
            await repair_sidecar(self._backend, (self._bucket, key))
        except (BackendError, SidecarToolError):
            return Moved.MOVED
        return Moved.REBOUND

    async def _ask(self, key: str, op: str, request: Callable[[], Awaitable[_Result]]) -> _Result:
        """What the store answers; raises MoveLeft, MoveFailed."""
        try:
            return await self._patience.ask(request)
        except BackendAnswer as error:
            gone = error.missing and error.code != "NoSuchBucket"
            if gone or error.status in _REPLACED:
                raise MoveLeft(Left.RACED) from error
            if error.code == "InvalidObjectState":
                raise MoveLeft(Left.ARCHIVED) from error
            raise MoveFailed(key, op, error) from error
        except BackendError as error:
            raise MoveFailed(key, op, error) from error


def stored_size(key: str, head: Head) -> int:
    """The stored bytes of what was looked at; raises MoveFailed."""
    try:
        return head.size
    except BackendProtocolError as error:
        raise MoveFailed(key, "HeadObject(pre-copy)", error) from error
