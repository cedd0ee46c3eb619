"""What is known of a bucket's versioning, for how long, and at what cost."""

import asyncio
from dataclasses import dataclass, field

import pytest

from s4gateway.backend import base
from s4gateway.backend.base import BackendAnswer, BackendUnavailable, Head
from s4gateway.backend.memory import MemoryBackend, MemoryStream
from s4gateway.objects.bucket_versioning import BELIEVED, BucketVersioning, Versioning
from s4gateway.s3 import xml
from s4gateway.s3.headers import Headers


@dataclass(eq=False)
class Store(MemoryBackend):
    """Answers GetBucketVersioning with `status`, or fails with it."""

    status: str | Exception | None = None
    asked: list[str] = field(default_factory=list)

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        self.asked.append(f"{method} {raw_path}?{raw_query}")
        await asyncio.sleep(0)
        if isinstance(self.status, Exception):
            raise self.status
        inner = xml.leaf("Status", self.status)
        document = xml.document("VersioningConfiguration", inner)
        return MemoryStream(Head(200, Headers([])), document)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def versioning(store: Store, clock: Clock) -> BucketVersioning:
    return BucketVersioning(store, clock)


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (None, Versioning.OFF),
        ("Enabled", Versioning.ENABLED),
        ("Suspended", Versioning.SUSPENDED),
        (BackendAnswer(501, "NotImplemented"), Versioning.OFF),
        (BackendAnswer(403, "AccessDenied"), Versioning.UNKNOWN),
    ],
)
async def test_an_answer_is_believed_for_a_while(
    store: Store, versioning: BucketVersioning, clock: Clock, status: str | None, found: Versioning
):
    store.status = status
    for _ in range(3):
        assert await versioning.of("a b") is found
    assert store.asked == ["GET /a%20b?versioning="]
    clock.now += BELIEVED
    store.status = "Enabled"
    assert await versioning.of("a b") is Versioning.ENABLED


@pytest.mark.parametrize(
    "failure",
    [BackendAnswer(404, "NoSuchBucket"), BackendAnswer(503, "SlowDown"), BackendUnavailable("")],
)
async def test_no_answer_is_not_remembered(
    store: Store, versioning: BucketVersioning, failure: Exception
):
    store.status = failure
    assert await versioning.of("b") is Versioning.UNKNOWN
    store.status = "Enabled"
    assert await versioning.of("b") is Versioning.ENABLED


async def test_who_asks_at_once_shares_one_question(store: Store, versioning: BucketVersioning):
    store.status = "Enabled"
    found = await asyncio.gather(*(versioning.of("b") for _ in range(20)))
    assert set(found) == {Versioning.ENABLED}
    assert len(store.asked) == 1


async def test_what_changed_while_it_was_asked_is_asked_again(
    store: Store, versioning: BucketVersioning
):
    asking = asyncio.get_running_loop().create_task(versioning.of("b"))
    await asyncio.sleep(0)
    versioning.forget("b")
    await asking
    store.status = "Enabled"
    assert await versioning.of("b") is Versioning.ENABLED


async def test_a_question_that_is_given_up_keeps_nobody_waiting(
    store: Store, versioning: BucketVersioning
):
    leader = asyncio.get_running_loop().create_task(versioning.of("b"))
    await asyncio.sleep(0)
    follower = asyncio.get_running_loop().create_task(versioning.of("b"))
    await asyncio.sleep(0)
    leader.cancel()
    assert await follower in {Versioning.UNKNOWN, Versioning.OFF}
