"""Everything below an internal prefix, removed with all its versions.

Rule: what the gateway keeps for itself must not stay behind as old versions that nobody can see and
somebody pays for. Where the bucket keeps versions each of them is deleted by its id; a store that
cannot list versions is taken to have none.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
"""

import base64
import hashlib
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from s4gateway.backend import multipart
from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendError,
    BackendProtocolError,
    Body,
)
from s4gateway.s3 import query, xml
from s4gateway.s3.documents import ListPage
from s4gateway.s3.errors import S3Error

_PAGE: Final = 1000
_PAGES: Final = 1000  # held at once; a store that never comes to an end is not followed for ever
_UNVERSIONED: Final = "null"

_log = logging.getLogger("s4.removal")


class Version(NamedTuple):
    """One version of a key, or a delete marker; `version_id` is "null" where there are none.

    `modified` is as the store wrote it (ISO 8601).
    """

    key: str
    version_id: str
    modified: str = ""


async def versions(backend: Backend, bucket: str, prefix: str) -> list[Version]:
    """All versions of all keys that start with `prefix`; raises BackendError."""
    found: list[Version] = []
    left = _PAGES
    async with aclosing(pages(backend, bucket, prefix)) as listing:
        async for page in listing:
            found += page
            left -= 1
            if not left:
                break
    return found


async def pages(backend: Backend, bucket: str, prefix: str) -> AsyncGenerator[list[Version], None]:
    """The same, page by page, in the order of the keys; raises BackendError."""
    begun = False
    try:
        async with aclosing(_list_versions(backend, bucket, prefix)) as found:
            async for page in found:
                begun = True
                yield page
    except BackendAnswer as error:
        if begun or error.code == "NoSuchBucket":
            raise
    else:
        return
    async with aclosing(_list_keys(backend, bucket, prefix)) as found:
        async for page in found:
            yield page


async def _list_versions(
    backend: Backend, bucket: str, prefix: str
) -> AsyncGenerator[list[Version], None]:
    pairs = [("versions", ""), ("encoding-type", "url"), ("prefix", prefix)]
    marker: list[tuple[str, str]] = []
    while True:
        found: list[Version] = []
        document = await backend.list(bucket, query.format_query(pairs + marker))
        try:
            root = xml.parse(document)
        except S3Error as error:
            raise BackendProtocolError("the listing of versions is malformed") from error
        encoded = root.findtext("EncodingType") == "url"
        for each in root.children:
            if each.tag in {"Version", "DeleteMarker"}:
                key = each.findtext("Key") or ""
                key = query.unquote(key) if encoded else key
                if key.startswith(prefix):
                    version_id = each.findtext("VersionId") or _UNVERSIONED
                    found.append(Version(key, version_id, each.findtext("LastModified") or ""))
        yield found
        following = root.findtext("NextKeyMarker")
        if root.findtext("IsTruncated") != "true" or not following:
            return
        following = query.unquote(following) if encoded else following
        before, marker = marker, [("key-marker", following)]
        if version := root.findtext("NextVersionIdMarker"):
            marker.append(("version-id-marker", version))
        if marker == before:
            raise BackendProtocolError("the listing of versions does not come forward")


async def _list_keys(
    backend: Backend, bucket: str, prefix: str
) -> AsyncGenerator[list[Version], None]:
    after = prefix
    while True:
        pairs = [
            ("encoding-type", "url"),
            ("list-type", "2"),
            ("max-keys", str(_PAGE)),
            ("prefix", prefix),
            ("start-after", after),
        ]
        page = ListPage.parse(await backend.list(bucket, query.format_query(pairs)))
        yield [Version(each.key, _UNVERSIONED, each.last_modified or "") for each in page.contents]
        if not page.is_truncated or not page.contents:
            return
        last = page.contents[-1].key
        if last == after:
            raise BackendProtocolError("the listing does not come forward")
        after = last


async def delete(
    backend: Backend, bucket: str, doomed: Sequence[Version], *, by_id: bool = False
) -> bool:
    """Delete these versions; whether all of them went. What does not go is logged.

    `by_id` names "null" versions, too, as is done anyway beside others: without its id, deleting
    one on a versioned bucket leaves a marker. Raises BackendError when the store does not answer.
    """
    by_id = by_id or any(each.version_id != _UNVERSIONED for each in doomed)
    plain = [] if by_id else [each.key for each in doomed]
    marked = doomed if by_id else []
    failures: list[str] = []
    if plain:
        refused = await backend.delete_many(bucket, plain)
        failures = [f"{each.key}: {each.code}" for each in refused]
    for first in range(0, len(marked), _PAGE):
        failures += await _delete_versions(backend, bucket, marked[first : first + _PAGE])
    if failures:
        warn(bucket, f"{len(failures)} not removed, among them {failures[0]}")
    return not failures


async def _delete_versions(backend: Backend, bucket: str, doomed: Sequence[Version]) -> list[str]:
    objects = "".join(
        f"<Object>{xml.leaf('Key', each.key)}{xml.leaf('VersionId', each.version_id)}</Object>"
        for each in doomed
    )
    document = xml.document("Delete", f"<Quiet>true</Quiet>{objects}")
    md5 = base64.b64encode(hashlib.md5(document, usedforsecurity=False).digest()).decode()
    _, answer = await multipart.ask(
        backend,
        "POST",
        f"/{query.quote(bucket)}",
        "delete=",
        [("content-type", "application/xml")],
        Body.of(document, md5=md5),
    )
    try:
        root = xml.parse(answer)
    except S3Error as error:
        raise BackendProtocolError("DeleteObjects answered with no DeleteResult") from error
    return [f"{each.findtext('Key')}: {each.findtext('Code')}" for each in root.findall("Error")]


def warn(bucket: str, error: str) -> None:
    """Log what stays behind."""
    _log.warning(
        "internal objects not removed", extra={"fields": {"bucket": bucket, "error": error}}
    )


async def remove(
    backend: Backend, bucket: str, prefix: str, keep: Sequence[str] = (), last: str | None = None
) -> bool:
    """Delete all below `prefix` but the keys in `keep`; `last` goes when all else is gone.

    Whether everything went; no failure is raised.
    """
    try:
        doomed = [each for each in await versions(backend, bucket, prefix) if each.key not in keep]
        first = [each for each in doomed if each.key != last]
        done = await delete(backend, bucket, first)
        rest = [each for each in doomed if each.key == last]
        return done and await delete(backend, bucket, rest)
    except BackendError as error:
        warn(bucket, str(error))
        return False
