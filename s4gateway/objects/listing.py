"""Listings as a client should see them: complete pages, no internal keys, logical sizes and ETags.

Rule: a page never comes back short or empty because internal keys were left out. Pages are refilled
from the backend until they hold what was asked for or the backend has no more; whether there is
more, and where it goes on, is therefore always the truth about visible keys. Tokens carry the
position themselves, so any instance can continue a listing that another began.

A sidecar stands right behind its object, so in a bucket of large objects every second key is
internal: refills ask for twice what is missing, and for more each time nothing was found. A page
that then holds too much is cut behind a key; where common prefixes are among its names, whose order
stores do not agree on, so much less is asked for once more instead.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from urllib.parse import quote

from s4gateway.backend.base import Backend, BackendError
from s4gateway.objects.attributes import describe, with_tail
from s4gateway.objects.cache import AttributeCache, KnownObject, ObjectName
from s4gateway.objects.opening import Source
from s4gateway.s3.documents import ListedObject, ListPage, new_entry
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys

PAGE_LIMIT: Final = 1000
_FIRST_LOOK: Final = 10
PLAIN_DELIMITERS: Final = ("/", "")  # those that cut no internal name; without one nothing folds
_BEHIND_KEY: Final = "s4k."
_AT_BACKEND: Final = "s4t."
_RAW: Final = "surrogateescape"  # how keys that are no UTF-8 stand in a page

FetchPage = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class ListRequest:
    """What a client asked for; `after` is a marker or start-after, `token` a continuation token.

    An empty token stands for the listing's beginning. `others` are further query parameters, passed
    on as they are.
    """

    version: int
    prefix: str = ""
    delimiter: str = ""
    max_keys: int = PAGE_LIMIT
    after: str = ""
    token: str | None = None
    others: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Position:
    """Where the backend goes on: behind a key, or at a token of its own."""

    after: str = ""
    token: str | None = None


def _start(request: ListRequest) -> _Position:
    token = request.token
    if not token:
        return _Position(request.after)
    if token.startswith(_BEHIND_KEY):
        try:
            raw = base64.b64decode(token.removeprefix(_BEHIND_KEY), b"-_", validate=True)
            text = raw.decode(errors=_RAW)
        except (binascii.Error, ValueError) as error:
            raise S3Error(
                "InvalidArgument", "The continuation token provided is incorrect"
            ) from error
        return _Position(text)
    return _Position(token=token.removeprefix(_AT_BACKEND))


def raw_name(name: str) -> bytes:
    """A name as the store has it, by which it also orders names."""
    return name.encode(errors=_RAW)


def root_prefix_end(key: str) -> str | None:
    """A name behind everything internal below `key`'s reserved root prefix; None elsewhere.

    Nothing below such a prefix is visible, so a listing need not read through it.
    """
    for prefix in keys.ROOT_PREFIXES:
        if key.startswith(prefix):
            return f"{prefix}\U0010ffff"
    return None


def _token(position: _Position) -> str:
    if position.token is not None:
        return _AT_BACKEND + position.token
    return _BEHIND_KEY + base64.urlsafe_b64encode(raw_name(position.after)).decode()


def _query(request: ListRequest, position: _Position, count: int) -> str:
    pairs = [("prefix", request.prefix), ("max-keys", str(count)), ("encoding-type", "url")]
    if request.delimiter:
        pairs.append(("delimiter", request.delimiter))
    if request.version == 2:
        pairs.append(("list-type", "2"))
        if position.token is not None:
            pairs.append(("continuation-token", position.token))
        elif position.after:
            pairs.append(("start-after", position.after))
    elif position.after:
        pairs.append(("marker", position.after))
    pairs.extend(request.others)
    return "&".join(f"{name}={quote(raw_name(value), safe='')}" for name, value in sorted(pairs))


class _Page:
    """The visible part of a listing while it is being collected."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.contents: list[ListedObject] = []
        self.prefixes: list[str] = []
        self.hidden_seen = False
        self.next: _Position | None = None

    @property
    def missing(self) -> int:
        return self.wanted - len(self.contents) - len(self.prefixes)

    def add(self, other: "_Page") -> None:
        """Take what the next page holds."""
        self.contents += other.contents
        self.prefixes += other.prefixes
        self.hidden_seen |= other.hidden_seen

    def cut(self) -> None:
        """Keep what was asked for, of a page without prefixes, and go on behind it."""
        last, dropped = (entry.key for entry in self.contents[self.wanted - 1 : self.wanted + 1])
        del self.contents[self.wanted :]
        # To SeaweedFS all of "a/" stands at "a": only "a/" is behind the one and before the other.
        inside = f"{last}/"
        self.next = _Position(inside if dropped.startswith(inside) and dropped != inside else last)


