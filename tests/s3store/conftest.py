"""Stores for tests of datasets: one in memory, and a moto server behind the boto3 adapter."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from s4gateway.s3store import new_client
from tests.s3store import world


@dataclass(frozen=True)
class Moto:
    """A moto server and a client of it; `bucket` exists."""

    url: str
    client: Any
    bucket: str = "bucket"


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = new_client(
        url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
    )
    client.create_bucket(Bucket="bucket")
    yield Moto(url, client)
    client.close()
    server.stop()


@pytest.fixture
def backing() -> world.Backing:
    """The store under a test: memory, unless a test module says otherwise."""
    return world.Backing.memory()


@pytest.fixture(params=world.FACES)
def face(request: pytest.FixtureRequest) -> type[world.Face]:
    return world.FACES[request.param]


@pytest.fixture
def threaded() -> bool:
    """Whether the transport has threads: no, unless a test module tries both."""
    return False


@pytest.fixture
async def dataset(backing: world.Backing, face: type[world.Face], threaded: bool) -> world.World:
    """A seeded dataset: commit-timeout 1 s, no skew."""
    made = world.World(backing, face, threaded=threaded)
    await made.seed()
    return made
