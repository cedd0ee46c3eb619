"""A store without a network: the verbs of `base.Backend` over a dictionary, as faithful as S3.

For tests and examples of the layers above. What it answers is what AWS answers: MD5 ETags, ranges
(416 included), conditions of RFC 9110 section 13 and conditional writes, both listings with
prefix, delimiter, paging and `encoding-type=url`, copies, multipart uploads. Sub-resources are
NotImplemented (501), never silently something else.
"""

import base64
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Self

from s4gateway.backend import base
from s4gateway.backend.memory_uploads import MemoryUpload, MemoryUploads, kept_md5
from s4gateway.s3 import conditions, copy_source, errors, etag, query, ranges, sigv4, xml
from s4gateway.s3.escaping import escape
from s4gateway.s3.headers import Headers

_PIECE = 64 * 1024
_STORED = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "expires",
        "x-amz-storage-class",
    }
)
_LISTING = frozenset(
    {
        "continuation-token",
        "delimiter",
        "encoding-type",
        "fetch-owner",
        "list-type",
        "marker",
        "max-keys",
        "prefix",
        "start-after",
    }
)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it lies in a bucket."""

    data: bytes
    headers: tuple[tuple[str, str], ...]
    etag: str
    modified: datetime

    def head_fields(self, length: int) -> list[tuple[str, str]]:
        """Response headers for `length` bytes of it."""
        return [
            ("etag", etag.quote(self.etag)),
            ("content-length", str(length)),
            ("last-modified", format_datetime(self.modified, usegmt=True)),
            ("accept-ranges", "bytes"),
            *self.headers,
        ]


class MemoryStream(base.ObjectStream):
    """A body in memory, handed out in pieces; closing it early loses the rest, as on a network."""

    def __init__(self, head: base.Head, data: bytes) -> None:
        self.head = head
        self._rest = data
        self._closed = False

    async def read(self, limit: int) -> bytes:
        """Return what is left of the body."""
        if self._closed:
            raise base.BackendProtocolError("the answer was closed before its body was read")
        if len(self._rest) > limit:
            msg = f"answer is larger than {limit} bytes"
            raise base.BackendProtocolError(msg)
        data, self._rest = self._rest, b""
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._closed:
            raise base.BackendProtocolError("the answer was closed before its body was read")
        while self._rest:
            piece, self._rest = self._rest[:_PIECE], self._rest[_PIECE:]
            yield piece

    async def close(self) -> None:
        """Make further reads fail."""
        self._closed = True


@dataclass(slots=True, eq=False)
class MemoryBackend:
    """Buckets of objects; `buckets` may be looked into and changed by tests.

    >>> import asyncio
    >>> store = MemoryBackend.with_buckets("b")
    >>> asyncio.run(store.put("b", "k", base.Body.of(b"data"))).etag
    '8d777f385d3dfec8815d20f7496026dc'
    """

    buckets: dict[str, dict[str, StoredObject]] = field(default_factory=dict)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    uploads: MemoryUploads = field(init=False)

    def __post_init__(self) -> None:
        """Uploads fail and tell the time as the store does."""
        self.uploads = MemoryUploads(_answer, self.now)

    @classmethod
    def with_buckets(cls, *names: str) -> Self:
        """A store with these empty buckets."""
        return cls({name: {} for name in names})

    async def put(
        self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
    ) -> base.Head:
        """PutObject, with If-Match and If-None-Match evaluated at the moment of the write."""
        data = await _collect(body)
        objects = self._bucket(bucket)
        fields = Headers(list(headers))
        _check_write(fields, objects.get(key))
        md5 = hashlib.md5(data, usedforsecurity=False)
        if (wanted := body.md5 or fields.get("content-md5")) is not None and (
            base64.b64encode(md5.digest()).decode() != wanted
        ):
            raise _answer("BadDigest")
        moment = self.now().replace(microsecond=0)
        objects[key] = StoredObject(data, _kept(fields), md5.hexdigest(), moment)
        return _head(200, [("etag", etag.quote(md5.hexdigest())), ("content-length", "0")])

    async def get(
        self,
        bucket: str,
        key: str,
        *,
        byte_range: tuple[int, int] | None = None,
        if_match: str | None = None,
        query: str = "",
        headers: base.HeaderList = (),
    ) -> base.ObjectStream:
        """GetObject."""
        _refuse_subresources(query)
        fields = list(headers)
        if if_match is not None:
            fields.append(("if-match", etag.quote(if_match)))
        if byte_range is not None:
            fields.append(("range", f"bytes={byte_range[0]}-{byte_range[1] - 1}"))
        return self._read(bucket, key, Headers(fields))

    def _read(self, bucket: str, key: str, fields: Headers) -> MemoryStream:
        stored = self._object(bucket, key)
        _check_read(fields, stored)
        total = len(stored.data)
        wanted = ranges.parse(fields.get("range"))
        if wanted is None:
            return MemoryStream(_head(200, stored.head_fields(total)), stored.data)
        try:
            start, end = ranges.resolve(wanted, total)
        except errors.S3Error as error:
            raise _answer("InvalidRange", [("content-range", f"bytes */{total}")]) from error
        head = stored.head_fields(end - start)
        head.append(("content-range", f"bytes {start}-{end - 1}/{total}"))
        return MemoryStream(_head(206, head), stored.data[start:end])

    async def head(
        self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
    ) -> base.Head:
        """HeadObject."""
        _refuse_subresources(query)
        return self._read(bucket, key, Headers(list(headers))).head

    async def delete(
        self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
    ) -> base.Head:
        """DeleteObject, with If-Match."""
        _refuse_subresources(query)
        objects = self._bucket(bucket)
        fields = Headers(list(headers))
        if key in objects:
            _check_write(fields, objects[key])
            del objects[key]
        return _head(204, [])

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> base.DeleteFailures:
        """DeleteObjects; nothing here can fail for one key only."""
        objects = self._bucket(bucket)
        for key in keys:
            objects.pop(key, None)
        return []

    async def list(self, bucket: str, raw_query: str, headers: base.HeaderList = ()) -> bytes:
        """ListObjects and ListObjectsV2."""
        asked = dict(query.parse_query(raw_query))
        if unknown := asked.keys() - _LISTING:
            raise _answer("NotImplemented", message=f"listing by {', '.join(sorted(unknown))}")
        return _list(bucket, self._bucket(bucket), asked)

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        """Route the plain object and bucket requests; anything else is answered with 501."""
        try:
            return await self._route(method, raw_path, raw_query, headers, body)
        except base.BackendAnswer as answer:
            data = b"" if method == "HEAD" or answer.status == 304 else answer.body
            fields = [*answer.headers.items(), ("content-length", str(len(data)))]
            return MemoryStream(_head(answer.status, fields), data)

    async def _route(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None,
    ) -> base.ObjectStream:
        raw_bucket, _, raw_key = raw_path.removeprefix("/").partition("/")
        bucket, key = query.unquote(raw_bucket), query.unquote(raw_key)
        asked = dict(query.parse_query(raw_query))
        if "uploads" in asked or "uploadId" in asked:
            return await self._route_upload(
                method, bucket, key, asked, Headers(list(headers)), body
            )
        match method, bool(key):
            case "GET", True:
                return await self.get(bucket, key, query=raw_query, headers=headers)
            case "HEAD", True:
                head = await self.head(bucket, key, query=raw_query, headers=headers)
            case "PUT", True:
                _refuse_subresources(raw_query)
                fields = Headers(list(headers))
                if "x-amz-copy-source" in fields:
                    return _document(self._copy(bucket, key, fields))
                head = await self.put(bucket, key, body or base.EMPTY, headers)
            case "DELETE", True:
                head = await self.delete(bucket, key, query=raw_query, headers=headers)
            case "GET", False if bucket:
                data = await self.list(bucket, raw_query)
                return MemoryStream(_xml_head(data), data)
            case _:
                head = self._route_bucket(method, bucket, raw_query)
        return MemoryStream(head, b"")

    async def _route_upload(
        self,
        method: str,
        bucket: str,
        key: str,
        asked: dict[str, str],
        fields: Headers,
        body: base.Body | None,
    ) -> base.ObjectStream:
        objects, uploads = self._bucket(bucket), self.uploads
        upload_id = asked.get("uploadId")
        if upload_id is None:
            if method == "POST" and key:
                return _document(uploads.create(bucket, key, _kept(fields)))
            return _document(uploads.list_uploads(bucket))
        upload = uploads.find(bucket, key, upload_id)
        match method:
            case "PUT" if "x-amz-copy-source" in fields:
                return _document(self._copy_part(upload, asked.get("partNumber", ""), fields))
            case "PUT":
                data = await _collect(body or base.EMPTY)
                md5 = kept_md5(body, fields)
                tag = uploads.put_part(upload, asked.get("partNumber", ""), data, md5)
                return MemoryStream(_head(200, [("etag", etag.quote(tag))]), b"")
            case "GET":
                return _document(uploads.list_parts(upload_id, upload, asked))
            case "DELETE":
                uploads.abort(upload_id)
                return MemoryStream(_head(204, []), b"")
        _check_write(fields, objects.get(key))
        joined = uploads.complete(upload_id, upload, await _collect(body or base.EMPTY))
        moment = self.now().replace(microsecond=0)
        objects[key] = StoredObject(joined.data, joined.headers, joined.etag, moment)
        inner = (
            xml.leaf("Bucket", bucket)
            + xml.leaf("Key", key)
            + xml.leaf("ETag", etag.quote(joined.etag))
        )
        return _document(xml.document("CompleteMultipartUploadResult", inner))

    def _copy(self, bucket: str, key: str, fields: Headers) -> bytes:
        """CopyObject, which replaces all metadata or none; the copy's ETag is its MD5."""
        source, objects = self._source(fields), self._bucket(bucket)
        target = objects.get(key)
        _check_write(fields, target)
        replaces = fields.get("x-amz-metadata-directive") == "REPLACE"
        if source is target and not replaces:
            raise _answer("InvalidRequest")
        kept = _kept(fields) if replaces else source.headers
        md5 = hashlib.md5(source.data, usedforsecurity=False).hexdigest()
        moment = self.now().replace(microsecond=0)
        objects[key] = StoredObject(source.data, kept, md5, moment)
        return _copy_result("CopyObjectResult", md5, moment)

    def _copy_part(self, upload: MemoryUpload, number: str, fields: Headers) -> bytes:
        """UploadPartCopy of the whole source or a range inside it."""
        data = self._source(fields).data
        if (wanted := fields.get("x-amz-copy-source-range")) is not None:
            span = ranges.parse_copy_source(wanted)
            if span.last >= len(data):
                raise _answer("InvalidArgument")
            data = data[span.first : span.last + 1]
        tag = self.uploads.put_part(upload, number, data, None)
        return _copy_result("CopyPartResult", tag, self.now())

    def _source(self, fields: Headers) -> StoredObject:
        """The source of a copy, if the conditions on it hold."""
        try:
            named = copy_source.parse(fields["x-amz-copy-source"])
        except errors.S3Error as error:
            raise _answer(error.code) from error
        if named.version_id is not None:
            raise _answer("NotImplemented", message="no versions in memory")
        stored = self._object(named.bucket, named.key)
        wanted = conditions.ReadConditions.parse(fields, "x-amz-copy-source-")
        if wanted.evaluate(stored.etag, stored.modified) is not conditions.Verdict.OK:
            raise _answer("PreconditionFailed")
        return stored

    def _route_bucket(self, method: str, bucket: str, raw_query: str) -> base.Head:
        _refuse_subresources(raw_query)
        match method:
            case "HEAD":
                self._bucket(bucket)
                return _head(200, [])
            case "PUT" if bucket:
                if bucket in self.buckets:
                    raise _answer("BucketAlreadyOwnedByYou")
                self.buckets[bucket] = {}
                return _head(200, [("location", f"/{bucket}"), ("content-length", "0")])
            case "DELETE" if bucket:
                if self._bucket(bucket):
                    raise _answer("BucketNotEmpty")
                del self.buckets[bucket]
                return _head(204, [])
        raise _answer("NotImplemented")

    async def ping(self) -> None:
        """Memory is always there."""

    def with_identity(self, credentials: sigv4.Credentials | None) -> Self:
        """Everybody owns everything here."""
        return self

    async def close(self) -> None:
        """Keep the objects: there is no connection to close."""

    def _bucket(self, bucket: str) -> dict[str, StoredObject]:
        objects = self.buckets.get(bucket)
        if objects is None:
            raise _answer("NoSuchBucket")
        return objects

    def _object(self, bucket: str, key: str) -> StoredObject:
        stored = self._bucket(bucket).get(key)
        if stored is None:
            raise _answer("NoSuchKey")
        return stored


