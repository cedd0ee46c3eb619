"""Bodies to store: real text of the packages installed here, random bytes, and mixtures of both.

The text is what pip has unpacked (sources, documents, JSON, RECORD files), so it compresses like
text people keep, not like a generator's idea of it. Bodies are the same in every run on one
machine; between machines the installed versions differ. Sizes are bytes, and exact.
"""

import functools
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_SUFFIXES = {".py", ".pyi", ".rst", ".md", ".txt", ".json", ".c", ".h"}
_NAMES = {"RECORD", "METADATA"}
_LEVELS = ("INFO", "INFO", "INFO", "DEBUG", "INFO", "WARN", "INFO", "ERROR")
_BASE_LIMIT = 24 * 1024 * 1024
_CHATTER = 32 * 1024 * 1024  # then it begins anew, farther back than any window reaches


@functools.cache
def _base() -> bytes:
    """Up to 24 MiB of installed text, files in the order of their names."""
    site = Path(sysconfig.get_path("purelib"))
    pieces, total = [], 0
    for path in sorted(site.rglob("*")):
        if not (path.suffix in _SUFFIXES or path.name in _NAMES) or not path.is_file():
            continue
        pieces.append(path.read_bytes())
        total += len(pieces[-1])
        if total > _BASE_LIMIT:
            break
    return b"".join(pieces)[:_BASE_LIMIT]


def text(size: int, seed: int = 0) -> bytes:
    """Installed text from an offset that `seed` chooses, round and round."""
    base = _base()
    start = random.Random(seed).randrange(len(base)) if seed else 0
    turns = (start + size) // len(base) + 1
    return (base * turns)[start : start + size] if turns > 1 else base[start : start + size]


def log(size: int, seed: int = 0) -> bytes:
    """A service log: installed text line by line, each with a time, a level and a request id."""
    pieces, total = [], 0
    for line in _log_lines(seed):
        pieces.append(line)
        total += len(line)
        if total >= size:
            break
    return b"".join(pieces)[:size]


@functools.cache
def _messages() -> tuple[str, ...]:
    lines = _base()[: 4 * 1024 * 1024].decode("utf-8", "replace").splitlines()
    return tuple(line.strip()[:200] for line in lines if line.strip())


def chatter(size: int, seed: int = 0) -> bytes:
    """A log of few messages with much around them: zstd makes it about 20 times smaller."""
    source = random.Random(seed)
    block = bytearray()
    millis = 0
    while len(block) < min(size, _CHATTER):
        millis += source.randrange(4)
        request = source.randrange(16)
        message = _messages()[1000 + int(source.random() ** 3 * 40)]
        block += (
            f"2025-03-14T{millis // 3_600_000 % 24:02}:{millis // 60_000 % 60:02}:"
            f"{millis // 1000 % 60:02}.{millis % 1000:03}Z INFO service=checkout region=eu-west-1 "
            f"pod=checkout-7c9d4f-0{request % 4} version=2.14.3 commit=9f31c2d route=/v1/carts "
            f"worker={request} message={message!r}\n"
        ).encode()
    turns = size // len(block) + 1 if block else 0
    return bytes(block * turns)[:size]


def _log_lines(seed: int) -> Iterator[bytes]:
    source = random.Random(seed)
    messages = _messages()
    millis = position = 0
    while True:
        millis += source.randrange(40)
        seconds, position = millis // 1000, position + 1
        stamp = f"2025-03-{seconds // 86400 % 28 + 1:02}T{seconds // 3600 % 24:02}"
        stamp += f":{seconds // 60 % 60:02}:{seconds % 60:02}.{millis % 1000:03}Z"
        level = _LEVELS[source.randrange(8)]
        message = messages[(position + seed) % len(messages)]
        yield f"{stamp} {level} req={source.getrandbits(32):08x} {message}\n".encode()


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes no codec can shrink."""
    return random.Random(seed).randbytes(size)


def quiet_head(size: int, head: int = 8192, seed: int = 0) -> bytes:
    """Text first, noise after it: a sample of the start promises too much."""
    head = min(head, size)
    return text(head, seed) + noise(size - head, seed)


def noisy_head(size: int, head: int = 8192, seed: int = 0) -> bytes:
    """Noise first, text after it: a sample of the start promises too little."""
    head = min(head, size)
    return noise(head, seed) + text(size - head, seed)
