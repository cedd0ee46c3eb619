"""Datasets through the gateway, acceptance 68 to 80: what they need of a store, they must get.

What the store answers directly and what the gateway answers is compared wherever both can be asked.
"""

import asyncio
import hashlib
import os
import random
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

from s4gateway.s3store import (
    AsyncReader,
    AsyncStore,
    Boto3Transport,
    CommitAfterTimeoutError,
    Offset,
    S3Target,
    S3TargetConfig,
    Store,
    TransportError,
    WriteError,
    fetching,
    init_dataset_blocking,
)
from s4gateway.s3store.clock import SystemClock
from tests import live
from tests.conftest import StartGateway
from tests.contracts.s3store_snapshot import SnapshotContract
from tests.contracts.s3store_stream import StreamContract
from tests.contracts.s3store_views import ViewsContract
from tests.contracts.s3store_write import WriteContract
from tests.e2e import counting, meddler, raw
from tests.e2e.test_s3store_seaweedfs import client_of, config
from tests.s3store import transports, world
from tests.s3store.world import Order, order

pytestmark = pytest.mark.e2e

EMPTY = '"d41d8cd98f00b204e9800998ecf8427e"'
SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SETTLED = 30.0  # seconds until the last commit is final and polled


@pytest.fixture(scope="module")
def via(gateway: live.Gateway) -> Iterator[Any]:
    """A dataset's client of the gateway."""
    client = client_of(gateway)
    yield client
    client.close()


@pytest.fixture(scope="module")
def straight(seaweedfs: live.Seaweedfs) -> Iterator[Any]:
    """A dataset's client of the store itself."""
    client = client_of(seaweedfs)
    yield client
    client.close()


