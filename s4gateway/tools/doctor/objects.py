"""How a store treats single objects: what it changes, what it verifies, what it lists.

Rule: what is verified is found out by lying. A wrong digest, a wrong signature of the payload, a
wrong ETag must be refused; a store that takes them keeps damaged uploads.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import base64
import hashlib
from collections.abc import Awaitable, Sequence
from typing import Final

from s4gateway.backend import probe
from s4gateway.backend.base import BackendAnswer, BackendProtocolError, Body
from s4gateway.backend.probe import ConditionalVerb
from s4gateway.backend.profile import Checksum
from s4gateway.s3 import query
from s4gateway.s3.checksums import CHECKSUM_PREFIX, Digests
from s4gateway.s3.documents import ListPage
from s4gateway.tools.doctor.bench import Bench, md5_of
from s4gateway.tools.doctor.findings import Finding, Verdict

OBJECTS: Final = "objects"
BODIES: Final = "bodies"
PINNED: Final = "pinned reads"
PAYLOAD: Final = "signed payloads"
CONTENT_MD5: Final = "Content-MD5"
CHECKSUMS: Final = "checksum headers"
TRAILERS: Final = "checksum trailers"
CONDITIONS: Final = "conditional writes"
LISTINGS: Final = "listings"
DELETIONS: Final = "DeleteObjects"

_DATA: Final = b"s4 doctor was here. " * 100
_TEXT: Final = b"the same line again and again, as logs have it\n" * 1500
_ALGORITHMS: Final = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")
_METADATA: Final = {"s4-probe": "true", "colour": "blue", "empty": ""}
_REFUSED: Final = frozenset({400, 403, 409, 411, 412, 501})
# In the order of S3's listings: by bytes of UTF-8.
_NAMES: Final = ("B b+c%41&d", "a", "b\u00e9", "b\U0001f600")


async def round_trip(bench: Bench) -> Sequence[Finding]:
    """An object comes back as it was written: bytes, size, metadata, and it has an ETag."""
    fields = [(f"x-amz-meta-{name}", value) for name, value in _METADATA.items()]
    await bench.put("object", _DATA, fields)
    head = await bench.backend.head(bench.bucket, bench.key("object"))
    _, data = await bench.get("object", 2 * len(_DATA))
    wrong = []
    if data != _DATA or head.size != len(_DATA):
        wrong.append(f"{head.size} bytes came back of {len(_DATA)}")
    if not head.etag:
        wrong.append("no ETag: nothing can be pinned to a version")
    lost = {name for name, value in _METADATA.items() if value and head.metadata.get(name) != value}
    if lost:
        wrong.append(f"metadata was lost: {', '.join(sorted(lost))}")
    if wrong:
        return [Finding(OBJECTS, Verdict.BROKEN, "; ".join(wrong))]
    if head.etag != hashlib.md5(_DATA, usedforsecurity=False).hexdigest():
        detail = "come back as written; ETags are no MD5s, as with KMS encryption: none is needed"
        return [Finding(OBJECTS, Verdict.NOTE, detail)]
    return [Finding(OBJECTS, Verdict.WORKS, "come back as written, with metadata")]


async def bodies(bench: Bench) -> Sequence[Finding]:
    """Whether a store compresses or recodes text by itself, where that can be seen."""
    await bench.put("text.txt", _TEXT, [("content-type", "text/plain")])
    head, data = await bench.get("text.txt", 2 * len(_TEXT))
    if data != _TEXT or "content-encoding" in head.headers:
        encoding = head.headers.get("content-encoding", "none")
        detail = f"text came back as {len(data)} of {len(_TEXT)} bytes, Content-Encoding {encoding}"
        return [Finding(BODIES, Verdict.BROKEN, detail)]
    detail = "text comes back as it was sent; what a store does on its own disks does not show"
    return [Finding(BODIES, Verdict.WORKS, detail)]


async def pinned_reads(bench: Bench) -> Sequence[Finding]:
    """Whether a read of another version than the one asked for is refused, and ranges are kept."""
    await bench.put("object", _DATA)
    key, wrong = bench.key("object"), "0" * 32
    async with await bench.backend.get(bench.bucket, key, byte_range=(10, 30)) as stream:
        if await stream.read(100) != _DATA[10:30]:
            return [Finding(PINNED, Verdict.BROKEN, "a range came back as other bytes")]
    try:
        async with await bench.backend.get(bench.bucket, key, if_match=wrong) as stream:
            await stream.read(2 * len(_DATA))
    except BackendAnswer as error:
        if error.status == 412:
            return [Finding(PINNED, Verdict.WORKS, "ranges, and If-Match on GET")]
        return [Finding(PINNED, Verdict.UNKNOWN, f"If-Match on GET: {error}")]
    except BackendProtocolError:
        pass  # the client saw the ETag of the answer
    detail = "If-Match on GET is ignored: an object overwritten while it is read is noticed by the "
    return [Finding(PINNED, Verdict.BITES, detail + "ETag of the answer, and read again")]


async def _refuses(request: Awaitable[object]) -> bool | None:
    """Whether a request that lies is refused; raises BackendError for other answers."""
    try:
        await request
    except BackendAnswer as error:
        if error.status not in _REFUSED:
            raise
        return True
    return False


async def signed_payloads(bench: Bench) -> Sequence[Finding]:
    """Whether a body that is not the signed one is refused."""
    lie = Body(len(_DATA), _DATA, sha256="0" * 64, md5=md5_of(_DATA))
    if await _refuses(bench.put_body("payload", lie)):
        return [Finding(PAYLOAD, Verdict.WORKS, "a body that is not the signed one is refused")]
    detail = "the SHA-256 in the signature is not compared with the body: use an integrity header"
    return [Finding(PAYLOAD, Verdict.NOTE, detail)]


async def content_md5(bench: Bench) -> Sequence[Finding]:
    """Whether uploads are compared with their Content-MD5."""
    try:
        await bench.put_body("md5", Body.of(_DATA), [("content-md5", md5_of(_DATA))])
    except BackendAnswer as error:
        return [Finding(CONTENT_MD5, Verdict.BITES, f"refused although right: {error}")]
    if await _refuses(bench.put_body("md5", Body.of(_DATA), [("content-md5", md5_of(b""))])):
        return [Finding(CONTENT_MD5, Verdict.WORKS, "a wrong one is refused")]
    return [Finding(CONTENT_MD5, Verdict.BITES, "a wrong one is accepted: damage goes unnoticed")]


async def checksum_headers(bench: Bench) -> Sequence[Finding]:
    """Which x-amz-checksum-* headers are compared with the body."""
    kinds: dict[str, list[str]] = {"verified": [], "ignored": [], "refused": []}
    for algorithm in _ALGORITHMS:
        name = CHECKSUM_PREFIX + algorithm
        try:
            await bench.put_body("sum", Body.of(_DATA), [(name, _digest(algorithm, _DATA))])
        except BackendAnswer as error:
            if error.status not in _REFUSED:
                raise
            kinds["refused"].append(algorithm)
            continue
        lie = bench.put_body("sum", Body.of(_DATA), [(name, _digest(algorithm, b""))])
        kinds["verified" if await _refuses(lie) else "ignored"].append(algorithm)
    detail = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
    verdict = Verdict.WORKS if not kinds["ignored"] and not kinds["refused"] else Verdict.NOTE
    verified = tuple(f"checksums={each}" for each in kinds["verified"] if each in _PROFILE)
    return [Finding(CHECKSUMS, verdict, detail, verified)]


_PROFILE: Final = frozenset(each.value for each in Checksum)


def _digest(algorithm: str, data: bytes) -> str:
    digests = Digests((algorithm,))
    digests.update(data)
    return base64.b64encode(digests[algorithm]).decode()


async def trailers(bench: Bench) -> Sequence[Finding]:
    """What becomes of a body in chunks with its checksum behind it, as today's SDKs send over TLS.

    The gateway itself sends none: this is for clients that talk to the store directly.
    """
    right, wrong = _chunked(_digest("crc32c", _DATA)), _chunked(_digest("crc32c", b""))
    try:
        await bench.put_body("trailer", right, _TRAILER_FIELDS)
    except BackendAnswer as error:
        if error.status not in _REFUSED:
            raise
        detail = f"refused ({error.code}); the gateway sends none, and takes those of clients"
        return [Finding(TRAILERS, Verdict.NOTE, detail)]
    head, data = await bench.get("trailer", 2 * right.length)
    if data != _DATA:
        detail = "stored with the chunk framing among the bytes; the gateway sends none, but keep "
        return [
            Finding(TRAILERS, Verdict.BITES, detail + "SDKs from writing to the store directly")
        ]
    kept = "aws-chunked" in head.headers.get("content-encoding", "")
    said = ", but aws-chunked is stored as Content-Encoding" if kept else ""
    if await _refuses(bench.put_body("trailer", wrong, _TRAILER_FIELDS)):
        verdict = Verdict.NOTE if kept else Verdict.WORKS
        return [Finding(TRAILERS, verdict, f"decoded and verified{said}; the gateway sends none")]
    detail = f"decoded and not verified{said}; the gateway sends none, and verifies its clients'"
    return [Finding(TRAILERS, Verdict.NOTE, detail)]


_TRAILER_FIELDS: Final = (
    ("content-encoding", "aws-chunked"),
    ("x-amz-decoded-content-length", str(len(_DATA))),
    ("x-amz-trailer", "x-amz-checksum-crc32c"),
)


def _chunked(checksum: str) -> Body:
    framed = f"{len(_DATA):x}\r\n".encode() + _DATA + b"\r\n0\r\n"
    framed += f"x-amz-checksum-crc32c:{checksum}\r\n\r\n".encode()
    return Body(len(framed), framed, sha256="STREAMING-UNSIGNED-PAYLOAD-TRAILER")


async def conditional_writes(bench: Bench) -> Sequence[Finding]:
    """Which requests are refused when their If-Match or If-None-Match does not hold."""
    store, key = (bench.backend, bench.bucket), bench.key("conditions")
    found = await probe.probe(*store, ConditionalVerb.PUT, key)
    found |= await probe.probe(*store, ConditionalVerb.COMPLETE, key)
    honoured = [verb.value for verb, is_honoured in found.items() if is_honoured]
    ignored = [verb.value for verb, is_honoured in found.items() if not is_honoured]
    if not ignored:
        detail = f"honoured by {', '.join(honoured)}"
        return [Finding(CONDITIONS, Verdict.WORKS, detail, ("conditional-writes",))]
    detail = f"not honoured by {', '.join(ignored)}: clients that set conditions get 501, and "
    detail += "table formats cannot commit"
    words = () if honoured else ("no-conditional-writes",)
    return [Finding(CONDITIONS, Verdict.BITES, detail, words)]


async def listings(bench: Bench) -> Sequence[Finding]:
    """ListObjectsV2: names of every kind, in order, page by page, and from any name on."""
    for name in reversed(_NAMES):
        await bench.put(f"list-{name}", b"x")
    wanted = [bench.key(f"list-{name}") for name in _NAMES]
    prefix = bench.key("list-")
    whole = await _page(bench, prefix)
    listed = [each.key for each in whole.contents]
    if set(listed) != set(wanted):
        detail = f"{len(listed)} of {len(wanted)} keys just written are listed under their names"
        return [Finding(LISTINGS, Verdict.BROKEN, detail)]
    wrong = [] if listed == wanted else ["not in the order of the keys' bytes"]
    if whole.encoding_type != "url":
        wrong.append("encoding-type=url is ignored")
    after = await _page(bench, prefix, ("start-after", wanted[1]))
    if [each.key for each in after.contents] != wanted[2:]:
        wrong.append("start-after is not honoured")
    first = await _page(bench, prefix, ("max-keys", "1"))
    token = first.next_continuation_token
    if not (first.is_truncated and token and len(first.contents) == 1):
        wrong.append("max-keys is not honoured")
    else:
        rest = await _page(bench, prefix, ("continuation-token", token))
        if [each.key for each in rest.contents] != listed[1:]:
            wrong.append("a continuation token does not continue")
    if wrong:
        return [Finding(LISTINGS, Verdict.BROKEN, "; ".join(wrong))]
    return [Finding(LISTINGS, Verdict.WORKS, "complete, in order, from any key on")]


async def _page(bench: Bench, prefix: str, *more: tuple[str, str]) -> ListPage:
    pairs = [("list-type", "2"), ("prefix", prefix), ("encoding-type", "url"), *more]
    return ListPage.parse(await bench.backend.list(bench.bucket, query.format_query(sorted(pairs))))


async def deletions(bench: Bench) -> Sequence[Finding]:
    """DeleteObjects, which the gateway removes sidecars with."""
    for name in ("delete 1", "delete&2"):
        await bench.put(name, b"x")
    doomed = [bench.key("delete 1"), bench.key("delete&2"), bench.key("never was")]
    failures = await bench.backend.delete_many(bench.bucket, doomed)
    page = await _page(bench, bench.key("delete"))
    if failures or page.contents:
        said = failures[0].code if failures else "the keys are still listed"
        return [Finding(DELETIONS, Verdict.BITES, f"does not delete: {said}")]
    return [Finding(DELETIONS, Verdict.WORKS, "deletes several keys at once")]
