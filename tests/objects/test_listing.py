"""Listings: complete pages, nothing internal in them, logical sizes for few requests."""

import asyncio
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4gateway.backend.base import BackendAnswer, Head
from s4gateway.backend.memory import MemoryBackend
from s4gateway.objects.listing import ListRequest, visible_page
from s4gateway.s3.documents import ListPage
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys
from tests import corpus
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.world import BUCKET, Instance

ODD = "\x01\x1f\x7f&<>'\"%+ ~é\ufffd\U0001f5dc?#="
NAMES = st.text(st.sampled_from("ab/.s4" + ODD), min_size=1, max_size=6).filter(
    lambda name: not keys.is_hidden(name)
)


def store_of(visible: set[str], hidden: set[str]) -> MemoryBackend:
    store = MemoryBackend.with_buckets(BUCKET)
    for key in visible | hidden:
        world.put_stored(store, key, b"x")
    return store


@st.composite
def buckets(draw: st.DrawFn) -> tuple[set[str], set[str]]:
    """Visible keys, and hidden ones: sidecars and shadows of some, dictionaries, records."""
    visible = draw(st.sets(NAMES, max_size=10))
    share = draw(st.sampled_from([0, 3, 10]))
    hidden = set()
    for key in sorted(visible):
        if draw(st.integers(0, 9)) < share:
            hidden.add(keys.sidecar_key(key))
        if draw(st.integers(0, 9)) < share // 3:
            hidden.add(f"{key}.__s4ver__/{'0' * 32}")
    for prefix in (".s4dict/", ".s4mpu/ab/"):
        hidden |= {f"{prefix}{n:016x}" for n in range(draw(st.sampled_from([0, 0, 1, 4])))}
    return visible, hidden


def expected(visible: set[str], request: ListRequest) -> tuple[list[str], list[str]]:
    """What S3 would list of a bucket that holds only the visible keys."""
    contents, prefixes = set(), set()
    for key in visible:
        if not key.startswith(request.prefix):
            continue
        at = key.find(request.delimiter, len(request.prefix)) if request.delimiter else -1
        if at < 0:
            contents.add(key)
        else:
            prefixes.add(key[: at + len(request.delimiter)])
    after = request.after.encode()
    return (
        sorted((k for k in contents if k.encode() > after), key=str.encode),
        sorted((p for p in prefixes if p.encode() > after), key=str.encode),
    )


async def all_pages(store: MemoryBackend, request: ListRequest) -> list[ListPage]:
    """Every page, each asked for as a client would, of another instance."""
    pages: list[ListPage] = []
    while True:
        page = await visible_page(request, lambda query: store.list(BUCKET, query))
        pages.append(ListPage.parse(replace(page, encoding_type="url").serialize()))
        assert len(pages) < 100
        if not page.is_truncated:
            return pages
        if request.version == 2:
            assert page.next_continuation_token
            request = replace(request, token=page.next_continuation_token)
        elif request.delimiter:
            assert page.next_marker
            request = replace(request, after=page.next_marker)
        else:
            request = replace(request, after=page.next_marker or page.contents[-1].key)


def check(pages: list[ListPage], request: ListRequest, visible: set[str]) -> None:
    contents = [entry.key for page in pages for entry in page.contents]
    prefixes = [prefix for page in pages for prefix in page.common_prefixes]
    assert (contents, prefixes) == expected(visible, request)
    for page in pages:
        names = [entry.key for entry in page.contents] + list(page.common_prefixes)
        assert len(names) <= request.max_keys
        assert page.is_truncated == (page is not pages[-1])
        if page.is_truncated:
            assert len(names) == request.max_keys
        if page.next_marker is not None:
            # A name of the page, or the directory of that name: what SeaweedFS goes on behind.
            assert page.next_marker.removesuffix("/") in {name.removesuffix("/") for name in names}
        if request.version == 2:
            assert page.key_count == len(names)
        else:
            assert page.key_count is None
        assert page.prefix == request.prefix
        assert page.max_keys == request.max_keys


