"""Listings of a bucket where what is visible lies among long stretches of what is not."""

import bisect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from s4gateway.wire import keys
from tests import live

pytestmark = pytest.mark.e2e

SHADOW = "0123456789abcdef0123456789abcdef"


def visible() -> list[str]:
    """5,000 keys: at the root before, between and behind what is internal, and in directories."""
    found = [f"-{n:03}" for n in range(200)] + [f".s4z{n:03}" for n in range(100)]
    found += [f"day={day:02}/part-{n:04}" for day in range(10) for n in range(400)]
    found += [f"logs {n % 7}+é/{n:03}" for n in range(400)] + [f"z{n:03}" for n in range(300)]
    return sorted(found, key=str.encode)


def hidden(shown: list[str]) -> list[str]:
    found = [f".s4mpu/{'ab' * 16}/{n:05}" for n in range(1, 1101)] + [f".s4mpu/cd/{n:05}" for n in
        range(1, 31)] + [f".s4dict/{n:016x}" for n in range(40)]  # fmt: skip
    # Every object of three days is large; of another day only sidecars are left, in one long run.
    found += [keys.sidecar_key(key) for key in shown if key[:6] in {"day=00", "day=04", "day=09"}]
    found += [keys.sidecar_key(f"day=05/part-0200.{n:04}") for n in range(1050)]
    found += [keys.sidecar_key(key) for key in shown if key[0] in "-z"]
    found += [f"z{n:03}.__s4ver__/{SHADOW}" for n in range(100, 200)]
    return found


@pytest.fixture(scope="module")
def mined(seaweedfs: live.Seaweedfs, direct: Any) -> Iterator[tuple[str, list[str]]]:
    bucket = live.bucket_name()
    direct.create_bucket(Bucket=bucket)
    shown = visible()
    assert len(shown) == 5000

    def store(key: str) -> None:
        direct.put_object(Bucket=bucket, Key=key, Body=b"x")

    everything = shown + hidden(shown)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store, everything))
    yield bucket, shown
    for first in range(0, len(everything), 1000):
        batch = [{"Key": key} for key in everything[first : first + 1000]]
        direct.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
    direct.delete_bucket(Bucket=bucket)


Page = tuple[list[str], dict[str, Any] | None]


def v1(client: Any, **options: Any) -> Page:
    page = client.list_objects(**options)
    if not page["IsTruncated"]:
        return names(page), None
    return names(page), {"Marker": page.get("NextMarker") or page["Contents"][-1]["Key"]}


def v2(client: Any, **options: Any) -> Page:
    page = client.list_objects_v2(**options)
    assert page["KeyCount"] == len(names(page))
    if not page["IsTruncated"]:
        return names(page), None
    return names(page), {"ContinuationToken": page["NextContinuationToken"]}


def versions(client: Any, **options: Any) -> Page:
    page = client.list_object_versions(**options)
    page["Contents"] = page.get("Versions", ())
    assert all(each["VersionId"] == "null" for each in page["Contents"])
    if not page["IsTruncated"]:
        return names(page), None
    following = {"KeyMarker": page["NextKeyMarker"]}
    if version := page.get("NextVersionIdMarker"):
        following["VersionIdMarker"] = version
    return names(page), following


def names(page: Any) -> list[str]:
    found = [each["Key"] for each in page.get("Contents", ())]
    return found + [each["Prefix"] for each in page.get("CommonPrefixes", ())]


Listing = Callable[..., Page]
ALL = (v1, v2, versions)
LISTINGS = pytest.mark.parametrize("listing", ALL)


def walk(
    listing: Listing, client: Any, size: int, most: int | None = None, **options: Any
) -> tuple[list[str], bool]:
    """All names of at most `most` pages, and whether the last was reached; every page is full."""
    found: list[str] = []
    following: dict[str, Any] | None = {}
    while following is not None and most != 0:
        page, following = listing(client, MaxKeys=size, **options, **following)
        assert len(page) == size if following is not None else len(page) <= size
        found += page
        most = None if most is None else most - 1
    return found, following is None


def rolled_up(shown: list[str], prefix: str) -> list[str]:
    cuts = {prefix + key[len(prefix) :].partition("/")[0] + "/"
            if "/" in key[len(prefix) :] else key
            for key in shown if key.startswith(prefix)}  # fmt: skip
    return sorted(cuts)


# SeaweedFS takes as long for seven versions as for a thousand: there, stretches must do.
@pytest.mark.parametrize(("listing", "size"), [(v1, 7), (v2, 7), *((a, 1000) for a in ALL)])
def test_the_union_of_all_pages_is_what_is_visible(
    s3: Any, mined: tuple[str, list[str]], listing: Listing, size: int
):
    bucket, shown = mined
    found, at_end = walk(listing, s3, size, Bucket=bucket)
    assert at_end
    assert sorted(found, key=str.encode) == shown


@LISTINGS
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("behind", ["-190", ".s4z095", "day=00/part-0390", "day=05/part-0198"])
def test_small_pages_lose_nothing_where_internal_stretches_begin_and_end(
    s3: Any, mined: tuple[str, list[str]], listing: Listing, size: int, behind: str
):
    bucket, shown = mined
    start = {v1: "Marker", v2: "StartAfter", versions: "KeyMarker"}[listing]  # type: ignore[index]
    at = bisect.bisect(shown, behind)
    found: list[str] = []
    following: dict[str, Any] | None = {start: behind}
    while following is not None and len(found) < 8 * size:
        page, following = listing(s3, Bucket=bucket, MaxKeys=size, **following)
        assert len(page) == size
        found += page
    assert found == shown[at : at + len(found)]


@LISTINGS
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_directories_of_internal_objects_are_not_listed(
    s3: Any, mined: tuple[str, list[str]], listing: Listing, size: int
):
    bucket, shown = mined
    prefixes = ["day=04/"] if size >= 7 else []
    for prefix in [*prefixes, "day=05/part-01", "z1", "logs 3+é/", ".s4", "nothing"]:
        found, _ = walk(listing, s3, size, Bucket=bucket, Prefix=prefix, Delimiter="/")
        assert sorted(found) == rolled_up(shown, prefix), prefix
    if size == 1000:
        found, _ = walk(listing, s3, size, Bucket=bucket, Delimiter="/")
        assert sorted(found) == rolled_up(shown, "")


@LISTINGS
def test_what_is_asked_for_below_an_internal_prefix_is_not_there(
    s3: Any, mined: tuple[str, list[str]], listing: Listing
):
    for prefix in (".s4mpu/", ".s4mpu/ab", ".s4dict/0", f"z100.__s4ver__/{SHADOW[:3]}"):
        for size in (0, 1, 1000):
            assert listing(s3, Bucket=mined[0], Prefix=prefix, MaxKeys=size) == ([], None)


@LISTINGS
def test_no_keys_are_an_empty_last_page(s3: Any, mined: tuple[str, list[str]], listing: Listing):
    assert listing(s3, Bucket=mined[0], MaxKeys=0) == ([], None)


def test_more_than_a_thousand_keys_are_a_thousand(s3: Any, mined: tuple[str, list[str]]):
    for listing in (s3.list_objects, s3.list_objects_v2, s3.list_object_versions):
        page = listing(Bucket=mined[0], MaxKeys=5000)
        assert page["MaxKeys"] == len(page.get("Contents") or page["Versions"]) == 1000
