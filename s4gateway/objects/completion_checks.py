"""What a client says about the parts of an upload against what is known of them.

Rule: whatever the client names is compared, number, ETag, checksums and sizes, before the store is
asked for anything; what all of it amounts to becomes the object's tail.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
"""

from collections.abc import Sequence

from s4gateway.objects.errors import DamagedObject
from s4gateway.objects.part_facts import PartFacts
from s4gateway.objects.uploads import PartRef, UploadRecord
from s4gateway.s3 import completion, etag
from s4gateway.s3.completion import SMALLEST_PART, Checksum, ListedPart
from s4gateway.s3.errors import S3Error
from s4gateway.wire.errors import TailError
from s4gateway.wire.tail import Tail


def choose(
    listed: Sequence[ListedPart], refs: Sequence[PartRef], upload_id: str
) -> tuple[PartRef, ...]:
    """Return the records of the parts a client lists; raises InvalidPart when one is missing."""
    by_number = {ref.number: ref for ref in refs}
    chosen = tuple(ref for part in listed if (ref := by_number.get(part.number)) is not None)
    if len(chosen) < len(listed):
        raise _invalid(next(part for part in listed if part.number not in by_number), upload_id)
    return chosen


def check(listed: Sequence[ListedPart], facts: Sequence[PartFacts], upload_id: str) -> None:
    """Compare part by part; raises InvalidPart, EntityTooSmall."""
    for part, known in zip(listed, facts, strict=True):
        if part.etag.lower() != known.md5 or not _agree(part, known):
            raise _invalid(part, upload_id)
    for known in facts[:-1]:
        if known.size < SMALLEST_PART:
            raise S3Error(
                "EntityTooSmall",
                ProposedSize=known.size,
                MinSizeAllowed=SMALLEST_PART,
                PartNumber=known.number,
                ETag=known.md5,
            )


def _agree(part: ListedPart, known: PartFacts) -> bool:
    return all(known.checksums.get(name) == value for name, value in part.checksums)


def _invalid(part: ListedPart, upload_id: str) -> S3Error:
    return S3Error("InvalidPart", UploadId=upload_id, PartNumber=part.number, ETag=part.etag)


def tail_of(record: UploadRecord, facts: Sequence[PartFacts]) -> Tail:
    """Return what the object will say about itself; raises DamagedObject for a forged record."""
    checksum, values = _checksum(record, facts)
    try:
        return Tail(
            record.token,
            etag.composite(known.md5 for known in facts),
            sum(known.size for known in facts),
            tuple((known.number, known.size) for known in facts),
            checksum,
            values,
        )
    except TailError as error:
        raise DamagedObject(f"the records of the upload contradict each other: {error}") from error


def _checksum(
    record: UploadRecord, facts: Sequence[PartFacts]
) -> tuple[Checksum | None, tuple[str, ...]]:
    """The checksum of the whole and those of its parts, as the upload's beginning declared them."""
    algorithm = record.checksum_algorithm
    if algorithm is None:
        return None, ()
    kind = record.checksum_type or completion.default_type(algorithm)
    values = tuple(known.checksums.get(algorithm, "") for known in facts)
    if not all(values):
        return None, ()  # a part sent without: nothing can be said about the whole
    if kind == completion.COMPOSITE:
        return (algorithm, completion.composite_checksum(algorithm, values), kind), values
    if algorithm not in completion.COMBINABLE:
        msg = f"no {kind} checksum by {algorithm} can be made"
        raise DamagedObject(msg)
    sized = zip(values, (known.size for known in facts), strict=True)
    return (algorithm, completion.combined_checksum(algorithm, sized), kind), values
