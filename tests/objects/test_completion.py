"""CompleteMultipartUpload over a store in memory: content, repetition, races, forged records."""

import asyncio
import base64
import contextlib
import itertools
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from s4gateway.backend import multipart
from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendError,
    BackendUnavailable,
    Head,
)
from s4gateway.backend.memory import MemoryBackend, MemoryStream
from s4gateway.objects import completion
from s4gateway.objects.collection import collect_uploads
from s4gateway.objects.completion_request import Wanted
from s4gateway.objects.errors import DamagedObject
from s4gateway.objects.part_facts import METADATA, PartFacts
from s4gateway.objects.parts import uniform_size
from s4gateway.s3.completion import DeclaredWhole, ListedPart
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers
from s4gateway.wire import frame, keys
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.index import FrameIndex
from s4gateway.wire.tail import Tail
from tests import corpus
from tests.backends import Call, CountingBackend, FaultyBackend
from tests.objects import world
from tests.objects.uploading import (
    KEY,
    TOKEN,
    Process,
    StoppingBackend,
    records,
    wanted,
    whole_etag,
)
from tests.objects.world import BUCKET, MIB

NAME = (BUCKET, KEY)
SIZE = 5 * MIB + 1000
LOG = [corpus.log(SIZE, seed=seed) for seed in range(3)]
NOISE = [corpus.noise(SIZE, seed=seed) for seed in range(3)]
BODIES = {
    "empty": [b""],
    "one byte": [b"x"],
    "logs": LOG,
    "noise": NOISE,
    "logs, then noise": [*LOG, NOISE[0]],
    "noise, then logs": [NOISE[0], *LOG],
    "by turns": [LOG[0], NOISE[0], LOG[1], NOISE[1], b"the end"],
    "ten": [*LOG, *NOISE, LOG[0], NOISE[0], LOG[1], b"the end"],
}


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend.with_buckets(BUCKET)


async def collected(store: MemoryBackend) -> None:
    """Nothing is left of any upload once what is dead was removed."""
    now = datetime.now(UTC) + timedelta(seconds=1)
    report = await collect_uploads(store, BUCKET, now=now, older_than=timedelta(0), execute=True)
    assert (report.failed, report.skipped_unparseable) == (0, 0)
    assert records(store) == []


def padding_of(stored: bytes) -> list[tuple[int, int]]:
    """Offset and size of each padding frame."""
    found, offset = [], 0
    for at, header, _ in frame.walk(stored):
        if at > offset:
            found.append((offset, at - offset))
        offset = at + header.stored_size
    return [*found, (offset, len(stored) - offset)]


async def check_object(store: MemoryBackend, bodies: list[bytes]) -> None:
    """A fresh process reads the object as what was sent, ranges by its index."""
    reading = Process(store)
    whole = b"".join(bodies)
    attributes = await reading.instance.reader.attributes(reading.instance.source(KEY))
    assert (attributes.size, attributes.etag) == (len(whole), whole_etag(*bodies))
    assert await reading.instance.get(KEY) == whole
    edges = [0, *itertools.accumulate(map(len, bodies))]
    for edge in edges:
        start, end = max(edge - 3, 0), min(edge + 4, len(whole))
        if start < end:
            got = await reading.instance.ranged(KEY, start, end)
            assert got == (whole[start:end], None)
    await reading.close()


# --- content


