"""Downloads, decoding and delivery of data files, each waiting for the next no longer than needed.

    files in order ─> downloads, many at a time ─> decoding, as many as ─> up to `read_ahead`
                      (a place for each body)      there are cores         partitions ─> reader

What a reader wants all at once may also be decoded on arrival, by the thread of the transport.

Rules. Partitions are taken up and delivered in order; those that may be read ahead are decoded side
by side. Where partitions are wanted one by one, the first is fetched alone, so that it comes as
soon as if it were the only one; of the rest two files set out for each that has landed, so that
making all requests at once does not keep the reader from what is there. The first failure is the
one the reader gets, and whoever leaves early ends the downloads and waits for that.
"""

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, ParamSpec, TypeVar

import pyarrow as pa

from s4gateway.s3store import parquet
from s4gateway.s3store.decoding import Decoder, View
from s4gateway.s3store.downloading import Downloads, Landing, Wanted, in_partitions
from s4gateway.s3store.fetching import Fetcher
from s4gateway.s3store.partitions import HivePartition
from s4gateway.s3store.read_ahead import EVERYTHING, Budget, ReadAhead
from s4gateway.s3store.target import S3Target
from s4gateway.s3store.telemetry import Method
from s4gateway.s3store.watching import Standing, Watch

T = TypeVar("T")
_Result = TypeVar("_Result")
Arguments = ParamSpec("Arguments")

_PLACES_A_CORE: Final = 4  # requests under way from which decoding may keep theirs


@dataclass(slots=True, eq=False)
class _Taken(Generic[T]):
    """A partition from when it is taken up until the reader has it."""

    key: str
    files: Sequence[Wanted]
    landings: Sequence[Landing]
    pages: int  # bytes, uncompressed, of the columns that are wanted
    counted: int  # bytes of the budget
    decoded: HivePartition[T] | None = None


