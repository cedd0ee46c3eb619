"""ListObjectVersions: logical sizes and ETags of every version, nothing of the gateway's own."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests import clients, corpus, live
from tests.e2e import metering

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
KEYS = ["a +&%/é", "dir/large", "dir/small", "large", "small", "zz~"]


def bodies(key: str) -> list[bytes]:
    """What each version of a key holds, the oldest first."""
    size = 5 * MIB if "large" in key else 3000
    return [corpus.text(size + n, seed=n) for n in range(3)]


def md5(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


@pytest.fixture(scope="module")
def filled(direct: Any, s3: Any) -> Iterator[str]:
    """Three versions of each key, a foreign one and an empty one, and some delete markers."""
    bucket = live.bucket_name()
    direct.create_bucket(Bucket=bucket)
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for key in KEYS:
        for body in bodies(key):
            s3.put_object(Bucket=bucket, Key=key, Body=body)
    s3.put_object(Bucket=bucket, Key="empty")
    direct.put_object(Bucket=bucket, Key="foreign", Body=b"as it is")
    for key in ("dir/large", "small"):
        s3.delete_object(Bucket=bucket, Key=key)
    yield bucket
    live.remove_bucket(direct, bucket)


def expected() -> list[tuple[str, int, str]]:
    found = [(key, len(each), md5(each)) for key in KEYS for each in reversed(bodies(key))]
    return sorted(
        [*found, ("empty", 0, md5(b"")), ("foreign", 8, md5(b"as it is"))], key=lambda one: one[0]
    )


def shown(page: Any) -> list[tuple[str, int, str]]:
    return [(each["Key"], each["Size"], each["ETag"]) for each in page.get("Versions", ())]


def test_every_version_has_the_size_and_etag_its_client_knows(
    front: live.Gateway, filled: str, s3: Any, s3_https: Any
):
    client = s3_https if front.secure else s3
    page = client.list_object_versions(Bucket=filled)
    assert shown(page) == expected()
    assert [each["Key"] for each in page["DeleteMarkers"]] == ["dir/large", "small"]
    assert all(each["IsLatest"] for each in page["DeleteMarkers"])
    for each in page["Versions"]:
        head = client.head_object(Bucket=filled, Key=each["Key"], VersionId=each["VersionId"])
        assert (head["ContentLength"], head["ETag"]) == (each["Size"], each["ETag"])


def test_a_second_look_asks_for_no_version_again(s3: Any, gateway: live.Gateway, filled: str):
    s3.list_object_versions(Bucket=filled)
    before = metering.scrape(gateway)
    s3.list_object_versions(Bucket=filled)
    after = metering.scrape(gateway)
    name = 's4_listing_cache_total{result="miss"}'
    assert after[name] == before[name]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("delimiter", ["", "/"])
def test_pages_hold_every_version_once_and_are_full(
    s3: Any, filled: str, size: int, delimiter: str
):
    options = {"Delimiter": delimiter} if delimiter else {}
    whole = s3.list_object_versions(Bucket=filled, **options)
    following: dict[str, str] = {}
    found: list[Any] = []
    prefixes: list[str] = []
    while True:
        page = s3.list_object_versions(Bucket=filled, MaxKeys=size, **options, **following)
        entries = page.get("Versions", []) + page.get("DeleteMarkers", [])
        folded = [each["Prefix"] for each in page.get("CommonPrefixes", ())]
        found += [(each["Key"], each["VersionId"]) for each in entries]
        prefixes += folded
        if not page["IsTruncated"]:
            break
        assert len(entries) + len(folded) == size
        assert not page["NextKeyMarker"].endswith(".s4index")
        following = {"KeyMarker": page["NextKeyMarker"]}
        if version := page.get("NextVersionIdMarker"):
            following["VersionIdMarker"] = version
    every = whole["Versions"] + whole["DeleteMarkers"]
    assert sorted(found) == sorted((each["Key"], each["VersionId"]) for each in every)
    assert prefixes == [each["Prefix"] for each in whole.get("CommonPrefixes", ())]


def test_names_are_encoded_when_the_client_asks_for_it(s3: Any, filled: str):
    page = s3.list_object_versions(Bucket=filled, Prefix="a +", EncodingType="url")
    assert page["EncodingType"] == "url"
    assert {each["Key"] for each in page["Versions"]} == {"a%20%2B%26%25/%C3%A9"}
    plain = s3.list_object_versions(Bucket=filled, Prefix="a +")
    assert {each["Key"] for each in plain["Versions"]} == {KEYS[0]}


def test_physical_listings_show_what_is_stored(start_gateway: Any, direct: Any, filled: str):
    with start_gateway("--physical-listings") as gateway:
        client = clients.boto3_client(gateway)
        page = client.list_object_versions(Bucket=filled, Prefix="small")
        client.close()
    stored = direct.list_object_versions(Bucket=filled, Prefix="small")
    assert shown(page) == shown(stored)