@pytest.mark.parametrize("uniform", [False, True], ids=["plain", "uniform"])
@pytest.mark.parametrize("name", BODIES)
async def test_the_object_is_what_its_parts_are(store: MemoryBackend, name: str, uniform: bool):
    bodies = BODIES[name]
    sending, completing = Process(store, uniform=uniform), Process(store, uniform=uniform)
    upload = await sending.begin()
    order = sorted(range(len(bodies)), key=lambda at: (at * 7) % 5)
    sent = {at: await sending.send(upload, at + 1, bodies[at]) for at in order}
    facts = [sent[at] for at in range(len(bodies))]
    done = await completing.complete(wanted(upload, *facts))
    assert (done.etag, done.checksum) == (whole_etag(*bodies), None)
    await check_object(store, bodies)
    assert records(store) == ["completion"]
    assert set(store.buckets[BUCKET]) <= {
        KEY,
        keys.sidecar_key(KEY),
        keys.completion_key(upload.upload_id),
    }
    assert completing.instance.budget.used == 0
    *padding, tail = padding_of(world.stored_bytes(store, KEY))
    assert Tail.decode(world.stored_bytes(store, KEY), TOKEN).etag == done.etag
    if not uniform:
        assert tail[1] < 500
        before_direct = sum(
            1 for low, high in itertools.pairwise(facts) if low.staged and not high.staged
        )
        assert len(padding) == before_direct
    await completing.close()
    await collected(store)


async def test_equal_parts_are_equal_at_the_store(store: MemoryBackend):
    seen: list[list[int]] = []
    joined = store.uploads.complete

    def complete(upload_id: str, upload: object, document: bytes) -> object:
        parts = store.uploads.uploads[upload_id].parts
        numbers = [int(each) for each in re.findall(rb"<PartNumber>(\d+)<", document)]
        seen.append([len(parts[number].data) for number in numbers])
        return joined(upload_id, upload, document)  # type: ignore[arg-type]

    store.uploads.complete = complete  # type: ignore[assignment, method-assign]
    process = Process(store, uniform=True)
    upload = await process.begin()
    bodies = [NOISE[0], *LOG, NOISE[1], LOG[0], NOISE[2], b"the end"]
    facts = [await process.send(upload, at, body) for at, body in enumerate(bodies, 1)]
    await process.complete(wanted(upload, *facts))
    [[*first, last]] = seen
    assert set(first) == {uniform_size(SIZE)}
    assert last <= first[0]
    await check_object(store, bodies)