class Pipeline(Generic[T]):
    """One read under way: start it, take partitions from it, close it."""

    def __init__(
        self,
        target: S3Target,
        view: View[T],
        files: Sequence[Wanted],
        read_ahead: ReadAhead,
        method: Method,
        *,
        tolerant: bool,
    ) -> None:
        self._telemetry = target.telemetry
        self._clock = target.clock
        self._columns: list[str] = view.needed.names
        self._partitions = in_partitions(files)
        self._read_ahead = read_ahead
        fetcher = Fetcher(target.calls, target.telemetry, view.needed.names)
        self._decoder = Decoder(view, fetcher, method, len(files), frugal=read_ahead.bytes > 0)
        self._watch = Watch(method, target.clock, self._standing)
        # A body that may be decoded as soon as it is there need not change threads for it. Its
        # place is taken meanwhile, so there must be many more than decoding can keep.
        places = target.calls.limit
        spare = places >= _PLACES_A_CORE * (os.cpu_count() or 1)
        at_once = read_ahead is EVERYTHING and target.calls.is_threaded and spare
        largest = max((len(group) for _, group in self._partitions), default=1)
        self._downloads = Downloads(
            partial(fetcher.fetch, decode=self._decoder.decode if at_once else None),
            target.telemetry,
            method,
            self._watch,
            places=max(places, largest),
            most_bytes=read_ahead.body_bytes,
            tolerant=tolerant,
        )
        self._ready: deque[_Taken[T]] = deque()  # and those that will be, all in order
        self._changed = asyncio.Condition()
        self._begun = asyncio.Event()
        self._landed = asyncio.Semaphore(0)
        self._next_key = ""
        self._waits_for_reader = False
        self._budget = Budget(read_ahead.bytes)
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._done = False
        self.files_done = 0
        method.partitions = len(self._partitions)

    # --- for the reader

    def start(self) -> None:
        """Begin to download."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def next(self) -> HivePartition[T] | None:
        """Return the next partition, None after the last; raises the first failure."""
        assert self._task is not None, "start comes first"
        async with self._changed:
            await self._changed.wait_for(lambda: self._first is not None or self._ended)
            if self._error is not None:
                raise self._error
            if not self._ready:
                return None
            taken = self._ready.popleft()
            self._budget.settle(taken.counted, 0)
            self.files_done += len(taken.files)
            self._watch.moved()
            self._changed.notify_all()
        return taken.decoded

    async def aclose(self) -> None:
        """End everything and wait for it; harmless when repeated."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def abandon(self) -> None:
        """End everything, from any thread, without waiting."""
        if self._task is not None and not self._task.done():
            loop = self._task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._task.cancel)

    @property
    def _first(self) -> HivePartition[T] | None:
        """What the reader may have now."""
        return self._ready[0].decoded if self._ready else None

    @property
    def _ended(self) -> bool:
        return self._error is not None or self._done

    def _standing(self) -> Standing:
        """What the watch should know: a reader may take its time."""
        undecoded = (taken.key for taken in self._ready if taken.decoded is None)
        return Standing(
            next(undecoded, self._next_key),
            self._downloads.places_taken,
            paused=self._waits_for_reader and self._first is not None,
        )

    # --- the stages

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(self._watch.run())
                group.create_task(self._kept(self._download_all, group))
                await self._kept(self._decode_all)
                watcher.cancel()
        except* Exception:  # noqa: S110 - kept where it happened first, raised to the reader
            pass
        finally:
            self._done = True
            async with self._changed:
                self._changed.notify_all()

    async def _kept(
        self,
        stage: Callable[Arguments, Awaitable[_Result]],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> _Result:
        """Remember the first failure: it cancels the others, whose endings must not hide it."""
        try:
            return await stage(*arguments, **options)
        except Exception as error:
            if self._error is None:
                self._error = error
            raise

    async def _download_all(self, group: asyncio.TaskGroup) -> None:
        everything = self._read_ahead is EVERYTHING
        for number, (_, files) in enumerate(self._partitions):
            for file in files:
                if number and not everything:
                    await self._landed.acquire()
                landing = await self._downloads.place(file)
                group.create_task(self._kept(self._download, file, landing))
            if not everything:
                await self._begun.wait()

    async def _download(self, file: Wanted, landing: Landing) -> None:
        await self._downloads.fetch(file, landing)
        for _ in range(2):  # so many more may set out
            self._landed.release()

    async def _decode_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for key, files in self._partitions:
                self._next_key = key
                await self._until(lambda: len(self._ready) <= self._read_ahead.partitions)
                landings = [await self._downloads.next() for _ in files]
                pages = await self._room(files, landings)
                taken: _Taken[T] = _Taken(key, files, landings, pages, self._budget.take(pages))
                self._ready.append(taken)
                group.create_task(self._kept(self._decode, taken))

    async def _until(self, free: Callable[[], bool]) -> None:
        """Wait for the reader to take something."""
        if free():
            return
        async with self._changed:
            self._waits_for_reader = True
            await self._changed.wait_for(free)
            self._waits_for_reader = False

    async def _room(self, files: Sequence[Wanted], landings: Sequence[Landing]) -> int:
        """Wait until the partition fits what may be decoded ahead; return the size of its pages."""
        if self._read_ahead.bytes <= 0:
            return 0
        bodies = [await landing for landing in landings]
        pages = sum(
            file.copies
            * parquet.uncompressed_bytes(parquet.open_file(body.source, file.key), self._columns)
            for file, body in zip(files, bodies, strict=True)
            if body is not None
        )
        if not self._budget.fits(pages):
            started = self._clock.monotonic()
            await self._until(lambda: self._budget.fits(pages))
            self._telemetry.add("s3store.read.iter.byte_budget.exhausted")
            self._telemetry.record(
                "s3store.read.iter.byte_budget.wait.duration", self._clock.monotonic() - started
            )
        return pages

    # --- one partition

    async def _decode(self, taken: _Taken[T]) -> None:
        started = self._clock.monotonic()
        tables = await self._tables(taken)
        decoded = None
        if tables:
            decoded = await self._decoder.partition(taken.key, tables)
            self._telemetry.record(
                "s3store.read.iter.partition.decode.duration", self._clock.monotonic() - started
            )
        async with self._changed:
            if decoded is None:  # its files are gone
                self._ready.remove(taken)
            if self._read_ahead.bytes > 0:
                self._budget.learn(taken.pages, sum(table.nbytes for table in tables))
                held = 0 if decoded is None else decoded.table.nbytes
                taken.counted = self._budget.settle(taken.counted, held)
            taken.decoded = decoded
            taken.landings = ()
            self._begun.set()
            self._changed.notify_all()

    async def _tables(self, taken: _Taken[T]) -> list[pa.Table]:
        """The tables of a partition's files, decoded as they land, in the order of the files."""
        pairs = list(zip(taken.files, taken.landings, strict=True))
        if len(pairs) == 1:
            return await self._table(*pairs[0])
        async with asyncio.TaskGroup() as group:
            decoding = [group.create_task(self._kept(self._table, *pair)) for pair in pairs]
        return [table for done in decoding for table in done.result()]

    async def _table(self, file: Wanted, landing: Landing) -> list[pa.Table]:
        """The file's rows as often as they are wanted; nothing for a file that is gone."""
        fetched = await landing
        try:
            if fetched is None:
                return []
            return [await self._decoder.table(fetched)] * file.copies
        finally:
            self._downloads.give_back(file)
