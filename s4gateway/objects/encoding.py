"""One body on its way into storage: sampled, framed, compressed and digested while it arrives.

    feed ──┬── digest lane: MD5, CRC-32C, what the client declared
           └── frame lanes: one compressor per frame, working beside each other
                  └── in order ──> spool

Rule: a client's bytes are held only until both lanes have seen them. How far compression may lag
behind the client is a window: its base is the request's share of the byte budget, and only extra
budget widens it far enough for the next frame to start before the previous one is done.

A body that does not shrink is stored as it came, unless it is to be joined with others: a part is
always a sequence of frames. Inside a framed body each frame is sampled again, so that random data
behind a compressible head costs no compression; what still comes out larger than it went in is
stored as a passthrough frame.
"""

import asyncio
import base64
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from s4gateway.backend.base import Body
from s4gateway.codecs import base, decoder
from s4gateway.codecs import dispatcher as dispatching
from s4gateway.codecs import encoder as framing
from s4gateway.codecs.registry import Registry
from s4gateway.objects.budget import ByteBudget, Reservation
from s4gateway.objects.lanes import Lane, Lanes
from s4gateway.objects.spool import Spool
from s4gateway.objects.unnamed_file import Piece
from s4gateway.s3.checksums import Digests
from s4gateway.values import immutable
from s4gateway.wire import frame as wire_frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.index import FrameEntry, FrameIndex
from s4gateway.wire.manifest import Manifest

SMALL_BODY: Final = 64 * 1024  # coded inline: a thread hop costs more than the work
_BASE_WINDOW: Final = 2 * 1024 * 1024
_WINDOW_STEP: Final = 4 * 1024 * 1024
_SPOOL_PIECE: Final = 1024 * 1024

EMPTY_FRAME: Final = wire_frame.FrameHeader(CodecId.PASSTHROUGH, 0, 0, 0)
_ZEROS: Final = bytes(64 * 1024)

# A passthrough frame is held in memory until its checksum is known.
_PLAIN_FRAME: Final = framing.MEDIUM_CHUNK

# (original, stored) bytes -> bytes to pad the stored ones to.
Fit = Callable[[int, int], int]

# Digests every stored object needs: its ETag and the checksum in its manifest.
DIGESTS: Final = ("md5", "crc32c")


@dataclass(frozen=True, slots=True)
class Workshop:
    """What coding a body needs from the process: threads, memory, a place for files.

    `checksum` is an algorithm that the store wants of stored bytes, beside their MD5. `frames` and
    `spools` make what encodes a frame and what holds a body until its length is known.
    """

    lanes: Lanes
    budget: ByteBudget
    codecs: Registry
    spool_directory: Path | None = None
    checksum: str | None = None
    frames: Callable[[base.Codec], framing.FrameEncoder] = framing.FrameEncoder
    spools: type[Spool] = Spool


@immutable
class Tried:
    """How a dictionary did on one body; sizes in bytes, those of payloads without frame headers.

    `label` is the configured prefix the dictionary came by. `won` says that the object is stored
    with it, `plain` what it would have taken without.
    """

    label: str
    dict_id: str
    won: bool
    original: int
    with_dictionary: int
    plain: int


@immutable
class EncodedObject:
    """A body ready to be stored, with everything its metadata will say.

    `index` is None where no sidecar is due: one frame, or a body stored as it came. A part always
    has one. `memory` is held for a body of some size that is not spooled. A `bare` one is stored
    without its manifest, as anybody's object. `parts` are the sizes its body is uploaded in, where
    that matters. Close it when it has been stored or given up.
    """

    body: Body
    manifest: Manifest
    index: FrameIndex | None
    spool: Spool | None = None
    tried: Tried | None = None
    memory: Reservation | None = None
    bare: bool = False
    parts: tuple[int, ...] = ()

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
        """Drop the spooled bytes, give the memory back."""
        if self.spool is not None:
            self.spool.close()
        if self.memory is not None:
            self.memory.release()


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
            manifest = manifest_of(codec, digests, len(data), len(body), framed=True)
            return EncodedObject(Body.of(body), manifest, None)
    manifest = manifest_of(CodecId.PASSTHROUGH, digests, len(data), len(data), framed=False)
    return EncodedObject(Body.of(data), manifest, None)


