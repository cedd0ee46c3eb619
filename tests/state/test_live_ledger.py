# ruff: noqa: ASYNC240 - small files, and nothing else runs on a test's loop
import asyncio
import errno
import fcntl
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4gateway.state import files, ledger
from s4gateway.state.ledger import Counters
from s4gateway.state.live_ledger import LiveLedger
from s4gateway.state.shared_file import lock_path
from tests.state import disk

LONG = 600.0


class Shown:
    """What a dashboard would see."""

    def __init__(self) -> None:
        self.ledger: LiveLedger | None = None
        self.failures = 0
        self.set_aside: list[str] = []

    @property
    def counters(self) -> dict[str, Counters]:
        assert self.ledger is not None
        return self.ledger.snapshot()

    def flush_failed(self) -> None:
        self.failures += 1

    def load_failed(self, reason: str) -> None:
        self.set_aside.append(reason)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.json"


Open = Callable[..., tuple[LiveLedger, Shown]]


@pytest.fixture
async def opened(path: Path) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        def start(pause: float = LONG, limit: float = LONG) -> tuple[LiveLedger, Shown]:
            shown = Shown()
            live = shown.ledger = LiveLedger(path, shown, pause=pause, limit=limit)
            stack.push_async_callback(live.close)
            return live, shown

        yield start


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not true():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.002)


async def test_an_event_is_shown_at_once_and_settled_on_disk(path: Path, opened: Open):
    live, shown = opened()
    live.apply("b", original=100, stored=40, objects=1)
    assert shown.counters["b"] == Counters(100, 40, 1)
    await live.settled()
    assert ledger.load(path) == {"b": Counters(100, 40, 1)}
    live.apply("b", original=-30, stored=-10, skipped=1)
    assert shown.counters["b"] == Counters(70, 30, 1, 1)
    await live.settled()
    assert ledger.load(path) == {"b": Counters(70, 30, 1, 1)}
    assert json.loads(path.read_text())["skipped_unaccounted"] == {"b": 1}


async def test_nothing_is_shown_below_zero(path: Path, opened: Open):
    live, shown = opened()
    live.apply("b", original=-5, stored=3, objects=-1)
    assert shown.counters["b"] == Counters(0, 3, 0)
    await live.settled()
    assert ledger.load(path) == {"b": Counters(0, 3, 0)}


async def test_nothing_pending_needs_no_write(path: Path, opened: Open):
    live, _ = opened()
    await live.settled()
    await live.flush()
    assert not path.exists()
    assert await live.flush(forced=True)
    assert ledger.load(path) == {}


