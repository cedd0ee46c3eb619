"""Uploads under way as a client should see them: complete pages without those of internal keys.

Rule: the same as for `listing`. There are few internal uploads, a probe's or none, so what they
took off a page is simply asked for again; markers never name one. Stores differ in the order they
list uploads in, so a page goes on where its store says, or behind the last upload it shows.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from s4gateway.backend.base import BackendProtocolError
from s4gateway.objects.listing import PAGE_LIMIT, FetchPage
from s4gateway.s3 import query, xml
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys

_ROOT: Final = "ListMultipartUploadsResult"
_NAMES: Final = {"Upload": "Key", "CommonPrefixes": "Prefix"}
_ENDS: Final = ("IsTruncated", "NextKeyMarker", "NextUploadIdMarker", "MaxUploads")


@dataclass(slots=True)
class _Page:
    """The visible part of a listing being collected; names are as the backend spells them."""

    head: list[xml.Element] = field(default_factory=list)
    shown: list[xml.Element] = field(default_factory=list)
    hidden_seen: bool = False
    following: tuple[str, str] | None = None
    shown_marker: tuple[str | None, str | None] = (None, None)

    def take(self, root: xml.Element) -> None:
        """Take what a client may see of the backend's page."""
        encoded = root.findtext("EncodingType") == "url"
        names = [each for each in root.children if each.tag in _NAMES]
        visible = [each for each in names if not _is_hidden(each, encoded)]
        self.hidden_seen |= len(visible) < len(names)
        self.shown += visible
        if not self.head:
            self.head = [each for each in root.children if each.tag not in {*_NAMES, *_ENDS}]
        self.following = None
        if (root.findtext("IsTruncated") or "").strip() == "true":
            key, upload_id = root.findtext("NextKeyMarker"), root.findtext("NextUploadIdMarker")
            marker = query.unquote(key or "") if encoded else key or ""
            self.following = marker, upload_id or ""
            self.shown_marker = key, upload_id
            if names and _is_hidden(names[-1], encoded) and self.shown:
                last = self.shown[-1]
                self.shown_marker = None if key is None else _name(last), last.findtext("UploadId")

    def serialize(self, limit: int, *, more: bool) -> bytes:
        """The page as a document."""
        key, upload_id = self.shown_marker if more else (None, None)
        ends = xml.leaf("MaxUploads", str(limit))
        ends += xml.leaf("IsTruncated", "true" if more else "false")
        ends += xml.leaf("NextKeyMarker", key) + xml.leaf("NextUploadIdMarker", upload_id)
        return xml.document(_ROOT, ends + "".join(map(xml.write, [*self.head, *self.shown])))


async def visible_uploads(parameters: Mapping[str, str], fetch: FetchPage) -> bytes:
    """Collect one page; raises BackendError, S3Error.

    `parameters` are the client's; `fetch` sends one listing request with the given query.
    """
    text = parameters.get("max-uploads", "")
    limit = min(int(text), PAGE_LIMIT) if text.isascii() and text.isdigit() else PAGE_LIMIT
    asked = dict(parameters)
    page = _Page()
    while True:
        page.take(_parse(await fetch(_query(asked))))
        if page.following is None or len(page.shown) >= limit:
            break
        _go_on(asked, page.following, limit - len(page.shown))
    more = page.following is not None
    if page.following is not None and page.hidden_seen:
        more = await _any_visible(asked, page.following, fetch)
    return page.serialize(limit, more=more)


async def _any_visible(asked: dict[str, str], following: tuple[str, str], fetch: FetchPage) -> bool:
    rest = _Page(following=following)
    while not rest.shown and rest.following is not None:
        _go_on(asked, rest.following, PAGE_LIMIT)
        rest.take(_parse(await fetch(_query(asked))))
    return bool(rest.shown)


def _go_on(asked: dict[str, str], following: tuple[str, str], count: int) -> None:
    marker, upload_id = following
    if following == (asked.get("key-marker", ""), asked.get("upload-id-marker", "")):
        raise BackendProtocolError("the listing of uploads does not say where it goes on")
    asked |= {"key-marker": marker, "upload-id-marker": upload_id, "max-uploads": str(count)}


def _query(asked: Mapping[str, str]) -> str:
    return query.format_query(sorted(asked.items()))


def _parse(document: bytes) -> xml.Element:
    try:
        root = xml.parse(document.strip())
    except S3Error as error:
        raise BackendProtocolError(f"the listing of uploads is malformed: {error}") from error
    if root.tag != _ROOT:
        raise BackendProtocolError(f"expected {_ROOT}, found {root.tag}")
    return root


def _name(element: xml.Element) -> str:
    return element.findtext(_NAMES[element.tag]) or ""


def _is_hidden(element: xml.Element, encoded: bool) -> bool:
    name = query.unquote(_name(element)) if encoded else _name(element)
    return keys.is_hidden(name) if element.tag == "Upload" else keys.is_hidden_prefix(name)
