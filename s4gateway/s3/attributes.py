"""The headers and the document of GetObjectAttributes.

As AWS does it: the ETag is bare, the value of a composite checksum stands without the `-N` that
HEAD shows behind it, and parts that are not listed are counted. Attributes nobody asked for are
left out, as are those the object has not.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAttributes.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from s4gateway.s3 import xml
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers

ETAG: Final = "ETag"
CHECKSUM: Final = "Checksum"
OBJECT_PARTS: Final = "ObjectParts"
STORAGE_CLASS: Final = "StorageClass"
OBJECT_SIZE: Final = "ObjectSize"
NAMES: Final = frozenset({ETAG, CHECKSUM, OBJECT_PARTS, STORAGE_CLASS, OBJECT_SIZE})
PAGE_LIMIT: Final = 1000
_HEADER: Final = "x-amz-object-attributes"
_MAX_INT: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class AttributesRequest:
    """What was asked for; parts are those numbered above `marker`, `max_parts` of them at most."""

    names: frozenset[str]
    max_parts: int = PAGE_LIMIT
    marker: int = 0

    @classmethod
    def parse(cls, headers: Headers) -> AttributesRequest:
        """Read the request's headers; raises InvalidRequest, InvalidArgument.

        >>> AttributesRequest.parse(Headers([("x-amz-object-attributes", "ETag")])).names
        frozenset({'ETag'})
        """
        listed = [name.strip(" \t") for name in headers.get(_HEADER, "").split(",")]
        names = frozenset(filter(None, listed))
        if not names:
            raise S3Error(
                "InvalidRequest",
                f"The {_HEADER} header specifying the attributes to be retrieved is either missing "
                "or empty",
            )
        if unknown := names - NAMES:
            raise S3Error(
                "InvalidArgument",
                "Invalid attribute name specified.",
                ArgumentName=_HEADER,
                ArgumentValue=min(unknown),
            )
        max_parts = _number(headers, "x-amz-max-parts", PAGE_LIMIT)
        marker = _number(headers, "x-amz-part-number-marker", 0)
        return cls(names, min(max_parts, PAGE_LIMIT), marker)


def _number(headers: Headers, name: str, default: int) -> int:
    text = headers.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_INT):
        raise S3Error(
            "InvalidArgument",
            f"Provided {name} not an integer or within integer range",
            ArgumentName=name,
            ArgumentValue=text,
        )
    return int(text)


@dataclass(frozen=True, slots=True)
class PartAttributes:
    """One part of an object: its number, its size in bytes, its checksum in base64 if any."""

    number: int
    size: int
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectAttributes:
    """Everything there is to be said about an object; None for what it has not.

    `checksum` is algorithm ("crc32c"), base64 value and type; `part_count` is None unless the
    object was assembled from parts, and `parts` are those to be listed, not merely counted.
    """

    etag: str
    size: int
    storage_class: str
    checksum: tuple[str, str, str] | None = None
    part_count: int | None = None
    parts: Sequence[PartAttributes] = ()

    def serialize(self, request: AttributesRequest) -> bytes:
        """The document that answers `request`.

        >>> found = ObjectAttributes("abc", 5, "STANDARD")
        >>> b"<ETag>abc</ETag></" in found.serialize(AttributesRequest(frozenset({ETAG})))
        True
        """
        names = request.names
        inner = [
            xml.leaf(ETAG, self.etag) if ETAG in names else "",
            self._checksum() if CHECKSUM in names else "",
            self._parts(request) if OBJECT_PARTS in names else "",
            xml.leaf(STORAGE_CLASS, self.storage_class) if STORAGE_CLASS in names else "",
            xml.leaf(OBJECT_SIZE, str(self.size)) if OBJECT_SIZE in names else "",
        ]
        return xml.document("GetObjectAttributesResponse", "".join(inner))

    def _checksum(self) -> str:
        if self.checksum is None:
            return ""
        algorithm, value, kind = self.checksum
        own = xml.leaf(_checksum_tag(algorithm), value.partition("-")[0])
        return f"<Checksum>{own}{xml.leaf('ChecksumType', kind)}</Checksum>"

    def _parts(self, request: AttributesRequest) -> str:
        if self.part_count is None:
            return ""
        count = xml.leaf("PartsCount", str(self.part_count))
        if not self.parts:
            return f"<ObjectParts>{count}</ObjectParts>"
        after = [part for part in self.parts if part.number > request.marker]
        page = after[: request.max_parts]
        following = page[-1].number if page else request.marker
        tag = "" if self.checksum is None else _checksum_tag(self.checksum[0])
        inner = [
            xml.leaf("IsTruncated", "true" if len(page) < len(after) else "false"),
            xml.leaf("MaxParts", str(request.max_parts)),
            xml.leaf("NextPartNumberMarker", str(following)),
            xml.leaf("PartNumberMarker", str(request.marker)),
            *(
                f"<Part>{xml.leaf(tag, part.checksum)}<PartNumber>{part.number}</PartNumber>"
                f"<Size>{part.size}</Size></Part>"
                for part in page
            ),
            count,
        ]
        return f"<ObjectParts>{''.join(inner)}</ObjectParts>"


def _checksum_tag(algorithm: str) -> str:
    return "Checksum" + algorithm.upper()
