"""A tree that was synchronised is not sent again: programs compare what the gateway shows with it.

Each program decides by other facts: aws-cli by size and time in listings, rclone by the time of
modification it keeps in the metadata or by MD5, s3cmd by MD5, which of an object sent in parts only
its metadata know. Stored sizes and ETags would make every one of them send everything each time.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests import clients, corpus, live

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MIB = 1024 * 1024
PREFIX = "a tree/of+it"
SMALL = {
    "empty.txt": 0,
    "one.txt": 1,
    "below/4095.txt": 4095,
    "below/4096.json": 4096,
    "below/deep/er/300k.py": 300_000,
    "names/with space.txt": 10_000,
    "names/a+b & c=d.txt": 10_001,
    "names/100%.txt": 10_002,
    "names/grüße-日本.txt": 10_003,
    "large/1mib.log": MIB,
    "large/3mib.log": 3 * MIB,
}
IN_PARTS = {
    "parts/just.log": 15 * MIB + 1,
    "parts/whole.log": 20 * MIB,
    "parts/more.log": 33 * MIB + 777,
    "beside.txt": 5000,
}


class S3cmdInParts(clients.S3cmd):
    _multipart: ClassVar[bool] = True


class RcloneInParts(clients.Rclone):
    _upload_cutoff: ClassVar[str] = "10M"


def aws(client: clients.AwsCli, source: str, target: str) -> list[str]:
    """The files that `aws s3 sync` sent or fetched."""
    said = client.command("s3", "sync", "--no-progress", source, target).decode()
    return [line for line in said.splitlines() if line.strip()]


def s3cmd(client: clients.S3cmd, source: str, target: str) -> list[str]:
    """The files that `s3cmd sync` sent or fetched."""
    said = client.command("sync", "--multipart-chunk-size-mb=5", source, target).decode()
    return [line for line in said.splitlines() if line.startswith(("upload:", "download:"))]


def rclone(client: clients.Rclone, source: str, target: str, *options: str) -> list[str]:
    """The files that `rclone sync` did not find the same on both sides."""
    said = client.command("sync", "--combined=-", *options, source, target).decode()
    return [line for line in said.splitlines() if not line.startswith("=")]


@dataclass(frozen=True, slots=True)
class Remote:
    """A bucket as the store holds it, and as the gateway shows it."""

    bucket: str
    direct: Any
    s3: Any

    def state(self) -> list[tuple[Any, ...]]:
        """Everything the store holds, internal objects too."""
        pages = self.direct.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        entries = [entry for page in pages for entry in page.get("Contents", ())]
        return [(each["Key"], each["ETag"], each["Size"], each["LastModified"]) for each in entries]

    def in_parts(self) -> set[str]:
        """The names whose ETag says that they were sent in parts."""
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=PREFIX)["Contents"]
        return {each["Key"].removeprefix(f"{PREFIX}/") for each in listed if "-" in each["ETag"]}


@pytest.fixture
def remote(bucket: str, direct: Any, s3: Any) -> Remote:
    return Remote(bucket, direct, s3)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trees")
    made = {"small": folder / "small", "parts": folder / "parts"}
    for name, sizes in (("small", SMALL), ("parts", IN_PARTS)):
        for seed, (path, size) in enumerate(sizes.items(), start=1):
            file = made[name] / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(corpus.text(size, seed) if size < MIB else corpus.log(size, seed))
            # Older than the objects to come: aws-cli sends what is newer than its object.
            moment = 1_700_000_000 + seed * 3600
            os.utime(file, ns=(moment * 10**9 + 123_456_789,) * 2)
    return made


@pytest.fixture
def open_client(
    front: live.Gateway, tmp_path: Path
) -> Iterator[Callable[[type[clients.Client]], Any]]:
    with contextlib.ExitStack() as opened:

        def make(kind: type[clients.Client]) -> clients.Client:
            return opened.enter_context(contextlib.closing(kind(front, tmp_path)))

        yield make


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


TREES = pytest.mark.parametrize("tree", ["small", "parts"])
PARTED = {"small": set(), "parts": {name for name in IN_PARTS if name.startswith("parts/")}}


@TREES
def test_aws_s3_sync_a_second_time_transfers_nothing(
    tree: str, trees: dict[str, Path], open_client: Any, remote: Remote, tmp_path: Path
):
    client = open_client(clients.AwsCli)
    local, there = trees[tree], f"s3://{remote.bucket}/{PREFIX}"
    assert len(aws(client, str(local), there)) == len(contents(local))
    assert remote.in_parts() == PARTED[tree]
    before = remote.state()
    assert aws(client, str(local), there) == []
    assert remote.state() == before
    back = tmp_path / "back"
    assert len(aws(client, there, str(back))) == len(contents(local))
    assert contents(back) == contents(local)
    assert aws(client, there, str(back)) == []
    assert aws(client, str(back), there) == []


@TREES
def test_s3cmd_sync_a_second_time_transfers_nothing(
    tree: str, trees: dict[str, Path], open_client: Any, remote: Remote, tmp_path: Path
):
    client = open_client(S3cmdInParts)
    local, there = trees[tree], f"s3://{remote.bucket}/{PREFIX}/"
    assert len(s3cmd(client, f"{local}/", there)) == len(contents(local))
    assert remote.in_parts() == PARTED[tree]
    before = remote.state()
    assert s3cmd(client, f"{local}/", there) == []
    assert remote.state() == before
    back = tmp_path / "back"
    back.mkdir()
    assert len(s3cmd(client, there, f"{back}/")) == len(contents(local))
    assert contents(back) == contents(local)
    assert s3cmd(client, there, f"{back}/") == []


@TREES
@pytest.mark.parametrize("by", [(), ("--checksum",)], ids=["modtime", "checksum"])
def test_rclone_sync_a_second_time_transfers_nothing(
    tree: str, by: tuple[str, ...], trees: dict[str, Path], open_client: Any, remote: Remote,
    tmp_path: Path,
):  # fmt: skip
    client = open_client(RcloneInParts)
    local, there = str(trees[tree]), f"live:{remote.bucket}/{PREFIX}"
    options = (*by, "--s3-chunk-size=5M")
    sent = rclone(client, local, there, *options)
    assert len(sent) == len(contents(trees[tree]))
    assert remote.in_parts() == PARTED[tree]
    before = remote.state()
    assert rclone(client, local, there, *options) == []
    assert remote.state() == before
    assert rclone(client, local, there, "--checksum") == []
    back = tmp_path / "back"
    assert len(rclone(client, there, str(back), *options)) == len(sent)
    assert contents(back) == contents(trees[tree])
    assert rclone(client, there, str(back), *options) == []
    client.command("check", "--download", local, there)


def test_a_changed_file_of_the_same_size_is_sent_again_and_alone(
    trees: dict[str, Path], open_client: Any, bucket: str, tmp_path: Path
):
    local = tmp_path / "local"
    for name, body in contents(trees["small"]).items():
        file = local / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    first = open_client(S3cmdInParts)
    second = open_client(RcloneInParts)
    s3cmd(first, f"{local}/", f"s3://{bucket}/one/")
    rclone(second, str(local), f"live:{bucket}/two")
    (local / "large/1mib.log").write_bytes(corpus.log(MIB, seed=99))
    (sent,) = s3cmd(first, f"{local}/", f"s3://{bucket}/one/")
    assert "large/1mib.log" in sent
    assert rclone(second, str(local), f"live:{bucket}/two", "--checksum") == ["* large/1mib.log"]
