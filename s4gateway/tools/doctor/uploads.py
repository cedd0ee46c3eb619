"""What a store demands of the parts of a multipart upload.

S3 wants at least 5 MiB of every part but the last; some stores want them all equal, and some want
nothing. https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
"""

from collections.abc import Sequence
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import BackendAnswer, Body
from s4gateway.backend.profile import advice
from s4gateway.s3 import etag, query, xml
from s4gateway.s3.completion import SMALLEST_PART
from s4gateway.tools.doctor.bench import Bench
from s4gateway.tools.doctor.findings import Finding, Verdict

PARTS: Final = "part sizes"
SMALLEST: Final = "smallest part"
LIVE_UPLOADS: Final = "uploads under way"

_SMALL: Final = bytes(1024)


async def uneven_parts(bench: Bench) -> Sequence[Finding]:
    """Whether parts may have different lengths."""
    lengths = (SMALLEST_PART, SMALLEST_PART + 1, 1)
    try:
        tag = await _upload(bench, "uneven", lengths)
    except BackendAnswer as error:
        if error.code not in {"InvalidPart", "EntityTooSmall", "InvalidRequest"}:
            raise
        if advice(error.code, error.message) == "uniform-parts":
            detail = "all parts but the last must be equal"
            return [Finding(PARTS, Verdict.BITES, detail, ("uniform-parts",))]
        detail = f"parts of different lengths are refused: {error}"
        return [Finding(PARTS, Verdict.BITES, detail, ("uniform-parts",))]
    head = await bench.backend.head(bench.bucket, bench.key("uneven"))
    if head.size != sum(lengths) or head.etag != tag:
        detail = f"{head.size} bytes were joined of {sum(lengths)}, or the ETag differs"
        return [Finding(PARTS, Verdict.BROKEN, detail)]
    return [Finding(PARTS, Verdict.WORKS, "parts may have different lengths")]


async def smallest_part(bench: Bench) -> Sequence[Finding]:
    """Whether a part below 5 MiB that is not the last one is refused."""
    try:
        await _upload(bench, "small", (len(_SMALL), 1))
    except BackendAnswer as error:
        if error.code != "EntityTooSmall":
            return [Finding(SMALLEST, Verdict.NOTE, f"refused, as {error.code}")]
        return [Finding(SMALLEST, Verdict.WORKS, "5 MiB, as on S3: the gateway joins smaller ones")]
    return [Finding(SMALLEST, Verdict.NOTE, "any: the gateway joins parts below 5 MiB anyway")]


async def live_uploads(bench: Bench) -> Sequence[Finding]:
    """Whether uploads under way can be listed: leftovers are told from them by that."""
    upload = await bench.begin("live")
    pairs = [("encoding-type", "url"), ("prefix", bench.prefix), ("uploads", "")]
    path = f"/{query.quote(bench.bucket)}"
    _, document = await multipart.ask(bench.backend, "GET", path, query.format_query(pairs), ())
    listed = {each.findtext("UploadId") for each in xml.parse(document).findall("Upload")}
    if upload.upload_id in listed:
        return [Finding(LIVE_UPLOADS, Verdict.WORKS, "are listed")]
    detail = "are not listed by prefix: what is left of lost ones is found by asking one by one"
    return [Finding(LIVE_UPLOADS, Verdict.NOTE, detail)]


async def _upload(bench: Bench, name: str, lengths: Sequence[int]) -> str:
    """Make an object of zeros in parts of these lengths; its ETag. Raises BackendError."""
    upload = await bench.begin(name)
    inner = ""
    for number, length in enumerate(lengths, start=1):
        part = await multipart.put_part(bench.backend, upload, number, Body.of(bytes(length)))
        leaves = xml.leaf("PartNumber", str(number)) + xml.leaf("ETag", etag.quote(part.etag))
        inner += f"<Part>{leaves}</Part>"
    document = xml.document("CompleteMultipartUpload", inner)
    tag, _ = await multipart.complete(bench.backend, upload, document)
    return tag
