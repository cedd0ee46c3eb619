"""A whole object from its first byte to its last, verified, needing no index.

Stored bytes are fetched a few requests ahead, frames decoded beside each other and yielded in
order. Rule: a frame is yielded only after its CRC-32C was checked, and the end is reached only when
length and checksum of everything agree, so frames that are missing, repeated or out of order never
make a complete answer. One payload without frames is verified at its end, and what was yielded
before is to be thrown away when that fails.
"""

import io
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Final

from s4gateway.codecs.base import Buffer, CodecError
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.s4fs import threads
from s4gateway.s4fs.attributes import Attributes
from s4gateway.s4fs.content import payload_decoder
from s4gateway.s4fs.errors import S4EncryptedObjectError, damaged
from s4gateway.s4fs.plain import (
    LargePayload,
    Plain,
    decode,
    decode_into,
    is_large,
    large_frame,
    steps,
)
from s4gateway.s4fs.store import Head, Store
from s4gateway.wire import envelope, frame
from s4gateway.wire.crc32c import combine, crc32c
from s4gateway.wire.errors import WireError
from s4gateway.wire.manifest import Form
from s4gateway.wire.scanner import FrameEnd, FrameScanner, FrameStart

FIRST: Final = 8 * 1024 * 1024  # stored bytes read by the request that looks at the object, too
_PIECE: Final = 8 * 1024 * 1024
_AHEAD: Final = 3  # requests under way beside the one waited for
_DECODED_AHEAD: Final = 64 * 1024 * 1024  # original bytes of frames being decoded or waiting


def read_whole(
    store: Store, attributes: Attributes, first: bytes, dictionary: ZstdDict | None
) -> Iterator[bytes]:
    """Yield the original of an object whose `first` stored bytes are at hand."""
    form, path = attributes.stored.form, attributes.path
    stored = _stored(store, attributes.head, first)
    if form is Form.FOREIGN:
        return stored
    if form is Form.PASSTHROUGH:
        return _checked(stored, attributes)
    if form is Form.UNFRAMED:
        return _payload(stored, attributes)
    if (magic := envelope.recognise(first)) is not None:
        raise S4EncryptedObjectError(path, magic)
    return _Frames(attributes, dictionary).read(stored)


def _stored(store: Store, head: Head, first: bytes) -> Iterator[bytes]:
    if first:
        yield first
    starts = range(len(first), head.size, _PIECE)
    yield from threads.in_order(
        (partial(store.read, head, low, min(low + _PIECE, head.size)) for low in starts), _AHEAD
    )


def _checked(stored: Iterable[bytes], attributes: Attributes) -> Iterator[bytes]:
    """Bytes stored as they came; the last piece is held back until the checksum is known."""
    held, crc, length = b"", 0, 0
    for piece in stored:
        length += len(piece)
        crc = crc32c(piece, crc)
        if held:
            yield held
        held = piece
    _check(attributes, length, crc)
    if held:
        yield held


def _check(attributes: Attributes, length: int, crc: int) -> None:
    if attributes.size not in {None, length}:
        detail = f"{length} of {attributes.size} bytes came out"
        raise damaged(CodecError("size-mismatch", detail), attributes.path)
    if attributes.crc32c not in {None, crc}:
        detail = f"CRC-32C is {crc:08x}, not {attributes.crc32c:08x}"
        raise damaged(CodecError("crc-mismatch", detail), attributes.path)


def _payload(stored: Iterable[bytes], attributes: Attributes) -> Iterator[bytes]:
    manifest = attributes.stored.manifest
    assert manifest is not None
    try:
        payload = payload_decoder(manifest)
        for piece in stored:
            for pieces in steps(payload, manifest.codec, piece):
                yield from pieces
        payload.finish()
    except CodecError as error:
        raise damaged(error, attributes.path) from error


# The plaintext of a frame that comes next: at hand or on its way, and how many bytes it will be.
_Coming = tuple[frame.FrameHeader, "Future[list[bytes]] | Iterator[bytes]"]


def read_into_one(
    store: Store, attributes: Attributes, first: bytes, dictionary: ZstdDict | None
) -> bytes:
    """Return the original of an object of frames whose size is known, decoded where it belongs.

    Each frame is decoded into its place, so nothing is copied or joined.
    """
    if (magic := envelope.recognise(first)) is not None:
        raise S4EncryptedObjectError(attributes.path, magic)
    room = io.BytesIO(bytes(attributes.shown_size))
    with room.getbuffer() as out:
        for _ in _Placed(attributes, dictionary, out).read(_stored(store, attributes.head, first)):
            pass
    return room.getvalue()


