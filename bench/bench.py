"""The paired measurements and the bars they are held against.

Every measurement is repeated in turn on each server (direct, gateway, rclone, direct, ...), so that
a noisy minute of the machine hits all of them; the first repetition warms up and does not count;
what is compared are ratios of medians: wall time where it is a client's, CPU seconds of the
gateway's process tree where wall time would be noise. A server that fails a measurement is
reported, the others go on.
"""

import asyncio
import random
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from bench import corpus, load, multipart
from bench.servers import Server

MIB = corpus.MIB
SMALL = 4096
RANGE = 64 * 1024
MEASUREMENTS = (
    *("put-log", "get-log", "put-random", "put-small", "get-small", "ranges"),
    *("ledger", "put-multipart", "get-multipart", "rss"),
)
RSS_BAR = 500 * MIB
_STREAMS = 8
_SETTLE = 0.3
_SAMPLE_EVERY = 0.05

Make = Callable[[Server, int], Sequence[load.Exchange]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to send, and how often."""

    size: int = 256 * MIB
    stream_repeat: int = 4
    small_requests: int = 4000
    small_keys: int = 2000
    range_requests: int = 3000
    repetitions: int = 5
    rclone_repetitions: int = 2
    time_limit: float = 30.0
    hard_limit: float = 300.0


QUICK = Plan(stream_repeat=1, small_requests=1500, range_requests=1000, repetitions=2)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bar: what was demanded, what was measured, and the absolute figures beside it.

    `disturbed` is the share of the machine other processes took while it was measured.
    """

    name: str
    demand: str
    measured: float | None
    passed: bool | None
    aside: str = ""
    disturbed: float | None = None


@dataclass(slots=True)
class Results:
    """Samples by measurement and server, and what went wrong."""

    tallies: dict[tuple[str, str], list[load.Tally]] = field(
        default_factory=lambda: defaultdict(list)
    )
    coding: list[corpus.CodingCost] = field(default_factory=list)
    decoding: list[float] = field(default_factory=list)
    part_coding: list[corpus.CodingCost] = field(default_factory=list)
    uploads: list[multipart.Upload] = field(default_factory=list)
    stored_share: float | None = None
    coded_share: float | None = None
    compared: int = 0
    bad: int = 0
    rss_idle: int | None = None
    rss_peak: int | None = None
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a fact for the report, and show it now."""
        self.notes.append(text)
        progress(text)

    def wall(self, measurement: str, server: str) -> float | None:
        """Median seconds of one run."""
        return _median([t.wall for t in self.tallies[measurement, server]])

    def cpu(self, measurement: str, server: str) -> float | None:
        """Median CPU seconds of the server in one run."""
        return _median([t.server_cpu for t in self.tallies[measurement, server]])

    def foreign(self, measurement: str) -> float | None:
        """Median share of the machine that others used during one run, whatever the server."""
        found = [pair for pair in self.tallies if pair[0] == measurement]
        return _median([t.foreign for pair in found for t in self.tallies[pair]])

    def compare(self, what: str, got: bytes, expected: bytes) -> None:
        """Count an answer that was compared whole, and one that differs."""
        self.compared += 1
        if got != expected:
            self.bad += 1
            self.note(f"{what}: other bytes than were stored")

    def fail(self, server: str, what: str) -> None:
        """Note a failure; it counts against the gateway unless it is the peer's."""
        self.bad += server != "rclone"
        self.note(f"{server}: {what}")

    def rate(self, measurement: str, server: str) -> float | None:
        """Median requests per second."""
        return _median([t.rate for t in self.tallies[measurement, server]])


def progress(text: str) -> None:
    """Progress goes to stderr, the report alone to stdout."""
    print(text, file=sys.stderr, flush=True)


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


class RssSampler:
    """Peak resident memory of a process tree, sampled in a thread until the block ends."""

    def __init__(self, pid: int, limit: float) -> None:
        self._pid = pid
        self._until = time.monotonic() + limit
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(5)

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_EVERY) and time.monotonic() < self._until:
            self.peak = max(self.peak, resident(self._pid))


def resident(pid: int) -> int:
    """Resident bytes of a process and its children."""
    total = 0
    try:
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


