"""Draw objects from a bucket and read them, as samples of what is stored there.

Rule: the draw is fair and repeatable, and bounded in memory whatever the bucket holds. Objects that
a gateway wrote are decoded and serve like any other. Left out are the gateway's own objects, empty
and large ones, those whose bytes another sample has already, and what the gateway would not
compress, for a dictionary never sees it.
"""

import hashlib
import heapq
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer, BackendProtocolError
from s4gateway.codecs import dispatcher
from s4gateway.objects.errors import DamagedObject, ObjectError
from s4gateway.objects.fan_out import fan_out
from s4gateway.objects.opening import OpenObject, Source
from s4gateway.s3.errors import S3Error
from s4gateway.tools.objects import Objects
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.target import Target
from s4gateway.tools.walk import Listed, walk
from s4gateway.wire import envelope, frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.manifest import Form

MAX_TOTAL: Final = 128 * 1024 * 1024  # bytes of all samples, which are held in memory
_SPARE: Final = 4  # objects drawn for each sample wanted: some cannot be used
_FRAME_MAGICS: Final = (frame.MAGIC, frame.PADDING_MAGIC)


@dataclass(frozen=True, slots=True)
class Draw:
    """How many objects to read, which, and from how long a listing.

    `max_bytes` bounds an object's stored and its original size.
    """

    samples: int = 1000
    max_bytes: int = 64 * 1024
    max_keys: int = 1_000_000
    seed: int = 42
    concurrency: int = 16


@dataclass(slots=True)
class Sampled:
    """Samples in the order they were drawn, and why other objects are none.

    `decoded` samples were written by a gateway; `skipped` counts objects by reason: empty,
    too-large, compressed, duplicate, unreadable, gone; `problem` is the first unreadable one.
    """

    bodies: list[bytes] = field(default_factory=list)
    size: int = 0
    decoded: int = 0
    listed: int = 0
    truncated: bool = False
    skipped: Counter[str] = field(default_factory=Counter)
    problem: str | None = None
    _seen: set[bytes] = field(default_factory=set)

    def add(self, body: bytes, *, decoded: bool) -> None:
        """Take a body unless the same bytes are there already."""
        digest = hashlib.sha256(body).digest()
        if digest in self._seen:
            self.skipped["duplicate"] += 1
            return
        self._seen.add(digest)
        self.bodies.append(body)
        self.size += len(body)
        self.decoded += decoded

    def skip(self, reason: "Skip") -> None:
        """Note an object that is no sample."""
        self.skipped[reason.why] += 1
        self.problem = self.problem or reason.problem

    def reasons(self) -> Mapping[str, int]:
        """How many objects were skipped for what, the commonest first."""
        return dict(self.skipped.most_common())


@dataclass(frozen=True, slots=True)
class Skip:
    """Why an object is no sample."""

    why: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Body:
    data: bytes
    decoded: bool


async def sample(
    objects: Objects, target: Target, draw: Draw, progress: Progress = SILENT
) -> Sampled:
    """Read objects of `target` in a drawn order until there are samples enough.

    Raises BackendError.
    """
    sampled = Sampled()
    drawn = await _draw(objects.backend, target, draw, sampled)
    read = partial(_read, objects, target.bucket, draw.max_bytes)

    async def noted(entry: Listed) -> _Body | Skip:
        try:
            return await read(entry.key)
        finally:
            progress.done(1, entry.size)

    while drawn and len(sampled.bodies) < draw.samples and sampled.size < MAX_TOTAL:
        count = min(draw.samples - len(sampled.bodies), 4 * draw.concurrency)
        batch, drawn = drawn[:count], drawn[count:]
        progress.found(len(batch), sum(entry.size for entry in batch))
        for found in await fan_out(batch, noted, draw.concurrency):
            if isinstance(found, Skip):
                sampled.skip(found)
            else:
                sampled.add(found.data, decoded=found.decoded)
    return sampled


async def _draw(backend: Backend, target: Target, draw: Draw, sampled: Sampled) -> list[Listed]:
    """Objects in a random order that is the same for the same seed and the same listing.

    Every object that may serve gets a random rank, and the lowest ranks are kept.
    """
    ranks = random.Random(draw.seed)
    kept: list[tuple[float, int, Listed]] = []
    async with aclosing(walk(backend, target, limit=draw.max_keys + 1)) as listing:
        async for entry in listing:
            if sampled.listed >= draw.max_keys:
                sampled.truncated = True
                break
            sampled.listed += 1
            if not 0 < entry.size <= draw.max_bytes:
                sampled.skip(Skip("too-large" if entry.size else "empty"))
                continue
            ranked = (-ranks.random(), sampled.listed, entry)
            if len(kept) < _SPARE * draw.samples:
                heapq.heappush(kept, ranked)
            else:
                heapq.heappushpop(kept, ranked)
    return [entry for *_, entry in sorted(kept, reverse=True)]


async def _read(objects: Objects, bucket: str, limit: int, key: str) -> _Body | Skip:
    """The plaintext of an object, or why it is no sample."""
    try:
        opened = await objects.reader.open_whole(Source(objects.backend, (bucket, key)))
        try:
            size = opened.attributes.size
            if size is None or size > limit:
                return Skip("too-large")
            data = await _content(opened, limit)
        finally:
            await opened.aclose()
    except BackendAnswer as error:
        return Skip("gone") if error.missing else Skip("unreadable", f"{key}: {error}")
    except (ObjectError, S3Error, BackendProtocolError) as error:
        return Skip("unreadable", f"{key}: {error}")
    decoded = opened.attributes.stored.form is not Form.FOREIGN
    if not data:
        return Skip("empty")
    if _is_compressed(objects, data) or (not decoded and _is_framed(data)):
        return Skip("compressed")
    return _Body(data, decoded)


async def _content(opened: OpenObject, limit: int) -> bytes:
    if isinstance(opened.content, bytes):
        return opened.content
    return b"".join([piece async for piece in _bounded(opened.content, limit)])


async def _bounded(
    pieces: AsyncIterator[bytes | memoryview], limit: int
) -> AsyncIterator[bytes | memoryview]:
    """The pieces; raises DamagedObject when they are more bytes than `limit`."""
    left = limit
    async for piece in pieces:
        left -= len(piece)
        if left < 0:
            msg = f"more than the {limit} bytes it said"
            raise DamagedObject(msg)
        yield piece


def _is_compressed(objects: Objects, data: bytes) -> bool:
    """The gateway would not compress it, or it starts like a compressed format."""
    start = data[: dispatcher.SAMPLE_SIZE]
    return dispatcher.has_magic(start) or objects.dispatcher.pick(start) is CodecId.PASSTHROUGH


def _is_framed(data: bytes) -> bool:
    """Frames or an envelope without the metadata that would say how to read them."""
    return data.startswith(_FRAME_MAGICS) or envelope.recognise(data) is not None
