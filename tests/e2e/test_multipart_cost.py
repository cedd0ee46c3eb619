"""What sending an object in parts costs: bytes stored, bytes on the wire to the store, memory.

aws-cli sends anything of 8 MiB or more in parts of 8 MiB, ten at a time. Compressed they are below
the 5 MiB a store takes as a part, and filled up they would take more room than they need; so what
is stored must be what one PUT of the same bytes stores, on stores that want parts to be equal, too.
"""

import contextlib
import faulthandler
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests import clients, corpus, live
from tests.e2e import counting, metering

pytestmark = pytest.mark.e2e

log = logging.getLogger(__name__)  # the figures, with --log-cli-level=INFO

MIB = 1024 * 1024
PART = 8 * MIB  # of aws-cli
SIZES = pytest.mark.parametrize(
    "size",
    [
        pytest.param(256 * MIB, marks=pytest.mark.slow),
        pytest.param(2048 * MIB, marks=pytest.mark.huge),
    ],
    ids=["256M", "2G"],
)
LIMIT = 500 * MIB
USED = 's4_memory_budget_bytes{state="used"}'
BUDGET = 's4_memory_budget_bytes{state="limit"}'


@dataclass(frozen=True, slots=True)
class Setup:
    """A gateway, the store behind it, and the wire between the two."""

    gateway: live.Gateway
    wire: counting.Wire
    direct: Any

    def stored(self, bucket: str) -> int:
        """Bytes of everything in the bucket, internal objects too."""
        pages = self.direct.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return sum(entry["Size"] for page in pages for entry in page.get("Contents", ()))


@pytest.fixture(scope="module", params=["plain", "uniform-parts"])
def setup(
    request: pytest.FixtureRequest,
    seaweedfs: live.Seaweedfs,
    direct: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Setup]:
    """With each backend profile, in front of a store that holds to it."""
    uniform = request.param == "uniform-parts"
    flags = ("--backend-profile", request.param) if uniform else ()
    folder = tmp_path_factory.mktemp(request.param)
    with (
        counting.between(seaweedfs, uniform=uniform) as wire,
        live.gateway(wire.endpoint, folder, *flags) as gateway,
    ):
        yield Setup(gateway, wire, direct)
        assert wire.refused == 0


@pytest.fixture(autouse=True)
def _takes_its_time(request: pytest.FixtureRequest) -> None:
    """The dump of a test that seems to hang walks the frames of threads that run, and may crash."""
    if request.node.get_closest_marker("huge"):
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Callable[[live.Endpoint], clients.AwsCli]]:
    """aws-cli as it comes."""
    with contextlib.ExitStack() as opened:

        def make(endpoint: live.Endpoint) -> clients.AwsCli:
            return opened.enter_context(contextlib.closing(clients.AwsCli(endpoint, tmp_path)))

        yield make


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


@SIZES
def test_log_lines_in_parts_are_stored_as_one_put_would_store_them(
    size: int, setup: Setup, cli: Any, make_bucket: Callable[..., str], tmp_path: Path,
):  # fmt: skip
    body, back = tmp_path / "body.log", tmp_path / "back.log"
    body.write_bytes(corpus.chatter(size, seed=1))
    once, parted = make_bucket(), make_bucket()
    client = cli(setup.gateway)
    client.command("s3api", "put-object", "--bucket", once, "--key", "k", "--body", str(body))
    client.command("s3", "cp", "--no-progress", str(body), f"s3://{parted}/k")
    alone, in_parts = setup.stored(once), setup.stored(parted)
    log.info("%d bytes: one PUT stores %d, parts %d", size, alone, in_parts)
    assert in_parts <= 1.05 * alone, (in_parts, alone, in_parts / alone)
    assert in_parts < size / 10, (in_parts, size)
    client.command("s3", "cp", "--no-progress", f"s3://{parted}/k", str(back))
    assert digest(back) == digest(body)


