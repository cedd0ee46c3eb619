"""A wire between the writers of a dataset and the store that strikes them down, and what it saw.

What is committed is taken from the wire, not from the library: a commit may be seen by readers from
the moment its marker is passed on to the store, and must be seen once the store has answered.
"""

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import unquote

from s4gateway.s3store import layout
from s4gateway.s3store.clock import SYSTEM_CLOCK
from tests import live
from tests.e2e import datasets, meddler
from tests.rude_server import Exchange, Request
from tests.s3store import mortal
from tests.s3store.mortal import Batch

STEPS = {
    "lookup": ("HEAD", ".commit"),
    "markers": ("PUT", "/m.matview"),
    "data": ("PUT", ".parquet"),
    "ref": ("PUT", ".ref"),
    "commit": ("PUT", ".commit"),
}
SECONDS = 600.0
Partition = tuple[str, str]  # period, customer


@dataclass(frozen=True, slots=True)
class Blow:
    """Kill whoever makes the `number`-th request of a step, before or after it is carried out."""

    step: str
    after: bool
    number: int = 0


@dataclass(frozen=True, slots=True)
class Landed:
    """A commit marker that the store has: by which attempt, stamped and stored when."""

    attempt: str
    stamp_us: int
    stored_us: int


@dataclass
class Witness:
    """`begun`: attempts whose commit marker was passed on; `landed`: those the store has."""

    meddling: meddler.Meddler
    cuts: float = 0.0  # how many of the requests lose their connection, before or after
    rng: random.Random = field(default_factory=random.Random)
    begun: dict[Partition, set[str]] = field(default_factory=dict)
    landed: dict[Partition, Landed] = field(default_factory=dict)
    struck: int = 0
    requests: int = 0
    _blow: Blow | None = None
    _seen: int = 0

    def strike(self, blow: Blow | None) -> None:
        """Prepare the next blow, the last one having fallen."""
        self._blow, self._seen = blow, 0

    async def rule(self, exchange: Exchange, ask: meddler.Ask) -> None:
        request = exchange.request
        self.requests += 1
        blow = self._falling(request)
        chance = self.rng.random()
        if blow is not None and not blow.after:
            _kill(request)
            exchange.reset()
        elif blow is None and chance < self.cuts / 2:
            exchange.reset()
        else:
            answer = await self._passed_on(request, ask)
            if blow is not None:
                _kill(request)
            if blow is not None or chance > 1 - self.cuts / 2:
                exchange.reset()
            else:
                await exchange.send(answer.wire)

    def _falling(self, request: Request) -> Blow | None:
        blow = self._blow
        if blow is None or not _is(request, blow.step):
            return None
        self._seen += 1
        if self._seen <= blow.number:
            return None
        self._blow = None
        self.struck += 1
        return blow

    async def _passed_on(self, request: Request, ask: meddler.Ask) -> meddler.Answer:
        if not _is(request, "commit"):
            return await ask()
        values = [part.partition("=")[2] for part in _key(request).split("/")[-3:-1]]
        partition = (values[0], values[1])
        attempt = request.headers["x-amz-meta-attemptid"]
        self.begun.setdefault(partition, set()).add(attempt)
        answer = await ask()
        if answer.status == 200:
            stamp_us = int(request.headers["x-amz-meta-refmicrots"])
            landed = Landed(attempt, stamp_us, SYSTEM_CLOCK.now_us())
            self.landed.setdefault(partition, landed)
        return answer

    def quiet(self) -> None:
        """Return when all that writers have sent has been dealt with, and none is connected."""
        server = self.meddling.server
        assert server is not None
        deadline = time.monotonic() + SECONDS
        while server.open_connections:
            assert time.monotonic() < deadline, "a dead writer's connection is open"
            time.sleep(0.005)

    def late(self, budget_us: int) -> set[Partition]:
        """What was committed too late for a reader of the change stream to count on it."""
        return {
            partition
            for partition, landed in self.landed.items()
            if landed.stored_us - landed.stamp_us > budget_us
        }


def _key(request: Request) -> str:
    return unquote(request.target.decode().partition("?")[0])


def _is(request: Request, step: str) -> bool:
    method, suffix = STEPS[step]
    return request.method == method and _key(request).endswith(suffix)


def _kill(request: Request) -> None:
    """Whoever sent it; nobody when it has ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(request.headers[mortal.PID.lower()]), signal.SIGKILL)


@contextlib.contextmanager
def watched(upstream: live.Endpoint, *, cuts: float = 0.0, seed: int = 0) -> Iterator[Witness]:
    """A witness between writers and the store."""
    with meddler.between(upstream) as meddling:
        witness = Witness(meddling, cuts, random.Random(seed))
        with meddling.misbehaving(witness.rule, lambda _: True):
            yield witness


class Writers:
    """Has writers born, one at a time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin: IO[str] = process.stdin
        self._stdout: IO[str] = process.stdout

    def tell(self, message: Any) -> None:
        self._stdin.write(json.dumps(message) + "\n")
        self._stdin.flush()

    def write(self, batch: Batch) -> int:
        """Have one batch written; how the writer ended."""
        self.tell(dataclasses.asdict(batch))
        return int(self._stdout.readline())


@contextlib.contextmanager
def writers(endpoint: live.Endpoint, bucket: str) -> Iterator[Writers]:
    """A process that forks writers to `endpoint`; it ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.s3store.mortal"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=live.ROOT,
    ) as process:
        made = Writers(process)
        made.tell(datasets.ask_of(endpoint, bucket))
        yield made
        assert process.stdin is not None
        process.stdin.close()


def attempt_of(data_path: str) -> str:
    """The attempt in a data file's name."""
    split = layout.split_data_name(data_path.rpartition("/")[2])
    assert split is not None
    return split[1]
