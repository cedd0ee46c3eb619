"""What an operator asks of a dataset: what is in it, whether it is sound, a view filled afterwards.

Rule: nothing is deleted and nothing that is stored is changed; only a backfill stores anything. The
names of the partition parts and the columns are taken from what the dataset holds already.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import pyarrow as pa

from s4gateway.s3store import (
    AsyncReader,
    BackfillProgress,
    BackfillStats,
    ConfigError,
    DataFile,
    MaterializedView,
    S3Target,
    S3TargetConfig,
    backfill_view,
    layout,
    parquet,
)
from s4gateway.s3store.fetching import Fetcher
from s4gateway.tools.progress import SILENT, Progress

_EXAMPLES: Final = 3
_ANY: Final = pa.schema([("_", pa.string())])  # for reading what is not rows


@asynccontextmanager
async def opened(client: Any, bucket: str, prefix: str) -> AsyncIterator[S3Target]:
    """Open a dataset with the partition parts of the first key in it; none when it is empty."""
    config = S3TargetConfig(bucket=bucket, prefix=prefix, client=client)
    async with await S3Target.open(config) as target:
        parts = await _parts(target)
    async with await S3Target.open(replace(config, partition_key_parts=parts)) as target:
        yield target


async def _parts(target: S3Target) -> tuple[str, ...]:
    async with aclosing(target.calls.list_pages(target.keys.data_root, max_keys=100)) as pages:
        async for page in pages:
            for listed in page.objects:
                partition, name = target.keys.split_data_key(listed.key) or ("", "")
                if layout.split_data_name(name) or layout.commit_token(name):
                    return tuple(each.partition("=")[0] for each in partition.split("/"))
    return ()


# --- ls


@dataclass(frozen=True, slots=True)
class Partition:
    """The committed files of one partition; `size` in bytes."""

    key: str
    files: int
    size: int
    newest: datetime


@dataclass(frozen=True, slots=True)
class Contents:
    """What a snapshot of a dataset consists of."""

    bucket: str
    prefix: str
    partitions: list[Partition]
    files: int
    size: int


async def contents(target: S3Target, patterns: Sequence[str]) -> Contents:
    """Return the partitions that match; raises KeyPatternError."""
    by_key: dict[str, list[DataFile]] = {}
    for file in await _committed(target, patterns):
        by_key.setdefault(file.partition, []).append(file)
    partitions = [
        Partition(key, len(files), sum(f.size for f in files), max(f.last_modified for f in files))
        for key, files in by_key.items()
    ]
    files, size = sum(p.files for p in partitions), sum(p.size for p in partitions)
    return Contents(target.bucket, target.prefix, partitions, files, size)


async def _committed(target: S3Target, patterns: Sequence[str]) -> list[DataFile]:
    if not target.partition_key_parts:
        return []
    reader: AsyncReader[Any] = AsyncReader(target, _ANY)
    return await reader.committed_files(list(patterns) or "*")


# --- backfill


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What a backfill did, and for which view."""

    view: str
    columns: list[str]
    stats: BackfillStats


async def backfill(
    target: S3Target,
    view: MaterializedView[Any],
    patterns: Sequence[str],
    *,
    until: datetime | None = None,
    skip_existing: bool = False,
    progress: Progress = SILENT,
) -> Backfilled:
    """Fill a view of columns that the data files have; raises ConfigError, DecodeError."""
    files = await _committed(target, patterns)
    stats = BackfillStats()
    if files:
        schema = await _schema(target, files[-1], view.columns)
        told = BackfillProgress(0, 0, 0, 0)

        def on_progress(now: BackfillProgress) -> None:
            nonlocal told
            progress.found(now.all_files - told.all_files, now.all_size - told.all_size)
            progress.done(now.files - told.files, now.size - told.size)
            told = now

        stats = await backfill_view(
            target,
            schema,
            view,
            list(patterns) or "*",
            until=until,
            skip_existing=skip_existing,
            on_progress=on_progress,
        )
    return Backfilled(view.name, list(view.columns), stats)


async def _schema(target: S3Target, file: DataFile, columns: Sequence[str]) -> pa.Schema:
    """The columns as a data file has them."""
    fetched = await Fetcher(target.calls, target.telemetry, columns).fetch(file.key, file.size)
    found = parquet.open_file(fetched.source, file.key).schema_arrow
    if absent := [name for name in columns if name not in found.names]:
        has = ", ".join(found.names)
        raise ConfigError(f"{file.key}: has no column {absent[0]!r}; it has {has}")
    return pa.schema([found.field(name) for name in columns])


# --- doctor


@dataclass(slots=True)
class Odd:
    """Objects of one kind that need a look: how many, and the first of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, key: str) -> None:
        """Note an object."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(key)


@dataclass(slots=True)
class Examination:
    """What a dataset holds, by its names alone.

    `without_data` and `malformed_refs` are damage; the others are what failed writes leave behind,
    which readers do not see, or objects of somebody else.
    """

    bucket: str
    prefix: str
    commit_timeout: float
    max_clock_skew: float
    parts: list[str]
    data_files: int = 0
    commits: int = 0
    refs: int = 0
    views: dict[str, int] = field(default_factory=dict)
    uncommitted: Odd = field(default_factory=Odd)
    several_attempts: Odd = field(default_factory=Odd)
    foreign: Odd = field(default_factory=Odd)
    without_data: Odd = field(default_factory=Odd)
    malformed_refs: Odd = field(default_factory=Odd)

    @property
    def is_sound(self) -> bool:
        """Whether nothing that was committed is missing or unreadable by its name."""
        return not (self.without_data.count or self.malformed_refs.count)


async def examine(target: S3Target, progress: Progress = SILENT) -> Examination:
    """List the whole dataset and tell what is there; no object is fetched."""
    found = Examination(
        target.bucket,
        target.prefix,
        target.commit_timeout.total_seconds(),
        target.max_clock_skew.total_seconds(),
        list(target.partition_key_parts),
    )
    await _examine_data(target, found, progress)
    async for key in _keys(target, target.keys.ref_root, progress):
        found.refs += 1
        if layout.parse_ref(key) is None:
            found.malformed_refs.add(key)
    root = target.keys.view_root("")[:-1]
    async for key in _keys(target, root, progress):
        view = key[len(root) :].partition("/")[0]
        found.views[view] = found.views.get(view, 0) + 1
    return found


async def _examine_data(target: S3Target, found: Examination, progress: Progress) -> None:
    attempts: dict[tuple[str, str], list[str]] = {}
    commits: dict[tuple[str, str], str] = {}
    async for key in _keys(target, target.keys.data_root, progress):
        partition, name = target.keys.split_data_key(key) or ("", "")
        if data := layout.split_data_name(name):
            attempts.setdefault((partition, data[0]), []).append(key)
        elif token := layout.commit_token(name):
            commits[partition, token] = key
        else:
            found.foreign.add(key)
    found.data_files = sum(map(len, attempts.values()))
    found.commits = len(commits)
    for slot, keys in attempts.items():
        if slot not in commits:
            for key in keys:
                found.uncommitted.add(key)
        elif len(keys) > 1:
            found.several_attempts.add(commits[slot])
    for slot, key in commits.items():
        if slot not in attempts:
            found.without_data.add(key)


async def _keys(target: S3Target, root: str, progress: Progress) -> AsyncIterator[str]:
    async with aclosing(target.calls.list_pages(root)) as pages:
        async for page in pages:
            size = sum(listed.size for listed in page.objects)
            progress.found(len(page.objects), size)
            progress.done(len(page.objects), size)
            for listed in page.objects:
                yield listed.key
