"""What went wrong below, in S3's words.

Rule: one table from the errors of the floors below to S3 errors, used wherever an error document is
made: before the head of an answer, and inside a body whose head had to leave early. What is our
side's fault names an event, to be logged with the request id; clients never see more than S3 says.
"""

from dataclasses import dataclass
from typing import Final

from s4gateway.backend import profile
from s4gateway.backend.base import (
    BackendAnswer,
    BackendProtocolError,
    BackendUnavailable,
)
from s4gateway.gateway.auth import Caller
from s4gateway.objects.dictionaries import DictionaryError, DictionaryUnavailable
from s4gateway.objects.errors import DamagedObject, UnreadableObject
from s4gateway.s3 import xml
from s4gateway.s3.errors import S3Error

# What the backend says about the gateway's own signature says nothing about the client's.
_OWN_CREDENTIAL_CODES: Final = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "AuthorizationHeaderMalformed",
    }
)
UNEXPECTED: Final = "request failed"


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as the client sees it; `event` is what the log says of it, None for nothing.

    `backend_busy`: the backend asked to slow down, not the gateway.
    """

    s3: S3Error
    event: str | None = None
    backend_busy: bool = False


def translate(error: Exception, caller: Caller | None) -> Fault:
    """Say in S3's words what went wrong for `caller`, who is None before authentication."""
    if isinstance(error, S3Error):
        return Fault(error)
    if isinstance(error, BackendAnswer):
        return _relayed(error, caller)
    if isinstance(error, BackendUnavailable):
        answer = S3Error("ServiceUnavailable", headers={"Retry-After": "1"})
        return Fault(answer, "backend unavailable")
    if isinstance(error, BackendProtocolError):
        text = "The backend gave an answer that cannot be trusted."
        return Fault(S3Error("InternalError", text), "backend answer refused")
    if isinstance(error, DamagedObject):
        text = "The stored object failed its integrity check."
        return Fault(S3Error("InternalError", text), "object damaged")
    if isinstance(error, DictionaryError):
        return _without_dictionary(error)
    if isinstance(error, UnreadableObject):
        text = f"The stored object cannot be opened here: {error}"
        return Fault(S3Error("NotImplemented", text), "object unreadable")
    if isinstance(error, OSError):
        answer = S3Error("ServiceUnavailable", headers={"Retry-After": "5"})
        return Fault(answer, "spool failed")
    return Fault(S3Error("InternalError"), UNEXPECTED)


def _without_dictionary(error: DictionaryError) -> Fault:
    """An object that is there and cannot be decoded: the operator must know which dictionary."""
    if isinstance(error, DictionaryUnavailable):
        text = f"Dictionary {error.dict_id} of bucket {error.bucket} cannot be read at the moment."
        answer = S3Error("ServiceUnavailable", text, headers={"Retry-After": "1"})
        return Fault(answer, "dictionary unavailable")
    text = f"The object needs a dictionary that cannot be used: {error}"
    return Fault(S3Error("InternalError", text), "dictionary unusable")


def _relayed(error: BackendAnswer, caller: Caller | None) -> Fault:
    own = caller is not None and (
        caller.unsigned or (caller.key is not None and caller.key.signs_backend)
    )
    if error.code in _OWN_CREDENTIAL_CODES and not own:
        text = "The gateway cannot authenticate to its backend."
        return Fault(S3Error("InternalError", text), "backend refuses the gateway's credentials")
    if error.status in {429, 503}:
        retry = error.headers.get("retry-after", "1")
        return Fault(S3Error("SlowDown", headers={"Retry-After": retry}), backend_busy=True)
    word = profile.advice(error.code, error.message)
    event = None if word is None else f"the backend may need {profile.FLAG} {word}"
    answer = S3Error(error.code, error.message or None, status=error.status)
    if error.code == "InvalidObjectState":
        answer.fields = _archived(error.body)
    return Fault(answer, event)


def _archived(document: bytes) -> dict[str, str]:
    """What the backend says of an archived object besides that it is archived."""
    try:
        root = xml.parse(document)
    except S3Error:
        return {}
    found = [(name, root.findtext(name)) for name in ("StorageClass", "AccessTier")]
    return {name: text for name, text in found if text}