@settings(max_examples=250, suppress_health_check=list(HealthCheck))
@given(
    bucket=buckets(),
    version=st.sampled_from([1, 2]),
    delimiter=st.sampled_from(["", "", "/", "/", ".", "s", "4", ".s4", "index", "_", "a/", "&"]),
    prefix=st.sampled_from(["", "", "", "a", "a/", ".", ".s4", "b.s4", "&"]),
    max_keys=st.sampled_from([1, 2, 3, 5, 1000]),
)
async def test_pages_hold_every_visible_key_and_nothing_else(
    bucket: tuple[set[str], set[str]], version: int, delimiter: str, prefix: str, max_keys: int
):
    visible, hidden = bucket
    request = ListRequest(version, prefix, delimiter, max_keys)
    check(await all_pages(store_of(visible, hidden), request), request, visible)


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(
    bucket=buckets(),
    version=st.sampled_from([1, 2]),
    delimiter=st.sampled_from(["", "/"]),
    max_keys=st.integers(1, 3),
    data=st.data(),
)
async def test_a_listing_may_begin_behind_any_key_even_a_hidden_one(
    bucket: tuple[set[str], set[str]],
    version: int,
    delimiter: str,
    max_keys: int,
    data: st.DataObject,
):
    visible, hidden = bucket
    choices = sorted(visible | hidden | {"a", ".s4", "\U0001f5dc"})
    request = ListRequest(
        version, "", delimiter, max_keys, after=data.draw(st.sampled_from(choices))
    )
    if delimiter and request.after in hidden:
        delimiter = ""  # whether a prefix comes again behind a key inside it is the store's matter
        request = replace(request, delimiter="")
    if delimiter and "/" in request.after:
        request = replace(request, after=request.after[: request.after.index("/") + 1])
    check(await all_pages(store_of(visible, hidden), request), request, visible)


@pytest.mark.parametrize("version", [1, 2])
async def test_a_bucket_of_large_objects_lists_in_full_pages_for_few_requests(version: int):
    visible = {f"k{number:05}" for number in range(2500)}
    store = store_of(visible, {keys.sidecar_key(key) for key in visible})
    counting = CountingBackend(store)
    request = ListRequest(version)
    pages = await all_pages(counting, request)  # type: ignore[arg-type]
    check(pages, request, visible)
    assert [len(page.contents) for page in pages] == [1000, 1000, 500]
    assert len(counting.calls) <= 8


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("delimiter", ["", "/"])
async def test_no_keys_asked_for_is_an_empty_last_page(version: int, delimiter: str):
    store = store_of({"a", "b/c"}, {"a.s4index"})
    request = ListRequest(version, "", delimiter, 0)
    page = await visible_page(request, lambda query: store.list(BUCKET, query))
    assert (page.contents, page.common_prefixes, page.is_truncated) == ((), (), False)
    assert (page.next_marker, page.next_continuation_token) == (None, None)
    assert page.key_count == (0 if version == 2 else None)


async def test_a_page_in_front_of_hidden_keys_only_is_the_last_once_one_was_seen():
    store = store_of({"a", "b"}, {"a.s4index", "b.s4index", "c.s4index"})
    request = ListRequest(2, max_keys=2)
    page = await visible_page(request, lambda query: store.list(BUCKET, query))
    assert [entry.key for entry in page.contents] == ["a", "b"]
    assert not page.is_truncated


async def test_markers_never_name_what_is_hidden():
    # With "." as delimiter the sidecar of "a" folds into "a.", which stands for nothing visible.
    store = store_of({"a", "b", "c.txt"}, {"a.s4index", "b.s4index"})
    for limit in (1, 2, 3):
        request = ListRequest(1, "", ".", limit)
        check(await all_pages(store, request), request, {"a", "b", "c.txt"})


