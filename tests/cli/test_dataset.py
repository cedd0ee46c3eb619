"""`s4 dataset`: a dataset made, looked into, filled and checked over a moto server."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from s4gateway.s3store import MemoryTransport, S3TargetConfig, Store, init_dataset, new_client
from s4gateway.tools import dataset as tool
from tests.cli.test_main import s4
from tests.s3store import world
from tests.s3store.world import KEY, Order, order

pytestmark = pytest.mark.slow
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket for the test, and credentials that the command finds by itself."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("S4_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("S4_REGION", "us-east-1")
    found = new_client(endpoint, region_name="us-east-1")
    found.create_bucket(Bucket="bucket")
    yield found
    for each in found.list_objects_v2(Bucket="bucket").get("Contents", ()):
        found.delete_object(Bucket="bucket", Key=each["Key"])
    found.delete_bucket(Bucket="bucket")
    found.close()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], client: Any) -> Run:
    def command(*arguments: str) -> tuple[int, str, str]:
        return s4(capsys, "dataset", *arguments)

    return command


@pytest.fixture
def orders(run: Run, client: Any) -> Iterator[Store[Order]]:
    """A dataset with nothing in it."""
    status, _, err = run(
        "init", "bucket/orders", "--commit-timeout", "10s", "--max-clock-skew", "0s"
    )
    assert (status, err) == (0, "")
    config = S3TargetConfig(
        bucket="bucket", prefix="orders", client=client, partition_key_parts=world.PARTS
    )
    with Store.open(config, Order) as store:
        yield store


def test_init_may_be_repeated_but_not_with_other_durations(run: Run):
    assert run("init", "bucket/orders")[0] == 0
    status, out, _ = run("init", "bucket/orders")
    assert (status, out) == (0, "bucket/orders: commit-timeout 15s, max-clock-skew 1s\n")
    status, out, err = run("init", "bucket/orders", "--commit-timeout", "20s")
    assert out == ""
    assert status == 2
    assert "bucket/orders/_config/commit-timeout" in err


def test_partitions_are_listed_with_their_committed_files(run: Run, orders: Store[Order]):
    orders.write([order("a"), order("b", customer="x")])
    orders.write([order("c")])
    status, out, _ = run("ls", "bucket/orders")
    assert status == 0
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [
        [KEY, "2"],
        ["period=2026-03/customer=x", "1"],
    ]
    assert lines[3].startswith("2 partitions, 3 files, ")
    found = json.loads(run("ls", "bucket/orders", "*/customer=x", "--format", "json")[1])
    assert [each["key"] for each in found["partitions"]] == ["period=2026-03/customer=x"]


def test_an_empty_dataset_has_nothing_to_list_or_fill(run: Run, orders: Store[Order]):
    assert run("ls", "bucket/orders")[1].splitlines()[-1] == "0 partitions, 0 files, 0 B"
    assert run("tail", "bucket/orders")[:2] == (0, "")
    status, out, _ = run("backfill", "bucket/orders", "--view", "v", "--column", "sku")
    assert (status, out) == (0, "view v: 0 markers stored for 0 rows in 0 files\n")


def test_the_stream_is_printed_entry_by_entry(run: Run, client: Any):
    run("init", "bucket/orders", "--commit-timeout", "1ms", "--max-clock-skew", "0s")
    config = S3TargetConfig(
        bucket="bucket",
        prefix="orders",
        client=client,
        partition_key_parts=world.PARTS,
        clock=world.ManualClock(),
    )
    config.clock.us = 1_700_000_000_000_000  # type: ignore[attr-defined]
    with Store.open(config, Order) as store:
        written = [store.write([order(f"s{n}")] * n)[0] for n in (1, 2)]
    status, out, _ = run("tail", "bucket/orders")
    assert status == 0
    assert [line.split()[1] for line in out.splitlines()] == ["1", "2"]
    entries = [
        json.loads(line)
        for line in run("tail", "bucket/orders", "--format", "json")[1].splitlines()
    ]
    assert [each["offset"] for each in entries] == [each.offset for each in written]
    assert run("tail", "bucket/orders", "--since", "1h")[:2] == (0, "")


def test_a_view_is_filled_from_the_columns_of_the_files(
    run: Run, orders: Store[Order], client: Any
):
    orders.write([order("a"), order("b"), order("a", customer="x")])
    view = ("--view", "sku_idx", "--column", "sku", "--column", "customer")
    status, out, _ = run("backfill", "bucket/orders", *view)
    assert (status, out) == (0, "view sku_idx: 3 markers stored for 3 rows in 2 files\n")
    found = client.list_objects_v2(Bucket="bucket", Prefix="orders/_matview/")["Contents"]
    assert [each["Key"] for each in found] == [
        f"orders/_matview/sku_idx/sku={sku}/customer={customer}/m.matview"
        for sku, customer in (("a", "abc"), ("a", "x"), ("b", "abc"))
    ]
    again = run("backfill", "bucket/orders", *view, "--skip-existing", "--format", "json")[1]
    assert json.loads(again)["stats"] == {"data_objects": 2, "records": 3, "markers": 0}
    early = run("backfill", "bucket/orders", *view, "--until", "2020-01-01")[1]
    assert "0 files" in early


WRONG = [
    (("ls", "bucket"), 2, "give BUCKET/PREFIX"),
    (("ls", "bucket/nothing"), 1, "bucket/nothing/_config"),
    (("ls", "bucket/orders", "sku=a"), 2, "pattern 0"),
    (("ls", "absent/orders"), 1, "NoSuchBucket"),
    (("init", "bucket/orders", "--commit-timeout", "5"), 2, "commit_timeout"),
    (("backfill", "bucket/orders", "--view", "v", "--column", "no"), 2, "no column 'no'"),
    (("backfill", "bucket/orders", "--view", "v", "--column", "version"), 2, "neither text"),
    (("backfill", "bucket/orders", "--view", "a/b", "--column", "sku"), 2, "view 'a/b'"),
    (("tail", "bucket/orders", "--since", "soon"), 2, "is no duration"),
]


def test_what_is_wrong_is_said_in_one_line(run: Run, orders: Store[Order]):
    orders.write([order("a")])
    for arguments, status, said in WRONG:
        found, out, err = run(*arguments)
        assert (found, out) == (status, "")
        first, *rest = err.splitlines()
        assert said in first
        assert rest in ([], [f"Try 's4 dataset {arguments[0]} --help'."])


def test_a_sound_dataset_with_leftovers_is_told_as_such(
    run: Run, orders: Store[Order], client: Any
):
    (result,) = orders.write([order("a")])
    orders.write_with_key(KEY, [order("b")], token="t")
    client.delete_object(Bucket="bucket", Key=f"orders/data/{KEY}/t.commit")
    client.put_object(Bucket="bucket", Key="orders/data/notes.txt")
    client.put_object(Bucket="bucket", Key="orders/_matview/v/sku=a/m.matview")
    status, out, _ = run("doctor", "bucket/orders")
    assert status == 0
    for line in (
        "timing: commit within 10 s, clocks 0 s",
        "partitioned by: period, customer",
        "2 data files, 1 commits, 2 stream entries",
        "view v: 1 markers",
        "1 objects that are not the dataset's, as orders/data/notes.txt",
        "The dataset is sound.",
    ):
        assert line in out.splitlines()
    assert "1 uncommitted data files" in out
    client.delete_object(Bucket="bucket", Key=result.data_path)
    client.put_object(Bucket="bucket", Key="orders/_ref/nonsense.ref")
    status, out, _ = run("doctor", "bucket/orders", "--format", "json")
    assert status == 1
    found = json.loads(out)
    assert found["without_data"]["count"] == found["malformed_refs"]["count"] == 1


async def test_several_attempts_of_one_token_are_counted_once():
    store = MemoryTransport()
    await init_dataset(store, "bucket", "p")
    for attempt in ("0" * 32, "1" * 32):
        await store.put(f"p/data/a=b/t-{attempt}.parquet", b"")
    await store.put("p/data/a=b/t.commit", b"")
    async with tool.opened(store, "bucket", "p") as target:
        found = await tool.examine(target)
    assert (found.data_files, found.several_attempts.count) == (2, 1)
    assert found.several_attempts.examples == ["p/data/a=b/t.commit"]
    assert found.is_sound


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("pyarrow", "boto3", "botocore"):
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Absent())
from s4gateway.cli.main import main
main(sys.argv[1:])
"""


def test_without_the_extra_help_works_and_a_command_says_what_to_install():
    def s4_without(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", WITHOUT, "dataset", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert s4_without("ls", "--help").returncode == 0
    done = s4_without("ls", "bucket/orders")
    assert done.returncode == 1
    assert done.stderr.startswith("s4: datasets need")
    assert "pip install 's4gateway[s3store]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
