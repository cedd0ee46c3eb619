"""Documents of multipart uploads: what a store answers, and what a client is to see of it.

Rule: what speaks of parts as stored never reaches a client; what speaks of the upload itself (who
began it, when, for which storage class) is the store's and is kept as it came. A number in a
request is decimal digits in range or the request is refused, as on AWS.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListParts.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from s4gateway.s3 import etag as etags
from s4gateway.s3 import xml
from s4gateway.s3.errors import S3Error

MAX_PART_NUMBER: Final = 10_000
MAX_PARTS: Final = 1000  # parts on one page of a listing
_MAX_INT: Final = 2**31 - 1
_COMPOSITE: Final = "COMPOSITE"
_FULL_OBJECT: Final = "FULL_OBJECT"

# Checksum types an algorithm can have, the default first: a digest of digests is no digest of the
# whole, and CRC-64/NVME was never defined for parts.
_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "crc32": (_COMPOSITE, _FULL_OBJECT),
    "crc32c": (_COMPOSITE, _FULL_OBJECT),
    "crc64nvme": (_FULL_OBJECT,),
    "sha1": (_COMPOSITE,),
    "sha256": (_COMPOSITE,),
    "sha512": (_COMPOSITE,),
    "md5": (_COMPOSITE,),
}


def parse_part_number(text: str) -> int:
    """The partNumber of a request; raises InvalidArgument unless it is 1 to 10,000.

    >>> parse_part_number("10000")
    10000
    """
    if text.isascii() and text.isdigit() and len(text) <= 8 and 1 <= int(text) <= MAX_PART_NUMBER:
        return int(text)
    raise S3Error(
        "InvalidArgument",
        "Part number must be an integer between 1 and 10000, inclusive",
        ArgumentName="partNumber",
        ArgumentValue=text,
    )


def parse_limit(name: str, text: str | None, default: int) -> int:
    """A number of ListParts (max-parts, part-number-marker); raises InvalidArgument."""
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or int(text[:12]) > _MAX_INT:
        raise S3Error(
            "InvalidArgument",
            f"Provided {name} not an integer or within integer range",
            ArgumentName=name,
            ArgumentValue=text,
        )
    return int(text)


def parse_checksum(algorithm: str | None, kind: str | None) -> tuple[str | None, str | None]:
    """Algorithm, in lower case, and type of the checksum an upload declares; both None for none.

    Raises InvalidRequest for what S3 does not combine.

    >>> parse_checksum("CRC32", None), parse_checksum("CRC64NVME", None)
    (('crc32', 'COMPOSITE'), ('crc64nvme', 'FULL_OBJECT'))
    """
    if algorithm is None:
        if kind is not None:
            raise S3Error(
                "InvalidRequest",
                "The x-amz-checksum-type header can only be used with the "
                "x-amz-checksum-algorithm header.",
            )
        return None, None
    allowed = _TYPES.get(algorithm.lower())
    if allowed is None:
        raise S3Error(
            "InvalidRequest",
            "Checksum algorithm provided is unsupported. Please try again with any of the valid "
            f"types: [{', '.join(name.upper() for name in _TYPES)}]",
        )
    if kind is None:
        return algorithm.lower(), allowed[0]
    if kind.upper() not in {_COMPOSITE, _FULL_OBJECT}:
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    if kind.upper() not in allowed:
        raise S3Error(
            "InvalidRequest",
            f"The {kind.upper()} checksum type cannot be used with the {algorithm.lower()} "
            "checksum algorithm.",
        )
    return algorithm.lower(), kind.upper()


@dataclass(frozen=True, slots=True)
class InitiateResult:
    """InitiateMultipartUploadResult: where an upload goes, and the id of its requests."""

    bucket: str
    key: str
    upload_id: str

    @classmethod
    def parse(cls, document: bytes) -> InitiateResult:
        """Read a store's answer; raises ValueError when it names no upload."""
        root = _root(document, "InitiateMultipartUploadResult")
        upload_id = root.findtext("UploadId")
        if not upload_id:
            raise ValueError("the answer names no upload")
        return cls(root.findtext("Bucket") or "", root.findtext("Key") or "", upload_id)

    def serialize(self) -> bytes:
        """The document."""
        inner = (
            xml.leaf("Bucket", self.bucket)
            + xml.leaf("Key", self.key)
            + xml.leaf("UploadId", self.upload_id)
        )
        return xml.document("InitiateMultipartUploadResult", inner)


