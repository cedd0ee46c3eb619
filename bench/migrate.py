"""`python -m bench.migrate`: `s4 migrate --execute` of log objects against zstd alone, all cores.

The objects are stored directly; then the tool runs as an operator starts it, and the same bytes are
compressed in memory by as many threads as there are cores, in the same frames, at the same level.
The ratio of the two wall times says how busy with compression the tool keeps the machine.

The store runs on the same cores, so two more figures stand beside it: how much of their time nobody
used, and the ratio that a tool would reach which did nothing but compress while the store did what
it did. Objects are stored once with the CRC-64 that SDKs send today, which is what the tool holds
them against, and once without, where it needs their MD5.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import resource
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import uvloop
import zstandard
from awscrt import checksums

from bench import bench, corpus, load, servers
from bench.servers import Server

BAR = 0.8
BUCKET = "bench-migrate"
SIZE = 16 * corpus.MIB
_KEPT = 256 * corpus.MIB  # distinct bytes; more objects repeat them


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of one repetition: wall and CPU of the tool, CPU of the store, wall of zstd.

    `cores` ran all of them.
    """

    wall: float
    cpu: float
    store: float
    zstd: float
    cores: int

    @property
    def ratio(self) -> float:
        """Of the speed of zstd alone."""
        return self.zstd / self.wall

    @property
    def possible(self) -> float:
        """The ratio of a tool that only compresses, on cores that are never idle."""
        return self.zstd * self.cores / (self.zstd * self.cores + self.store)

    @property
    def idle(self) -> float:
        """The part of the cores' time that neither tool nor store used."""
        return max(0.0, 1 - (self.cpu + self.store) / (self.cores * self.wall))


def pure(bodies: Sequence[bytes], threads: int) -> float:
    """Wall seconds of zstd level 3 over all bodies, in frames, on so many threads."""

    def compress(body: bytes) -> None:
        step = corpus.chunk_size(len(body))
        codec = zstandard.ZstdCompressor(level=corpus.LEVEL)
        for start in range(0, len(body), step):
            codec.compress(body[start : start + step])

    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(compress, bodies))
        return time.perf_counter() - began


def migrate(server: Server, prefix: str, concurrency: int) -> tuple[float, float, float]:
    """Wall and CPU seconds of the tool, and CPU seconds of the store meanwhile."""
    command = servers.program("s4")
    if command is None:
        raise servers.ServerError("no s4 program: install the package into this environment")
    endpoint = f"http://{server.target.host}:{server.target.port}"
    arguments = ["migrate", f"{BUCKET}/{prefix}", "--execute", "--format", "json"]
    more = ["--endpoint-url", endpoint, "--concurrency", str(concurrency)]
    environment = servers.environment(server.target.credentials) | {"PATH": os.environ["PATH"]}
    store, used = load.cpu_seconds(server.pid), resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        [command, *arguments, *more], env=environment, capture_output=True, check=False
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or json.loads(done.stdout)["failed"]:
        raise load.LoadError(f"migrate failed: {done.stderr.decode()[-500:]}")
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return wall, cpu, load.cpu_seconds(server.pid) - store


def _put(server: Server, key: str, body: bytes, *, summed: bool) -> load.Exchange:
    """PUT of an object, with its CRC-64 when it is `summed`."""
    target = server.target
    headers = {"content-length": str(len(body)), "content-type": load.CONTENT_TYPE}
    if summed:
        crc = checksums.crc64nvme(body).to_bytes(8, "big")
        headers["x-amz-checksum-crc64nvme"] = base64.b64encode(crc).decode()
    head = load.sign(target, "PUT", f"/{BUCKET}/{key}", headers, load.UNSIGNED)
    return load.Exchange(head, body)


async def _measure(
    server: Server, bodies: Sequence[bytes], options: argparse.Namespace, *, summed: bool
) -> list[Round]:
    rounds = []
    for repetition in range(options.repetitions):
        prefix = f"{'summed' if summed else 'plain'}-{repetition}/"
        puts = [
            _put(server, f"{prefix}{number:05}", body, summed=summed)
            for number, body in enumerate(bodies)
        ]
        await load.run(server.target, puts, concurrency=4, hard_limit=600.0)
        await asyncio.sleep(1.0)
        figures = migrate(server, prefix, options.concurrency)
        cores = os.cpu_count() or 1
        rounds.append(Round(*figures, pure(bodies, cores), cores))
        bench.progress(f"  migrate, {prefix[:-1]}: {rounds[-1]}")
    return rounds


async def _measure_all(
    server: Server, bodies: Sequence[bytes], options: argparse.Namespace
) -> dict[str, list[Round]]:
    await load.run(server.target, [load.make_bucket(server.target, BUCKET)])
    return {
        "with a CRC-64": await _measure(server, bodies, options, summed=True),
        "without a checksum": await _measure(server, bodies, options, summed=False),
    }


def _row(name: str, rounds: Sequence[Round]) -> str:
    def middle(figure: str) -> float:
        return statistics.median(getattr(each, figure) for each in rounds)

    seconds = " | ".join(f"{middle(name):.2f} s" for name in ("wall", "cpu", "store", "zstd"))
    return (
        f"| {name} | {seconds} | {middle('ratio'):.2f} | >= {BAR} | {middle('possible'):.2f} |"
        f" {middle('idle'):.0%} |"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run, report, clean up; 1 under --strict when the bar fails, 2 when a server did not start."""
    parser = argparse.ArgumentParser(prog="python -m bench.migrate")
    parser.add_argument("--mib", type=int, default=1024, help="bytes to migrate, in MiB")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "s4-bench")
    parser.add_argument("--strict", action="store_true", help="exit 1 when the bar fails")
    options = parser.parse_args(argv)
    options.work.mkdir(parents=True, exist_ok=True)
    text = corpus.kept_log_text(options.work, _KEPT)
    distinct = [text[start : start + SIZE] for start in range(0, len(text), SIZE)]
    count = options.mib * corpus.MIB // SIZE
    bodies = [distinct[number % len(distinct)] for number in range(count)]
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=options.work))
    try:
        with contextlib.ExitStack() as stack:
            who = load.Credentials("benchmark", secrets.token_hex(20))
            backend = stack.enter_context(servers.seaweedfs(folder, who))
            measured = uvloop.run(_measure_all(backend, bodies, options))
    except servers.ServerError as exc:
        bench.progress(f"error: {exc}")
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"| {options.mib} MiB of logs | wall | its CPU | the store's CPU | zstd alone, all cores |"
        " ratio | bar | possible beside this store | idle |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, rounds in measured.items():
        print(_row(name, rounds))
    worst = min(statistics.median(each.ratio for each in rounds) for rounds in measured.values())
    return int(options.strict and worst < BAR)


if __name__ == "__main__":
    sys.exit(main())
