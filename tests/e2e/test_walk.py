"""Tools walk a real store: everything once, across its pages and in whatever order it has."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from s4gateway.backend import credentials
from s4gateway.backend.client import Endpoint, S3Backend
from s4gateway.backend.http import HttpClient
from s4gateway.s3.sigv4 import Credentials
from s4gateway.tools.target import Target
from s4gateway.tools.walk import walk, walk_versions
from tests import live

pytestmark = pytest.mark.e2e

# To SeaweedFS the directory "d" stands before "d.txt" and "d-x"; to S3, "d/x" stands behind both.
NAMES = [f"n{n:03}{end}" for n in range(260) for end in ("/x", ".txt", "-x", "/x.s4index")]


@pytest.mark.parametrize("versions", [False, True])
async def test_a_walk_across_the_pages_of_a_real_store_misses_nothing(
    versions: bool, seaweedfs: live.Seaweedfs, direct: Any, bucket: str
):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: direct.put_object(Bucket=bucket, Key=key, Body=b"x"), NAMES))
    pair = Credentials(seaweedfs.access_key, seaweedfs.secret_key)
    http = HttpClient(connect_timeout=60, read_timeout=120, pool_size=2)
    store = S3Backend(Endpoint(seaweedfs.endpoint_url, live.REGION), credentials.Static(pair), http)
    try:
        if versions:
            found = [each.key async for each in walk_versions(store, Target(bucket))]
        else:
            found = [each.key async for each in walk(store, Target(bucket))]
    finally:
        await store.close()
    assert sorted(found) == sorted(name for name in NAMES if not name.endswith(".s4index"))
