"""What calls cost over a moto server; over real stores: tests/e2e/test_s3store_*.py."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contracts.s3store_costs import CostsContract
from tests.s3store import world


class TestCostsOverMoto(CostsContract):
    @pytest.fixture
    async def backing(self, moto: Any) -> AsyncIterator[world.Backing]:
        made = world.Backing.boto3(moto.client, moto.bucket)
        yield made
        await made.transport.aclose()