@pytest.mark.parametrize("token", ["s4k.%%%", "s4k.\xe9", "s4k.a"])
async def test_a_token_nobody_gave_is_an_invalid_argument(token: str):
    store = store_of({"a"}, set())
    request = ListRequest(2, token=token)
    with pytest.raises(S3Error) as caught:
        await visible_page(request, lambda query: store.list(BUCKET, query))
    assert caught.value.code == "InvalidArgument"


async def test_a_token_of_the_store_itself_is_the_stores_to_judge():
    store = store_of({"a"}, set())
    request = ListRequest(2, token="~")
    with pytest.raises(BackendAnswer):
        await visible_page(request, lambda query: store.list(BUCKET, query))


@dataclass
class RawStore:
    """A store whose keys are bytes, not all of them UTF-8."""

    names: list[bytes]

    async def list(self, query: str) -> bytes:
        asked = dict(parse_qsl(query, errors="surrogateescape"))
        after = asked.get("start-after", "").encode(errors="surrogateescape")
        left = [name for name in sorted(self.names) if name > after]
        limit = int(asked["max-keys"])
        entries = "".join(
            f"<Contents><Key>{''.join(f'%{each:02X}' for each in name)}</Key><Size>1</Size>"
            "</Contents>"
            for name in left[:limit]
        )
        more = "true" if len(left) > limit else "false"
        return (
            f"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{more}</IsTruncated>"
            f"{entries}</ListBucketResult>"
        ).encode()


async def test_keys_that_are_no_text_do_not_break_a_listing():
    store = RawStore([b"a\xff", b"a\xff.s4index", b"b\xfe", b"c"])
    found = []
    request = ListRequest(2, max_keys=1)
    while True:
        page = await visible_page(request, store.list)
        found += [entry.key.encode(errors="surrogateescape") for entry in page.contents]
        if not page.is_truncated:
            break
        request = replace(request, token=page.next_continuation_token)
    assert found == [b"a\xff", b"b\xfe", b"c"]


@dataclass
class DirectoryStore:
    """Lists as SeaweedFS does: all that is below a name stands at that name, "a/x" at "a"."""

    names: list[str]

    async def list(self, query: str) -> bytes:
        asked = dict(parse_qsl(query))
        after = asked.get("continuation-token", asked.get("start-after", asked.get("marker", "")))
        left = [
            name
            for name in sorted(self.names, key=lambda name: name.split("/"))
            if name.split("/") > after.split("/") and not (after and name.startswith(f"{after}/"))
        ]
        shown, rest = left[: int(asked["max-keys"])], left[int(asked["max-keys"]) :]
        entries = "".join(f"<Contents><Key>{n}</Key><Size>1</Size></Contents>" for n in shown)
        where = ""
        if rest:
            inside = "/" if rest[0].startswith(f"{shown[-1]}/") else ""
            tag = "NextContinuationToken" if "list-type" in asked else "NextMarker"
            where = f"<{tag}>{shown[-1]}{inside}</{tag}>"
        return (
            f"<ListBucketResult><IsTruncated>{'true' if rest else 'false'}</IsTruncated>"
            f"{entries}{where}</ListBucketResult>"
        ).encode()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3])
async def test_pages_that_end_at_a_key_do_not_lose_those_below_it(version: int, size: int):
    visible = ["a", "a/x", "a/x/1", "a/y", "b", "b/x"]
    store = DirectoryStore([*visible, *(keys.sidecar_key(key) for key in visible)])
    request, found = ListRequest(version, max_keys=size), []
    while True:
        page = await visible_page(request, store.list)
        found += [entry.key for entry in page.contents]
        if not page.is_truncated:
            break
        if version == 2:
            request = replace(request, token=page.next_continuation_token)
        else:
            request = replace(request, after=page.next_marker or page.contents[-1].key)
    assert found == visible


async def test_a_store_that_does_not_say_where_it_goes_on_is_an_error():
    async def fetch(query: str) -> bytes:
        return b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"

    with pytest.raises(S3Error) as caught:
        await visible_page(ListRequest(2), fetch)
    assert caught.value.code == "InternalError"


