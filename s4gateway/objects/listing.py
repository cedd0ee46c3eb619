"""Listings as a client should see them: complete pages, no internal keys, logical sizes and ETags.

Rule: a page never comes back short or empty because internal keys were left out. Pages are refilled
from the backend until they hold what was asked for or the backend has no more; whether there is
more, and where it goes on, is therefore always the truth about visible keys. Tokens carry the
position themselves, so any instance can continue a listing that another began.

A sidecar stands right behind its object, so in a bucket of large objects every second key is
internal: refills ask for twice what is missing and cut, instead of halving their way to the end.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from s4gateway.backend.base import Backend, BackendError
from s4gateway.objects.attributes import describe
from s4gateway.objects.cache import AttributeCache, KnownObject, ObjectName
from s4gateway.s3.documents import ListedObject, ListPage
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys

PAGE_LIMIT: Final = 1000
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


def _raw(name: str) -> bytes:
    """A name as the store has it, by which it also orders names."""
    return name.encode(errors=_RAW)


def _token(position: _Position) -> str:
    if position.token is not None:
        return _AT_BACKEND + position.token
    return _BEHIND_KEY + base64.urlsafe_b64encode(_raw(position.after)).decode()


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
    return "&".join(f"{name}={quote(_raw(value), safe='')}" for name, value in sorted(pairs))


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
    while True:
        answer = ListPage.parse(await fetch(_query(request, position, _ask(request, page))))
        if request.max_keys == 0:
            return _finished(request, page, answer)
        await _take(request, page, answer, fetch)
        position = _following(request, answer)
        if page.missing < 0 and not page.prefixes:
            page.cut()
        elif answer.is_truncated and page.missing > 0:
            continue
        elif answer.is_truncated:
            more = not page.hidden_seen or await _any_visible(request, position, fetch)
            page.next = position if more else None
        return _finished(request, page, answer)


def _ask(request: ListRequest, page: _Page) -> int:
    if not request.delimiter and page.hidden_seen:
        return min(PAGE_LIMIT, 2 * page.missing + 2)
    return page.missing


async def _take(request: ListRequest, page: _Page, answer: ListPage, fetch: FetchPage) -> None:
    for entry in answer.contents:
        if keys.is_hidden(entry.key):
            page.hidden_seen = True
        else:
            page.contents.append(entry)
    for prefix in answer.common_prefixes:
        if keys.is_hidden_prefix(prefix) or (
            request.delimiter != "/" and not await _holds_visible(prefix, fetch)
        ):
            page.hidden_seen = True
        else:
            page.prefixes.append(prefix)


async def _holds_visible(prefix: str, fetch: FetchPage) -> bool:
    """Whether a common prefix stands for more than a sidecar whose name an odd delimiter cut."""
    inside = ListRequest(2, prefix=prefix, max_keys=1)
    position = _Position()
    while True:
        answer = ListPage.parse(await fetch(_query(inside, position, 2)))
        if any(not keys.is_hidden(entry.key) for entry in answer.contents):
            return True
        if not answer.is_truncated:
            return False
        position = _following(inside, answer)


async def _any_visible(request: ListRequest, position: _Position, fetch: FetchPage) -> bool:
    """Whether anything a client may see is left behind `position`."""
    while True:
        page = _Page(PAGE_LIMIT)
        answer = ListPage.parse(await fetch(_query(request, position, 10)))
        await _take(request, page, answer, fetch)
        if page.contents or page.prefixes:
            return True
        if not answer.is_truncated:
            return False
        position = _following(request, answer)


def _following(request: ListRequest, answer: ListPage) -> _Position:
    if request.version == 2 and answer.next_continuation_token:
        return _Position(token=answer.next_continuation_token)
    if answer.next_marker:
        return _Position(answer.next_marker)
    names = [entry.key for entry in answer.contents[-1:]] + list(answer.common_prefixes[-1:])
    if answer.is_truncated and not names:
        raise S3Error("InternalError", "The backend's listing does not say where it goes on.")
    return _Position(max(names, key=_raw) if names else "")


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
    """Where the store goes on; behind an internal name, the last visible one is as good."""
    if not keys.is_hidden(following.after):
        return following.after
    names = [entry.key for entry in page.contents[-1:]] + page.prefixes[-1:]
    return max(names, key=_raw)


class Sizer:
    """Replaces stored sizes and backend ETags of listed objects by what clients know.

    What the attribute cache does not know is asked with one HEAD each, `concurrency` at a time in
    the whole process.
    """

    def __init__(self, backend: Backend, cache: AttributeCache, concurrency: int) -> None:
        self._backend = backend
        self._cache = cache
        self._gate = asyncio.Semaphore(concurrency)

    async def sized(
        self, bucket: str, entries: tuple[ListedObject, ...]
    ) -> tuple[tuple[ListedObject, ...], int, int]:
        """Return the entries, how many were known, and how many had to be asked for."""
        found: list[ListedObject] = list(entries)
        unknown: list[int] = []
        for position, entry in enumerate(entries):
            if entry.size == 0 or entry.etag is None:
                continue
            known = self._cache.lookup((bucket, entry.key), entry.etag, entry.size)
            if known is None:
                unknown.append(position)
            else:
                found[position] = _shown(entry, known)
        if unknown:
            asked = await asyncio.gather(
                *(self._ask((bucket, entries[position].key)) for position in unknown)
            )
            for position, known in zip(unknown, asked, strict=True):
                if known is not None:
                    found[position] = _shown(entries[position], known)
        return tuple(found), len(entries) - len(unknown), len(unknown)

    async def _ask(self, name: ObjectName) -> KnownObject | None:
        async with self._gate:
            try:
                known = describe(await self._backend.head(*name)).known()
            except BackendError:
                return None  # gone meanwhile, or not readable: the listing shows what it was told
        if known is not None:
            self._cache.remember(name, known)
        return known


def _shown(entry: ListedObject, known: KnownObject) -> ListedObject:
    if known.logical_size == known.stored_size and known.logical_etag == known.etag:
        return entry
    # Checksums listed by the backend are those of the stored bytes.
    return entry._replace(
        size=known.logical_size,
        etag=known.logical_etag,
        checksum_algorithms=(),
        checksum_type=None,
    )
