"""Retries, turns and the ETag check of every request. Acceptance 22 to 24."""

import asyncio
import contextlib
import gc
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from s4gateway.s3store import MemoryTransport, PutInfo, errors
from s4gateway.s3store.calls import PAUSES, S3Calls
from s4gateway.s3store.telemetry import Telemetry
from tests.s3store import transports, world
from tests.s3store.transports import answers, fails, lands_then

BODY = b"all of it" * 1000


class Harness:
    """Requests with a limit over a scripted store in memory."""

    def __init__(self, limit: int = 2, **options: Any) -> None:
        self.memory = MemoryTransport()
        self.store = transports.ScriptedTransport(self.memory)
        self.clock = world.ManualClock()
        self.calls = S3Calls(
            self.store, Telemetry({}, self.clock), limit=limit, headers={}, **options
        )


@pytest.fixture
def harness() -> Harness:
    return Harness()


async def test_22_a_put_that_is_tried_again_sends_the_whole_body_again(harness: Harness):
    harness.store.script("put", "k", lands_then(errors.ServerError, 500))
    await harness.calls.put("k", BODY)
    assert harness.store.counts() == {"put": 2}
    assert harness.memory.objects["k"].body == BODY


async def test_23_an_etag_that_is_not_the_body_s_md5_is_tried_again(harness: Harness):
    harness.store.script("put", "k", answers(PutInfo('"d41d8cd98f00b204e9800998ecf8427e"')), 2)
    await harness.calls.put("k", BODY)
    assert harness.store.counts() == {"put": 3}


async def test_23_an_etag_that_stays_wrong_is_an_integrity_error_after_five_tries(harness: Harness):
    harness.store.script("put", "k", answers(PutInfo('"0"')), 99)
    with pytest.raises(errors.IntegrityError, match="tried 5 times") as raised:
        await harness.calls.put("k", BODY)
    assert raised.value.attempts == 5 == harness.store.counts()["put"]


@pytest.mark.parametrize(
    "answer",
    [
        PutInfo('"b16b"', opaque_etag=True),
        PutInfo('"0f343b0931126a20f133d67c2b018a3b-2"'),
        PutInfo(""),
        PutInfo('""'),
        PutInfo("D41D8CD98F00B204E9800998ECF8427E"),
    ],
    ids=["encrypted", "multipart", "none", "empty", "upper case without quotes"],
)
async def test_23_an_etag_that_says_nothing_else_is_accepted(harness: Harness, answer: PutInfo):
    harness.store.script("put", "k", answers(answer))
    await harness.calls.put("k", b"")
    assert harness.store.counts() == {"put": 1}


async def test_23_the_check_can_be_left_out():
    harness = Harness(verify_etag=False)
    harness.store.script("put", "k", answers(PutInfo('"0"')))
    await harness.calls.put("k", BODY)
    assert harness.store.counts() == {"put": 1}


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (errors.ServerError, 503, ""),
        (errors.Throttled, 429, ""),
        (errors.Throttled, 503, "SlowDown"),
        (errors.Throttled, 400, "SlowDown"),
        (errors.ConnectionFailed, 0, "ReadTimeoutError"),
        (errors.IntegrityError, 200, ""),
        (errors.ClientError, 400, "RequestTimeout"),
        (errors.ClientError, 408, ""),
        (errors.ClientError, 409, "ConditionalRequestConflict"),
    ],
)
async def test_24_what_may_pass_is_tried_again(
    harness: Harness,
    kind: type[errors.TransportError],
    status: int,
    code: str,
    caplog: pytest.LogCaptureFixture,
):
    harness.store.script("get", "k", fails(kind, status, code), times=2)
    await harness.calls.put("k", BODY)
    with caplog.at_level(logging.WARNING):
        assert await harness.calls.get("k") == BODY
    assert harness.store.counts()["get"] == 3
    said = [record.getMessage() for record in caplog.records]
    assert [text[: text.index(":")] for text in said] == [
        "get failed, attempt 1 of 5",
        "get failed, attempt 2 of 5",
    ]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.ClientError, 400),
        (errors.AccessDenied, 403),
        (errors.NotFound, 404),
        (errors.PreconditionFailed, 412),
        (errors.ClientError, 0),
    ],
)
async def test_24_what_will_not_pass_is_tried_once(
    harness: Harness, kind: type[errors.TransportError], status: int
):
    harness.store.script("get", "k", fails(kind, status))
    with pytest.raises(kind):
        await harness.calls.get("k")
    assert harness.store.counts() == {"get": 1}
    assert harness.clock.slept == []


class Threaded(Harness):
    def __init__(self) -> None:
        super().__init__(1)
        self.store = transports.ThreadedScripted(self.memory)
        telemetry = Telemetry({}, self.clock)
        self.calls = S3Calls(self.store, telemetry, limit=1, headers={})


async def test_a_body_is_worked_on_once_whatever_came_before_it():
    harness, seen = Threaded(), []
    await harness.calls.put("k", BODY)
    harness.store.script("get", "k", fails(errors.ServerError, 503), times=2)
    harness.store.script("get", "k", lands_then(errors.ConnectionFailed))
    assert await harness.calls.get_then("k", lambda body: seen.append(body) or len(body)) == 9000
    assert seen == [BODY]
    assert harness.store.counts()["get"] == 4


async def test_a_body_that_comes_again_is_worked_on_anew():
    """A transport that fails after the work was done, which is not to be relied on."""
    harness, seen = Threaded(), []
    await harness.calls.put("k", BODY)
    get_then = harness.store.get_then

    async def lossy(key: str, work: Callable[[bytes], Any], **options: Any) -> Any:
        size = await get_then(key, work, **options)
        if len(seen) == 1:
            raise errors.ConnectionFailed("get", key)
        return size

    def work(body: bytes) -> int:
        seen.append(body)
        if len(seen) == 1:
            raise ValueError("no")
        return len(seen)

    harness.store.get_then = lossy
    assert await harness.calls.get_then("k", work) == 2


