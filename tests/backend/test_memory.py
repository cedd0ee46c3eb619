from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.backend import base, memory
from s4gateway.s3 import documents, query
from tests.contracts import backend_contract


class TestMemoryBackend(backend_contract.BackendContract):
    @pytest.fixture
    def bucket(self) -> str:
        return "bucket"

    @pytest.fixture
    def backend(self, bucket: str) -> memory.MemoryBackend:
        return memory.MemoryBackend.with_buckets(bucket)


KEYS = st.sets(
    st.text(st.sampled_from("a/b\U0001f5dc\uffe0é \x01"), min_size=1, max_size=5), max_size=12
)


@given(keys=KEYS, prefix=st.sampled_from(["", "a", "a/", "/"]), size=st.integers(1, 4))
async def test_pages_of_any_size_make_the_same_listing(keys: set[str], prefix: str, size: int):
    store = memory.MemoryBackend.with_buckets("b")
    for key in keys:
        await store.put("b", key, base.EMPTY)
    matching = sorted((key for key in keys if key.startswith(prefix)), key=str.encode)
    folded = {k[: k.index("/", len(prefix)) + 1] for k in matching if "/" in k[len(prefix) :]}
    flat = [key for key in matching if "/" not in key[len(prefix) :]]
    asked = {"prefix": prefix, "max-keys": str(size)}
    assert await backend_contract.list_all(store, "b", **asked) == (matching, [])
    found = await backend_contract.list_all(store, "b", delimiter="/", **asked)
    assert found == (flat, sorted(folded, key=str.encode))


@given(keys=KEYS, size=st.integers(1, 3))
async def test_markers_of_the_older_listing_lose_and_repeat_nothing(keys: set[str], size: int):
    store = memory.MemoryBackend.with_buckets("b")
    for key in keys:
        await store.put("b", key, base.EMPTY)
    found: list[str] = []
    asked = {"max-keys": str(size), "delimiter": "/", "encoding-type": "url"}
    while True:
        page = documents.ListPage.parse(await store.list("b", query.format_query(asked.items())))
        found += [entry.key for entry in page.contents] + list(page.common_prefixes)
        if not page.is_truncated:
            break
        assert page.next_marker is not None
        asked["marker"] = page.next_marker
    expected = {key[: key.index("/") + 1] if "/" in key else key for key in keys}
    assert sorted(found) == sorted(expected)


async def test_a_page_of_no_keys_is_not_truncated():
    store = memory.MemoryBackend.with_buckets("b")
    await store.put("b", "k", base.EMPTY)
    page = documents.ListPage.parse(await store.list("b", "list-type=2&max-keys=0"))
    assert (list(page.contents), page.is_truncated) == ([], False)


@pytest.mark.parametrize(
    "raw_query",
    ["max-keys=x", "max-keys=-1", "list-type=2&continuation-token=%21", "encoding-type=x"],
)
async def test_a_malformed_listing_request_is_invalid(raw_query: str):
    store = memory.MemoryBackend.with_buckets("b")
    with pytest.raises(base.BackendAnswer) as caught:
        await store.list("b", raw_query)
    assert (caught.value.status, caught.value.code) == (400, "InvalidArgument")


async def test_what_memory_cannot_do_it_refuses():
    store = memory.MemoryBackend.with_buckets("bucket")
    await store.put("bucket", "k", base.EMPTY)
    with pytest.raises(base.BackendAnswer) as caught:
        await store.get("bucket", "k", query="versionId=1")
    assert caught.value.status == 501
    for method, path, raw_query in [
        ("GET", "/bucket/k", "tagging"),
        ("POST", "/bucket/k", "restore"),
        ("PUT", "/bucket", "versioning"),
        ("GET", "/bucket", "versions"),
    ]:
        async with await store.forward(method, path, raw_query, ()) as stream:
            assert stream.head.status == 501
            assert documents.parse_error(await stream.read(10**5))[0] == "NotImplemented"
    version = [("x-amz-copy-source", "bucket/k?versionId=1")]
    async with await store.forward("PUT", "/bucket/k2", "", version) as stream:
        assert stream.head.status == 501


async def test_buckets_are_made_and_removed_by_forward():
    store = memory.MemoryBackend()

    async def status(method: str, path: str) -> int:
        async with await store.forward(method, path, "", ()) as stream:
            return stream.head.status

    assert await status("HEAD", "/b") == 404
    assert await status("PUT", "/b") == 200
    assert await status("PUT", "/b") == 409
    assert await status("HEAD", "/b") == 200
    assert await status("PUT", "/b/k") == 200
    assert await status("HEAD", "/b/k") == 200
    assert await status("DELETE", "/b") == 409
    assert await status("DELETE", "/b/k") == 204
    assert await status("GET", "/b") == 200
    assert await status("DELETE", "/b") == 204
    assert await status("GET", "/") == 501


async def test_dates_are_conditions():
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    store = memory.MemoryBackend({"b": {}}, now=lambda: moment)
    await store.put("b", "k", base.Body.of(b"x"))
    (stamp,) = (await store.head("b", "k")).headers.getall("last-modified")
    earlier = "Wed, 31 Dec 2025 23:59:59 GMT"
    for name, date, status in [
        ("if-modified-since", stamp, 304),
        ("if-modified-since", earlier, 200),
        ("if-unmodified-since", stamp, 200),
        ("if-unmodified-since", earlier, 412),
    ]:
        async with await store.forward("GET", "/b/k", "", [(name, date)]) as stream:
            assert stream.head.status == status
    assert (await store.head("b", "k")).last_modified == moment < moment + timedelta(1)


async def test_a_source_that_lies_about_its_length_stores_nothing():
    store = memory.MemoryBackend.with_buckets("b")
    body = base.Body(3, backend_contract.streamed(b"1234").chunks)
    with pytest.raises(ValueError, match="4 of 3"):
        await store.put("b", "k", body)
    assert store.buckets["b"] == {}
