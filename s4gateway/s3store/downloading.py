"""Data files fetched in their order, many at a time, each into a place of its own.

Rule: places for bodies are handed out in the order of the files, and there are enough for the
largest partition, so the oldest file that is not decoded always has one and nothing can starve.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from s4gateway.s3store import errors
from s4gateway.s3store.errors import MissingDataError
from s4gateway.s3store.fetching import Fetched, Fetcher
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
    """The files of one read on their way; whoever takes one gives its place back."""

    def __init__(
        self,
        fetcher: Fetcher,
        telemetry: Telemetry,
        method: Method,
        watch: Watch,
        *,
        places: int,
        tolerant: bool,
    ) -> None:
        self._fetcher = fetcher
        self._telemetry = telemetry
        self._clock = telemetry.clock
        self._method = method
        self._watch = watch
        self._tolerant = tolerant
        self._places = asyncio.Semaphore(places)
        self._landings: asyncio.Queue[Landing] = asyncio.Queue()
        self.places_taken = 0

    async def next(self) -> Landing:
        """Return the next file in order, as soon as it has a place."""
        return await self._landings.get()

    def give_back(self) -> None:
        """Free the place of a file that is decoded."""
        self._places.release()
        self.places_taken -= 1
        self._watch.moved()

    async def place(self) -> Landing:
        """Wait for a place, and return where the next file is to land."""
        waits = self._places.locked()
        started = self._clock.monotonic()
        await self._places.acquire()
        self.places_taken += 1
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
            fetched: Fetched | None = await self._fetcher.fetch(file.key, file.size)
        except errors.NotFound as error:
            if not self._tolerant:
                raise MissingDataError(file.key) from error
            _log.warning("%s: %s is gone and is skipped", self._method.name, file.key)
            self._method.count("s3store.read.missing_data")
            fetched = None
        else:
            assert fetched is not None
            self._method.bytes += fetched.size
        self._watch.moved()
        if not landing.done():
            landing.set_result(fetched)


def in_partitions(files: Sequence[Wanted]) -> list[tuple[str, list[Wanted]]]:
    """Return the files by partition, both in the order of their keys' bytes."""
    groups: dict[str, list[Wanted]] = {}
    for file in sorted(files, key=lambda file: file.key.encode()):
        groups.setdefault(file.partition, []).append(file)
    return [(key, groups[key]) for key in sorted(groups, key=str.encode)]
