"""Rules carried out one after the other: in order, each of them, until told to stop."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from s4gateway.backend.base import Backend, BackendAnswer, Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.cli.render import as_json
from s4gateway.tools import rules as policies
from s4gateway.tools.maintain import Done, Failed, MaintainReport, RuleRun, Setting, run_rules
from s4gateway.tools.objects import Making
from s4gateway.tools.rules import Rule
from tests import corpus
from tests.backends import Call, FaultyBackend
from tests.objects import world
from tests.objects.world import BUCKET, Instance

TEXT = corpus.log(60_000)
STEPS = {
    "compress": {"prefix": "new/", "action": "migrate", "no-tags": True},
    "squeeze": {"prefix": "kept/", "action": "recompact", "no-tags": True},
    "cool": {"prefix": "kept/", "action": "transition", "storage-class": "GLACIER_IR"},
    "clean": {"action": "mpu-state-gc", "older-than": "2d"},
}


def policy(**rules: dict[str, Any]) -> tuple[Rule, ...]:
    problems: list[str] = []
    tables = [{"name": name, "bucket": BUCKET, **keys} for name, keys in rules.items()]
    found = policies.parse_table({"rule": tables}, problems)
    assert problems == []
    return found


@pytest.fixture
async def store() -> MemoryBackend:
    """Two plain objects, and one that a gateway wrote."""
    store = MemoryBackend.with_buckets(BUCKET)
    for key in ("new/1", "new/2"):
        await store.put(BUCKET, key, Body.of(TEXT))
    writing = Instance(store)
    await writing.put("kept/1", TEXT)
    await writing.close()
    return store


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(Making(threads=1, spool=tmp_path, conditional_writes=True), execute=True)


async def maintain(
    backend: Backend, setting: Setting, rules: tuple[Rule, ...], **more: Any
) -> MaintainReport:
    return await run_rules(backend, rules, setting, asyncio.Event(), **more)


def figures(run: RuleRun, *names: str) -> list[int]:
    assert isinstance(run.outcome, Done)
    return [getattr(run.outcome.report, name) for name in names]


async def test_rules_are_carried_out_from_top_to_bottom(store: MemoryBackend, setting: Setting):
    told: list[str] = []
    report = await maintain(store, setting, policy(**STEPS), tell=lambda run: told.append(run.name))
    assert told == [run.name for run in report.rules] == list(STEPS)
    assert (report.rules_total, report.rules_run, report.rules_failed) == (4, 4, 0)
    compress, squeeze, cool, clean = report.rules
    assert figures(compress, "migrated") == [2]
    assert figures(squeeze, "recompacted") == [1]
    assert figures(cool, "transitioned") == [1]
    assert figures(clean, "deleted", "older_than_secs") == [0, 172_800]
    reading = Instance(store)
    for key in ("new/1", "new/2", "kept/1"):
        assert await reading.get(key) == TEXT
    await reading.close()
    assert ("x-amz-storage-class", "GLACIER_IR") in store.buckets[BUCKET]["kept/1"].headers


async def test_a_rule_finds_what_the_rules_before_it_left(store: MemoryBackend, setting: Setting):
    rules = policy(
        first=STEPS["compress"],
        then=STEPS["squeeze"] | {"prefix": "new/", "min-gain-percent": 0.0},
    )
    _, then = (await maintain(store, setting, rules)).rules
    assert figures(then, "recompacted", "skipped_not_s4") == [2, 0]


async def test_a_second_run_finds_everything_settled(store: MemoryBackend, setting: Setting):
    await maintain(store, setting, policy(**STEPS))
    before = dict(store.buckets[BUCKET])
    compress, squeeze, cool, _ = (await maintain(store, setting, policy(**STEPS))).rules
    assert figures(compress, "skipped_already_s4", "migrated") == [2, 0]
    assert figures(squeeze, "skipped_already_compacted", "recompacted") == [1, 0]
    assert figures(cool, "skipped_already_target_class", "transitioned") == [1, 0]
    assert store.buckets[BUCKET] == before


async def test_a_dry_run_writes_nothing_and_says_what_it_cannot_know(
    store: MemoryBackend, setting: Setting
):
    before = dict(store.buckets[BUCKET])
    report = await maintain(store, Setting(setting.making), policy(**STEPS))
    assert store.buckets[BUCKET] == before
    assert report.dry_run
    assert any("no rule sees" in note for note in report.notes)
    assert [figures(run, "dry_run") for run in report.rules] == [[True]] * 4


async def test_a_rule_that_fails_keeps_no_other_from_being_run(
    store: MemoryBackend, setting: Setting
):
    rules = policy(gone={"bucket": "none", "action": "migrate"}, **STEPS)
    report = await maintain(store, setting, rules)
    assert (report.rules_run, report.rules_failed) == (5, 1)
    failed = report.rules[0].outcome
    assert isinstance(failed, Failed)
    assert "NoSuchBucket" in failed.message
    assert figures(report.rules[1], "migrated") == [2]


async def test_a_rule_whose_objects_failed_is_a_failed_rule(store: MemoryBackend, setting: Setting):
    def denies(call: Call) -> Exception | None:
        copying = call.verb == "forward PUT"
        return BackendAnswer(403, "AccessDenied") if copying else None

    rules = policy(cool=STEPS["cool"])
    report = await maintain(FaultyBackend(store, fault=denies), setting, rules)
    assert (report.rules_failed, figures(report.rules[0], "failed")) == (1, [1])


async def test_what_nobody_expected_fails_its_rule_only(store: MemoryBackend, setting: Setting):
    def breaks(call: Call) -> Exception | None:
        return RuntimeError("a bug") if call.query.startswith("uploads=") else None

    rules = policy(clean=STEPS["clean"], cool=STEPS["cool"])
    report = await maintain(FaultyBackend(store, fault=breaks), setting, rules)
    assert report.rules[0].outcome == Failed("error", "RuntimeError: a bug")
    assert figures(report.rules[1], "transitioned") == [1]


async def test_told_to_stop_the_rule_in_flight_is_finished_and_no_other_begun(
    store: MemoryBackend, setting: Setting
):
    stop = asyncio.Event()

    def tells(call: Call) -> None:
        if call.verb == "put" and call.key.startswith("new/"):
            stop.set()  # in the middle of the first rule

    backend = FaultyBackend(store, fault=tells)
    report = await run_rules(backend, policy(**STEPS), setting, stop)
    assert [run.name for run in report.rules] == ["compress"]
    assert figures(report.rules[0], "migrated") == [2]
    assert (report.interrupted, report.rules_run, report.rules_total) == (True, 1, 4)
    assert any(note.endswith("squeeze, cool, clean") for note in report.notes)


async def test_told_to_stop_before_it_begins_nothing_is_run(store: MemoryBackend, setting: Setting):
    stop = asyncio.Event()
    stop.set()
    report = await run_rules(store, policy(**STEPS), setting, stop)
    assert (report.rules, report.interrupted) == ((), True)


async def test_the_report_in_json_has_its_outcomes_by_kind(store: MemoryBackend, setting: Setting):
    rules = policy(
        young={"action": "migrate", "prefix": "new/", "older-than": "1d"},
        gone={"bucket": "none", "action": "migrate"},
        cool=STEPS["cool"],
    )
    found = json.loads(json.dumps(as_json(await maintain(store, setting, rules))))
    young, gone, cool = found["rules"]
    assert (young["name"], young["bucket"], young["prefix"]) == ("young", BUCKET, "new/")
    assert (young["action"], young["older_than_secs"]) == ("migrate", 86_400)
    assert young["outcome"]["result"] == "migrate"
    assert young["outcome"]["skipped_too_recent"] == 2
    assert gone["outcome"].keys() == {"result", "message"}
    assert gone["outcome"]["result"] == "error"
    assert cool["outcome"]["result"] == "transition"
    assert cool["outcome"]["report"]["storage_class"] == "GLACIER_IR"


async def test_a_sidecar_follows_its_object_through_the_policy(
    store: MemoryBackend, setting: Setting
):
    body = world.framed([TEXT[:20_000]] * 3)
    world.put_indexed(store, "kept/2", body)
    (cool,) = (await maintain(store, setting, policy(cool=STEPS["cool"]))).rules
    assert figures(cool, "transitioned", "transitioned_sidecars") == [2, 1]
