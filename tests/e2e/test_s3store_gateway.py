"""Datasets through the gateway, acceptance 77: what every store must do, the gateway does."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from s4gateway.s3store import Store, init_dataset_blocking
from tests.contracts.s3store_backfill import BackfillContract
from tests.contracts.s3store_costs import CostsContract
from tests.contracts.s3store_snapshot import SnapshotContract
from tests.contracts.s3store_stream import StreamContract
from tests.contracts.s3store_views import ViewsContract
from tests.contracts.s3store_write import WriteContract
from tests.s3store import world
from tests.s3store.program import config
from tests.s3store.world import Order, order

pytestmark = pytest.mark.e2e


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


class TestBackfill(ThroughTheGateway, BackfillContract):
    """Acceptance 77: 63."""


class TestCosts(ThroughTheGateway, CostsContract):
    """Acceptance 77: what each call costs in requests."""


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
