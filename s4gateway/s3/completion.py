"""CompleteMultipartUpload: the list of parts a client sends, and what it gets for it.

Rule: the document is bounded and checked before anything else is looked at, and ETag and checksum
of the whole are derived from those of its parts alone, exactly as S3 does: the ETag and a COMPOSITE
checksum are digests of the parts' digests, a FULL_OBJECT checksum is a CRC, whose value for the
whole follows from the values and lengths of the parts.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from awscrt import checksums as crt

from s4gateway.s3 import etag as etags
from s4gateway.s3 import xml
from s4gateway.s3.checksums import ALGORITHMS, CHECKSUM_PREFIX, Digests
from s4gateway.s3.errors import TABLE, S3Error
from s4gateway.s3.headers import Headers

MOST_PARTS: Final = 10_000
SMALLEST_PART: Final = 5 * 1024 * 1024  # bytes of every part but the last
COMPOSITE: Final = "COMPOSITE"
FULL_OBJECT: Final = "FULL_OBJECT"

_ELEMENT: Final = "Checksum"
_CONTROL: Final = frozenset({"mode", "algorithm", "type"})

# CRC of two runs of bytes one after the other, from their CRCs and the length of the second.
_COMBINE: Final[Mapping[str, Callable[[int, int, int], int]]] = {
    "crc32": crt.combine_crc32,
    "crc32c": crt.combine_crc32c,
    "crc64nvme": crt.combine_crc64nvme,
}

COMBINABLE: Final = frozenset(_COMBINE)  # algorithms a FULL_OBJECT checksum may have

Checksum = tuple[str, str, str]  # algorithm ("crc32c"), value as clients see it, type


@dataclass(frozen=True, slots=True)
class ListedPart:
    """A part as the client names it: its number, bare ETag, and (algorithm, base64) checksums."""

    number: int
    etag: str
    checksums: tuple[tuple[str, str], ...] = ()


def parse_parts(document: bytes) -> tuple[ListedPart, ...]:
    """Read the request document: 1 to 10,000 parts in ascending order.

    Of a number that stands there again, which a client that sent the part twice may write, the last
    mention counts. Raises S3Error: MalformedXML, InvalidPart for a number no part can have,
    InvalidPartOrder.

    >>> body = b"<CompleteMultipartUpload><Part><PartNumber>7</PartNumber><ETag>a</ETag></Part>"
    >>> parse_parts(body + b"</CompleteMultipartUpload>")
    (ListedPart(number=7, etag='a', checksums=()),)
    """
    root = xml.parse(document)
    elements = list(root.findall("Part"))
    if root.tag != "CompleteMultipartUpload" or not 1 <= len(elements) <= MOST_PARTS:
        raise S3Error("MalformedXML")
    parts = tuple(map(_part, elements))
    if any(low.number > high.number for low, high in pairwise(parts)):
        raise S3Error("InvalidPartOrder")
    return tuple({part.number: part for part in parts}.values())


def _part(element: xml.Element) -> ListedPart:
    number, etag = "", None
    checksums: list[tuple[str, str]] = []
    for child in element.children:
        text = child.text.strip()
        if child.tag == "PartNumber":
            number = text
        elif child.tag == "ETag":
            etag = etags.strip(text)
        elif child.tag.startswith(_ELEMENT):
            algorithm = child.tag.removeprefix(_ELEMENT).lower()
            if algorithm not in ALGORITHMS:
                raise S3Error("MalformedXML")
            checksums.append((algorithm, text))
    if not etag or not (number.isascii() and number.isdigit()):
        raise S3Error("MalformedXML")
    if len(number) > 5 or not 1 <= int(number) <= MOST_PARTS:
        raise S3Error("InvalidPart", PartNumber=number, ETag=etag)
    return ListedPart(int(number), etag, tuple(checksums))


@dataclass(frozen=True, slots=True)
class DeclaredWhole:
    """What the headers of the request say about the whole object; None where they say nothing.

    `checksum` is algorithm and value as sent, `size` the object's length in bytes.
    """

    checksum: tuple[str, str] | None = None
    checksum_type: str | None = None
    size: int | None = None

    @classmethod
    def parse(cls, headers: Headers) -> "DeclaredWhole":
        """Read x-amz-checksum-*, x-amz-checksum-type and x-amz-mp-object-size.

        These are not the checksums of the request's own body. Raises InvalidRequest.
        """
        found: list[tuple[str, str]] = []
        for name, value in headers.items():
            algorithm = name.removeprefix(CHECKSUM_PREFIX)
            if algorithm == name or algorithm in _CONTROL:
                continue
            if algorithm not in ALGORITHMS:
                raise S3Error(
                    "InvalidRequest",
                    "The algorithm type you specified in x-amz-checksum- header is invalid.",
                )
            found.append((algorithm, value.strip()))
        if len(found) > 1:
            raise S3Error(
                "InvalidRequest",
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not "
                "allowed.",
            )
        return cls(
            found[0] if found else None,
            _type(headers.get("x-amz-checksum-type")),
            _size(headers.get("x-amz-mp-object-size")),
        )

    def verify(self, checksum: Checksum | None, size: int) -> None:
        """Compare with what the parts amount to; raises BadDigest, InvalidRequest."""
        if self.size is not None and self.size != size:
            raise S3Error(
                "InvalidRequest",
                f"The provided 'x-amz-mp-object-size' header value {self.size} does not match "
                f"what was computed: {size}",
            )
        if self.checksum_type is not None and (
            checksum is None or self.checksum_type != checksum[2]
        ):
            raise S3Error(
                "InvalidRequest",
                f"The upload was created using the {checksum[2] if checksum else 'null'} checksum "
                f"mode. The complete request must use the same checksum mode.",
            )
        if self.checksum is None:
            return
        algorithm, value = self.checksum
        if checksum is None or checksum[0] != algorithm:
            raise S3Error(
                "InvalidRequest",
                f"Checksum Type mismatch occurred, expected checksum Type: "
                f"{checksum[0] if checksum else 'null'}, actual checksum Type: {algorithm}",
            )
        # A composite value may be given with the number of parts behind it or without.
        if value not in {checksum[1], checksum[1].partition("-")[0]}:
            raise S3Error(
                "BadDigest",
                f"The {algorithm} you specified did not match the calculated checksum.",
            )


def _type(text: str | None) -> str | None:
    if text is not None and text not in {COMPOSITE, FULL_OBJECT}:
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    return text


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise S3Error("InvalidRequest", "Value for x-amz-mp-object-size header is invalid.")
    return int(text)


def default_type(algorithm: str) -> str:
    """Return the checksum type of an upload that names an algorithm only."""
    return FULL_OBJECT if algorithm == "crc64nvme" else COMPOSITE


def composite_checksum(algorithm: str, values: Sequence[str]) -> str:
    """Return the checksum of the parts' checksums, given in base64 and in order.

    ValueError for a value that is no base64.

    >>> composite_checksum("crc32c", ["4waSgw=="])
    'pzJFoA==-1'
    """
    digests = Digests([algorithm])
    for value in values:
        digests.update(_from_base64(value))
    return f"{_to_base64(digests[algorithm])}-{len(values)}"


def combined_checksum(algorithm: str, parts: Iterable[tuple[str, int]]) -> str:
    """Return the CRC of the whole from the parts' CRCs, base64, and lengths in bytes, in order.

    KeyError for an algorithm that is no CRC, ValueError for a value that is no base64.

    >>> combined_checksum("crc32", [("y/Q5Jg==", 9), ("AAAAAA==", 0)])
    'y/Q5Jg=='
    """
    combine = _COMBINE[algorithm]
    whole = 0
    for value, length in parts:
        whole = combine(whole, int.from_bytes(_from_base64(value), "big"), length)
    return _to_base64(whole.to_bytes(ALGORITHMS[algorithm], "big"))


def manifest_digest(parts: Iterable[ListedPart]) -> str:
    """Return what two requests for the same parts have in common: SHA-256 of numbers and ETags."""
    text = ",".join(f"{part.number}:{part.etag}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _from_base64(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        msg = f"{value!r} is no base64"
        raise ValueError(msg) from error


def _to_base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


@dataclass(frozen=True, slots=True)
class Assembled:
    """The result: where the object is, its bare ETag and its checksum."""

    location: str
    bucket: str
    key: str
    etag: str
    checksum: Checksum | None = None

    def serialize(self) -> bytes:
        """Return the CompleteMultipartUploadResult document."""
        inner = [
            xml.leaf("Location", self.location),
            xml.leaf("Bucket", self.bucket),
            xml.leaf("Key", self.key),
            xml.leaf("ETag", etags.quote(self.etag)),
        ]
        if self.checksum is not None:
            algorithm, value, kind = self.checksum
            inner.append(xml.leaf(_ELEMENT + algorithm.upper(), value))
            inner.append(xml.leaf(f"{_ELEMENT}Type", kind))
        return xml.document("CompleteMultipartUploadResult", "".join(inner))


def parts_document(parts: Iterable[tuple[int, str]]) -> bytes:
    """Return the request document for parts of these numbers and bare ETags."""
    inner = "".join(
        f"<Part>{xml.leaf('PartNumber', str(number))}{xml.leaf('ETag', etags.quote(etag))}</Part>"
        for number, etag in parts
    )
    return xml.document("CompleteMultipartUpload", inner)


def parse_result(document: bytes) -> str:
    """Return the bare ETag a store answered with, under status 200.

    S3 sends the status before it knows whether the upload can be completed: an error document under
    200 is an error. Raises S3Error for it, ValueError for what is neither.
    """
    try:
        root = xml.parse(document.strip())
    except S3Error as error:
        raise ValueError(str(error)) from error
    if root.tag == "Error":
        code = root.findtext("Code") or "InternalError"
        status = TABLE[code].status if code in TABLE else 500
        raise S3Error(code, root.findtext("Message"), status=status)
    etag = etags.strip((root.findtext("ETag") or "").strip())
    if root.tag != "CompleteMultipartUploadResult" or not etag:
        msg = f"a document <{root.tag}> without an ETag"
        raise ValueError(msg)
    return etag