@SIZES
def test_bytes_that_do_not_shrink_cost_hardly_more_than_without_the_gateway(
    size: int, setup: Setup, cli: Any, make_bucket: Callable[..., str], tmp_path: Path,
    seaweedfs: live.Seaweedfs,
):  # fmt: skip
    body, back = tmp_path / "body.bin", tmp_path / "back.bin"
    body.write_bytes(corpus.noise(64 * MIB, seed=2) * (size // (64 * MIB)))
    client = cli(setup.gateway)
    with counting.between(seaweedfs) as bare:
        cli(bare.endpoint).command(
            "s3", "cp", "--no-progress", str(body), f"s3://{make_bucket()}/k"
        )
        without = bare.sent - bare.repeated
    bucket, wire = make_bucket(), setup.wire
    before = wire.sent - wire.repeated
    client.command("s3", "cp", "--no-progress", str(body), f"s3://{bucket}/k")
    through = wire.sent - wire.repeated - before
    assert wire.repeated <= 3 * PART  # a busy machine's, not ours
    log.info("%d bytes: %d sent direct, %d by the gateway", size, without, through)
    assert through <= 1.01 * without, (through, without, through / without)
    client.command("s3", "cp", "--no-progress", f"s3://{bucket}/k", str(back))
    assert digest(back) == digest(body)


def test_parts_that_shrink_and_parts_that_do_not_alternate(
    setup: Setup, cli: Any, bucket: str, tmp_path: Path
):
    """Staged runs stand before, between and behind parts that are at the store already."""
    body, back = tmp_path / "body", tmp_path / "back"
    pieces = [
        corpus.noise(PART, seed) if seed % 4 in {1, 2} else corpus.chatter(PART, seed)
        for seed in range(14)
    ]
    body.write_bytes(b"".join(pieces) + corpus.text(1234567))
    client = cli(setup.gateway)
    client.command("s3", "cp", "--no-progress", str(body), f"s3://{bucket}/k")
    client.command("s3", "cp", "--no-progress", f"s3://{bucket}/k", str(back))
    assert digest(back) == digest(body)
    noise = 7 * PART
    assert setup.stored(bucket) < noise + 8 * 5 * MIB + 2 * MIB


# --- memory


@dataclass(slots=True)
class Peaks:
    """The most that was held while the block ran."""

    used: float = 0.0
    limit: float = 0.0


@contextlib.contextmanager
def watching(gateway: live.Gateway) -> Iterator[Peaks]:
    """Read the byte budget again and again."""
    peaks, over = Peaks(), threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            found = metering.scrape(gateway)
            peaks.used, peaks.limit = max(peaks.used, found[USED]), found[BUDGET]

    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(watch)
        try:
            yield peaks
        finally:
            over.set()
    task.result()


def peak_rss(gateway: live.Gateway) -> int:
    """The most resident memory the process ever had, in bytes."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.huge
@pytest.mark.parametrize("kind", ["log", "noise"])
def test_thirty_two_large_parts_at_once_stay_within_the_memory_budget(
    kind: str, start_gateway: Any, bucket: str
):
    body = corpus.noise(64 * MIB) if kind == "noise" else corpus.log(16 * MIB) * 4
    with (
        start_gateway() as gateway,
        contextlib.closing(
            clients.boto3_client(
                gateway,
                max_pool_connections=32,
                connect_timeout=60,  # boto3's own; it is for sending, too
                retries={"total_max_attempts": 10},
            )
        ) as s3,
    ):
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
        name = {"Bucket": bucket, "Key": "k", "UploadId": upload}

        def send(number: int) -> dict[str, Any]:
            answer = s3.upload_part(**name, PartNumber=number, Body=body)
            return {"PartNumber": number, "ETag": answer["ETag"]}

        with watching(gateway) as peaks, ThreadPoolExecutor(32) as pool:
            parts = list(pool.map(send, range(1, 33)))
            s3.complete_multipart_upload(**name, MultipartUpload={"Parts": parts})
        assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == 32 * len(body)
        assert 0 < peaks.used <= peaks.limit
        assert peak_rss(gateway) < LIMIT, peak_rss(gateway) / MIB
        metering.settled(gateway)


@pytest.mark.huge
def test_an_object_of_ten_thousand_parts(start_gateway: Any, bucket: str):
    """Every part has the 5 MiB that S3 demands and is a few hundred bytes when it is stored."""
    bodies = [f"part {kind:02} of many, all of them alike\n".encode() * (160 * 1024)
              for kind in range(16)]  # fmt: skip
    bodies = [body[: 5 * MIB] for body in bodies]
    digests = [hashlib.md5(body).digest() for body in bodies]
    count = 10_000
    with start_gateway() as gateway, contextlib.closing(clients.boto3_client(gateway)) as s3:
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
        name = {"Bucket": bucket, "Key": "k", "UploadId": upload}
        pool = urllib3.PoolManager(maxsize=8, retries=False)

        def send(number: int) -> None:
            more = {**name, "PartNumber": number}
            url = s3.generate_presigned_url("upload_part", Params=more, ExpiresIn=3600)
            body = bodies[number % 16]
            answer = pool.request("PUT", url, body=body)
            assert answer.status == 200, answer.data
            assert answer.headers["ETag"] == f'"{digests[number % 16].hex()}"'

        with watching(gateway) as peaks:
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(send, range(1, count + 1)))
            pages = s3.get_paginator("list_parts").paginate(**name)
            listed = [part for page in pages for part in page["Parts"]]
            assert [part["PartNumber"] for part in listed] == list(range(1, count + 1))
            assert {part["Size"] for part in listed} == {5 * MIB}
            parts = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in listed]
            done = s3.complete_multipart_upload(**name, MultipartUpload={"Parts": parts})
        joined = b"".join(digests[number % 16] for number in range(1, count + 1))
        assert done["ETag"] == f'"{hashlib.md5(joined).hexdigest()}-{count}"'
        assert 0 < peaks.used <= peaks.limit
        assert peak_rss(gateway) < LIMIT, peak_rss(gateway) / MIB
        head = s3.head_object(Bucket=bucket, Key="k", PartNumber=count)
        assert (head["ContentLength"], head["PartsCount"]) == (5 * MIB, count)
        for number in (1, 2, 5000, count):
            first = number * 5 * MIB - 100
            wanted = f"bytes={first}-{first + 199}"
            with s3.get_object(Bucket=bucket, Key="k", Range=wanted)["Body"] as read:
                after = bodies[(number + 1) % 16][:100] if number < count else b""
                assert read.read() == bodies[number % 16][-100:] + after
