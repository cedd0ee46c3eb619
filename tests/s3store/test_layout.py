"""Names, tokens, stamps and commit metadata, without a store. Acceptance 1 to 7."""

import json
import random
import re
import threading
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3store import clock, durations, layout, patterns
from s4gateway.s3store.commit import Commit
from s4gateway.s3store.errors import (
    CommitMetadataError,
    ConfigError,
    KeyPatternError,
    PartitionKeyError,
    TokenError,
)
from tests.s3store import world

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "fixtures" / "go_vectors.json").read_text()
)
KEYS = layout.Keys("p")
ATTEMPT = "0190a1b23c4d7e5f8a9bcdef01234567"


def verdict(check: Any, *arguments: Any) -> bool:
    try:
        check(*arguments)
    except ValueError:
        return False
    return True


# --- 1: the vectors a Go writer made


@pytest.mark.parametrize(("text", "escaped"), VECTORS["path_escape"].items())
def test_01_escaping_is_go_s(text: str, escaped: str):
    assert layout.escape(text) == escaped
    assert layout.unescape(escaped) == text


@pytest.mark.parametrize(("text", "plain"), VECTORS["path_unescape"].items())
def test_01_unescaping_is_as_strict_as_go_s(text: str, plain: str | None):
    assert layout.unescape(text) == plain


@pytest.mark.parametrize(("name", "said"), VECTORS["parse_ref"].items())
def test_01_a_ref_s_name_says_what_it_says_to_go(name: str, said: dict[str, Any] | None):
    ref = layout.parse_ref(name)
    if said is None:
        assert ref is None
    else:
        fields = (said["ref_micro_ts"], said["token"], said["attempt_id"], said["hive_key"])
        assert ref == layout.Ref(*fields)


@pytest.mark.parametrize("vector", VECTORS["encode_ref"], ids=lambda v: v["hive_key"])
def test_01_a_ref_s_key_is_go_s(vector: dict[str, str]):
    special = {"neg": (-5, "t", "a=b"), "small": (5, "t", "a=b")}
    us, token, partition = special.get(
        vector["hive_key"], (1710684000123456, "tok:1", vector["hive_key"])
    )
    assert KEYS.ref(us, token, ATTEMPT, partition) == vector["key"]


