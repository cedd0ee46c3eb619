"""Which headers cross the gateway, and in what shape.

Rule: towards the backend only what S3 defines for the operation, from a list; towards the client
everything but what speaks of the stored bytes (length, ETag, checksums, `s4-*` metadata), of the
connection, or of the backend itself. Client checksums and Content-MD5 describe the plaintext: they
are verified here and never forwarded with a body that was rewritten.
"""

from typing import Final

from s4gateway.backend.base import BackendProtocolError, Head
from s4gateway.gateway.context import HeaderPairs, RequestContext
from s4gateway.objects.attributes import Attributes, describe
from s4gateway.s3 import chunked, conditions, etag, ranges, xml
from s4gateway.s3.conditions import ReadConditions, Verdict
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import HOP_BY_HOP, OF_THE_REQUEST, USER_METADATA_PREFIX, Headers
from s4gateway.s3.query import quote
from s4gateway.wire.manifest import RESERVED_PREFIX
from s4gateway.wire.tail import MAX_PARTS

# Client metadata S3 allows, names and values together, in bytes.
METADATA_LIMIT: Final = 2048

_STORED: Final = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-language",
        "content-type",
        "expires",
        "origin",
        "x-amz-acl",
        "x-amz-storage-class",
        "x-amz-tagging",
        "x-amz-website-redirect-location",
        *OF_THE_REQUEST,
    }
)
_STORED_PREFIXES: Final = (
    "x-amz-grant-",
    "x-amz-object-lock-",
    "x-amz-server-side-encryption",
)
_READ: Final = (
    *OF_THE_REQUEST,
    "origin",  # the backend answers it by the bucket's CORS rules
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-server-side-encryption-customer-key-md5",
    "x-amz-checksum-mode",
)
_DELETED: Final = (*OF_THE_REQUEST, "x-amz-bypass-governance-retention", "x-amz-mfa")
# x-amz-* headers that belong to one hop: the signature and the framing of the body.
_SIGNING: Final = frozenset(
    {
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-decoded-content-length",
        "x-amz-security-token",
        "x-amz-trailer",
        "x-amz-sdk-checksum-algorithm",
    }
)
_FORWARDED: Final = frozenset(
    {
        "access-control-request-headers",
        "access-control-request-method",
        "cache-control",
        "consistency-control",
        "content-disposition",
        "content-language",
        "content-md5",
        "content-type",
        "expires",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-unmodified-since",
        "origin",
        "range",
    }
)
PARTS_COUNT: Final = "x-amz-mp-parts-count"
_NOT_RELAYED: Final = HOP_BY_HOP | {
    "content-length",
    "content-range",
    "date",
    "etag",
    "server",
    "x-amz-id-2",
    "x-amz-mp-parts-count",
    "x-amz-request-id",
}
_CHECKSUM: Final = "x-amz-checksum-"
_RESERVED_METADATA: Final = USER_METADATA_PREFIX + RESERVED_PREFIX
# Headers of an object that no client sees; of one of ours, or of a part of it, its checksum, too.
_HIDDEN: Final = (_RESERVED_METADATA, "seaweed-")
_HIDDEN_OF_OURS: Final = (*_HIDDEN, _CHECKSUM)
_OVERRIDES: Final = {
    "response-cache-control": "cache-control",
    "response-content-disposition": "content-disposition",
    "response-content-encoding": "content-encoding",
    "response-content-language": "content-language",
    "response-content-type": "content-type",
    "response-expires": "expires",
}


def stored_headers(headers: Headers) -> HeaderPairs:
    """Headers of a PUT that are stored with the object; raises MetadataTooLarge."""
    kept: HeaderPairs = []
    metadata_size = 0
    for name, value in headers.items():
        if name.startswith(USER_METADATA_PREFIX):
            if name.startswith(_RESERVED_METADATA):
                continue
            metadata_size += len(name) - len(USER_METADATA_PREFIX) + len(value.encode())
            kept.append((name, value))
        elif name in _STORED or name.startswith(_STORED_PREFIXES):
            kept.append((name, value))
    if metadata_size > METADATA_LIMIT:
        raise S3Error("MetadataTooLarge", Size=metadata_size, MaxSizeAllowed=METADATA_LIMIT)
    encoding = chunked.content_encoding(headers.get("content-encoding"))
    if encoding is not None:
        kept.append(("content-encoding", encoding))
    return kept


def read_headers(headers: Headers) -> HeaderPairs:
    """Headers that every backend request for an object's bytes needs."""
    return headers.named(_READ)


def delete_headers(headers: Headers) -> HeaderPairs:
    """Headers a DELETE hands on."""
    return headers.named(_DELETED)


def forwarded_headers(headers: Headers) -> HeaderPairs:
    """Headers of a request that is passed on unchanged."""
    kept = [
        (name, value)
        for name, value in headers.items()
        if name in _FORWARDED or (name.startswith("x-amz-") and name not in _SIGNING)
    ]
    encoding = chunked.content_encoding(headers.get("content-encoding"))
    if encoding is not None:
        kept.append(("content-encoding", encoding))
    return kept


def relayed_headers(headers: Headers) -> HeaderPairs:
    """Headers of a backend answer that is passed on unchanged."""
    return [
        (name, value)
        for name, value in headers.items()
        if name not in _NOT_RELAYED or name in {"etag", "content-range", PARTS_COUNT}
    ]


