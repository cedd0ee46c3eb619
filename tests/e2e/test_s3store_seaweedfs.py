"""Datasets on a real S3 server: the groups of tests every store must pass, and what needs reality.

Acceptance 11, 30 and 38 with other processes; the groups of contracts.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from s4gateway.s3store import AsyncStore, Store, init_dataset
from tests import live
from tests.contracts.s3store_backfill import BackfillContract
from tests.contracts.s3store_costs import CostsContract
from tests.contracts.s3store_interop import InteropContract
from tests.contracts.s3store_snapshot import SnapshotContract
from tests.contracts.s3store_stream import StreamContract
from tests.contracts.s3store_views import ViewsContract
from tests.contracts.s3store_write import WriteContract
from tests.e2e import datasets
from tests.s3store import world
from tests.s3store.program import config
from tests.s3store.world import Order, order

pytestmark = pytest.mark.e2e


class OnSeaweedfs:
    @pytest.fixture
    async def backing(self, straight: Any, shared: str) -> AsyncIterator[world.Backing]:
        made = world.Backing.boto3(straight, shared)
        yield made
        await made.transport.aclose()


class TestWrite(OnSeaweedfs, WriteContract):
    """Acceptance 12 to 18, 28, 31, 34 to 37."""


class TestSnapshot(OnSeaweedfs, SnapshotContract):
    """Acceptance 38 to 47."""


class TestStream(OnSeaweedfs, StreamContract):
    """Acceptance 50 to 58."""


class OneFace(OnSeaweedfs):
    """Groups that run through both faces over moto or memory."""

    @pytest.fixture(params=["async"])
    def face(self, request: pytest.FixtureRequest) -> type[world.Face]:
        return world.FACES[request.param]


class TestViews(OneFace, ViewsContract):
    """Acceptance 60 to 62."""


class TestBackfill(OneFace, BackfillContract):
    """Acceptance 63."""


class TestCosts(OneFace, CostsContract):
    """What each call costs in requests."""


class TestInterop(OnSeaweedfs, InteropContract):
    """Acceptance 64."""


WRITER = """
import json, sys
from s4gateway.s3store import Store
from tests.s3store.program import client_with, config
from tests.s3store.world import Order, order
ask = json.loads(sys.stdin.readline())
client = client_with(ask["url"], ask["key"], ask["secret"])
with Store.open(config(client, ask["bucket"]), Order) as orders:
    print("open", flush=True)
    for line in sys.stdin:
        customer, skus = json.loads(line)
        orders.write([order(sku, customer=customer) for sku in skus])
        print("written", flush=True)
"""


@pytest.fixture
def other_process(seaweedfs: live.Seaweedfs, bucket: str) -> Iterator[Callable[..., None]]:
    """`write(customer, skus)` in another process that has the dataset open; returns afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=live.ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout
    started: list[bool] = []

    def say(message: Any, answer: str) -> None:
        stdin.write(json.dumps(message) + "\n")
        stdin.flush()
        assert stdout.readline() == f"{answer}\n"

    def write(customer: str, skus: list[str]) -> None:
        if not started:
            say(datasets.ask_of(seaweedfs, bucket), "open")
            started.append(True)
        say((customer, skus), "written")

    with process:
        yield write
        stdin.close()


async def test_38_what_another_process_wrote_is_read_at_once(
    straight: Any, bucket: str, other_process: Callable[..., None]
):
    await init_dataset(straight, bucket, "orders")
    rng = random.Random(1)
    written: dict[str, set[str]] = {f"c{number}": set() for number in range(20)}
    async with await AsyncStore.open(config(straight, bucket), Order) as orders:
        for number in range(200):
            customer = f"c{number % 20}"
            skus = [f"s{number}-{each}" for each in range(rng.randrange(1, 4))]
            await asyncio.to_thread(other_process, customer, skus)
            written[customer].update(skus)
            read = await orders.read({"customer": customer, "period": "2026-03"})
            assert {row.sku for row in read} == written[customer]
        everything = {row.sku for row in await orders.read("*")}
        assert everything == set().union(*written.values())


async def test_11_many_seeding_at_once_leave_one_consistent_pair(straight: Any, bucket: str):
    async def seed(number: int) -> bool:
        try:
            await init_dataset(
                straight,
                bucket,
                "orders",
                commit_timeout=f"{number}s",
                max_clock_skew=f"{number}ms",
            )
        except ValueError:
            return False
        return True

    won = await asyncio.gather(*(seed(number) for number in range(10, 18)))
    assert won.count(True) == 1
    number = 10 + won.index(True)
    async with await AsyncStore.open(config(straight, bucket), Order) as orders:
        assert orders.target.commit_timeout.total_seconds() == number
        assert orders.target.max_clock_skew.total_seconds() == number / 1000


INTERRUPTED = """
import json, os, signal, sys
from s4gateway.s3store import Store
from tests.s3store.program import client_with, config
from tests.s3store.world import KEY, Order, order
ask = json.loads(sys.argv[1])
client = client_with(ask["url"], ask["key"], ask["secret"])

def interrupt(params, **_):
    if ask["step"] in params["url_path"]:
        os.kill(os.getpid(), signal.SIGINT)

client.meta.events.register("before-call.s3.PutObject", interrupt)
with Store.open(config(client, ask["bucket"]), Order) as orders:
    try:
        orders.write_with_key(KEY, [order("a")], token="t")
    except KeyboardInterrupt:
        print("interrupted", orders.lookup_commit(KEY, "t") is not None)
"""


@pytest.mark.parametrize(
    ("step", "committed"), [(".parquet", None), (".ref", True), (".commit", True)]
)
def test_30_control_c_waits_for_a_commit_that_has_begun(
    seaweedfs: live.Seaweedfs, straight: Any, bucket: str, step: str, committed: bool | None
):
    with asyncio.Runner() as runner:
        runner.run(init_dataset(straight, bucket, "orders"))
    ask = datasets.ask_of(seaweedfs, bucket, step=step)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, json.dumps(ask)],
        capture_output=True,
        text=True,
        cwd=live.ROOT,
        timeout=300,
        check=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    said = done.stdout.split()
    assert said[0] == "interrupted"
    with Store.open(config(straight, bucket), Order) as orders:
        visible = orders.read("*") == [order("a")]
        assert visible == (said[1] == "True")
        if committed is not None:
            assert visible is committed