async def test_only_the_parts_that_are_listed_count(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin()
    facts = [await process.send(upload, number, LOG[number % 3]) for number in range(1, 6)]
    await process.complete(wanted(upload, facts[0], facts[3]))
    await check_object(store, [LOG[1], LOG[1]])
    assert records(store) == ["completion"]


@pytest.mark.parametrize(
    ("first", "second"), [(LOG[0], NOISE[0]), (NOISE[0], LOG[0]), (NOISE[0], NOISE[1])]
)
async def test_of_a_part_sent_twice_the_last_counts(
    store: MemoryBackend, first: bytes, second: bytes
):
    process = Process(store)
    upload = await process.begin()
    stale = await process.send(upload, 1, first)
    fresh = await process.send(upload, 1, second)
    other = await process.send(upload, 2, b"end")
    with pytest.raises(S3Error, match="InvalidPart"):
        await process.complete(wanted(upload, stale, other))
    await process.complete(wanted(upload, fresh, other))
    await check_object(store, [second, b"end"])


async def test_numbers_may_have_gaps_up_to_the_last_one(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin()
    bodies = [LOG[0], NOISE[0], NOISE[1]]
    facts = [
        await process.send(upload, number, body)
        for number, body in zip((7, 4_000, 10_000), bodies, strict=True)
    ]
    assert [each.staged for each in facts] == [True, False, True]
    await process.complete(wanted(upload, *facts))
    await check_object(store, bodies)


@pytest.mark.parametrize(
    ("algorithm", "kind", "value"),
    [
        ("crc32", "COMPOSITE", None),
        ("crc32c", "FULL_OBJECT", None),
        ("crc64nvme", None, None),
        ("sha256", None, None),
    ],
)
async def test_the_checksum_the_upload_began_with_is_answered_and_kept(
    store: MemoryBackend, algorithm: str, kind: str | None, value: None
):
    process = Process(store)
    upload = await process.begin(algorithm=algorithm, kind=kind)
    bodies = [LOG[0], b"end"]
    facts = [await process.send(upload, at, body) for at, body in enumerate(bodies, 1)]
    done = await process.complete(wanted(upload, *facts))
    assert done.checksum is not None
    name, text, found = done.checksum
    assert (name, found) == (
        algorithm,
        kind or ("FULL_OBJECT" if "64" in algorithm else "COMPOSITE"),
    )
    assert text.endswith("-2") == (found == "COMPOSITE")
    if found == "FULL_OBJECT" and algorithm == "crc32c":
        assert text == base64.b64encode(crc32c(b"".join(bodies)).to_bytes(4, "big")).decode()
    tail = Tail.decode(world.stored_bytes(store, KEY), TOKEN)
    assert tail.checksum == done.checksum
    assert tail.part_checksums == tuple(each.checksums[algorithm] for each in facts)


# --- what is refused


async def refused(process: Process, request: Wanted) -> S3Error:
    with pytest.raises(S3Error) as caught:
        await process.complete(request)
    assert KEY not in process.backend.buckets[BUCKET]  # type: ignore[attr-defined]
    return caught.value


async def test_a_list_that_does_not_agree_with_what_was_sent_is_refused(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin(algorithm="crc32")
    one, two = await process.send(upload, 1, LOG[0]), await process.send(upload, 2, b"end")
    good = wanted(upload, one, two)
    wrong_etag = replace(good, parts=(ListedPart(1, "0" * 32), good.parts[1]))
    missing = replace(good, parts=(*good.parts, ListedPart(3, one.md5)))
    forged = ListedPart(1, one.md5, (("crc32", "AAAAAA=="),))
    for request, code in [
        (wrong_etag, "InvalidPart"),
        (missing, "InvalidPart"),
        (replace(good, parts=(forged, good.parts[1])), "InvalidPart"),
        (replace(good, whole=DeclaredWhole(size=1)), "InvalidRequest"),
        (replace(good, whole=DeclaredWhole(checksum=("crc32", "bad"))), "BadDigest"),
        (replace(good, whole=DeclaredWhole(checksum_type="FULL_OBJECT")), "InvalidRequest"),
    ]:
        assert (await refused(process, request)).code == code
    exact = DeclaredWhole(size=one.size + two.size, checksum_type="COMPOSITE")
    checksums = (("crc32", one.checksums["crc32"]),)
    stated = replace(good, parts=(ListedPart(1, one.md5.upper(), checksums), good.parts[1]))
    await process.complete(replace(stated, whole=exact))
    await check_object(store, [LOG[0], b"end"])


async def test_a_small_part_that_is_not_the_last_is_refused_by_its_own_size(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin()
    one = await process.send(upload, 1, LOG[0][: 5 * MIB - 1])
    two = await process.send(upload, 2, b"end")
    error = await refused(process, wanted(upload, one, two))
    assert (error.code, error.fields["PartNumber"]) == ("EntityTooSmall", "1")


async def test_another_key_than_the_uploads_own_is_no_such_upload(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin()
    one = await process.send(upload, 1, b"x")
    other = wanted(replace(upload, key="other"), one)
    assert (await refused(process, other)).code == "NoSuchUpload"
    await process.complete(wanted(upload, one))
    with pytest.raises(S3Error, match="NoSuchUpload"):
        await process.complete(other)


async def test_the_store_decides_the_conditions(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin()
    one = await process.send(upload, 1, b"x")
    with pytest.raises(BackendAnswer) as caught:
        await process.complete(wanted(upload, one), [("if-match", '"none"')])
    assert caught.value.code == "NoSuchKey"
    await process.complete(wanted(upload, one), [("if-none-match", "*")])
    # What was made already is not made again, whatever has become of the condition.
    await Process(store).complete(wanted(upload, one), [("if-none-match", "*")])


# --- repetition


async def interrupted(
    store: MemoryBackend, bodies: list[bytes], at: int, *, after: bool
) -> tuple[Wanted, StoppingBackend]:
    process = Process(store)
    upload = await process.begin()
    facts = [await process.send(upload, number, body) for number, body in enumerate(bodies, 1)]
    request = wanted(upload, *facts)
    backend = StoppingBackend(store, at, after=after)
    dying = Process(backend)
    with contextlib.suppress(BackendError):
        await dying.complete(request)
    await dying.instance.sidecars.removals.flush()
    return request, backend


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_whatever_request_is_the_last_another_process_takes_it_from_there(after: bool):
    bodies = [LOG[0], NOISE[0], b"the end"]
    for at in itertools.count(1):
        store = MemoryBackend.with_buckets(BUCKET)
        request, backend = await interrupted(store, bodies, at, after=after)
        if not backend.reached:
            break
        made = store.buckets[BUCKET].get(KEY)
        done = await Process(store).complete(request)
        assert done.etag == whole_etag(*bodies), at
        if made is not None:
            assert store.buckets[BUCKET][KEY] is made
        await check_object(store, bodies)
        again = await Process(store).complete(request)
        assert again.etag == done.etag
        await collected(store)
        assert set(store.buckets[BUCKET]) == {KEY, keys.sidecar_key(KEY)}
        assert store.uploads.uploads == {}
    assert at > 15


async def test_a_retry_of_other_parts_is_no_such_upload(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin()
    one, two = await process.send(upload, 1, LOG[0]), await process.send(upload, 2, b"end")
    await process.complete(wanted(upload, one, two))
    with pytest.raises(S3Error, match="NoSuchUpload"):
        await process.complete(wanted(upload, one))


async def test_an_answer_is_repeated_when_the_object_is_gone_already(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin(algorithm="crc32")
    one = await process.send(upload, 1, b"x")
    done = await process.complete(wanted(upload, one))
    del store.buckets[BUCKET][KEY]
    again = await Process(store).complete(wanted(upload, one))
    assert (again.etag, again.checksum) == (done.etag, done.checksum)
    assert KEY not in store.buckets[BUCKET]


async def committed_only(store: MemoryBackend) -> Wanted:
    """A request whose object was made, by a process that was killed right then."""

    def fault(call: Call) -> Exception | None:
        return BackendUnavailable("killed") if KEY in store.buckets[BUCKET] else None

    sending, dying = Process(store), Process(FaultyBackend(store, fault=fault))
    upload = await sending.begin()
    request = wanted(upload, await sending.send(upload, 1, b"x"))
    await dying.complete(request)
    return request


async def test_an_object_that_replaced_an_unfinished_one_is_not_taken_for_it(
    store: MemoryBackend,
):
    request = await committed_only(store)
    process = Process(store)
    await process.instance.put(KEY, b"another")
    with pytest.raises(S3Error, match="NoSuchUpload"):
        await process.complete(request)
    assert await process.instance.get(KEY) == b"another"
    await collected(store)


async def test_an_object_whose_index_cannot_be_made_any_more_is_complete_without(
    store: MemoryBackend,
):
    request = await committed_only(store)
    del store.buckets[BUCKET][keys.part_key(request.upload.upload_id, 1)]
    done = await Process(store).complete(request)
    assert (done.etag, done.sidecar) == (whole_etag(b"x"), None)
    assert records(store) == ["completion"]
    assert keys.sidecar_key(KEY) not in store.buckets[BUCKET]
    assert await Process(store).instance.get(KEY) == b"x"


async def test_the_record_of_a_completion_goes_after_a_while(
    store: MemoryBackend, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(completion, "REMEMBERED", 0.0)
    process = Process(store)
    upload = await process.begin()
    one = await process.send(upload, 1, b"x")
    await process.complete(wanted(upload, one))
    for _ in range(100):
        await asyncio.sleep(0)
    await process.close()
    assert records(store) == []


# --- the store's own mistakes


class Answering(CountingBackend):
    """Has another answer to the completion of an upload than the store's, done or not."""

    def __init__(self, inner: Backend, answer: Callable[[], object], *, done: bool) -> None:
        super().__init__(inner)
        self._answer = answer
        self._done = done

    async def forward(self, method, raw_path, raw_query, headers, body=None):  # type: ignore[no-untyped-def]
        if method != "POST" or "uploadId" not in raw_query:
            return await super().forward(method, raw_path, raw_query, headers, body)
        if self._done:
            await super().forward(method, raw_path, raw_query, headers, body)
        answer = self._answer()
        if isinstance(answer, Exception):
            raise answer
        return answer


def says(data: bytes, status: int = 200) -> Callable[[], MemoryStream]:
    def answer() -> MemoryStream:
        return MemoryStream(Head(status, Headers([("content-length", str(len(data)))])), data)

    return answer


ERROR = b'<?xml version="1.0"?>   <Error><Code>%s</Code><Message>m</Message></Error>'
ANSWERS = {
    "200 with an error": says(ERROR % b"InternalError"),
    "503": says(ERROR % b"SlowDown", 503),
    "no document": says(b"hello"),
    "nothing": lambda: BackendUnavailable("reset"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_that_is_none_fails_the_request_when_nothing_was_made(
    store: MemoryBackend, name: str
):
    process = Process(Answering(store, ANSWERS[name], done=False))
    upload = await process.begin()
    one = await process.send(upload, 1, b"x")
    with pytest.raises(BackendError):
        await process.complete(wanted(upload, one))
    assert KEY not in store.buckets[BUCKET]
    await Process(store).complete(wanted(upload, one))
    await check_object(store, [b"x"])


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_that_is_none_is_made_up_for_when_the_object_is_there(
    store: MemoryBackend, name: str
):
    process = Process(Answering(store, ANSWERS[name], done=True))
    upload = await process.begin()
    facts = [await process.send(upload, 1, LOG[0]), await process.send(upload, 2, b"x")]
    done = await process.complete(wanted(upload, *facts))
    assert done.etag == whole_etag(LOG[0], b"x")
    await check_object(store, [LOG[0], b"x"])
    assert records(store) == ["completion"]


async def test_a_refusal_under_200_is_a_refusal(store: MemoryBackend):
    answer = says(ERROR % b"PreconditionFailed")
    process = Process(Answering(store, answer, done=False))
    upload = await process.begin()
    one = await process.send(upload, 1, b"x")
    with pytest.raises(BackendAnswer) as caught:
        await process.complete(wanted(upload, one))
    assert (caught.value.status, caught.value.code) == (412, "PreconditionFailed")


async def test_a_failure_behind_the_commit_fails_nothing(store: MemoryBackend):
    def fault(call: Call) -> Exception | None:
        late = call.key == keys.sidecar_key(KEY) or call.verb == "delete_many"
        return BackendUnavailable("down") if late else None

    process = Process(FaultyBackend(store, fault=fault))
    upload = await process.begin()
    one = await process.send(upload, 1, LOG[0])
    done = await process.complete(wanted(upload, one))
    assert (done.etag, done.sidecar) == (whole_etag(LOG[0]), False)
    assert await Process(store).instance.get(KEY) == LOG[0]
    await collected(store)


async def test_a_record_whose_transfer_breaks_off_is_read_again(store: MemoryBackend):
    failed: set[str] = set()

    def fault(call: Call) -> Exception | None:
        if call.verb == "get" and call.key.endswith("/00001") and call.key not in failed:
            failed.add(call.key)
            return BackendUnavailable("reset")
        return None

    process = Process(FaultyBackend(store, fault=fault))
    upload = await process.begin()
    one = await process.send(upload, 1, LOG[0])
    await process.complete(wanted(upload, one))
    assert failed
    await check_object(store, [LOG[0]])


# --- races


class Meanwhile(CountingBackend):
    """Something else happens, once, right before the first request that is `due`."""

    def __init__(
        self, inner: Backend, due: Callable[[Call], bool], deed: Callable[[], Awaitable[object]]
    ) -> None:
        super().__init__(inner)
        self._due = due
        self._deed: Callable[[], Awaitable[object]] | None = deed

    async def before(self, call: Call) -> None:
        await super().before(call)
        if self._deed is not None and self._due(call):
            deed, self._deed = self._deed, None
            await deed()


MOMENTS: dict[str, Callable[[Call], bool]] = {
    "parts are listed": lambda call: call.verb == "list",
    "facts are asked for": lambda call: call.verb == "head",
    "records are read": lambda call: call.verb == "get" and call.key[-5:].isdigit(),
    "segments are sent": lambda call: call.verb == "forward PUT",
    "the record is written": lambda call: call.verb == "put",
    "the upload is completed": lambda call: call.verb == "forward POST",
    "the sidecar is written": lambda call: call.verb == "put" and call.key.endswith(".s4index"),
    "records are removed": lambda call: call.verb == "delete_many",
}
BEFORE_THE_COMMIT = [name for name in MOMENTS if "sidecar" not in name and "removed" not in name]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_two_processes_that_complete_the_same_upload_both_succeed(
    store: MemoryBackend, moment: str
):
    bodies = [LOG[0], NOISE[0], b"end"]
    sending = Process(store)
    upload = await sending.begin()
    facts = [await sending.send(upload, at, body) for at, body in enumerate(bodies, 1)]
    request = wanted(upload, *facts)
    other = Process(store)
    racing = Process(Meanwhile(store, MOMENTS[moment], lambda: other.complete(request)))
    done = await racing.complete(request)
    assert done.etag == whole_etag(*bodies)
    await check_object(store, bodies)
    await collected(store)


@pytest.mark.parametrize("moment", BEFORE_THE_COMMIT)
async def test_of_two_lists_of_parts_one_wins_and_the_other_is_told(
    store: MemoryBackend, moment: str
):
    sending = Process(store)
    upload = await sending.begin()
    facts = [await sending.send(upload, at, body) for at, body in enumerate(LOG, 1)]
    other = Process(store)
    racing = Process(
        Meanwhile(store, MOMENTS[moment], lambda: other.complete(wanted(upload, *facts[:2])))
    )
    with pytest.raises(S3Error, match="NoSuchUpload"):
        await racing.complete(wanted(upload, *facts))
    await check_object(store, LOG[:2])
    await collected(store)


async def test_a_request_that_comes_again_while_it_is_answered_joins_in(store: MemoryBackend):
    backend = CountingBackend(store)
    process = Process(backend)
    upload = await process.begin()
    one = await process.send(upload, 1, LOG[0])
    request = wanted(upload, one)
    done = await asyncio.gather(*(process.complete(request) for _ in range(5)))
    assert len({each.etag for each in done}) == 1
    assert backend.count("forward POST") == 2  # begun once, completed once


@pytest.mark.parametrize("moment", BEFORE_THE_COMMIT)
async def test_an_abort_in_between_wins(store: MemoryBackend, moment: str):
    sending = Process(store)
    upload = await sending.begin()
    bodies = [LOG[0], NOISE[0], b"end"]
    facts = [await sending.send(upload, at, body) for at, body in enumerate(bodies, 1)]

    async def abort() -> None:
        await multipart.abort(store, upload)
        await sending.uploads.remove(BUCKET, upload.upload_id)

    racing = Process(Meanwhile(store, MOMENTS[moment], abort))
    with pytest.raises(S3Error) as caught:
        await racing.complete(wanted(upload, *facts))
    assert caught.value.code == "NoSuchUpload"
    assert KEY not in store.buckets[BUCKET]
    await collected(store)


@pytest.mark.parametrize("body", [LOG[1], NOISE[1], LOG[0]], ids=["staged", "direct", "the same"])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("moment", BEFORE_THE_COMMIT)
async def test_a_part_sent_again_in_between_never_mixes(
    store: MemoryBackend, moment: str, number: int, body: bytes
):
    sending = Process(store)
    upload = await sending.begin()
    bodies = [LOG[0], NOISE[0], b"end"]
    facts = [await sending.send(upload, at, each) for at, each in enumerate(bodies, 1)]
    racing = Process(Meanwhile(store, MOMENTS[moment], lambda: sending.send(upload, number, body)))
    [outcome] = await asyncio.gather(
        racing.complete(wanted(upload, *facts)), return_exceptions=True
    )
    if isinstance(outcome, BaseException):
        assert getattr(outcome, "code", None) == "InvalidPart"
        assert KEY not in store.buckets[BUCKET]
    else:
        await check_object(store, bodies)


async def test_a_client_that_leaves_leaves_the_work_behind(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin()
    one = await process.send(upload, 1, LOG[0])
    waiting = asyncio.ensure_future(asyncio.shield(process.complete(wanted(upload, one))))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for _ in range(6000):
        if records(store) == ["completion"]:
            break
        await asyncio.sleep(0.01)
    await check_object(store, [LOG[0]])


# --- forged records


def forge(store: MemoryBackend, key: str, data: bytes, **metadata: str) -> None:
    world.put_stored(store, key, data, {name.replace("_", "-"): x for name, x in metadata.items()})


def metadata_of(facts: PartFacts) -> dict[str, str]:
    return {METADATA.removeprefix("x-amz-meta-").replace("-", "_"): facts.encode()}


FRAME = frame.FrameHeader(CodecId.PASSTHROUGH, 3, 3, crc32c(b"abc")).pack() + b"abc"


def staged(stored: bytes, size: int = 3, number: int = 1) -> PartFacts:
    return PartFacts(number, "0" * 32, size, len(stored), "0" * 32)


@pytest.mark.parametrize(
    ("stored", "size"),
    [
        (b"no frames at all, none", 3),
        (FRAME, 4),
        (FRAME[:-1], 3),
        (FRAME + b"S4F", 3),
        (FRAME[:4] + b"\xff" * 8 + FRAME[12:], 3),
        (frame.FrameHeader(CodecId.PASSTHROUGH, 2**62, 3, 0).pack() + b"abc", 3),
    ],
    ids=["garbage", "other size", "cut", "header cut", "codec", "huge"],
)
async def test_staged_bytes_that_are_no_frames_never_become_an_object(
    store: MemoryBackend, stored: bytes, size: int
):
    process = Process(store)
    upload = await process.begin()
    facts = staged(stored, size)
    forge(store, keys.part_key(upload.upload_id, 1), stored, **metadata_of(facts))
    with pytest.raises(DamagedObject):
        await process.complete(wanted(upload, facts))
    assert KEY not in store.buckets[BUCKET]
    assert process.instance.budget.used == 0


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"s4_part": ""},
        {"s4_part": "{"},
        {"s4_part": "[" * 1500},
        {"s4_part": staged(FRAME, number=2).encode()},
        {"s4_part": staged(FRAME + b"x").encode()},
        {"s4_part": json.dumps({"v": 1})},
    ],
)
async def test_a_part_without_sound_facts_is_damage(store: MemoryBackend, metadata: dict[str, str]):
    process = Process(store)
    upload = await process.begin()
    forge(store, keys.part_key(upload.upload_id, 1), FRAME, **metadata)
    with pytest.raises(DamagedObject):
        await process.complete(wanted(upload, staged(FRAME)))
    assert KEY not in store.buckets[BUCKET]


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"null", b"[" * 5000, b'{"v":1}', b'{"v":1,"upload_id":"x"}', b"\xff\xfe"],
)
@pytest.mark.parametrize("which", [keys.create_key, keys.completion_key])
async def test_a_record_that_is_none_is_damage(
    store: MemoryBackend, which: Callable[[str], str], data: bytes
):
    process = Process(store)
    upload = await process.begin()
    one = await process.send(upload, 1, b"x")
    forge(store, which(upload.upload_id), data)
    with pytest.raises(DamagedObject):
        await process.complete(wanted(upload, one))
    assert KEY not in store.buckets[BUCKET]


@pytest.mark.parametrize("which", [keys.create_key, keys.completion_key])
async def test_a_record_that_is_too_large_is_not_read(
    store: MemoryBackend, which: Callable[[str], str]
):
    process = Process(store)
    upload = await process.begin()
    one = await process.send(upload, 1, b"x")
    forge(store, which(upload.upload_id), b" " * MIB)
    with pytest.raises(BackendError, match="larger"):
        await process.complete(wanted(upload, one))


async def test_a_record_of_another_upload_is_not_believed(store: MemoryBackend):
    process = Process(store)
    first, second = await process.begin(), await process.begin()
    one = await process.send(first, 1, b"x")
    await process.complete(wanted(first, one))
    for which in (keys.create_key, keys.completion_key):
        stolen = store.buckets[BUCKET].get(which(first.upload_id))
        if stolen is None:
            continue
        store.buckets[BUCKET][which(second.upload_id)] = stolen
        with pytest.raises(DamagedObject):
            await process.complete(wanted(second, one))


async def test_a_checksum_no_upload_can_have_is_damage(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin(algorithm="sha256", kind="FULL_OBJECT")
    one = await process.send(upload, 1, b"x")
    with pytest.raises(DamagedObject):
        await process.complete(wanted(upload, one))


async def test_with_a_part_that_has_no_checksum_the_whole_has_none(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin(algorithm="crc32")
    facts = staged(FRAME)
    forge(store, keys.part_key(upload.upload_id, 1), FRAME, **metadata_of(facts))
    done = await process.complete(wanted(upload, facts))
    assert done.checksum is None


async def test_an_index_that_lies_about_a_direct_part_is_damage(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin()
    one = await process.send(upload, 1, NOISE[0])
    assert not one.staged
    lie = FrameIndex.from_entries([]).encode()
    forge(store, keys.part_key(upload.upload_id, 1), lie, **metadata_of(one))
    with pytest.raises(DamagedObject):
        await process.complete(wanted(upload, one))
    assert KEY not in store.buckets[BUCKET]


# --- limits


async def test_a_small_budget_is_enough_and_is_given_back(store: MemoryBackend):
    sending = Process(store)
    upload = await sending.begin()
    bodies = [corpus.text(2 * MIB, at) + corpus.noise(3 * MIB, at) for at in range(16)]
    facts = [await sending.send(upload, at, body) for at, body in enumerate(bodies, 1)]
    assert sum(each.stored_size for each in facts if each.staged) > 4 * 12 * MIB
    process = Process(store)
    process.instance.budget.limit = 12 * MIB
    await process.complete(wanted(upload, *facts))
    assert process.instance.budget.used == 0
    assert await Process(store).instance.get(KEY) == b"".join(bodies)


async def test_without_any_memory_left_the_client_is_asked_to_wait(store: MemoryBackend):
    process = Process(store)
    upload = await process.begin()
    one = await process.send(upload, 1, LOG[0])
    budget = process.instance.budget
    taken = budget.share(budget.limit)
    with pytest.raises(S3Error, match="SlowDown"):
        await process.complete(wanted(upload, one))
    taken.release()
    await process.complete(wanted(upload, one))
    assert budget.used == 0


async def test_ten_thousand_parts_cost_two_requests_each(store: MemoryBackend):
    backend = CountingBackend(store)
    process = Process(backend)
    upload = await process.begin()
    one = await process.send(upload, 1, bytes(5 * MIB))
    stored = world.stored_bytes(store, keys.part_key(upload.upload_id, 1))
    facts = [replace(one, number=number) for number in range(1, 10_001)]
    for each in facts:
        forge(store, keys.part_key(upload.upload_id, each.number), stored, **metadata_of(each))
    backend.calls.clear()
    done = await process.complete(wanted(upload, *facts))
    assert done.etag.endswith("-10000")
    reading = Process(store)
    attributes = await reading.instance.reader.attributes(reading.instance.source(KEY))
    assert (attributes.size, attributes.part_count) == (10_000 * 5 * MIB, 10_000)
    start = 10_000 * 5 * MIB - 3
    assert await reading.instance.ranged(KEY, start, start + 3) == (bytes(3), None)
    assert backend.count("head") == 10_000
    assert len(backend.calls) < 20_100
    assert process.instance.budget.used == 0
