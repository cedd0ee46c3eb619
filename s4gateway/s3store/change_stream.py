"""The change stream: refs in the order of their stamps, let through by their commit markers.

Rule: nothing is read that is not final. A ref stamped less than the settle window before this
reader's clock is not looked at, because its commit, or an earlier ref, may still come. Past that,
an outcome never changes: what is malformed or uncommitted is passed over and the offset moves on.
"""

import logging
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final

from s4gateway.s3store import clock, layout
from s4gateway.s3store.commit import Commit
from s4gateway.s3store.errors import ConfigError, CrossStoreError
from s4gateway.s3store.fan_out import fan_out
from s4gateway.s3store.results import Offset, PollPage, StreamEntry
from s4gateway.s3store.target import S3Target
from s4gateway.s3store.telemetry import Method

_log = logging.getLogger(__name__)

PAGE: Final = 1000
_Slot = tuple[str, str]  # partition, token
Commits = dict[_Slot, Commit | None]


class ChangeStream:
    """Reads a target's refs."""

    def __init__(self, target: S3Target) -> None:
        self._target = target
        self._keys = target.keys

    def offset_at(self, moment: datetime) -> Offset:
        """Return the offset that is below all refs stamped at `moment` or later."""
        return self._keys.offset(clock.to_us(moment))

    def tip(self) -> Offset:
        """Return the offset up to which the stream is final now."""
        return self._keys.offset(self._target.clock.now_us() - self._target.timing.settle_us)

    async def poll(
        self,
        since: Offset | None,
        max_entries: int,
        until: Offset | None,
        commits: Commits | None = None,
    ) -> PollPage:
        """Return up to `max_entries` entries after `since` and the offset to continue at.

        No entries means that there is nothing more to be had now.
        """
        with self._target.telemetry.method("poll") as method:
            if max_entries <= 0:
                raise ConfigError(f"max_entries: {max_entries} is not positive")
            for position, offset in enumerate((since, until)):
                if offset and not offset.startswith(self._keys.ref_root):
                    raise CrossStoreError(offset, self._keys.ref_root, position)
            end = min(self.tip(), until) if until else self.tip()
            commits = {} if commits is None else commits
            walk = _Walk(self._target, method, Offset(since or ""), max_entries, commits)
            await walk.to(end)
            method.records = len(walk.entries)
            return PollPage(walk.entries, walk.offset)

    async def between(self, since: Offset | None, until: Offset) -> list[StreamEntry]:
        """Return all entries from `since` up to, not including, `until`, in their order."""
        entries: list[StreamEntry] = []
        commits: Commits = {}
        while True:
            page = await self.poll(since, PAGE, until, commits)
            if not page.entries:
                return entries
            entries += page.entries
            since = page.next_offset


class _Walk:
    """One poll: what it has accepted, and how far it has come."""

    def __init__(
        self,
        target: S3Target,
        method: Method,
        since: Offset,
        max_entries: int,
        commits: Commits,
    ) -> None:
        self.entries: list[StreamEntry] = []
        self.offset = since
        self._target = target
        self._keys = target.keys
        self._method = method
        self._max_entries = max_entries
        self._commits = commits

    @property
    def _missing(self) -> int:
        return self._max_entries - len(self.entries)

    async def to(self, end: Offset) -> None:
        """Visit refs until there are enough entries or none is left below `end`."""
        pages = self._target.calls.list_pages(
            self._keys.ref_root, start_after=self.offset, max_keys=min(self._max_entries, PAGE)
        )
        async with aclosing(pages):
            async for page in pages:
                keys = [listed.key for listed in page.objects]
                below = [key for key in keys if key < end]
                await self._visit(below)
                if len(below) < len(keys) or not self._missing:
                    return

    async def _visit(self, keys: Sequence[str]) -> None:
        """Take refs in their order, asking at one go for the markers of all that may be wanted."""
        position = 0
        while self._missing and position < len(keys):
            batch = keys[position : position + self._missing]
            refs = [(key, layout.parse_ref(key)) for key in batch]
            await self._ask([ref for _, ref in refs if ref is not None])
            for key, ref in refs:
                self._take(key, ref)
            position += len(batch)

    async def _ask(self, refs: Sequence[layout.Ref]) -> None:
        slots = dict.fromkeys((ref.partition, ref.token) for ref in refs)
        unknown = [slot for slot in slots if slot not in self._commits]
        self._method.count("s3store.read.commit_head", len(unknown))
        self._method.count("s3store.read.commit_head_cache_hit", len(refs) - len(unknown))
        calls = self._target.calls
        found = await fan_out(self._target.telemetry, unknown, self._commit, calls.limit)
        self._commits.update(zip(unknown, found, strict=True))

    async def _commit(self, slot: _Slot) -> Commit | None:
        key = self._keys.commit(*slot)
        head = await self._target.calls.head(key)
        return None if head is None else Commit.parse(key, head.metadata)

    def _take(self, key: str, ref: layout.Ref | None) -> None:
        self.offset = Offset(key)
        if ref is None:
            _log.warning("%s: no writer makes such a ref, it is passed over; remove it", key)
            self._method.count("s3store.read.malformed_refs")
            return
        commit = self._commits[ref.partition, ref.token]
        if commit is None or commit.attempt != ref.attempt:
            return
        self.entries.append(
            StreamEntry(
                self.offset,
                ref.partition,
                self._keys.data(ref.partition, ref.token, ref.attempt),
                key,
                clock.from_us(ref.us),
                commit.rows,
            )
        )
