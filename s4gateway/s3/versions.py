"""ListVersionsResult: read from the backend, changed, written for the client.

Rule: what an entry holds and the gateway does not change (owner, storage class, restore status)
goes through element by element. Names are decoded when the page says `encoding-type=url`, and
encoded on the way out when the client asked for it, whether or not the backend does so.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_plus

from s4gateway.s3 import etag as etags
from s4gateway.s3 import xml
from s4gateway.s3.errors import S3Error
from s4gateway.s3.escaping import escape

NULL_VERSION: Final = "null"
_RAW: Final = "surrogateescape"  # how names that are no UTF-8 stand in a page
_NUMBER: Final = re.compile("[0-9]{1,20}")
_VERSION: Final = "Version"
_ENTRIES: Final = frozenset({_VERSION, "DeleteMarker"})
_ROOTS: Final = frozenset({"ListVersionsResult", "ListVersionResult"})
_REWRITTEN: Final = frozenset({"Key", "VersionId", "ETag", "Size"})
_CHECKSUMS: Final = frozenset({"ChecksumAlgorithm", "ChecksumType"})
_PAGE_TAGS: Final = _ENTRIES | {
    "CommonPrefixes",
    "Delimiter",
    "EncodingType",
    "IsTruncated",
    "KeyMarker",
    "MaxKeys",
    "Name",
    "NextKeyMarker",
    "NextVersionIdMarker",
    "Prefix",
    "VersionIdMarker",
}


class ListedVersion(NamedTuple):
    """One `Version` or `DeleteMarker`; a marker has neither `size` nor `etag`, which is bare.

    `others` are all further elements, in the backend's order.
    """

    tag: str
    key: str
    version_id: str
    size: int | None = None
    etag: str | None = None
    others: tuple[xml.Element, ...] = ()

    @property
    def is_latest(self) -> bool:
        """Whether this is what a request without a version id is about."""
        return any(each.tag == "IsLatest" and each.text.strip() == "true" for each in self.others)

    @property
    def is_marker(self) -> bool:
        """Whether this is a delete marker."""
        return self.tag != _VERSION

    def shown_as(self, size: int, etag: str) -> ListedVersion:
        """The entry with another size and ETag, and so without the stored bytes' checksums."""
        kept = tuple(each for each in self.others if each.tag not in _CHECKSUMS)
        return self._replace(size=size, etag=etag, others=kept)


@dataclass(frozen=True, slots=True)
class VersionPage:
    """A ListVersionsResult; None stands for an absent element, names and markers are decoded.

    `entries` are versions and delete markers in one order: by key, the newest first.
    """

    name: str = ""
    prefix: str = ""
    max_keys: int = 1000
    is_truncated: bool = False
    entries: tuple[ListedVersion, ...] = ()
    common_prefixes: tuple[str, ...] = ()
    delimiter: str | None = None
    encoding_type: str | None = None
    key_marker: str = ""
    version_id_marker: str = ""
    next_key_marker: str | None = None
    next_version_id_marker: str | None = None
    others: tuple[xml.Element, ...] = ()

    @classmethod
    def parse(cls, data: bytes, max_bytes: int = xml.MAX_BYTES) -> VersionPage:
        """The page a backend sent; InternalError if it is none, for the client is not to blame."""
        try:
            return _page(xml.parse(data, max_bytes))
        except (S3Error, ValueError) as error:
            raise S3Error("InternalError") from error

    def serialize(self) -> bytes:
        """The page as a document, in AWS's order of elements."""
        encoded = self.encoding_type == "url"
        delimiter = None if self.delimiter is None else _encode(self.delimiter, encoded)
        following = self.next_key_marker
        head = [
            xml.leaf("Name", self.name),
            xml.leaf("Prefix", _encode(self.prefix, encoded)),
            xml.leaf("KeyMarker", _encode(self.key_marker, encoded)),
            xml.leaf("VersionIdMarker", self.version_id_marker),
            xml.leaf("NextKeyMarker", None if following is None else _encode(following, encoded)),
            xml.leaf("NextVersionIdMarker", self.next_version_id_marker),
            xml.leaf("MaxKeys", str(self.max_keys)),
            xml.leaf("Delimiter", delimiter),
            xml.leaf("EncodingType", self.encoding_type),
            xml.leaf("IsTruncated", "true" if self.is_truncated else "false"),
        ]
        entries = [_write(entry, encoded) for entry in self.entries]
        prefixes = [
            f"<CommonPrefixes>{xml.leaf('Prefix', _encode(each, encoded))}</CommonPrefixes>"
            for each in self.common_prefixes
        ]
        others = [xml.write(element) for element in self.others]
        return xml.document("ListVersionsResult", "".join(head + entries + prefixes + others))


def _encode(text: str, encoded: bool) -> str:
    return quote(text, safe="/", errors=_RAW) if encoded else text


def _decode(text: str | None, encoded: bool) -> str:
    return unquote_plus(text, errors=_RAW) if encoded and text else text or ""


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(text)
    return int(text)


def _page(root: xml.Element) -> VersionPage:
    if root.tag not in _ROOTS:
        raise ValueError(root.tag)
    encoding_type = root.findtext("EncodingType") or None
    encoded = encoding_type == "url"
    delimiter = root.findtext("Delimiter")
    following = root.findtext("NextKeyMarker")
    return VersionPage(
        name=root.findtext("Name") or "",
        prefix=_decode(root.findtext("Prefix"), encoded),
        max_keys=_number(root.findtext("MaxKeys") or "1000"),
        is_truncated=(root.findtext("IsTruncated") or "").strip() == "true",
        entries=tuple(_entry(each, encoded) for each in root.children if each.tag in _ENTRIES),
        common_prefixes=tuple(
            _decode(each.findtext("Prefix"), encoded) for each in root.findall("CommonPrefixes")
        ),
        delimiter=None if delimiter is None else _decode(delimiter, encoded),
        encoding_type=encoding_type,
        key_marker=_decode(root.findtext("KeyMarker"), encoded),
        version_id_marker=root.findtext("VersionIdMarker") or "",
        next_key_marker=_decode(following, encoded) if following else None,
        next_version_id_marker=root.findtext("NextVersionIdMarker") or None,
        others=tuple(each for each in root.children if each.tag not in _PAGE_TAGS),
    )


def _entry(element: xml.Element, encoded: bool) -> ListedVersion:
    """One entry; ValueError without a key, or a version without a size."""
    values = {child.tag: child.text for child in element.children}
    if not values.get("Key"):
        raise ValueError("entry without Key")
    is_version = element.tag == _VERSION
    etag = values.get("ETag")
    return ListedVersion(
        tag=element.tag,
        key=_decode(values["Key"], encoded),
        version_id=values.get("VersionId") or NULL_VERSION,
        size=_number(values.get("Size", "")) if is_version else None,
        etag=etags.strip(etag) if is_version and etag is not None else None,
        others=tuple(each for each in element.children if each.tag not in _REWRITTEN),
    )


def _write(entry: ListedVersion, encoded: bool) -> str:
    text = xml.leaf("Key", _encode(entry.key, encoded)) + xml.leaf("VersionId", entry.version_id)
    if entry.etag is not None:
        text += f"<ETag>&quot;{escape(entry.etag)}&quot;</ETag>"
    if entry.size is not None:
        text += xml.leaf("Size", str(entry.size))
    text += "".join(map(xml.write, entry.others))
    return f"<{entry.tag}>{text}</{entry.tag}>"
