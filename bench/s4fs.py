"""`python -m bench.s4fs`: a large log read through the fsspec filesystem, with no gateway.

The log is stored by the gateway. What a read is held against is the sum of its parts, measured
beside it: fetching the stored bytes with s3fs, and decoding their frames from memory with
zstandard. Above 1 the filesystem does both at once. Like is compared with like, because memory for
256 MiB that are kept costs about as much as decoding them: a whole read with parts that keep what
they decode, and a read in pieces with parts that use one buffer again. The third line, a read that
keeps everything against parts that keep nothing, says what that memory costs; it has no bar. The
client needs `make clients`.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import bench, corpus, load, servers

BAR = 0.9
# How it is read, how the frames beside it are decoded, and whether that is held to the bar.
PAIRS = (("whole", "keep", True), ("pieces", "discard", True), ("whole", "discard", False))
_ROOT = Path(__file__).resolve().parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Run, report, clean up; 1 under --strict when the bar fails, 2 when something is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.s4fs")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--mib", type=int, default=256, help="size of the log")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "s4-bench",
        help="folder for the log, which is kept",
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 when the bar fails")
    arguments = parser.parse_args(argv)
    python = _ROOT / ".venv-s3fs" / "bin" / "python"
    if not python.exists():
        bench.progress("no .venv-s3fs: make clients")
        return 2
    who = load.Credentials("benchmark", secrets.token_hex(20))
    arguments.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=arguments.work))
    try:
        with contextlib.ExitStack() as stack:
            backend = stack.enter_context(servers.seaweedfs(folder, who))
            gateway = stack.enter_context(servers.gateway(folder, backend, None))
            done = subprocess.run(
                [python, "-m", "bench.s4fs_client", str(arguments.mib * corpus.MIB),
                 str(arguments.repetitions), str(arguments.work)],
                cwd=_ROOT, capture_output=True, text=True, check=True,
                env={
                    "PATH": os.environ["PATH"], "HOME": str(folder), "AWS_REGION": "us-east-1",
                    "BENCH_STORE": f"http://127.0.0.1:{backend.target.port}",
                    "BENCH_GATEWAY": f"http://127.0.0.1:{gateway.target.port}",
                    "BENCH_ACCESS": who.access_key, "BENCH_SECRET": who.secret_key,
                },
            )  # fmt: skip
    except servers.ServerError as exc:
        bench.progress(f"error: {exc}")
        return 2
    except subprocess.CalledProcessError as exc:
        bench.progress(exc.stderr)
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = json.loads(done.stdout)
    ratios = [_ratios(found["walls"], read, decode) for read, decode, _ in PAIRS]
    _report(found, ratios, arguments.mib)
    missed = any(
        statistics.median(each) < BAR
        for each, (_, _, is_held) in zip(ratios, PAIRS, strict=True)
        if is_held
    )
    return int(arguments.strict and missed)


def _ratios(walls: dict[str, list[float]], read: str, decode: str) -> list[float]:
    """The parts over the read, repetition by repetition."""
    return [
        (fetch + decoded) / together
        for together, fetch, decoded in zip(walls[read], walls["fetch"], walls[decode], strict=True)
    ]


def _report(found: dict[str, Any], ratios: Sequence[list[float]], mib: int) -> None:
    walls = found["walls"]
    stored = found["stored"] / corpus.MIB
    print(f"{mib} MiB of log, {stored:.0f} MiB stored; medians of {len(walls['fetch'])}\n")
    print("| read | s4fs | s3fs fetch | zstandard | fetch + decode / s4fs | least, most | bar |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for (read, decode, is_held), each in zip(PAIRS, ratios, strict=True):
        three = " | ".join(
            f"{statistics.median(walls[name]) * 1e3:.0f} ms" for name in (read, "fetch", decode)
        )
        print(
            f"| {read} / {decode} | {three} | {statistics.median(each):.2f} "
            f"| {min(each):.2f}, {max(each):.2f} | {f'>= {BAR}' if is_held else 'none'} |"
        )


if __name__ == "__main__":
    sys.exit(main())