class Bench:
    """One paired run over the servers given.

    `counting` is a second gateway over the same store, which keeps a savings ledger; only that is
    measured of it.
    """

    def __init__(
        self, plan: Plan, servers: Sequence[Server], folder: Path, counting: Server | None = None
    ) -> None:
        self._plan = plan
        self._servers = list(servers)
        self._counting = counting
        self._by_name = {server.name: server for server in servers}
        self._random = random.Random(20250301)
        self.results = Results()
        progress("making the corpora")
        self._log = corpus.kept_log_text(folder, plan.size)
        self._noise = corpus.random_bytes(plan.size)

    async def run(self, wanted: Sequence[str]) -> None:
        """Every measurement wanted, in the order of `MEASUREMENTS`."""
        for server in (*self._servers, *([self._counting] if self._counting else ())):
            await load.run(server.target, [load.make_bucket(server.target, _bucket(server))])
        steps = {
            "put-log": self._put_log,
            "get-log": self._get_log,
            "put-random": self._put_random,
            "put-small": self._put_small,
            "get-small": self._get_small,
            "ranges": self._ranges,
            "ledger": self._ledger,
            "put-multipart": self._put_multipart,
            "get-multipart": self._get_multipart,
            "rss": self._rss,
        }
        for name in MEASUREMENTS:
            if name in wanted:
                progress(f"{name} ...")
                try:
                    await steps[name](name)
                except (load.LoadError, OSError) as exc:
                    self.results.fail("gateway", f"{name} ended early: {exc}")

    # large bodies

    async def _put_log(self, name: str) -> None:
        for repetition in range(self._plan.repetitions + 1):
            cost, frames = corpus.coding_cost(self._log)
            if repetition:
                self.results.coding.append(cost)
            self.results.coded_share = sum(map(len, frames)) / len(self._log)
            await self._once(name, repetition, self._large_put("log", self._log))
        if stored := await self._stored("gateway", f"log/{self._plan.repetitions}"):
            self.results.stored_share = len(stored) / len(self._log)

    async def _put_random(self, name: str) -> None:
        servers = self._without("rclone")
        for repetition in range(self._plan.repetitions + 1):
            await self._once(name, repetition, self._large_put("noise", self._noise), servers)

    async def _get_log(self, name: str) -> None:
        servers = await self._prepare("read", self._log)
        await self._compare_whole(servers, "read", self._log)
        frames = corpus.coding_cost(self._log)[1]
        if stored := await self._stored("gateway", "read"):
            try:
                frames = corpus.stored_frames(stored)
            except ValueError as exc:
                self.results.note(f"the gateway's object is not made of zstd frames: {exc}")
        del stored

        def make(server: Server, _: int) -> Sequence[load.Exchange]:
            return [load.get(server.target, _bucket(server), "read", len(self._log))]

        for repetition in range(self._plan.repetitions + 1):
            cost = corpus.decoding_cost(frames, len(self._log))
            if repetition:
                self.results.decoding.append(cost)
            await self._once(name, repetition, make, servers)

    def _large_put(self, prefix: str, body: bytes) -> Make:
        def make(server: Server, repetition: int) -> Sequence[load.Exchange]:
            return [load.put(server.target, _bucket(server), f"{prefix}/{repetition}", body)]

        return make

    # many requests

    async def _put_small(self, name: str) -> None:
        def make(server: Server, repetition: int) -> Sequence[load.Exchange]:
            prefix = f"small/{repetition}"
            return self._small_puts(server, prefix, self._plan.small_requests)

        await self._repeat(name, make, 32, self._without("rclone"))

    async def _get_small(self, name: str) -> None:
        keys = self._plan.small_keys
        servers = self._without("rclone")
        for server in servers:
            puts = self._small_puts(server, "small/read", keys)
            await load.run(server.target, puts, concurrency=16, hard_limit=self._plan.hard_limit)

        def make(server: Server, _: int) -> Sequence[load.Exchange]:
            return [
                load.get(server.target, _bucket(server), f"small/read/{n:06d}", SMALL)
                for n in self._random.choices(range(keys), k=self._plan.small_requests)
            ]

        await self._repeat(name, make, 32, servers)

    async def _ranges(self, name: str) -> None:
        servers = [s for s in await self._prepare("ranged", self._log) if s.name != "rclone"]
        last = len(self._log) - RANGE
        for server in servers:
            for first in (0, last, *(self._random.randrange(last) for _ in range(20))):
                exchange = load.get_range(server.target, _bucket(server), "ranged", first, RANGE)
                got = await load.fetch(server.target, exchange)
                expected = self._log[first : first + RANGE]
                self.results.compare(f"{server.name}: range at {first}", got, expected)

        def make(server: Server, _: int) -> Sequence[load.Exchange]:
            return [
                load.get_range(
                    server.target, _bucket(server), "ranged", self._random.randrange(last), RANGE
                )
                for _ in range(self._plan.range_requests)
            ]

        await self._repeat(name, make, 16, servers)

    async def _ledger(self, name: str) -> None:
        """The small PUTs again, by a gateway that counts them and by one that does not."""
        pair = [self._by_name.get("gateway"), self._counting]

        def make(server: Server, repetition: int) -> Sequence[load.Exchange]:
            prefix = f"counted/{repetition}"
            return self._small_puts(server, prefix, self._plan.small_requests)

        if None not in pair:
            await self._repeat(name, make, 32, [server for server in pair if server is not None])

    def _small_puts(self, server: Server, prefix: str, count: int) -> list[load.Exchange]:
        room = len(self._log) // SMALL
        bodies = (self._log[n % room * SMALL : (n % room + 1) * SMALL] for n in range(count))
        return [
            load.put(server.target, _bucket(server), f"{prefix}/{n:06d}", body, hashed=True)
            for n, body in enumerate(bodies)
        ]

    # uploads in parts

    async def _put_multipart(self, name: str) -> None:
        """The floor, direct and the gateway in turn; kept are the gateway's, number 0 warms up."""
        parts = multipart.cut(self._log, self._plan.stream_repeat)
        for repetition in range(self._plan.repetitions + 1):
            cost = multipart.coding_cost(parts)
            for server in self._without("rclone"):
                await asyncio.sleep(_SETTLE)
                done = await self._upload(server, f"parts/{repetition}", parts)
                if not repetition or done is None:
                    continue
                self.results.tallies[name, server.name].append(done.tally)
                if server.name == "gateway":
                    self.results.part_coding.append(cost)
                    self.results.uploads.append(done)

    async def _get_multipart(self, name: str) -> None:
        repeat = self._plan.stream_repeat
        parts = multipart.cut(self._log, repeat)
        size = len(self._log) * repeat
        for server in self._without("rclone"):
            if await self._upload(server, "in-parts", parts) is not None:
                await self._compare_ends_of_parts(server, "in-parts", repeat)

        def make(server: Server, _: int) -> Sequence[load.Exchange]:
            return [load.get(server.target, _bucket(server), "in-parts", size)]

        await self._repeat(name, make, 1, self._without("rclone"))

    async def _upload(
        self, server: Server, key: str, parts: Sequence[multipart.Part]
    ) -> multipart.Upload | None:
        limit = self._plan.hard_limit
        try:
            done = await multipart.upload(server, _bucket(server), key, parts, hard_limit=limit)
        except (load.LoadError, OSError) as exc:
            self.results.fail(server.name, f"upload of {key} in parts failed: {exc}")
            return None
        progress(
            f"  {key} {server.name}: {done.tally.requests} parts, {done.tally.wall:.3f} s, "
            f"Complete {done.completing:.3f} s, server CPU {done.cpu:.2f} s"
        )
        return done

    async def _compare_ends_of_parts(self, server: Server, key: str, repeat: int) -> None:
        for end in range(multipart.PART, len(self._log) * repeat, 7 * multipart.PART):
            first = end - RANGE // 2
            exchange = load.get_range(server.target, _bucket(server), key, first, RANGE)
            got = await load.fetch(server.target, exchange)
            at = first % len(self._log)
            expected = (self._log[at : at + RANGE] + self._log[:RANGE])[:RANGE]
            self.results.compare(f"{server.name}: {key} at {first}", got, expected)

    # memory

    async def _rss(self, name: str) -> None:
        server = self._by_name.get("gateway")
        if server is None:
            return
        target, bucket, repeat = server.target, _bucket(server), self._plan.stream_repeat
        size = len(self._log) * repeat
        hard_limit = self._plan.hard_limit

        def puts(prefix: str) -> list[load.Exchange]:
            return [
                load.put(target, bucket, f"{prefix}/{n}", self._log, repeat=repeat)
                for n in range(_STREAMS)
            ]

        self.results.rss_idle = resident(server.pid)
        try:
            with RssSampler(server.pid, 2 * hard_limit) as sampler:
                await load.run(target, puts("a"), concurrency=_STREAMS, hard_limit=hard_limit)
                gets = [load.get(target, bucket, f"a/{n}", size) for n in range(_STREAMS)]
                tally = await load.run(
                    target,
                    [*puts("b"), *gets],
                    concurrency=2 * _STREAMS,
                    hard_limit=hard_limit,
                    server_pid=server.pid,
                )
        except (load.LoadError, OSError) as exc:
            self.results.fail("gateway", f"{name} failed: {exc}")
        else:
            self.results.tallies[name, "gateway"].append(tally)
            self.results.rss_peak = sampler.peak

    # what they share

    def _without(self, name: str) -> list[Server]:
        return [server for server in self._servers if server.name != name]

    async def _repeat(
        self, name: str, make: Make, concurrency: int, servers: Sequence[Server]
    ) -> None:
        for repetition in range(self._plan.repetitions + 1):
            await self._once(name, repetition, make, servers, concurrency)

    async def _once(
        self,
        name: str,
        repetition: int,
        make: Make,
        servers: Sequence[Server] | None = None,
        concurrency: int = 1,
    ) -> None:
        """One repetition on each server in turn; number 0 warms up."""
        for server in self._servers if servers is None else servers:
            if server.name == "rclone" and not 0 < repetition <= self._plan.rclone_repetitions:
                continue
            exchanges = make(server, repetition)
            await asyncio.sleep(_SETTLE)
            try:
                tally = await load.run(
                    server.target,
                    exchanges,
                    concurrency=concurrency,
                    time_limit=self._plan.time_limit,
                    hard_limit=self._plan.hard_limit,
                    server_pid=server.pid,
                )
            except (load.LoadError, OSError) as exc:
                self.results.fail(server.name, f"{name} failed: {exc}")
                continue
            if repetition:
                self.results.tallies[name, server.name].append(tally)
            progress(
                f"  {name} {server.name}: {tally.requests} requests, {tally.wall:.3f} s, "
                f"{tally.rate:.0f}/s, server CPU {tally.server_cpu:.2f} s, "
                f"ours {tally.client_cpu:.2f} s, slowest {tally.worst * 1e3:.0f} ms, "
                f"others {tally.foreign:.0%}"
            )

    async def _prepare(self, key: str, body: bytes) -> list[Server]:
        """Store `body` on every server; those that took it."""
        took: list[Server] = []
        for server in self._servers:
            try:
                await load.run(
                    server.target,
                    [load.put(server.target, _bucket(server), key, body)],
                    hard_limit=self._plan.hard_limit,
                )
            except (load.LoadError, OSError) as exc:
                self.results.fail(server.name, f"PUT of {key} failed: {exc}")
            else:
                took.append(server)
        return took

    async def _compare_whole(self, servers: Sequence[Server], key: str, body: bytes) -> None:
        for server in servers:
            exchange = load.get(server.target, _bucket(server), key, len(body))
            got = await load.fetch(server.target, exchange)
            self.results.compare(f"{server.name}: {key}", got, body)

    async def _stored(self, server: str, key: str) -> bytes | None:
        """What stands on the backend for an object written through `server`."""
        direct, front = self._by_name.get("direct"), self._by_name.get(server)
        if direct is None or front is None:
            return None
        exchange = load.get(direct.target, _bucket(front), key, None)
        try:
            return await load.fetch(direct.target, exchange)
        except (load.LoadError, OSError) as exc:
            self.results.fail(server, f"{key} is not on the backend: {exc}")
            return None


