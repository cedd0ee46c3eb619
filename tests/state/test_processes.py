"""Real processes on one state file, some of them killed: what was settled counts exactly once."""

import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from s4gateway.state import ledger
from s4gateway.state.ledger import Counters, Delta
from tests.live import ROOT
from tests.state.hammer import AT_ONCE

SECONDS = 600


def _start(path: Path, events: int, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.state.hammer", str(path), str(events), str(seed)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _sum(lines: Iterable[str]) -> dict[str, Counters]:
    totals: dict[str, Counters] = {}
    for line in lines:
        bucket, original, stored = line.split()
        delta = Delta(int(original), int(stored), 1)
        totals[bucket] = ledger.changed(totals.get(bucket, ledger.EMPTY), delta)
    return totals


def test_processes_that_share_a_file_count_exactly(tmp_path: Path):
    path = tmp_path / "ledger.json"
    processes = [_start(path, 300, seed) for seed in range(3)]
    said = [process.communicate(timeout=SECONDS)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [len(lines) for lines in said] == [300] * 3
    assert ledger.load(path) == _sum(line for lines in said for line in lines)
    assert {each.name for each in tmp_path.iterdir()} == {"ledger.json", "ledger.json.lock"}


@pytest.mark.parametrize("seed", range(4))
def test_what_was_settled_survives_a_kill(tmp_path: Path, seed: int):
    path = tmp_path / "ledger.json"
    draw = random.Random(seed)
    victims = [_start(path, 100_000, seed * 10 + number) for number in range(2)]
    said: list[str] = []
    for process in victims:
        assert process.stdout is not None
        said += [process.stdout.readline() for _ in range(draw.randrange(1, 200))]
        process.kill()
        said += process.stdout.readlines()
        process.stdout.close()
        process.wait(SECONDS)
    if said and not said[-1].endswith("\n"):
        said.pop()  # killed while it said it
    settled = _sum(said)
    found = ledger.load(path)
    assert found is not None
    for bucket, least in settled.items():
        assert found[bucket].objects >= least.objects
        assert found[bucket].original_bytes >= least.original_bytes
    surplus = sum(each.objects for each in found.values()) - len(said)
    assert surplus <= len(victims) * AT_ONCE
    # The next process finds a sound file, counts on, and clears up.
    with _start(path, 20, seed=99) as survivor:
        more = _sum(survivor.communicate(timeout=SECONDS)[0].splitlines())
    assert survivor.returncode == 0
    after = ledger.load(path)
    assert after is not None
    for bucket, counters in after.items():
        before = found.get(bucket, ledger.EMPTY)
        assert counters.objects == before.objects + more.get(bucket, ledger.EMPTY).objects
    assert {each.name for each in tmp_path.iterdir()} == {"ledger.json", "ledger.json.lock"}