@dataclass(frozen=True, slots=True)
class ShownPart:
    """One `Part` of a ListPartsResult as a client sees it; size in bytes, `etag` bare.

    `checksums` are base64 by lower-case algorithm.
    """

    number: int
    etag: str
    size: int
    last_modified: str
    checksums: Mapping[str, str] = field(default_factory=dict)

    def write(self) -> str:
        """The element."""
        inner = [
            xml.leaf("PartNumber", str(self.number)),
            xml.leaf("LastModified", self.last_modified),
            xml.leaf("ETag", etags.quote(self.etag)),
            xml.leaf("Size", str(self.size)),
            write_checksums(self.checksums),
        ]
        return f"<Part>{''.join(inner)}</Part>"


@dataclass(frozen=True, slots=True)
class PartsPage:
    """A ListPartsResult. `people` are Initiator, Owner and StorageClass as the store has them."""

    result: InitiateResult
    marker: int
    max_parts: int
    is_truncated: bool
    parts: tuple[ShownPart, ...]
    people: tuple[xml.Element, ...] = ()
    checksum_algorithm: str | None = None
    checksum_type: str | None = None

    def serialize(self) -> bytes:
        """The document, in AWS's order of elements."""
        following = self.parts[-1].number if self.parts else 0
        algorithm = self.checksum_algorithm
        inner = [
            xml.leaf("Bucket", self.result.bucket),
            xml.leaf("Key", self.result.key),
            xml.leaf("UploadId", self.result.upload_id),
            *map(xml.write, self.people),
            xml.leaf("PartNumberMarker", str(self.marker)),
            xml.leaf("NextPartNumberMarker", str(following)),
            xml.leaf("MaxParts", str(self.max_parts)),
            xml.leaf("IsTruncated", "true" if self.is_truncated else "false"),
            xml.leaf("ChecksumAlgorithm", None if algorithm is None else algorithm.upper()),
            xml.leaf("ChecksumType", self.checksum_type),
            *(part.write() for part in self.parts),
        ]
        return xml.document("ListPartsResult", "".join(inner))


_PEOPLE: Final = frozenset({"Initiator", "Owner", "StorageClass"})


def parse_people(document: bytes) -> tuple[xml.Element, ...]:
    """Initiator, Owner and StorageClass of a store's ListPartsResult; ValueError for no such."""
    root = _root(document, "ListPartsResult")
    return tuple(each for each in root.children if each.tag in _PEOPLE)


@dataclass(frozen=True, slots=True)
class CopiedPart:
    """A CopyPartResult: bare ETag, ISO 8601 time, checksums as base64 by algorithm."""

    etag: str
    last_modified: str
    checksums: Mapping[str, str] = field(default_factory=dict)

    def serialize(self) -> bytes:
        """The document."""
        inner = (
            xml.leaf("ETag", etags.quote(self.etag))
            + xml.leaf("LastModified", self.last_modified)
            + write_checksums(self.checksums)
        )
        return xml.document("CopyPartResult", inner)


def write_checksums(checksums: Mapping[str, str]) -> str:
    """Checksums as elements.

    >>> write_checksums({"crc32c": "AAAAAA=="})
    '<ChecksumCRC32C>AAAAAA==</ChecksumCRC32C>'
    """
    return "".join(xml.leaf(f"Checksum{name.upper()}", value) for name, value in checksums.items())


def _root(document: bytes, tag: str) -> xml.Element:
    try:
        root = xml.parse(document.strip())
    except S3Error as error:
        raise ValueError(str(error)) from error
    if root.tag != tag:
        msg = f"expected {tag}, found {root.tag}"
        raise ValueError(msg)
    return root