async def visible_page(request: ListRequest, fetch: FetchPage) -> ListPage:
    """Collect one page of visible keys; raises BackendError, S3Error.

    `fetch` sends one listing request with the given query. The result names no internal key, and
    its sizes and ETags are still the backend's.
    """
    page = _Page(request.max_keys)
    position = _start(request)
    ask = request.max_keys
    if ask == 0 or keys.is_hidden_prefix(request.prefix):
        # One request all the same: the store judges bucket, client and token.
        answer = ListPage.parse(await fetch(_query(request, position, min(ask, 1))))
        return _finished(request, page, answer)
    while True:
        answer = ListPage.parse(await fetch(_query(request, position, ask)))
        found = await _visible(request, answer, fetch)
        if -found.missing > page.missing and (page.prefixes or found.prefixes):
            fewer = _names_up_to(answer, found, page.missing)
            if fewer < ask:
                ask = fewer
                continue
        page.add(found)
        position = _following(request, answer)
        if page.missing < 0 and not page.prefixes:
            page.cut()
        elif answer.is_truncated and page.missing > 0:
            ask = _next_count(page, ask)
            continue
        elif answer.is_truncated:
            more = not page.hidden_seen or await _any_visible(request, position, fetch)
            page.next = position if more else None
        return _finished(request, page, answer)


def _next_count(page: _Page, ask: int) -> int:
    if not page.hidden_seen:
        return page.missing
    return min(PAGE_LIMIT, max(2 * page.missing + 2, 2 * ask))


def _names_up_to(answer: ListPage, found: _Page, missing: int) -> int:
    """How many of the backend's names hold the first `missing` visible ones, in order of bytes."""
    shown = sorted(map(raw_name, [each.key for each in found.contents] + found.prefixes))
    names = [each.key for each in answer.contents] + list(answer.common_prefixes)
    return sum(raw_name(name) <= shown[missing - 1] for name in names)


async def _visible(request: ListRequest, answer: ListPage, fetch: FetchPage) -> _Page:
    """What a client may see of a page of the backend."""
    page = _Page(0)
    page.contents = list(answer.contents)
    if keys.may_hide("\n".join([entry.key for entry in answer.contents])):
        page.contents = [entry for entry in answer.contents if not keys.is_hidden(entry.key)]
        page.hidden_seen = len(page.contents) < len(answer.contents)
    for prefix in answer.common_prefixes:
        odd = request.delimiter not in PLAIN_DELIMITERS
        if keys.is_hidden_prefix(prefix) or (odd and not await _holds_visible(prefix, fetch)):
            page.hidden_seen = True
        else:
            page.prefixes.append(prefix)
    return page


async def _holds_visible(prefix: str, fetch: FetchPage) -> bool:
    """Whether a common prefix stands for more than a sidecar whose name an odd delimiter cut."""
    return await _any_visible(ListRequest(2, prefix=prefix), _Position(), fetch)


async def _any_visible(request: ListRequest, position: _Position, fetch: FetchPage) -> bool:
    """Whether anything a client may see is left behind `position`."""
    count = _FIRST_LOOK
    while True:
        answer = ListPage.parse(await fetch(_query(request, position, count)))
        found = await _visible(request, answer, fetch)
        if found.contents or found.prefixes:
            return True
        if not answer.is_truncated:
            return False
        position = _following(request, answer)
        count = min(PAGE_LIMIT, 10 * count)


