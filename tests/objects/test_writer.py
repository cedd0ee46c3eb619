"""Objects and their sidecars as they are written, overwritten and deleted, over time."""

import asyncio
import hashlib
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from s4gateway.backend.base import BackendAnswer, BackendUnavailable, Body, Head, HeaderList
from s4gateway.backend.memory import MemoryBackend
from s4gateway.objects.listing import ListRequest, visible_page
from s4gateway.wire import keys
from tests import corpus
from tests.backends import CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.world import BUCKET, MIB, Instance

T = TypeVar("T")


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


def names(store: MemoryBackend) -> list[str]:
    return sorted(store.buckets[BUCKET])


INDEXED = corpus.text(5 * MIB)


async def test_only_objects_of_several_frames_have_a_sidecar(store: MemoryBackend):
    one = Instance(store)
    bodies = {
        "empty": b"",
        "small": corpus.text(100),
        "frame": corpus.text(MIB),
        "noise": corpus.noise(5 * MIB),
        "large": INDEXED,
    }
    for key, data in bodies.items():
        await one.put(key, data)
    await one.sidecars.removals.flush()
    assert names(store) == ["empty", "frame", "large", "large.s4index", "noise", "small"]
    await one.close()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("successor", [b"small", corpus.noise(100_000)])
async def test_an_overwrite_that_needs_no_sidecar_removes_the_old_one(
    store: MemoryBackend, restart: bool, successor: bytes
):
    one = Instance(store)
    await one.put("k", INDEXED)
    if restart:
        await one.close()
        one = Instance(store)
    await one.put("k", successor)
    await one.sidecars.removals.flush()
    assert names(store) == ["k"]
    await one.close()


async def test_what_another_gateway_indexed_is_cleaned_up_all_the_same(store: MemoryBackend):
    one, other = Instance(store), Instance(store)
    await one.put("k", b"small")
    await other.put("k", INDEXED)
    assert names(store) == ["k", "k.s4index"]
    await one.put("k", b"small again")
    await one.sidecars.removals.flush()
    assert names(store) == ["k"]
    await other.put("k", INDEXED)
    await one.writer.delete(store, (BUCKET, "k"))
    await one.sidecars.removals.flush()
    assert names(store) == []
    await one.close()
    await other.close()


async def test_deleting_takes_the_sidecar_along(store: MemoryBackend):
    for instance in (Instance(store), Instance(store)):
        await instance.put("k", INDEXED)
        await Instance(store).writer.delete(store, (BUCKET, "k"))
        assert names(store) == []
        await instance.close()


async def test_closing_carries_out_removals_even_those_under_way(store: MemoryBackend):
    slow = Slow(store)
    one = Instance(slow)
    for number in range(3):
        world.put_sidecar(store, f"k{number}", b"stale")
        one.sidecars.removals.add((BUCKET, f"k{number}"))
    await slow.entered.wait()
    one.sidecars.removals.add((BUCKET, "late"))
    world.put_sidecar(store, "late", b"stale")
    await one.close()
    assert names(store) == []
    assert len(asyncio.all_tasks()) == 1


class Slow(CountingBackend):
    """Takes its time over DeleteObjects and says when it began."""

    def __init__(self, inner: MemoryBackend) -> None:
        super().__init__(inner)
        self.entered = asyncio.Event()

    async def delete_many(self, bucket: str, keys: Any) -> Any:
        self.entered.set()
        await asyncio.sleep(0.02)
        return await super().delete_many(bucket, keys)


async def test_a_removal_under_way_never_takes_the_sidecar_written_after_it(
    store: MemoryBackend,
):
    slow = Slow(store)
    one = Instance(slow)
    await one.put("k", b"small")
    one.sidecars.removals.add((BUCKET, "k"))
    await slow.entered.wait()
    await one.put("k", INDEXED)
    await one.close()
    assert names(store) == ["k", "k.s4index"]
    assert (await Instance(store).ranged("k", 5, 9))[1] is None