@pytest.fixture(params=["straight", "via"])
def client(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def empty(client: Any, bucket: str) -> None:
    """Remove objects a thousand at a time."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        found = [{"Key": each["Key"]} for each in page.get("Contents", ())]
        if found:
            client.delete_objects(Bucket=bucket, Delete={"Objects": found, "Quiet": True})


@pytest.fixture(scope="module")
def shared(straight: Any, direct: Any) -> Iterator[str]:
    """A bucket for datasets and keys of their own."""
    name = live.bucket_name()
    straight.create_bucket(Bucket=name)
    yield name
    empty(straight, name)
    live.remove_bucket(direct, name)


# --- 77: the groups of tests every store must pass


class ThroughTheGateway:
    @pytest.fixture(params=["async"])
    def face(self, request: pytest.FixtureRequest) -> type[world.Face]:
        """The blocking API is the same code in another thread: one face is enough here."""
        return world.FACES[request.param]

    @pytest.fixture
    async def backing(self, via: Any, shared: str) -> AsyncIterator[world.Backing]:
        made = world.Backing.boto3(via, shared)
        yield made
        await made.transport.aclose()


class TestWrite(ThroughTheGateway, WriteContract):
    """Acceptance 77: 12 to 18, 28, 31, 34 to 37."""


class TestSnapshot(ThroughTheGateway, SnapshotContract):
    """Acceptance 77: 38 to 47."""


class TestStream(ThroughTheGateway, StreamContract):
    """Acceptance 77: 50 to 58."""


class TestViews(ThroughTheGateway, ViewsContract):
    """Acceptance 77: 60 to 62."""


def test_77_a_dataset_written_past_the_gateway_is_read_through_it(
    straight: Any, via: Any, bucket: str
):
    init_dataset_blocking(straight, bucket, "orders", commit_timeout="1s", max_clock_skew="0s")
    with Store.open(config(straight, bucket), Order) as orders:
        orders.write([order(f"s{number}", customer=f"c{number % 3}") for number in range(30)])
        expected = orders.read("*")
    with Store.open(config(via, bucket), Order) as orders:
        assert orders.read("*") == expected
        orders.write([order("more")])
        assert len(orders.read("*")) == 31


# --- 68 to 70: objects as they are


def test_68_empty_objects_are_empty_everywhere(client: Any, shared: str, key: str):
    put = client.put_object(Bucket=shared, Key=key)
    head = client.head_object(Bucket=shared, Key=key)
    got = client.get_object(Bucket=shared, Key=key)
    with got["Body"] as body:
        assert body.read() == b""
    (listed,) = client.list_objects_v2(Bucket=shared, Prefix=key)["Contents"]
    assert put["ETag"] == head["ETag"] == got["ETag"] == listed["ETag"] == EMPTY
    assert head["ContentLength"] == got["ContentLength"] == listed["Size"] == 0


def test_68_what_names_tell_stays_empty_in_the_store_and_nothing_joins_it(
    straight: Any, via: Any, bucket: str
):
    init_dataset_blocking(via, bucket, "orders")
    with Store.open(config(via, bucket), Order) as orders:
        orders.write([order(f"s{number}", customer=f"c{number}") for number in range(3)])
    seen = {each["Key"]: each["Size"] for each in listing(via, bucket)}
    stored = {each["Key"]: each["Size"] for each in listing(straight, bucket)}
    assert len(seen) == 3 * 3 + 2
    assert stored.keys() == seen.keys()
    named = [key for key in seen if key.endswith((".ref", ".commit"))]
    assert len(named) == 6
    assert {seen[key] for key in named} | {stored[key] for key in named} == {0}


@pytest.mark.parametrize("kind", ["compressible", "incompressible", "empty"])
def test_69_the_etag_is_the_md5_of_what_the_client_sent(
    client: Any, shared: str, key: str, kind: str
):
    rng = random.Random(7)
    bodies = {
        "compressible": b"the same again " * 20_000,
        "incompressible": rng.randbytes(300_000),
        "empty": b"",
    }
    body = bodies[kind]
    etag = f'"{hashlib.md5(body).hexdigest()}"'
    assert client.put_object(Bucket=shared, Key=key, Body=body)["ETag"] == etag
    head = client.head_object(Bucket=shared, Key=key)
    got = client.get_object(Bucket=shared, Key=key)
    with got["Body"] as stream:
        assert stream.read() == body
    (listed,) = client.list_objects_v2(Bucket=shared, Prefix=key)["Contents"]
    assert head["ETag"] == got["ETag"] == listed["ETag"] == etag
    assert head["ContentLength"] == listed["Size"] == len(body)


METADATA = {
    "attemptid": "0190a1b23c4d7e5f8a9bcdef01234567",
    "refmicrots": "-1710684000123456",
    "Rowcount": "42",
    "note": "a  b;c=%2F+~",
}


def test_70_metadata_of_an_empty_object_comes_back_as_it_was(client: Any, shared: str, key: str):
    client.put_object(Bucket=shared, Key=key, Metadata=METADATA)
    for answer in (
        client.head_object(Bucket=shared, Key=key),
        client.get_object(Bucket=shared, Key=key),
    ):
        found = {name.lower(): value for name, value in answer["Metadata"].items()}
        assert found == {name.lower(): value for name, value in METADATA.items()}


# --- 71: conditional writes


def conditional(client: Any, bucket: str, key: str, **more: Any) -> int:
    try:
        answer = client.put_object(Bucket=bucket, Key=key, IfNoneMatch="*", **more)
    except ClientError as error:
        answer = error.response
    status: int = answer["ResponseMetadata"]["HTTPStatusCode"]
    return status


def test_71_a_second_conditional_put_changes_nothing(client: Any, shared: str, key: str):
    assert conditional(client, shared, key, Metadata={"rowcount": "1"}) == 200
    assert conditional(client, shared, key, Metadata={"rowcount": "2"}) == 412
    found = client.head_object(Bucket=shared, Key=key)["Metadata"]
    assert {name.lower(): value for name, value in found.items()} == {"rowcount": "1"}


def test_71_of_many_at_once_exactly_one_wins(client: Any, shared: str, key: str):
    for number in range(5):
        start = threading.Barrier(20)

        def put(who: int, name: str = f"{key}-{number}", start: Any = start) -> int:
            start.wait()
            return conditional(client, shared, name, Metadata={"who": str(who)})

        with ThreadPoolExecutor(20) as pool:
            verdicts = list(pool.map(put, range(20)))
        assert sorted(verdicts) == [200] + 19 * [412]
        found = client.head_object(Bucket=shared, Key=f"{key}-{number}")["Metadata"]
        assert [verdicts.index(200)] == [int(value) for value in found.values()]


# --- 72, 76: listings

# Nothing before the only folder: SeaweedFS lists a folder where its name without the slash belongs.
AWKWARD = ["a%2Fb", "a+b", "a;b", "a=b", "a b", "aéb", "a%b", "b/b=c/d", "日本"]


def listing(client: Any, bucket: str, **options: Any) -> list[Any]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, **options)
    return [each for page in pages for each in page.get("Contents", ())]


def names(client: Any, bucket: str, prefix: str, **options: Any) -> list[str]:
    found = listing(client, bucket, Prefix=prefix, **options)
    return [each["Key"].removeprefix(prefix) for each in found]


def test_72_awkward_keys_come_back_as_they_are_in_the_order_of_their_bytes(
    client: Any, shared: str, key: str
):
    prefix = f"{key}/"
    for name in AWKWARD:
        client.put_object(Bucket=shared, Key=prefix + name)
    expected = sorted(AWKWARD, key=str.encode)
    assert names(client, shared, prefix) == expected
    assert names(client, shared, prefix, PaginationConfig={"PageSize": 2}) == expected
    for name in AWKWARD:
        after = [each for each in expected if each.encode() > name.encode()]
        assert names(client, shared, prefix, StartAfter=prefix + name) == after
    assert names(client, shared, prefix, StartAfter=f"{prefix}a.") == [
        each for each in expected if each.encode() > b"a."
    ]


@pytest.mark.parametrize("count", [1100, pytest.param(2500, marks=pytest.mark.huge)])
def test_72_prefixes_may_end_within_a_folder_and_pages_join(
    straight: Any, via: Any, bucket: str, count: int
):
    keys = [f"p/data/period=2026-{n // 100:02d}-{n % 100:02d}/x" for n in range(count)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: straight.put_object(Bucket=bucket, Key=key), keys))
    assert [each["Key"] for each in listing(via, bucket)] == keys
    part = "p/data/period=2026-03"
    expected = [key for key in keys if key.startswith(part)]
    assert [each["Key"] for each in listing(via, bucket, Prefix=part)] == expected
    page = via.list_objects_v2(Bucket=bucket, MaxKeys=7, StartAfter=f"{part}-50/x")
    assert [each["Key"] for each in page["Contents"]] == keys[351:358]
    assert page["IsTruncated"]
    empty(straight, bucket)


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.huge)])
def test_72_what_was_put_is_in_the_very_next_listing(via: Any, shared: str, key: str, count: int):
    for number in range(count):
        name = f"{key}/{number:03d}"
        via.put_object(Bucket=shared, Key=name)
        (last,) = via.list_objects_v2(
            Bucket=shared, Prefix=f"{key}/", StartAfter=f"{key}/{number - 1:03d}" if number else ""
        )["Contents"]
        assert last["Key"] == name
        assert via.head_object(Bucket=shared, Key=name)["ContentLength"] == 0


def test_76_the_time_of_an_object_never_goes_back(client: Any, shared: str, key: str):
    for number in range(30):
        client.put_object(Bucket=shared, Key=f"{key}/{number:02d}", Body=b"text " * number * 50)
    times = [each["LastModified"] for each in listing(client, shared, Prefix=f"{key}/")]
    assert times == sorted(times)
    heads = [
        client.head_object(Bucket=shared, Key=f"{key}/{number:02d}")["LastModified"]
        for number in (0, 29)
    ]
    assert heads == [times[0].replace(microsecond=0), times[29].replace(microsecond=0)]


# --- 73, 79: data files


def rows(count: int = 60_000) -> pa.Table:
    return pa.table(
        {
            "period": ["2026-03"] * count,
            "customer": ["abc"] * count,
            "sku": [f"s{number % 50}" for number in range(count)],
            "text": [f"line {number * 7919 % 100_003} of many" for number in range(count)],
        }
    )


@dataclass(frozen=True)
class Narrow:
    sku: str


def test_73_ranges_of_a_compressed_object_are_ranges_of_the_original(
    straight: Any, via: Any, shared: str, key: str
):
    body = b"".join(b"row %d of a very compressible table\n" % number for number in range(60_000))
    via.put_object(Bucket=shared, Key=key, Body=body)
    assert straight.head_object(Bucket=shared, Key=key)["ContentLength"] < len(body) / 2
    size = len(body)
    cases = {
        "bytes=0-99": (0, 100),
        f"bytes={size // 2}-{size // 2 + 70_000}": (size // 2, size // 2 + 70_001),
        "bytes=-65536": (size - 65536, size),
        f"bytes={size - 10}-": (size - 10, size),
    }
    for wanted, (start, end) in cases.items():
        answer = via.get_object(Bucket=shared, Key=key, Range=wanted)
        with answer["Body"] as stream:
            assert stream.read() == body[start:end]
        assert answer["ContentRange"] == f"bytes {start}-{end - 1}/{size}"
    with pytest.raises(ClientError) as raised:
        via.get_object(Bucket=shared, Key=key, Range=f"bytes={size}-")
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 416


async def test_73_a_narrow_read_in_parts_gives_what_a_full_read_gives(
    straight: Any, via: Any, bucket: str
):
    table = rows()
    await _seed(via, bucket)
    async with await AsyncStore.open(
        config(via, bucket), table.schema, compression="uncompressed"
    ) as store:
        (result,) = await store.write(table)
        (file,) = await store.committed_files("*")
        assert file.size > fetching.WHOLE
        stored = straight.head_object(Bucket=bucket, Key=result.data_path)["ContentLength"]
        assert stored < file.size  # the gateway has compressed it
        counted = transports.ScriptedTransport(Boto3Transport(via, bucket, workers=4))
        async with await S3Target.open(config(counted, bucket)) as narrow:
            reader = AsyncReader(narrow, Narrow)
            found = await reader.read_table("*")
        await counted.aclose()
        assert found.column("sku").to_pylist() == table.column("sku").to_pylist()
        parts = [each.details for each in counted.requests if each.key == result.data_path]
        assert parts
        assert sum(each["length"] for each in parts) < file.size / 2


@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", "uncompressed"])
def test_79_data_files_come_back_as_they_were_and_take_no_more_room(
    straight: Any, via: Any, bucket: str, codec: str, record_property: Any
):
    table = rows(20_000)
    sent: dict[str, str] = {}

    def note(params: Any, **_: Any) -> None:
        key = params["url_path"].split("/", 2)[2]
        body = params["body"]
        content = body if isinstance(body, bytes) else body.read() if body else b""
        if hasattr(body, "seek"):
            body.seek(0)
        sent[key] = hashlib.sha256(content).hexdigest()

    init_dataset_blocking(via, bucket, "orders")
    via.meta.events.register("before-call.s3.PutObject", note)
    try:
        with Store.open(config(via, bucket), table.schema, compression=codec) as store:
            (result,) = store.write(table)
            assert store.read_table("*") == table
    finally:
        via.meta.events.unregister("before-call.s3.PutObject", note)
    with via.get_object(Bucket=bucket, Key=result.data_path)["Body"] as stream:
        body = stream.read()
    assert [digest for key, digest in sent.items() if key.endswith(".parquet")] == [
        hashlib.sha256(body).hexdigest()
    ]
    stored = straight.head_object(Bucket=bucket, Key=result.data_path)["ContentLength"]
    record_property("stored / original", f"{stored / len(body):.3f}")
    assert stored <= len(body) + 512
    if codec == "uncompressed":
        assert stored < len(body) / 2


# --- 74, 75: the protocol


def test_74_a_client_that_waits_for_100_gets_it_before_its_body(
    gateway: live.Gateway, shared: str, key: str
):
    request = raw.plain(gateway, "PUT", raw.path(shared, key), {"Expect": "100-continue"}, b"abc")
    with raw.Connection(gateway) as connection:
        connection.send(request.head)
        assert connection.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"abc")
        assert connection.answer("PUT").status == 200
    assert raw.ask(gateway, "GET", raw.path(shared, key)).body == b"abc"


def test_75_a_signed_header_nobody_knows_is_accepted_and_its_signature_counts(
    gateway: live.Gateway, shared: str, key: str
):
    header = {"Consistency-Control": "strong-global"}
    for method, body in (("PUT", b"abc"), ("HEAD", None), ("GET", None)):
        request = raw.plain(gateway, method, raw.path(shared, key), header, body)
        assert "consistency-control" in request.headers["Authorization"]
        assert raw.exchange(gateway, request).status == 200
        changed = request.with_headers(**{"Consistency-Control": "available"})
        assert raw.exchange(gateway, changed).status == 403


@pytest.mark.parametrize("mode", [raw.UNSIGNED_CHUNKS_TRAILER, raw.SIGNED_CHUNKS_TRAILER])
def test_75_chunks_with_a_trailing_checksum_are_stored_without_their_framing(
    gateway: live.Gateway, straight: Any, shared: str, key: str, mode: str
):
    body = random.Random(5).randbytes(200_000)
    trailers = {"x-amz-checksum-crc32": raw.checksum("crc32", body)}
    request = raw.put(gateway, raw.path(shared, key), body, mode, trailers=trailers)
    assert raw.exchange(gateway, request).status == 200
    assert raw.ask(gateway, "GET", raw.path(shared, key)).body == body
    with straight.get_object(Bucket=shared, Key=key)["Body"] as stream:
        assert b";chunk-signature=" not in stream.read()


# --- 78, 80: what goes wrong in between


class Later(SystemClock):
    """A reader's clock after the settle window."""

    def now_us(self) -> int:
        return super().now_us() + 120_000_000


async def _seed(client: Any, bucket: str, timeout: str = "60s") -> None:
    await asyncio.to_thread(
        init_dataset_blocking, client, bucket, "orders", commit_timeout=timeout, max_clock_skew="0s"
    )


async def test_78_a_gateway_that_restarts_before_the_commit_is_ridden_out(
    start_gateway: StartGateway, straight: Any, bucket: str
):
    await _seed(straight, bucket)
    with start_gateway() as first, start_gateway() as second, counting.between(first) as wire:
        client = client_of(wire.endpoint)
        inner = Boto3Transport(client, bucket, workers=8)
        scripted = transports.ScriptedTransport(inner)
        refused = []

        def restart() -> None:
            """The gateway dies; it is up again for the third try."""
            if not refused:
                first.kill()
            elif len(refused) == 2:
                wire.upstream = second
            refused.append(1)

        scripted.script("put", ".commit", transports.calls(restart), times=5)
        async with await AsyncStore.open(config(scripted, bucket), Order) as orders:
            (result,) = await orders.write([order("a")], token="t")
            assert len(refused) == 3
            assert await orders.write([order("a")], token="t") == [result]
            assert await orders.read("*") == [order("a")]
        later = S3TargetConfig(
            bucket=bucket,
            prefix="orders",
            client=scripted,
            partition_key_parts=world.PARTS,
            clock=Later(),
        )
        async with await AsyncStore.open(later, Order) as orders:
            page = await orders.poll()
            assert [entry.offset for entry in page.entries] == [result.offset]
            assert (await orders.poll(page.next_offset)).entries == []
        await inner.aclose()
        client.close()


class Soak:
    """Eight writers, each of partitions of its own, and four pollers."""

    def __init__(self, target: S3TargetConfig) -> None:
        self._config = target
        self._over = asyncio.get_running_loop().time() + SOAK_SECONDS
        self.committed: dict[str, set[tuple[str, int]]] = {}
        self.polled: list[list[tuple[str, int]]] = [[] for _ in range(4)]
        self.offsets: list[list[str]] = [[""] for _ in range(4)]

    @property
    def is_over(self) -> bool:
        return asyncio.get_running_loop().time() >= self._over

    async def run(self) -> None:
        async with (
            await AsyncStore.open(
                self._config, Order, entity_key="sku", version="version"
            ) as store,
            asyncio.TaskGroup() as group,
        ):
            for number in range(8):
                group.create_task(self._write(store, f"w{number}"))
            for number in range(4):
                group.create_task(self._poll(store, number))

    async def _write(self, store: AsyncStore[Order], who: str) -> None:
        version = 0
        while not self.is_over:
            version += 1
            row = order(f"{who}-{version}", version, customer=who)
            token = f"{who}-{version}"
            while True:
                try:
                    await store.write([row], token=token)
                except CommitAfterTimeoutError as late:
                    await store.restamp_ref(late.result)
                except WriteError:
                    continue  # the same token again
                break
            self.committed.setdefault(who, set()).add((row.sku, version))

    async def _poll(self, store: AsyncStore[Order], number: int) -> None:
        until = None
        while True:
            if self.is_over and until is None:
                until = self._over + SETTLED
            try:
                page = await store.poll_records(Offset(self.offsets[number][-1]), 200)
            except TransportError:
                continue
            self.polled[number] += [(row.sku, row.version) for row in page.records]
            self.offsets[number].append(page.next_offset)
            if until is not None and asyncio.get_running_loop().time() > until:
                return
            await asyncio.sleep(0.5)


@pytest.mark.huge
async def test_80_pollers_see_what_writers_committed_whatever_the_wire_does(
    gateway: live.Gateway, straight: Any, bucket: str
):
    """`SOAK_SECONDS` in the environment makes it shorter than ten minutes."""
    await _seed(straight, bucket, "8s")
    rng = random.Random(80)

    async def unreliable(exchange: Any, ask: meddler.Ask) -> None:
        chance = rng.random()
        if chance < 0.02:
            await exchange.answer(503)
        elif chance < 0.03:
            exchange.reset()
        elif chance < 0.04:
            await meddler.reset(exchange, ask)
        else:
            await exchange.send((await ask()).wire)

    with meddler.between(gateway) as between:
        client = client_of(between.endpoint)
        with between.misbehaving(unreliable, lambda request: b"_config" not in request.target):
            soak = Soak(config(client, bucket))
            await soak.run()
        client.close()
    expected = set().union(*soak.committed.values())
    assert len(soak.committed) == 8
    for polled, offsets in zip(soak.polled, soak.offsets, strict=True):
        assert sorted(polled) == sorted(expected)  # each once
        assert offsets == sorted(offsets)
