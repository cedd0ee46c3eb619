"""A request that replaces or removes what stands at a key, and is sure of what that was.

Rule: what was looked at is made the condition of the request, so that the store itself confirms
that nothing came between: `If-Match` of what was seen, `If-None-Match: *` where nothing was. When
the store refuses, there is another look and another try. After a few, and at a store that decides
no conditions, the request goes without one: being sure of a number is no reason to fail a client.

An answer that got lost is looked into, too: what the request has made replaced what was seen before
it, whoever is asked for the rest.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from s4gateway.backend.base import (
    BackendAnswer,
    BackendError,
    BackendUnavailable,
    HeaderList,
)
from s4gateway.s3 import etag

ATTEMPTS: Final = 16  # against as many gateways writing one key; each costs two small requests
FEW_ATTEMPTS: Final = 4  # where each sends a large body again
_REFUSED: Final = frozenset({409, 412})
_SERVER_FAULT: Final = 500
ABSENT: Final = (("if-none-match", "*"),)

_log = logging.getLogger("s4.ledger")


class Seen(Protocol):
    """Something that was looked at."""

    @property
    def etag(self) -> str:
        """Its ETag, unquoted; empty when it is not known."""
        ...


_Seen = TypeVar("_Seen", bound=Seen)
_Answer = TypeVar("_Answer")


@dataclass(slots=True)
class Guarded(Generic[_Seen, _Answer]):
    """The request and the look.

    `is_made` tells from a look whether the request was carried out. `decides`: the store honours
    conditions on it. `absent` is the condition that holds where nothing is; with none, the request
    goes without one.
    `repeats`: it may be sent again when its answer was lost; it is sent under a condition no more
    than `attempts` times. Afterwards `old` is what the request
    met; after a failure, `carried_out` says that it did, and `seen` what there is now.
    """

    send: Callable[[HeaderList], Awaitable[_Answer]]
    look: Callable[[], Awaitable[_Seen | None]]
    is_made: Callable[[_Seen | None], bool]
    decides: bool
    absent: HeaderList = ABSENT
    repeats: bool = True
    attempts: int = ATTEMPTS
    old: _Seen | None = None
    seen: _Seen | None = None
    carried_out: bool = False
    _lost: bool = False
    _blind: bool = False

    async def guess(self, expected: _Seen | None) -> _Answer | None:
        """Send it on what is believed to be there; None when the store did not confirm that."""
        self.old = expected
        try:
            return await self.send(self._condition(expected))
        except BackendError as error:
            self._lost = is_open(error)
            return None

    async def run(self) -> _Answer:
        """Look, send, and do it again until the store confirms what was seen; raises BackendError.

        A 412 is never raised for a condition that was set here.
        """
        for _ in range(self.attempts if self.decides else 0):
            condition = self._condition(await self.see())
            if not condition:
                return await self.once()
            try:
                return await self.send(condition)
            except BackendError as error:
                refused = is_refused(error)
                self._lost = self._lost or is_open(error)
                if not refused and not self.repeats:
                    raise
            if not refused:
                break
        await self.see()
        return await self.once()

    async def once(self) -> _Answer:
        """Send it under no condition but the caller's own; `old` is set. Raises BackendError."""
        try:
            return await self.send(())
        except BackendError as error:
            if is_open(error):
                self._lost = True
                seen = await self.see()
                self.carried_out = not self._blind and self.is_made(seen)
            raise

    async def see(self) -> _Seen | None:
        """Look; what an earlier try has made is not what this request replaces."""
        try:
            seen = await self.look()
        except BackendError as error:
            self._blind = True
            if not self._lost:
                self.old = None
            fields = {"error": str(error)}
            _log.warning("not known what a write replaces", extra={"fields": fields})
            return None
        self._blind = False
        self.seen = seen
        if not (self._lost and self.is_made(seen)):
            self.old = seen
        return seen

    def _condition(self, seen: _Seen | None) -> HeaderList:
        """The headers that hold for what was seen only; none when there are none that say so."""
        if self._blind:
            return ()
        if seen is None:
            return self.absent
        return (("if-match", etag.quote(seen.etag)),) if seen.etag else ()


def is_refused(error: BackendError) -> bool:
    """Whether the store says that a condition does not hold.

    >>> is_refused(BackendAnswer(412, "PreconditionFailed")), is_refused(BackendAnswer(403, "No"))
    (True, False)
    """
    if not isinstance(error, BackendAnswer):
        return False
    return error.status in _REFUSED or error.code == "NoSuchKey"


def is_open(error: BackendError) -> bool:
    """Whether the store may have carried the request out although it failed.

    >>> is_open(BackendUnavailable("reset")), is_open(BackendUnavailable("refused", unsent=True))
    (True, False)
    >>> is_open(BackendAnswer(403, "AccessDenied")), is_open(BackendAnswer(500, "InternalError"))
    (False, True)
    """
    if isinstance(error, BackendAnswer):
        return error.status >= _SERVER_FAULT
    return not (isinstance(error, BackendUnavailable) and error.unsent)
