"""What a store is found to be, and that nothing of the finding out stays behind."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from s4gateway.backend.base import (
    BackendAnswer,
    BackendUnavailable,
    Body,
    Head,
    HeaderList,
    ObjectStream,
)
from s4gateway.backend.conditional import ConditionalWrites
from s4gateway.backend.memory import MemoryBackend
from s4gateway.backend.probe import ConditionalVerb, probe
from s4gateway.s3.headers import Headers
from s4gateway.wire import keys
from tests.backends import Call, CountingBackend, FaultyBackend

PUT, DELETE, COMPLETE = ConditionalVerb
BUCKET = "bucket"


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


@dataclass(eq=False)
class Liar(CountingBackend):
    """Takes conditions on some requests and ignores them; `ignored` names their headers."""

    ignored: frozenset[str] = frozenset({"if-match", "if-none-match"})
    on: frozenset[str] = frozenset({"put", "delete", "complete"})

    def heard(self, verb: str, headers: HeaderList) -> HeaderList:
        if verb not in self.on:
            return headers
        return [(name, value) for name, value in headers if name not in self.ignored]

    async def put(self, bucket: str, key: str, body: Body, headers: HeaderList = ()) -> Head:
        return await super().put(bucket, key, body, self.heard("put", headers))

    async def delete(
        self, bucket: str, key: str, *, query: str = "", headers: HeaderList = ()
    ) -> Head:
        headers = self.heard("delete", headers)
        return await super().delete(bucket, key, query=query, headers=headers)

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: HeaderList,
        body: Body | None = None,
    ) -> ObjectStream:
        if method == "POST" and "uploadId" in raw_query:
            headers = self.heard("complete", headers)
        return await super().forward(method, raw_path, raw_query, headers, body)


async def findings(backend: CountingBackend | MemoryBackend) -> dict[ConditionalVerb, bool]:
    return await probe(backend, BUCKET, PUT) | await probe(backend, BUCKET, COMPLETE)


def assert_clean(store: MemoryBackend) -> None:
    assert store.buckets[BUCKET] == {}
    assert b"<Upload>" not in store.uploads.list_uploads(BUCKET)


async def test_a_store_that_refuses_what_does_not_hold_is_believed(store: MemoryBackend):
    counting = CountingBackend(store)
    assert await findings(counting) == {PUT: True, DELETE: True, COMPLETE: True}
    assert_clean(store)
    written = [call for call in counting.calls if call.verb == "put"]
    assert all(call.key.startswith(keys.PARTS_PREFIX) for call in written)


@pytest.mark.parametrize("header", ["if-match", "if-none-match"])
@pytest.mark.parametrize(("on", "verb"), [("put", PUT), ("complete", COMPLETE)])
async def test_a_store_that_ignores_one_of_the_headers_is_found_out(
    store: MemoryBackend, header: str, on: str, verb: ConditionalVerb
):
    found = await findings(Liar(store, ignored=frozenset({header}), on=frozenset({on})))
    assert found == {PUT: True, DELETE: True, COMPLETE: True} | {verb: False}
    assert_clean(store)


async def test_a_store_that_deletes_whatever_the_condition_is_found_out(store: MemoryBackend):
    assert await findings(Liar(store, on=frozenset({"delete"}))) == {
        PUT: True, DELETE: False, COMPLETE: True,
    }  # fmt: skip
    assert_clean(store)


@pytest.mark.parametrize("status", [400, 501])
async def test_a_store_that_does_not_take_the_headers_has_none(store: MemoryBackend, status: int):
    @dataclass(eq=False)
    class Refusing(CountingBackend):
        async def put(self, bucket: str, key: str, body: Body, headers: HeaderList = ()) -> Head:
            if headers:
                raise BackendAnswer(status, "NotImplemented")
            return await super().put(bucket, key, body, headers)

    assert (await probe(Refusing(store), BUCKET, PUT))[PUT] is False
    assert_clean(store)


@dataclass(eq=False)
class Versioned(Liar):
    """Says of each write and deletion which version it made."""

    made: int = 0

    def next_version(self, head: Head) -> Head:
        self.made += 1
        fields = [*head.headers.items(), ("x-amz-version-id", f"v/{self.made}")]
        return replace(head, headers=Headers(fields))

    async def put(self, bucket: str, key: str, body: Body, headers: HeaderList = ()) -> Head:
        return self.next_version(await super().put(bucket, key, body, headers))

    async def delete(
        self, bucket: str, key: str, *, query: str = "", headers: HeaderList = ()
    ) -> Head:
        if query:
            self.calls.append(Call("delete", bucket, key, query))
            return Head(204, Headers([]))
        return self.next_version(await super().delete(bucket, key, headers=headers))


@pytest.mark.parametrize(("ignored", "made"), [(frozenset(), 1), (frozenset({"if-match"}), 3)])
async def test_every_version_that_was_made_is_removed_by_its_id(
    store: MemoryBackend, ignored: frozenset[str], made: int
):
    versioned = Versioned(store, ignored=ignored)
    await probe(versioned, BUCKET, PUT)
    removed = {call.query for call in versioned.calls if call.query}
    assert removed == {f"versionId=v%2F{number + 1}" for number in range(made)}


async def test_one_probe_serves_all_who_ask(store: MemoryBackend):
    counting = CountingBackend(store)
    writes = ConditionalWrites(counting)
    assert writes.known(PUT) is None
    assert await asyncio.gather(*[writes.honoured(PUT, BUCKET) for _ in range(50)]) == [True] * 50
    asked = len(counting.calls)
    assert await writes.honoured(DELETE, BUCKET)
    assert len(counting.calls) == asked
    assert (writes.known(PUT), writes.known(COMPLETE)) == (True, None)
    assert asked <= 6


@pytest.mark.parametrize("declared", [True, False])
async def test_what_the_operator_says_is_not_asked(store: MemoryBackend, declared: bool):
    counting = CountingBackend(store)
    writes = ConditionalWrites(counting, declared)
    assert [await writes.honoured(verb, BUCKET) for verb in ConditionalVerb] == [declared] * 3
    await writes.learn(PUT, BUCKET)
    assert counting.calls == []


FAILURES: list[Callable[[], Exception]] = [
    lambda: BackendAnswer(403, "AccessDenied"),
    lambda: BackendAnswer(503, "SlowDown"),
    lambda: BackendUnavailable("reset"),
]


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_store_that_could_not_be_asked_stays_unknown_and_is_asked_again(
    store: MemoryBackend, failure: Callable[[], Exception]
):
    faulty = FaultyBackend(store)
    writes = ConditionalWrites(faulty)
    faulty.fault = lambda call: failure() if call.verb == "put" else None
    for _ in range(2):
        with pytest.raises(type(failure())):
            await writes.honoured(PUT, BUCKET)
        assert writes.known(PUT) is None
    await writes.learn(PUT, BUCKET)
    asked = len(faulty.calls)
    await writes.learn(PUT, BUCKET)  # for its own use it does not insist
    assert len(faulty.calls) == asked
    faulty.fault = lambda call: None
    assert await writes.honoured(PUT, BUCKET)
    assert_clean(store)


async def test_a_probe_outlives_the_request_that_began_it(store: MemoryBackend):
    gate = asyncio.Event()

    @dataclass(eq=False)
    class Slow(CountingBackend):
        async def before(self, call: Call) -> None:
            await gate.wait()
            await super().before(call)

    writes = ConditionalWrites(Slow(store))
    asking = asyncio.get_running_loop().create_task(writes.honoured(PUT, BUCKET))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    gate.set()
    await writes.close()
    assert writes.known(PUT) is True
    assert_clean(store)


async def test_uploads_that_cannot_be_completed_leave_nothing_either(store: MemoryBackend):
    faulty = FaultyBackend(store)
    faulty.fault = lambda call: (
        BackendUnavailable("reset") if call.verb == "forward POST" and "Id=" in call.query else None
    )
    with pytest.raises(BackendUnavailable):
        await probe(faulty, BUCKET, COMPLETE)
    assert_clean(store)
