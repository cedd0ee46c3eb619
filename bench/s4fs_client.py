"""Reads one object through the filesystem and by its parts; started by `bench.s4fs`.

Runs under the interpreter of `.venv-s3fs`. Each repetition takes, in turn, the wall time of reading
the object through `s4://`, of fetching its stored bytes with s3fs, and of decoding the frames that
came, one after the other, with zstandard alone and no checksum: once into bytes that are kept, as a
reader keeps them, and once into a small buffer that is used again, which spares the machine the
memory. The result goes to stdout as JSON.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import s3fs
import zstandard

from bench import corpus
from s4gateway.s4fs import S4FileSystem

PATH = "bench-s4fs/log"


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


def main() -> None:
    """Store the log through the gateway, then read it back again and again."""
    size, repetitions, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    body = corpus.kept_log_text(folder, size)
    store, gateway = _at(os.environ["BENCH_STORE"]), _at(os.environ["BENCH_GATEWAY"])
    store.mkdir("bench-s4fs")
    gateway.pipe_file(PATH, body, chunksize=size + 1, ContentType="application/zstd")
    fs = S4FileSystem(fs=store, skip_instance_cache=True)
    stored = store.cat_file(PATH)
    frames = corpus.stored_frames(stored)
    if fs.cat_file(PATH) != body:
        raise SystemExit("the filesystem read other bytes")
    del body
    walls: dict[str, list[float]] = {"s4fs": [], "fetch": [], "decode": [], "discard": []}
    most = corpus.chunk_size(size)
    for _ in range(repetitions):
        walls["s4fs"].append(_wall(lambda: fs.cat_file(PATH)))
        walls["fetch"].append(_wall(lambda: store.cat_file(PATH)))
        walls["decode"].append(_wall(lambda: _decoded(frames, most)))
        walls["discard"].append(_wall(lambda: corpus.decoding_cost(frames, size)))
    medians = {name: statistics.median(found) for name, found in walls.items()}
    sys.stdout.write(json.dumps({"stored": len(stored), **medians}) + "\n")


if __name__ == "__main__":
    main()