class Gated(transports.ThreadedScripted):
    """Bodies that arrive on their thread when `gate` opens; `begun` and `done` are of threads."""

    def __init__(self, inner: MemoryTransport) -> None:
        super().__init__(inner)
        self.gate, self.begun, self.done = (threading.Event() for _ in range(3))

    async def get_then(self, key: str, work: Callable[[bytes], Any], **options: Any) -> Any:
        body = await self.get(key, **options)

        def arrive() -> Any:
            self.begun.set()
            assert self.gate.wait(60)
            try:
                return work(body)
            finally:
                self.done.set()

        return await asyncio.to_thread(arrive)


async def test_what_arrives_for_a_caller_who_has_left_is_not_worked_on():
    harness, seen = Threaded(), []
    await harness.calls.put("k", BODY)
    store = Gated(harness.memory)
    patient = S3Calls(store, Telemetry({}, harness.clock), limit=1, headers={})
    reading = asyncio.get_running_loop().create_task(patient.get_then("k", seen.append))
    assert await asyncio.to_thread(store.begun.wait, 60)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    store.gate.set()
    assert await asyncio.to_thread(store.done.wait, 60)
    assert seen == []
    await patient.get_then("k", seen.append)
    assert seen == [BODY]


async def test_a_failure_of_the_work_does_not_keep_the_body():
    harness = Threaded()
    await harness.calls.put("k", BODY)

    class Seen:
        """Something that lives as long as the frames that know it."""

    seen = Seen()
    alive = weakref.ref(seen)

    def work(_body: bytes, mine: list[Seen]) -> None:
        what = mine.pop()
        raise ValueError(id(what))

    gc.disable()
    try:
        mine = [seen]
        del seen
        with contextlib.suppress(ValueError):
            await harness.calls.get_then("k", lambda body: work(body, mine))
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "failure", [OSError("disk"), errors.ServerError("get", "k", status=503), ValueError("no")]
)
async def test_what_the_work_raises_is_no_failure_of_the_request(failure: Exception):
    harness = Threaded()
    await harness.calls.put("k", BODY)

    def work(_body: bytes) -> None:
        raise failure

    with pytest.raises(type(failure)) as raised:
        await harness.calls.get_then("k", work)
    assert raised.value is failure
    assert harness.store.counts()["get"] == 1
    assert await harness.calls.get("k") == BODY  # the only place is free


async def test_24_after_five_tries_the_last_failure_is_raised_and_pauses_lie_in_their_windows(
    caplog: pytest.LogCaptureFixture,
):
    for _ in range(50):
        harness = Harness()
        harness.store.script("head", "k", fails(errors.ServerError, 500), times=99)
        caplog.clear()
        with pytest.raises(errors.ServerError, match="tried 5 times"):
            await harness.calls.head("k")
        assert harness.store.counts() == {"head": 5}
        assert len(caplog.records) == 4  # the last one is raised, not logged
        assert len(harness.clock.slept) == 4
        for (low, high), slept in zip(PAUSES, harness.clock.slept, strict=True):
            assert low <= slept <= high
    assert sum(high for _, high in PAUSES) == pytest.approx(2.4)


async def test_24_a_place_is_held_while_pausing_and_given_back_after(harness: Harness):
    """With one place, a second request waits until the first one's retries are over."""
    harness = Harness(limit=1)
    order: list[str] = []
    harness.store.script("get", "first", fails(errors.ServerError, 500))
    await harness.memory.put("first", b"1")
    await harness.memory.put("second", b"2")

    async def get(key: str) -> None:
        await harness.calls.get(key)
        order.append(key)

    await asyncio.gather(get("first"), get("second"))
    assert order == ["first", "second"]
    assert harness.store.most_under_way == 1


async def test_24_requests_take_turns_in_the_order_they_came():
    harness = Harness(limit=3)
    order: list[str] = []

    async def get(key: str) -> None:
        await harness.memory.put(key, b"")
        await harness.calls.get(key)
        order.append(key)

    keys = [f"{number:02}" for number in range(20)]
    await asyncio.gather(*(get(key) for key in keys))
    assert order == keys
    assert harness.store.most_under_way <= 3


async def test_24_cancellation_during_a_pause_ends_the_request_and_frees_its_place():
    harness = Harness(limit=1)
    harness.clock.auto = 0.0  # pauses last until somebody moves the clock
    harness.store.script("get", "k", fails(errors.ServerError, 500), times=9)
    task = asyncio.ensure_future(harness.calls.get("k"))
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert harness.store.counts() == {"get": 1}
    await harness.calls.put("k", b"")
    assert await harness.calls.head("k") is not None


async def test_cancellation_while_waiting_for_a_turn_leaves_nothing_behind():
    harness = Harness(limit=1)
    go = asyncio.Event()
    harness.store.script("get", "a", transports.waits_for(go))
    await harness.memory.put("a", b"")
    running = asyncio.ensure_future(harness.calls.get("a"))
    waiting = asyncio.ensure_future(harness.calls.get("a"))
    await asyncio.sleep(0)
    waiting.cancel()
    go.set()
    assert await running == b""
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert harness.store.counts() == {"get": 1}


async def test_an_absent_key_is_none_for_head_and_not_found_for_get(harness: Harness):
    assert await harness.calls.head("nothing") is None
    with pytest.raises(errors.NotFound):
        await harness.calls.get("nothing")
