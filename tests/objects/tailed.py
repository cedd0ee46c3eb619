"""Objects assembled from parts, as they lie in the store: frames, padding, a tail behind them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from s4gateway.backend.memory import MemoryBackend
from s4gateway.s3 import etag
from s4gateway.wire import frame, manifest
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.index import FrameEntry, FrameIndex
from s4gateway.wire.tail import Tail
from tests.objects import world

TOKEN = "a1b2c3d4e5f60718"
METADATA = manifest.multipart_metadata(CodecId.CPU_ZSTD, tail=TOKEN)


@dataclass(frozen=True)
class Tailed:
    """A multipart object: what clients see, what is stored, and where its frames stand."""

    plain: bytes
    frames: bytes
    entries: tuple[FrameEntry, ...]
    tail: Tail

    @property
    def stored(self) -> bytes:
        return self.frames + self.tail.encode()

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Where each part stands in the original."""
        found, start = [], 0
        for _, size in self.tail.parts:
            found.append((start, start + size))
            start += size
        return found


def tailed(
    parts: Sequence[bytes],
    *,
    frame_size: int = 1000,
    padding: int = 0,
    numbers: Sequence[int] = (),
    codecs: Sequence[CodecId] = (CodecId.CPU_ZSTD,),
    **fields: object,
) -> Tailed:
    """Each part in frames of its own, and behind each but the last as much padding."""
    stored, entries, original = bytearray(), [], 0
    for position, part in enumerate(parts):
        body = world.framed(world.cut(part, frame_size) or [b""], codecs)
        entries += [
            FrameEntry(
                original + each.original_offset,
                each.original_size,
                len(stored) + each.compressed_offset,
                each.compressed_size,
            )
            for each in body.entries
        ]
        stored += body.stored
        original += len(part)
        if padding and position < len(parts) - 1:
            stored += frame.padding(padding)
    numbered = zip(numbers or range(1, len(parts) + 1), map(len, parts), strict=True)
    composite = etag.composite(hashlib.md5(part).hexdigest() for part in parts)
    tail = Tail(TOKEN, composite, original, tuple(numbered), **fields)  # type: ignore[arg-type]
    return Tailed(b"".join(parts), bytes(stored), tuple(entries), tail)


def put_tailed(
    store: MemoryBackend,
    key: str,
    body: Tailed,
    *,
    stored: bytes | None = None,
    token: str = TOKEN,
    indexed: bool = True,
) -> str:
    """Lay it into the store, by default with its sidecar; returns its backend ETag."""
    data = body.stored if stored is None else stored
    backend_etag = f"{hashlib.md5(data).hexdigest()}-3"
    metadata = METADATA | {manifest.TAIL: token}
    world.put_stored(store, key, data, metadata, etag=backend_etag)
    if indexed:
        index = FrameIndex.from_entries(body.entries, total_padded=len(body.frames))
        world.put_sidecar(store, key, index.bind(backend_etag, len(data)).encode())
    return backend_etag
