"""GetObjectAttributes: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAttributes.html.

Rule: it says what HEAD says, from the same source, for objects of others, too. Stores that do not
know the operation answer it here all the same.
"""

from typing import Final

from s4gateway.gateway import relay
from s4gateway.gateway.context import HeaderPairs, Outcome, RequestContext, Response
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.opening import Source
from s4gateway.s3 import checksums, etag
from s4gateway.s3.attributes import AttributesRequest, ObjectAttributes, PartAttributes
from s4gateway.s3.headers import Headers
from s4gateway.wire.manifest import Form
from s4gateway.wire.tail import COMPOSITE, FULL_OBJECT

_CHECKSUM_MODE: Final = "x-amz-checksum-mode"
_RELAYED: Final = frozenset(
    {
        "last-modified",
        "vary",
        "x-amz-delete-marker",
        "x-amz-request-charged",
        "x-amz-version-id",
    }
)


async def get_object_attributes(context: RequestContext) -> Outcome:
    """Describe an object in a document."""
    request = AttributesRequest.parse(context.headers)
    wanted = [pair for pair in relay.read_headers(context.headers) if pair[0] != _CHECKSUM_MODE]
    wanted.append((_CHECKSUM_MODE, "ENABLED"))
    source = Source(context.backend, context.name, relay.version_query(context), wanted)
    attributes = await context.services.reader.attributes(source)
    found = attributes.head.headers
    headers: HeaderPairs = [
        (name, value)
        for name, value in found.items()
        if name in _RELAYED or name.startswith("access-control-")
    ]
    headers.append(("content-type", "application/xml"))
    return Outcome(Response(200, headers, _described(attributes).serialize(request)))


def _described(attributes: Attributes) -> ObjectAttributes:
    found = attributes.head.headers
    foreign = attributes.stored.form is Form.FOREIGN
    return ObjectAttributes(
        etag=attributes.etag,
        size=attributes.size if attributes.size is not None else attributes.head.size,
        storage_class=found.get("x-amz-storage-class", "STANDARD"),
        checksum=_of_backend(found) if foreign else attributes.checksum,
        part_count=_part_count(attributes),
        parts=_parts(attributes),
    )


def _part_count(attributes: Attributes) -> int | None:
    """How many parts the object was assembled from, as far as its ETag or its tail tells."""
    if attributes.tail is not None:
        return attributes.part_count
    if attributes.stored.form is Form.FOREIGN or attributes.stored.multipart:
        return etag.part_count(attributes.etag)
    return None


def _parts(attributes: Attributes) -> list[PartAttributes]:
    """Every part, with its checksum if the object's own is composed of them."""
    tail = attributes.tail
    if tail is None:
        return []
    composed = tail.checksum is not None and tail.checksum[2] == COMPOSITE
    sums: tuple[str | None, ...] = (None,) * len(tail.parts)
    if composed and tail.part_checksums:
        sums = tail.part_checksums
    pairs = zip(tail.parts, sums, strict=True)
    return [PartAttributes(number, size, checksum) for (number, size), checksum in pairs]


def _of_backend(found: Headers) -> tuple[str, str, str] | None:
    """The checksum of an object that lies in the store as its writer sent it."""
    for algorithm in checksums.ALGORITHMS:
        value = found.get(checksums.CHECKSUM_PREFIX + algorithm)
        if value is not None:
            return algorithm, value, found.get("x-amz-checksum-type", FULL_OBJECT)
    return None
