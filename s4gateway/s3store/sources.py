"""Which files a read is about: a snapshot's, a stretch of the change stream's, or given ones.

Rule: what a caller gets wrong is told here, when the read is asked for and before any request; the
end of an open stretch is the moment it was asked for. Requests are made when the files are wanted.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from s4gateway.s3store import layout, patterns
from s4gateway.s3store.change_stream import ChangeStream
from s4gateway.s3store.downloading import Wanted
from s4gateway.s3store.errors import CrossStoreError
from s4gateway.s3store.patterns import Pattern
from s4gateway.s3store.resolution import resolve
from s4gateway.s3store.results import Offset, StreamEntry
from s4gateway.s3store.target import S3Target

Patterns = Pattern | Sequence[Pattern]
Files = Callable[[], Awaitable[Sequence[Wanted]]]


class Sources:
    """Finds files of a target."""

    def __init__(self, target: S3Target, stream: ChangeStream) -> None:
        self._target = target
        self._stream = stream

    def plans(self, given: Patterns) -> list[patterns.Plan]:
        """Return the parsed patterns; raises KeyPatternError."""
        return patterns.compile_all(self._target.partition_key_parts, given)

    def snapshot(self, given: Patterns) -> Files:
        """Return the committed files of the patterns; raises KeyPatternError."""
        plans = self.plans(given)

        async def files() -> list[Wanted]:
            found = await resolve(self._target, plans)
            return [Wanted(file.key, file.partition, file.size) for file in found]

        return files

    def range(self, since: datetime | None, until: datetime | None) -> Files:
        """Return the files committed from `since` until before `until`."""
        start, end = self.bounds(since, until)

        async def files() -> list[Wanted]:
            return self.wanted(await self._stream.between(start, end))

        return files

    def bounds(
        self, since: datetime | None, until: datetime | None
    ) -> tuple[Offset | None, Offset]:
        """Return both ends as offsets, that of now for one that is open."""
        start = None if since is None else self._stream.offset_at(since)
        return start, self._stream.tip() if until is None else self._stream.offset_at(until)

    def wanted(self, entries: Iterable[StreamEntry]) -> list[Wanted]:
        """Return the files of entries, each once, with the number of entries that point to it."""
        counted: dict[str, Wanted] = {}
        for index, entry in enumerate(entries):
            split = self._target.keys.split_data_key(entry.data_path)
            if split is None or layout.split_data_name(split[1]) is None:
                raise CrossStoreError(entry.data_path, self._target.keys.data_root, index)
            known = counted.get(entry.data_path)
            counted[entry.data_path] = (
                Wanted(entry.data_path, split[0])
                if known is None
                else replace(known, copies=known.copies + 1)
            )
        return list(counted.values())

    def entries(self, entries: Iterable[StreamEntry]) -> Files:
        """Return the files of given entries; raises CrossStoreError."""
        files = self.wanted(entries)

        async def already() -> Sequence[Wanted]:
            return files

        return already