def result_headers(headers: Headers) -> HeaderPairs:
    """Headers of a backend answer to a write: version, encryption, expiration, CORS."""
    return [
        (name, value)
        for name, value in headers.items()
        if name.startswith(("x-amz-", "access-control-", "vary"))
        and name not in _NOT_RELAYED
        and not name.startswith((_CHECKSUM, "x-amz-meta-"))
        and name != "x-amz-object-size"
    ]


def object_headers(
    context: RequestContext, attributes: Attributes, *, whole: bool, part: int | None = None
) -> HeaderPairs:
    """Headers a client sees on GET and HEAD of an object, of all of it or of a part by position."""
    verbatim = attributes.is_verbatim and attributes.stored.manifest is None
    hidden = _HIDDEN if verbatim and whole else _HIDDEN_OF_OURS
    kept: HeaderPairs = [
        pair
        for pair in attributes.head.headers.items()
        if pair[0] not in _NOT_RELAYED and not pair[0].startswith(hidden)
    ]
    kept.append(("etag", etag.quote(attributes.etag)))
    if "accept-ranges" not in attributes.head.headers:
        kept.append(("accept-ranges", "bytes"))
    if part is not None and attributes.tail is not None:
        kept.append((PARTS_COUNT, str(attributes.part_count)))
    if _wants_checksum(context):
        checksum = attributes.checksum if whole else None
        if part is not None:
            checksum = attributes.part_checksum(part)
        if checksum is not None:
            algorithm, value, kind = checksum
            kept.append((_CHECKSUM + algorithm, value))
            kept.append(("x-amz-checksum-type", kind))
    return _overridden(context, kept)


def _wants_checksum(context: RequestContext) -> bool:
    return context.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"


def _overridden(context: RequestContext, headers: HeaderPairs) -> HeaderPairs:
    """Apply response-* parameters, which only signed requests may carry."""
    if not context.query:
        return headers
    wanted = {
        header: context.query[parameter]
        for parameter, header in _OVERRIDES.items()
        if context.query.get(parameter)
    }
    if not wanted:
        return headers
    if context.caller.key is None:
        raise S3Error(
            "InvalidRequest",
            "Request specific response headers cannot be used for anonymous GET requests.",
        )
    return [pair for pair in headers if pair[0] not in wanted] + list(wanted.items())


def check_read(context: RequestContext, attributes: Attributes) -> Verdict:
    """Evaluate the request's conditions against what the client sees of the object."""
    wanted = ReadConditions.parse(context.headers)
    if wanted is conditions.UNCONDITIONAL:
        return Verdict.OK
    return wanted.evaluate(attributes.etag, attributes.head.last_modified)


def wanted_range(context: RequestContext, attributes: Attributes) -> tuple[int, int] | None:
    """Resolve Range and If-Range; None means the whole object. Raises InvalidRange."""
    span = ranges.parse(context.headers.get("range"))
    if span is None or attributes.size is None:
        return None
    if not conditions.range_applies(
        context.headers.get("if-range"), attributes.etag, attributes.head.last_modified
    ):
        return None
    return ranges.resolve(span, attributes.size)


def part_number(context: RequestContext) -> int | None:
    """The partNumber of a read; raises InvalidArgument, InvalidRequest."""
    text = context.query.get("partNumber")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_PARTS):
        raise S3Error(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive",
            ArgumentName="partNumber",
            ArgumentValue=text,
        )
    if "range" in context.headers:
        raise S3Error(
            "InvalidRequest", "Cannot specify both Range header and partNumber query parameter"
        )
    return int(text)


def wanted_part(part: int | None, attributes: Attributes) -> tuple[int, int] | None:
    """Resolve a part by its position; None means the whole object.

    Raises InvalidPartNumber beyond the last part, InvalidRange for a part without bytes.
    """
    if part is None or attributes.size is None:
        return None
    if part > attributes.part_count:
        raise S3Error(
            "InvalidPartNumber",
            ActualPartCount=attributes.part_count,
            PartNumberRequested=part,
        )
    if attributes.size == 0:
        return None
    start, end = attributes.part_span(part)
    if start == end:
        total = attributes.size
        headers = {"content-range": f"bytes */{total}"}
        raise S3Error("InvalidRange", headers=headers, ActualObjectSize=total)
    return start, end


def backend_document(data: bytes) -> xml.Element:
    """Parse a document the backend sent; what is wrong with it is not the client's fault."""
    try:
        return xml.parse(data)
    except S3Error as error:
        msg = f"the backend's document is malformed: {error}"
        raise BackendProtocolError(msg) from error


def backend_part_headers(context: RequestContext, head: Head) -> HeaderPairs:
    """Headers of a part as the backend describes it, of an object it alone knows."""
    headers = object_headers(context, describe(head), whole=True)
    for name in (PARTS_COUNT, "content-range"):
        if (value := head.headers.get(name)) is not None:
            headers.append((name, value))
    return headers


def part_query(context: RequestContext, part: int) -> str:
    """Return the parameters of a request for one part of one version, encoded."""
    return "&".join(filter(None, (f"partNumber={part}", version_query(context))))


def version_query(context: RequestContext) -> str:
    """Return the versionId parameter, encoded, for requests about one version."""
    version = context.query.get("versionId")
    if version is None:
        return ""
    return "versionId=" + quote(version)
