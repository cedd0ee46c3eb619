"""Snapshot reads over a store in memory; the same over real ones: tests/e2e/test_s3store_*.py."""

import pytest

from tests.contracts.s3store_snapshot import SnapshotContract
from tests.s3store import world


class TestSnapshotOverMemory(SnapshotContract):
    @pytest.fixture
    def backing(self) -> world.Backing:
        return world.Backing.memory()
