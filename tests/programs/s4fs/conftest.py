"""What the checks of this folder share: the store direct, the gateway, and the filesystem over it.

They run under the interpreter of `.venv-s3fs`, started by `tests/e2e/test_s4fs.py`, which says in
environment variables where the servers are and which bucket to use.
"""

import os
import sysconfig
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs

from s4gateway.s4fs import S4FileSystem


class Counting(s3fs.S3FileSystem):
    """s3fs that remembers its requests: operation, key, and bytes that came."""

    protocol = ("s3", "s3a")
    cachable = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[tuple[str, str, int]] = []

    async def _call_s3(self, method: str, *args: Any, **kwargs: Any) -> Any:
        answer = await super()._call_s3(method, *args, **kwargs)
        length = answer.get("ContentLength", 0) if method == "get_object" else 0
        self.calls.append((method, kwargs.get("Key", ""), length))
        return answer

    def fetched(self) -> int:
        return sum(length for _, _, length in self.calls)


def at(url: str) -> Counting:
    return Counting(
        key=os.environ["S4FS_ACCESS"], secret=os.environ["S4FS_SECRET"], endpoint_url=url,
        use_listings_cache=False,
    )  # fmt: skip


@pytest.fixture
def store() -> Counting:
    """The store itself: what is really there."""
    return at(os.environ["S4FS_STORE"])


@pytest.fixture
def gateway() -> Counting:
    """What clients of the gateway see."""
    return at(os.environ["S4FS_GATEWAY"])


@pytest.fixture
def gzip_gateway() -> Counting:
    """A gateway that writes gzip."""
    return at(os.environ["S4FS_GZIP_GATEWAY"])


@pytest.fixture
def fs(store: Counting) -> S4FileSystem:
    """The filesystem under test, over the store, for writing too."""
    return S4FileSystem(fs=store, write_enabled=True, skip_instance_cache=True)


@pytest.fixture
def folder() -> str:
    """A place of its own for each test."""
    return f"{os.environ['S4FS_BUCKET']}/{uuid.uuid4().hex}"


@pytest.fixture
def options() -> Iterator[dict[str, Any]]:
    """What a program passes as `storage_options`."""
    yield {
        "key": os.environ["S4FS_ACCESS"],
        "secret": os.environ["S4FS_SECRET"],
        "endpoint_url": os.environ["S4FS_STORE"],
        "write_enabled": True,
    }
    S4FileSystem.clear_instance_cache()
    fsspec.filesystem("s3").clear_instance_cache()


def text(size: int) -> bytes:
    """Sources of the packages installed here, one after the other."""
    pieces, total = [], 0
    for path in sorted(Path(sysconfig.get_path("purelib")).rglob("*.py")):
        pieces.append(path.read_bytes())
        total += len(pieces[-1])
        if total >= size:
            break
    return b"".join(pieces)[:size]
