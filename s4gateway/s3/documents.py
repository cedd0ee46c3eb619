"""Documents of the S3 API as values: read from the backend, changed, written for the client.

A listing page is the document there is most of, and the largest, so its entries are read by one
expression each when they look the way servers write them, and by the XML parser when they do not;
both give the same page. Keys are decoded when the page says `encoding-type=url` and encoded again
on the way out. What we do not know is kept, not dropped.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjects.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_plus

from s4gateway.s3 import etag as etags
from s4gateway.s3 import xml
from s4gateway.s3.errors import S3Error
from s4gateway.s3.escaping import escape, unescape

# Runs are possessive: an entry that does not fit is given up in the time it takes to read it.
_ENTRY: Final = re.compile(
    r"""(?:
      <Key>(?P<key>[^<]*)</Key>
    | <LastModified>(?P<last_modified>[^<&]*)</LastModified>
    | <ETag>(?:&quot;|&\#34;|")(?P<etag>[^<&"]*)(?:&quot;|&\#34;|")</ETag>
    | <Size>(?P<size>[0-9]{1,20})</Size>
    | <StorageClass>(?P<storage_class>[^<&]*)</StorageClass>
    | (?P<owner><Owner>(?:\s|<ID>[^<]*</ID>|<DisplayName>[^<]*</DisplayName>)*</Owner>)
    | (?P<algorithms>(?:<ChecksumAlgorithm>[^<&]*</ChecksumAlgorithm>\s*+)++)
    | <ChecksumType>(?P<checksum_type>[^<&]*)</ChecksumType>
    | \s++
    )*""",
    re.VERBOSE,
)
_ALGORITHM: Final = re.compile("<ChecksumAlgorithm>([^<]*)</ChecksumAlgorithm>")
_RESERVED: Final = re.compile("[^A-Za-z0-9_.~/-]+")
_ENCODED: Final = re.compile("[%+]")
_NUMBER: Final = re.compile("[0-9]{1,20}")


class ListedObject(NamedTuple):
    """One `Contents` of a listing. (A named tuple: a page makes a thousand of them.)

    `etag` is bare, `last_modified` as the server wrote it, `others` every further element (Owner,
    RestoreStatus, what AWS may add).
    """

    key: str
    size: int
    etag: str | None = None
    last_modified: str | None = None
    storage_class: str | None = None
    checksum_algorithms: tuple[str, ...] = ()
    checksum_type: str | None = None
    others: tuple[xml.Element, ...] = ()


@dataclass(frozen=True, slots=True)
class ListPage:
    """A ListBucketResult, of ListObjects (`marker`) or ListObjectsV2 (`key_count`, tokens).

    None stands for an element that is absent, "" for an empty one. Keys, prefixes, delimiter and
    markers are decoded; `encoding_type` says how `serialize` writes them. `prefix_text` is Prefix
    as the document spelled it: on an encoded page of ListObjects some servers leave it as it is and
    some clients do not decode it, so there it is written as it was read.
    """

    name: str = ""
    prefix: str = ""
    max_keys: int = 1000
    is_truncated: bool = False
    contents: tuple[ListedObject, ...] = ()
    common_prefixes: tuple[str, ...] = ()
    delimiter: str | None = None
    encoding_type: str | None = None
    marker: str | None = None
    next_marker: str | None = None
    start_after: str | None = None
    continuation_token: str | None = None
    next_continuation_token: str | None = None
    key_count: int | None = None
    others: tuple[xml.Element, ...] = ()
    prefix_text: str | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, data: bytes, max_bytes: int = xml.MAX_BYTES) -> ListPage:
        """The page a backend sent; InternalError if it is none, for the client is not to blame."""
        try:
            split = _split(data) if len(data) <= max_bytes else None
            if split is None:
                root = xml.parse(data, max_bytes)
                return _page(root, [_listed(each) for each in root.findall("Contents")])
            return _page(*split)
        except (S3Error, ValueError) as error:
            raise S3Error("InternalError") from error

    def serialize(self) -> bytes:
        """The page as a document, in AWS's order of elements."""
        encoded = self.encoding_type == "url"
        head = [
            xml.leaf("Name", self.name),
            xml.leaf("Prefix", self._prefix(encoded)),
            xml.leaf("Marker", _encode(self.marker, encoded)),
            xml.leaf("NextMarker", _encode(self.next_marker, encoded)),
            xml.leaf("StartAfter", _encode(self.start_after, encoded)),
            xml.leaf("ContinuationToken", self.continuation_token),
            xml.leaf("NextContinuationToken", self.next_continuation_token),
            xml.leaf("KeyCount", None if self.key_count is None else str(self.key_count)),
            xml.leaf("MaxKeys", str(self.max_keys)),
            xml.leaf("Delimiter", _encode(self.delimiter, encoded)),
            xml.leaf("EncodingType", self.encoding_type),
            xml.leaf("IsTruncated", "true" if self.is_truncated else "false"),
        ]
        prefixes = [
            f"<CommonPrefixes><Prefix>{escape(_quote(prefix) if encoded else prefix)}"
            "</Prefix></CommonPrefixes>"
            for prefix in self.common_prefixes
        ]
        others = [xml.write(element) for element in self.others]
        return xml.document(
            "ListBucketResult",
            "".join(head + _write_contents(self.contents, encoded) + prefixes + others),
        )

    def _prefix(self, encoded: bool) -> str | None:
        if encoded and self.marker is not None and self.prefix_text is not None:
            return self.prefix_text
        return _encode(self.prefix, encoded)


_PAGE_TAGS: Final = frozenset(
    {
        "CommonPrefixes",
        "Contents",
        "ContinuationToken",
        "Delimiter",
        "EncodingType",
        "IsTruncated",
        "KeyCount",
        "Marker",
        "MaxKeys",
        "Name",
        "NextContinuationToken",
        "NextMarker",
        "Prefix",
        "StartAfter",
    }
)
_CONTENTS_TAGS: Final = frozenset(
    {
        "ChecksumAlgorithm",
        "ChecksumType",
        "ETag",
        "Key",
        "LastModified",
        "Size",
        "StorageClass",
    }
)


def _quote_run(match: re.Match[str]) -> str:
    return quote(match[0], safe="", errors="surrogateescape")


def _quote(text: str) -> str:
    # Space as %20 and plus as %2B mean the same to readers that take "+" for a space and to others.
    return _RESERVED.sub(_quote_run, text)


def _encode(text: str | None, encoded: bool) -> str | None:
    return _quote(text) if encoded and text is not None else text


def _decode(text: str) -> str:
    return unquote_plus(text, errors="surrogateescape")


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(text)
    return int(text)


def _split(data: bytes) -> tuple[xml.Element, list[ListedObject]] | None:
    """A page's envelope and its entries, read without the parser; None when that cannot be done.

    Entries are cut out where they begin and end; an empty one is left behind for each run, and must
    turn up as a child of the root, so that an entry further down is not taken for one of the page.
    """
    text = data.decode()
    if "<!" in text or "\r" in text:
        return None
    envelope, *chunks = text.split("<Contents>")
    pieces = [envelope]
    entries: list[ListedObject] = []
    owners: dict[str, tuple[xml.Element, ...]] = {}
    for chunk in chunks:
        body, closed, tail = chunk.partition("</Contents>")
        match = _ENTRY.fullmatch(body)
        if match is None or not closed:
            return None
        entry = _matched(match, owners)
        if entry is None:
            return None
        entries.append(entry)
        if tail and not tail.isspace():
            pieces.append(tail)
    root = xml.parse("<Contents/>".join(pieces).encode())
    runs = sum(1 for _ in root.findall("Contents"))
    return (root, entries) if runs == len(pieces) - 1 else None


def _matched(
    match: re.Match[str], owners: dict[str, tuple[xml.Element, ...]]
) -> ListedObject | None:
    key, modified, etag, size, storage, owner, algorithms, checksum_type = match.groups()
    if key is None or size is None:
        return None
    others: tuple[xml.Element, ...] = ()
    if owner is not None:
        if owner not in owners:
            owners[owner] = (xml.parse(owner.encode()),)
        others = owners[owner]
    listed: tuple[str, ...] = ()
    if algorithms is not None:
        listed = tuple(_ALGORITHM.findall(algorithms))
        if len(listed) != match.string.count("<ChecksumAlgorithm>"):
            return None  # they stand apart, and the expression keeps the last run only
    return ListedObject(
        unescape(key), int(size), etag, modified, storage, listed, checksum_type, others
    )


def _listed(element: xml.Element) -> ListedObject:
    """A `Contents` as the parser gives it; ValueError without a key or a size."""
    values: dict[str, str] = {}
    for child in element.children:
        values[child.tag] = child.text
    if "Key" not in values or "Size" not in values:
        raise ValueError("Contents without Key or Size")
    etag = values.get("ETag")
    return ListedObject(
        key=values["Key"],
        size=_number(values["Size"]),
        etag=None if etag is None else etags.strip(etag),
        last_modified=values.get("LastModified"),
        storage_class=values.get("StorageClass"),
        checksum_algorithms=tuple(each.text for each in element.findall("ChecksumAlgorithm")),
        checksum_type=values.get("ChecksumType"),
        others=tuple(each for each in element.children if each.tag not in _CONTENTS_TAGS),
    )


def _page(root: xml.Element, contents: list[ListedObject]) -> ListPage:
    if root.tag != "ListBucketResult":
        raise ValueError(root.tag)
    encoding_type = root.findtext("EncodingType")
    encoded = encoding_type == "url"

    def decoded(tag: str) -> str | None:
        text = root.findtext(tag)
        return _decode(text) if encoded and text is not None else text

    if encoded:
        contents = [
            each._replace(key=_decode(each.key)) if _ENCODED.search(each.key) else each
            for each in contents
        ]
    prefixes = [each.findtext("Prefix") or "" for each in root.findall("CommonPrefixes")]
    next_marker = root.findtext("NextMarker")
    if encoded:
        prefixes = [_decode(prefix) for prefix in prefixes]
        last = [each.key for each in contents[-1:]] + prefixes[-1:]
        next_marker = None if next_marker is None else _next_marker(next_marker, last)
    key_count = root.findtext("KeyCount")
    return ListPage(
        name=root.findtext("Name") or "",
        prefix=decoded("Prefix") or "",
        max_keys=_number(root.findtext("MaxKeys") or "1000"),
        is_truncated=(root.findtext("IsTruncated") or "").strip() == "true",
        contents=tuple(contents),
        common_prefixes=tuple(prefixes),
        delimiter=decoded("Delimiter"),
        encoding_type=encoding_type,
        marker=decoded("Marker"),
        next_marker=next_marker,
        start_after=decoded("StartAfter"),
        continuation_token=root.findtext("ContinuationToken"),
        next_continuation_token=root.findtext("NextContinuationToken"),
        key_count=None if key_count is None else _number(key_count),
        others=tuple(each for each in root.children if each.tag not in _PAGE_TAGS),
        prefix_text=root.findtext("Prefix"),
    )


def _next_marker(text: str, last: list[str]) -> str:
    """NextMarker of an encoded page, on which some servers leave it as it is.

    It is an entry the page ends with, or the directory of that name; this tells the two spellings
    apart.
    """
    decoded = _decode(text)
    fitting = [name for name in (decoded, text) if name in last or name.removesuffix("/") in last]
    return max(fitting, default=decoded, key=_in_bytes)


def _in_bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _write_contents(contents: Iterable[ListedObject], encoded: bool) -> list[str]:
    written = []
    seen: dict[int, str] = {}  # entries of one owner share the element
    leaves: dict[str | None, str] = {None: ""}  # there are few classes, and many of one moment
    for key, size, etag, modified, storage, algorithms, checksum_type, others in contents:
        text = escape(_quote(key) if encoded else key)
        if modified not in leaves:
            leaves[modified] = xml.leaf("LastModified", modified)
        entry = f"<Contents><Key>{text}</Key>{leaves[modified]}"
        if etag is not None:
            entry += f"<ETag>&quot;{escape(etag)}&quot;</ETag>"
        for algorithm in algorithms:
            entry += xml.leaf("ChecksumAlgorithm", algorithm)
        if checksum_type is not None:
            entry += xml.leaf("ChecksumType", checksum_type)
        entry += f"<Size>{size}</Size>"
        if others:
            if id(others) not in seen:
                seen[id(others)] = "".join(map(xml.write, others))
            entry += seen[id(others)]
        if storage is not None:
            entry += f"<StorageClass>{escape(storage)}</StorageClass>"
        written.append(entry + "</Contents>")
    return written


def parse_error(body: bytes) -> tuple[str, str]:
    """Code and message of an error document; two empty strings for anything else.

    It never raises: an error answer is no place for a second error.

    >>> parse_error(b"<Error><Code>NoSuchKey</Code><Message>Gone</Message></Error>")
    ('NoSuchKey', 'Gone')
    """
    try:
        root = xml.parse(body)
    except S3Error:
        return "", ""
    if root.tag != "Error":
        return "", ""
    return root.findtext("Code") or "", root.findtext("Message") or ""
