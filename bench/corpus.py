"""The bytes the benchmark sends, and what coding them costs with no server at all.

Service logs from a seeded generator (zstd level 3 shrinks them about six times, as it does real
ones) and seeded random bytes. The in-memory costs are CPU seconds of this thread for the work no
gateway can avoid: one zstd frame per chunk, MD5 and CRC-32C on the way in, decoding on the way out.
Chunks follow the storage format: 4 MiB up to 100 MiB of body, 16 MiB above.
"""

import hashlib
import random
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard
from awscrt import checksums

MIB = 1 << 20
LEVEL = 3
_PIECE = 256 * 1024
# magic, codec, decoded bytes, payload bytes, CRC-32C of the decoded bytes
_FRAME_HEADER = struct.Struct("<4sIQQI")
_CPU_ZSTD = 1
_LINES_PER_BLOCK = 20_000

_LEVELS = ("INFO",) * 12 + ("DEBUG",) * 4 + ("WARN",) * 2 + ("ERROR",)
_SERVICES = ("billing", "checkout", "inventory", "search", "session", "shipping", "webhooks")
_VERBS = ("GET",) * 6 + ("POST",) * 3 + ("PUT", "DELETE")
_STATUS = (200,) * 14 + (201, 204, 304, 400, 404, 429, 500, 503)
_ROUTES = (
    "/v1/items/{n}",
    "/v1/accounts/{n}/orders",
    "/v2/search?q=term-{n}&page=1",
    "/internal/health",
    "/v1/carts/{n}/lines",
    "/static/app-{n}.js",
)
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Mobile/15E148",
    "okhttp/4.12.0",
    "python-requests/2.32.3",
    "kube-probe/1.30",
)
_NOTES = (
    "request done",
    "cache miss, loaded from primary",
    "retrying upstream after timeout",
    "slow query on orders_by_account",
    "rate limit bucket refilled",
    "token refreshed",
)


def _log_blocks(seed: int) -> Iterator[bytes]:
    """Blocks of log lines without end; the clock runs on, ids and durations are random."""
    source = random.Random(seed)
    bits, below = source.getrandbits, source.random
    millis = 0
    while True:
        lines = []
        for _ in range(_LINES_PER_BLOCK):
            r = bits(64)
            millis += r & 15
            second = millis // 1000
            route = _ROUTES[(r >> 8) % 6].format(n=(r >> 12) % 50_021)
            service = _SERVICES[(r >> 20) % 7]
            lines.append(
                f"2025-03-{second // 86400 % 28 + 1:02d}T{second // 3600 % 24:02d}:"
                f"{second // 60 % 60:02d}:{second % 60:02d}.{millis % 1000:03d}Z "
                f"{_LEVELS[(r >> 24) % 19]} {service} pod={service}-7c9d4f-{(r >> 28) % 12:02d} "
                f"req={r >> 32:08x} client=10.{(r >> 40) % 4}.{(r >> 44) % 32}.{(r >> 48) % 256} "
                f'"{_VERBS[(r >> 36) % 11]} {route}" status={_STATUS[(r >> 52) % 22]} '
                f"bytes={int(below() ** 3 * 90_000)} dur_ms={int(below() ** 4 * 900)} "
                f'ua="{_AGENTS[(r >> 56) % 5]}" msg="{_NOTES[(r >> 60) % 6]}"\n'
            )
        yield "".join(lines).encode()


def log_text(size: int, seed: int = 1) -> bytes:
    """`size` bytes of service log; the same for the same arguments on every machine."""
    body = bytearray()
    for block in _log_blocks(seed):
        body += block
        if len(body) >= size:
            break
    return bytes(memoryview(body)[:size])


def kept_log_text(folder: Path, size: int, seed: int = 1) -> bytes:
    """`log_text`, kept in `folder` because making 256 MiB takes some seconds of CPU."""
    path = folder / f"log-{size}-{seed}"
    if path.exists() and path.stat().st_size == size:
        return path.read_bytes()
    body = log_text(size, seed)
    part = path.with_suffix(".part")
    part.write_bytes(body)
    part.replace(path)
    return body


def random_bytes(size: int, seed: int = 1) -> bytes:
    """`size` bytes no codec can shrink."""
    source = random.Random(seed)
    blocks = [source.randbytes(MIB) for _ in range(-(-size // MIB))]
    return b"".join(blocks)[:size]


def chunk_size(body_size: int) -> int:
    """Bytes of one frame for a body of known length."""
    return MIB if body_size <= MIB else 4 * MIB if body_size <= 100 * MIB else 16 * MIB


@dataclass(frozen=True, slots=True)
class CodingCost:
    """CPU seconds for one whole body."""

    zstd: float
    md5: float
    crc32c: float

    @property
    def total(self) -> float:
        """zstd, MD5 and CRC-32C: the floor under a PUT."""
        return self.zstd + self.md5 + self.crc32c


def coding_cost(body: bytes, level: int = LEVEL) -> tuple[CodingCost, list[bytes]]:
    """Code `body` in this thread, one frame per chunk, fed in 1 MiB pieces; and the frames."""
    view = memoryview(body)
    step = chunk_size(len(body))
    compressor = zstandard.ZstdCompressor(level=level)
    frames: list[bytes] = []
    start = time.thread_time()
    for chunk in _cut(view, step):
        coder = compressor.compressobj(size=len(chunk))
        pieces = [coder.compress(piece) for piece in _cut(chunk, MIB)]
        pieces.append(coder.flush())
        frames.append(b"".join(pieces))
    coded = time.thread_time()
    digest = hashlib.md5(usedforsecurity=False)
    for piece in _cut(view, MIB):
        digest.update(piece)
    hashed = time.thread_time()
    crc = 0
    for offset in range(0, len(body), _PIECE):
        crc = checksums.crc32c(body[offset : offset + _PIECE], crc)
    summed = time.thread_time()
    return CodingCost(zstd=coded - start, md5=hashed - coded, crc32c=summed - hashed), frames


def decoding_cost(frames: Sequence[bytes], size: int) -> float:
    """CPU seconds to decode `frames` in this thread into a buffer that is used again and again."""
    decompressor = zstandard.ZstdDecompressor()
    into = bytearray(_PIECE)
    produced = 0
    start = time.thread_time()
    for frame in frames:
        reader = decompressor.stream_reader(frame, read_across_frames=True)
        while count := reader.readinto(into):
            produced += count
    spent = time.thread_time() - start
    if produced != size:
        raise ValueError(f"frames decode to {produced} bytes, {size} expected")
    return spent


def stored_frames(stored: bytes) -> list[bytes]:
    """The zstd frames of an object as the gateway stored it, their headers cut off."""
    frames: list[bytes] = []
    at = 0
    while at < len(stored):
        magic, codec, _, length, _ = _FRAME_HEADER.unpack_from(stored, at)
        if magic != b"S4F2" or codec != _CPU_ZSTD:
            raise ValueError(f"no zstd frame at {at}: {magic!r}, codec {codec}")
        at += _FRAME_HEADER.size
        frames.append(stored[at : at + length])
        at += length
    return frames


def _cut(view: memoryview, step: int) -> Iterator[memoryview]:
    for offset in range(0, len(view), step):
        yield view[offset : offset + step]