async def test_prefixes_nobody_asked_for_are_shown_and_not_looked_into():
    asked = []

    async def fetch(query: str) -> bytes:
        asked.append(query)
        return (
            b"<ListBucketResult><CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>"
            b"</ListBucketResult>"
        )

    page = await visible_page(ListRequest(2), fetch)
    assert (page.common_prefixes, len(asked)) == (("a/",), 1)


async def test_further_parameters_reach_the_store():
    asked = []

    async def fetch(query: str) -> bytes:
        asked.append(query)
        return b"<ListBucketResult/>"

    await visible_page(ListRequest(2, "p+ &", others=(("fetch-owner", "true"),)), fetch)
    assert asked == [
        "encoding-type=url&fetch-owner=true&list-type=2&max-keys=1000&prefix=p%2B%20%26"
    ]


RUNS = st.lists(
    st.tuples(st.sampled_from(["keys", "large", "orphans", "shadows"]), st.integers(1, 11)),
    max_size=4,
)


def laid_out(runs: list[tuple[str, int]], folder: str) -> tuple[set[str], set[str]]:
    """Visible and internal keys in stretches, one behind the other in one directory.

    One key is always visible: a directory of orphans only is listed, empty as it is.
    """
    visible = {f"{folder}~"}
    hidden = {f".s4mpu/{'ab' * 16}/{number:05}" for number in range(60)}
    hidden |= {f".s4dict/{number:016x}" for number in range(15)}
    for at, (kind, length) in enumerate(runs):
        names = [f"{folder}{at}-{number:02}" for number in range(length)]
        if kind in {"keys", "large"}:
            visible |= set(names)
        if kind in {"large", "orphans"}:
            hidden |= {keys.sidecar_key(name) for name in names}
        if kind == "shadows":
            hidden |= {f"{folder}{at}.__s4ver__/{number:032}" for number in range(length)}
    return visible, hidden


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    runs=st.tuples(RUNS, RUNS),
    version=st.sampled_from([1, 2]),
    delimiter=st.sampled_from(["", "/", "-"]),
    max_keys=st.sampled_from([1, 2, 3, 7, 1000]),
)
async def test_long_internal_stretches_neither_shorten_nor_empty_a_page(
    runs: tuple[list[tuple[str, int]], list[tuple[str, int]]],
    version: int,
    delimiter: str,
    max_keys: int,
):
    root, inside = laid_out(runs[0], ""), laid_out(runs[1], "2024/")
    visible, hidden = root[0] | inside[0], root[1] | inside[1]
    request = ListRequest(version, "", delimiter, max_keys)
    check(await all_pages(store_of(visible, hidden), request), request, visible)


@pytest.mark.parametrize("version", [1, 2])
async def test_what_lies_below_an_internal_prefix_costs_a_listing_few_requests(version: int):
    hidden = {f".s4mpu/ab/{number:05}" for number in range(9000)}
    counting = CountingBackend(store_of({"-", "a", "b"}, hidden))
    page = await visible_page(
        ListRequest(version, max_keys=2), lambda query: counting.list(BUCKET, query)
    )
    assert [entry.key for entry in page.contents] == ["-", "a"]
    assert len(counting.calls) <= 4
    counting.calls.clear()
    request = ListRequest(version, ".s4mpu/a", max_keys=2)
    page = await visible_page(request, lambda query: counting.list(BUCKET, query))
    assert (page.contents, page.is_truncated) == ((), False)
    assert len(counting.calls) == 1


@pytest.mark.parametrize("version", [1, 2])
async def test_a_directory_of_large_objects_is_listed_in_few_requests(version: int):
    visible = {f"d/k{number:05}" for number in range(1500)}
    sidecars = {keys.sidecar_key(key) for key in visible}
    visible |= {f"d/k{number:05}/x" for number in range(0, 1500, 100)}
    counting = CountingBackend(store_of(visible, sidecars))
    request = ListRequest(version, "d/", "/", 1000)
    pages = await all_pages(counting, request)  # type: ignore[arg-type]
    check(pages, request, visible)
    assert len(counting.calls) <= 8


