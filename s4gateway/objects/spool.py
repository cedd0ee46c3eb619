"""Bytes on their way between a client and the store, whose length must be known before they leave.

Rule: the first `memory_limit` bytes stay in memory, the rest goes to a temporary file without a
name, so that neither a crash nor kill -9 leaves anything behind. The file is written and read
on the disk executor. A spool is written once, in order, then read any number of times.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Final

from s4gateway.objects.unnamed_file import Piece, UnnamedFile

MEMORY_LIMIT: Final = 2 * 1024 * 1024
READ_SIZE: Final = 1024 * 1024
_VIEW: Final = READ_SIZE // 2


class Spool:
    """A growing run of bytes: memory first, then a file."""

    __slots__ = ("_directory", "_executor", "_file", "_limit", "_pieces", "length")

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        *,
        directory: Path | None = None,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        self._executor = executor
        self._directory = directory
        self._limit = memory_limit
        self._pieces: list[Piece] = []
        self._file: UnnamedFile | None = None
        self.length = 0

    @classmethod
    def over(cls, executor: ThreadPoolExecutor, file: UnnamedFile, length: int) -> "Spool":
        """The first `length` bytes of a file that somebody else has filled; it is closed with it.

        Nothing may be appended.
        """
        spool = cls(executor)
        spool._file, spool.length = file, length
        return spool

    @property
    def in_memory(self) -> bool:
        """No file was needed so far."""
        return self._file is None

    async def append(self, pieces: Sequence[Piece], crc32c: int | None = None) -> None:
        """Add `pieces`, which must not change afterwards; raises OSError when the disk is full.

        Their CRC-32C, where it is known, is for spools that compare what they read.
        """
        self._pieces.extend(pieces)
        self.length += sum(map(len, pieces))
        if not self._pieces or (self._file is None and self.length <= self._limit):
            return
        waiting, self._pieces = self._pieces, []
        if self._file is None:
            self._file = UnnamedFile(self._directory)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, self._file.append, waiting)

    def pieces(self) -> list[Piece]:
        """Everything, of a spool that is still in memory."""
        assert self.in_memory
        return self._pieces

    async def read(self, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of [start, end) in pieces of at most READ_SIZE."""
        async with aclosing(self.views(start, end)) as views:
            async for piece in views:
                yield bytes(piece)

    async def views(
        self, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes | memoryview, None]:
        """Yield what `read` does, some of it as views of what is in memory.

        A view keeps all of a large piece in memory. Who is still sending the last READ_SIZE bytes
        when the spool is closed does not: the end of such a piece comes as bytes of its own.
        """
        end = self.length if end is None else end
        if self._file is None:
            position = 0
            for piece in self._pieces:
                for part in _cut(piece, max(start - position, 0), min(end - position, len(piece))):
                    yield part
                position += len(piece)
            return
        loop = asyncio.get_running_loop()
        while start < end:
            count = min(READ_SIZE, end - start)
            data = await loop.run_in_executor(self._executor, self._file.read, count, start)
            if not data:
                msg = f"spool file ends at {start} of {end} bytes"
                raise OSError(msg)
            start += len(data)
            yield data

    def close(self) -> None:
        """Drop the bytes and the file; harmless when repeated."""
        self._pieces = []
        if self._file is not None:
            self._file.close()


def _cut(piece: Piece, low: int, high: int) -> Iterator[bytes | memoryview]:
    """The bytes [low, high) of a piece, in views of it but at its end."""
    if len(piece) <= READ_SIZE:
        if low < high:
            yield bytes(piece[low:high])
        return
    view, own = memoryview(piece), high - READ_SIZE
    for start in range(low, high, _VIEW):
        part = view[start : min(start + _VIEW, high)]
        yield part if start + len(part) <= own else bytes(part)
