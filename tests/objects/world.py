"""One gateway's floor over a store in memory, and stored objects made by hand.

`Instance` is what one process knows: make a second one over the same store to be another gateway,
or the same gateway after a restart. `put_stored` writes what no writer here would write.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from s4gateway.backend.base import Backend
from s4gateway.backend.conditional import ConditionalWrites
from s4gateway.backend.memory import MemoryBackend, StoredObject
from s4gateway.codecs import decoder, encoder
from s4gateway.codecs import dispatcher as dispatching
from s4gateway.codecs.registry import Registry
from s4gateway.objects.accounting import Accounts, Ledger, NullAccounts
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.budget import ByteBudget
from s4gateway.objects.cache import AttributeCache, IndexCache
from s4gateway.objects.dictionary_store import DictionaryStore
from s4gateway.objects.encoding import (
    DIGESTS,
    SMALL_BODY,
    EncodedObject,
    ObjectEncoder,
    Workshop,
    encode_small,
)
from s4gateway.objects.frame_cache import FrameCache
from s4gateway.objects.lanes import Lanes
from s4gateway.objects.ledger_accounts import LedgerAccounts
from s4gateway.objects.listing import Sizer
from s4gateway.objects.opening import OpenObject, Source
from s4gateway.objects.reader import ObjectReader
from s4gateway.objects.sidecar import Sidecars
from s4gateway.objects.sidecar_slot import Books
from s4gateway.objects.writer import ObjectWriter
from s4gateway.s3.checksums import Digests
from s4gateway.wire import frame, keys
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.index import FrameEntry, FrameIndex
from s4gateway.wire.manifest import Manifest

BUCKET = "bucket"
MIB = 1024 * 1024
CODECS = Registry()
LANES = Lanes(2)
EPOCH = datetime(2025, 3, 1, tzinfo=UTC)


@dataclass
class Instance:
    """The caches, budget and threads of one gateway process over `backend`."""

    backend: Backend
    budget: ByteBudget = field(default_factory=ByteBudget)
    codec: CodecId = CodecId.CPU_ZSTD
    codecs: Registry = CODECS
    spool: Path | None = None
    heads: int = 8
    conditional_writes: bool | None = True
    ledger: Ledger | None = None

    def __post_init__(self) -> None:
        self.workshop = Workshop(LANES, self.budget, self.codecs, self.spool)
        self.dispatcher = dispatching.Dispatcher(self.codec)
        self.attributes = AttributeCache()
        self.indices = IndexCache()
        self.sidecars = Sidecars(self.backend, self.indices, LANES)
        self.frames = FrameCache(LANES.disk, self.spool)
        self.dictionaries = DictionaryStore(self.backend, LANES.codec)
        self.reader = ObjectReader(
            self.workshop, self.sidecars, self.attributes, self.frames, self.dictionaries
        )
        conditional = ConditionalWrites(self.backend, self.conditional_writes)
        accounts: Accounts = NullAccounts(self.sidecars)
        if self.ledger is not None:
            books = Books(self.backend, self.sidecars, self.attributes.tails, conditional)
            accounts = LedgerAccounts(self.ledger, books)
        self.writer = ObjectWriter(self.sidecars, self.attributes, conditional, accounts)
        self.sizer = Sizer(self.backend, self.attributes, self.heads)

    async def close(self) -> None:
        await self.sidecars.close()
        self.frames.close()

    def source(self, key: str, **options: object) -> Source:
        return replace(Source(self.backend, (BUCKET, key)), **options)  # type: ignore[arg-type]

    async def encode(self, data: bytes, *, known: bool = True) -> EncodedObject:
        digests = Digests(DIGESTS)
        if known and len(data) <= SMALL_BODY:
            digests.update(data)
            return encode_small(data, digests, self.dispatcher, self.codecs)
        length = len(data) if known else None
        writer = ObjectEncoder(self.workshop, self.dispatcher, digests, length)
        try:
            for start in range(0, len(data), MIB):
                await writer.feed(data[start : start + MIB])
            return await writer.finish()
        finally:
            writer.close()

    async def put(self, key: str, data: bytes, *, known: bool = True) -> EncodedObject:
        encoded = await self.encode(data, known=known)
        try:
            await self.writer.store(self.backend, (BUCKET, key), encoded, [])
        finally:
            encoded.close()
        return encoded

    async def get(self, key: str) -> bytes:
        return await drained(await self.reader.open_whole(self.source(key)))

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        data, _ = await self.ranged(key, start, end)
        return data

    async def ranged(self, key: str, start: int, end: int) -> tuple[bytes, str | None]:
        """The bytes, and the fallback the read was answered with."""
        attributes = await self.reader.attributes(self.source(key))
        return await self.ranged_of(attributes, key, start, end)

    async def ranged_of(
        self, attributes: Attributes, key: str, start: int, end: int
    ) -> tuple[bytes, str | None]:
        opened = await self.reader.open_range(self.source(key), attributes, start, end)
        assert (opened.start, opened.end) == (start, end)
        return await drained(opened), opened.fallback


async def drained(opened: OpenObject) -> bytes:
    """All of an open object, which is closed in every path."""
    try:
        if isinstance(opened.content, bytes):
            return opened.content
        return b"".join([piece async for piece in opened.content])
    finally:
        await opened.aclose()


@dataclass(frozen=True)
class Framed:
    """A framed body, where its frames stand, and what they decode to."""

    plain: bytes
    stored: bytes
    entries: tuple[FrameEntry, ...]

    @property
    def index(self) -> FrameIndex:
        return FrameIndex.from_entries(self.entries, total_padded=len(self.stored))

    @property
    def metadata(self) -> dict[str, str]:
        return manifest(self.plain, self.stored, framed=True).to_metadata()

    @property
    def frames(self) -> list[bytes]:
        return [
            self.stored[each.compressed_offset : each.compressed_offset + each.compressed_size]
            for each in self.entries
        ]


def framed(
    chunks: Iterable[bytes],
    codecs: Sequence[CodecId] = (CodecId.CPU_ZSTD,),
    padding: Sequence[int] = (),
) -> Framed:
    """A body of one frame for each chunk, codecs taken in turn, a padding frame before some."""
    plain, stored, entries = bytearray(), bytearray(), []
    for number, chunk in enumerate(chunks):
        if padding and padding[number % len(padding)] >= 0:
            stored += frame.padding(padding[number % len(padding)])
        one = (
            b"".join(
                encoder.encode_body(chunk, CODECS.get(codecs[number % len(codecs)]), 1 << 40).frames
            )
            or frame.FrameHeader(CodecId.PASSTHROUGH, 0, 0, 0).pack()
        )
        entries.append(FrameEntry(len(plain), len(chunk), len(stored), len(one)))
        plain += chunk
        stored += one
    return Framed(bytes(plain), bytes(stored), tuple(entries))


def cut(data: bytes, size: int) -> list[bytes]:
    """`data` in chunks of `size` bytes, the last one shorter."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def manifest(plain: bytes, stored: bytes, **fields: object) -> Manifest:
    """What a writer of `plain` would say about it."""
    values: dict[str, object] = {
        "codec": CodecId.CPU_ZSTD,
        "original_size": len(plain),
        "compressed_size": len(stored),
        "crc32c": crc32c(plain),
        "logical_etag": hashlib.md5(plain).hexdigest(),
        **fields,
    }
    return Manifest(**values)  # type: ignore[arg-type]