@pytest.mark.parametrize(("text", "nanoseconds"), VECTORS["duration_ns"].items())
def test_01_a_duration_is_go_s_to_the_nanosecond(text: str, nanoseconds: int | None):
    if nanoseconds is None:
        assert not verdict(durations.parse, text)
    else:
        assert durations.parse(text) == nanoseconds
        assert durations.parse(durations.serialize(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(("token", "good"), VECTORS["tokens"].items())
def test_01_a_token_is_judged_as_by_go(token: str, good: bool):
    assert verdict(layout.check_token, token) is good


@pytest.mark.parametrize(("text", "said"), VECTORS["patterns"].items())
def test_01_a_pattern_is_judged_and_planned_as_by_go(text: str, said: dict[str, Any]):
    if not said["ok"]:
        with pytest.raises(KeyPatternError):
            patterns.parse(world.PARTS, text)
    else:
        plan = patterns.parse(world.PARTS, text)
        assert KEYS.data_root + plan.list_prefix == said["list_prefix"]


@pytest.mark.parametrize("vector", VECTORS["offsets"], ids=lambda v: v["time"])
def test_01_an_offset_is_go_s(vector: dict[str, str]):
    # Python has no nanoseconds: what is below a microsecond is cut off, as Go's floor does.
    text = re.sub(r"(\.\d{6})\d*", r"\1", vector["time"]).replace("Z", "+00:00")
    assert KEYS.offset(clock.to_us(datetime.fromisoformat(text))) == vector["offset"]


# --- 2: attempts


def test_02_attempt_ids_are_uuid7_unique_and_strictly_increasing():
    made: list[list[str]] = []

    def make() -> None:
        made.append([layout.new_attempt() for _ in range(12_500)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [each for ids in made for each in ids]
    assert len(everything) == 100_000 == len(set(everything))
    assert all(ids == sorted(ids) and len(set(ids)) == len(ids) for ids in made)
    assert all(layout.is_attempt(each) and each[12] == "7" for each in everything)
    sample = uuid.UUID(everything[0])
    assert (sample.version, sample.variant) == (7, uuid.RFC_4122)
    assert abs(int(everything[0][:12], 16) / 1000 - datetime.now(UTC).timestamp()) < 60


def test_02_attempt_ids_grow_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch):
    now = [1_790_000_000_000_000_000]
    monkeypatch.setattr("time.time_ns", lambda: now[0])
    attempts = layout._Attempts()
    first = attempts.new()
    now[0] -= 3_600_000_000_000
    assert attempts.new() > first


# --- 3, 4: refs

VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1)
TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)


@given(
    token=TOKENS.filter(lambda t: verdict(layout.check_token, t)),
    values=st.tuples(VALUES, VALUES).filter(lambda vs: not any(".." in v for v in vs)),
    us=st.integers(0, 10**16 - 1),
)
def test_03_any_ref_can_be_read_back(token: str, values: tuple[str, str], us: int):
    partition = f"period={values[0]}/customer={values[1]}"
    assert layout.split_partition(world.PARTS, partition) == values
    key = KEYS.ref(us, token, ATTEMPT, partition)
    assert layout.parse_ref(key) == layout.Ref(us, token, ATTEMPT, partition)


@pytest.mark.parametrize("token", ["a-b", "--", "-", ATTEMPT, f"{ATTEMPT}-{ATTEMPT}", "x.commit"])
@pytest.mark.parametrize("value", ["a;b", "100%", "a?b", "a+b c", "é", "日本", "x.ref", ";", "a:b"])
def test_03_refs_of_odd_tokens_and_values_can_be_read_back(token: str, value: str):
    partition = f"period=X/customer={value}"
    ref = layout.parse_ref(KEYS.ref(5, token, ATTEMPT, partition))
    assert ref == layout.Ref(5, token, ATTEMPT, partition)
    name = KEYS.data(partition, token, ATTEMPT).rpartition("/")[2]
    assert layout.split_data_name(name) == (token, ATTEMPT)
    assert layout.commit_token(KEYS.commit(partition, token).rpartition("/")[2]) == token


def test_04_refs_sort_by_their_stamp_and_stand_on_the_right_side_of_an_offset():
    moment = datetime(2026, 3, 17, 1, 2, 3, 4, tzinfo=UTC)
    us = clock.to_us(moment)
    stamps = [us + shift for shift in (-1_000_000, -1, 0, 1, 999)]
    refs = [KEYS.ref(stamp, random.choice("az"), ATTEMPT, "a=b") for stamp in stamps]
    assert refs == sorted(refs)
    at = KEYS.offset(us)
    assert [ref >= at for ref in refs] == [False, False, True, True, True]
    elsewhere = moment.astimezone(timezone(timedelta(hours=5)))
    assert KEYS.offset(clock.to_us(elsewhere)) == at


def test_04_a_moment_without_a_zone_is_refused():
    with pytest.raises(ConfigError, match="no time zone"):
        clock.to_us(datetime(2026, 3, 17))  # noqa: DTZ001


# --- 5: commit metadata

COMMIT = Commit(ATTEMPT, ref_us=1710684000123456, inserted_us=-5, rows=3)


def test_05_metadata_can_be_read_back_in_any_case_of_its_names():
    described = COMMIT.to_metadata()
    assert Commit.parse("k", described) == COMMIT
    assert Commit.parse("k", {k.title(): v for k, v in described.items()}) == COMMIT
    signed = described | {"rowcount": "+3"}
    assert Commit.parse("k", signed) == COMMIT


@pytest.mark.parametrize("field", COMMIT.to_metadata())
def test_05_a_missing_value_is_an_error_that_names_key_and_field(field: str):
    described = COMMIT.to_metadata()
    del described[field]
    with pytest.raises(CommitMetadataError, match=r"data/x\.commit") as raised:
        Commit.parse("data/x.commit", described)
    assert (raised.value.key, raised.value.field) == ("data/x.commit", field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            (field, value)
            for field in ("refmicrots", "insertedat", "rowcount")
            for value in (
                "",
                "1_0",
                " 1",
                "1 ",
                "\u0661",
                "1.0",
                "0x1",
                "+",
                str(1 << 63),
                "9" * 5000,
            )
        ),
        ("attemptid", ATTEMPT.upper()),
        ("attemptid", ATTEMPT[1:]),
        ("attemptid", ATTEMPT + "0"),
        ("attemptid", ""),
        ("insertedat", str((1 << 63) - 1)),
    ],
)
def test_05_a_malformed_value_is_an_error_that_names_the_field(field: str, value: str):
    with pytest.raises(CommitMetadataError) as raised:
        Commit.parse("k", COMMIT.to_metadata() | {field: value})
    assert raised.value.field == field


