"""Versions as a client should see them: complete pages, no internal keys, logical sizes and ETags.

Rule: the same as for `listing`. Pages are refilled until they hold what was asked for or the
backend has no more; a page ends behind the last entry it shows, so its markers never name anything
internal and any instance goes on from them.

SeaweedFS finds the versions of `k.s4index` before those of `k`, sorts a page afterwards, and goes
on behind the page's last name. A page that ends with a sidecar may therefore lack versions of its
object and is only believed up to there; elsewhere this costs a few entries read twice.
"""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote

from s4gateway.objects.cache import AttributeCache, KnownObject
from s4gateway.objects.listing import (
    PAGE_LIMIT,
    PLAIN_DELIMITERS,
    FetchPage,
    Sizer,
    raw_name,
    root_prefix_end,
)
from s4gateway.s3.errors import S3Error
from s4gateway.s3.versions import NULL_VERSION, ListedVersion, VersionPage
from s4gateway.wire import keys

OLD_VERSIONS: Final = 50_000  # entries of the memory for versions that are not the current one
_FIRST_LOOK: Final = 10


@dataclass(frozen=True, slots=True)
class VersionRequest:
    """What a client asked for; `others` are further query parameters, passed on as they are."""

    prefix: str = ""
    delimiter: str = ""
    max_keys: int = PAGE_LIMIT
    key_marker: str = ""
    version_id_marker: str = ""
    others: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Position:
    """Behind a version of a key; behind all of them, or behind a common prefix, without one."""

    key: str = ""
    version_id: str = ""


@dataclass(slots=True)
class _Found:
    """The visible part of what was read."""

    entries: list[ListedVersion] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.entries) + len(self.prefixes)

    def add(self, other: "_Found") -> None:
        """Take what the next page holds."""
        self.entries += other.entries
        self.prefixes += other.prefixes

    def keep(self, key: str) -> None:
        """Drop what comes behind `key`, which is the last read of what stays."""
        last = raw_name(key)
        self.entries = [each for each in self.entries if raw_name(each.key) <= last]
        self.prefixes = [each for each in self.prefixes if raw_name(each) <= last]

    def cut(self, count: int) -> None:
        """Keep the first `count` names, in the order in which markers go on behind them."""
        names = sorted(
            [(raw_name(each.key), at, 0) for at, each in enumerate(self.entries)]
            + [(raw_name(each), at, 1) for at, each in enumerate(self.prefixes)]
        )[:count]
        folded = sum(kind for _, _, kind in names)
        del self.entries[len(names) - folded :]
        del self.prefixes[folded:]

    def end(self) -> _Position:
        """Where the client goes on."""
        last = [_Position(each.key, each.version_id) for each in self.entries[-1:]]
        last += [_Position(each) for each in self.prefixes[-1:]]
        return max(last, key=lambda each: raw_name(each.key))


class _Walk:
    """Backend pages of one listing, one after the other, what is internal left out."""

    def __init__(self, request: VersionRequest, fetch: FetchPage, position: _Position) -> None:
        self._request = request
        self._fetch = fetch
        self._position = position
        self.answer = VersionPage()
        self.hidden_seen = False
        self.at_end = False

    async def read(self, count: int) -> _Found:
        """The visible ones of the next `count` names, or of fewer, going on behind those."""
        query = _query(self._request, self._position, count)
        answer = self.answer = VersionPage.parse(await self._fetch(query))
        found = _Found(
            [each for each in answer.entries if not keys.is_hidden(each.key)],
            [each for each in answer.common_prefixes if await self._is_shown(each)],
        )
        if len(found) < len(answer.entries) + len(answer.common_prefixes):
            self.hidden_seen = True
        self.at_end = not answer.is_truncated
        if not self.at_end:
            self._advance(found, count)
        return found

    async def _is_shown(self, prefix: str) -> bool:
        if keys.is_hidden_prefix(prefix):
            return False
        if self._request.delimiter in PLAIN_DELIMITERS:
            return True
        return await _Walk(VersionRequest(prefix), self._fetch, _Position()).any_visible()

    def _advance(self, found: _Found, count: int) -> None:
        """Go on behind the page, or behind the part of it that is surely complete."""
        answer = self.answer
        if answer.next_key_marker is None:
            raise S3Error("InternalError", "The backend's listing does not say where it goes on.")
        following = _Position(answer.next_key_marker, answer.next_version_id_marker or "")
        before = self._before_object_of(following.key)
        # Without progress, a larger page may tell more; the largest is taken as it is.
        if before is not None and (before != self._position or count < PAGE_LIMIT):
            if before == self._position:
                found.entries, found.prefixes = [], []
            else:
                found.keep(before.key)
            following = before
        elif end := root_prefix_end(following.key):
            following = _Position(end)
        self._position = following

    def _before_object_of(self, key: str) -> _Position | None:
        """Where the versions of the object go on that the sidecar `key` belongs to."""
        if not key.endswith(keys.SIDECAR_SUFFIX):
            return None
        name = key.removesuffix(keys.SIDECAR_SUFFIX)
        position = self._position
        seen = [each.version_id for each in self.answer.entries if each.key == name]
        if seen:
            return _Position(name, seen[-1])
        if position.key == name and position.version_id:
            return position
        marker = _just_before(name)
        if marker is None or raw_name(position.key) > raw_name(marker):
            return None
        return _Position(marker)

    async def any_visible(self) -> bool:
        """Whether anything a client may see is left."""
        count = _FIRST_LOOK
        while not self.at_end:
            if await self.read(count):
                return True
            count = min(PAGE_LIMIT, 10 * count)
        return False