def _bucket(server: Server) -> str:
    return f"bench-{server.name}"


def verdicts(results: Results) -> list[Verdict]:
    """Every bar, measured or not; at the end two guards without which the bars mean nothing."""
    wall, cpu, rate = results.wall, results.cpu, results.rate
    floor = _median([cost.total for cost in results.coding])
    zstd = _median([cost.zstd for cost in results.coding])
    put_cpu, put_wall = cpu("put-log", "gateway"), wall("put-log", "gateway")
    get_cpu, get_wall = cpu("get-log", "gateway"), wall("get-log", "gateway")
    peer_put, peer_get = wall("put-log", "rclone"), wall("get-log", "rclone")
    direct_get, decoding = wall("get-log", "direct"), _median(results.decoding)
    direct_noise, noise = wall("put-random", "direct"), wall("put-random", "gateway")
    found = [
        _judge(
            "PUT log: CPU / zstd-3 + MD5 + CRC-32C in memory", "<=", 1.5, put_cpu, floor, "{:.2f} s"
        ),
        _judge("PUT log: one core's zstd-3 / wall", ">=", 0.55, zstd, put_wall, "{:.2f} s"),
        _judge("PUT log: rclone's wall / wall", ">=", 2.2, peer_put, put_wall, "{:.2f} s"),
        _judge("PUT random: direct wall / wall", ">=", 0.5, direct_noise, noise, "{:.2f} s"),
        _judge("GET log: CPU / decoding in memory", "<=", 3.0, get_cpu, decoding, "{:.2f} s"),
        _judge("GET log: wall / direct", "<=", 1.1, get_wall, direct_get, "{:.2f} s"),
        _judge("GET log: wall / rclone's", "<=", 0.1, get_wall, peer_get, "{:.2f} s"),
        *(
            _judge(title, ">=", bar, rate(name, "gateway"), rate(name, "direct"), "{:.0f}/s")
            for title, name, bar in (
                ("PUT 4 KiB, 32 at once: rate / direct", "put-small", 0.5),
                ("GET 4 KiB, 32 at once: rate / direct", "get-small", 0.4),
                ("GET 64 KiB ranges, 16 at once: rate / direct", "ranges", 1.0),
            )
        ),
        _judge(
            "PUT 4 KiB, 32 at once: rate with a savings ledger / without",
            ">=",
            0.8,
            rate("ledger", "counting"),
            rate("ledger", "gateway"),
            "{:.0f}/s",
        ),
        *_multipart_verdicts(results),
        _judge(
            "RSS, eight streams in and eight out: peak MiB / 500",
            "<=",
            1.0,
            None if results.rss_peak is None else results.rss_peak / MIB,
            RSS_BAR / MIB,
            "{:.0f}",
        ),
        _judge(
            "guard: log's stored bytes / zstd-3 frames",
            "<=",
            1.01,
            results.stored_share,
            results.coded_share,
            "{:.4f}",
        ),
    ]
    named = ["put-log"] * 3 + ["put-random"] + ["get-log"] * 3
    named += ["put-small", "get-small", "ranges", "ledger"]
    named += ["put-multipart"] * 2 + ["get-multipart", "rss"]
    disturbed = [results.foreign(name) for name in named]
    found = [
        replace(verdict, disturbed=share)
        for verdict, share in zip(found, [*disturbed, None], strict=True)
    ]
    correct = Verdict(
        "guard: runs that failed, answers that differ",
        "0",
        float(results.bad),
        results.bad == 0,
        f"{results.compared} compared",
    )
    return [*found, correct]