class _Frames:
    """Frames gathered from stored bytes and decoded beside each other."""

    def __init__(self, attributes: Attributes, dictionary: ZstdDict | None) -> None:
        self._attributes = attributes
        self._dictionary = dictionary
        self._coming: deque[_Coming] = deque()
        self._waiting = 0  # original bytes of what is coming
        self._payload: list[Buffer] = []
        self._large: LargePayload | None = None

    def read(self, stored: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the original."""
        size = self._attributes.size
        most = frame.MAX_FRAME_ORIGINAL if size is None else min(size, frame.MAX_FRAME_ORIGINAL)
        scanner = FrameScanner(max_frame_original=most)
        length = crc = 0
        try:
            for header, plain in self._decoded(self._scan(scanner, stored)):
                length += header.original_size
                crc = combine(crc, header.crc32c, header.original_size)
                yield from plain
        except (WireError, CodecError) as error:
            raise damaged(error, self._attributes.path) from error
        finally:
            self._close()
        _check(self._attributes, length, crc)

    def _decoded(
        self, frames: Iterable[None]
    ) -> Iterator[tuple[frame.FrameHeader, Iterable[bytes]]]:
        for _ in frames:
            while self._waiting > _DECODED_AHEAD:
                yield self._next()
        while self._coming:
            yield self._next()

    def _next(self) -> tuple[frame.FrameHeader, Iterable[bytes]]:
        header, plain = self._coming.popleft()
        self._waiting -= header.original_size
        return header, plain.result() if isinstance(plain, Future) else plain

    def _scan(self, scanner: FrameScanner, stored: Iterable[bytes]) -> Iterator[None]:
        """Hand each frame over to be decoded; yields after each."""
        header: frame.FrameHeader | None = None
        for data in stored:
            for event in scanner.feed(data):
                if isinstance(event, FrameStart):
                    header = event.header
                    self._begin(header, scanner.total_original)
                elif isinstance(event, FrameEnd):
                    assert header is not None
                    self._end(header)
                    yield
                elif self._large is not None:
                    self._large.feed(event)
                else:
                    self._payload.append(event)
        scanner.close()

    def _begin(self, header: frame.FrameHeader, total: int) -> None:
        size = self._attributes.size
        if size is not None and total > size:
            detail = f"frames claim more than the {size} bytes of the object"
            raise CodecError("size-mismatch", detail)
        if is_large(header):
            self._large = large_frame(header, self._dictionary)

    def _end(self, header: frame.FrameHeader) -> None:
        self._waiting += header.original_size
        if self._large is not None:
            large, self._large = self._large, None
            try:
                plain = large.finish()
            finally:
                large.close()
            self._coming.append((header, self._placed(plain)))
            return
        payload, self._payload = self._payload, []
        self._coming.append((header, self._submit(header, payload)))

    def _placed(self, plain: Plain) -> Iterator[bytes]:
        return plain.pieces()

    def _submit(self, header: frame.FrameHeader, payload: list[Buffer]) -> Future[list[bytes]]:
        return threads.pool().submit(self._decode, header, payload)

    def _decode(self, header: frame.FrameHeader, payload: list[Buffer]) -> list[bytes]:
        whole = payload if len(payload) == 1 else [b"".join(payload)]
        return decode(header, whole, self._dictionary, self._attributes.path)

    def _close(self) -> None:
        if self._large is not None:
            self._large.close()
        threads.settle(plain for _, plain in self._coming if isinstance(plain, Future))


class _Placed(_Frames):
    """Frames decoded into their places in `out`; nothing of them is yielded."""

    def __init__(
        self, attributes: Attributes, dictionary: ZstdDict | None, out: memoryview
    ) -> None:
        super().__init__(attributes, dictionary)
        self._out = out
        self._position = 0

    def _take(self, size: int) -> memoryview:
        self._position += size
        return self._out[self._position - size : self._position]

    def _placed(self, plain: Plain) -> Iterator[bytes]:
        for piece in plain.pieces():
            self._take(len(piece))[:] = piece
        return iter(())

    def _submit(self, header: frame.FrameHeader, payload: list[Buffer]) -> Future[list[bytes]]:
        place = self._take(header.original_size)
        return threads.pool().submit(self._decode_into, header, payload, place)

    def _decode_into(
        self, header: frame.FrameHeader, payload: list[Buffer], place: memoryview
    ) -> list[bytes]:
        whole = payload[0] if len(payload) == 1 else b"".join(payload)
        with place:
            decode_into(header, whole, place, self._dictionary, self._attributes.path)
        return []