async def test_a_hundred_events_at_once_take_a_few_writes(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    calls = disk.install(monkeypatch)
    live, _ = opened()

    async def event() -> None:
        live.apply("b", original=3, stored=2, objects=1)
        await live.settled()

    await asyncio.gather(*(event() for _ in range(100)))
    assert ledger.load(path) == {"b": Counters(300, 200, 100)}
    assert calls.calls.count("replace") <= 5


async def test_what_was_begun_early_is_waited_for_no_longer_than_its_own_write(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    calls = disk.install(monkeypatch)
    live, _ = opened()
    run = live.apply("b", objects=1)
    live.begin()
    await _until(lambda: calls.calls.count("replace") == 1)
    later = live.apply("b", objects=1)  # waits for somebody to ask
    await live.settled(run)
    await live.settled(run)
    assert ledger.load(path) == {"b": Counters(objects=1)}
    await live.settled(later)
    assert ledger.load(path) == {"b": Counters(objects=2)}
    assert calls.calls.count("replace") == 2


async def test_what_is_not_on_disk_yet_of_a_bucket_can_be_waited_for(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    live, _ = opened()
    seen: list[int] = []
    calls = disk.install(monkeypatch)

    def look(name: str, _number: int) -> None:
        if name == "fsync":
            seen.append(live.holding("b"))

    calls.decide = look
    assert live.holding("b") == 0
    run = live.apply("b", objects=1)
    assert (live.holding("b"), live.holding("other")) == (run, 0)
    await live.settled(live.holding("b"))
    assert set(seen) == {run}
    assert live.holding("b") == 0
    assert ledger.load(path) == {"b": Counters(objects=1)}


async def test_what_a_begun_write_missed_is_tried_once_more_by_who_waits_for_it(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    live, shown = opened()
    calls = disk.install(monkeypatch)
    calls.decide = disk.full
    run = live.apply("b", objects=1)
    live.begin()
    await _until(lambda: shown.failures == 1)
    calls.decide = disk.well
    await _until(lambda: live._ended == run)
    await live.settled(run)
    assert ledger.load(path) == {"b": Counters(objects=1)}


async def test_nobody_waits_for_a_begun_write_that_fails_or_hangs(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    live, shown = opened(limit=0.5)
    calls = disk.install(monkeypatch)
    calls.decide = disk.full
    run = live.apply("b", objects=1)
    live.begin()
    await live.settled(run)
    failed = shown.failures
    assert failed in (1, 2)  # the one begun, and another try
    calls.decide = disk.well
    with lock_path(path).open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        run = live.apply("b", objects=1)
        live.begin()
        await _until(lambda: live._flusher._began is not None)
        await live.settled(run)
        assert shown.failures == failed + 1
        fcntl.flock(holder, fcntl.LOCK_UN)
    await _until(lambda: not live._flusher._overdue())
    await live.settled()
    assert ledger.load(path) == {"b": Counters(objects=2)}


async def test_what_the_file_says_is_shown_from_the_start(path: Path, opened: Open):
    totals = {"a": Counters(5, 4, 3, 2), "b": Counters(50, 40, 30)}
    path.write_bytes(ledger.render(totals))
    _, shown = opened()
    assert shown.counters == totals


async def test_two_processes_show_the_sums_of_both_after_a_flush(path: Path, opened: Open):
    (one, shown_by_one), (other, shown_by_other) = opened(), opened()
    one.apply("a", original=10)
    await one.settled()
    other.apply("b", original=5)
    await other.settled()
    assert shown_by_other.counters == {"a": Counters(10), "b": Counters(5)}
    one.apply("b", original=-2)
    assert shown_by_one.counters["b"] == Counters()  # it knows no better yet
    await one.settled()
    assert shown_by_one.counters == {"a": Counters(10), "b": Counters(3)}
    assert ledger.load(path) == shown_by_one.counters


async def test_an_idle_process_learns_what_others_wrote(path: Path, opened: Open):
    _, shown = opened(pause=0.01)
    path.write_bytes(ledger.render({"a": Counters(9), "b": Counters(8)}))
    await _until(lambda: shown.counters.get("b") == Counters(8))
    path.write_bytes(ledger.render({"a": Counters(4)}))
    await _until(lambda: shown.counters == {"a": Counters(4)})


# --- disks that fail


async def test_with_a_full_disk_nobody_waits_and_the_next_flush_carries_it_all(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "s4.ledger")
    live, shown = opened()
    live.apply("b", objects=1)
    await live.settled()
    calls = disk.install(monkeypatch)
    calls.decide = disk.full
    for _ in range(3):
        live.apply("b", objects=1)
        await live.settled()
    assert shown.counters["b"].objects == 4
    assert shown.failures == 3
    assert ledger.load(path) == {"b": Counters(objects=1)}
    (record,) = caplog.records  # said once while it lasts
    assert (record.levelname, record.message) == ("WARNING", "ledger-flush-failed")
    assert _fields(record)["problem"] == f"{path}: No space left on device"
    assert await live.flush(forced=True) is False
    calls.decide = disk.well
    live.apply("b", objects=1)
    await live.settled()
    assert ledger.load(path) == {"b": Counters(objects=5)}
    assert caplog.messages == ["ledger-flush-failed", "ledger-flush-recovered"]
    assert [each.name for each in path.parent.iterdir() if each.name.endswith(".tmp")] == []


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = record.__dict__["fields"]
    return found


async def test_what_a_full_disk_kept_is_written_without_a_further_event(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    live, shown = opened(pause=0.01)
    calls = disk.install(monkeypatch)
    calls.decide = disk.full
    live.apply("b", objects=1)
    await live.settled()
    await _until(lambda: shown.failures > 2)
    calls.decide = disk.well
    await _until(lambda: ledger.load(path) == {"b": Counters(objects=1)})


async def test_what_was_replaced_and_not_synchronised_is_not_added_again(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    live, shown = opened()
    calls = disk.install(monkeypatch)
    calls.decide = lambda name, _: (
        errno.EIO if name == "fsync" and "replace" in calls.calls else None
    )
    live.apply("b", objects=1)
    await live.settled()
    assert shown.failures == 1
    assert ledger.load(path) == {"b": Counters(objects=1)}
    calls.decide = disk.well
    calls.calls.clear()
    await live.settled()  # nothing is pending but the promise that it is on disk
    assert calls.calls.count("fsync") == 2
    assert ledger.load(path) == {"b": Counters(objects=1)}


async def test_events_while_a_write_fails_are_kept_with_it(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    live, shown = opened()
    calls = disk.install(monkeypatch)

    def fail(name: str, _number: int) -> int | None:
        if name != "fsync":
            return None
        live.apply("b", objects=1)  # from the middle of the write
        return errno.EIO

    calls.decide = fail
    live.apply("b", objects=1)
    await live.settled()
    assert shown.counters["b"].objects == 2
    calls.decide = disk.well
    await live.flush()
    assert ledger.load(path) == {"b": Counters(objects=2)}


@settings(max_examples=40)
@given(
    events=st.lists(st.integers(-30, 50), min_size=1, max_size=10),
    wrong=st.lists(st.sampled_from([None, None, errno.ENOSPC, -errno.EIO]), max_size=200),
)
def test_whatever_fails_meanwhile_the_sum_is_right_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, events: list[int], wrong: list[int | None]
):
    path = tmp_path_factory.mktemp("ledger") / "ledger.json"

    async def run(monkeypatch: pytest.MonkeyPatch) -> None:
        live = LiveLedger(path, Shown(), pause=LONG)
        live.apply("b", original=1000)
        await live.settled()
        calls = disk.install(monkeypatch)
        errors = iter(wrong)
        calls.decide = lambda _name, _number: next(errors, None)
        for amount in events:
            live.apply("b", original=amount)
            await live.settled()
            assert live.snapshot()["b"].original_bytes >= 1000 - 30 * len(events)
        calls.decide = disk.well
        assert await live.close()

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(run(monkeypatch))
    assert ledger.load(path) == {"b": Counters(1000 + sum(events))}


async def test_a_lock_that_is_never_given_back_holds_nobody_up_for_long(
    path: Path, opened: Open, caplog: pytest.LogCaptureFixture
):
    live, shown = opened(limit=0.1)
    with lock_path(path).open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        for _ in range(3):
            live.apply("b", objects=1)
            await live.settled()
        assert shown.failures == 3
        assert caplog.messages == ["ledger-flush-failed"]
        assert shown.counters["b"].objects == 3
        fcntl.flock(holder, fcntl.LOCK_UN)
    await _until(lambda: not live._flusher._overdue())
    await live.flush()
    assert ledger.load(path) == {"b": Counters(objects=3)}


# --- files that are no state


@pytest.mark.parametrize("content", [b"\0" * 50, b'{"buckets":{"b":{}}}', b"[]"])
async def test_what_is_no_state_at_the_start_is_set_aside_with_a_word(
    path: Path, opened: Open, caplog: pytest.LogCaptureFixture, content: bytes
):
    path.write_bytes(content)
    live, shown = opened()
    assert shown.set_aside == ["parse_error"]
    assert shown.counters == {}
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("WARNING", "state-file-set-aside")
    assert Path(_fields(record)["moved_to"]).read_bytes() == content
    assert not path.exists()
    live.apply("b", objects=1)
    await live.settled()
    assert Path(_fields(record)["moved_to"]).read_bytes() == content


async def test_what_cannot_be_read_at_the_start_is_set_aside_as_such(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    path.write_bytes(ledger.render({"b": Counters(1)}))
    with monkeypatch.context() as patch:
        disk.install(patch).decide = lambda name, _: errno.EIO if name == "read" else None
        _, shown = opened()
    assert shown.set_aside == ["read_error"]
    assert len(list(path.parent.glob("ledger.json.corrupt-*Z"))) == 1


async def test_what_breaks_while_it_runs_is_set_aside_and_nothing_is_lost(path: Path, opened: Open):
    live, shown = opened()
    live.apply("b", objects=7)
    await live.settled()
    path.write_bytes(b"{")
    live.apply("b", objects=1)
    await live.settled()
    assert shown.set_aside == ["parse_error"]
    assert ledger.load(path) == {"b": Counters(objects=8)}


async def test_a_place_that_cannot_be_used_is_an_error_and_leaves_no_thread(tmp_path: Path):
    for wrong in (tmp_path, tmp_path / "none" / "ledger.json"):
        with pytest.raises(files.StateFileError):
            LiveLedger(wrong, Shown())


# --- the end


async def test_closing_writes_what_nobody_waited_for(path: Path):
    live = LiveLedger(path, Shown(), pause=LONG)
    live.apply("b", objects=1)
    assert await live.close() is True
    assert ledger.load(path) == {"b": Counters(objects=1)}


async def test_closing_tells_when_something_is_left(path: Path, monkeypatch: pytest.MonkeyPatch):
    live = LiveLedger(path, Shown(), pause=LONG)
    disk.install(monkeypatch).decide = disk.full
    live.apply("b", objects=1)
    assert await live.close() is False