def manifest_of(
    codec: CodecId, digests: Digests, original_size: int, stored_size: int, *, framed: bool
) -> Manifest:
    """The manifest of a body of which `digests` have seen the original; sizes in bytes.

    Without their MD5 it says no ETag.
    """
    return Manifest(
        codec=codec,
        original_size=original_size,
        compressed_size=stored_size,
        crc32c=digests.crc("crc32c"),
        framed=framed,
        logical_etag=digests["md5"].hex() if "md5" in digests else None,
    )


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


class _Frame:
    """One frame being compressed on a lane of its own."""

    __slots__ = ("_encoder", "encoded", "lane", "limit", "size")

    def __init__(
        self, workshop: Workshop, codec: CodecId, owner: "ObjectEncoder", limit: int
    ) -> None:
        self._encoder = workshop.frames(workshop.codecs.get(codec))
        self.encoded: framing.EncodedFrame | None = None
        self.size = 0
        self.limit = limit
        self.lane = Lane(workshop.lanes.codec, self._encoder.feed, owner.coded, self._finish)

    def _finish(self) -> None:
        self.encoded = self._encoder.finish()


class ObjectEncoder:
    """Feed plaintext in any pieces, then `finish`; `close` in every path.

    `content_length` (bytes of plaintext) chooses the frame size and may be None. `always_framed`
    makes frames of every body, also of one that does not shrink and of none. Raises
    S3Error("SlowDown") when the byte budget has no share left.
    """

    def __init__(
        self,
        workshop: Workshop,
        dispatcher: dispatching.Dispatcher,
        digests: Digests,
        content_length: int | None,
        *,
        always_framed: bool = False,
    ) -> None:
        self._workshop = workshop
        self._always_framed = always_framed
        self._dispatcher = dispatcher
        self._digests = digests
        self._chunk_size = framing.pick_chunk_size(content_length)
        self._window = min(_BASE_WINDOW, max(content_length or _BASE_WINDOW, SMALL_BODY))
        self._reservation = workshop.budget.share(self._window)
        self._room = asyncio.Event()
        self._spool = workshop.spools(workshop.lanes.disk, directory=workshop.spool_directory)
        self._stored = Digests(("md5" if workshop.checksum is None else workshop.checksum,))
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
        if self._is_plain:
            self._coded_done += len(view)
            self._unspooled.append(view)
            self._unspooled_size += len(view)
            if self._unspooled_size >= _SPOOL_PIECE:
                await self._spool_plain()
        else:
            self._into_frames(view)
            await self._collect()
        await self._wait_for_room()

    @property
    def _is_plain(self) -> bool:
        """The body is stored as it came."""
        return self._codec is CodecId.PASSTHROUGH and not self._always_framed

    async def _spool_plain(self) -> None:
        pieces, self._unspooled, self._unspooled_size = self._unspooled, [], 0
        if self._workshop.checksum is not None:  # else it is the MD5 of what came
            await self._digest(pieces)
        await self._spool.append(pieces)

    def _into_frames(self, view: memoryview) -> None:
        while view:
            frame = self._current
            if frame is None:
                frame = self._current = self._begin_frame(view)
                self._frames.append(frame)
            part = view[: frame.limit - frame.size]
            view = view[len(part) :]
            frame.size += len(part)
            frame.lane.push(part)
            if frame.size == frame.limit:
                frame.lane.close()
                self._current = None

    def _begin_frame(self, view: memoryview) -> _Frame:
        codec, limit = self._pick_for_frame(view), self._chunk_size
        if self._always_framed and codec is CodecId.PASSTHROUGH:
            limit = min(limit, _PLAIN_FRAME)
        return _Frame(self._workshop, codec, self, limit)

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
        pieces: list[Piece] = list(frame.pieces())
        await self._digest(pieces)
        await self._spool.append(pieces, frame.crc32c)

    async def _digest(self, pieces: list[Piece]) -> None:
        def update() -> None:
            for piece in pieces:
                self._stored.update(piece)

        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._workshop.lanes.digest, update)

    async def finish(self, fit: Fit | None = None, trailer: bytes = b"") -> EncodedObject:
        """Wait for the lanes and return what is to be stored; frames are padded as `fit` says.

        `trailer` is a padding frame that goes behind all others.
        """
        if self._codec is None:
            await self._begin()
        await self._digest_lane.finish()
        if self._is_plain:
            return await self._finish_plain()
        if self._current is not None:
            self._current.lane.close()
            self._current = None
        while self._frames:
            await self._frames[0].lane.finish()
            await self._collect()
        return await self._finish_framed(fit, trailer)

    async def _finish_plain(self) -> EncodedObject:
        await self._spool_plain()
        return self._encoded(CodecId.PASSTHROUGH, framed=False)

    async def _finish_framed(self, fit: Fit | None, trailer: bytes) -> EncodedObject:
        only = self._only_frame
        if self._always_framed and not self._entries:
            only = framing.EncodedFrame(EMPTY_FRAME, [])
            self._note(only)
        elif (
            only is not None
            and only.stored_size >= only.header.original_size
            and not self._always_framed
        ):
            self._unspooled = list(await self._plaintext(only))
            await self._spool_plain()
            return self._encoded(CodecId.PASSTHROUGH, framed=False)
        if only is not None:
            await self._spool_frame(only)
        if fit is not None:
            await self._pad(fit(self._fed, self._spool.length) - self._spool.length)
        if trailer:
            await self._digest([trailer])
            await self._spool.append([trailer])
        assert self._codec is not None
        return self._encoded(self._codec, framed=True)

    async def _pad(self, missing: int) -> None:
        """Append a padding frame of `missing` bytes, none when nothing is missing."""
        if missing <= 0:
            return
        filler = max(0, missing - wire_frame.PADDING_HEADER_SIZE)
        pieces: list[Piece] = [wire_frame.padding_header(filler)]
        pieces += [_ZEROS] * (filler // len(_ZEROS))
        pieces.append(_ZEROS[: filler % len(_ZEROS)])
        await self._digest(pieces)
        await self._spool.append(pieces)

    async def _plaintext(self, frame: framing.EncodedFrame) -> list[bytes]:
        """What a frame was made of, which shrank by less than its header takes."""
        if frame.header.codec is CodecId.PASSTHROUGH:
            return frame.payload
        loop = asyncio.get_running_loop()
        shop = self._workshop
        return await loop.run_in_executor(
            shop.lanes.codec, decoder.decode_frame, frame.header, frame.payload, shop.codecs
        )

    def _encoded(self, codec: CodecId, *, framed: bool) -> EncodedObject:
        spool, self._spool = self._spool, Spool(self._workshop.lanes.disk)
        index = None
        if framed and (len(self._entries) > 1 or self._always_framed):
            index = FrameIndex.from_entries(self._entries, total_padded=spool.length)
        manifest = manifest_of(codec, self._digests, self._fed, spool.length, framed=framed)
        stored = self._stored if framed else self._digests
        md5 = _base64(stored["md5"]) if "md5" in stored else None
        algorithm = self._workshop.checksum
        checksum = None if algorithm is None else (algorithm, _base64(self._stored[algorithm]))
        body = Body(spool.length, spool.read, md5=md5, checksum=checksum)
        return EncodedObject(body, manifest, index, spool)

    def close(self) -> None:
        """Give up what is still under way and return the budget; harmless after `finish`."""
        self._digest_lane.abandon()
        for frame in self._frames:
            frame.lane.abandon()
        self._frames.clear()
        self._spool.close()
        self._reservation.release()
