"""Reads one object through the filesystem and by its parts; started by `bench.s4fs`.

Runs under the interpreter of `.venv-s3fs`. Each repetition takes the wall time of five pieces of
work, in the other direction every second time, and the first repetition does not count:

    whole    the object through `s4://`, into bytes that are kept
    pieces   the object through an open file of `s4://`, into one buffer that is used again
    fetch    its stored bytes with s3fs, by the same client
    keep     the frames that came decoded with zstandard alone, one after the other and with no
             checksum, into bytes that are kept
    discard  the same into one buffer that is used again, which spares the machine the memory

The result goes to stdout as JSON: seconds by name, in the order of the repetitions.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import s3fs
import zstandard

from bench import corpus
from s4gateway.s4fs import S4FileSystem

PATH = "bench-s4fs/log"
PIECE = 4 * corpus.MIB


def _at(url: str) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(
        key=os.environ["BENCH_ACCESS"],
        secret=os.environ["BENCH_SECRET"],
        endpoint_url=url,
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def _wall(work: Callable[[], object]) -> float:
    time.sleep(0.3)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _decoded(frames: Sequence[bytes], most: int) -> list[bytes]:
    decompressor = zstandard.ZstdDecompressor()
    return [decompressor.decompress(frame, max_output_size=most) for frame in frames]


def _in_pieces(fs: S4FileSystem, use: Callable[[memoryview], object]) -> None:
    into = memoryview(bytearray(PIECE))
    with fs.open(PATH) as file:
        while count := file.readinto(into):
            use(into[:count])


def _verified(fs: S4FileSystem, frames: Sequence[bytes], most: int, body: bytes) -> bool:
    """Whether all ways of reading give the same bytes."""
    read = hashlib.sha256()
    _in_pieces(fs, read.update)
    return (
        fs.cat_file(PATH) == body
        and read.digest() == hashlib.sha256(body).digest()
        and b"".join(_decoded(frames, most)) == body
    )


def main() -> None:
    """Store the log through the gateway, then read it back again and again."""
    size, repetitions, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    body = corpus.kept_log_text(folder, size)
    store, gateway = _at(os.environ["BENCH_STORE"]), _at(os.environ["BENCH_GATEWAY"])
    store.mkdir("bench-s4fs")
    gateway.pipe_file(PATH, body, chunksize=size + 1, ContentType="application/zstd")
    fs = S4FileSystem(fs=store, skip_instance_cache=True)
    stored = store.cat_file(PATH)
    frames, most = corpus.stored_frames(stored), corpus.chunk_size(size)
    if not _verified(fs, frames, most, body):
        raise SystemExit("the filesystem read other bytes")
    del body
    works: dict[str, Callable[[], object]] = {
        "whole": lambda: fs.cat_file(PATH),
        "pieces": lambda: _in_pieces(fs, len),
        "fetch": lambda: store.cat_file(PATH),
        "keep": lambda: _decoded(frames, most),
        "discard": lambda: corpus.decoding_cost(frames, size),
    }
    walls: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repetitions + 1):
        for name in works if number % 2 else reversed(works):
            wall = _wall(works[name])
            if number:
                walls[name].append(wall)
    sys.stdout.write(json.dumps({"stored": len(stored), "walls": walls}) + "\n")


if __name__ == "__main__":
    main()
