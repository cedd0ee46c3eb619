"""Listings page by page: every key once, in order, on full pages.

The keys are those whose spelling differs between a name, a URL and a document, for a backend may
write what a listing goes on behind in any of the three.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import live

pytestmark = pytest.mark.e2e

KEYS = sorted(
    [
        "a 1", "a 2/x", "a%201", "a%2B1/x", "a%2B1/y", "a+1", "a+2/x", "a+2/y", "a+3", "a\n1",
        "a\t+", "b&c", "b<c>/d", "b'c", 'b"c', "c-1", "c.txt", "c/x", "grüße+1", "grüße 1",
        "日本/1", "日本/2", "z%", "z%%", "z%41",
    ]
)  # fmt: skip
# SeaweedFS keeps a key and what stands below it at one name of a directory.
NESTED = sorted(["a", "a/b", "a/b/c", "a/b/d", "a+", "a+/b", "b", "b/c", "z"])


@pytest.fixture(scope="module")
def filled(direct: Any, s3: Any) -> Iterator[Callable[[list[str]], str]]:
    """A bucket with an object for each of the given keys."""
    buckets: dict[tuple[str, ...], str] = {}

    def fill(keys: list[str]) -> str:
        if tuple(keys) not in buckets:
            name = buckets[tuple(keys)] = live.bucket_name()
            direct.create_bucket(Bucket=name)
            for key in keys:
                s3.put_object(Bucket=name, Key=key, Body=b"body of " + key.encode())
        return buckets[tuple(keys)]

    yield fill
    for name in buckets.values():
        live.remove_bucket(direct, name)


def pages_v1(client: Any, bucket: str, **options: Any) -> list[list[str]]:
    pages: list[list[str]] = []
    after: dict[str, str] = {}
    while len(pages) <= len(KEYS):
        page = client.list_objects(Bucket=bucket, **options, **after)
        pages.append(names(page))
        if not page["IsTruncated"]:
            break
        after = {"Marker": page.get("NextMarker") or page["Contents"][-1]["Key"]}
    return pages


def pages_v2(client: Any, bucket: str, **options: Any) -> list[list[str]]:
    pages: list[list[str]] = []
    token: dict[str, str] = {}
    while len(pages) <= len(KEYS):
        page = client.list_objects_v2(Bucket=bucket, **options, **token)
        pages.append(names(page))
        if not page["IsTruncated"]:
            break
        token = {"ContinuationToken": page["NextContinuationToken"]}
    return pages


def names(page: Any) -> list[str]:
    keys = [entry["Key"] for entry in page.get("Contents", ())]
    return sorted(keys + [each["Prefix"] for each in page.get("CommonPrefixes", ())])


def rolled_up(delimiter: str) -> list[str]:
    """What S3 lists of KEYS, by its definition of a delimiter."""
    cuts = [key.partition(delimiter)[:2] if delimiter else (key, "") for key in KEYS]
    return sorted({"".join(cut) for cut in cuts})


LISTINGS = pytest.mark.parametrize("listing", [pages_v1, pages_v2])
Listing = Callable[..., list[list[str]]]
Fill = Callable[[list[str]], str]


@LISTINGS
# Of shorter pages with a delimiter the backend itself drops names.
@pytest.mark.parametrize(("delimiter", "size"), [("", 1), ("", 2), ("", 5), ("/", 5)])
def test_pages_hold_every_name_once_and_are_full(
    s3: Any, filled: Fill, listing: Listing, delimiter: str, size: int
):
    options = {"Delimiter": delimiter} if delimiter else {}
    pages = listing(s3, filled(KEYS), MaxKeys=size, **options)
    assert sorted(name for page in pages for name in page) == rolled_up(delimiter)
    assert all(len(page) == size for page in pages[:-1])


@LISTINGS
@pytest.mark.parametrize("size", [1, 2, 5])
def test_pages_that_end_between_a_key_and_those_below_it_lose_none(
    s3: Any, filled: Fill, listing: Listing, size: int
):
    pages = listing(s3, filled(NESTED), MaxKeys=size)
    assert sorted(name for page in pages for name in page) == NESTED


def test_an_empty_continuation_token_is_the_beginning(s3: Any, filled: Fill):
    page = s3.list_objects_v2(Bucket=filled(NESTED), ContinuationToken="")
    assert page["ContinuationToken"] == ""
    assert names(page) == NESTED


def test_the_prefix_is_echoed_in_the_backend_s_spelling(s3: Any, direct: Any, filled: Fill):
    bucket = filled(KEYS)
    for prefix in ("a +%", "a%2B", "\n", "grüße 1"):
        ours, theirs = (c.list_objects(Bucket=bucket, Prefix=prefix) for c in (s3, direct))
        assert ours["Prefix"] == theirs["Prefix"] == prefix
        assert s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Prefix"] == prefix
