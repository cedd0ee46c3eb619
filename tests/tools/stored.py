"""Stored objects as inputs of offline tools: as a file, and as a pipe."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.tools.offline_input import StoredInput
from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c


@contextmanager
def as_file(data: bytes, folder: Path) -> Iterator[StoredInput]:
    path = folder / "stored"
    path.write_bytes(data)
    with path.open("rb") as file:
        yield StoredInput(file)


@contextmanager
def as_pipe(data: bytes, folder: Path) -> Iterator[StoredInput]:
    """A pipe that gives the bytes as they are asked for; whoever stops reading is left alone."""
    del folder
    reading, writing = os.pipe()

    def write() -> None:
        view = memoryview(data)
        try:
            with os.fdopen(writing, "wb", buffering=0) as sink:
                while view:
                    view = view[sink.write(view) :]
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reading, "rb") as file:
        yield StoredInput(file)
    thread.join()


AS = {"file": as_file, "pipe": as_pipe}


def dictionary_frame(dictionary: bytes, plain: bytes) -> bytes:
    """A frame that needs its dictionary."""
    compressor = ZstdDict(dictionary).compressor()
    payload = compressor.compress(plain) + compressor.flush()
    header = frame.FrameHeader(CodecId.CPU_ZSTD_DICT, len(plain), len(payload), crc32c(plain))
    return header.pack() + payload
