"""Markers for rows that were written before their view existed.

Rule: only committed files are looked at, and nothing but markers is stored, unconditionally and
under names that depend on the rows alone; so it is safe beside live writers, and safe to repeat. A
file that vanishes meanwhile is passed over and told of.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import pyarrow as pa

from s4gateway.s3store import clock, errors, parquet
from s4gateway.s3store.blocking import runner_of
from s4gateway.s3store.errors import ConfigError, DecodeError
from s4gateway.s3store.fan_out import fan_out
from s4gateway.s3store.fetching import Fetched, Fetcher, SparseFile
from s4gateway.s3store.partitions import HivePartition
from s4gateway.s3store.patterns import Pattern, Plan, compile_all
from s4gateway.s3store.records import RecordSpec
from s4gateway.s3store.resolution import resolve
from s4gateway.s3store.results import DataFile
from s4gateway.s3store.target import S3Target
from s4gateway.s3store.telemetry import Method
from s4gateway.s3store.views import MaterializedView

T = TypeVar("T")
_log = logging.getLogger(__name__)
_FILES: Final = 4  # in memory at a time; their markers are stored side by side


@dataclass(frozen=True, slots=True)
class BackfillStats:
    """What a backfill did: files it chose, rows in them, markers it stored, counted per file."""

    data_objects: int = 0
    records: int = 0
    markers: int = 0


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """How far a backfill is, in files and in their stored bytes."""

    files: int
    all_files: int
    size: int
    all_size: int


OnProgress = Callable[[BackfillProgress], object]


async def backfill_view(
    target: S3Target,
    record: type[T] | pa.Schema,
    view: MaterializedView[T],
    patterns: Pattern | Sequence[Pattern],
    *,
    until: datetime | None = None,
    skip_existing: bool = False,
    on_progress: OnProgress | None = None,
) -> BackfillStats:
    """Store the markers of a view for the committed rows of the partitions that match.

    `until` leaves out files stored at that moment or later, which live writers have marked;
    `skip_existing` lists the view once and stores only what it lacks. Costs the pages of a LIST for
    each pattern, one HEAD for each token with several files, for each file a GET (of the view's
    columns alone, in parts, when the file is large) and a PUT for each different marker in it.
    `on_progress` is called on the event loop, first when the files are known. Raises ConfigError
    and KeyPatternError before any request, DecodeError for a file that is no Parquet.
    """
    with target.telemetry.method("backfill") as method:
        target.validate()
        spec: RecordSpec[T] = RecordSpec(record)
        work = _Backfill(target, spec, view, method, on_progress)
        plans = compile_all(target.partition_key_parts, patterns)
        before_us = None if until is None else clock.to_us(until)
        if not plans:
            return BackfillStats()
        files = await _chosen(target, plans, before_us)
        existing = await _existing(target, view.name) if skip_existing and files else None
        return await work.run(files, existing)


def backfill_view_blocking(
    target: S3Target,
    record: type[T] | pa.Schema,
    view: MaterializedView[T],
    patterns: Pattern | Sequence[Pattern],
    *,
    timeout: float | None = None,
    **options: Any,
) -> BackfillStats:
    """`backfill_view` for blocking callers; `on_progress` is called in the loop's thread."""
    runner = runner_of(target)
    return runner.run(backfill_view(target, record, view, patterns, **options), timeout)


async def _chosen(target: S3Target, plans: Sequence[Plan], before_us: int | None) -> list[DataFile]:
    files = await resolve(target, plans)
    if before_us is None:
        return files
    return [file for file in files if clock.to_us(file.last_modified) < before_us]


async def _existing(target: S3Target, view: str) -> set[str]:
    found: set[str] = set()
    async with aclosing(target.calls.list_pages(target.keys.view_root(view))) as pages:
        async for page in pages:
            found.update(listed.key for listed in page.objects)
    return found


class _Backfill(Generic[T]):
    """One backfill under way."""

    def __init__(
        self,
        target: S3Target,
        spec: RecordSpec[T],
        view: MaterializedView[T],
        method: Method,
        on_progress: OnProgress | None,
    ) -> None:
        self._target = target
        self._spec = spec
        self._marking = view.bind(spec, target.keys)
        self._schema = spec.narrowed(view.needed(spec))
        self._fetcher = Fetcher(target.calls, target.telemetry, self._schema.names)
        self._method = method
        self._on_progress = on_progress
        self._existing: set[str] | None = None
        self._markers = 0
        self._done = self._size = 0
        self._all: tuple[int, int] = (0, 0)

    async def run(self, files: Sequence[DataFile], existing: set[str] | None) -> BackfillStats:
        self._existing = existing
        self._all = (len(files), sum(file.size for file in files))
        self._method.partitions = len({file.partition for file in files})
        self._tell()
        await fan_out(self._target.telemetry, files, self._one, _FILES)
        return BackfillStats(len(files), self._method.records, self._markers)

    async def _one(self, file: DataFile) -> None:
        try:
            fetched = await self._fetcher.fetch(file.key, file.size)
        except errors.NotFound:
            _log.warning("%s was listed and is not there any more; passed over", file.key)
            self._method.count("s3store.read.missing_data")
        else:
            rows, keys = await self._marked(file, fetched)
            self._method.bytes += fetched.size
            self._method.records += rows
            await self._store(keys)
        self._method.files += 1
        self._done += 1
        self._size += file.size
        self._tell()

    async def _marked(self, file: DataFile, fetched: Fetched) -> tuple[int, list[str]]:
        """How many rows a file has, and their markers."""
        source = fetched.source
        try:
            return await asyncio.to_thread(self._decode, file, fetched)
        except DecodeError:
            if not (isinstance(source, SparseFile) and source.was_asked_for_more):
                raise
        return await asyncio.to_thread(self._decode, file, await self._fetcher.whole(file.key))

    def _decode(self, file: DataFile, fetched: Fetched) -> tuple[int, list[str]]:
        opened = parquet.open_file(fetched.source, file.key)
        if not isinstance(fetched.source, SparseFile):
            self._fetcher.learn(opened, fetched.size)
        table = parquet.decode(opened, file.key, self._spec, self._schema)
        parts = self._target.partition_key_parts
        try:
            keys = self._marking(HivePartition(file.partition, parts, self._spec, table))
        except ConfigError as error:
            raise ConfigError(f"{file.key}: {error}") from error
        return table.num_rows, keys

    async def _store(self, keys: Sequence[str]) -> None:
        if self._existing is not None:
            keys = [key for key in keys if key not in self._existing]
            self._existing.update(keys)
        calls = self._target.calls
        await fan_out(self._target.telemetry, keys, calls.put, calls.limit)
        self._markers += len(keys)

    def _tell(self) -> None:
        if self._on_progress is not None:
            files, size = self._all
            self._on_progress(BackfillProgress(self._done, files, self._size, size))
