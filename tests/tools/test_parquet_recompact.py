"""Parquet objects rewritten in their place: what is replaced, what is left alone and why."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from s4gateway.backend import base
from s4gateway.backend.base import Body
from s4gateway.s3.headers import Headers
from s4gateway.state.ledger import Delta
from s4gateway.state.shared_file import SharedFile
from s4gateway.tools import parquet_making
from s4gateway.tools.objects import Making
from s4gateway.tools.parquet_recompact import ParquetParams, ParquetReport, parquet_recompact
from s4gateway.tools.parquet_workers import Work, Workers
from s4gateway.tools.patience import Patience
from s4gateway.tools.target import Target
from s4gateway.wire import keys, manifest
from s4gateway.wire.codec_id import CodecId
from tests import corpus
from tests.backends import CountingBackend
from tests.objects import tailed, world
from tests.objects.counted import MemoryLedger, metadata_of, really_held
from tests.objects.world import BUCKET
from tests.tools import parquet_made
from tests.tools.described import DescribedBackend
from tests.tools.parquet_made import rewritten, written

TABLE = parquet_made.table(2_000)
SNAPPY = written(TABLE)
PLAIN = written(TABLE, "none")
QUICK = Patience(attempts=2, first=0, longest=0)


@pytest.fixture
def store() -> DescribedBackend:
    return DescribedBackend.with_buckets(BUCKET)


async def run(store: Any, *, execute: bool = True, **options: Any) -> ParquetReport:
    chosen = {"making": Making(threads=2), "patience": QUICK, **options}
    return await parquet_recompact(
        store, ParquetParams(target=Target(BUCKET), execute=execute, **chosen)
    )


async def fill(
    store: Any,
    bodies: dict[str, bytes],
    ledger: Any = None,
    codec: CodecId = CodecId.PASSTHROUGH,
) -> None:
    """As a gateway has stored them: as they come, or in frames."""
    instance = world.Instance(store, ledger=ledger, codec=codec)
    for key, body in bodies.items():
        await instance.put(key, body)
    await instance.close()


async def read(store: Any, key: str) -> bytes:
    instance = world.Instance(store)
    try:
        return await instance.get(key)
    finally:
        await instance.close()


def data(store: DescribedBackend, key: str) -> bytes:
    return store.buckets[BUCKET][key].data


def skipped(report: ParquetReport) -> dict[str, int]:
    fields = {name: getattr(report, name) for name in dir(report) if name.startswith("skipped_")}
    return {name.removeprefix("skipped_"): count for name, count in fields.items() if count}


async def test_anybodys_files_become_smaller_and_stay_anybodys(store: DescribedBackend):
    headers = [
        ("content-type", "application/vnd.apache.parquet"),
        ("cache-control", "no-cache"),
        ("expires", "Thu, 01 Jan 2037 00:00:00 GMT"),
        ("x-amz-meta-made", "by hand"),
        ("x-amz-tagging", "a=1"),
        ("x-amz-storage-class", "STANDARD_IA"),
    ]
    await store.put(BUCKET, "a/snappy.parquet", Body.of(SNAPPY), headers)
    await store.put(BUCKET, "plain.parquet", Body.of(PLAIN))
    dry = await run(store, execute=False)
    assert data(store, "plain.parquet") == PLAIN
    report = await run(store)
    expected = rewritten(SNAPPY), rewritten(PLAIN)
    for each in (dry, report):
        assert (each.recompacted, each.failed, skipped(each)) == (2, 0, {}), each.failures
        assert each.recompacted_bytes_before == len(SNAPPY) + len(PLAIN)
        assert each.recompacted_bytes_after == sum(map(len, expected))
    assert (data(store, "a/snappy.parquet"), data(store, "plain.parquet")) == expected
    head = await store.head(BUCKET, "a/snappy.parquet")
    kept = [(name, head.headers.get(name)) for name, _ in headers if name != "x-amz-tagging"]
    assert kept == [each for each in headers if each[0] != "x-amz-tagging"]
    assert store.tags["a/snappy.parquet"] == [("a", "1")]
    found = metadata_of(store.buckets[BUCKET]["plain.parquet"])
    assert not [name for name in found if name.startswith("s4-")]
    assert skipped(await run(store)) == {"already_zstd": 2}


async def test_a_gateways_files_are_read_through_its_frames_and_stay_its_own(
    store: DescribedBackend,
):
    frames = tailed.tailed([PLAIN[:200_000], PLAIN[200_000:]], frame_size=50_000, padding=150_000)
    await fill(store, {"stored.parquet": SNAPPY})
    await fill(store, {"framed.parquet": PLAIN}, codec=CodecId.CPU_ZSTD)
    tailed.put_tailed(store, "parts.parquet", frames)
    framed = data(store, "framed.parquet")
    assert len(framed) < len(rewritten(PLAIN))  # frames go across pages and columns
    report = await run(store)
    assert (report.recompacted, report.failed) == (2, 0), report.failures
    assert skipped(report) == {"insufficient_gain": 1}
    assert data(store, "framed.parquet") == framed
    for key, old in {"stored.parquet": SNAPPY, "parts.parquet": PLAIN}.items():
        made = rewritten(old)
        assert await read(store, key) == made
        found = metadata_of(store.buckets[BUCKET][key])
        assert (found[manifest.CODEC], found[manifest.ORIGINAL_SIZE]) == (
            "passthrough", str(len(made)),
        )  # fmt: skip
        assert manifest.MULTIPART not in found
        assert keys.sidecar_key(key) not in store.buckets[BUCKET]


async def test_each_reason_to_leave_an_object_alone_has_its_count(store: DescribedBackend):
    def changed(codec: int) -> bytes:
        footer = parquet_made.footer(SNAPPY)
        next(footer.chunks()).meta.set_number(4, codec)
        return parquet_made.with_footer(SNAPPY, footer)

    start = parquet_made.footer(SNAPPY).start
    bodies = {
        "notes.txt": b"text",
        "empty.parquet": b"",
        "text.parquet": corpus.text(70_000),
        "zstd.parquet": written(TABLE, "zstd"),
        "small-zstd.parquet": written(TABLE.slice(0, 1), "zstd"),
        "brotli.parquet": written(TABLE, "brotli"),
        "sealed.parquet": b"PARE" + SNAPPY[4:-4] + b"PARE",
        "lzo.parquet": changed(3),
        "odd.parquet": SNAPPY[:start] + b"odd" + SNAPPY[start:],
        "cut.parquet": SNAPPY[:-1],
        "lake/_delta_log/0.json": b"{}",
        "lake/day=1/part.parquet": SNAPPY,
        "berg/metadata/v1.metadata.json": b"{}",
        "berg/data/part.parquet": SNAPPY,
    }
    for key, body in bodies.items():
        await store.put(BUCKET, key, Body.of(body))
    await fill(store, {"framed-text.parquet": corpus.text(90_000)}, codec=CodecId.CPU_ZSTD)
    before = dict(store.buckets[BUCKET])
    report = await run(store)
    assert skipped(report) == {
        "other_suffix": 3, "not_parquet": 3, "already_zstd": 2, "insufficient_gain": 1,
        "parquet_encrypted": 1, "unsupported_codec": 1, "unsupported_structure": 1,
        "table_file": 2,
    }  # fmt: skip
    assert [(each.key, each.op) for each in report.failures] == [("cut.parquet", "parquet")]
    assert [(each.key, each.op) for each in report.refused] == [
        ("berg/data/part.parquet", "table-file"),
        ("lake/day=1/part.parquet", "table-file"),
        ("lzo.parquet", "unsupported-codec"),
        ("odd.parquet", "unsupported-structure"),
    ]
    assert store.buckets[BUCKET] == before
    assert report.total_objects == len(bodies) + 1


async def test_tables_and_all_keys_are_rewritten_when_asked_to(store: DescribedBackend):
    await store.put(BUCKET, "lake/_delta_log/0.json", Body.of(b"{}"))
    await store.put(BUCKET, "lake/part", Body.of(SNAPPY))
    report = await run(store, table_files=True, suffix="")
    assert (report.recompacted, skipped(report)) == (1, {"not_parquet": 1})


async def test_a_folder_is_asked_once_whether_it_is_a_table(store: DescribedBackend):
    for number in range(4):
        await store.put(BUCKET, f"a/b/{number}.parquet", Body.of(SNAPPY[:-1]))
    counting = CountingBackend(store)
    report = await run(counting, concurrency=1)
    assert report.failed == 4
    walk, folders, marks = 1, 3, 3
    assert counting.count("list") == walk + folders * marks


class Expiring(DescribedBackend):
    """A store whose lifecycle rules will remove some objects."""

    async def get(self, bucket: str, key: str, **options: Any) -> base.ObjectStream:
        stream = await DescribedBackend.get(self, bucket, key, **options)
        if key.startswith("logs/"):
            more = ("x-amz-expiration", 'expiry-date="...", rule-id="logs"')
            fields = Headers([*stream.head.headers.items(), more])
            stream.head = replace(stream.head, headers=fields)
        return stream


async def test_what_a_lifecycle_rule_will_remove_is_not_made_young_again():
    store = Expiring.with_buckets(BUCKET)
    for key in ("logs/a.parquet", "kept/a.parquet"):
        await store.put(BUCKET, key, Body.of(SNAPPY))
    report = await run(store)
    assert (report.recompacted, skipped(report)) == (1, {"expiring": 1})


async def test_bounds_leave_larger_files_and_row_groups_alone(store: DescribedBackend):
    await store.put(BUCKET, "a.parquet", Body.of(SNAPPY))
    await fill(store, {"framed.parquet": PLAIN}, codec=CodecId.CPU_ZSTD)
    stored = len(data(store, "framed.parquet"))
    assert stored < len(PLAIN)
    assert skipped(await run(store, max_body_bytes=stored)) == {"too_large": 2}
    assert skipped(await run(store, max_row_group_bytes=1_000)) == {"row_group_too_large": 2}


async def test_already_compressed_files_cost_their_footer(store: DescribedBackend):
    large = written(parquet_made.table(20_000), "zstd", row_group_size=1_000)
    await store.put(BUCKET, "a.parquet", Body.of(large))
    counting = CountingBackend(store)
    assert skipped(await run(counting)) == {"already_zstd": 1}
    assert counting.received < 150_000 < len(large)


async def test_what_gained_too_little_is_not_read_again(store: DescribedBackend, tmp_path: Path):
    state = tmp_path / "state"
    await store.put(BUCKET, "a.parquet", Body.of(SNAPPY))
    first = await run(store, min_gain_percent=90.0, state_file=state)
    counting = CountingBackend(store)
    second = await run(counting, min_gain_percent=90.0, state_file=state)
    for report, remembered in ((first, 0), (second, 1)):
        assert (skipped(report), report.remembered) == ({"insufficient_gain": 1}, remembered)
    assert counting.received < 10_000
    assert (await run(store, state_file=state)).recompacted == 1


async def test_a_version_that_came_in_between_is_kept(
    store: DescribedBackend, monkeypatch: pytest.MonkeyPatch
):
    await store.put(BUCKET, "a.parquet", Body.of(SNAPPY))
    rewrite = Workers.rewrite

    async def overtaken(found: Workers, work: Work, old: int, new: int) -> dict[str, Any]:
        answer = await rewrite(found, work, old, new)
        await store.put(BUCKET, "a.parquet", Body.of(PLAIN))
        return answer

    monkeypatch.setattr(Workers, "rewrite", overtaken)
    report = await run(store)
    assert (report.recompacted, skipped(report)) == (0, {"etag_raced": 1})
    assert data(store, "a.parquet") == PLAIN


@pytest.mark.parametrize(
    ("answer", "op"),
    [
        ({"outcome": "other-values", "why": "row group 0"}, "verify"),
        ({"outcome": "mismatch", "why": "pages"}, "verify"),
        ({"outcome": "memory", "why": "too much"}, "rewrite"),
        ({"outcome": "damaged", "why": "crc"}, "parquet"),
    ],
)
async def test_what_does_not_verify_fails_and_is_not_written(
    store: DescribedBackend, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], op: str
):
    async def answered(*_: Any) -> dict[str, Any]:
        return answer

    monkeypatch.setattr(Workers, "rewrite", answered)
    await store.put(BUCKET, "a.parquet", Body.of(SNAPPY))
    report = await run(store)
    assert [(each.op, each.cause) for each in report.failures] == [(op, answer["why"])]
    tolerant = await run(store, tolerate_value_mismatch=True)
    tolerated = answer["outcome"] == "other-values"
    assert skipped(tolerant) == ({"value_mismatch": 1} if tolerated else {})
    assert tolerant.failed == (0 if tolerated else 1)
    assert data(store, "a.parquet") == SNAPPY


async def test_bytes_that_are_not_those_the_store_vouches_for_are_not_rewritten(
    store: DescribedBackend,
):
    await store.put(BUCKET, "a.parquet", Body.of(SNAPPY), [("x-amz-checksum-crc32", "AAAAAA==")])
    report = await run(store)
    assert [(each.op, "crc32" in each.cause) for each in report.failures] == [
        ("GetObject(body)", True)
    ]


async def test_a_full_disk_is_a_failure_of_the_object(
    store: DescribedBackend, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet_making.UnnamedFile, "append", full)
    await store.put(BUCKET, "a.parquet", Body.of(SNAPPY))
    report = await run(store)
    assert [each.cause for each in report.failures] == ["[Errno 28] No space left on device"]


async def test_the_ledger_follows_to_the_byte(store: DescribedBackend, tmp_path: Path):
    path, ledger = tmp_path / "ledger.json", MemoryLedger()
    await fill(store, {"a.parquet": SNAPPY, "b.parquet": PLAIN}, ledger)
    file = SharedFile(path, lambda error, moved_to: None)
    file.merge({BUCKET: Delta(ledger.original, ledger.stored, ledger.objects)})
    report = await run(store, ledger_file=path)
    assert (report.recompacted, report.failed) == (2, 0), report.failures
    counters = file.load()[BUCKET]
    file.close()
    held = (counters.original_bytes, counters.stored_bytes, counters.objects)
    assert held == really_held(store)
    assert metadata_of(store.buckets[BUCKET]["a.parquet"])[manifest.LEDGER] == "1"
    assert pq.read_table(io.BytesIO(await read(store, "a.parquet"))).num_rows == 2_000
