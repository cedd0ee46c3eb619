"""`python -m bench.s4fs`: a large log read whole through the fsspec filesystem, with no gateway.

The log is stored by the gateway. What the read is held against is the sum of its parts, measured
beside it: fetching the stored bytes with s3fs, and decoding their frames from memory with
zstandard. Above 1 the filesystem does both at once. The client needs `make clients`.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import bench, corpus, load, servers

BAR = 0.9
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
    parts = found["fetch"] + found["decode"]
    ratio = parts / found["s4fs"]
    print("| whole read of a log | s4fs | s3fs fetch | zstandard | fetch + decode / s4fs | bar |")
    print("|---|---:|---:|---:|---:|---:|")
    print(
        f"| {arguments.mib} MiB, {found['stored'] / corpus.MIB:.0f} MiB stored "
        f"| {found['s4fs'] * 1e3:.0f} ms | {found['fetch'] * 1e3:.0f} ms "
        f"| {found['decode'] * 1e3:.0f} ms | {ratio:.2f} | >= {BAR} |"
    )
    discarded = (found["fetch"] + found["discard"]) / found["s4fs"]
    print(
        f"\nAgainst decoding into a buffer used again ({found['discard'] * 1e3:.0f} ms): ", end=""
    )
    print(f"{discarded:.2f}.")
    return int(arguments.strict and ratio < BAR)


if __name__ == "__main__":
    sys.exit(main())
