"""The savings ledger in real gateways: restarts, signals, bad files, full disks, kills, sharing."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from s4gateway.state import ledger
from s4gateway.state.ledger import Counters
from tests import clients, corpus, live
from tests.conftest import StartGateway
from tests.e2e import metering, raw

pytestmark = pytest.mark.e2e

FLAG = "--savings-ledger-state-file"
FAMILIES = {
    "s4_ledger_original_bytes",
    "s4_ledger_stored_bytes",
    "s4_ledger_objects",
    "s4_ledger_skipped_unaccounted",
    "s4_ledger_flush_failures_total",
    "s4_state_file_load_failures_total",
    "s4_sigusr1_dump_total",
}
SET_ASIDE = 's4_state_file_load_failures_total{manager="savings_ledger",reason="parse_error"}'
DUMPED = 's4_sigusr1_dump_total{manager="savings_ledger",result="ok"}'
FAILED_DUMP = 's4_sigusr1_dump_total{manager="savings_ledger",result="err"}'


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "ledger.json"


def _gauges(gateway: live.Gateway, bucket: str) -> Counters:
    found = metering.scrape(gateway)
    return Counters(
        *(int(found.get(f's4_ledger_{name}{{bucket="{bucket}"}}', -1)) for name in _NAMES)
    )


_NAMES = ("original_bytes", "stored_bytes", "objects", "skipped_unaccounted")


def _families(gateway: live.Gateway) -> set[str]:
    text = raw.ask(gateway, "GET", "/metrics").body.decode()
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}


def _put(gateway: live.Gateway, bucket: str, key: str, body: bytes) -> None:
    assert raw.ask(gateway, "PUT", raw.path(bucket, key), None, body).status == 200


def _file(state: Path) -> dict[str, Counters]:
    return ledger.load(state) or {}


# --- on and off


def test_without_the_flag_there_are_no_families_and_a_dump_signal_does_nothing(
    start_gateway: StartGateway, state: Path, shared: str, key: str
):
    with start_gateway() as off, start_gateway(FLAG, str(state)) as on:
        assert _families(on) - _families(off) == FAMILIES
        assert _families(off) < _families(on)
        for _ in range(3):
            os.kill(off.pid, signal.SIGUSR1)
        _put(off, shared, key, b"still here")
        assert _families(off) & FAMILIES == set()
    assert off.process.returncode == 0


def test_counting_goes_on_after_a_restart(
    start_gateway: StartGateway, state: Path, bucket: str, direct: Any
):
    bodies = [corpus.text(200_000, seed=1), corpus.noise(5000, seed=2), b""]
    with start_gateway(FLAG, str(state)) as gateway:
        for number, body in enumerate(bodies):
            _put(gateway, bucket, str(number), body)
        counted = _gauges(gateway, bucket)
        assert _file(state) == {bucket: counted}
    stored = sum(each["Size"] for each in direct.list_objects_v2(Bucket=bucket)["Contents"])
    assert counted == Counters(sum(map(len, bodies)), stored, len(bodies))
    with start_gateway(FLAG, str(state)) as gateway:
        assert _gauges(gateway, bucket) == counted
        for number in range(len(bodies)):
            assert raw.ask(gateway, "DELETE", raw.path(bucket, str(number))).status == 204
        assert _gauges(gateway, bucket) == Counters()
    assert _file(state) == {bucket: Counters()}


def test_a_dump_signal_writes_the_file_again(start_gateway: StartGateway, state: Path):
    totals = {"some-bucket": Counters(100, 50, 2, 1)}
    state.write_bytes(ledger.render(totals))
    with start_gateway(FLAG, str(state)) as gateway:
        assert _gauges(gateway, "some-bucket") == totals["some-bucket"]
        state.unlink()
        os.kill(gateway.pid, signal.SIGUSR1)
        metering.until(lambda: metering.scrape(gateway).get(DUMPED))
        assert _file(state) == totals


def test_stopping_writes_what_the_disk_would_not_take_before(
    start_gateway: StartGateway, state: Path, bucket: str
):
    with start_gateway(FLAG, str(state)) as gateway:
        _put(gateway, bucket, "one", b"x" * 100)
        before = _file(state)
        with _no_space(gateway):
            _put(gateway, bucket, "two", b"y" * 100)
            found = metering.scrape(gateway)
            assert found["s4_ledger_flush_failures_total"] >= 1
            os.kill(gateway.pid, signal.SIGUSR1)
            metering.until(lambda: metering.scrape(gateway).get(FAILED_DUMP))
            assert _gauges(gateway, bucket).objects == 2
            assert _file(state) == before
    assert _file(state)[bucket].objects == 2


@contextlib.contextmanager
def _no_space(gateway: live.Gateway) -> Iterator[None]:
    """The process may write no file: every write fails as on a disk without space."""
    limits = resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, limits)


# --- bad files, bad places


@pytest.mark.parametrize(
    "content", [b'{"buckets":{"b"', b'{"buckets":{"b":{"objects":-1}}}', b"\0"]
)
def test_a_file_that_is_no_state_is_set_aside_and_counting_begins_anew(
    start_gateway: StartGateway, state: Path, bucket: str, content: bytes
):
    state.write_bytes(content)
    with start_gateway(FLAG, str(state)) as gateway:
        assert metering.scrape(gateway)[SET_ASIDE] == 1
        (aside,) = state.parent.glob("ledger.json.corrupt-*")
        assert f"moved_to={aside}" in gateway.read_log()
        _put(gateway, bucket, "one", b"x" * 100)
    assert aside.read_bytes() == content
    assert _file(state)[bucket].objects == 1


def _refused(folder: Path, path: Path) -> str:
    """What a gateway says that cannot start with this state file."""
    done = subprocess.run(
        [str(live.program("s4")), "--endpoint-url", "http://127.0.0.1:9", FLAG, str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
        env=live.environment(folder) | {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b" * 9},
    )
    assert done.returncode == 1
    return done.stderr


def test_a_place_that_cannot_be_used_ends_the_start_with_one_line(tmp_path: Path):
    for path, problem in (
        (tmp_path, "is a directory"),
        (tmp_path / "none" / "ledger.json", "No such file or directory"),
        (Path("/proc/ledger.json"), ""),
    ):
        (line,) = _refused(tmp_path, path).splitlines()
        assert line.startswith(f"s4: {FLAG}: {path}")
        assert problem in line


# --- what the bucket says


def _surplus(state: Path, gateway: live.Gateway, direct: Any, bucket: str) -> Counters:
    """By how much the file says more than the bucket holds; fields may be negative."""
    said = _file(state).get(bucket, ledger.EMPTY)
    stored = _sizes(direct, bucket)
    with contextlib.closing(clients.boto3_client(gateway)) as client:
        original = _sizes(
            client, bucket
        )  # a listing through a gateway tells the objects' own sizes
    return Counters(
        said.original_bytes - sum(original.values()),
        said.stored_bytes - sum(stored.values()),
        said.objects - len(original),
    )


def _sizes(client: Any, bucket: str) -> dict[str, int]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", ())}


TEXT = corpus.log(400_000, seed=5)
LARGEST = 20_000


def _body(draw: random.Random) -> bytes:
    start, length = draw.randrange(len(TEXT) - LARGEST), draw.randrange(LARGEST)
    return TEXT[start : start + length]


class Load:
    """Concurrent writes and deletes through a gateway that may be killed meanwhile."""

    def __init__(self, gateway: live.Gateway, bucket: str, seed: int) -> None:
        self.gateway = gateway
        self.bucket = bucket
        self.seed = seed
        self.unanswered: list[str] = []
        self.answered = threading.Semaphore(0)

    def run(self, threads: int, each: int, prefix: str = "") -> None:
        """Every thread works on three keys of its own."""
        with ThreadPoolExecutor(threads) as pool:
            work = [pool.submit(self._work, f"{prefix}{number}", each) for number in range(threads)]
            for done in work:
                done.result()

    def _work(self, name: str, count: int) -> None:
        draw = random.Random(f"{self.seed} {name}")
        for _ in range(count):
            target = raw.path(self.bucket, f"{name}/{draw.randrange(3)}")
            body = None if draw.random() < 0.3 else _body(draw)
            method = "DELETE" if body is None else "PUT"
            try:
                answer = raw.ask(self.gateway, method, target, None, body)
            except (OSError, AssertionError):  # it was killed, perhaps in the middle of an answer
                self.unanswered.append(target)
                return
            assert answer.status in {200, 204}
            self.answered.release()


# --- kills


def _kill_rounds(
    start: StartGateway, state: Path, direct: Any, bucket: str, rounds: int, seed: int
) -> None:
    """Again and again kill a gateway under 200 writers and compare the file with the bucket."""
    draw = random.Random(seed)
    unanswered = 0
    for number in range(rounds):
        with start(FLAG, str(state)) as gateway:
            load = Load(gateway, bucket, seed * 100 + number)
            working = threading.Thread(target=load.run, args=(200, 1000))
            working.start()
            for _ in range(draw.randrange(50, 600)):
                assert load.answered.acquire(timeout=300)
            gateway.kill()
            working.join()
        unanswered += len(load.unanswered)
        with start(FLAG, str(state)) as gateway:
            assert metering.scrape(gateway)[SET_ASIDE] == 0
            assert _gauges(gateway, bucket) == _file(state)[bucket]
            surplus = _surplus(state, gateway, direct, bucket)
        assert abs(surplus.objects) <= unanswered
        assert abs(surplus.original_bytes) <= unanswered * LARGEST
        assert abs(surplus.stored_bytes) <= unanswered * LARGEST
    assert {each.name for each in state.parent.glob("*ledger*")} == {
        "ledger.json",
        "ledger.json.lock",
    }


def test_a_killed_gateway_leaves_a_sound_file_short_of_unanswered_requests_at_most(
    start_gateway: StartGateway, state: Path, direct: Any, bucket: str
):
    _kill_rounds(start_gateway, state, direct, bucket, rounds=3, seed=1)


@pytest.mark.huge
@pytest.mark.parametrize("seed", range(2, 7))
def test_twenty_kills_leave_sound_files_short_of_unanswered_requests_at_most(
    start_gateway: StartGateway, state: Path, direct: Any, bucket: str, seed: int
):
    _kill_rounds(start_gateway, state, direct, bucket, rounds=4, seed=seed)


# --- several gateways


def test_two_gateways_on_one_file_count_their_own_keys_exactly(
    start_gateway: StartGateway, state: Path, direct: Any, bucket: str
):
    with start_gateway(FLAG, str(state)) as one, start_gateway(FLAG, str(state)) as other:
        loads = [Load(one, bucket, seed=7), Load(other, bucket, seed=8)]
        with ThreadPoolExecutor(2) as pool:
            for done in [
                pool.submit(load.run, 10, 50, prefix)
                for load, prefix in zip(loads, "ab", strict=True)
            ]:
                done.result()
        assert [load.unanswered for load in loads] == [[], []]
        assert _surplus(state, one, direct, bucket) == Counters()
        said = _file(state)[bucket]
        assert said.objects > 0
        metering.until(lambda: _gauges(one, bucket) == _gauges(other, bucket) == said)


def test_two_gateways_that_replace_and_remove_each_others_objects_count_exactly(
    start_gateway: StartGateway, state: Path, direct: Any, bucket: str
):
    with start_gateway(FLAG, str(state)) as one, start_gateway(FLAG, str(state)) as other:
        loads = [Load(one, bucket, seed=9), Load(other, bucket, seed=10)]
        with ThreadPoolExecutor(2) as pool:  # the same keys
            for done in [pool.submit(load.run, 10, 50) for load in loads]:
                done.result()
        assert [load.unanswered for load in loads] == [[], []]
        assert _surplus(state, one, direct, bucket) == Counters()
        for key in _sizes(direct, bucket):
            assert raw.ask(other, "DELETE", raw.path(bucket, key)).status == 204
    assert _file(state)[bucket] == Counters()
