"""Whether a Parquet file is part of a table whose metadata say how long it is.

Iceberg, Delta and Hudi write down the length of each data file, and where its row groups begin.
Their readers look for the footer where it was, so a file that became shorter is a broken table.
Rule: a table is known by its metadata in a folder above the file; what is known is kept, so that a
folder is asked about once. https://iceberg.apache.org/spec/#data-file-fields
https://github.com/delta-io/delta/blob/master/PROTOCOL.md#add-file-and-remove-file
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from s4gateway.backend.base import Backend, BackendProtocolError
from s4gateway.objects.cache import ObjectName
from s4gateway.s3 import query
from s4gateway.s3.documents import ListPage
from s4gateway.s3.errors import S3Error

_FOLDERS: Final = 10_000  # remembered at most
# What a table has beside its data: a prefix, how many keys of it to look at, and how one ends.
_MARKS: Final = (("_delta_log/", 1, ""), (".hoodie/", 1, ""), ("metadata/", 1000, ".metadata.json"))


class Tables:
    """Which folders of a store are tables, found out as they are asked for."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def around(self, name: ObjectName) -> str:
        """The key of metadata of a table that the object seems to be of; empty without one.

        Raises BackendError.
        """
        bucket, key = name
        for folder in _folders(key):
            if found := await self._mark_in(bucket, folder):
                return found
        return ""

    async def _mark_in(self, bucket: str, folder: str) -> str:
        place = bucket, folder
        found = self._known.get(place)
        if found is None:
            found = await self._look(bucket, folder)
        self._known[place] = found
        self._known.move_to_end(place)
        if len(self._known) > _FOLDERS:
            self._known.popitem(last=False)
        return found

    async def _look(self, bucket: str, folder: str) -> str:
        for mark, count, end in _MARKS:
            asked = [
                ("encoding-type", "url"),
                ("list-type", "2"),
                ("max-keys", str(count)),
                ("prefix", folder + mark),
            ]
            answer = await self._backend.list(bucket, query.format_query(asked))
            try:
                page = ListPage.parse(answer)
            except S3Error as error:
                raise BackendProtocolError("the listing is malformed") from error
            for each in page.contents:
                if each.key.endswith(end):
                    return each.key
        return ""


def _folders(key: str) -> Iterator[str]:
    """The folders a key is in, the bucket itself last."""
    end = key.rfind("/")
    while end >= 0:
        yield key[: end + 1]
        end = key.rfind("/", 0, end)
    yield ""