def put_stored(
    store: MemoryBackend,
    key: str,
    stored: bytes,
    metadata: dict[str, str] | None = None,
    *,
    etag: str | None = None,
) -> str:
    """Lay an object into the store as it is; returns its ETag."""
    etag = hashlib.md5(stored).hexdigest() if etag is None else etag
    headers = tuple((f"x-amz-meta-{name}", text) for name, text in (metadata or {}).items())
    store.buckets[BUCKET][key] = StoredObject(stored, headers, etag, EPOCH)
    return etag


def put_indexed(
    store: MemoryBackend, key: str, body: Framed, metadata: dict[str, str] | None = None
) -> str:
    """Lay a framed object and its sidecar into the store; returns the object's ETag."""
    etag = put_stored(store, key, body.stored, body.metadata if metadata is None else metadata)
    put_sidecar(store, key, body.index.bind(etag, len(body.stored)).encode())
    return etag


def put_sidecar(store: MemoryBackend, key: str, data: bytes) -> None:
    put_stored(store, keys.sidecar_key(key), data)


def stored_bytes(store: MemoryBackend, key: str) -> bytes:
    return store.buckets[BUCKET][key].data


def open_files() -> int:
    """Files without a name that this process has open; other tests' threads open no such."""
    return sum(_has_no_name(each) for each in Path("/proc/self/fd").iterdir())


def _has_no_name(descriptor: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # closed since it was listed
        return str(descriptor.readlink()).endswith(" (deleted)")
    return False


async def settled(files: int) -> None:
    """Wait until threads have let go of what was cancelled: no task, and `files` descriptors."""
    for _ in range(6000):
        if open_files() == files and len(asyncio.all_tasks()) == 1:
            return
        await asyncio.sleep(0.01)
    assert open_files() == files
    assert asyncio.all_tasks() == {asyncio.current_task()}


def decoder_of(header: frame.FrameHeader) -> decoder.FrameDecoder:
    return decoder.FrameDecoder(header, CODECS.get(header.codec))
