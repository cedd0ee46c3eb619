"""What belongs to an object beside its bytes, so that writing it again loses nothing.

    GetObject           metadata, content headers, storage class, encryption by the store's keys,
                        the checksum a client declared
    GetObjectTagging    tags
    GetObjectAcl        grants to others than its owner

Rule: what a write cannot say again is a reason not to write. A lock is one, too: the locked version
stays, whatever is written over it, so nothing could be gained.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html
"""

from collections.abc import Iterable
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendProtocolError,
    Head,
    HeaderList,
)
from s4gateway.objects.cache import ObjectName
from s4gateway.s3 import query, xml
from s4gateway.s3.checksums import ALGORITHMS, CHECKSUM_PREFIX
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import USER_METADATA_PREFIX
from s4gateway.s3.xml import Element
from s4gateway.wire import manifest
from s4gateway.wire.tail import FULL_OBJECT

_DESCRIBED: Final = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-website-redirect-location",
)
_CLASS: Final = "x-amz-storage-class"
_ENCRYPTION: Final = "x-amz-server-side-encryption"
_KEY: Final = f"{_ENCRYPTION}-aws-kms-key-id"
_BUCKET_KEY: Final = f"{_ENCRYPTION}-bucket-key-enabled"
_CUSTOMER: Final = f"{_ENCRYPTION}-customer-algorithm"
_LOCK: Final = "x-amz-object-lock-"
_MISSING: Final = "x-amz-missing-meta"

_UNSUPPORTED: Final = frozenset(
    {
        "AccessDenied",
        "MethodNotAllowed",
        "NotImplemented",
        "NotSupported",
        "OperationNotSupported",
    }
)
_REFUSED: Final = frozenset({403, 405, 501})
_FULL: Final = "FULL_CONTROL"
_GRANTS: Final = {
    _FULL: "x-amz-grant-full-control",
    "READ": "x-amz-grant-read",
    "READ_ACP": "x-amz-grant-read-acp",
    "WRITE_ACP": "x-amz-grant-write-acp",
}
_GRANTEES: Final = {"ID": "id", "URI": "uri", "EmailAddress": "emailAddress"}


# Asked of a whole object, the store shows the checksum its client declared.
SHOW_CHECKSUM: Final = ("x-amz-checksum-mode", "ENABLED")


class NotExpressible(Exception):
    """Something an object has that no header of a write can say."""


def description(head: Head) -> list[tuple[str, str]]:
    """The headers that store what a HEAD or GET shows, without what is the gateway's own.

    >>> from s4gateway.s3.headers import Headers
    >>> shown = Headers({"content-type": "text/plain", "x-amz-meta-s4-codec": "cpu-zstd"})
    >>> description(Head(200, shown))
    [('content-type', 'text/plain')]
    """
    headers = head.headers
    kept = [(name, headers[name]) for name in _DESCRIBED if name in headers]
    named = manifest.strip_reserved(head.metadata)
    kept += [(USER_METADATA_PREFIX + name, value) for name, value in named.items()]
    stored = headers.get(_CLASS)
    if stored is not None and stored != "STANDARD":
        kept.append((_CLASS, stored))
    if (cipher := headers.get(_ENCRYPTION)) is not None:
        kept.append((_ENCRYPTION, cipher))
        kept += [(name, headers[name]) for name in (_KEY, _BUCKET_KEY) if name in headers]
    return kept


def checksum(head: Head) -> tuple[str, str] | None:
    """Algorithm and value of the checksum of the whole object that the store shows, if it does.

    >>> from s4gateway.s3.headers import Headers
    >>> checksum(Head(200, Headers({"x-amz-checksum-crc32": "XA9PpA=="})))
    ('crc32', 'XA9PpA==')
    """
    if head.headers.get(f"{CHECKSUM_PREFIX}type", FULL_OBJECT) != FULL_OBJECT:
        return None
    for algorithm in ALGORITHMS:
        value = head.headers.get(CHECKSUM_PREFIX + algorithm)
        if value is not None and "-" not in value:
            return algorithm, value
    return None


def is_locked(head: Head) -> bool:
    """Whether Object Lock keeps this version: a retention period or a legal hold."""
    headers = head.headers
    held = headers.get(f"{_LOCK}legal-hold", "OFF").upper() == "ON"
    return held or f"{_LOCK}mode" in headers


def is_under_customer_key(head: Head) -> bool:
    """Whether its bytes are encrypted with a key that only its owner has."""
    return _CUSTOMER in head.headers


def lacks_metadata(head: Head) -> bool:
    """Whether the store says that it has metadata it cannot show as headers."""
    return head.headers.get(_MISSING, "0") != "0"


def is_unsupported(error: BackendAnswer) -> bool:
    """Whether a subresource may not be read, or does not exist at this store."""
    return error.code in _UNSUPPORTED or error.status in _REFUSED


async def tags(backend: Backend, name: ObjectName) -> list[tuple[str, str]]:
    """The header that stores the object's tags, none when it has none; raises BackendError."""
    root = await _subresource(backend, name, "tagging", {"NoSuchTagSet"})
    if root is None:
        return []
    found = [
        (each.findtext("Key") or "", each.findtext("Value") or "")
        for each in root.iter()
        if each.tag == "Tag"
    ]
    return [("x-amz-tagging", query.format_query(found))] if found else []


async def grants(backend: Backend, name: ObjectName) -> list[tuple[str, str]]:
    """The headers that grant what the object's ACL does; none when only its owner has any rights.

    Raises BackendError, NotExpressible.
    """
    root = await _subresource(backend, name, "acl", set())
    if root is None:
        return []
    owner = next((each.findtext("ID") for each in root.iter() if each.tag == "Owner"), None)
    given = [_grant(each) for each in root.iter() if each.tag == "Grant"]
    if all((kind, who, right) == ("id", owner, _FULL) for kind, who, right in given):
        return []
    return list(_headers(given))


def _headers(given: Iterable[tuple[str, str, str]]) -> HeaderList:
    by_right: dict[str, list[str]] = {}
    for kind, who, right in given:
        if right not in _GRANTS or not who or '"' in who:
            raise NotExpressible(f"a grant of {right} to {who or 'nobody'}")
        by_right.setdefault(right, []).append(f'{kind}="{who}"')
    return [(_GRANTS[right], ", ".join(names)) for right, names in by_right.items()]


def _grant(grant: Element) -> tuple[str, str, str]:
    """How the grantee is named, its name, and the right."""
    right = grant.findtext("Permission") or ""
    grantee = grant.find("Grantee")
    if grantee is not None:
        for element, kind in _GRANTEES.items():
            if who := grantee.findtext(element):
                return kind, who, right
    return "", "", right


async def _subresource(
    backend: Backend, name: ObjectName, which: str, absent: set[str]
) -> Element | None:
    path = multipart.object_path(*name)
    try:
        _, document = await multipart.ask(backend, "GET", path, f"{which}=", [])
        return xml.parse(document)
    except BackendAnswer as error:
        if error.code in absent:
            return None
        raise
    except S3Error as error:
        msg = f"the object's {which} came as no XML"
        raise BackendProtocolError(msg) from error
