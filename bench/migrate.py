"""`python -m bench.migrate`: `s4 migrate --execute` of log objects against zstd alone, all cores.

The objects are stored directly; then the tool runs as an operator starts it, and the same bytes are
compressed in memory by as many threads as there are cores, in the same frames, at the same level.
The ratio of the two wall times says how busy with compression the tool keeps the machine; beside it
stand the CPU seconds of the tool and of the store, which runs on the same cores.
"""

import argparse
import asyncio
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

from bench import bench, corpus, load, servers
from bench.servers import Server

BAR = 0.8
BUCKET = "bench-migrate"
SIZE = 16 * corpus.MIB
_KEPT = 256 * corpus.MIB  # distinct bytes; more objects repeat them


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of one repetition: wall and CPU of the tool, CPU of the store, wall of zstd."""

    wall: float
    cpu: float
    store: float
    zstd: float


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


async def _fill(server: Server, prefix: str, bodies: Sequence[bytes]) -> None:
    puts = [
        load.put(server.target, BUCKET, f"{prefix}{number:05}", body)
        for number, body in enumerate(bodies)
    ]
    await load.run(server.target, puts, concurrency=4, hard_limit=600.0)


async def _measure(
    server: Server, bodies: Sequence[bytes], options: argparse.Namespace
) -> list[Round]:
    await load.run(server.target, [load.make_bucket(server.target, BUCKET)])
    rounds = []
    for repetition in range(options.repetitions):
        prefix = f"{repetition}/"
        await _fill(server, prefix, bodies)
        await asyncio.sleep(1.0)
        wall, cpu, store = migrate(server, prefix, options.concurrency)
        zstd = pure(bodies, os.cpu_count() or 1)
        rounds.append(Round(wall, cpu, store, zstd))
        bench.progress(
            f"  migrate: {wall:.2f} s, its CPU {cpu:.2f} s, the store's {store:.2f} s; "
            f"zstd alone {zstd:.2f} s"
        )
    return rounds


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
            rounds = uvloop.run(_measure(backend, bodies, options))
    except servers.ServerError as exc:
        bench.progress(f"error: {exc}")
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ratio = statistics.median(each.zstd / each.wall for each in rounds)
    middle = [statistics.median(getattr(each, name) for each in rounds) for name in Round.__slots__]
    print("| migrate | wall | its CPU | the store's CPU | zstd alone, all cores | ratio | bar |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    shown = " | ".join(f"{each:.2f} s" for each in middle)
    print(f"| {options.mib} MiB of logs | {shown} | {ratio:.2f} | >= {BAR} |")
    return int(options.strict and ratio < BAR)


if __name__ == "__main__":
    sys.exit(main())
