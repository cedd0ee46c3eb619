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
        "a 1", "a 1/x", "a%201", "a%2B1/x", "a%2B1/y", "a+1", "a+1/x", "a+1/y", "a+2", "a\n1",
        "a\t+", "b&c", "b<c>/d", "b'c", 'b"c', "grüße+1", "grüße 1", "日本/1", "日本/2", "z%",
        "z%%", "z%41", "c/x", "c.txt", "c-1", "c",
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def odd_keys(direct: Any, s3: Any) -> Iterator[str]:
    name = live.bucket_name()
    direct.create_bucket(Bucket=name)
    for key in KEYS:
        s3.put_object(Bucket=name, Key=key, Body=b"body of " + key.encode())
    yield name
    live.remove_bucket(direct, name)


def pages_v1(client: Any, bucket: str, **options: Any) -> list[list[str]]:
    pages: list[list[str]] = []
    after: dict[str, str] = {}
    while len(pages) <= len(KEYS):
        page = client.list_objects(Bucket=bucket, **options, **after)
        pages.append(names(page))
        if not page["IsTruncated"]:
            break
        after = {"Marker": page.get("NextMarker") or pages[-1][-1]}
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


@pytest.mark.parametrize("delimiter", ["", "/"])
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("listing", [pages_v1, pages_v2])
def test_pages_hold_every_name_once_and_are_full(
    s3: Any,
    odd_keys: str,
    listing: Callable[..., list[list[str]]],
    size: int,
    delimiter: str,
):
    options = {"Delimiter": delimiter} if delimiter else {}
    pages = listing(s3, odd_keys, MaxKeys=size, **options)
    assert sorted(name for page in pages for name in page) == rolled_up(delimiter)
    assert all(len(page) == size for page in pages[:-1])