# --- partition keys, tokens, markers


@pytest.mark.parametrize(
    "key",
    ["", "period=X", "period=X/customer=", "customer=a/period=b", "period=X/customer=a/",
     "Period=X/customer=a", "period=a..b/customer=c", "period=X/customer=a/more=b",
     "period/customer=a", "period=\ud800/customer=a"],
)  # fmt: skip
def test_a_malformed_partition_key_is_refused_by_name(key: str):
    with pytest.raises(PartitionKeyError) as raised:
        layout.split_partition(world.PARTS, key)
    assert raised.value.key == key


@pytest.mark.parametrize("parts", [(), ("a", "a"), ("",), ("a=b",), ("a/b",), "period"])
def test_malformed_part_names_are_refused(parts: Any):
    with pytest.raises(ConfigError):
        layout.check_parts(parts)


def test_a_token_that_is_no_text_is_refused():
    for token in (None, 5, b"t"):
        with pytest.raises(TokenError):
            layout.check_token(token)


@pytest.mark.parametrize(
    "name",
    ["x.parquet", f"-{ATTEMPT}.parquet", f"{ATTEMPT}.parquet", f"t-{ATTEMPT.upper()}.parquet",
     f"t_{ATTEMPT}.parquet", "notes.txt"],
)  # fmt: skip
def test_a_name_that_is_no_data_file_s_is_nobody_s(name: str):
    assert layout.split_data_name(name) is None


def test_the_bare_suffix_is_no_commit_marker():
    assert layout.commit_token(".commit") is None


def test_a_marker_s_key_can_be_read_back_and_nothing_else_can():
    key = KEYS.marker("v", ("a", "b"), ("1=2", "é +"))
    assert key == "p/_matview/v/a=1=2/b=é +/m.matview"
    assert KEYS.parse_marker("v", ("a", "b"), key) == ("1=2", "é +")
    for wrong in (key + "x", key.replace("_matview", "x"), key.replace("/b=", "/c="), "p/v"):
        with pytest.raises(ValueError, match=r"marker|begin with"):
            KEYS.parse_marker("v", ("a", "b"), wrong)


# --- 6: the gate's key


@pytest.mark.parametrize("face", ["async"], indirect=True)
async def test_06_a_colon_in_token_and_value_does_not_confuse_the_gate(dataset: world.World):
    """`(x:y, z)` and `(x, y:z)` are two things, whatever they look like joined."""
    async with dataset.open() as orders:
        base = "period=1/customer=x"
        await orders.write_with_key(f"{base}:y", [world.order("a")], token="z")
        await orders.write_with_key(base, [world.order("b")], token="y:z")
        await dataset.inner.put(  # an orphan of the first one's twin
            layout.Keys(dataset.prefix).data(base, "z", ATTEMPT), b"no parquet"
        )
        found = await orders.committed_files("*")
        assert [(file.partition, file.token) for file in found] == [
            (base, "y:z"),
            (f"{base}:y", "z"),
        ]
        dataset.settle()
        assert len((await orders.poll()).entries) == 2


# --- 7: lengths


@pytest.mark.parametrize("face", ["async"], indirect=True)
@pytest.mark.parametrize("value", ["x" * 950, ";" * 330], ids=["data file", "escaped ref"])
async def test_07_a_key_that_s3_would_refuse_is_refused_without_a_request(
    dataset: world.World, value: str
):
    async with dataset.open() as orders:
        with pytest.raises(PartitionKeyError, match="S3 allows 1024"):
            await orders.write_with_key(f"period=1/customer={value}", [world.order("a")])
        with pytest.raises(PartitionKeyError, match="S3 allows 1024"):
            await orders.write_with_key(f"period=1/customer={value}", [world.order("a")], token="t")
    assert dataset.store.counts() == {}


def test_07_a_marker_key_above_1000_bytes_is_refused():
    assert len(KEYS.marker("v", ("a",), ("x" * 972,))) == 1000 - 3
    with pytest.raises(ConfigError, match="longer than 1000 bytes"):
        KEYS.marker("v", ("a",), ("é" * 490,))
