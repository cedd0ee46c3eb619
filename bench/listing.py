"""`python -m bench.listing`: a warm page of 1,000 keys through the gateway and direct.

The keys hold compressible text stored through the gateway, so each page entry has another size and
ETag than the store lists; after the first page the gateway knows them all. Direct, the store lists
the same bucket, and, as a second figure, one of raw objects, whose entries carry no metadata and
cost it less. All are asked in turn, one connection each, and what is compared are medians of wall
time per page. A page of large objects, where every second stored key is internal, is measured
beside it: it has no bar, for the store itself then lists twice as much.
"""

import argparse
import asyncio
import contextlib
import hashlib
import secrets
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench import bench, corpus, load, servers
from bench.servers import Server

BAR = 1.5
KEYS = 1000
_SMALL = 4096
_LARGE = 5 * corpus.MIB
_EMPTY = hashlib.sha256(b"").hexdigest()
_QUERY = "list-type=2&max-keys=1000"


def page(server: Server, bucket: str) -> load.Exchange:
    """ListObjectsV2 of the first thousand keys."""
    head = load.sign(server.target, "GET", f"/{bucket}", {}, _EMPTY, _QUERY)
    return load.Exchange(head)


async def _fill(server: Server, bucket: str, body: bytes) -> None:
    await load.run(server.target, [load.make_bucket(server.target, bucket)])
    puts = [
        load.put(server.target, bucket, f"part-{number:05}", body, hashed=len(body) == _SMALL)
        for number in range(KEYS)
    ]
    await load.run(server.target, puts, concurrency=8, hard_limit=300.0)


async def _measure(
    pair: Sequence[Server], kind: str, body: bytes, repetitions: int, pages: int
) -> dict[str, float]:
    """Median seconds of one warm page, by what lists what."""
    raw, stored = f"list-{kind}-raw", f"list-{kind}-stored"
    direct, gateway = pair
    await _fill(direct, raw, body)
    await _fill(gateway, stored, body)
    listings = {"raw": (direct, raw), "direct": (direct, stored), "gateway": (gateway, stored)}
    listed = await load.fetch(gateway.target, page(gateway, stored))
    if listed.count(b"<Contents>") != KEYS or b".s4index" in listed:
        raise load.LoadError(f"the gateway listed something else than {KEYS} keys")
    walls: dict[str, list[float]] = {name: [] for name in listings}
    for repetition in range(repetitions + 1):
        for name, (server, bucket) in listings.items():
            await asyncio.sleep(0.2)
            exchanges = [page(server, bucket) for _ in range(pages)]
            tally = await load.run(server.target, exchanges, server_pid=server.pid)
            if repetition:
                walls[name].append(tally.wall / pages)
            bench.progress(
                f"  {kind} {name}: {tally.wall / pages * 1e3:.2f} ms a page, "
                f"its CPU {tally.server_cpu / pages * 1e3:.2f} ms, others {tally.foreign:.0%}"
            )
    return {name: statistics.median(found) for name, found in walls.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run, report, clean up; 1 under --strict when the bar fails, 2 when a server did not start."""
    parser = argparse.ArgumentParser(prog="python -m bench.listing")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--pages", type=int, default=100, help="pages in one repetition")
    parser.add_argument("--large", action="store_true", help="also a page of large objects")
    parser.add_argument("--strict", action="store_true", help="exit 1 when the bar fails")
    arguments = parser.parse_args(argv)
    who = load.Credentials("benchmark", secrets.token_hex(20))
    folder = Path(tempfile.mkdtemp(prefix="s4-bench-listing-"))
    kinds = {"small": _SMALL, "large": _LARGE} if arguments.large else {"small": _SMALL}
    found: dict[str, dict[str, float]] = {}
    try:
        with contextlib.ExitStack() as stack:
            backend = stack.enter_context(servers.seaweedfs(folder, who))
            gateway = stack.enter_context(servers.gateway(folder, backend, None))
            for kind, size in kinds.items():
                body = corpus.log_text(size)
                work = _measure(
                    (backend, gateway), kind, body, arguments.repetitions, arguments.pages
                )
                found[kind] = uvloop.run(work)
    except servers.ServerError as exc:
        bench.progress(f"error: {exc}")
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("| warm page of 1,000 keys | raw, direct | same, direct | gateway | ratio | bar |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind, medians in found.items():
        direct, through = medians["direct"], medians["gateway"]
        bar = f"<= {BAR}" if kind == "small" else ""
        print(
            f"| {kind} objects | {medians['raw'] * 1e3:.2f} ms | {direct * 1e3:.2f} ms "
            f"| {through * 1e3:.2f} ms "
            f"| {through / direct:.2f} | {bar} |"
        )
    small = found["small"]
    return int(arguments.strict and small["gateway"] / small["direct"] > BAR)


if __name__ == "__main__":
    sys.exit(main())
