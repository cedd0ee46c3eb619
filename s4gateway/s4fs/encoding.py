"""One body on its way into storage: cut, compressed and digested while it is written.

Chunks are compressed beside each other and go in order into a spool, which is memory first and then
a file without a name; so a body of any length takes the memory of a few chunks, and its metadata is
complete before the first byte is sent. What comes out is what the gateway stores for the same bytes
in one PUT with the same codec.
"""

import hashlib
import tempfile
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import IO, Final, Literal, get_args

from s4gateway.codecs import dispatcher, encoder
from s4gateway.codecs.base import Buffer
from s4gateway.codecs.encoder import EncodedBody
from s4gateway.codecs.registry import Registry
from s4gateway.s4fs import threads
from s4gateway.s4fs.errors import S4WriteCodecError
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import combine, crc32c
from s4gateway.wire.index import FrameEntry, FrameIndex
from s4gateway.wire.manifest import Manifest

WriteCodec = Literal["cpu-zstd", "passthrough", "auto"]

_MEMORY: Final = 8 * 1024 * 1024  # bytes of a spool before it becomes a file
_AHEAD: Final = 2  # chunks being compressed beside the one being filled


def checked_codec(name: str) -> WriteCodec:
    """Return the codec of that name; S4WriteCodecError for one that is not written here."""
    for known in get_args(WriteCodec):
        if name == known:
            return name  # type: ignore[return-value]
    msg = f"write_codec={name!r} is not one of {', '.join(get_args(WriteCodec))}"
    raise S4WriteCodecError(msg, "the gateway writes the others, with --codec or a dictionary")


@dataclass(frozen=True, slots=True)
class Encoded:
    """What to store: `body` from its start on, `stored_size` bytes, with `metadata`.

    `index` is None where no sidecar is due. Close `body` when it was stored.
    """

    body: IO[bytes]
    stored_size: int
    original_size: int
    metadata: Mapping[str, str]
    index: FrameIndex | None


class BodyEncoder:
    """Feed a body in any pieces, then `finish`; `close` in every path.

    `length` in bytes chooses the frame size, None when nobody knows it yet. With "auto", a body
    whose first bytes look random is stored as it comes, and each later chunk is looked at again.
    """

    def __init__(self, codec: WriteCodec, level: int, length: int | None) -> None:
        self._codecs = Registry(level)
        self._codec = codec
        self._dispatcher = dispatcher.Dispatcher(
            CodecId.CPU_ZSTD, "sampling" if codec == "auto" else "always"
        )
        # As the gateway does: an empty body that was announced is stored without frames.
        self._is_plain = codec == "passthrough" or (codec == "auto" and length == 0)
        self._chunk_size = encoder.pick_chunk_size(length)
        self._chunk = bytearray()
        self._coding: deque[Future[EncodedBody]] = deque()
        self._spool: IO[bytes] | None = tempfile.SpooledTemporaryFile(_MEMORY)  # noqa: SIM115
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._entries: list[FrameEntry] = []
        self._crc = 0
        self._original = 0
        self._stored = 0

    def feed(self, data: Buffer) -> None:
        """Take the next bytes of the body."""
        view = memoryview(data).cast("B")
        while view:
            part = view[: self._chunk_size - len(self._chunk)]
            self._chunk += part
            view = view[len(part) :]
            if len(self._chunk) == self._chunk_size:
                self._cut()

    def _cut(self) -> None:
        """Send the chunk on its way."""
        chunk, self._chunk = bytes(self._chunk), bytearray()
        sample = chunk[: dispatcher.SAMPLE_SIZE]
        codec = self._dispatcher.pick(sample)
        if self._original == 0 and codec is CodecId.PASSTHROUGH:
            self._is_plain = True
        self._original += len(chunk)
        if self._is_plain:
            self._md5.update(chunk)
            self._crc = crc32c(chunk, self._crc)
            self._write(chunk)
            return
        work = threads.pool().submit(
            encoder.encode_body, chunk, self._codecs.get(codec), len(chunk)
        )
        self._coding.append(work)
        self._md5.update(chunk)
        while len(self._coding) > _AHEAD:
            self._collect()

    def _collect(self) -> None:
        """Move the oldest finished chunk into the spool."""
        encoded = self._coding.popleft().result()
        for header, data in zip(encoded.headers, encoded.frames, strict=True):
            last = self._entries[-1] if self._entries else FrameEntry(0, 0, 0, 0)
            self._entries.append(
                FrameEntry(
                    last.original_offset + last.original_size,
                    header.original_size,
                    self._stored,
                    header.stored_size,
                )
            )
            self._crc = combine(self._crc, header.crc32c, header.original_size)
            self._write(data)

    def _write(self, data: bytes) -> None:
        assert self._spool is not None
        self._spool.write(data)
        self._stored += len(data)

    def finish(self) -> Encoded:
        """Wait for what is under way; return what is to be stored."""
        if self._chunk:
            self._cut()
        while self._coding:
            self._collect()
        if self._codec == "auto" and len(self._entries) == 1 and self._stored >= self._original:
            self._unframe()
        index = None
        if len(self._entries) > 1:
            index = FrameIndex.from_entries(self._entries, total_padded=self._stored)
        manifest = Manifest(
            CodecId.PASSTHROUGH if self._is_plain else CodecId.CPU_ZSTD,
            self._original,
            self._stored,
            self._crc,
            framed=not self._is_plain,
            logical_etag=self._md5.hexdigest(),
        )
        body, self._spool = self._spool, None
        assert body is not None
        return Encoded(body, self._stored, self._original, manifest.to_metadata(), index)

    def _unframe(self) -> None:
        """Store a body of one frame that did not shrink as it came: it is the frame's payload."""
        assert self._spool is not None
        self._spool.seek(self._stored - self._original)
        data = self._spool.read()
        self._spool.seek(0)
        self._spool.truncate()
        self._entries, self._stored, self._is_plain = [], 0, True
        self._write(data)

    def close(self) -> None:
        """Give up what is under way; harmless after `finish`."""
        threads.settle(self._coding)
        self._coding.clear()
        if self._spool is not None:
            self._spool.close()