async def _collect(body: base.Body) -> bytes:
    if isinstance(body.chunks, bytes):
        data = body.chunks
    else:
        data = b"".join([piece async for piece in body.chunks()])
    if len(data) != body.length:
        msg = f"request body gave {len(data)} of {body.length} bytes"
        raise ValueError(msg)
    return data


def _head(status: int, fields: list[tuple[str, str]]) -> base.Head:
    return base.Head(status, Headers(fields))


def _kept(fields: Headers) -> tuple[tuple[str, str], ...]:
    """The headers that are stored with an object."""
    kept = tuple(
        (name, value)
        for name, value in fields.items()
        if name in _STORED or name.startswith("x-amz-meta-")
    )
    return kept if "content-type" in fields else (("content-type", "binary/octet-stream"), *kept)


def _document(data: bytes) -> MemoryStream:
    return MemoryStream(_xml_head(data), data)


def _copy_result(tag: str, md5: str, moment: datetime) -> bytes:
    modified = xml.leaf("LastModified", moment.strftime("%Y-%m-%dT%H:%M:%S.000Z"))
    return xml.document(tag, xml.leaf("ETag", etag.quote(md5)) + modified)


def _xml_head(data: bytes) -> base.Head:
    return _head(200, [("content-type", "application/xml"), ("content-length", str(len(data)))])


