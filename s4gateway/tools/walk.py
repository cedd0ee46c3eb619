"""Everything in a bucket, page by page, and work on it with bounded concurrency.

Rule: memory does not grow with the bucket. A listing is read as it is consumed, one page ahead; a
store whose pages do not come forward is refused, not followed for ever. The gateway's own objects
are left out unless they are asked for.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from s4gateway.backend import multipart
from s4gateway.backend.base import Backend, BackendAnswer, BackendProtocolError
from s4gateway.objects.version_listing import VersionRequest, visible_versions
from s4gateway.s3 import query, xml
from s4gateway.s3.documents import ListedObject, ListPage
from s4gateway.s3.errors import S3Error
from s4gateway.s3.versions import NULL_VERSION, VersionPage
from s4gateway.s3.versions import ListedVersion as VersionEntry
from s4gateway.tools.target import Target
from s4gateway.wire import keys

STANDARD: Final = "STANDARD"
_NO_VERSIONS: Final = frozenset({400, 405, 501})

_Item = TypeVar("_Item")
_Page = TypeVar("_Page")


@dataclass(frozen=True, slots=True)
class Listed:
    """One object as a listing shows it: stored size in bytes, ETag without quotes.

    `modified` is None where the store's date cannot be read.
    """

    key: str
    size: int
    etag: str
    modified: datetime | None
    storage_class: str = STANDARD


@dataclass(frozen=True, slots=True)
class ListedVersion:
    """One version of an object, or a delete marker, which has no size and no ETag."""

    key: str
    version_id: str
    is_latest: bool
    is_marker: bool
    size: int
    etag: str
    modified: datetime | None
    storage_class: str = STANDARD


async def walk(
    backend: Backend, target: Target, *, internal: bool = False, limit: int | None = None
) -> AsyncGenerator[Listed, None]:
    """The objects of `target` in key order, at most `limit`; raises BackendError.

    `internal` shows sidecars, dictionaries and upload records, too.
    """
    seen = 0
    async with aclosing(_ahead(lambda page: _list(backend, target, page), _following)) as pages:
        async for page in pages:
            for each in page.contents:
                if not internal and keys.is_hidden(each.key):
                    continue
                if limit is not None and seen >= limit:
                    return
                seen += 1
                yield _listed(each)


async def walk_versions(
    backend: Backend, target: Target, *, internal: bool = False, required: bool = False
) -> AsyncGenerator[ListedVersion, None]:
    """All versions and delete markers of `target`; raises BackendError.

    A store that cannot list versions has none: its objects are their own only version, unless they
    are `required`, of a bucket that is known to keep them. What clients see is read as their
    listings are, for not every store's pages join without gaps; with `internal`, pages are taken as
    the store gives them.
    """
    read = _list_versions if internal else _list_visible_versions
    pages = _ahead(lambda page: read(backend, target, page), _following_version)
    begun = False
    try:
        async with aclosing(pages):
            async for page in pages:
                begun = True
                for each in page.entries:
                    yield _version(each)
    except BackendAnswer as error:
        if begun or required or error.status not in _NO_VERSIONS:
            raise
    else:
        return
    async with aclosing(walk(backend, target, internal=internal)) as objects:
        async for entry in objects:
            yield ListedVersion(
                entry.key,
                NULL_VERSION,
                True,
                False,
                entry.size,
                entry.etag,
                entry.modified,
                entry.storage_class,
            )


async def each(
    items: AsyncIterator[_Item], work: Callable[[_Item], Awaitable[None]], concurrency: int
) -> None:
    """Do `work` on every item, `concurrency` at a time; the first failure ends the rest.

    The failure is raised as it is. What is per object belongs into the report, not raised.
    """
    room = asyncio.Semaphore(concurrency)

    async def one(item: _Item) -> None:
        try:
            await work(item)
        finally:
            room.release()

    try:
        async with asyncio.TaskGroup() as group:
            await room.acquire()
            async for item in items:
                group.create_task(one(item))
                await room.acquire()
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def versioning(backend: Backend, bucket: str) -> str | None:
    """Return "Enabled", "Suspended", or None where the bucket never had versions.

    Raises BackendError. https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketVersioning.html
    """
    path = f"/{query.quote(bucket)}"
    try:
        _, document = await multipart.ask(backend, "GET", path, "versioning=", [])
        return xml.parse(document).findtext("Status") or None
    except BackendAnswer as error:
        if error.status not in _NO_VERSIONS:
            raise
        return None
    except S3Error as error:
        raise BackendProtocolError("the versioning state is malformed") from error


async def _ahead(
    fetch: Callable[[_Page | None], Awaitable[_Page]], more: Callable[[_Page], bool]
) -> AsyncGenerator[_Page, None]:
    """Pages one after the other, the next one asked for while this one is used."""
    page = await fetch(None)
    while True:
        if not more(page):
            yield page
            return
        following = asyncio.ensure_future(fetch(page))
        try:
            yield page
            page = await following
        finally:
            following.cancel()
            if following.done() and not following.cancelled():
                following.exception()  # read: nobody may come for the page


async def _list(backend: Backend, target: Target, after: ListPage | None) -> ListPage:
    """The first page, or the one behind `after`: the store says where its own order goes on.

    SeaweedFS has all of `a/` at `a`, before `a.txt`: behind a key by name it would go on elsewhere.
    """
    pairs = [("encoding-type", "url"), ("list-type", "2"), ("prefix", target.prefix)]
    last = None if after is None else after.contents[-1].key
    if after is not None and after.next_continuation_token:
        pairs.append(("continuation-token", after.next_continuation_token))
    elif last is not None:
        pairs.append(("start-after", last))
    try:
        page = ListPage.parse(await backend.list(target.bucket, query.format_query(pairs)))
    except S3Error as error:
        raise BackendProtocolError("the listing is malformed") from error
    if last is not None and any(each.key == last for each in page.contents):
        raise BackendProtocolError(f"the listing does not come forward: {last!r} again")
    if page.is_truncated and not page.contents:
        raise BackendProtocolError(f"the listing breaks off behind {last!r}")
    return page


def _following(page: ListPage) -> bool:
    return page.is_truncated


async def _list_versions(
    backend: Backend, target: Target, after: VersionPage | None
) -> VersionPage:
    pairs = [("encoding-type", "url"), ("prefix", target.prefix), ("versions", "")]
    if after is not None:
        pairs.append(("key-marker", after.next_key_marker or ""))
        if after.next_version_id_marker:
            pairs.append(("version-id-marker", after.next_version_id_marker))
    try:
        page = VersionPage.parse(await backend.list(target.bucket, query.format_query(pairs)))
    except S3Error as error:
        raise BackendProtocolError("the listing of versions is malformed") from error
    if after is not None and _place(page) == _place(after) and _following_version(page):
        raise BackendProtocolError("the listing of versions does not come forward")
    if page.is_truncated and not page.next_key_marker:
        raise BackendProtocolError("the listing of versions breaks off")
    return page


async def _list_visible_versions(
    backend: Backend, target: Target, after: VersionPage | None
) -> VersionPage:
    request = VersionRequest(target.prefix)
    if after is not None:
        request = VersionRequest(
            target.prefix,
            key_marker=after.next_key_marker or "",
            version_id_marker=after.next_version_id_marker or "",
        )

    async def fetch(raw_query: str) -> bytes:
        return await backend.list(target.bucket, raw_query)

    try:
        page = await visible_versions(request, fetch)
    except S3Error as error:
        raise BackendProtocolError(f"the listing of versions: {error}") from error
    if after is not None and _place(page) == _place(after) and _following_version(page):
        raise BackendProtocolError("the listing of versions does not come forward")
    return page


def _following_version(page: VersionPage) -> bool:
    return page.is_truncated


def _place(page: VersionPage) -> tuple[str | None, str | None]:
    return page.next_key_marker, page.next_version_id_marker


def _listed(entry: ListedObject) -> Listed:
    return Listed(
        entry.key,
        entry.size,
        entry.etag or "",
        parse_moment(entry.last_modified),
        entry.storage_class or STANDARD,
    )


def _version(entry: VersionEntry) -> ListedVersion:
    others = {other.tag: other.text for other in entry.others}
    return ListedVersion(
        entry.key,
        entry.version_id,
        entry.is_latest,
        entry.is_marker,
        entry.size or 0,
        entry.etag or "",
        parse_moment(others.get("LastModified")),
        others.get("StorageClass") or STANDARD,
    )


def parse_moment(text: str | None) -> datetime | None:
    """The moment a listing's LastModified (ISO 8601) names, in UTC; None when it is none.

    >>> parse_moment("2026-11-22T08:00:00.000Z").isoformat()
    '2026-11-22T08:00:00+00:00'
    """
    try:
        moment = datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
