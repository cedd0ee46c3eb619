"""Fixtures every test may ask for: real servers once per test process, a bucket per test."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import clients, live

# The time an example takes says how busy the machine is, and nothing of the code under test.
settings.register_profile(
    "unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")

# A shell without job control starts background work with SIGINT ignored, and that is inherited:
# tests that interrupt themselves or a process of theirs would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

StartGateway = Callable[..., contextlib.AbstractContextManager[live.Gateway]]


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_this_machine() -> Iterator[None]:
    """Credentials, endpoints and proxies of whoever runs the tests stay out of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith(("AWS_", "S4_")) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Seaweedfs]:
    """The backend direct."""
    with live.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> live.Tls:
    return live.issue_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def gateway(
    seaweedfs: live.Seaweedfs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[live.Gateway]:
    """The gateway over http, with its default settings."""
    with live.gateway(seaweedfs, tmp_path_factory.mktemp("gateway")) as server:
        yield server


@pytest.fixture(scope="session")
def gateway_https(
    seaweedfs: live.Seaweedfs, tls: live.Tls, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[live.Gateway]:
    """The gateway over https, with its default settings."""
    with live.gateway(seaweedfs, tmp_path_factory.mktemp("gateway-https"), tls=tls) as server:
        yield server


@pytest.fixture
def start_gateway(seaweedfs: live.Seaweedfs, tmp_path: Path) -> StartGateway:
    """`with start_gateway("--flag", env={...}, backend=...) as gateway:` for other settings."""

    def start(
        *flags: str, backend: live.Endpoint = seaweedfs, **options: Any
    ) -> contextlib.AbstractContextManager[live.Gateway]:
        return live.gateway(backend, tmp_path, *flags, **options)

    return start


@pytest.fixture(scope="session")
def direct(seaweedfs: live.Seaweedfs) -> Iterator[Any]:
    """A boto3 client of the backend itself: what is really stored."""
    client = clients.boto3_client(seaweedfs)
    yield client
    client.close()


@pytest.fixture
def make_bucket(direct: Any) -> Iterator[Callable[..., str]]:
    """Buckets made at the backend; emptied and removed after the test."""
    with contextlib.ExitStack() as made:

        def make(**options: Any) -> str:
            name = live.bucket_name()
            direct.create_bucket(Bucket=name, **options)
            made.callback(live.remove_bucket, direct, name)
            return name

        yield make


@pytest.fixture
def bucket(make_bucket: Callable[..., str]) -> str:
    return make_bucket()
