"""A request to complete an upload, what is recorded about the upload, and the answer, as values.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
"""

from dataclasses import dataclass

from s4gateway.backend.base import Head
from s4gateway.backend.multipart import Upload
from s4gateway.objects.completion_record import CompletionRecord
from s4gateway.objects.uploads import UploadRecord
from s4gateway.s3 import completion, etag
from s4gateway.s3.completion import Checksum, DeclaredWhole, ListedPart
from s4gateway.wire.tail import Tail


@dataclass(frozen=True, slots=True)
class Standing:
    """What is recorded about an upload: how it began, and how far its completion has come."""

    record: UploadRecord | None
    completion: CompletionRecord | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A client's request; `headers` go with the requests that are made in its name.

    `conditions` are those the client set, as it set them: they are part of what it wants.
    """

    upload: Upload
    parts: tuple[ListedPart, ...]
    whole: DeclaredWhole = DeclaredWhole()  # noqa: RUF009 - a frozen value
    headers: tuple[tuple[str, str], ...] = ()
    conditions: tuple[str | None, ...] = ()

    @property
    def name(self) -> tuple[str, str]:
        """Bucket and key."""
        return self.upload.bucket, self.upload.key

    @property
    def manifest(self) -> str:
        """What a repetition of this request has in common with it."""
        return completion.manifest_digest(self.parts)

    def is_made(self, tail: Tail) -> bool:
        """Whether an object with this tail is made of these parts."""
        numbers = tuple(part.number for part in self.parts)
        if numbers != tuple(number for number, _ in tail.parts):
            return False
        try:
            return tail.etag == etag.composite(part.etag for part in self.parts)
        except ValueError:  # an ETag no part has
            return False


@dataclass(frozen=True, slots=True)
class Completed:
    """The answer: logical ETag and checksum, and what the store said if it said it just now.

    `sidecar` is whether an index that was due was written.
    """

    etag: str
    checksum: Checksum | None
    head: Head | None = None
    version_id: str | None = None
    sidecar: bool | None = None
