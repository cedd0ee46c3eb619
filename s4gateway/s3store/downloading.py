"""Data files fetched in their order, many at a time, each into a place of its own.

Rule: places for bodies are handed out in the order of the files, and there are enough for the
largest partition; a limit of bytes holds back later partitions only. So the oldest file that is not
decoded always has a place and nothing can starve.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from s4gateway.s3store import errors
from s4gateway.s3store.errors import MissingDataError
from s4gateway.s3store.fetching import Fetched
from s4gateway.s3store.telemetry import Method, Telemetry
from s4gateway.s3store.watching import Watch

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A data file to read; `copies` is how often its rows are to be handed over."""

    key: str
    partition: str
    size: int | None = None
    copies: int = 1


Landing = asyncio.Future[Fetched | None]
"""A body, or None for a file that is gone and may be."""


class Downloads:
    """The files of one read on their way; whoever takes one gives its place back.

    `fetch` takes the key of a file, and its size if that is known.
    """

    def __init__(
        self,
        fetch: Callable[[str, int | None], Awaitable[Fetched]],
        telemetry: Telemetry,
        method: Method,
        watch: Watch,
        *,
        places: int,
        most_bytes: int,
        tolerant: bool,
    ) -> None:
        self._fetch = fetch
        self._telemetry = telemetry
        self._clock = telemetry.clock
        self._method = method
        self._watch = watch
        self._tolerant = tolerant
        self._places = _Places(places, most_bytes)
        self._landings: asyncio.Queue[Landing] = asyncio.Queue()

    @property
    def places_taken(self) -> int:
        """How many files are on their way or wait to be decoded."""
        return self._places.taken

    async def next(self) -> Landing:
        """Return the next file in order, as soon as it has a place."""
        return await self._landings.get()

    def give_back(self, file: Wanted) -> None:
        """Free the place of a file that is decoded."""
        self._places.leave(file)
        self._watch.moved()

    async def place(self, file: Wanted) -> Landing:
        """Wait for a place, and return where the file is to land."""
        waits = not self._places.fits(file)
        started = self._clock.monotonic()
        await self._places.enter(file)
        if waits:
            self._telemetry.add("s3store.read.iter.body_slot.exhausted")
            self._telemetry.record(
                "s3store.read.iter.body_slot.wait.duration", self._clock.monotonic() - started
            )
        landing: Landing = asyncio.get_running_loop().create_future()
        self._landings.put_nowait(landing)
        return landing

    async def fetch(self, file: Wanted, landing: Landing) -> None:
        """Let a file land; raises MissingDataError, TransportError."""
        self._method.files += 1
        try:
            fetched: Fetched | None = await self._fetch(file.key, file.size)
        except errors.NotFound as error:
            if not self._tolerant:
                raise MissingDataError(file.key) from error
            _log.warning("%s: %s is gone and is skipped", self._method.name, file.key)
            self._method.count("s3store.read.missing_data")
            fetched = None
        else:
            assert fetched is not None
            self._method.bytes += fetched.size
        self._places.landed(file, 0 if fetched is None else fetched.size)
        self._watch.moved()
        if not landing.done():
            landing.set_result(fetched)


class _Places:
    """Room for bodies: so many of them, and so many bytes of partitions that are not next.

    Only one file waits at a time: the next in order.
    """

    def __init__(self, places: int, most_bytes: int) -> None:
        self._places = places
        self._most = most_bytes  # 0: without limit
        self._sizes: dict[str, int] = {}  # by key, in order: as expected until it has landed
        self._partitions: dict[str, int] = {}  # files of each that have a place, in order
        self._files = self._listed = self._landed = 0  # of what has landed
        self._left = asyncio.Event()

    @property
    def taken(self) -> int:
        return len(self._sizes)

    def fits(self, file: Wanted) -> bool:
        if len(self._sizes) >= self._places:
            return False
        if not self._most or next(iter(self._partitions), file.partition) == file.partition:
            return True
        return sum(self._sizes.values()) + self._expected(file) <= self._most

    async def enter(self, file: Wanted) -> None:
        while not self.fits(file):
            self._left.clear()
            await self._left.wait()
        self._sizes[file.key] = self._expected(file)
        self._partitions[file.partition] = self._partitions.get(file.partition, 0) + 1

    def landed(self, file: Wanted, size: int) -> None:
        self._files += 1
        self._listed += file.size or 0
        self._landed += size
        self._sizes[file.key] = size
        self._left.set()

    def leave(self, file: Wanted) -> None:
        del self._sizes[file.key]
        self._partitions[file.partition] -= 1
        if not self._partitions[file.partition]:
            del self._partitions[file.partition]
        self._left.set()

    def _expected(self, file: Wanted) -> int:
        """By what files came to so far: of most, only some columns may be fetched."""
        if file.size is None:
            return self._landed // max(1, self._files)
        return file.size * self._landed // self._listed if self._listed else file.size


def in_partitions(files: Sequence[Wanted]) -> list[tuple[str, list[Wanted]]]:
    """Return the files by partition, both in the order of their keys' bytes."""
    groups: dict[str, list[Wanted]] = {}
    for file in sorted(files, key=lambda file: file.key.encode()):
        groups.setdefault(file.partition, []).append(file)
    return [(key, groups[key]) for key in sorted(groups, key=str.encode)]
