"""What can become of an object that is to be rewritten, and what it is to be turned into.

Rule: an object is left alone for a reason that has a name, or it fails at a request that has one;
what changed or vanished while it was looked at is a reason, never a failure.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import Final, Protocol

from s4gateway.backend.base import BackendAnswer, BackendError, Head
from s4gateway.codecs.dispatcher import Dispatcher
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.cache import ObjectName
from s4gateway.objects.dictionaries import DictionaryUnavailable
from s4gateway.objects.encoding import EncodedObject
from s4gateway.objects.errors import ObjectError, UnreadableObject
from s4gateway.s3.errors import S3Error
from s4gateway.tools.patience import is_passing
from s4gateway.tools.walk import Listed
from s4gateway.values import immutable
from s4gateway.wire import frame, manifest

_NO_KEY: Final = 400  # a read of what is encrypted under a customer's key, without it
_OUT_OF_RANGE: Final = 416
_MAGICS: Final = (frame.MAGIC, frame.PADDING_MAGIC)
PROBE: Final = "GetObject(probe)"


class Outcome(StrEnum):
    """What became of one object; each but the first two is a reason to leave it alone."""

    REWRITTEN = "rewritten"
    FAILED = "failed"
    ALREADY_S4 = "already-s4"
    NOT_S4 = "not-s4"
    NOT_COMPRESSIBLE = "not-compressible"
    TOO_LARGE = "too-large"
    TOO_RECENT = "too-recent"
    ALREADY_COMPACTED = "already-compacted"
    UNSUPPORTED_CODEC = "unsupported-codec"
    UNSTAMPED_FRAMED = "unstamped-framed"
    INSUFFICIENT_GAIN = "insufficient-gain"
    ETAG_RACED = "etag-raced"
    VANISHED = "vanished"
    TAGS_UNREADABLE = "tags-unreadable"
    ACL = "acl"
    LOCKED = "locked"
    ENCRYPTED = "encrypted"
    ARCHIVED = "archived"
    OTHER_SUFFIX = "other-suffix"
    EXPIRING = "expiring"
    TABLE_FILE = "table-file"
    NOT_PARQUET = "not-parquet"
    ALREADY_ZSTD = "already-zstd"
    PARQUET_ENCRYPTED = "parquet-encrypted"
    UNSUPPORTED_STRUCTURE = "unsupported-structure"
    ROW_GROUP_TOO_LARGE = "row-group-too-large"
    PAGE_TOO_LARGE = "page-too-large"
    NOT_VERIFIABLE = "not-verifiable"
    VALUE_MISMATCH = "value-mismatch"


class Skipped(Exception):
    """The object is left alone."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Failed(Exception):
    """The object could not be rewritten; `op` says at what, `passing` that it may work later."""

    def __init__(self, op: str, cause: str, *, passing: bool = False) -> None:
        super().__init__(f"{op}: {cause}")
        self.op = op
        self.cause = cause
        self.passing = passing


@immutable
class Looked:
    """An object as its first bytes and their headers show it."""

    name: ObjectName
    head: Head
    attributes: Attributes
    start: bytes

    @property
    def looks_framed(self) -> bool:
        """Its bytes begin as a gateway's frames do."""
        return self.start.startswith(_MAGICS)


@immutable
class Recipe:
    """How to encode an object; `trailer` is the padding frame that goes behind its frames.

    `needs_md5` is false where another ETag than its MD5 will be seen.
    """

    dispatcher: Dispatcher
    trailer: bytes = b""
    needs_md5: bool = True


@immutable
class Rewritten:
    """What was stored, or would be; sizes in bytes, as stored."""

    before: int
    after: int
    codec: str


class Gate(Protocol):
    """What is to be done of what could be. Every method may raise Skipped."""

    def check_listed(self, listed: Listed) -> None:
        """Refuse what its listing already tells."""
        ...

    def check(self, looked: Looked) -> None:
        """Refuse what its headers and first bytes tell."""
        ...

    def finish(self, looked: Looked, source: Attributes, encoded: EncodedObject) -> EncodedObject:
        """What is to be stored of what was made and verified, if it is worth it.

        Its manifest says whether it carries the ledger's mark.
        """
        ...

    def stamps(self, source: Attributes) -> list[tuple[str, str]]:
        """Headers to store with what was made of an object."""
        ...


# What an object was when it was read, and what was made of it and verified; the caller closes that.
Make = Callable[[Looked], Awaitable[tuple[Attributes, EncodedObject]]]


class Kind(Gate, Protocol):
    """What objects are turned into that keep their content.

    With `vouches_for_frames` an object without a gateway's metadata that passes `check` is read as
    frames.
    """

    vouches_for_frames: bool

    def recipe(self, source: Attributes) -> Recipe:
        """Say how to encode an object that was opened; may raise Skipped."""
        ...


@contextmanager
def reading(op: str) -> Iterator[None]:
    """Turn what goes wrong while an object is read into Skipped and Failed."""
    try:
        yield
    except BackendAnswer as error:
        raise _answered(op, error) from error
    except DictionaryUnavailable as error:
        raise Failed(op, str(error), passing=True) from error
    except UnreadableObject as error:
        raise Skipped(Outcome.UNSUPPORTED_CODEC) from error
    except ObjectError as error:
        raise Failed("decode-frames", str(error)) from error
    except BackendError as error:
        raise Failed(op, str(error), passing=is_passing(error)) from error
    except S3Error as error:
        raise Failed(op, str(error), passing=error.code == "SlowDown") from error
    except OSError as error:
        raise Failed("compress", str(error)) from error


def _answered(op: str, error: BackendAnswer) -> Skipped | Failed:
    if error.code == "InvalidObjectState":
        return Skipped(Outcome.ARCHIVED)
    if error.missing and error.code != "NoSuchBucket":
        return Skipped(Outcome.VANISHED)
    if error.status in {412, _OUT_OF_RANGE}:
        return Skipped(Outcome.ETAG_RACED)
    if error.status == _NO_KEY and op == PROBE:
        return Skipped(Outcome.ENCRYPTED)
    return Failed(op, str(error), passing=is_passing(error))


def with_etag(encoded: EncodedObject, seen: str) -> EncodedObject:
    """The object under the ETag that clients have seen; under its MD5 where that is no S3 ETag."""
    if not manifest.is_etag(seen):
        return encoded
    return replace(encoded, manifest=replace(encoded.manifest, logical_etag=seen))
