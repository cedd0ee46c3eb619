"""Backfills over a store in memory; the same over real ones: tests/e2e/test_s3store_*.py."""

import pytest

from tests.contracts.s3store_backfill import BackfillContract
from tests.s3store import world


class TestBackfillOverMemory(BackfillContract):
    @pytest.fixture
    def backing(self) -> world.Backing:
        return world.Backing.memory()
