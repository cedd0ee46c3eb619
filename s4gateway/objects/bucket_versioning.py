"""Whether a bucket keeps versions: what a write replaces there depends on it.

Rule: the store is asked once in a while, not with every write, and the answer to a write has the
last word: a version id in it says that nothing was replaced, whatever was believed before. What
this gateway changes itself is forgotten at once.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketVersioning.html
"""

import asyncio
import enum
import logging
import time
from collections.abc import Callable
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import Backend, BackendAnswer, BackendError, BackendProtocolError
from s4gateway.s3 import query, xml
from s4gateway.s3.errors import S3Error

BELIEVED: Final = 30.0  # seconds
_MOST_BUCKETS: Final = 10_000
_NO_VERSIONS: Final = frozenset({400, 405, 501})  # the store does not know the request

_log = logging.getLogger("s4.versioning")


class Versioning(enum.Enum):
    """What becomes of an object that is written again."""

    OFF = "off"
    """It is replaced."""
    ENABLED = "Enabled"
    """It stays, as an older version."""
    SUSPENDED = "Suspended"
    """It stays, unless its version is the "null" one, which is replaced."""
    UNKNOWN = "unknown"
    """The store did not tell; it is taken to be replaced, until the answer says otherwise."""


class BucketVersioning:
    """The versioning of buckets as far as it is known; used on one event loop.

    `backend` carries the gateway's own identity.
    """

    def __init__(self, backend: Backend, clock: Callable[[], float] = time.monotonic) -> None:
        self._backend = backend
        self._clock = clock
        self._known: dict[str, tuple[Versioning, float]] = {}
        self._asking: dict[str, asyncio.Future[Versioning]] = {}

    def known(self, bucket: str) -> Versioning | None:
        """What holds for `bucket`, as it was BELIEVED seconds ago at most; None to be asked."""
        found = self._known.get(bucket)
        return found[0] if found is not None and found[1] > self._clock() else None

    async def of(self, bucket: str) -> Versioning:
        """The same, asked if need be."""
        found = self.known(bucket)
        return await self._shared(bucket) if found is None else found

    def forget(self, bucket: str) -> None:
        """The versioning of `bucket` may have changed."""
        self._known.pop(bucket, None)
        self._asking.pop(bucket, None)

    async def _shared(self, bucket: str) -> Versioning:
        """Ask, once for all who want to know at the same time."""
        asked = self._asking.get(bucket)
        if asked is not None:
            return await asyncio.shield(asked)
        asked = self._asking[bucket] = asyncio.get_running_loop().create_future()
        found, seconds = Versioning.UNKNOWN, 0.0
        try:
            found, seconds = await self._ask(bucket)
        finally:
            asked.set_result(found)
            if self._asking.get(bucket) is asked:  # else it was forgotten meanwhile
                del self._asking[bucket]
                if seconds:
                    self._remember(bucket, found, seconds)
        return found

    def _remember(self, bucket: str, found: Versioning, seconds: float) -> None:
        if len(self._known) >= _MOST_BUCKETS:
            self._known.clear()
        self._known[bucket] = found, self._clock() + seconds

    async def _ask(self, bucket: str) -> tuple[Versioning, float]:
        """What the store says, and for how long that is believed."""
        try:
            path = f"/{query.quote(bucket)}"
            _, document = await multipart.ask(self._backend, "GET", path, "versioning=", [])
            return _parsed(document), BELIEVED
        except BackendAnswer as error:
            if error.status in _NO_VERSIONS:
                return Versioning.OFF, BELIEVED
            if error.missing:
                return Versioning.UNKNOWN, 0.0
            _warn(bucket, error)
            return Versioning.UNKNOWN, BELIEVED if error.status < 500 else 0.0
        except BackendError as error:
            _warn(bucket, error)
            return Versioning.UNKNOWN, 0.0


def _parsed(document: bytes) -> Versioning:
    try:
        status = xml.parse(document).findtext("Status")
    except S3Error as error:
        raise BackendProtocolError("the versioning of the bucket is malformed") from error
    match (status or "").strip():
        case "Enabled":
            return Versioning.ENABLED
        case "Suspended":
            return Versioning.SUSPENDED
    return Versioning.OFF


def _warn(bucket: str, error: Exception) -> None:
    fields = {"bucket": bucket, "error": str(error)}
    _log.warning("versioning of the bucket unknown", extra={"fields": fields})
