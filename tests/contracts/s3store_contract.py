"""What a dataset must do over any store: groups of tests that each store's test class inherits.

A subclass gives the fixture `backing`, a `tests.s3store.world.Backing`. Every test runs through the
asynchronous and the blocking API. The number in the name of a test is that of the acceptance
criterion it checks.
"""

import pytest

from tests.s3store import world


class DatasetContract:
    """The fixtures of every group."""

    @pytest.fixture
    def backing(self) -> world.Backing:
        raise NotImplementedError

    @pytest.fixture(params=world.FACES)
    def face(self, request: pytest.FixtureRequest) -> type[world.Face]:
        return world.FACES[request.param]

    @pytest.fixture
    async def dataset(self, backing: world.Backing, face: type[world.Face]) -> world.World:
        """A seeded dataset: commit-timeout 1 s, no skew."""
        made = world.World(backing, face)
        await made.seed()
        return made