async def test_a_warm_page_of_a_thousand_compressed_keys_is_one_request():
    store = MemoryBackend.with_buckets(BUCKET)
    counting = CountingBackend(store)
    instance = Instance(counting)
    body = corpus.text(3000)
    for number in range(1000):
        await instance.put(f"k{number:04}", body)
    for one in (instance, Instance(counting)):
        assert one is instance or (await sized(one))[1:] == (0, 1000)
        counting.calls.clear()
        found, hits, misses = await sized(one)
        assert (hits, misses) == (1000, 0)
        assert {size for size, _ in found.values()} == {3000}
        assert [call.verb for call in counting.calls] == ["list"]
    await instance.close()


async def sized(instance: Instance) -> tuple[dict[str, tuple[int, str | None]], int, int]:
    page = await visible_page(ListRequest(2), lambda query: instance.backend.list(BUCKET, query))
    contents, hits, misses = await instance.sizer.sized(BUCKET, page.contents)
    return {entry.key: (entry.size, entry.etag) for entry in contents}, hits, misses


async def test_sizes_and_etags_are_the_clients_and_a_warm_page_asks_for_nothing():
    store = MemoryBackend.with_buckets(BUCKET)
    writer = Instance(store)
    bodies = {
        "empty": b"",
        "text": corpus.text(5000),
        "noise": corpus.noise(5000),
        "large": corpus.text(5 * world.MIB),
    }
    for key, data in bodies.items():
        await writer.put(key, data)
    world.put_stored(store, "foreign", b"as it is")
    world.put_stored(
        store,
        "old",
        world.framed([bodies["text"]]).stored,
        {"s4-multipart": "true", "s4-codec": "cpu-zstd", "s4-original-size": "5000"},
    )
    counting = CountingBackend(store)
    reader = Instance(counting)
    for instance, asked in ((writer, 2), (reader, 5), (reader, 0), (writer, 0)):
        counting.calls.clear()
        found, hits, misses = await sized(instance)
        assert (hits, misses) == (6 - asked, asked)
        if instance is reader:
            assert counting.count("head") == asked
        for key, data in bodies.items():
            attributes = await writer.reader.attributes(writer.source(key))
            assert found[key] == (len(data), attributes.etag)
            assert attributes.size == len(data)
        assert found["foreign"] == (8, store.buckets[BUCKET]["foreign"].etag)
        assert found["old"] == (5000, store.buckets[BUCKET]["old"].etag + "-1")
    await writer.close()


async def test_an_overwritten_object_is_asked_for_again():
    store = MemoryBackend.with_buckets(BUCKET)
    first, second = Instance(store), Instance(store)
    await first.put("k", corpus.text(5000, 1))
    assert (await sized(second))[1:] == (0, 1)
    await first.put("k", corpus.text(6000, 2))
    found, _, misses = await sized(second)
    assert (found["k"][0], misses) == (6000, 1)
    await first.close()


class Waiting(CountingBackend):
    """Counts how many HEADs are under way at once."""

    now = most = 0

    async def head(self, *args: str, **options: str) -> Head:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        self.now -= 1
        return await super().head(*args, **options)  # type: ignore[misc]


async def test_unknown_objects_are_asked_for_a_few_at_a_time_in_the_whole_process():
    store = store_of({f"k{number}" for number in range(60)}, set())
    waiting = Waiting(store)
    instance = Instance(waiting, heads=5)
    pages = await asyncio.gather(sized(instance), sized(instance))
    assert waiting.most == 5
    assert all(len(found) == 60 for found, _, _ in pages)


async def test_an_object_that_is_gone_or_refused_is_shown_as_listed():
    store = store_of({"a", "b"}, set())
    faulty = FaultyBackend(store)
    faulty.fault = lambda call: (
        BackendAnswer(403, "AccessDenied") if call == Call("head", BUCKET, "a") else None
    )
    found, _, misses = await sized(Instance(faulty))
    assert found["a"] == (1, store.buckets[BUCKET]["a"].etag)
    assert misses == 2
