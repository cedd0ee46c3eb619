"""fsspec's own tests of a filesystem, as far as this one goes; over s3fs they run in tests/e2e.

Left out: the tests of copying (AbstractCopyTests), which is refused. The tests of get and put clean
up behind themselves, and what they remove is removed from the filesystem below, because removing
is refused, too.
"""

from typing import Any

import pytest
from fsspec.tests import abstract

from s4gateway.s4fs import S4FileSystem
from tests.s4fs.bucket import BUCKET, Bucket


class Removing(S4FileSystem):
    """The filesystem under test, and a way to clean up."""

    cachable = False

    def rm(self, path: Any, *args: Any, **kwargs: Any) -> None:
        self.fs.rm(path, *args, **kwargs)


class S4Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self) -> S4FileSystem:
        return Removing(fs=Bucket(), write_enabled=True)

    @pytest.fixture
    def fs_path(self) -> str:
        return f"/{BUCKET}"

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestGet(abstract.AbstractGetTests, S4Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, S4Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, S4Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, S4Fixtures):
    pass
