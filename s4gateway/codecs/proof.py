"""Frames that are read again where they were made, before anybody relies on them.

    chunk ── compress ── the frame's bytes ── CRC-32C of them ── decode them ── compare
      └──────────────────────────────────────────────────────────────────────────┘

Rule: a frame leaves `finish` only when its very bytes, header included, decode to the chunk that
was fed, byte for byte, by the functions that every reader uses. The CRC-32C that goes with it was
taken before they were decoded, so whoever finds the same CRC-32C later holds what was proven. On
the thread that made the frame its chunk is still in the cache, and no other thread has to be
waited for. It is for writers that replace what they read; one that is given the original by a
client, who keeps it until the answer comes, does not need it.
"""

from collections import deque
from dataclasses import replace
from typing import Final

from s4gateway.codecs import base, decoder, registry
from s4gateway.codecs.encoder import EncodedFrame, FrameEncoder
from s4gateway.wire import frame
from s4gateway.wire.crc32c import crc32c as checksum
from s4gateway.wire.errors import WireError

_ROOMS: Final = 8  # kept for the next frames; as many are in use as there are threads


class Unproven(base.CodecError):
    """A frame does not decode to what it was made of; its code is "unproven"."""

    def __init__(self, detail: str) -> None:
        super().__init__("unproven", detail)


class Prover:
    """Makes encoders whose frames are proven; shared between threads.

    >>> from s4gateway.codecs.registry import Registry
    >>> codecs = Registry()
    >>> encoder = Prover(codecs)(codecs.get(frame.CodecId.CPU_ZSTD))
    >>> encoder.feed(b"a" * 500)
    >>> made = encoder.finish()
    >>> made.crc32c == checksum(b"".join(made.pieces()))
    True
    """

    __slots__ = ("_codecs", "_rooms")

    def __init__(self, codecs: registry.Registry) -> None:
        self._codecs = codecs
        # Fresh memory for every frame would cost as much as a quarter of the decoding.
        self._rooms: deque[bytearray] = deque(maxlen=_ROOMS)

    def __call__(self, codec: base.Codec) -> FrameEncoder:
        """Begin a frame."""
        return _ProvingEncoder(codec, self)

    def prove(self, stored: bytes, chunk: list[base.Buffer]) -> None:
        """Decode the bytes of one frame and compare them with `chunk`; raises Unproven."""
        try:
            ((_, header, payload),) = frame.walk(stored)
            room = self._room(header.original_size)
            out = memoryview(room)[: header.original_size]
            decoder.decode_frame_into(header, payload, out, self._codecs)
        except (ValueError, WireError, base.CodecError) as error:
            raise Unproven(str(error)) from error
        position = 0
        for piece in chunk:
            if not room.startswith(piece, position):
                raise Unproven(f"other bytes come out behind {position}")
            position += len(piece)
        if position != header.original_size:
            raise Unproven(f"{header.original_size} bytes come out, {position} went in")
        self._rooms.append(room)

    def _room(self, size: int) -> bytearray:
        try:
            room = self._rooms.pop()
        except IndexError:
            room = bytearray()
        return room if len(room) >= size else bytearray(size)


class _ProvingEncoder(FrameEncoder):
    """Holds its chunk until the frame is proven."""

    __slots__ = ("_chunk", "_prover")

    def __init__(self, codec: base.Codec, prover: Prover) -> None:
        super().__init__(codec)
        self._prover = prover
        self._chunk: list[base.Buffer] = []

    def feed(self, data: base.Buffer) -> None:
        self._chunk.append(data)
        super().feed(data)

    def finish(self) -> EncodedFrame:
        made = super().finish()
        stored = b"".join(made.pieces())
        crc32c = checksum(stored)
        chunk, self._chunk = self._chunk, []
        self._prover.prove(stored, chunk)
        return replace(made, crc32c=crc32c)
