"""A spool out of which comes what went in, or an error.

Rule: what was appended together is a run, and its CRC-32C is known: that of whoever made the run,
when it is given, taken here otherwise. The last piece of a run that is read leaves only when the
whole run had its CRC-32C, even if only a part of it was asked for. So a body that is sent from here
with its length announced is never complete with a byte that memory, page cache or disk have
changed. What it costs is reading on to the end of a run, which is a frame.
"""

from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

from s4gateway.objects.spool import MEMORY_LIMIT, Spool
from s4gateway.objects.unnamed_file import Piece
from s4gateway.wire.crc32c import combine
from s4gateway.wire.crc32c import crc32c as extend


class DamagedSpool(OSError):
    """Bytes came back from a spool that are not those that were appended."""


class CheckedSpool(Spool):
    """A spool that compares what it reads with what was appended.

    `crc32c` is that of everything appended so far.
    """

    __slots__ = ("_runs", "crc32c")

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        *,
        directory: Path | None = None,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        super().__init__(executor, directory=directory, memory_limit=memory_limit)
        self._runs: list[tuple[int, int]] = []  # length in bytes, CRC-32C
        self.crc32c = 0

    async def append(self, pieces: Sequence[Piece], crc32c: int | None = None) -> None:
        """Add a run of `pieces`; raises OSError when the disk is full."""
        length = sum(map(len, pieces))
        crc = _crc(pieces) if crc32c is None else crc32c
        self._runs.append((length, crc))
        self.crc32c = combine(self.crc32c, crc, length)
        await super().append(pieces)

    async def read(self, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of [start, end) in pieces of at most READ_SIZE; raises DamagedSpool."""
        end = self.length if end is None else end
        held = b""
        after = 0
        for length, expected in self._runs:
            position, after = after, after + length
            if after <= start or position >= end:
                continue
            crc = 0
            async with aclosing(super().read(position, after)) as pieces:
                async for piece in pieces:
                    crc = extend(piece, crc)
                    wanted = piece[max(start - position, 0) : max(end - position, 0)]
                    position += len(piece)
                    if wanted:
                        if held:
                            yield held
                        held = wanted
            if crc != expected:
                msg = f"spooled bytes before {after} have CRC-32C {crc:08x}, not {expected:08x}"
                raise DamagedSpool(msg)
        if held:
            yield held


def _crc(pieces: Sequence[Piece]) -> int:
    crc = 0
    for piece in pieces:
        crc = extend(piece, crc)
    return crc
