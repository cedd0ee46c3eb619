"""What is said about stores that behave, and about stores that do not; nothing is left in any."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from s4gateway.backend import base
from s4gateway.backend.base import BackendAnswer, BackendUnavailable, Head
from s4gateway.backend.memory import MemoryBackend, MemoryStream
from s4gateway.s3.headers import Headers
from s4gateway.tools.doctor import objects, settings, uploads
from s4gateway.tools.doctor.findings import Finding, Verdict
from s4gateway.tools.doctor.run import CLEANUP, REACH, WRITES, DoctorReport, examine
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.tools.doctor.test_settings import RETAINED

BUCKET = "bucket"


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


def of(report: DoctorReport, name: str) -> Finding:
    found = [each for each in report.findings if each.name == name]
    assert len(found) == 1, found
    return found[0]


async def examined(backend: base.Backend) -> DoctorReport:
    return await examine(backend, BUCKET)


def left(store: MemoryBackend) -> list[str]:
    return [*store.buckets[BUCKET], *store.uploads.uploads]


class Odd(CountingBackend):
    """A store that treats some requests in its own way."""

    def __init__(self, inner: MemoryBackend) -> None:
        super().__init__(inner)
        self.puts: Callable[[str, base.Body, dict[str, str]], Exception | None] = (
            lambda key, body, headers: None
        )
        self.drop: frozenset[str] = frozenset()  # headers that are ignored
        self.forwards: Callable[[str, str], base.ObjectStream | None] = lambda method, query: None

    def _kept(self, headers: base.HeaderList) -> list[tuple[str, str]]:
        return [(name, value) for name, value in headers if name.lower() not in self.drop]

    async def put(
        self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
    ) -> Head:
        if (error := self.puts(key, body, dict(headers))) is not None:
            raise error
        return await super().put(bucket, key, body, self._kept(headers))

    async def get(self, bucket: str, key: str, **options: Any) -> base.ObjectStream:
        if "if-match" in self.drop:
            options["if_match"] = None
        return await super().get(bucket, key, **options)

    async def delete(
        self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
    ) -> Head:
        return await super().delete(bucket, key, query=query, headers=self._kept(headers))

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        if (answer := self.forwards(method, raw_query)) is not None:
            return answer
        kept = self._kept(headers)
        return await super().forward(method, raw_path, raw_query, kept, body)


def error(code: str, message: str = "", status: int = 400) -> MemoryStream:
    document = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return MemoryStream(Head(status, Headers([])), document)


async def test_a_store_that_behaves_is_fit_and_clean_afterwards(store: MemoryBackend):
    report = await examined(store)
    assert report.is_fit
    assert left(store) == []
    for name in (
        REACH, objects.OBJECTS, objects.BODIES, objects.PINNED, objects.CONDITIONS,
        objects.CONTENT_MD5, uploads.PARTS, uploads.SMALLEST, objects.LISTINGS, objects.DELETIONS,
    ):  # fmt: skip
        assert of(report, name).verdict is Verdict.WORKS, of(report, name)
    assert report.profile == "conditional-writes"
    assert report.flags == ("--backend-profile", "conditional-writes")


async def test_headers_that_are_accepted_and_ignored_are_not_said_to_work(store: MemoryBackend):
    found = of(await examined(store), objects.CHECKSUMS)
    assert found.verdict is Verdict.NOTE
    assert found.detail.startswith("ignored: crc32, ")
    assert found.words == ()


async def test_a_store_that_ignores_conditions_bites(store: MemoryBackend):
    odd = Odd(store)
    odd.drop = frozenset({"if-match", "if-none-match"})
    report = await examined(odd)
    assert of(report, objects.CONDITIONS).verdict is Verdict.BITES
    assert of(report, objects.PINNED).verdict is Verdict.BITES
    assert report.profile == "no-conditional-writes"
    assert report.is_fit


async def test_a_store_that_wants_equal_parts_is_told_from_one_that_does_not(
    store: MemoryBackend,
):
    odd = Odd(store)
    refusals = iter([error("InvalidPart", "All non-trailing parts must have the same length.")])
    odd.forwards = lambda method, query: (
        next(refusals, None)
        if method == "POST" and "uploadId=" in query and odd.count("put") > 9
        else None
    )
    report = await examined(odd)
    found = of(report, uploads.PARTS)
    assert (found.verdict, found.words) == (Verdict.BITES, ("uniform-parts",))
    assert report.profile == "uniform-parts,conditional-writes"
    assert left(store) == []


async def test_a_store_that_does_not_compare_md5_gets_another_checksum(store: MemoryBackend):
    """It compares CRC32 and CRC32C only, and refuses a header it does not know."""
    odd = Odd(store)
    odd.drop = frozenset({"content-md5"})

    def compare(key: str, body: base.Body, headers: dict[str, str]) -> Exception | None:
        del key
        for name, value in headers.items():
            algorithm = name.removeprefix("x-amz-checksum-")
            if algorithm in {"crc32", "crc32c"}:
                if value != objects._digest(algorithm, bytes(body.chunks)):  # type: ignore[arg-type]
                    return BackendAnswer(400, "BadDigest")
            elif algorithm != name:
                return BackendAnswer(501, "NotImplemented")
        return None

    odd.puts = compare
    report = await examined(odd)
    assert of(report, objects.CONTENT_MD5).verdict is Verdict.BITES
    found = of(report, objects.CHECKSUMS)
    assert found.detail == "verified: crc32, crc32c; refused: crc64nvme, sha1, sha256"
    assert report.profile == "conditional-writes,checksums=crc32c"


async def test_a_store_that_changes_bodies_is_unfit(store: MemoryBackend):
    class Compressing(CountingBackend):
        async def get(self, bucket: str, key: str, **options: Any) -> base.ObjectStream:
            stream = await super().get(bucket, key, **options)
            if not key.endswith(".txt"):
                return stream
            fields = [*stream.head.headers.items(), ("content-encoding", "gzip")]
            return MemoryStream(Head(200, Headers(fields)), b"gzipped")

    report = await examined(Compressing(store))
    assert of(report, objects.BODIES).verdict is Verdict.BROKEN
    assert not report.is_fit


async def test_a_store_that_loses_metadata_is_unfit(store: MemoryBackend):
    odd = Odd(store)
    odd.drop = frozenset({"x-amz-meta-s4-probe"})
    found = of(await examined(odd), objects.OBJECTS)
    assert (found.verdict, "s4-probe" in found.detail) == (Verdict.BROKEN, True)


@pytest.mark.parametrize("ignored", ["start-after", "max-keys", "continuation-token"])
async def test_a_listing_that_ignores_what_it_is_asked_is_unfit(store: MemoryBackend, ignored: str):
    class Ignoring(CountingBackend):
        async def list(self, bucket: str, raw_query: str) -> bytes:
            kept = [each for each in raw_query.split("&") if not each.startswith(ignored)]
            return await super().list(bucket, "&".join(kept))

    report = await examined(Ignoring(store))
    assert of(report, objects.LISTINGS).verdict is Verdict.BROKEN


async def test_deletions_that_do_nothing_bite_and_what_stays_is_named(store: MemoryBackend):
    class Keeping(CountingBackend):
        async def delete_many(self, bucket: str, keys: Sequence[str]) -> base.DeleteFailures:
            return [base.DeleteFailure(key, "AccessDenied", "") for key in keys]

        async def delete(
            self, bucket: str, key: str, *, query: str = "", headers: base.HeaderList = ()
        ) -> Head:
            raise BackendAnswer(403, "AccessDenied")

    report = await examined(Keeping(store))
    assert of(report, objects.DELETIONS).verdict is Verdict.BITES
    assert "AccessDenied" in of(report, CLEANUP).detail


async def test_chunked_bodies_that_are_kept_as_they_are_bite(store: MemoryBackend):
    found = of(await examined(store), objects.TRAILERS)
    assert found.verdict is Verdict.BITES
    odd = Odd(store)
    odd.puts = lambda key, body, headers: (
        BackendAnswer(400, "InvalidRequest") if "x-amz-trailer" in headers else None
    )
    assert of(await examined(odd), objects.TRAILERS).verdict is Verdict.NOTE


async def test_where_everything_is_retained_nothing_is_written(store: MemoryBackend):
    odd = Odd(store)
    odd.forwards = lambda method, query: (
        MemoryStream(Head(200, Headers([])), RETAINED.encode()) if query == "object-lock=" else None
    )
    report = await examined(odd)
    assert of(report, WRITES).verdict is Verdict.SKIPPED
    assert of(report, settings.OBJECT_LOCK).verdict is Verdict.BITES
    assert {call.verb for call in odd.calls} == {"forward GET"}


async def test_keys_that_may_not_write_leave_the_rest_unasked(store: MemoryBackend):
    odd = Odd(store)
    odd.puts = lambda key, body, headers: BackendAnswer(403, "AccessDenied")
    report = await examined(odd)
    assert of(report, objects.OBJECTS).verdict is Verdict.UNKNOWN
    assert not [each for each in report.findings if each.name == uploads.PARTS]
    assert report.is_fit
    assert "permission" in report.notes[0]


@pytest.mark.parametrize(
    ("code", "status", "hint"),
    [
        ("NoSuchBucket", 404, "name right"),
        ("AccessDenied", 403, ""),
        ("RequestTimeTooSkewed", 403, "clock"),
    ],
)
async def test_a_bucket_that_cannot_be_listed_is_the_only_finding(
    store: MemoryBackend, code: str, status: int, hint: str
):
    odd = Odd(store)
    odd.forwards = lambda method, query: error(code, status=status)
    report = await examined(odd)
    (found,) = report.findings
    assert (found.name, found.verdict) == (REACH, Verdict.BROKEN)
    assert code in found.detail
    assert hint in found.detail
    assert not report.is_fit


async def test_a_store_that_is_away_is_an_error(store: MemoryBackend):
    backend = FaultyBackend(store, fault=lambda call: BackendUnavailable("refused"))
    with pytest.raises(BackendUnavailable):
        await examined(backend)


async def requests(store: MemoryBackend) -> int:
    """How many requests an examination takes."""
    counting = CountingBackend(store)
    await examined(counting)
    return len(counting.calls)


class CutAt(CountingBackend):
    """Does something to one request, by its number."""

    def __init__(self, inner: MemoryBackend, at: int, then: Callable[[], None]) -> None:
        super().__init__(inner)
        self._at = at
        self._then = then

    async def before(self, call: Call) -> None:
        await super().before(call)
        if len(self.calls) == self._at:
            self._then()


def _cut() -> None:
    raise BackendUnavailable("cut")


async def test_whatever_fails_on_the_way_no_object_is_left(store: MemoryBackend):
    """One request fails, wherever it stands; a deletion that failed is reported."""
    total = await requests(store)
    for at in (*range(2, total - 8, 4), *range(total - 8, total)):
        report = await examined(CutAt(store, at, _cut))
        assert of(report, REACH).verdict is Verdict.WORKS
        if store.buckets[BUCKET]:
            assert of(report, CLEANUP).verdict is Verdict.BITES, at
        store.buckets[BUCKET].clear()
        store.uploads.uploads.clear()


async def test_whoever_is_interrupted_leaves_nothing(store: MemoryBackend):
    for at in range(2, await requests(store), 3):
        task: asyncio.Task[DoctorReport]
        backend = CutAt(store, at, lambda: task.cancel() and None)  # noqa: B023
        task = asyncio.ensure_future(examined(backend))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left(store) == [], at


async def test_the_clock_is_compared(store: MemoryBackend):
    class Dated(CountingBackend):
        async def forward(self, *arguments: Any) -> base.ObjectStream:
            stream = await super().forward(*arguments)
            data = await stream.read(1 << 20)
            fields = [*stream.head.headers.items(), ("date", "Sun, 22 Nov 2026 12:00:00 GMT")]
            return MemoryStream(Head(stream.head.status, Headers(fields)), data)

    report = await examine(
        Dated(store), BUCKET, now=lambda: datetime(2026, 11, 22, 12, 20, tzinfo=UTC)
    )
    assert of(report, settings.CLOCK).verdict is Verdict.BROKEN