def _answer(
    code: str, fields: Sequence[tuple[str, str]] = (), message: str | None = None
) -> base.BackendAnswer:
    error = errors.S3Error(code, message)
    document = errors.render(error, "/", "memory", "memory")
    headers = Headers([("content-type", "application/xml"), *fields])
    return base.BackendAnswer(error.status, code, error.message, headers, document)


def _refuse_subresources(raw_query: str) -> None:
    names = {name for name, _ in query.parse_query(raw_query)} - {"x-id"}
    if names:
        raise _answer("NotImplemented", message=f"no {', '.join(sorted(names))} in memory")


def _tags(value: str) -> list[str]:
    return [etag.strip(each.strip()) for each in value.split(",")]


def _check_write(fields: Headers, stored: StoredObject | None) -> None:
    """If-Match on a missing key is 404, any other mismatch 412, as S3 does for PutObject."""
    wanted = fields.get("if-match")
    if wanted is not None:
        if stored is None:
            raise _answer("NoSuchKey")
        if wanted.strip() != "*" and stored.etag not in _tags(wanted):
            raise _answer("PreconditionFailed")
    unwanted = fields.get("if-none-match")
    if unwanted is None or stored is None:
        return
    if unwanted.strip() == "*" or stored.etag in _tags(unwanted):
        raise _answer("PreconditionFailed")


