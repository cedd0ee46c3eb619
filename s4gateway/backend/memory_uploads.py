"""Multipart uploads of the store in memory: as strict as S3 about order, ETags and sizes.

For tests and examples of the layers above; `MemoryBackend.forward` hands the requests of an upload
over. Complete joins the parts, so what the layers above would corrupt shows up in the object.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
"""

import base64
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from s4gateway.backend import base
from s4gateway.s3 import etag, xml
from s4gateway.s3.headers import Headers

MIN_PART: Final = 5 * 1024 * 1024

Failure = Callable[[str], base.BackendAnswer]


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """One part as it was sent last."""

    data: bytes
    etag: str
    modified: datetime


@dataclass(slots=True)
class MemoryUpload:
    """One upload under way; `headers` are those of its beginning, to be stored with the object."""

    bucket: str
    key: str
    headers: tuple[tuple[str, str], ...]
    started: datetime
    parts: dict[int, MemoryPart] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Joined:
    """A completed upload: what the object is to be."""

    data: bytes
    etag: str
    headers: tuple[tuple[str, str], ...]


class MemoryUploads:
    """The uploads of one store, by id; `uploads` may be looked into and changed by tests.

    `min_part` is the least size of a part that is not the last, in bytes. `failure(code)` makes the
    answer to a request that fails.
    """

    def __init__(self, failure: Failure, now: Callable[[], datetime]) -> None:
        self.uploads: dict[str, MemoryUpload] = {}
        self.min_part = MIN_PART
        self._failure = failure
        self._now = now
        self._ids = itertools.count(1)

    def create(self, bucket: str, key: str, headers: tuple[tuple[str, str], ...]) -> bytes:
        """CreateMultipartUpload."""
        upload_id = f"memory-{next(self._ids)}"
        self.uploads[upload_id] = MemoryUpload(bucket, key, headers, self._now())
        named = xml.leaf("Bucket", bucket) + xml.leaf("Key", key) + xml.leaf("UploadId", upload_id)
        return xml.document("InitiateMultipartUploadResult", named)

    def find(self, bucket: str, key: str, upload_id: str) -> MemoryUpload:
        """The upload of that id, for that key."""
        upload = self.uploads.get(upload_id)
        if upload is None or (upload.bucket, upload.key) != (bucket, key):
            raise self._failure("NoSuchUpload")
        return upload

    def put_part(self, upload: MemoryUpload, number: str, data: bytes, md5: str | None) -> str:
        """UploadPart; returns its ETag."""
        if not number.isdigit() or not 1 <= int(number) <= 10_000:
            raise self._failure("InvalidArgument")
        digest = hashlib.md5(data, usedforsecurity=False)
        if md5 is not None and base64.b64encode(digest.digest()).decode() != md5:
            raise self._failure("BadDigest")
        upload.parts[int(number)] = MemoryPart(data, digest.hexdigest(), self._now())
        return digest.hexdigest()

    def list_parts(self, upload_id: str, upload: MemoryUpload, asked: dict[str, str]) -> bytes:
        """ListParts."""
        limit = min(int(asked.get("max-parts", "1000")), 1000)
        after = int(asked.get("part-number-marker", "0"))
        numbers = [number for number in sorted(upload.parts) if number > after]
        shown = numbers[:limit]
        inner = (
            xml.leaf("Bucket", upload.bucket)
            + xml.leaf("Key", upload.key)
            + xml.leaf("UploadId", upload_id)
            + "<Initiator><ID>memory</ID></Initiator><Owner><ID>memory</ID></Owner>"
            + "<StorageClass>STANDARD</StorageClass>"
            + xml.leaf("PartNumberMarker", str(after))
            + xml.leaf("NextPartNumberMarker", str(shown[-1] if shown else 0))
            + xml.leaf("MaxParts", str(limit))
            + xml.leaf("IsTruncated", "true" if len(shown) < len(numbers) else "false")
        )
        for number in shown:
            part = upload.parts[number]
            inner += (
                f"<Part><PartNumber>{number}</PartNumber>"
                f"<LastModified>{part.modified:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
                f"{xml.leaf('ETag', etag.quote(part.etag))}<Size>{len(part.data)}</Size></Part>"
            )
        return xml.document("ListPartsResult", inner)

    def complete(self, upload_id: str, upload: MemoryUpload, document: bytes) -> Joined:
        """CompleteMultipartUpload; the upload is gone afterwards."""
        root = xml.parse(document)
        wanted: list[tuple[int, str]] = [
            (int(each.findtext("PartNumber") or "0"), etag.strip(each.findtext("ETag") or ""))
            for each in root.findall("Part")
        ]
        if not wanted:
            raise self._failure("MalformedXML")
        numbers = [number for number, _ in wanted]
        if numbers != sorted(set(numbers)):
            raise self._failure("InvalidPartOrder")
        parts: list[MemoryPart] = []
        for number, tag in wanted:
            part = upload.parts.get(number)
            if part is None or part.etag != tag:
                raise self._failure("InvalidPart")
            parts.append(part)
        if any(len(part.data) < self.min_part for part in parts[:-1]):
            raise self._failure("EntityTooSmall")
        del self.uploads[upload_id]
        whole = b"".join(part.data for part in parts)
        return Joined(whole, etag.composite(part.etag for part in parts), upload.headers)

    def abort(self, upload_id: str) -> None:
        """AbortMultipartUpload."""
        del self.uploads[upload_id]

    def list_uploads(self, bucket: str) -> bytes:
        """ListMultipartUploads, all of them on one page."""
        inner = xml.leaf("Bucket", bucket) + "<IsTruncated>false</IsTruncated>"
        for upload_id, upload in sorted(self.uploads.items(), key=lambda pair: pair[1].key):
            if upload.bucket == bucket:
                inner += (
                    f"<Upload>{xml.leaf('Key', upload.key)}{xml.leaf('UploadId', upload_id)}"
                    f"<Initiated>{upload.started:%Y-%m-%dT%H:%M:%S.000Z}</Initiated></Upload>"
                )
        return xml.document("ListMultipartUploadsResult", inner)


def kept_md5(body: base.Body | None, headers: Headers) -> str | None:
    """The Content-MD5 a request carries, in its body's description or its headers."""
    return (body.md5 if body is not None else None) or headers.get("content-md5")
