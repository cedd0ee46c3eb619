"""What every Backend must do: one suite that each implementation's test class inherits.

A subclass gives the fixtures `backend` and `bucket` (an empty one). Its class attributes say where
the store behind it is known to differ from S3.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator

import pytest

from s4gateway.backend import base
from s4gateway.s3 import documents, etag, query
from s4gateway.s3.copying import CopyResult

DATA = bytes(range(256)) * 40
KEYS = [
    "plain",
    "dir/file.txt",
    "a b",
    "plus+and space",
    "year=2024/month=01",
    "per%cent",
    "%2F",
    "colon:at@dollar$",
    "semi;comma,",
    "question?hash#",
    "ampersand&equals=",
    "paren(s)'quote\"",
    "tilde~star*",
    "trailing/",
    "ünï/çødé",
    "日本語",
    "emoji-🗜",
    "back\\slash",
    "[brackets]{braces}|^`",
]
DOTTED_KEYS = [".", "..", "a/../c", "./x", "../x"]
SLASHED_KEYS = ["k", "/k", "//k", "k//", "a//b"]


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def md5_header(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def streamed(data: bytes, piece: int = 1000) -> base.Body:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), piece):
            yield data[start : start + piece]

    return base.Body(len(data), chunks)


async def fetch(backend: base.Backend, bucket: str, key: str) -> bytes:
    async with await backend.get(bucket, key) as stream:
        return await stream.read(10**9)


async def list_all(backend: base.Backend, bucket: str, **asked: str) -> tuple[list[str], list[str]]:
    """Keys and common prefixes of all pages of ListObjectsV2."""
    keys: list[str] = []
    prefixes: list[str] = []
    asked = {"list-type": "2", "encoding-type": "url", **asked}
    while True:
        page = documents.ListPage.parse(
            await backend.list(bucket, query.format_query(asked.items()))
        )
        keys += [entry.key for entry in page.contents]
        prefixes += page.common_prefixes
        if not page.is_truncated:
            return keys, prefixes
        assert page.next_continuation_token is not None
        asked["continuation-token"] = page.next_continuation_token


REPLACED = [("x-amz-metadata-directive", "REPLACE"), ("x-amz-meta-shape", "round")]


async def copied(
    backend: base.Backend, bucket: str, key: str, to: str, headers: base.HeaderList
) -> tuple[int, str]:
    """Status of a CopyObject inside the bucket, and the ETag it answers with."""
    source = ("x-amz-copy-source", f"/{bucket}/{query.quote_path(key)}")
    path = f"/{bucket}/{query.quote_path(to)}"
    async with await backend.forward("PUT", path, "", [source, *headers]) as stream:
        data = await stream.read(base.ERROR_LIMIT)
    status = stream.head.status
    return status, CopyResult.parse(data).etag if status == 200 else ""


class BackendContract:
    """The suite."""

    takes_dotted_keys = True
    keeps_slashes = True
    if_match_on_missing_key = 404
    altered_keys: frozenset[str] = frozenset()  # keys the store does not keep as they are

    async def test_what_is_put_comes_back(self, backend: base.Backend, bucket: str):
        put = await backend.put(bucket, "k", base.Body.of(DATA))
        assert put.etag == md5(DATA)
        async with await backend.get(bucket, "k") as stream:
            assert stream.head.status == 200
            assert stream.head.size == stream.head.content_length == len(DATA)
            assert stream.head.etag == md5(DATA)
            assert stream.head.last_modified is not None
            assert b"".join([piece async for piece in stream]) == DATA

    async def test_a_streamed_body_is_stored_whole(self, backend: base.Backend, bucket: str):
        data = DATA * 100
        assert (await backend.put(bucket, "k", streamed(data, 70_001))).etag == md5(data)
        assert await fetch(backend, bucket, "k") == data

    async def test_an_empty_object_is_an_object(self, backend: base.Backend, bucket: str):
        assert (await backend.put(bucket, "k", base.EMPTY)).etag == md5(b"")
        assert (await backend.head(bucket, "k")).size == 0
        assert await fetch(backend, bucket, "k") == b""

    async def test_metadata_and_type_come_back_without_prefix(
        self, backend: base.Backend, bucket: str
    ):
        headers = [
            ("Content-Type", "text/csv"),
            ("Content-Encoding", "gzip"),
            ("x-amz-meta-s4-codec", "cpu-zstd"),
            ("X-Amz-Meta-Owner", "me and you"),
        ]
        await backend.put(bucket, "k", base.Body.of(b"x"), headers)
        head = await backend.head(bucket, "k")
        assert head.content_type == "text/csv"
        assert head.headers["content-encoding"] == "gzip"
        assert head.metadata == {"s4-codec": "cpu-zstd", "owner": "me and you"}

    async def test_a_stored_content_encoding_is_not_undone(
        self, backend: base.Backend, bucket: str
    ):
        await backend.put(bucket, "k", base.Body.of(b"not gzip"), [("content-encoding", "gzip")])
        assert await fetch(backend, bucket, "k") == b"not gzip"

    @pytest.mark.parametrize("key", KEYS)
    async def test_every_key_names_its_own_object(
        self, backend: base.Backend, bucket: str, key: str
    ):
        if key in self.altered_keys:
            pytest.skip("not a key of this store")
        await backend.put(bucket, key, base.Body.of(key.encode()))
        assert await fetch(backend, bucket, key) == key.encode()
        assert (await backend.head(bucket, key)).size == len(key.encode())
        assert await list_all(backend, bucket) == ([key], [])
        await backend.delete(bucket, key)
        with pytest.raises(base.BackendAnswer) as caught:
            await backend.head(bucket, key)
        assert caught.value.missing

    async def test_keys_that_differ_in_slashes_and_dots_are_different_objects(
        self, backend: base.Backend, bucket: str
    ):
        keys = ["x"]
        keys += SLASHED_KEYS if self.keeps_slashes else []
        keys += DOTTED_KEYS if self.takes_dotted_keys else []
        for key in keys:
            await backend.put(bucket, key, base.Body.of(key.encode()))
        for key in keys:
            assert await fetch(backend, bucket, key) == key.encode()
        assert sorted((await list_all(backend, bucket))[0]) == sorted(keys)

    @pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 10240), (5, 300), (10239, 10240)])
    async def test_a_range_is_those_bytes(
        self, backend: base.Backend, bucket: str, start: int, end: int
    ):
        await backend.put(bucket, "k", base.Body.of(DATA))
        async with await backend.get(bucket, "k", byte_range=(start, end)) as stream:
            assert stream.head.status == 206
            assert stream.head.content_length == end - start
            assert stream.head.size == len(DATA)
            assert await stream.read(end) == DATA[start:end]

    async def test_a_range_is_cut_at_the_end_of_the_object(
        self, backend: base.Backend, bucket: str
    ):
        await backend.put(bucket, "k", base.Body.of(DATA))
        async with await backend.get(bucket, "k", byte_range=(10_000, 99_999)) as stream:
            assert await stream.read(10**6) == DATA[10_000:]

    async def test_a_range_beyond_the_end_is_invalid(self, backend: base.Backend, bucket: str):
        await backend.put(bucket, "k", base.Body.of(DATA))
        with pytest.raises(base.BackendAnswer) as caught:
            await backend.get(bucket, "k", byte_range=(len(DATA), len(DATA) + 1))
        assert (caught.value.status, caught.value.code) == (416, "InvalidRange")

    async def test_a_missing_key_and_a_missing_bucket_are_told_apart(
        self, backend: base.Backend, bucket: str
    ):
        with pytest.raises(base.BackendAnswer) as caught:
            await backend.get(bucket, "nothing")
        assert (caught.value.status, caught.value.code) == (404, "NoSuchKey")
        with pytest.raises(base.BackendAnswer) as caught:
            await backend.get("no-such-bucket-anywhere", "nothing")
        assert (caught.value.status, caught.value.code) == (404, "NoSuchBucket")
        with pytest.raises(base.BackendAnswer) as caught:
            await backend.head(bucket, "nothing")
        assert caught.value.missing

    async def test_a_read_is_pinned_to_the_etag(self, backend: base.Backend, bucket: str):
        old = await backend.put(bucket, "k", base.Body.of(b"old"))
        async with await backend.get(bucket, "k", if_match=old.etag) as stream:
            assert await stream.read(10) == b"old"
        await backend.put(bucket, "k", base.Body.of(b"new"))
        with pytest.raises(base.BackendAnswer) as caught:
            await backend.get(bucket, "k", if_match=old.etag, byte_range=(0, 1))
        assert (caught.value.status, caught.value.code) == (412, "PreconditionFailed")

    async def test_if_none_match_on_a_read_is_not_modified(
        self, backend: base.Backend, bucket: str
    ):
        put = await backend.put(bucket, "k", base.Body.of(DATA))
        unless = [("if-none-match", etag.quote(put.etag))]
        for verb in (backend.get, backend.head):
            with pytest.raises(base.BackendAnswer) as caught:
                await verb(bucket, "k", headers=unless)
            assert (caught.value.status, caught.value.code) == (304, "NotModified")

    async def test_a_key_is_created_once(self, backend: base.Backend, bucket: str):
        only_new = [("if-none-match", "*")]
        await backend.put(bucket, "k", base.Body.of(b"first"), only_new)
        with pytest.raises(base.BackendAnswer) as caught:
            await backend.put(bucket, "k", base.Body.of(b"second"), only_new)
        assert (caught.value.status, caught.value.code) == (412, "PreconditionFailed")
        assert await fetch(backend, bucket, "k") == b"first"

    async def test_of_many_creators_one_wins(self, backend: base.Backend, bucket: str):
        async def create(number: int) -> bool:
            body = base.Body.of(str(number).encode())
            try:
                await backend.put(bucket, "k", body, [("if-none-match", "*")])
            except base.BackendAnswer as answer:
                assert answer.status in (409, 412)  # noqa: PT017 - all of them are looked at
                return False
            return True

        won = await asyncio.gather(*[create(number) for number in range(8)])
        assert sum(won) == 1
        assert await fetch(backend, bucket, "k") == str(won.index(True)).encode()

    async def test_a_key_is_replaced_only_in_the_expected_state(
        self, backend: base.Backend, bucket: str
    ):
        first = await backend.put(bucket, "k", base.Body.of(b"first"))
        same = [("if-match", etag.quote(first.etag))]
        await backend.put(bucket, "k", base.Body.of(b"second"), same)
        with pytest.raises(base.BackendAnswer) as caught:
            await backend.put(bucket, "k", base.Body.of(b"third"), same)
        assert caught.value.status == 412
        with pytest.raises(base.BackendAnswer) as caught:
            await backend.put(bucket, "new", base.Body.of(b"third"), same)
        assert caught.value.status == self.if_match_on_missing_key
        assert await list_all(backend, bucket) == (["k"], [])

    async def test_a_body_that_is_not_what_its_md5_says_is_refused(
        self, backend: base.Backend, bucket: str
    ):
        body = base.Body.of(b"damaged", md5=md5_header(b"intended"))
        with pytest.raises(base.BackendAnswer) as caught:
            await backend.put(bucket, "k", body)
        assert (caught.value.status, caught.value.code) == (400, "BadDigest")
        assert await list_all(backend, bucket) == ([], [])
        await backend.put(bucket, "k", base.Body.of(b"intended", md5=md5_header(b"intended")))

    async def test_deleting_what_is_not_there_is_no_error(self, backend: base.Backend, bucket: str):
        assert (await backend.delete(bucket, "nothing")).status == 204

    async def test_many_keys_are_deleted_with_one_verb(self, backend: base.Backend, bucket: str):
        keys = ["a", "b/c", "d&<e>'\"", "f\tg", "ünïcode"]
        for key in (*keys, "stays"):
            await backend.put(bucket, key, base.Body.of(b"x"))
        assert await backend.delete_many(bucket, [*keys, "not there"]) == []
        assert await list_all(backend, bucket) == (["stays"], [])

    async def test_a_listing_is_paged_in_key_order(self, backend: base.Backend, bucket: str):
        keys = [f"p/{number:03}" for number in range(23)]
        await asyncio.gather(*[backend.put(bucket, key, base.EMPTY) for key in keys])
        await backend.put(bucket, "q", base.EMPTY)
        assert await list_all(backend, bucket, prefix="p/", **{"max-keys": "5"}) == (keys, [])
        after = {"start-after": "p/019", "prefix": "p/"}
        assert (await list_all(backend, bucket, **after))[0] == keys[20:]

    async def test_a_delimiter_folds_keys_into_prefixes(self, backend: base.Backend, bucket: str):
        for key in ("a/1", "a/2", "b/c/3", "b/4", "top"):
            await backend.put(bucket, key, base.Body.of(key.encode()))
        for size in ("1", "1000"):
            asked = {"delimiter": "/", "max-keys": size}
            assert await list_all(backend, bucket, **asked) == (["top"], ["a/", "b/"])
            assert await list_all(backend, bucket, prefix="b/", **asked) == (["b/4"], ["b/c/"])

    async def test_the_older_listing_goes_on_from_a_marker(
        self, backend: base.Backend, bucket: str
    ):
        for key in ("a", "b", "c"):
            await backend.put(bucket, key, base.Body.of(key.encode()))
        page = documents.ListPage.parse(await backend.list(bucket, "max-keys=2"))
        assert [entry.key for entry in page.contents] == ["a", "b"]
        assert page.is_truncated
        page = documents.ListPage.parse(await backend.list(bucket, "marker=b"))
        assert [(entry.key, entry.size) for entry in page.contents] == [("c", 1)]
        assert not page.is_truncated

    async def test_forward_relays_what_the_typed_verbs_would_raise(
        self, backend: base.Backend, bucket: str
    ):
        async with await backend.forward("GET", f"/{bucket}/nothing", "", ()) as stream:
            assert stream.head.status == 404
            code, _ = documents.parse_error(await stream.read(base.ERROR_LIMIT))
            assert code == "NoSuchKey"

    async def test_forward_sends_and_returns_bodies(self, backend: base.Backend, bucket: str):
        path = f"/{bucket}/dir/k%20ey"
        headers = [("content-type", "text/x-test")]
        async with await backend.forward("PUT", path, "", headers, streamed(DATA)) as stream:
            assert stream.head.status == 200
            assert stream.head.etag == md5(DATA)
        async with await backend.forward("GET", path, "", [("range", "bytes=0-9")]) as stream:
            assert stream.head.status == 206
            assert stream.head.content_type == "text/x-test"
            assert await stream.read(10) == DATA[:10]
        assert await fetch(backend, bucket, "dir/k ey") == DATA

    async def test_a_copy_keeps_or_replaces_the_metadata(self, backend: base.Backend, bucket: str):
        await backend.put(bucket, "a", base.Body.of(DATA), [("x-amz-meta-colour", "red")])
        for to, headers, metadata in (
            ("b", [], {"colour": "red"}),
            ("c", REPLACED, {"shape": "round"}),
            ("a", REPLACED, {"shape": "round"}),
        ):
            status, etag_ = await copied(backend, bucket, "a", to, headers)
            assert status == 200
            head = await backend.head(bucket, to)
            assert (head.etag, head.metadata) == (etag_, metadata)
            assert await fetch(backend, bucket, to) == DATA

    async def test_a_copy_is_pinned_to_the_etag(self, backend: base.Backend, bucket: str):
        await backend.put(bucket, "a", base.Body.of(DATA))
        for tag, status in ((md5(DATA), 200), (md5(b"else"), 412)):
            pin = [("x-amz-copy-source-if-match", etag.quote(tag))]
            assert (await copied(backend, bucket, "a", f"b{status}", pin))[0] == status
        assert await list_all(backend, bucket) == (["a", "b200"], [])
        assert (await copied(backend, bucket, "a", "a", []))[0] == 400
        assert (await copied(backend, bucket, "gone", "b", []))[0] == 404

    async def test_a_copy_is_made_only_where_its_condition_holds(
        self, backend: base.Backend, bucket: str
    ):
        await backend.put(bucket, "a", base.Body.of(DATA))
        once = [("if-none-match", "*")]
        assert (await copied(backend, bucket, "a", "b", once))[0] == 200
        assert (await copied(backend, bucket, "a", "b", once))[0] == 412

    async def test_read_refuses_more_than_its_limit(self, backend: base.Backend, bucket: str):
        await backend.put(bucket, "k", base.Body.of(DATA))
        async with await backend.get(bucket, "k") as stream:
            with pytest.raises(base.BackendProtocolError):
                await stream.read(len(DATA) - 1)

    async def test_a_closed_stream_gives_no_bytes(self, backend: base.Backend, bucket: str):
        await backend.put(bucket, "k", base.Body.of(DATA))
        stream = await backend.get(bucket, "k")
        await stream.close()
        await stream.close()
        with pytest.raises(base.BackendProtocolError):
            await stream.read(10**6)

    async def test_ping_answers(self, backend: base.Backend, bucket: str):
        await backend.ping()
