"""Everything below a prefix goes, with all its versions, from stores of every kind."""

import pytest

from s4gateway.backend.base import (
    BackendAnswer,
    BackendProtocolError,
    Body,
    Head,
    HeaderList,
    ObjectStream,
)
from s4gateway.backend.memory import MemoryBackend, MemoryStream
from s4gateway.objects import removal
from s4gateway.objects.removal import Version
from s4gateway.s3 import query, xml
from s4gateway.s3.headers import Headers
from tests.backends import CountingBackend
from tests.objects import world
from tests.objects.world import BUCKET

PREFIX = ".s4mpu/61/"


async def test_a_store_without_versions_is_listed_by_keys():
    store = MemoryBackend.with_buckets(BUCKET)
    for number in range(1500):
        world.put_stored(store, f"{PREFIX}{number:05d}", b"")
    world.put_stored(store, ".s4mpu/62/00001", b"")
    found = await removal.versions(store, BUCKET, PREFIX)
    assert len(found) == 1500
    assert await removal.remove(store, BUCKET, PREFIX, keep=[found[0].key])
    assert sorted(store.buckets[BUCKET]) == [found[0].key, ".s4mpu/62/00001"]


async def test_a_bucket_that_is_not_there_is_an_error_or_a_warning():
    store = MemoryBackend()
    with pytest.raises(BackendAnswer):
        await removal.versions(store, BUCKET, PREFIX)
    assert not await removal.remove(store, BUCKET, PREFIX)


class Versioned(CountingBackend):
    """Answers version listings two entries a page, and deletes by version."""

    def __init__(self, versions: list[Version]) -> None:
        super().__init__(MemoryBackend.with_buckets(BUCKET))
        self.versions = versions
        self.stubborn: set[str] = set()

    async def list(self, bucket: str, raw_query: str) -> bytes:
        asked = dict(query.parse_query(raw_query))
        assert asked["encoding-type"] == "url"
        after = (asked.get("key-marker", ""), asked.get("version-id-marker", ""))
        rest = [each for each in sorted(self.versions) if (each.key, each.version_id) > after]
        inner = "<EncodingType>url</EncodingType>"
        for key, version, _ in rest[:2]:
            tag = "DeleteMarker" if version.startswith("d") else "Version"
            name = xml.leaf("Key", query.quote(key)) + xml.leaf("VersionId", version)
            inner += f"<{tag}>{name}</{tag}>"
        more = len(rest) > 2
        inner += xml.leaf("IsTruncated", "true" if more else "false")
        if more:
            inner += xml.leaf("NextKeyMarker", query.quote(rest[1].key))
            inner += xml.leaf("NextVersionIdMarker", rest[1].version_id)
        return xml.document("ListVersionsResult", inner)

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: HeaderList,
        body: Body | None = None,
    ) -> ObjectStream:
        assert (method, raw_path, raw_query) == ("POST", f"/{BUCKET}", "delete=")
        assert body is not None
        assert isinstance(body.chunks, bytes)
        assert body.md5 is not None
        errors = ""
        for each in xml.parse(body.chunks).findall("Object"):
            version = Version(each.findtext("Key") or "", each.findtext("VersionId") or "")
            if version.key in self.stubborn:
                errors += f"<Error>{xml.leaf('Key', version.key)}<Code>AccessDenied</Code></Error>"
            else:
                self.versions.remove(version)
        document = xml.document("DeleteResult", errors)
        return MemoryStream(Head(200, Headers([("content-type", "application/xml")])), document)


def entries() -> list[Version]:
    parts = [Version(f"{PREFIX}{number:05d}", kind) for number in (1, 2) for kind in ("d2", "v1")]
    return [*parts, Version(f"{PREFIX}create", "v1"), Version(f"{PREFIX}create", "v2")]


async def test_every_version_and_marker_goes_and_the_last_key_last():
    store = Versioned(entries())
    assert sorted(await removal.versions(store, BUCKET, PREFIX)) == sorted(entries())
    store.stubborn = {f"{PREFIX}00002"}
    assert not await removal.remove(store, BUCKET, PREFIX, last=f"{PREFIX}create")
    assert {each.key for each in store.versions} == {f"{PREFIX}00002", f"{PREFIX}create"}
    store.stubborn = set()
    assert await removal.remove(store, BUCKET, PREFIX, last=f"{PREFIX}create")
    assert store.versions == []


async def test_entries_outside_the_prefix_are_never_deleted():
    store = Versioned([Version("a/key", "v1"), Version(f"{PREFIX}00001", "v1")])
    assert await removal.remove(store, BUCKET, PREFIX)
    assert store.versions == [Version("a/key", "v1")]


async def test_a_listing_that_does_not_come_forward_is_refused():
    class Stuck(CountingBackend):
        async def list(self, bucket: str, raw_query: str) -> bytes:
            asked = dict(query.parse_query(raw_query))
            if "versions" in asked and not self.versioned:
                raise BackendAnswer(501, "NotImplemented")
            tag, root = (
                ("Version", "ListVersionsResult")
                if self.versioned
                else ("Contents", "ListBucketResult")
            )
            name = xml.leaf("Key", f"{PREFIX}00001")
            more = "<IsTruncated>true</IsTruncated>" + xml.leaf("NextKeyMarker", f"{PREFIX}00001")
            return xml.document(root, f"<{tag}>{name}<Size>0</Size></{tag}>{more}")

        versioned = False

    stuck = Stuck(MemoryBackend.with_buckets(BUCKET))
    for versioned in (False, True):
        stuck.versioned = versioned
        with pytest.raises(BackendProtocolError, match="does not come forward"):
            await removal.versions(stuck, BUCKET, PREFIX)
