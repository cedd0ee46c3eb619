"""What the tests of datasets on real servers have in common."""

from typing import Any

from tests import live
from tests.s3store.program import client_with


def client_of(endpoint: live.Endpoint) -> Any:
    """A client made for datasets."""
    return client_with(endpoint.endpoint_url, endpoint.access_key, endpoint.secret_key)


def ask_of(endpoint: live.Endpoint, bucket: str, **more: str) -> dict[str, str]:
    """What a program of its own is told."""
    return {
        "url": endpoint.endpoint_url,
        "key": endpoint.access_key,
        "secret": endpoint.secret_key,
        "bucket": bucket,
        **more,
    }


def listing(client: Any, bucket: str, **options: Any) -> list[Any]:
    """Every object that a listing shows, page by page."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, **options)
    return [each for page in pages for each in page.get("Contents", ())]


def empty(client: Any, bucket: str) -> None:
    """Remove objects a thousand at a time."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        found = [{"Key": each["Key"]} for each in page.get("Contents", ())]
        if found:
            client.delete_objects(Bucket=bucket, Delete={"Objects": found, "Quiet": True})