def _following(request: ListRequest, answer: ListPage) -> _Position:
    if not request.delimiter and answer.is_truncated and answer.contents:
        end = root_prefix_end(answer.contents[-1].key)
        if end is not None:
            return _Position(end)
    if request.version == 2 and answer.next_continuation_token:
        return _Position(token=answer.next_continuation_token)
    if answer.next_marker:
        return _Position(answer.next_marker)
    names = [entry.key for entry in answer.contents[-1:]] + list(answer.common_prefixes[-1:])
    if answer.is_truncated and not names:
        raise S3Error("InternalError", "The backend's listing does not say where it goes on.")
    return _Position(max(names, key=raw_name) if names else "")


def _finished(request: ListRequest, page: _Page, answer: ListPage) -> ListPage:
    following = page.next
    result = replace(
        answer,
        prefix=request.prefix,
        max_keys=request.max_keys,
        contents=tuple(page.contents),
        common_prefixes=tuple(page.prefixes),
        is_truncated=following is not None,
        continuation_token=request.token,
        next_continuation_token=None,
        next_marker=None,
    )
    if request.version == 2:
        return replace(
            result,
            key_count=len(page.contents) + len(page.prefixes),
            next_continuation_token=None if following is None else _token(following),
            start_after=request.after or None,
        )
    marker = request.after
    if following is not None:
        next_marker = _visible_marker(page, following)
        # Without a delimiter clients go on behind the last key, unless they are told otherwise.
        if request.delimiter or next_marker != page.contents[-1].key:
            return replace(result, marker=marker, next_marker=next_marker)
    return replace(result, marker=marker)


def _visible_marker(page: _Page, following: _Position) -> str:
    """Where the store goes on; behind an internal name, the last visible one is as good.

    The last one in the store's own order, in which it says where it goes on.
    """
    after = following.after
    names = [entry.key for entry in page.contents] + page.prefixes
    if any(name.removesuffix("/") == after.removesuffix("/") for name in names):
        return after
    passed = [name for name in names if raw_name(name) <= raw_name(after)]
    return max(passed or names, key=raw_name)


class Sizer:
    """Replaces stored sizes and backend ETags of listed objects by what clients know.

    What the attribute cache does not know is asked with one HEAD each, and a small read where that
    says that the object's end tells; `concurrency` at a time in the whole process.
    """

    def __init__(self, backend: Backend, cache: AttributeCache, concurrency: int) -> None:
        self._backend = backend
        self._cache = cache
        self._gate = asyncio.Semaphore(concurrency)

    async def sized(
        self, bucket: str, entries: tuple[ListedObject, ...]
    ) -> tuple[tuple[ListedObject, ...], int, int]:
        """Return the entries, how many were known, and how many had to be asked for."""
        known = self._cache.lookup_page(bucket, entries)
        found = list(map(_shown, entries, known))
        unknown: list[int] = []
        if not all(known):
            unknown = [
                position
                for position, (entry, fact) in enumerate(zip(entries, known, strict=True))
                if fact is None and entry.size and entry.etag is not None
            ]
            asked = await asyncio.gather(
                *(self._learn((bucket, entries[position].key)) for position in unknown)
            )
            for position, fact in zip(unknown, asked, strict=True):
                found[position] = _shown(entries[position], fact)
        return tuple(found), len(entries) - len(unknown), len(unknown)

    async def _learn(self, name: ObjectName) -> KnownObject | None:
        known = await self.ask(name)
        if known is not None:
            self._cache.remember(name, known)
        return known

    async def ask(self, name: ObjectName, query: str = "") -> KnownObject | None:
        """Ask the backend for one object or version; None when it is gone or not readable.

        The listing then shows what it was told.
        """
        async with self._gate:
            source = Source(self._backend, name, query)
            try:
                attributes = describe(await self._backend.head(*name, query=query))
                read = partial(source.read, attributes.head.etag)
                return (await with_tail(attributes, name, read, self._cache.tails)).known()
            except BackendError:
                return None


def _shown(entry: ListedObject, known: KnownObject | None) -> ListedObject:
    if known is None:
        return entry
    size, etag = known.logical_size, known.logical_etag
    key, stored_size, stored_etag, modified, storage_class, _, _, others = entry
    if size == stored_size and etag == stored_etag:
        return entry
    # Checksums listed by the backend are those of the stored bytes.
    return new_entry((key, size, etag, modified, storage_class, (), None, others))
