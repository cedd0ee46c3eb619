"""`python -m bench.dictionaries`: what 10,000 small JSON events take, stored in three ways.

    raw     put into the store directly
    plain   through the gateway, as zstd
    dict    through the gateway, below a prefix with a dictionary

The dictionary is made by `s4 train-dict` from 1,000 other events that lie in the bucket. Two rows:
in the first the measured events are about the same packages as the samples, as tomorrow's events
are about the same services as today's; in the second about packages no sample names. Bytes are
those of a listing of the store; 500 objects of each way are read back through the gateway and
compared. Beside them, GETs of those events that have about 1 KiB, plain and dict in turn.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import uvloop

from bench import bench, load, servers
from bench.events import Event, events
from bench.servers import Server

BAR = 0.5
RATE_BAR = 0.9
BUCKET = "events"
EMPTY = hashlib.sha256(b"").hexdigest()
_MADE = 24_000  # events to choose from
_CONCURRENCY = 32
_KIB = range(850, 1200)
_COMPARED = 500  # objects of each way that are read back


@dataclass(frozen=True, slots=True)
class Case:
    """Events to train on and events to measure; none is in both."""

    name: str
    title: str
    samples: list[bytes]
    measured: list[bytes]

    def keys(self, way: str) -> Iterator[tuple[str, bytes]]:
        """Key and body of each measured event."""
        for number, body in enumerate(self.measured):
            yield f"{self.name}/{way}/{number:05}", body


def cases(count: int, samples: int) -> list[Case]:
    """The two rows, of `count` measured events each; raises ValueError without enough events."""
    made = events(_MADE)
    packages = sorted({event.package for event in made})
    random.Random(2).shuffle(packages)
    known = frozenset(packages[: len(packages) // 3])
    strange = [event for event in made if event.package not in known]
    familiar = [event for event in made if event.package in known]
    found = [
        _case("same", "other events, same packages", made[:samples], made[samples:], count),
        _case("new", "packages no sample names", familiar[:samples], strange, count),
    ]
    for case in found:
        if len(case.measured) < count or len(case.samples) < samples:
            raise ValueError(f"only {len(made)} events can be made of the installed packages")
    return found


def _case(
    name: str, title: str, samples: Sequence[Event], measured: Sequence[Event], count: int
) -> Case:
    bodies = [event.body for event in samples]
    return Case(name, title, bodies, [event.body for event in measured[:count]])


async def put_all(server: Server, pairs: Iterator[tuple[str, bytes]]) -> None:
    """Store bodies by key."""
    puts = [load.put(server.target, BUCKET, key, body, hashed=True) for key, body in pairs]
    await load.run(server.target, puts, concurrency=_CONCURRENCY, time_limit=600, hard_limit=600)


async def stored(server: Server, prefix: str) -> tuple[int, int]:
    """Objects and bytes that the store itself lists below a prefix."""
    count = size = 0
    last = ""
    while True:
        query = f"list-type=2&max-keys=1000&prefix={quote(prefix, safe='')}"
        if last:
            query += f"&start-after={quote(last, safe='')}"
        head = load.sign(server.target, "GET", f"/{BUCKET}", {}, EMPTY, _sorted(query))
        page = ET.fromstring(await load.fetch(server.target, load.Exchange(head)))  # noqa: S314
        space = page.tag.partition("}")[0] + "}" if page.tag.startswith("{") else ""
        entries = page.findall(f"{space}Contents")
        for entry in entries:
            count += 1
            size += int(entry.findtext(f"{space}Size") or 0)
            last = entry.findtext(f"{space}Key") or ""
        if page.findtext(f"{space}IsTruncated") != "true" or not entries:
            return count, size


def _sorted(query: str) -> str:
    return "&".join(sorted(query.split("&")))


async def compare(server: Server, pairs: Sequence[tuple[str, bytes]]) -> None:
    """Read objects back; raises LoadError for other bytes."""
    room = asyncio.Semaphore(_CONCURRENCY)

    async def one(key: str, body: bytes) -> None:
        async with room:
            exchange = load.get(server.target, BUCKET, key, len(body))
            if await load.fetch(server.target, exchange) != body:
                raise load.LoadError(f"{key}: other bytes than were stored")

    await asyncio.gather(*(one(*pair) for pair in pairs))


async def rates(server: Server, case: Case, requests: int, repetitions: int) -> float:
    """Median over paired repetitions of GETs per second, dict / plain."""
    ratios = []
    for repetition in range(repetitions + 1):
        rate = {}
        for way in ("plain", "dict"):
            pairs = [pair for pair in case.keys(way) if len(pair[1]) in _KIB]
            drawn = random.Random(repetition).choices(pairs, k=requests)
            gets = [load.get(server.target, BUCKET, key, len(body)) for key, body in drawn]
            await asyncio.sleep(0.2)
            rate[way] = (await load.run(server.target, gets, concurrency=_CONCURRENCY)).rate
        bench.progress(f"  GET: {rate['plain']:.0f}/s plain, {rate['dict']:.0f}/s dict")
        if repetition:
            ratios.append(rate["dict"] / rate["plain"])
    return statistics.median(ratios)


def train(backend: Server, folder: Path, case: Case) -> dict[str, object]:
    """What `s4 train-dict` says of the samples of a case, in JSON."""
    command = servers.program("s4")
    if command is None:
        raise servers.ServerError("no s4 program: install the package into this environment")
    endpoint = f"http://{backend.target.host}:{backend.target.port}"
    done = subprocess.run(
        [command, "train-dict", f"{BUCKET}/{case.name}/samples/", "--format", "json"],
        env=servers.environment(backend.target.credentials) | {"S4_ENDPOINT_URL": endpoint},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise servers.ServerError(f"s4 train-dict: {done.stderr}")
    report: dict[str, object] = json.loads(done.stdout)
    return report


async def _prepare(backend: Server, wanted: Sequence[Case]) -> None:
    await load.run(backend.target, [load.make_bucket(backend.target, BUCKET)])
    for case in wanted:
        samples = (
            (f"{case.name}/samples/{number:05}", body) for number, body in enumerate(case.samples)
        )
        await put_all(backend, samples)
        await put_all(backend, case.keys("raw"))


async def _measure(backend: Server, through: Server, case: Case) -> dict[str, int]:
    """Stored bytes by way."""
    found = {}
    for way in ("raw", "plain", "dict"):
        if way != "raw":
            await put_all(through, case.keys(way))
            pairs = list(case.keys(way))
            await compare(through, random.Random(3).sample(pairs, min(_COMPARED, len(pairs))))
        count, found[way] = await stored(backend, f"{case.name}/{way}/")
        if count != len(case.measured):
            raise load.LoadError(f"{case.name}/{way}: {count} objects, {len(case.measured)} put")
        bench.progress(f"  {case.title}: {way} {found[way]} bytes")
    return found


def _row(case: Case, sizes: dict[str, int], report: dict[str, object]) -> str:
    expected = report["held_out"]
    assert isinstance(expected, dict)
    return (
        f"| {case.title} | {sizes['raw']:,} | {sizes['plain']:,} | {sizes['dict']:,} "
        f"| {sizes['dict'] / sizes['plain']:.3f} | {sizes['dict'] / sizes['raw']:.3f} "
        f"| {expected['dict_ratio']:.3f} | {report['dict_bytes']:,} |"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run, report, clean up; 1 under --strict when a bar fails, 2 when a server did not start."""
    parser = argparse.ArgumentParser(prog="python -m bench.dictionaries")
    parser.add_argument("--events", type=int, default=10_000, help="measured in each row")
    parser.add_argument("--samples", type=int, default=1000, help="trained on in each row")
    parser.add_argument("--requests", type=int, default=4000, help="GETs in one repetition")
    parser.add_argument("--repetitions", type=int, default=5, help="of the GETs; 0: none")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a bar fails")
    arguments = parser.parse_args(argv)
    bench.progress("making the events")
    wanted = cases(arguments.events, arguments.samples)
    who = load.Credentials("benchmark", secrets.token_hex(20))
    folder = Path(tempfile.mkdtemp(prefix="s4-bench-dictionaries-"))
    sizes: list[dict[str, int]] = []
    rate: float | None = None
    try:
        with contextlib.ExitStack() as stack:
            backend = stack.enter_context(servers.seaweedfs(folder, who))
            uvloop.run(_prepare(backend, wanted))
            reports = [train(backend, folder, case) for case in wanted]
            flags = [
                f"--zstd-dict={BUCKET}/{case.name}/dict/={report['dict_id']}"
                for case, report in zip(wanted, reports, strict=True)
            ]
            through = stack.enter_context(servers.gateway(folder, backend, None, *flags))
            sizes = [uvloop.run(_measure(backend, through, case)) for case in wanted]
            if arguments.repetitions:
                measured = rates(through, wanted[0], arguments.requests, arguments.repetitions)
                rate = uvloop.run(measured)
    except servers.ServerError as exc:
        bench.progress(f"error: {exc}")
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"| {arguments.events:,} events | raw bytes | plain | dict | dict / plain | dict / raw "
        "| expected by train-dict | dictionary |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in zip(wanted, sizes, reports, strict=True):
        print(_row(*row))
    share = sizes[0]["dict"] / sizes[0]["plain"]
    print(f"\nBar of the first row: dict / plain <= {BAR}: {_verdict(share <= BAR)}")
    if rate is not None:
        print(f"GET of about 1 KiB, {_CONCURRENCY} at once, requests/s dict / plain: {rate:.2f}")
        print(f"Bar: >= {RATE_BAR}: {_verdict(rate >= RATE_BAR)}")
    failed = share > BAR or (rate is not None and rate < RATE_BAR)
    return int(arguments.strict and failed)


def _verdict(held: bool) -> str:
    return "held" if held else "missed"


if __name__ == "__main__":
    sys.exit(main())
