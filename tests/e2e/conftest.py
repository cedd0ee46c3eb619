"""What the end-to-end tests share: a bucket per module, and clients of the running gateway."""

import contextlib
import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests import clients, corpus, live
from tests.e2e import datasets, raw


@pytest.fixture(scope="module")
def shared(direct: Any) -> Iterator[str]:
    """One bucket for a module whose tests use keys of their own."""
    name = live.bucket_name()
    direct.create_bucket(Bucket=name)
    yield name
    datasets.empty(direct, name)
    live.remove_bucket(direct, name)


@pytest.fixture(scope="session")
def s3(gateway: live.Gateway) -> Iterator[Any]:
    """A boto3 client of the gateway over http."""
    with contextlib.closing(clients.boto3_client(gateway)) as client:
        yield client


@pytest.fixture(scope="session")
def s3_https(gateway_https: live.Gateway) -> Iterator[Any]:
    """A boto3 client of the gateway over https: chunked, with trailing checksums."""
    with contextlib.closing(clients.boto3_client(gateway_https)) as client:
        yield client


@pytest.fixture(scope="session")
def via(gateway: live.Gateway) -> Iterator[Any]:
    """A dataset's client of the gateway."""
    with contextlib.closing(datasets.client_of(gateway)) as client:
        yield client


@pytest.fixture(scope="session")
def straight(seaweedfs: live.Seaweedfs) -> Iterator[Any]:
    """A dataset's client of the store itself."""
    with contextlib.closing(datasets.client_of(seaweedfs)) as client:
        yield client


@pytest.fixture(params=["http", "https"])
def front(request: pytest.FixtureRequest) -> live.Gateway:
    """The gateway over http and over https."""
    name = "gateway" if request.param == "http" else "gateway_https"
    found: live.Gateway = request.getfixturevalue(name)
    return found


@pytest.fixture
def key() -> str:
    return f"{uuid.uuid4().hex}.bin"


@dataclass(frozen=True, slots=True)
class Witness:
    """An object that must be the same after the test as before it, and have no new neighbour."""

    bucket: str
    key: str
    body: bytes

    @property
    def target(self) -> str:
        return raw.path(self.bucket, self.key)


@pytest.fixture
def witness(gateway: live.Gateway, direct: Any, shared: str, key: str) -> Iterator[Witness]:
    """Whatever the test does to this key must fail and change nothing."""
    prefix = f"witness/{key}"
    body = corpus.text(3000, seed=11)
    found = Witness(shared, f"{prefix}/old", body)
    stored = raw.ask(gateway, "PUT", found.target, {"x-amz-meta-old": "yes"}, body)
    assert stored.status == 200
    before = _state(direct, shared, prefix)
    yield found
    assert _state(direct, shared, prefix) == before
    again = raw.ask(gateway, "GET", found.target)
    assert (again.status, again.body) == (200, body)
    assert again.headers["x-amz-meta-old"] == "yes"
    assert again.headers["etag"] == f'"{hashlib.md5(body).hexdigest()}"'


def _state(direct: Any, bucket: str, prefix: str) -> list[tuple[Any, ...]]:
    listed = direct.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
    return [(each["Key"], each["ETag"], each["Size"], each["LastModified"]) for each in listed]


@pytest.fixture
def fetch(s3: Any) -> Callable[..., bytes]:
    """The body of an object through the gateway."""

    def read(bucket: str, key: str, **more: Any) -> bytes:
        with s3.get_object(Bucket=bucket, Key=key, **more)["Body"] as body:
            data: bytes = body.read()
        return data

    return read
