"""Writing through the boto3 adapter. The same over other stores: tests/e2e/test_s3store_*.py."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contracts.s3store_write import WriteContract
from tests.s3store import world


class TestWriteOverMoto(WriteContract):
    @pytest.fixture
    async def backing(self, moto: Any) -> AsyncIterator[world.Backing]:
        made = world.Backing.boto3(moto.client, moto.bucket)
        yield made
        await made.transport.aclose()