def _multipart_verdicts(results: Results) -> list[Verdict]:
    floor = _median([cost.total for cost in results.part_coding])
    cpu = _median([done.cpu for done in results.uploads])
    completing = _median([done.completing for done in results.uploads])
    gib = results.uploads[0].size / 1024 / MIB if results.uploads else None
    wall, direct = (results.wall("get-multipart", server) for server in ("gateway", "direct"))
    return [
        _judge(
            "PUT in parts: CPU / zstd-3 + MD5 + CRC-32C in memory",
            "<=",
            1.6,
            cpu,
            floor,
            "{:.2f} s",
        ),
        _judge("Complete: seconds / GiB of original", "<=", 2.0, completing, gib, "{:.2f}"),
        _judge("GET of parts: wall / direct", "<=", 1.1, wall, direct, "{:.2f} s"),
    ]


def _judge(
    name: str, relation: str, bar: float, over: float | None, under: float | None, form: str
) -> Verdict:
    demand = f"{relation} {bar:g}"
    if over is None or not under:
        return Verdict(name, demand, None, None)
    ratio = over / under
    passed = ratio <= bar if relation == "<=" else ratio >= bar
    return Verdict(name, demand, ratio, passed, f"{form.format(over)} / {form.format(under)}")


def table(found: Sequence[Verdict]) -> str:
    """The verdicts as a markdown table."""
    marks = {True: "pass", False: "**FAIL**", None: "not measured"}
    lines = ["| ratio | bar | measured | | from | others' CPU |", "|---|---|---|---|---|---|"]
    for verdict in found:
        measured = "" if verdict.measured is None else f"{verdict.measured:.2f}"
        others = "" if verdict.disturbed is None else f"{verdict.disturbed:.0%}"
        lines.append(
            f"| {verdict.name} | {verdict.demand} | {measured} | {marks[verdict.passed]} "
            f"| {verdict.aside} | {others} |"
        )
    return "\n".join(lines)
