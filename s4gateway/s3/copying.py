"""CopyObjectResult and CopyPartResult: what a copy made, as the store says and as clients see it.

Rule: S3 sends the status of a copy before the copy is done and fills the time with white space, so
an error document under 200 is an error, and white space around the document means nothing.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from s4gateway.s3 import etag as etags
from s4gateway.s3 import xml
from s4gateway.s3.checksums import ALGORITHMS
from s4gateway.s3.errors import TABLE, S3Error

_RESULTS: Final = frozenset({"CopyObjectResult", "CopyPartResult"})
_ELEMENT: Final = "Checksum"


@dataclass(frozen=True, slots=True)
class CopyResult:
    """Bare ETag and modification time of the copy, its checksums as (algorithm, value) pairs.

    `last_modified` is ISO 8601 as the store wrote it, None when it did not say; algorithms are
    lower-case ("crc32c"), values base64.

    >>> CopyResult.parse(b"<CopyObjectResult><ETag>abc</ETag></CopyObjectResult>").etag
    'abc'
    """

    etag: str
    last_modified: str | None = None
    checksums: tuple[tuple[str, str], ...] = ()
    checksum_type: str | None = None

    @classmethod
    def parse(cls, document: bytes) -> CopyResult:
        """Read what a store answered with, under status 200.

        Raises S3Error for an error document, ValueError for what is neither that nor a result.
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
        if root.tag not in _RESULTS or not etag:
            msg = f"a document <{root.tag}> without an ETag"
            raise ValueError(msg)
        named = [(each.tag.removeprefix(_ELEMENT).lower(), each.text) for each in root.children]
        return cls(
            etag,
            root.findtext("LastModified"),
            tuple(pair for pair in named if pair[0] in ALGORITHMS),
            root.findtext("ChecksumType"),
        )

    def serialize(self) -> bytes:
        """Return the CopyObjectResult document."""
        inner = [
            xml.leaf("ETag", etags.quote(self.etag)),
            xml.leaf("LastModified", self.last_modified),
            xml.leaf("ChecksumType", self.checksum_type),
        ]
        inner += [xml.leaf(_ELEMENT + name.upper(), value) for name, value in self.checksums]
        return xml.document("CopyObjectResult", "".join(inner))