def _check_read(fields: Headers, stored: StoredObject) -> None:
    """RFC 9110 section 13.2.2, without If-Range."""
    wanted = fields.get("if-match")
    unmodified = base.parse_date(fields.get("if-unmodified-since"))
    if wanted is not None:
        if wanted.strip() != "*" and stored.etag not in _tags(wanted):
            raise _answer("PreconditionFailed")
    elif unmodified is not None and stored.modified > unmodified:
        raise _answer("PreconditionFailed")
    unwanted = fields.get("if-none-match")
    modified = base.parse_date(fields.get("if-modified-since"))
    if unwanted is not None:
        if unwanted.strip() == "*" or stored.etag in _tags(unwanted):
            raise _answer("NotModified", [("etag", etag.quote(stored.etag))])
    elif modified is not None and stored.modified <= modified:
        raise _answer("NotModified", [("etag", etag.quote(stored.etag))])


def _in_key_order(key: str) -> bytes:
    """S3 lists by UTF-8 bytes, which is not the order of Python's text above U+FFFF."""
    return key.encode("utf-8", "surrogatepass")


def _entries(
    keys: Sequence[str], prefix: str, delimiter: str, after: str
) -> Iterator[tuple[str, bool]]:
    """Keys and common prefixes (True) in order, each prefix once, beginning after `after`."""
    last = None
    for key in keys:
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        name = key if cut < 0 else key[: cut + len(delimiter)]
        if cut >= 0 and name == last:
            continue
        if _in_key_order(name) > _in_key_order(after):
            yield name, cut >= 0
        last = name


