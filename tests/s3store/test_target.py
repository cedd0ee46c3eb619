"""Opening and seeding a dataset. Acceptance 8 to 11."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from s4gateway.s3store import (
    AsyncReader,
    AsyncWriter,
    Boto3Transport,
    ConfigError,
    Consistency,
    MemoryTransport,
    S3Target,
    S3TargetConfig,
    TimingConfigError,
    Writer,
    init_dataset,
    init_dataset_blocking,
)
from s4gateway.s3store.errors import NotFound
from tests.s3store import transports, world

TIMEOUT, SKEW = "p/_config/commit-timeout", "p/_config/max-clock-skew"


async def seeded(**values: str) -> MemoryTransport:
    store = MemoryTransport()
    for name, value in {"commit_timeout": "15s", "max_clock_skew": "1s", **values}.items():
        await store.put(f"p/_config/{name.replace('_', '-')}", value.encode())
    return store


def config(store: Any, **more: Any) -> S3TargetConfig:
    return S3TargetConfig(bucket="b", prefix="p", client=store, partition_key_parts=("a",), **more)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"commit_timeout": "junk"}, TIMEOUT),
        ({"commit_timeout": "500us"}, TIMEOUT),
        ({"commit_timeout": "0"}, TIMEOUT),
        ({"commit_timeout": ""}, TIMEOUT),
        ({"max_clock_skew": "-1s"}, SKEW),
        ({"max_clock_skew": "5"}, SKEW),
    ],
)
async def test_08_timing_that_cannot_be_is_an_error_naming_the_object(
    values: dict[str, str], key: str
):
    with pytest.raises(TimingConfigError, match=f"b/{key}") as raised:
        await S3Target.open(config(await seeded(**values)))
    assert (raised.value.bucket, raised.value.key) == ("b", key)


@pytest.mark.parametrize("key", [TIMEOUT, SKEW])
async def test_08_an_unseeded_dataset_is_not_opened_and_the_error_says_how_to_seed(key: str):
    store = await seeded()
    del store.objects[key]
    with pytest.raises(TimingConfigError, match=rf"b/{key}: is absent: seed .*init_dataset"):
        await S3Target.open(config(store))


async def test_08_timing_text_that_is_no_utf8_is_an_error():
    store = await seeded()
    await store.put(TIMEOUT, b"\xff")
    with pytest.raises(TimingConfigError):
        await S3Target.open(config(store))


async def test_08_opening_costs_two_gets_and_reads_go_s_durations():
    store = transports.ScriptedTransport(await seeded(commit_timeout="1s\n", max_clock_skew=" 0s "))
    async with await S3Target.open(config(store)) as target:
        assert store.counts() == {"get": 2}
        assert target.commit_timeout == target.settle_window == timedelta(seconds=1)
        assert target.max_clock_skew == timedelta(0)


async def test_08_the_settle_window_is_rounded_up_to_microseconds():
    store = await seeded(commit_timeout="10.0000001s", max_clock_skew="1ns")
    target = await S3Target.open(config(store))
    assert target.timing.settle_us == 10_000_001


@pytest.mark.parametrize(("value", "warnings"), [("7s", 1), ("7999ms", 1), ("8s", 0), ("1m", 0)])
async def test_09_a_short_commit_timeout_is_one_warning(
    value: str, warnings: int, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        await S3Target.open(config(await seeded(commit_timeout=value)))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == warnings
    assert all("b/p" in text for text in said)


@pytest.mark.parametrize(
    ("level", "sent"),
    [
        (Consistency.DEFAULT, "strong-global"),
        ("", "strong-global"),
        (Consistency.AVAILABLE, "available"),
        ("quorum", "quorum"),
    ],
)
async def test_10_every_request_carries_the_level(
    level: str, sent: str, caplog: pytest.LogCaptureFixture
):
    store = transports.ScriptedTransport(await seeded())
    with caplog.at_level(logging.WARNING):
        target = await S3Target.open(config(store, consistency=level))
    await target.calls.put("p/data/a=1/x", b"1")
    await target.calls.head("p/data/a=1/x")
    await target.calls.get_range("p/data/a=1/x", 0, 1)
    async for _ in target.calls.list_pages("p/"):
        pass
    assert set(store.counts()) == {"put", "get", "head", "list"}
    assert {r.headers["Consistency-Control"] for r in store.requests} == {sent}
    assert target.consistency == sent
    assert ("quorum" in caplog.text) is (level == "quorum")


async def test_10_the_level_is_signed_and_the_callers_client_does_not_send_it(moto: Any):
    seen: list[Any] = []

    def watch(request: Any, **_: Any) -> None:
        seen.append(dict(request.headers.items()))

    moto.client.meta.events.register("before-send.s3", watch)
    adapter = Boto3Transport(moto.client, moto.bucket, workers=2)
    headers = {"Consistency-Control": "available"}
    try:
        await adapter.put("signed/x", b"1", headers=headers)
        await adapter.get("signed/x", headers=headers)
        await adapter.head("signed/x", headers=headers)
        await adapter.list_page("signed/", headers=headers)
        moto.client.head_object(Bucket=moto.bucket, Key="signed/x")
    finally:
        moto.client.meta.events.unregister("before-send.s3", watch)
        await adapter.aclose()
    *ours, theirs = seen
    assert len(ours) == 4
    for sent in ours:
        assert sent["Consistency-Control"] in ("available", b"available")
        signed = sent["Authorization"]
        assert "consistency-control" in (signed.decode() if isinstance(signed, bytes) else signed)
    assert "Consistency-Control" not in theirs


async def test_11_seeding_twice_is_fine_and_with_other_values_is_refused():
    store = transports.ScriptedTransport(MemoryTransport())
    await init_dataset(store, "b", "p", commit_timeout="15s", max_clock_skew="1s")
    puts = [request for request in store.requests if request.op == "put"]
    assert [(put.key, put.details["if_none_match"]) for put in puts] == [
        (TIMEOUT, True),
        (SKEW, True),
    ]
    await init_dataset(store, "b", "p", commit_timeout="15000ms", max_clock_skew="1s")
    for other in ({"commit_timeout": "16s"}, {"max_clock_skew": timedelta(seconds=2)}):
        with pytest.raises(ConfigError, match="stays so"):
            await init_dataset(store, "b", "p", **other)
    with pytest.raises(ConfigError, match="exists already"):
        await init_dataset(store, "b", "p", exist_ok=False)
    assert store.counts()["put"] == 2


@pytest.mark.parametrize(
    "wrong", [{"commit_timeout": "1"}, {"commit_timeout": "0s"}, {"max_clock_skew": "-1s"}]
)
async def test_11_seeding_with_bad_values_makes_no_request(wrong: dict[str, str]):
    store = transports.ScriptedTransport(MemoryTransport())
    with pytest.raises(ConfigError, match=r"commit_timeout|max_clock_skew"):
        await init_dataset(store, "b", "p", **wrong)
    assert store.counts() == {}


async def test_11_callers_at_the_same_time_leave_one_consistent_pair():
    store = MemoryTransport()

    async def late(send: transports.Send) -> Any:
        try:
            return await send()
        finally:
            await asyncio.sleep(0)

    async def seed(number: int) -> bool:
        scripted = transports.ScriptedTransport(store)
        scripted.script("get", "", late, times=99)
        scripted.script("put", "", late, times=99)
        try:
            await init_dataset(
                scripted, "b", "p", commit_timeout=f"{number}s", max_clock_skew=f"{number}ms"
            )
        except ConfigError:
            return False
        return True

    won = await asyncio.gather(*(seed(number) for number in range(1, 9)))
    assert sum(won) == 1
    number = won.index(True) + 1
    assert store.objects[TIMEOUT].body.decode() == f"{number}s"
    assert store.objects[SKEW].body.decode() == f"{number}ms"


async def test_11_a_store_that_ignores_the_condition_is_not_overwritten():
    """The values are looked at before anything is stored."""
    store = await seeded()
    scripted = transports.ScriptedTransport(store)
    await init_dataset(scripted, "b", "p")
    assert scripted.counts() == {"get": 2}


def test_seeding_works_without_an_event_loop():
    store = MemoryTransport()
    init_dataset_blocking(store, "b", "p")
    assert store.objects[TIMEOUT].body == b"15s"


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": ""},
        {"prefix": ""},
        {"client": None},
        {"client": object()},
        {"max_inflight_requests": -1},
    ],
)
async def test_a_target_that_cannot_work_is_refused(wrong: dict[str, Any]):
    options = {"bucket": "b", "prefix": "p", "client": MemoryTransport()} | wrong
    with pytest.raises(ConfigError):
        await S3Target.open(S3TargetConfig(**options))


async def test_readers_and_writers_need_partition_parts_and_a_bare_target_does_not():
    store = await seeded()
    target = await S3Target.open(S3TargetConfig(bucket="b", prefix="p", client=store))
    target.validate_lookup()
    for kind in (AsyncReader, AsyncWriter):
        with pytest.raises(ConfigError, match="partition_key_parts"):
            kind(target, world.Order)


async def test_a_blocking_writer_needs_a_target_for_blocking_callers():
    target = await S3Target.open(config(await seeded()))
    with pytest.raises(ConfigError, match="open_blocking"):
        Writer(target, world.Order)


async def test_the_prefix_is_used_as_it_is():
    store = MemoryTransport()
    await init_dataset(store, "b", "/odd//prefix/")
    assert set(store.objects) == {
        "/odd//prefix//_config/commit-timeout",
        "/odd//prefix//_config/max-clock-skew",
    }


async def test_a_bucket_that_is_not_there_is_no_missing_object(moto: Any):
    adapter = Boto3Transport(moto.client, "nobody-s", workers=1)
    try:
        with pytest.raises(Exception, match="NoSuchBucket") as raised:
            await adapter.get("k")
        assert not isinstance(raised.value, NotFound)
    finally:
        await adapter.aclose()
