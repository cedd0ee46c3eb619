"""Uploads in parts as SDKs send them: 8 MiB each, eight in flight, every part's MD5 known before.

What is measured is one upload from CreateMultipartUpload to the answer of Complete, for CPU, and
Complete alone, for the time its caller waits with nothing to send
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html). The floor it is held
against is coding the same parts in memory.
"""

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from bench import corpus, load
from bench.servers import Server

PART: Final = 8 * corpus.MIB
CONCURRENCY: Final = 8
_UPLOAD_ID: Final = re.compile(rb"<UploadId>([^<]+)</UploadId>")
_EMPTY: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Part:
    """A part's bytes and the ETag it must get."""

    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Upload:
    """What one upload took; `tally` is that of its parts, `cpu` the server's for all of it."""

    tally: load.Tally
    completing: float
    cpu: float
    size: int


def cut(body: bytes, repeat: int) -> list[Part]:
    """`body` in parts, `repeat` times over without a copy more of its bytes."""
    once = []
    for offset in range(0, len(body), PART):
        piece = body[offset : offset + PART]
        once.append(Part(piece, hashlib.md5(piece, usedforsecurity=False).hexdigest()))
    return once * repeat


def coding_cost(parts: Sequence[Part]) -> corpus.CodingCost:
    """CPU seconds to code every part in this thread; one that comes again is not coded again."""
    spent = {part.etag: corpus.coding_cost(part.body)[0] for part in parts}
    every = [spent[part.etag] for part in parts]
    return corpus.CodingCost(
        zstd=sum(cost.zstd for cost in every),
        md5=sum(cost.md5 for cost in every),
        crc32c=sum(cost.crc32c for cost in every),
    )


async def upload(
    server: Server, bucket: str, key: str, parts: Sequence[Part], *, hard_limit: float
) -> Upload:
    """Upload an object in parts; raises LoadError when the server does not do its share."""
    target, path = server.target, f"/{bucket}/{quote(key)}"
    before = load.cpu_seconds(server.pid)
    answer = await load.fetch(target, _begin(target, path))
    found = _UPLOAD_ID.search(answer)
    if found is None:
        raise load.LoadError(f"no UploadId in {answer[:500]!r}")
    upload_id = quote(found[1].decode(), safe="")
    exchanges = [
        _part(target, path, upload_id, number, part) for number, part in enumerate(parts, start=1)
    ]
    tally = await load.run(
        target,
        exchanges,
        concurrency=CONCURRENCY,
        time_limit=hard_limit,
        hard_limit=hard_limit,
        server_pid=server.pid,
    )
    began = time.perf_counter()
    done = await load.fetch(
        target, _complete(target, path, upload_id, parts), hard_limit=hard_limit
    )
    completing = time.perf_counter() - began
    if b"<CompleteMultipartUploadResult" not in done:
        raise load.LoadError(f"Complete answered {done[:500]!r}")
    cpu = load.cpu_seconds(server.pid) - before
    return Upload(tally, completing, cpu, sum(len(part.body) for part in parts))


def _begin(target: load.Target, path: str) -> load.Exchange:
    headers = {"content-length": "0", "content-type": load.CONTENT_TYPE}
    return load.Exchange(load.sign(target, "POST", path, headers, _EMPTY, "uploads="))


def _part(target: load.Target, path: str, upload_id: str, number: int, part: Part) -> load.Exchange:
    headers = {"content-length": str(len(part.body))}
    query = f"partNumber={number}&uploadId={upload_id}"
    head = load.sign(target, "PUT", path, headers, load.UNSIGNED, query)
    return load.Exchange(head, part.body)


def _complete(
    target: load.Target, path: str, upload_id: str, parts: Sequence[Part]
) -> load.Exchange:
    listed = "".join(
        f'<Part><PartNumber>{number}</PartNumber><ETag>"{part.etag}"</ETag></Part>'
        for number, part in enumerate(parts, start=1)
    )
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    text = f'<CompleteMultipartUpload xmlns="{namespace}">{listed}</CompleteMultipartUpload>'
    body = text.encode()
    headers = {"content-length": str(len(body)), "content-type": "application/xml"}
    payload = hashlib.sha256(body).hexdigest()
    head = load.sign(target, "POST", path, headers, payload, f"uploadId={upload_id}")
    return load.Exchange(head, body)
