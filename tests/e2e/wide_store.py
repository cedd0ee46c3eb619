"""A store with a great many objects and no disk: pages and bodies are made as they are asked for.

    with wide_store.serving(Holding(objects=200_000)) as store:
        ...  # store is the endpoint; its one bucket is BUCKET

It answers what tools read: listings of keys, of versions and of uploads, HEAD and GET of an object,
its tags and its ACL. Nothing can be written.
"""

import bisect
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qs, unquote, urlsplit

from s4gateway.wire import keys
from tests import live, rude_server
from tests.rude_server import Exchange

BUCKET = "wide-bucket"
_PAGE = 1000
_ETAG = "9e107d9d372bb6826bd81d3542a419d6"
_DATE = "2026-01-02T03:04:05.000Z"
_VERSIONED = b"<VersioningConfiguration/>"
_NOT_FOUND = b"<Error><Code>NoSuchKey</Code></Error>"


@dataclass(frozen=True)
class Holding:
    """What is there: so many objects of `body`, of which all but every `every`-th are empty.

    `records` lie below `.s4mpu/`, two of each upload, none of which is under way.
    """

    objects: int
    body: bytes = b"a line of a log, and another one\n" * 4
    every: int = 1
    records: int = 0

    @cached_property
    def names(self) -> list[str]:
        """All keys in their order."""
        uploads = [f"{number:032x}".encode().hex() for number in range(self.records // 2)]
        below = [f"{keys.PARTS_PREFIX}{each}/{name}" for each in uploads for name in _PARTS]
        return below + [f"2026/service/part-{number:09}.log" for number in range(self.objects)]

    def size(self, number: int) -> int:
        """Bytes of the object at that place in the order."""
        return 0 if number % self.every else len(self.body)


_PARTS = ("00001", "00002")


@dataclass(slots=True)
class _Wide:
    holding: Holding
    server: rude_server.RudeServer | None = None

    async def script(self, exchange: Exchange) -> None:
        assert self.server is not None
        self.server.requests.clear()  # nobody looks at them, and there are too many to keep
        target = urlsplit(exchange.request.target.decode())
        asked = {name: each[0] for name, each in parse_qs(target.query, True).items()}
        key = unquote(target.path.removeprefix(f"/{BUCKET}")).removeprefix("/")
        if key:
            await self._object(exchange, key, asked)
        else:
            await exchange.answer(200, self._bucket(asked), {"Content-Type": "application/xml"})

    def _bucket(self, asked: dict[str, str]) -> bytes:
        if "versioning" in asked:
            return _VERSIONED
        if "uploads" in asked:
            return b"<ListMultipartUploadsResult/>"
        versions = "versions" in asked
        after = asked.get("key-marker" if versions else "start-after", "")
        return self._page(asked.get("prefix", ""), after, versions=versions)

    def _page(self, prefix: str, after: str, *, versions: bool) -> bytes:
        names = self.holding.names
        first = bisect.bisect_left(names, prefix)
        if after:
            first = max(first, bisect.bisect_right(names, after))
        end = min(first + _PAGE, len(names))
        shown = [at for at in range(first, end) if names[at].startswith(prefix)]
        more = len(shown) == _PAGE and end < len(names) and names[end].startswith(prefix)
        tag, root = (
            ("Version", "ListVersionsResult") if versions else ("Contents", "ListBucketResult")
        )
        version = "<VersionId>null</VersionId><IsLatest>true</IsLatest>" if versions else ""
        entries = "".join(
            f"<{tag}><Key>{names[at]}</Key>{version}<LastModified>{_DATE}</LastModified>"
            f'<ETag>"{_ETAG}"</ETag><Size>{self.holding.size(at)}</Size>'
            f"<StorageClass>STANDARD</StorageClass></{tag}>"
            for at in shown
        )
        following = f"<NextKeyMarker>{names[end - 1]}</NextKeyMarker>" if versions and more else ""
        return (
            f"<{root}><Name>{BUCKET}</Name><Prefix>{prefix}</Prefix><KeyCount>{len(shown)}</KeyCount>"
            f"<MaxKeys>{_PAGE}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>{following}"
            f"{entries}</{root}>"
        ).encode()

    async def _object(self, exchange: Exchange, key: str, asked: dict[str, str]) -> None:
        names = self.holding.names
        at = bisect.bisect_left(names, key)
        if at == len(names) or names[at] != key:
            await exchange.answer(404, _NOT_FOUND)
        elif "tagging" in asked:
            await exchange.answer(200, b"<Tagging><TagSet/></Tagging>")
        elif "acl" in asked:
            await exchange.answer(501, b"<Error><Code>NotImplemented</Code></Error>")
        else:
            await self._send(exchange, self.holding.body[: self.holding.size(at)])

    async def _send(self, exchange: Exchange, body: bytes) -> None:
        fields = {"ETag": f'"{_ETAG}"', "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT"}
        asked = exchange.request.headers.get("range", "")
        if (span := re.fullmatch(r"bytes=(\d+)-(\d+)", asked)) is not None and body:
            part = body[int(span[1]) : int(span[2]) + 1]
            fields["Content-Range"] = f"bytes {span[1]}-{int(span[1]) + len(part) - 1}/{len(body)}"
            await exchange.answer(206, part, fields)
        else:
            await exchange.answer(200, body, fields)


@contextlib.contextmanager
def serving(holding: Holding) -> Iterator[live.Endpoint]:
    """Have the store while the block runs."""
    wide = _Wide(holding)
    with rude_server.in_thread(wide.script) as server:
        wide.server = server
        yield live.Endpoint(server.url, "access", "secret")