def _list(bucket: str, objects: Mapping[str, StoredObject], asked: Mapping[str, str]) -> bytes:
    newer = asked.get("list-type") == "2"
    try:
        limit = min(int(asked.get("max-keys") or 1000), 1000)
    except ValueError:
        limit = -1
    encoding = asked.get("encoding-type", "")
    if limit < 0 or encoding not in ("", "url"):
        raise _answer("InvalidArgument")
    token = asked.get("continuation-token")
    after = asked.get("start-after" if newer else "marker", "")
    if newer and token is not None:
        after = _from_token(token)
    prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
    found = _entries(sorted(objects, key=_in_key_order), prefix, delimiter, after)
    page = list(itertools.islice(found, limit))
    more = limit > 0 and next(found, None) is not None
    written = _Text(encoding == "url")
    parts = [
        xml.leaf("Name", bucket),
        written.leaf("Prefix", prefix),
        xml.leaf("MaxKeys", str(limit)),
        xml.leaf("EncodingType", encoding or None),
        written.leaf("Delimiter", delimiter or None),
        xml.leaf("IsTruncated", "true" if more else "false"),
    ]
    if newer:
        parts += [
            xml.leaf("KeyCount", str(len(page))),
            xml.leaf("ContinuationToken", token),
            written.leaf("StartAfter", asked.get("start-after")),
            xml.leaf("NextContinuationToken", _to_token(page[-1][0]) if more else None),
        ]
    else:
        parts.append(written.leaf("Marker", after))
        if more and delimiter:  # S3 sends it only then; clients go on from the last key otherwise
            parts.append(written.leaf("NextMarker", page[-1][0]))
    parts += [_contents(name, objects[name], written) for name, is_prefix in page if not is_prefix]
    for name, is_prefix in page:
        if is_prefix:
            parts.append(f"<CommonPrefixes>{written.leaf('Prefix', name)}</CommonPrefixes>")
    return xml.document("ListBucketResult", "".join(parts))


@dataclass(frozen=True, slots=True)
class _Text:
    """How keys stand in the document."""

    is_encoded: bool

    def leaf(self, tag: str, text: str | None) -> str:
        if text is not None and self.is_encoded:
            text = query.quote_path(text)
        return xml.leaf(tag, text)


def _contents(name: str, stored: StoredObject, written: _Text) -> str:
    modified = stored.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    fields = dict(stored.headers)
    return (
        f"<Contents>{written.leaf('Key', name)}<LastModified>{modified}</LastModified>"
        f"<ETag>{escape(etag.quote(stored.etag))}</ETag><Size>{len(stored.data)}</Size>"
        f"<StorageClass>{escape(fields.get('x-amz-storage-class', 'STANDARD'))}</StorageClass>"
        "</Contents>"
    )


def _to_token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode("utf-8", "surrogatepass")).decode()


def _from_token(token: str) -> str:
    try:
        return base64.b64decode(token, b"-_", validate=True).decode("utf-8", "surrogatepass")
    except ValueError as error:
        raise _answer("InvalidArgument", message="The continuation token is incorrect") from error
