"""Documents of the S3 API as values: read from the backend, changed, written for the client.

A listing page is the document there is most of, and the largest, so when its entries all look
alike, as servers write them, they are read column by column, and by the XML parser when they do
not; both give the same page. Keys are decoded when the page says `encoding-type=url` and encoded
again on the way out. What we do not know is kept, not dropped.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjects.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote, unquote_plus

from s4gateway.s3 import etag as etags
from s4gateway.s3 import xml
from s4gateway.s3.errors import S3Error
from s4gateway.s3.escaping import escape, is_special, unescape

_RESERVED: Final = re.compile("[^A-Za-z0-9_.~/-]+")
_NUMBER: Final = re.compile("[0-9]{1,20}")
_NUL: Final = "\0"  # no character of XML, so it can stand between any texts of a document
_NUMBERS: Final = re.compile("[0-9]{1,20}+(?:\0[0-9]{1,20}+)*+")


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


# A ListedObject of all its fields in order: a page makes a thousand of them.
new_entry: Final = partial(tuple.__new__, ListedObject)


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
_PLAIN: Final = ("LastModified", "StorageClass", "ChecksumAlgorithm", "ChecksumType")
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

    Text cut at each `<` repeats itself with every entry when all hold the same elements in the same
    order, so each element's values are a slice. An empty entry is left behind for them and must
    turn up as a child of the root, so that entries further down are not taken for the page's.
    """
    text = data.decode()
    count = text.count("<Contents")
    # A single character is looked for much faster than two.
    if not count or ("!" in text and "<!" in text) or "\r" in text or _NUL in text:
        return None
    pieces = text.split("<")
    try:
        first = pieces.index("Contents>")
        period = pieces.index("/Contents>", first) + 1 - first
    except ValueError:
        return None
    end = first + count * period
    entries = pieces[first:end]
    contents = _entries([entries[place::period] for place in range(period)], count)
    if contents is None:
        return None
    root = xml.parse("<".join([*pieces[:first], "Contents/>", *pieces[end:]]).encode())
    return (root, contents) if root.find("Contents") is not None else None


def _entries(columns: list[list[str]], count: int) -> list[ListedObject] | None:
    """The entries of a page from its columns; None when they are not alike, or are unusual."""
    found = _values(columns, count)
    if (
        found is None
        or not found.keys() >= {"Key", "Size"}
        or found.keys() - _CONTENTS_TAGS - {"Owner"}
    ):
        return None
    keys, sizes, tags = found["Key"], found["Size"], found.get("ETag")
    if "&" in "".join(keys):
        keys = list(map(unescape, keys))
    if tags is not None:
        tags = _unquoted(tags)
        if tags is None:
            return None
    plain = [found.get(name) for name in _PLAIN]
    if not _NUMBERS.fullmatch(_NUL.join(sizes)) or any(
        "&" in "".join(each or ()) for each in plain
    ):
        return None
    dates, classes, algorithms, kinds = (repeat(None) if each is None else each for each in plain)
    listed = zip(algorithms) if "ChecksumAlgorithm" in found else repeat(())
    others = tuple(xml.parse(each.encode()) for each in found.get("Owner", ()))
    fields = (keys, map(int, sizes), tags or repeat(None), dates, classes, listed, kinds)
    return list(map(new_entry, zip(*fields, repeat(others), strict=False)))


def _values(columns: list[list[str]], count: int) -> dict[str, list[str]] | None:
    """The values of each element; of one that holds others, the text that is in all entries.

    None unless each column opens or closes one element throughout, and each element stands once.
    """
    openings = [column[0].partition(">")[0] for column in columns]
    if columns[0].count("Contents>") != count or columns[-1].count("/Contents>") != count:
        return None
    found: dict[str, list[str]] = {}
    place, last = 1, len(columns) - 1
    while place < last:
        name = openings[place]
        if name in found or f"/{name}" not in openings[place:last]:
            return None
        end = openings.index(f"/{name}", place)
        if columns[end].count(f"/{name}>") != count:
            return None
        inside = columns[place:end]
        if len(inside) > 1:
            if any(column.count(column[0]) != count for column in inside):
                return None
            found[name] = ["<".join(["", *(column[0] for column in inside), f"/{name}>"])]
        else:
            values = (_NUL + _NUL.join(inside[0])).split(f"{_NUL}{name}>")
            if len(values) != count + 1:
                return None
            found[name] = values[1:]
        place = end + 1
    return found