async def test_a_removal_that_was_put_off_is_dropped_when_a_sidecar_comes(
    store: MemoryBackend,
):
    one = Instance(store)
    await one.put("k", b"small")
    one.sidecars.removals.add((BUCKET, "k"))
    await one.put("k", INDEXED)
    await one.close()
    assert names(store) == ["k", "k.s4index"]


async def test_removals_go_in_batches(store: MemoryBackend):
    counting = CountingBackend(store)
    one = Instance(counting)
    for number in range(2500):
        one.sidecars.removals.add((BUCKET, f"k{number}"))
        one.sidecars.removals.add((BUCKET, f"k{number}"))
    await one.close()
    assert counting.count("delete_many") == 3


async def test_a_sidecar_that_cannot_be_written_fails_no_upload(store: MemoryBackend):
    faulty = FaultyBackend(store)
    faulty.fault = lambda call: (
        BackendAnswer(403, "AccessDenied") if call.key.endswith(".s4index") else None
    )
    one = Instance(faulty)
    await one.put("k", INDEXED)
    assert names(store) == ["k"]
    assert await one.get_range("k", 10, 20) == INDEXED[10:20]
    await one.writer.delete(faulty, (BUCKET, "k"))
    await one.close()
    assert names(store) == []


async def test_removals_a_store_refuses_fail_nothing(store: MemoryBackend):
    faulty = FaultyBackend(store)
    faulty.fault = lambda call: BackendUnavailable("down") if call.verb == "delete_many" else None
    one = Instance(faulty)
    await one.put("k", b"small")
    one.sidecars.removals.add((BUCKET, "k"))
    await one.close()
    assert faulty.count("delete_many") == 1


async def test_an_upload_the_store_refuses_leaves_no_belief_about_the_key(store: MemoryBackend):
    faulty = FaultyBackend(store)
    one = Instance(faulty)
    await one.put("k", INDEXED)
    faulty.fault = lambda call: BackendUnavailable("reset") if call.verb == "put" else None
    with pytest.raises(BackendUnavailable):
        await one.put("k", b"small")
    assert one.attributes.last((BUCKET, "k")) is None
    faulty.fault = lambda call: None
    assert await one.get_range("k", 4 * MIB, 4 * MIB + 9) == INDEXED[4 * MIB : 4 * MIB + 9]
    await one.close()


async def test_metadata_of_the_client_is_kept_beside_the_manifest(store: MemoryBackend):
    one = Instance(store)
    encoded = await one.encode(corpus.text(500))
    headers = [("content-type", "text/x-log"), ("x-amz-meta-color", "blue")]
    await one.writer.store(store, (BUCKET, "k"), encoded, headers)
    fields = dict(store.buckets[BUCKET]["k"].headers)
    assert fields["content-type"] == "text/x-log"
    assert fields["x-amz-meta-color"] == "blue"
    assert fields["x-amz-meta-s4-codec"] == "cpu-zstd"
    await one.close()


async def test_small_writes_of_what_is_known_cost_one_request_each(store: MemoryBackend):
    counting = CountingBackend(store)
    one = Instance(counting)
    for data in (b"first", b"second", b"third"):
        await one.put("k", data)
    await one.close()
    assert [call.verb for call in counting.calls] == ["put", "put", "put"]
    assert await Instance(store).get("k") == b"third"


class Unconditional(CountingBackend):
    """A store that knows no conditional writes."""

    async def put(self, bucket: str, key: str, body: Body, headers: HeaderList = ()) -> Head:
        if any(name.startswith("if-") for name, _ in headers):
            self.refused += 1
            raise BackendAnswer(501, "NotImplemented")
        return await super().put(bucket, key, body, headers)

    refused = 0


