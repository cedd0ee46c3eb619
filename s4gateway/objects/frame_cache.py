"""Decoded frames that ranged reads keep coming back to.

A 64 KiB range of a large object lies inside a 16 MiB frame, and the frame's CRC-32C covers all of
it, so the first such read decodes everything. The verified plaintext is kept in a file without a
name: the operating system's page cache holds it while memory is plenty, and this process's own
memory never grows with it. Rule: an entry is found only under the backend ETag it was decoded
from, and readers confirm that ETag with the store on every request.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from s4gateway.objects.unnamed_file import Piece, UnnamedFile

DEFAULT_LIMIT: Final = 1024 * 1024 * 1024
_INLINE_READ: Final = 256 * 1024  # bytes from the page cache that cost less than a thread hop
_MAX_ENTRIES: Final = 512  # each holds a file descriptor

FrameName = tuple[str, str, str, int]  # bucket, key, backend ETag, offset of the frame


class FrameCache:
    """Verified plaintext of frames, bounded in bytes on disk; least recently used goes first.

    `limit` of 0 keeps nothing. Used on the event loop's thread only; writing happens on `executor`,
    reading is a read from the page cache.
    """

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        directory: Path | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        self._executor = executor
        self._directory = directory
        self._limit = limit
        self._used = 0
        self._entries: OrderedDict[FrameName, tuple[UnnamedFile, int]] = OrderedDict()

    def __contains__(self, name: FrameName) -> bool:
        return name in self._entries

    async def read(self, name: FrameName, size: int, start: int, end: int) -> bytes | None:
        """Return plaintext bytes [start, end) of a frame; None unless one of `size` is kept."""
        entry = self._entries.get(name)
        if entry is None or entry[1] != size:
            return None
        self._entries.move_to_end(name)
        file, count = entry[0], end - start
        try:
            if count <= _INLINE_READ:
                data = file.read(count, start)
            else:
                loop = asyncio.get_running_loop()
                data = await loop.run_in_executor(self._executor, file.read, count, start)
        except OSError:  # evicted meanwhile
            return None
        return data if len(data) == count else None

    async def keep(self, name: FrameName, pieces: Sequence[Piece]) -> None:
        """Store a frame's plaintext; a full disk means that it is not kept."""
        size = sum(map(len, pieces))
        if size > self._limit or name in self._entries:
            return
        file: UnnamedFile | None = None
        kept = False
        try:
            file = UnnamedFile(self._directory)
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._executor, file.append, pieces)
            kept = name not in self._entries
        except OSError:
            return
        finally:
            if file is not None and not kept:
                file.close()
        if not kept:
            return
        self._entries[name] = (file, size)
        self._used += size
        while self._used > self._limit or len(self._entries) > _MAX_ENTRIES:
            self._evict()

    def _evict(self) -> None:
        _, (file, size) = self._entries.popitem(last=False)
        file.close()
        self._used -= size

    def close(self) -> None:
        """Drop everything."""
        while self._entries:
            self._evict()
