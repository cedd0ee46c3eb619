"""Downloads, decoding and delivery of data files, each waiting for the next no longer than needed.

    files in order ─> downloads, many at a time ─> decoding, one partition ─> up to `read_ahead`
                      (a place for each body)      after the other            partitions ─> reader

Rules. Places for bodies are handed out in the order of the files, and there are enough for the
largest partition, so the oldest file that is not decoded always has one and nothing can starve.
Partitions are decoded and delivered in order. The first failure is the one the reader gets, and
whoever leaves early ends the downloads and waits for that.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from s4gateway.s3store import errors, parquet
from s4gateway.s3store.decoding import View
from s4gateway.s3store.errors import DecodeError, MissingDataError
from s4gateway.s3store.fetching import Fetched, Fetcher, SparseFile
from s4gateway.s3store.partitions import HivePartition
from s4gateway.s3store.target import S3Target
from s4gateway.s3store.telemetry import Method
from s4gateway.s3store.watching import Watch

_log = logging.getLogger(__name__)
T = TypeVar("T")
_Result = TypeVar("_Result")
Arguments = ParamSpec("Arguments")

_SMALL_BYTES: Final = 32 * 1024
_SMALL_ROWS: Final = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """A data file to read; `copies` is how often its rows are to be handed over."""

    key: str
    partition: str
    size: int | None = None
    copies: int = 1


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """How much may be decoded before it is asked for; 0 `bytes` is without limit."""

    partitions: int = 1
    bytes: int = 0


@dataclass(slots=True)
class _Decoded(Generic[T]):
    partition: HivePartition[T]
    files: int
    reserved: int


def in_partitions(files: Sequence[Wanted]) -> list[tuple[str, list[Wanted]]]:
    """Return the files by partition, both in the order of their keys' bytes."""
    groups: dict[str, list[Wanted]] = {}
    for file in sorted(files, key=lambda file: file.key.encode()):
        groups.setdefault(file.partition, []).append(file)
    return [(key, groups[key]) for key in sorted(groups, key=str.encode)]


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
        self._target = target
        self._telemetry = target.telemetry
        self._clock = target.clock
        self._view = view
        self._partitions = in_partitions(files)
        self._read_ahead = read_ahead
        self._method = method
        self._tolerant = tolerant
        self._fetcher = Fetcher(target.calls, target.telemetry, view.needed.names)
        largest = max((len(group) for _, group in self._partitions), default=1)
        self._slots = asyncio.Semaphore(max(target.calls.limit, largest))
        self._slots_taken = 0
        self._cores = asyncio.Semaphore(os.cpu_count() or 1)
        self._downloads: asyncio.Queue[asyncio.Future[Fetched | None]] = asyncio.Queue()
        self._ready: deque[_Decoded[T]] = deque()
        self._changed = asyncio.Condition()
        self._reserved = 0
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._done = False
        self._watch = Watch(method, target.clock, lambda: self._slots_taken)
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
            await self._changed.wait_for(lambda: self._ready or self._ended)
            if self._error is not None:
                raise self._error
            if not self._ready:
                return None
            decoded = self._ready.popleft()
            self._reserved -= decoded.reserved
            self.files_done += decoded.files
            self._changed.notify_all()
        return decoded.partition

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
    def _ended(self) -> bool:
        return self._error is not None or self._done

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
        for _, files in self._partitions:
            for file in files:
                await self._take_slot()
                landing: asyncio.Future[Fetched | None] = asyncio.get_running_loop().create_future()
                self._downloads.put_nowait(landing)
                group.create_task(self._kept(self._download, file, landing))

    async def _take_slot(self) -> None:
        waits = self._slots.locked()
        started = self._clock.monotonic()
        await self._slots.acquire()
        self._slots_taken += 1
        if not waits:
            return
        self._telemetry.add("s3store.read.iter.body_slot.exhausted")
        self._telemetry.record(
            "s3store.read.iter.body_slot.wait.duration", self._clock.monotonic() - started
        )

    def _free_slot(self) -> None:
        self._slots.release()
        self._slots_taken -= 1
        self._watch.moved()

    async def _download(self, file: Wanted, landing: "asyncio.Future[Fetched | None]") -> None:
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

    async def _decode_all(self) -> None:
        for key, files in self._partitions:
            await self._until(lambda: len(self._ready) <= self._read_ahead.partitions)
            self._watch.partition = key
            landings = [await self._downloads.get() for _ in files]
            reserved = await self._reserve(files, landings)
            started = self._clock.monotonic()
            tables = await self._tables(files, landings)
            if not tables:
                self._reserved -= reserved
                continue
            small = sum(table.num_rows for table in tables) <= _SMALL_ROWS
            partition = await _worked(small, self._view.partition, key, tables)
            self._telemetry.record(
                "s3store.read.iter.partition.decode.duration", self._clock.monotonic() - started
            )
            async with self._changed:
                self._ready.append(_Decoded(partition, len(files), reserved))
                self._changed.notify_all()

    async def _tables(
        self, files: Sequence[Wanted], landings: Sequence["asyncio.Future[Fetched | None]"]
    ) -> list[pa.Table]:
        """The tables of a partition's files, decoded as they land, in the order of the files."""
        pairs = list(zip(files, landings, strict=True))
        if len(pairs) == 1:
            return await self._table(*pairs[0])
        async with asyncio.TaskGroup() as group:
            decoding = [group.create_task(self._kept(self._table, *pair)) for pair in pairs]
        return [table for done in decoding for table in done.result()]

    async def _until(self, free: Callable[[], bool]) -> None:
        """Wait for the reader to take something."""
        if free():
            return
        self._watch.paused = True
        async with self._changed:
            await self._changed.wait_for(free)
        self._watch.paused = False
        self._watch.moved()

    async def _reserve(
        self, files: Sequence[Wanted], landings: Sequence["asyncio.Future[Fetched | None]"]
    ) -> int:
        """Wait until the partition fits what may be decoded ahead; return what it takes of it."""
        limit = self._read_ahead.bytes
        if limit <= 0:
            return 0
        bodies = [await landing for landing in landings]
        need = sum(
            parquet.uncompressed_bytes(parquet.open_file(body.source, file.key), self._columns)
            for file, body in zip(files, bodies, strict=True)
            if body is not None
        )

        def fits() -> bool:
            return self._reserved == 0 or self._reserved + need <= limit

        if not fits():
            started = self._clock.monotonic()
            await self._until(fits)
            self._telemetry.add("s3store.read.iter.byte_budget.exhausted")
            self._telemetry.record(
                "s3store.read.iter.byte_budget.wait.duration", self._clock.monotonic() - started
            )
        self._reserved += need
        return need

    @property
    def _columns(self) -> list[str]:
        names: list[str] = self._view.needed.names
        return names

    async def _table(
        self, file: Wanted, landing: "asyncio.Future[Fetched | None]"
    ) -> list[pa.Table]:
        """The file's rows as often as they are wanted; nothing for a file that is gone."""
        fetched = await landing
        try:
            if fetched is None:
                return []
            async with self._cores:
                small = fetched.size <= _SMALL_BYTES
                table = await _worked(small, self._decoded, fetched)
                if table is None:
                    whole = await self._fetcher.whole(file.key)
                    self._method.bytes += whole.size
                    table = await _worked(False, self._decoded, whole)
            assert table is not None
            return [table] * file.copies
        finally:
            self._free_slot()

    def _decoded(self, fetched: Fetched) -> pa.Table | None:
        """The table, None when a part turned out to be missing that was not asked for."""
        sparse = isinstance(fetched.source, SparseFile)
        try:
            file: pq.ParquetFile = parquet.open_file(fetched.source, fetched.key)
            if not sparse:
                self._fetcher.learn(file, fetched.size)
            return self._view.decode(file, fetched.key)
        except DecodeError:
            if sparse and fetched.source.was_asked_for_more:
                return None
            raise


async def _worked(
    small: bool,
    work: Callable[Arguments, _Result],
    *arguments: Arguments.args,
    **options: Arguments.kwargs,
) -> _Result:
    """Do what may take long in a thread, and what takes less than the way there at once."""
    if small:
        return work(*arguments, **options)
    return await asyncio.to_thread(work, *arguments, **options)
