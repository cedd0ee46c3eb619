"""One body on its way into storage: sampled, framed, compressed and digested while it arrives.

    feed ──┬── digest lane: MD5, CRC-32C, what the client declared
           └── frame lanes: one compressor per frame, working beside each other
                  └── in order ──> spool

Rule: a client's bytes are held only until both lanes have seen them. How far compression may lag
behind the client is a window: its base is the request's share of the byte budget, and only extra
budget widens it far enough for the next frame to start before the previous one is done.

A body that does not shrink is stored as it came. Inside a framed body each frame is sampled again,
so that random data behind a compressible head costs no compression; what still comes out larger
than it went in is stored as a passthrough frame.
"""

import asyncio
import base64
import hashlib
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from s4gateway.backend.base import Body
from s4gateway.codecs import decoder
from s4gateway.codecs import dispatcher as dispatching
from s4gateway.codecs import encoder as framing
from s4gateway.codecs.registry import Registry
from s4gateway.objects.budget import ByteBudget
from s4gateway.objects.lanes import Lane, Lanes
from s4gateway.objects.spool import Spool
from s4gateway.objects.unnamed_file import Piece
from s4gateway.s3.checksums import Digests
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.index import FrameEntry, FrameIndex
from s4gateway.wire.manifest import Manifest

SMALL_BODY: Final = 64 * 1024  # coded inline: a thread hop costs more than the work
_BASE_WINDOW: Final = 2 * 1024 * 1024
_WINDOW_STEP: Final = 4 * 1024 * 1024
_SPOOL_PIECE: Final = 1024 * 1024

# Digests every stored object needs: its ETag and the checksum in its manifest.
DIGESTS: Final = ("md5", "crc32c")


@dataclass(frozen=True, slots=True)
class Workshop:
    """What coding a body needs from the process: threads, memory, a place for files."""

    lanes: Lanes
    budget: ByteBudget
    codecs: Registry
    spool_directory: Path | None = None


@dataclass(frozen=True, slots=True)
class EncodedObject:
    """A body ready to be stored, with everything its metadata will say.

    `index` is None where no sidecar is due: one frame, or a body stored as it came. Close it when
    it has been stored or given up.
    """

    body: Body
    manifest: Manifest
    index: FrameIndex | None
    spool: Spool | None = None

    @property
    def stored_size(self) -> int:
        """Bytes the backend will hold."""
        return self.body.length

    def with_checksum(self, checksum: tuple[str, str] | None) -> "EncodedObject":
        """Return this object with the checksum a client declared, to be echoed on reads."""
        if checksum is None:
            return self
        return replace(self, manifest=replace(self.manifest, checksum=checksum))

    def close(self) -> None:
        """Drop the spooled bytes."""
        if self.spool is not None:
            self.spool.close()


def encode_small(
    data: bytes, digests: Digests, dispatcher: dispatching.Dispatcher, codecs: Registry
) -> EncodedObject:
    """Encode a body of up to SMALL_BODY bytes at once, on the calling thread.

    `digests` have seen `data`.
    """
    codec = dispatcher.pick(data[: dispatching.SAMPLE_SIZE])
    if codec is not CodecId.PASSTHROUGH:
        encoded = framing.encode_body(data, codecs.get(codec), framing.pick_chunk_size(len(data)))
        body = b"".join(encoded.frames)
        if len(body) < len(data):
            manifest = _manifest(codec, digests, len(data), len(body), framed=True)
            return EncodedObject(Body.of(body), manifest, None)
    manifest = _manifest(CodecId.PASSTHROUGH, digests, len(data), len(data), framed=False)
    return EncodedObject(Body.of(data), manifest, None)


def _manifest(
    codec: CodecId, digests: Digests, original_size: int, stored_size: int, *, framed: bool
) -> Manifest:
    return Manifest(
        codec=codec,
        original_size=original_size,
        compressed_size=stored_size,
        crc32c=digests.crc("crc32c"),
        framed=framed,
        logical_etag=digests["md5"].hex(),
    )


