"""A policy carried out again and again: logged, read anew, and stopped without waiting."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from s4gateway.backend.base import Backend
from s4gateway.backend.memory import MemoryBackend
from s4gateway.tools import rules as policies
from s4gateway.tools.maintain import Setting
from s4gateway.tools.maintain_cycles import Cycles, run_cycles
from s4gateway.tools.objects import Making
from tests.backends import Call, FaultyBackend
from tests.objects import world
from tests.objects.world import BUCKET

HOUR = timedelta(hours=1)
AT_ONCE = timedelta(milliseconds=1)
POLICY = f"""
[[rule]]
name = "cool"
bucket = "{BUCKET}"
action = "transition"
storage-class = "STANDARD_IA"
"""
MORE = (
    POLICY
    + """
[[rule]]
name = "gone"
bucket = "none"
action = "mpu-state-gc"
"""
)


@dataclass
class Listener(logging.Handler):
    """Keeps what is logged, and lets a test act in the moment it is."""

    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    act: Callable[[str, dict[str, Any]], None] = lambda _, __: None

    def __post_init__(self) -> None:
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = getattr(record, "fields", {})
        self.said.append((record.getMessage(), fields))
        self.act(record.getMessage(), fields)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.said if name == event]

    __hash__ = object.__hash__


@pytest.fixture
def listener() -> Iterator[Listener]:
    logger, listening = logging.getLogger("s4.maintain"), Listener()
    before = logger.level
    logger.addHandler(listening)
    logger.setLevel(logging.INFO)
    yield listening
    logger.removeHandler(listening)
    logger.setLevel(before)


@pytest.fixture
def store() -> MemoryBackend:
    store = MemoryBackend.with_buckets(BUCKET)
    for number in range(3):
        world.put_stored(store, f"{number}", b"some")
    return store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def longer(file: Path) -> Path:
    """A policy whose second rule fails."""
    file.write_text(MORE)
    return file


async def stay(
    backend: Backend, file: Path, stop: asyncio.Event, interval: timedelta = AT_ONCE
) -> None:
    """Run cycles; a test that would sleep out an hour fails."""
    setting = Setting(Making(threads=1), execute=True)
    async with asyncio.timeout(60):
        await run_cycles(backend, Cycles(file, interval, setting), policies.load(file), stop)


def after(listener: Listener, cycles: int, stop: asyncio.Event) -> None:
    """Set `stop` when so many cycles are complete."""

    def act(event: str, fields: dict[str, Any]) -> None:
        if event == "maintain-cycle-complete" and fields["cycle"] == cycles:
            stop.set()

    listener.act = act


async def test_each_cycle_is_logged_with_what_it_did(
    store: MemoryBackend, file: Path, listener: Listener
):
    stop = asyncio.Event()
    after(listener, 2, stop)
    await stay(store, file, stop)
    assert [name for name, _ in listener.said] == [
        *("maintain-cycle", "rule-complete", "maintain-cycle-complete") * 2,
        "maintain-stopped",
    ]
    assert listener.of("maintain-cycle")[0] == {"cycle": 1, "dry_run": False, "rules": 1}
    first, second = listener.of("rule-complete")
    assert (first["rule"], first["action"], first["bucket"]) == ("cool", "transition", BUCKET)
    assert (first["transitioned"], first["skipped_already_target_class"]) == (3, 0)
    assert (second["transitioned"], second["skipped_already_target_class"]) == (0, 3)
    done = listener.of("maintain-cycle-complete")[1]
    assert (done["cycle"], done["rules_run"], done["rules_failed"]) == (2, 1, 0)
    assert done["seconds"] >= 0


async def test_the_word_to_stop_between_the_last_rule_and_the_wait_costs_no_interval(
    store: MemoryBackend, file: Path, listener: Listener
):
    stop = asyncio.Event()
    after(listener, 1, stop)
    await stay(store, file, stop, HOUR)
    assert len(listener.of("maintain-cycle")) == 1


async def test_the_word_to_stop_during_the_wait_ends_it(
    store: MemoryBackend, file: Path, listener: Listener
):
    stop = asyncio.Event()

    def act(event: str, _: dict[str, Any]) -> None:
        if event == "maintain-cycle-complete":
            asyncio.get_running_loop().call_later(0.05, stop.set)

    listener.act = act
    await stay(store, file, stop, HOUR)
    assert listener.of("maintain-stopped") == [{"cycles": 1}]


async def test_the_word_to_stop_during_a_rule_lets_it_finish(
    store: MemoryBackend, longer: Path, listener: Listener
):
    stop = asyncio.Event()

    def tells(call: Call) -> None:
        if call.verb == "forward PUT":
            stop.set()

    await stay(FaultyBackend(store, fault=tells), longer, stop, HOUR)
    (done,) = listener.of("rule-complete")
    assert (done["rule"], done["transitioned"]) == ("cool", 3)
    assert listener.of("rule-failed") == []
    assert listener.of("maintain-cycle-complete")[0]["interrupted"] is True


async def test_a_failed_rule_is_logged_and_the_process_stays(
    store: MemoryBackend, longer: Path, listener: Listener
):
    stop = asyncio.Event()
    after(listener, 2, stop)
    await stay(store, longer, stop)
    assert [each["rule"] for each in listener.of("rule-failed")] == ["gone", "gone"]
    assert "NoSuchBucket" in listener.of("rule-failed")[0]["error"]
    assert [each["rules_failed"] for each in listener.of("maintain-cycle-complete")] == [1, 1]


async def test_the_policy_is_read_anew_and_a_wrong_one_is_not_taken(
    store: MemoryBackend, file: Path, listener: Listener
):
    stop = asyncio.Event()
    changes = [MORE, "[[rule]]\nname = 7\naction = 'nothing'", None]

    def act(event: str, fields: dict[str, Any]) -> None:
        if event != "maintain-cycle-complete":
            return
        if fields["cycle"] == 4:
            stop.set()
        elif (text := changes[fields["cycle"] - 1]) is not None:
            file.write_text(text)
        else:
            file.unlink()

    listener.act = act
    await stay(store, file, stop)
    assert [each["rules"] for each in listener.of("maintain-cycle")] == [1, 2, 2, 2]
    assert listener.of("policy-reloaded") == [{"rules": 2}]
    wrong, gone = listener.of("policy-not-reloaded")
    assert wrong["problems"].count("rule #1") == 3
    assert "No such file" in gone["problems"]
