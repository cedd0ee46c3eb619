"""What datasets need of objects and listings, acceptance 68 to 73, 76 and 79.

What the store answers directly and what the gateway answers is compared wherever both can be asked.
"""

import hashlib
import random
import threading
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
    S3Target,
    Store,
    fetching,
    init_dataset,
    init_dataset_blocking,
)
from tests.e2e import datasets
from tests.s3store import transports
from tests.s3store.program import config
from tests.s3store.world import Order, order

pytestmark = pytest.mark.e2e

EMPTY = '"d41d8cd98f00b204e9800998ecf8427e"'


@pytest.fixture(params=["straight", "via"])
def client(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


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
    seen = {each["Key"]: each["Size"] for each in datasets.listing(via, bucket)}
    stored = {each["Key"]: each["Size"] for each in datasets.listing(straight, bucket)}
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


def names(client: Any, bucket: str, prefix: str, **options: Any) -> list[str]:
    found = datasets.listing(client, bucket, Prefix=prefix, **options)
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
    assert [each["Key"] for each in datasets.listing(via, bucket)] == keys
    part = "p/data/period=2026-03"
    expected = [key for key in keys if key.startswith(part)]
    assert [each["Key"] for each in datasets.listing(via, bucket, Prefix=part)] == expected
    page = via.list_objects_v2(Bucket=bucket, MaxKeys=7, StartAfter=f"{part}-50/x")
    assert [each["Key"] for each in page["Contents"]] == keys[351:358]
    assert page["IsTruncated"]
    datasets.empty(straight, bucket)


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
    times = [each["LastModified"] for each in datasets.listing(client, shared, Prefix=f"{key}/")]
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
    await init_dataset(via, bucket, "orders")
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