class _Frame:
    """One frame being compressed on a lane of its own."""

    __slots__ = ("_encoder", "encoded", "lane", "size")

    def __init__(self, workshop: Workshop, codec: CodecId, owner: "ObjectEncoder") -> None:
        self._encoder = framing.FrameEncoder(workshop.codecs.get(codec))
        self.encoded: framing.EncodedFrame | None = None
        self.size = 0
        self.lane = Lane(workshop.lanes.codec, self._encoder.feed, owner.coded, self._finish)

    def _finish(self) -> None:
        self.encoded = self._encoder.finish()


class ObjectEncoder:
    """Feed plaintext in any pieces, then `finish`; `close` in every path.

    `content_length` (bytes of plaintext) chooses the frame size and may be None. Raises
    S3Error("SlowDown") when the byte budget has no share left.
    """

    def __init__(
        self,
        workshop: Workshop,
        dispatcher: dispatching.Dispatcher,
        digests: Digests,
        content_length: int | None,
    ) -> None:
        self._workshop = workshop
        self._dispatcher = dispatcher
        self._digests = digests
        self._chunk_size = framing.pick_chunk_size(content_length)
        self._window = min(_BASE_WINDOW, max(content_length or _BASE_WINDOW, SMALL_BODY))
        self._reservation = workshop.budget.share(self._window)
        self._room = asyncio.Event()
        self._spool = Spool(workshop.lanes.disk, directory=workshop.spool_directory)
        self._stored_md5 = hashlib.md5(usedforsecurity=False)
        self._digest_lane = Lane(workshop.lanes.digest, digests.update, self._digested)
        self._head: list[memoryview] = []
        self._codec: CodecId | None = None
        self._current: _Frame | None = None
        self._frames: deque[_Frame] = deque()
        self._entries: list[FrameEntry] = []
        self._only_frame: framing.EncodedFrame | None = None
        self._unspooled: list[Piece] = []
        self._unspooled_size = 0
        self._fed = 0
        self._digest_done = 0
        self._coded_done = 0

    def coded(self, count: int) -> None:
        """`count` bytes went through a frame lane."""
        self._coded_done += count
        self._room.set()

    def _digested(self, count: int) -> None:
        self._digest_done += count
        self._room.set()

    async def feed(self, piece: Piece) -> None:
        """Take the next bytes of the body; returns when there is room for more."""
        view = memoryview(piece)
        if not view:
            return
        if self._codec is not None:
            await self._take(view)
            return
        self._head.append(view)
        if sum(map(len, self._head)) >= dispatching.SAMPLE_SIZE:
            await self._begin()

    async def _begin(self) -> None:
        """Pick the codec from the first bytes, then let them go their way."""
        head, self._head = self._head, []
        sample = b"".join(each[: dispatching.SAMPLE_SIZE] for each in head)
        self._codec = self._dispatcher.pick(sample[: dispatching.SAMPLE_SIZE])
        for view in head:
            await self._take(view)

    async def _take(self, view: memoryview) -> None:
        self._fed += len(view)
        self._digest_lane.push(view)
        if self._codec is CodecId.PASSTHROUGH:
            self._coded_done += len(view)
            self._unspooled.append(view)
            self._unspooled_size += len(view)
            if self._unspooled_size >= _SPOOL_PIECE:
                await self._spool_plain()
        else:
            self._into_frames(view)
            await self._collect()
        await self._wait_for_room()

    async def _spool_plain(self) -> None:
        pieces, self._unspooled, self._unspooled_size = self._unspooled, [], 0
        await self._spool.append(pieces)

    def _into_frames(self, view: memoryview) -> None:
        while view:
            frame = self._current
            if frame is None:
                frame = self._current = _Frame(self._workshop, self._pick_for_frame(view), self)
                self._frames.append(frame)
            part = view[: self._chunk_size - frame.size]
            view = view[len(part) :]
            frame.size += len(part)
            frame.lane.push(part)
            if frame.size == self._chunk_size:
                frame.lane.close()
                self._current = None

    def _pick_for_frame(self, view: memoryview) -> CodecId:
        assert self._codec is not None
        if not self._frames and not self._entries:
            return self._codec
        return self._dispatcher.pick(bytes(view[: dispatching.SAMPLE_SIZE]))

    async def _wait_for_room(self) -> None:
        widest = max(_BASE_WINDOW, 3 * self._chunk_size)
        while self._fed - min(self._digest_done, self._coded_done) > self._window:
            if self._window < widest and self._reservation.extend(_WINDOW_STEP):
                self._window += _WINDOW_STEP
                continue
            self._raise_failure()
            self._room.clear()
            await self._room.wait()

    def _raise_failure(self) -> None:
        """A lane that failed makes no more progress; waiting for it would be for ever."""
        for frame in self._frames:
            frame.lane.raise_failure()
        self._digest_lane.raise_failure()

    async def _collect(self) -> None:
        """Move finished frames, in order, from their lanes to the spool."""
        while self._frames and self._frames[0].lane.done:
            frame = self._frames.popleft()
            await frame.lane.finish()
            assert frame.encoded is not None
            if self._only_frame is not None:
                await self._spool_frame(self._only_frame)
                self._only_frame = None
            if not self._entries:
                self._only_frame = frame.encoded
                self._note(frame.encoded)
            else:
                self._note(frame.encoded)
                await self._spool_frame(frame.encoded)

    def _note(self, frame: framing.EncodedFrame) -> None:
        last = self._entries[-1] if self._entries else FrameEntry(0, 0, 0, 0)
        header = frame.header
        self._entries.append(
            FrameEntry(
                last.original_offset + last.original_size,
                header.original_size,
                last.compressed_offset + last.compressed_size,
                header.stored_size,
            )
        )

    async def _spool_frame(self, frame: framing.EncodedFrame) -> None:
        pieces: list[Piece] = [frame.header.pack(), *frame.payload]
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._workshop.lanes.digest, self._hash_stored, pieces)
        await self._spool.append(pieces)

    def _hash_stored(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self._stored_md5.update(piece)

    async def finish(self) -> EncodedObject:
        """Wait for the lanes and return what is to be stored."""
        if self._codec is None:
            await self._begin()
        await self._digest_lane.finish()
        if self._codec is CodecId.PASSTHROUGH:
            return await self._finish_plain()
        if self._current is not None:
            self._current.lane.close()
            self._current = None
        while self._frames:
            await self._frames[0].lane.finish()
            await self._collect()
        return await self._finish_framed()

    async def _finish_plain(self) -> EncodedObject:
        await self._spool_plain()
        return self._encoded(CodecId.PASSTHROUGH, self._digests["md5"], framed=False)

    async def _finish_framed(self) -> EncodedObject:
        only = self._only_frame
        if only is not None and only.stored_size >= only.header.original_size:
            await self._spool.append(await self._plaintext(only))
            return self._encoded(CodecId.PASSTHROUGH, self._digests["md5"], framed=False)
        if only is not None:
            await self._spool_frame(only)
        assert self._codec is not None
        return self._encoded(self._codec, self._stored_md5.digest(), framed=True)

    async def _plaintext(self, frame: framing.EncodedFrame) -> list[bytes]:
        """What a frame was made of, which shrank by less than its header takes."""
        if frame.header.codec is CodecId.PASSTHROUGH:
            return frame.payload
        loop = asyncio.get_running_loop()
        shop = self._workshop
        return await loop.run_in_executor(
            shop.lanes.codec, decoder.decode_frame, frame.header, frame.payload, shop.codecs
        )

    def _encoded(self, codec: CodecId, md5: bytes, *, framed: bool) -> EncodedObject:
        spool, self._spool = self._spool, Spool(self._workshop.lanes.disk)
        index = None
        if framed and len(self._entries) > 1:
            index = FrameIndex.from_entries(self._entries, total_padded=spool.length)
        manifest = _manifest(codec, self._digests, self._fed, spool.length, framed=framed)
        body = Body(spool.length, spool.read, md5=base64.b64encode(md5).decode())
        return EncodedObject(body, manifest, index, spool)

    def close(self) -> None:
        """Give up what is still under way and return the budget; harmless after `finish`."""
        self._digest_lane.abandon()
        for frame in self._frames:
            frame.lane.abandon()
        self._frames.clear()
        self._spool.close()
        self._reservation.release()