def _unquoted(tags: list[str]) -> list[str] | None:
    """ETags without the quotes that all of them have, in one of XML's spellings."""
    for mark in ("&#34;", "&quot;", '"'):
        if tags[0].startswith(mark) and tags[-1].endswith(mark):
            between = _NUL.join(tags)[len(mark) : -len(mark)]
            bare = between.split(f"{mark}{_NUL}{mark}")
            plain = "".join(bare)
            if len(bare) == len(tags) and "&" not in plain and '"' not in plain:
                return bare
    return None


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
            each._replace(key=_decode(each.key)) if "%" in each.key or "+" in each.key else each
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


def _write_contents(contents: Sequence[ListedObject], encoded: bool) -> list[str]:
    """The entries as elements.

    Most text of a page repeats (a class, an owner) or needs no escaping (keys, ETags), and looking
    at all of it at once tells which. Where all do, an entry is put together in one step.
    """
    if not contents:
        return []
    columns: Any = zip(*contents, strict=True)
    names, sizes, tags, dates, *columns_of_few = columns
    classes, algorithms, kinds, others = columns_of_few
    if encoded and _RESERVED.search("".join(names)) is not None:
        names = [_quote(name) for name in names]
    if is_special("".join(names)):
        names = [escape(name) for name in names]
    tags_are_plain = _is_plain(tags)
    if tags_are_plain and _is_plain(dates) and all(map(_is_one, columns_of_few)):
        before, behind = _checksums((algorithms[0], kinds[0])), "".join(map(xml.write, others[0]))
        behind += xml.leaf("StorageClass", classes[0])
        return [
            f"<Contents><Key>{name}</Key><LastModified>{moment}</LastModified>"
            f"<ETag>&quot;{tag}&quot;</ETag>{before}<Size>{size}</Size>{behind}</Contents>"
            for name, moment, tag, size in zip(names, dates, tags, sizes, strict=True)
        ]
    if tags_are_plain:
        quoted = [f"<ETag>&quot;{tag}&quot;</ETag>" for tag in tags]
    else:
        quoted = [xml.leaf("ETag", None if tag is None else f'"{tag}"') for tag in tags]
    moments = _repeating(partial(xml.leaf, "LastModified"), dates)
    checksums = _repeating(_checksums, list(zip(algorithms, kinds, strict=True)))
    storage = _repeating(partial(xml.leaf, "StorageClass"), classes)
    different = {id(each): each for each in others}
    owned = {number: "".join(map(xml.write, each)) for number, each in different.items()}
    rest = map(owned.__getitem__, map(id, others))
    return [
        f"<Contents><Key>{name}</Key>{moment}{tag}{checksum}<Size>{size}</Size>{other}{kept}</Contents>"
        for name, moment, tag, checksum, size, other, kept in zip(
            names, moments, quoted, checksums, sizes, rest, storage, strict=True
        )
    ]


def _is_plain(texts: Sequence[str | None]) -> bool:
    """Whether each is there and can stand in a document as it is."""
    return None not in texts and not is_special("".join(cast("Sequence[str]", texts)))


def _is_one(values: Sequence[Any]) -> bool:
    """Whether all are the same."""
    return values.count(values[0]) == len(values)


def _repeating(write: Callable[[Any], str], values: Sequence[Any]) -> Iterator[str]:
    """What `write` makes of each value, made once of those that are the same."""
    written = {value: write(value) for value in set(values)}
    return map(written.__getitem__, values)


def _checksums(algorithms_and_kind: tuple[tuple[str, ...], str | None]) -> str:
    algorithms, kind = algorithms_and_kind
    written = [xml.leaf("ChecksumAlgorithm", each) for each in algorithms]
    return "".join([*written, xml.leaf("ChecksumType", kind)])


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