async def test_a_store_without_conditional_writes_is_asked_less_and_less(store: MemoryBackend):
    plain = Unconditional(store)
    one = Instance(plain)
    world.put_sidecar(store, "k7", b"stale")
    for number in range(100):
        await one.put(f"k{number}", b"small")
    await one.close()
    assert plain.count("put") == 100
    assert plain.refused < 30
    assert names(store) == sorted(f"k{number}" for number in range(100))


class Credulous(CountingBackend):
    """A store that takes conditions and ignores them."""

    conditions = 0

    async def put(self, bucket: str, key: str, body: Body, headers: HeaderList = ()) -> Head:
        kept = [(name, text) for name, text in headers if not name.startswith("if-")]
        if not key.startswith(keys.PARTS_PREFIX):
            self.conditions += len(headers) - len(kept)
        return await super().put(bucket, key, body, kept)


@pytest.mark.parametrize("declared", [None, False])
async def test_a_stores_yes_that_means_nothing_leaves_no_stale_sidecar(
    store: MemoryBackend, declared: bool | None
):
    one = Instance(Credulous(store), conditional_writes=declared)
    other = Instance(store)
    await one.put("first", b"small")
    for key in ("seen", "new"):
        if key == "seen":
            await one.put(key, b"small")
        await other.put(key, INDEXED)
        await one.put(key, b"small again")
    await one.sidecars.removals.flush()
    assert names(store) == ["first", "new", "seen"]
    assert one.backend.conditions == 0  # type: ignore[attr-defined]
    await one.close()
    await other.close()


async def test_small_writes_ask_once_the_store_is_known_to_be_honest(store: MemoryBackend):
    counting = CountingBackend(store)
    one = Instance(counting, conditional_writes=None)
    await one.put("k", b"first")
    assert names(store) == ["k"]
    await one.sidecars.removals.flush()
    counting.calls.clear()
    for data in (b"second", b"third"):
        await one.put("k", data)
    await one.close()
    assert [call.verb for call in counting.calls] == ["put", "put"]


async def test_a_store_that_cannot_be_probed_is_written_to_without_questions(store: MemoryBackend):
    faulty = FaultyBackend(store)
    faulty.fault = lambda call: (
        BackendAnswer(403, "AccessDenied") if call.key.startswith(keys.PARTS_PREFIX) else None
    )
    one = Instance(faulty, conditional_writes=None)
    for data in (b"first", b"second", b"third"):
        await one.put("k", data)
    await one.close()
    probes = [call for call in faulty.calls if call.key.startswith(keys.PARTS_PREFIX)]
    assert sum(call.verb == "put" for call in probes) == 1
    assert sum(call.verb == "put" for call in faulty.calls) == 4
    assert await Instance(store).get("k") == b"third"


async def test_storing_asks_for_two_requests_at_most(store: MemoryBackend):
    counting = CountingBackend(store)
    one = Instance(counting)
    await one.put("large", INDEXED)
    assert [(c.verb, c.key) for c in counting.calls] == [("put", "large"), ("put", "large.s4index")]
    counting.calls.clear()
    await one.put("small", b"x")
    assert [call.verb for call in counting.calls] == ["put"]
    await one.close()


KEYS = ("a", "a/b &+%\U0001f5dc")
BODIES = {
    "empty": b"",
    "tiny": b"x",
    "small": corpus.text(3000),
    "noise": corpus.noise(70_000),
    "frame": corpus.text(400_000, 2),
    "large": corpus.text(4 * MIB + 9, 3),
    "larger": corpus.text(9 * MIB, 4),
    "mixed": corpus.text(4 * MIB, 5) + corpus.noise(MIB),
}


