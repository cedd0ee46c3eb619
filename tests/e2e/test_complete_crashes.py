"""A gateway killed at every request of CompleteMultipartUpload, and what the next one makes of it.

The process that completes reaches the store through a proxy that lets it come as far as its Nth
request and kills it there with SIGKILL: before the store sees that request, or when the store has
carried it out and nobody has been told. A second process, straight at the store, gets the client's
retry.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import botocore.exceptions
import pytest

from s4gateway.wire import keys
from s4gateway.wire.index import FrameIndex
from tests import corpus, live
from tests.conftest import StartGateway
from tests.e2e import meddler, uploads
from tests.rude_server import Exchange, Request

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MIB = 1024 * 1024
SIZE = 5 * MIB + 99
BODIES = {
    1: corpus.log(SIZE, seed=80),
    2: corpus.noise(SIZE, seed=81),
    3: corpus.log(SIZE, seed=82),
    4: b"the end",
}
WHOLE = b"".join(BODIES.values())
ETAG = uploads.whole_etag(BODIES.values())
FEWEST = 15  # requests of a completion: the test would be worthless if it saw none


@dataclass(slots=True)
class Killer:
    """A rule that kills a process with its request number `at`, once that was done if `after`."""

    at: int
    after: bool
    victim: live.Gateway | None = None
    seen: list[str] = field(default_factory=list)

    @property
    def reached(self) -> bool:
        return len(self.seen) >= self.at

    async def __call__(self, exchange: Exchange, ask: meddler.Ask) -> None:
        request = exchange.request
        self.seen.append(f"{request.method} {request.target.decode()}")
        number = len(self.seen)
        if number < self.at:
            await exchange.send((await ask()).wire)
            return
        if number == self.at and self.after:
            await ask()
        assert self.victim is not None
        self.victim.process.kill()
        exchange.reset()


@pytest.fixture(scope="module")
def meddling(seaweedfs: live.Seaweedfs) -> Iterator[meddler.Meddler]:
    with meddler.between(seaweedfs) as running:
        yield running


def is_about(bucket: str, request: Request) -> bool:
    """Not one of the probes every process sends now and then."""
    return request.target.decode().startswith(f"/{bucket}")


def is_told(direct: Any, bucket: str, key: str) -> None:
    """The sidecar is there and describes exactly the object."""
    head = direct.head_object(Bucket=bucket, Key=key)
    with direct.get_object(Bucket=bucket, Key=keys.sidecar_key(key))["Body"] as body:
        index = FrameIndex.decode(body.read())
    assert index.is_bound_to(head["ETag"], head["ContentLength"])
    assert index.total_original == len(WHOLE)


def check_object(s3: Any, direct: Any, bucket: str, key: str) -> None:
    head = s3.head_object(Bucket=bucket, Key=key)
    assert (head["ETag"], head["ContentLength"]) == (ETAG, len(WHOLE))
    with s3.get_object(Bucket=bucket, Key=key)["Body"] as body:
        assert body.read() == WHOLE
    for start in (0, SIZE - 3, 2 * SIZE - 3, len(WHOLE) - 6):
        asked = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{start + 5}")
        with asked["Body"] as body:
            assert body.read() == WHOLE[start : start + 6]
    is_told(direct, bucket, key)


@pytest.mark.parametrize("after", [False, True], ids=["before-it", "after-it"])
def test_whatever_request_it_was_killed_at_the_retry_succeeds_and_nothing_is_left(
    after: bool,
    meddling: meddler.Meddler,
    start_gateway: StartGateway,
    seaweedfs: live.Seaweedfs,
    s3: Any,
    direct: Any,
    bucket: str,
):
    for at in itertools.count(1):
        key = f"{at}.bin"
        upload_id = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        parts = uploads.send_all(s3, bucket, key, upload_id, BODIES)
        killer = Killer(at, after)
        with start_gateway(backend=meddling.endpoint) as dying:
            killer.victim = dying
            about = functools.partial(is_about, bucket)
            with uploads.client_of(dying) as client, meddling.misbehaving(killer, about):
                with contextlib.suppress(botocore.exceptions.HTTPClientError):
                    uploads.complete(client, bucket, key, upload_id, parts)
                if killer.reached:
                    dying.process.wait(120)
        answer = uploads.complete(s3, bucket, key, upload_id, parts)
        assert answer["ETag"] == ETAG, killer.seen
        check_object(s3, direct, bucket, key)
        again = uploads.complete(s3, bucket, key, upload_id, parts)
        assert again["ETag"] == ETAG
        report = uploads.collect(seaweedfs, bucket)
        assert (report.failed, report.phantom_committed_keys) == (0, ()), killer.seen
        left = [each["Key"] for each in direct.list_objects_v2(Bucket=bucket)["Contents"]]
        assert left == [key, keys.sidecar_key(key)], killer.seen
        assert "Uploads" not in direct.list_multipart_uploads(Bucket=bucket)
        s3.delete_object(Bucket=bucket, Key=key)
        if not killer.reached:
            assert at > FEWEST, killer.seen
            break


def test_killed_right_behind_the_commit_and_never_asked_again_the_object_is_whole(
    meddling: meddler.Meddler,
    start_gateway: StartGateway,
    seaweedfs: live.Seaweedfs,
    s3: Any,
    direct: Any,
    bucket: str,
):
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    parts = uploads.send_all(s3, bucket, "k", upload_id, BODIES)
    killer = Killer(1, after=True)
    with start_gateway(backend=meddling.endpoint) as dying:
        killer.victim = dying
        with (
            uploads.client_of(dying) as client,
            meddling.misbehaving(killer, lambda request: request.method == "POST"),
            contextlib.suppress(botocore.exceptions.HTTPClientError),
        ):
            uploads.complete(client, bucket, "k", upload_id, parts)
        dying.process.wait(120)
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ETag"], head["ContentLength"]) == (ETAG, len(WHOLE))
    assert uploads.collect(seaweedfs, bucket).phantom_committed_keys == ("k",)
    with s3.get_object(Bucket=bucket, Key="k", Range="bytes=7000000-7000009")["Body"] as body:
        assert body.read() == WHOLE[7_000_000:7_000_010]
    left = [each["Key"] for each in direct.list_objects_v2(Bucket=bucket)["Contents"]]
    assert left == ["k"]