def _just_before(key: str) -> str | None:
    """A name behind which `key` comes next, as far as keys are text; None when there is none."""
    last = key[-1:]
    if last <= " " or "\ud800" <= last <= "\udfff":
        return None
    below = "\ud7ff" if last == "\ue000" else chr(ord(last) - 1)
    return f"{key[:-1]}{below}\U0010ffff"


async def visible_versions(request: VersionRequest, fetch: FetchPage) -> VersionPage:
    """Collect one page of visible versions and delete markers; raises BackendError, S3Error.

    `fetch` sends one listing request with the given query. The result names no internal key, and
    its sizes and ETags are still the backend's.
    """
    walk = _Walk(request, fetch, _Position(request.key_marker, request.version_id_marker))
    page = _Found()
    wanted = ask = request.max_keys
    if wanted == 0 or keys.is_hidden_prefix(request.prefix):
        await walk.read(1)  # one request all the same: the store judges bucket and client
        return _finished(request, walk.answer, _Found(), more=False)
    while True:
        page.add(await walk.read(ask))
        missing = wanted - len(page)
        if missing < 0:
            page.cut(wanted)
            return _finished(request, walk.answer, page, more=True)
        if walk.at_end:
            return _finished(request, walk.answer, page, more=False)
        if missing == 0:
            more = not walk.hidden_seen or await walk.any_visible()
            return _finished(request, walk.answer, page, more=more)
        ask = min(PAGE_LIMIT, max(2 * missing + 2, 2 * ask)) if walk.hidden_seen else missing


def _query(request: VersionRequest, position: _Position, count: int) -> str:
    pairs = [
        ("encoding-type", "url"),
        ("max-keys", str(count)),
        ("prefix", request.prefix),
        ("versions", ""),
        *request.others,
    ]
    if request.delimiter:
        pairs.append(("delimiter", request.delimiter))
    if position.key:
        pairs.append(("key-marker", position.key))
    if position.version_id:
        pairs.append(("version-id-marker", position.version_id))
    return "&".join(f"{name}={quote(raw_name(value), safe='')}" for name, value in sorted(pairs))


def _finished(
    request: VersionRequest, answer: VersionPage, page: _Found, *, more: bool
) -> VersionPage:
    following = page.end() if more else _Position()
    return replace(
        answer,
        prefix=request.prefix,
        max_keys=request.max_keys,
        is_truncated=more,
        entries=tuple(page.entries),
        common_prefixes=tuple(page.prefixes),
        key_marker=request.key_marker,
        version_id_marker=request.version_id_marker,
        next_key_marker=following.key or None,
        next_version_id_marker=following.version_id or None,
    )


class VersionSizer:
    """Replaces stored sizes and backend ETags of listed versions by what clients know.

    The current version shares the memory of the plain listings. Older ones have a smaller one of
    their own, by key and ETag, so that a new version of a key does not push the others out, and
    walking through old versions does not push out current ones. What is not known is asked for by
    version id, and believed only with the ETag that was listed.
    """

    def __init__(self, sizer: Sizer, current: AttributeCache, limit: int = OLD_VERSIONS) -> None:
        self._sizer = sizer
        self._current = current
        self._older = AttributeCache(limit)

    async def sized(
        self, bucket: str, entries: tuple[ListedVersion, ...]
    ) -> tuple[tuple[ListedVersion, ...], int, int]:
        """Return the entries, how many were known, and how many had to be asked for."""
        found = list(entries)
        unknown: list[int] = []
        for position, entry in enumerate(entries):
            if not entry.size or not entry.etag:
                continue
            known = self._lookup(bucket, entry)
            if known is None:
                unknown.append(position)
            else:
                found[position] = _shown(entry, known)
        if unknown:
            asked = await asyncio.gather(*(self._ask(bucket, entries[each]) for each in unknown))
            for position, known in zip(unknown, asked, strict=True):
                if known is not None:
                    found[position] = _shown(entries[position], known)
        return tuple(found), len(entries) - len(unknown), len(unknown)

    def _lookup(self, bucket: str, entry: ListedVersion) -> KnownObject | None:
        etag, size = entry.etag or "", entry.size or 0
        known = self._current.lookup((bucket, entry.key), etag, size)
        return known or self._older.lookup((bucket, f"{etag}/{entry.key}"), etag, size)

    async def _ask(self, bucket: str, entry: ListedVersion) -> KnownObject | None:
        name = (bucket, entry.key)
        version = "" if entry.version_id == NULL_VERSION and entry.is_latest else entry.version_id
        query = f"versionId={quote(version, safe='')}" if version else ""
        known = await self._sizer.ask(name, query)
        if known is None or (known.etag, known.stored_size) != (entry.etag, entry.size):
            return None  # replaced meanwhile: the listing shows what it was told
        if entry.is_latest:
            self._current.remember(name, known)
        else:
            self._older.remember((bucket, f"{known.etag}/{entry.key}"), known)
        return known


def _shown(entry: ListedVersion, known: KnownObject) -> ListedVersion:
    if known.logical_size == known.stored_size and known.logical_etag == known.etag:
        return entry
    return entry.shown_as(known.logical_size, known.logical_etag)
