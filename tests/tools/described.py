"""A store in memory whose objects have tags and ACLs, and keep every header a write may carry."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from s4gateway.backend import base
from s4gateway.backend.memory import MemoryBackend, MemoryStream
from s4gateway.s3 import query, xml
from s4gateway.s3.headers import Headers

OWNER = "owner-1"
_XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
_ALSO = (
    "x-amz-website-redirect-location",
    "x-amz-server-side-encryption",
    "x-amz-object-lock-",
    "x-amz-grant-",
    "x-amz-checksum-",
)

Grant = tuple[str, str, str]  # element that names the grantee, its name, permission
OWN: tuple[Grant, ...] = (("ID", OWNER, "FULL_CONTROL"),)


@dataclass(slots=True, eq=False)
class DescribedBackend(MemoryBackend):
    """`tags` and `grants` by key; `refusals` answer a subresource with that status and code."""

    tags: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    grants: dict[str, Sequence[Grant]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    status: str | None = None

    async def put(
        self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
    ) -> base.Head:
        head = await MemoryBackend.put(self, bucket, key, body, headers)
        self.keep(bucket, key, headers)
        return head

    def keep(self, bucket: str, key: str, headers: base.HeaderList) -> None:
        """Keep with an object what the plain store in memory drops."""
        fields = Headers(list(headers))
        kept = tuple(each for each in fields.items() if each[0].startswith(_ALSO))
        stored = self.buckets[bucket][key]
        self.buckets[bucket][key] = replace(stored, headers=(*stored.headers, *kept))
        self.tags.pop(key, None)
        if (text := fields.get("x-amz-tagging")) is not None:
            self.tags[key] = query.parse_query(text)

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        asked = [name for name, _ in query.parse_query(raw_query)]
        which = asked[0] if asked else ""
        if method != "GET" or which not in {"tagging", "acl", "versioning"}:
            return await MemoryBackend.forward(self, method, raw_path, raw_query, headers, body)
        if which in self.refusals:
            status, code = self.refusals[which]
            return _answer(status, xml.document("Error", xml.leaf("Code", code)))
        key = query.unquote(raw_path.split("/", 2)[-1])
        return _answer(200, {"tagging": self._tags, "acl": self._acl}.get(which, self._state)(key))

    def _tags(self, key: str) -> bytes:
        pairs = [
            f"<Tag>{xml.leaf('Key', name)}{xml.leaf('Value', value)}</Tag>"
            for name, value in self.tags.get(key, ())
        ]
        return xml.document("Tagging", f"<TagSet>{''.join(pairs)}</TagSet>")

    def _acl(self, key: str) -> bytes:
        given = [
            f'<Grant><Grantee {_XSI} xsi:type="CanonicalUser">{xml.leaf(element, name)}</Grantee>'
            f"{xml.leaf('Permission', right)}</Grant>"
            for element, name, right in self.grants.get(key, OWN)
        ]
        owner = f"<Owner>{xml.leaf('ID', OWNER)}</Owner>"
        listed = f"<AccessControlList>{''.join(given)}</AccessControlList>"
        return xml.document("AccessControlPolicy", owner + listed)

    def _state(self, _: str) -> bytes:
        inner = "" if self.status is None else xml.leaf("Status", self.status)
        return xml.document("VersioningConfiguration", inner)


def _answer(status: int, document: bytes) -> MemoryStream:
    fields = [("content-type", "application/xml"), ("content-length", str(len(document)))]
    return MemoryStream(base.Head(status, Headers(fields)), document)
