"""zstd (RFC 8878): the codec of nearly every frame.

Compressed streams are those of libzstd's streaming API with no size pledged, no checksum and one
thread, which is what the format's other writers produce byte for byte; the CRC-32C in the frame
header stands in for zstd's own checksum.

Decompression keeps three promises the library does not make. Little is produced beyond the limit,
whatever sizes the stream claims: the frame grammar is followed ahead of libzstd, which gets its
input in portions that cannot become more than a MiB. A payload may be several zstd frames,
skippable ones included. It must end between two of them, which libzstd's streaming writer does not
tell and the grammar does.

A context costs more to make than a small body to compress, and serves one stream at a time. A
stream takes one from a free list and gives it back at its end; one that is abandoned or fails keeps
its context.
"""

import collections
from collections.abc import Callable
from typing import IO, Final, Generic, Protocol, TypeVar, cast

import zstandard

from s4gateway.codecs import base
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c

DEFAULT_LEVEL: Final = 3
MAX_LEVEL: Final = 22

# Level 22 writes windows this large; a frame that asks for more is refused.
MAX_WINDOW: Final = 128 * 1024**2

# What one free list may keep: contexts, and bytes in them (a context of level 22 has 874 MB). A
# process may have hundreds of dictionaries, each with contexts of its own.
_MAX_IDLE: Final = 8
_MAX_IDLE_WITH_DICTIONARY: Final = 2
_MAX_IDLE_BYTES: Final = 96 * 1024**2

# Output leaves libzstd in pieces of two blocks, so that threads change places less often.
_PIECE: Final = 256 * 1024
# Magic and a descriptor without content size, checksum and single segment; the first without a
# dictionary id, the others with one of 1, 2 or 4 bytes.
_USUAL_STARTS: Final = frozenset(b"\x28\xb5\x2f\xfd" + bytes([flag]) for flag in range(4))
_START: Final = 5
_PORTION_OUTPUT: Final = 1024 * 1024
# What is decoded into its place is checked by as much as a core's cache still holds.
_CHECKED: Final = 512 * 1024


