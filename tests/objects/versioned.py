"""A store in memory that keeps versions, and lists them as S3 does or as SeaweedFS does.

What is current is what `MemoryBackend` holds; `history` has every version and delete marker of a
key of the one bucket, the newest first. `scan` is the order in which a page of versions is filled
before it is sorted: SeaweedFS goes by the names of its directories.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from s4gateway.backend import base
from s4gateway.backend.memory import MemoryBackend, MemoryStream, StoredObject
from s4gateway.s3 import etag, xml
from s4gateway.s3 import query as queries
from s4gateway.s3.escaping import escape
from s4gateway.s3.headers import Headers
from tests.objects.world import BUCKET


def as_s3(key: str) -> bytes:
    return key.encode()


def as_seaweedfs(key: str) -> bytes:
    return f"{key}.versions".encode()


@dataclass(frozen=True)
class Version:
    version_id: str
    stored: StoredObject | None  # None is a delete marker


Name = tuple[str, Version | None]  # a version, or a common prefix


@dataclass(eq=False)
class VersionedBackend(MemoryBackend):
    buckets: dict[str, dict[str, StoredObject]] = field(default_factory=lambda: {BUCKET: {}})
    history: dict[str, list[Version]] = field(default_factory=dict)
    scan: Callable[[str], bytes] = as_s3
    _ids: Iterator[int] = field(default_factory=itertools.count)

    def add(self, key: str, stored: StoredObject | None) -> str:
        """A new version or, with None, a delete marker; returns its id."""
        version = Version(f"v{next(self._ids):04}", stored)
        self.history.setdefault(key, []).insert(0, version)
        self._settle(key)
        return version.version_id

    def _settle(self, key: str) -> None:
        kept = self.history.get(key)
        if kept and kept[0].stored is not None:
            self.buckets[BUCKET][key] = kept[0].stored
        else:
            self.buckets[BUCKET].pop(key, None)
        if not kept:
            self.history.pop(key, None)

    async def put(
        self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
    ) -> base.Head:
        head = await super().put(bucket, key, body, headers)
        version = self.add(key, self.buckets[bucket][key])
        return base.Head(200, Headers([*head.headers.items(), ("x-amz-version-id", version)]))

    async def head(
        self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
    ) -> base.Head:
        return (await self.get(bucket, key, query=query, headers=headers)).head

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
        shown = self.buckets[bucket]
        if query:
            wanted = query.removeprefix("versionId=")
            found = [each.stored for each in self.history.get(key, ()) if each.version_id == wanted]
            if not found or found[0] is None:
                raise base.BackendAnswer(404, "NoSuchVersion")
            shown = {key: found[0]}
        store = MemoryBackend({bucket: shown})
        return await store.get(
            bucket, key, byte_range=byte_range, if_match=if_match, headers=headers
        )

    async def delete(
        self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
    ) -> base.Head:
        if not query:
            return _deleted(self.add(key, None), marker=True)
        wanted = query.removeprefix("versionId=")
        kept = self.history.get(key, [])
        gone = [each for each in kept if each.version_id == wanted]
        self.history[key] = [each for each in kept if each.version_id != wanted]
        self._settle(key)
        return _deleted(wanted, marker=bool(gone) and gone[0].stored is None)

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        if (method, raw_query) != ("POST", "delete="):
            return await super().forward(method, raw_path, raw_query, headers, body)
        assert body is not None
        assert isinstance(body.chunks, bytes)
        for each in xml.parse(body.chunks).findall("Object"):
            version = f"versionId={each.findtext('VersionId')}"
            await self.delete(BUCKET, each.findtext("Key") or "", query=version)
        return MemoryStream(base.Head(200, Headers([])), xml.document("DeleteResult", ""))

    async def list(self, bucket: str, raw_query: str, headers: base.HeaderList = ()) -> bytes:
        asked = dict(queries.parse_query(raw_query))
        if "versions" not in asked:
            return await super().list(bucket, raw_query, headers)
        limit = int(asked.get("max-keys", "1000"))
        found = [each for each in self._names(asked) if self._is_behind(each, asked)]
        page = sorted(found[:limit], key=lambda each: each[0].encode())  # stable: newest first
        parts = ["<EncodingType>url</EncodingType>"]
        if len(found) > limit:
            key, version = page[-1]
            parts.append("<IsTruncated>true</IsTruncated>")
            parts.append(xml.leaf("NextKeyMarker", queries.quote(key)))
            if version is not None:
                parts.append(xml.leaf("NextVersionIdMarker", version.version_id))
        parts += [self._element(*each) for each in page]
        return xml.document("ListVersionsResult", "".join(parts))

    def _names(self, asked: dict[str, str]) -> "list[Name]":
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        names: dict[Name, None] = {}
        for key in sorted(self.history, key=self.scan):
            if not key.startswith(prefix):
                continue
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            if at < 0:
                names.update(dict.fromkeys((key, each) for each in self.history[key]))
            else:
                names[key[: at + len(delimiter)], None] = None
        return [*names]

    def _is_behind(self, name: Name, asked: dict[str, str]) -> bool:
        marker, version_marker = asked.get("key-marker", ""), asked.get("version-id-marker")
        key, version = name
        if key != marker or version is None or not version_marker:
            return key.encode() > marker.encode()
        ids = [each.version_id for each in self.history[key]]
        return ids.index(version.version_id) > ids.index(version_marker)

    def _element(self, key: str, version: Version | None) -> str:
        if version is None:
            inner = xml.leaf("Prefix", queries.quote(key))
            return f"<CommonPrefixes>{inner}</CommonPrefixes>"
        latest = "true" if self.history[key][0] is version else "false"
        inner = xml.leaf("Key", queries.quote(key)) + xml.leaf("VersionId", version.version_id)
        inner += f"<IsLatest>{latest}</IsLatest><LastModified>2025</LastModified>"
        if version.stored is None:
            return f"<DeleteMarker>{inner}</DeleteMarker>"
        tag = escape(etag.quote(version.stored.etag))
        size = len(version.stored.data)
        return f"<Version>{inner}<ETag>{tag}</ETag><Size>{size}</Size></Version>"


def _deleted(version: str, *, marker: bool) -> base.Head:
    headers = [("x-amz-version-id", version)]
    if marker:
        headers.append(("x-amz-delete-marker", "true"))
    return base.Head(204, Headers(headers))