class Gateways(RuleBasedStateMachine):
    """Two gateways over one store behave as a dictionary, whichever of them is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = MemoryBackend.with_buckets(BUCKET)
        self.instances = [Instance(self.store), Instance(self.store)]
        self.model: dict[str, bytes] = {}
        self.source = random.Random(1)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    which = st.integers(0, 1)

    @rule(
        key=st.sampled_from(KEYS),
        bodies=st.lists(st.tuples(st.sampled_from(sorted(BODIES)), which), min_size=1, max_size=3),
        flush=st.booleans(),
    )
    def put(self, key: str, bodies: list[tuple[str, int]], flush: bool) -> None:
        for body, which in bodies:
            self.run(self.instances[which].put(key, BODIES[body]))
            self.model[key] = BODIES[body]
        if flush:
            self.flush()

    @rule(key=st.sampled_from(KEYS), which=which, flush=st.booleans())
    def delete(self, key: str, which: int, flush: bool) -> None:
        self.run(self.instances[which].writer.delete(self.store, (BUCKET, key)))
        self.model.pop(key, None)
        if flush:
            self.flush()

    @rule(key=st.sampled_from(KEYS))
    def write_behind_both(self, key: str) -> None:
        world.put_stored(self.store, key, b"foreign")
        self.model[key] = b"foreign"

    @rule(key=st.sampled_from(KEYS), which=which)
    def read(self, key: str, which: int) -> None:
        instance = self.instances[which]
        if key in self.model:
            assert self.run(instance.get(key)) == self.model[key]
            return
        with pytest.raises(BackendAnswer) as caught:
            self.run(instance.get(key))
        assert caught.value.missing

    @precondition(lambda self: any(self.model.values()))
    @rule(data=st.data(), which=which)
    def read_range(self, data: st.DataObject, which: int) -> None:
        key = data.draw(st.sampled_from(sorted(k for k, body in self.model.items() if body)))
        body = self.model[key]
        edges = [edge for edge in (0, 4 * MIB, 8 * MIB, len(body) - 1) if edge < len(body)]
        start = max(0, min(data.draw(st.sampled_from(edges)) - 2, len(body) - 1))
        end = min(len(body), start + data.draw(st.sampled_from([1, 3, 5000, 5 * MIB])))
        assert self.run(self.instances[which].get_range(key, start, end)) == body[start:end]

    @rule(which=which, limit=st.sampled_from([1, 2, 1000]))
    def list(self, which: int, limit: int) -> None:
        self.run(self._list(self.instances[which], limit))

    async def _list(self, instance: Instance, limit: int) -> None:
        request, found = ListRequest(1, max_keys=limit), {}
        while True:
            page = await visible_page(request, lambda query: self.store.list(BUCKET, query))
            contents, _, _ = await instance.sizer.sized(BUCKET, page.contents)
            for entry in contents:
                found[entry.key] = (entry.size, entry.etag)
            if not page.is_truncated:
                break
            request = ListRequest(1, max_keys=limit, after=page.contents[-1].key)
        assert found == {
            key: (len(body), hashlib.md5(body).hexdigest()) for key, body in self.model.items()
        }

    @rule(which=which)
    def describe(self, which: int) -> None:
        instance = self.instances[which]
        for key, body in self.model.items():
            attributes = self.run(instance.reader.attributes(instance.source(key)))
            assert (attributes.size, attributes.etag) == (
                len(body),
                hashlib.md5(body).hexdigest(),
            )

    @rule(which=which)
    def restart(self, which: int) -> None:
        self.run(self.instances[which].close())
        self.instances[which] = Instance(self.store)

    @rule()
    def flush(self) -> None:
        for instance in self.instances:
            self.run(instance.sidecars.removals.flush())
        # Only a write behind both gateways may leave a sidecar that nobody knows of.
        for key in self.store.buckets[BUCKET]:
            if key.endswith(keys.SIDECAR_SUFFIX):
                body = self.model.get(key.removesuffix(keys.SIDECAR_SUFFIX))
                assert body is not None
                assert len(body) > 4 * MIB or body == b"foreign"

    @invariant()
    def budgets_are_free(self) -> None:
        assert all(instance.budget.used == 0 for instance in self.instances)

    def teardown(self) -> None:
        for instance in self.instances:
            self.run(instance.close())
        self.runner.close()


Gateways.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
)
TestGateways = Gateways.TestCase