class Zstd:
    """zstd at one level, clamped to 1..22, with an optional dictionary.

    >>> codec = Zstd(level=3)
    >>> compressor = codec.compressor()
    >>> stored = compressor.compress(b"a" * 1000) + compressor.flush()
    >>> len(stored), codec.decompressor(limit=1000).feed(stored) == [b"a" * 1000]
    (18, True)
    """

    __slots__ = ("_compressors", "_decompressors", "level")

    def __init__(
        self,
        level: int = DEFAULT_LEVEL,
        dictionary: zstandard.ZstdCompressionDict | None = None,
    ) -> None:
        self.level = min(max(level, 1), MAX_LEVEL)
        most = _MAX_IDLE if dictionary is None else _MAX_IDLE_WITH_DICTIONARY
        self._compressors = _Pool(
            lambda: zstandard.ZstdCompressor(level=self.level, dict_data=dictionary), most
        )
        self._decompressors = _Pool(
            lambda: zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=MAX_WINDOW),
            most,
        )

    @property
    def id(self) -> CodecId:
        """The number written into frame headers."""
        return CodecId.CPU_ZSTD

    def compressor(self) -> base.Compressor:
        """Open a stream that becomes one zstd frame."""
        return _ZstdCompressor(self._compressors)

    def decompressor(self, limit: int) -> base.Decompressor:
        """Open a stream of zstd frames of which at most `limit` bytes may come out."""
        return _ZstdDecompressor(self._decompressors, limit)

    def decode_whole(self, payload: base.Buffer, size: int) -> bytes | None:
        """Decode a payload at one go; None when it is not `size` bytes in the usual shape.

        The usual shape is one frame whose header states no content size, so that libzstd allocates
        no more than `size` whatever the payload claims. Everything else, every fault included, is
        left to `decompressor`.
        """
        if len(payload) <= _START or bytes(payload[:_START]) not in _USUAL_STARTS:
            return None
        context = self._decompressors.take()
        try:
            plain = context.decompress(payload, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError:
            return None
        finally:
            self._decompressors.give(context)
        return plain if len(plain) == size else None

    def decode_into(self, payload: base.Buffer, out: memoryview) -> int | None:
        """Decode a payload into exactly the room of `out`; return the CRC-32C of what came out.

        None when it is not that simple. Then `out` holds anything, and `decompressor` finds out
        what is wrong. What fits `out` is complete: the frame grammar says that no frame is cut off.
        """
        if len(payload) <= _START or bytes(payload[:_START]) not in _USUAL_STARTS:
            return None
        grammar = _Grammar()
        position = 0
        while position < len(payload):
            position = grammar.follow(payload, position)
        if not grammar.between_frames:
            return None
        context = self._decompressors.take()
        filled = crc = 0
        try:
            with context.stream_reader(payload, read_across_frames=True) as reader:
                while count := reader.readinto(piece := out[filled : filled + _CHECKED]):
                    crc = crc32c(piece[:count], crc)
                    filled += count
                is_whole = filled == len(out) and not reader.read(1)
        except zstandard.ZstdError:
            return None
        self._decompressors.give(context)
        return crc if is_whole else None


class _Context(Protocol):
    def memory_size(self) -> int: ...


_C = TypeVar("_C", bound=_Context)


class _Pool(Generic[_C]):
    """A free list of contexts. Both ends of a deque are safe between threads without a lock."""

    __slots__ = ("_create", "_idle")

    def __init__(self, create: Callable[[], _C], most: int = _MAX_IDLE) -> None:
        self._create = create
        self._idle: collections.deque[_C] = collections.deque(maxlen=most)

    def take(self) -> _C:
        try:
            return self._idle.pop()
        except IndexError:
            return self._create()

    def give(self, context: _C) -> None:
        if context.memory_size() * (len(self._idle) + 1) <= _MAX_IDLE_BYTES:
            self._idle.append(context)


class _ZstdCompressor:
    __slots__ = ("_context", "_pool", "_stream")

    def __init__(self, pool: _Pool[zstandard.ZstdCompressor]) -> None:
        self._pool = pool
        self._context = pool.take()
        self._stream = self._context.compressobj()

    def compress(self, data: base.Buffer, /) -> bytes:
        try:
            return self._stream.compress(data)
        except zstandard.ZstdError as error:
            raise base.CodecError("codec-io", str(error)) from error

    def flush(self) -> bytes:
        try:
            rest = self._stream.flush()
        except zstandard.ZstdError as error:
            raise base.CodecError("codec-io", str(error)) from error
        # A finished stream never touches its context again, whoever uses it now.
        self._pool.give(self._context)
        return rest


class _ZstdDecompressor:
    __slots__ = ("_context", "_grammar", "_limit", "_pool", "_sink", "_stream")

    def __init__(self, pool: _Pool[zstandard.ZstdDecompressor], limit: int) -> None:
        self._pool = pool
        self._context = pool.take()
        self._limit = limit
        self._sink = _Sink()
        self._grammar = _Grammar()
        self._stream: zstandard.ZstdDecompressionWriter | None = self._context.stream_writer(
            cast("IO[bytes]", self._sink), write_size=_PIECE
        )

    def feed(self, data: base.Buffer, /) -> list[bytes]:
        # Taken out, and put back when all went well: after an error the context is in mid-stream.
        stream, self._stream = self._stream, None
        if stream is None:
            raise base.CodecError("codec-io", "the stream has ended")
        position, end = 0, len(data)
        while position < end:
            stop = self._grammar.follow(data, position)
            portion = data if stop - position == end else memoryview(data)[position:stop]
            self._decode(stream, portion)
            position = stop
        self._stream = stream
        return self._sink.drain()

    def finish(self) -> None:
        if self._stream is None:
            raise base.CodecError("codec-io", "the stream has ended")
        self._stream = None
        self._pool.give(self._context)
        if not self._grammar.between_frames:
            raise base.CodecError("codec-io", "the zstd frame is cut off")

    def _decode(self, stream: zstandard.ZstdDecompressionWriter, portion: base.Buffer) -> None:
        try:
            stream.write(portion)
        except zstandard.ZstdError as error:
            self._sink.drain()
            raise base.CodecError("codec-io", str(error)) from error
        if self._sink.produced > self._limit:
            self._sink.drain()  # a traceback may be kept, and would keep what came out
            raise base.CodecError("bomb", f"more than {self._limit} bytes")


class _Sink:
    """Where libzstd's output goes. It never raises: the library leaks its buffer when it does."""

    __slots__ = ("_pieces", "produced")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.produced = 0

    def write(self, piece: bytes) -> None:
        self.produced += len(piece)
        self._pieces.append(piece)

    def drain(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces


_SKIPPABLE_MAGIC_END: Final = b"\x2a\x4d\x18"
_DICTIONARY_ID_SIZES: Final = (0, 1, 2, 4)
_CONTENT_SIZE_SIZES: Final = (0, 2, 4, 8)
_CHECKSUM_SIZE: Final = 4
_RAW: Final = 0
_RLE: Final = 1
_MAX_BLOCK: Final = 128 * 1024


class _Grammar:
    """The frame grammar of RFC 8878 section 3.1: where blocks and frames end, and no further.

    It judges nothing. Of bytes that are no zstd it makes something, and libzstd, which sees them
    next, refuses them.
    """

    __slots__ = ("_checksum", "_head", "_in_frame", "_need", "_output", "_skip")

    _FRAME_HEAD: Final = 5  # magic number and frame header descriptor
    _SKIPPABLE_HEAD: Final = 8
    _BLOCK_HEAD: Final = 3

    def __init__(self) -> None:
        self._in_frame = False
        self._head = b""  # what is there of the header to be read next
        self._need = self._FRAME_HEAD
        self._skip = 0  # bytes before it
        self._checksum = 0
        self._output = 0  # what can come out since the last stop, at most

    @property
    def between_frames(self) -> bool:
        return not (self._in_frame or self._head or self._skip)

    def follow(self, data: base.Buffer, position: int) -> int:
        """Follow `data` from `position` on; return where a portion for libzstd should stop."""
        end = len(data)
        while True:
            position += self._skip
            if position >= end:
                self._skip = position - end
                return end
            self._skip = 0
            stop = position + self._need - len(self._head)
            self._head += data[position:stop]
            if stop > end:
                return end
            position = stop
            if self._in_frame:
                self._block()
            else:
                self._frame()
            if self._output > _PORTION_OUTPUT:
                self._output = 0
                return position

    def _frame(self) -> None:
        head = self._head
        if head[1:4] == _SKIPPABLE_MAGIC_END:
            if self._need < self._SKIPPABLE_HEAD:
                self._need = self._SKIPPABLE_HEAD
                return
            self._next(int.from_bytes(head[4:], "little"), in_frame=False)
            return
        descriptor = head[4]
        single_segment = descriptor >> 5 & 1
        # A single segment has no window byte, but always a content size.
        content_size = _CONTENT_SIZE_SIZES[descriptor >> 6] or single_segment
        self._checksum = _CHECKSUM_SIZE * (descriptor >> 2 & 1)
        rest = 1 - single_segment + _DICTIONARY_ID_SIZES[descriptor & 3] + content_size
        self._next(rest, in_frame=True)

    def _block(self) -> None:
        head = int.from_bytes(self._head, "little")
        is_last, kind, size = head & 1, head >> 1 & 3, head >> 3
        stored = 1 if kind == _RLE else size
        self._output += size if kind in {_RAW, _RLE} else _MAX_BLOCK
        self._next(stored + self._checksum * is_last, in_frame=not is_last)

    def _next(self, skip: int, *, in_frame: bool) -> None:
        self._skip = skip
        self._in_frame = in_frame
        self._need = self._BLOCK_HEAD if in_frame else self._FRAME_HEAD
        self._head = b""
