"""Start the store, measure what was asked for, print the table as markdown.

Exit status 0 when the run came to its end (with --strict: when also every bar measured holds), 1
when a bar fails under --strict, 2 when a server did not start. What is on stdout is the report;
progress goes to stderr.
"""

import argparse
import contextlib
import os
import platform
import secrets
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from bench import bench, load, servers
from bench.datasets import (
    alone,
    counting,
    facade,
    polling,
    reading,
    through,
    writing,
)
from bench.datasets.figures import Figure, table
from bench.datasets.world import BUCKET, World

MEASUREMENTS: dict[int, Callable[[World], list[Figure]]] = {
    1: reading.tables,
    2: reading.rows,
    3: alone.dedup,
    4: writing.large,
    5: counting.requests,
    6: writing.small,
    7: polling.poll,
    8: reading.first_row,
    9: alone.memory,
    10: reading.narrow,
    11: facade.facade,
    12: through.gateway,
}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.datasets",
        description="The dataset library against plain pyarrow and boto3.",
    )
    parser.add_argument("--only", type=int, nargs="+", choices=MEASUREMENTS, metavar="BAR")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "s4-bench")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a bar fails")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, report, clean up."""
    options = _arguments(argv)
    warnings.simplefilter("ignore", ResourceWarning)
    options.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=options.work))
    before = os.getloadavg()[0]
    figures: list[Figure] = []
    try:
        with contextlib.ExitStack() as stack:
            who = load.Credentials("benchmark", secrets.token_hex(20))
            store = stack.enter_context(servers.seaweedfs(folder, who))
            world = World(store, folder, options.repetitions)
            world.client().create_bucket(Bucket=BUCKET)
            for bar in options.only or MEASUREMENTS:
                bench.progress(f"bar {bar}")
                for figure in MEASUREMENTS[bar](world):
                    bench.progress(f"  {figure.row()}")
                    figures.append(figure)
    except servers.ServerError as exc:
        bench.progress(f"error: {exc}")
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table(figures))
    print(
        f"\nMedians of {options.repetitions} pairs; {os.cpu_count()} cores, load {before:.1f} "
        f"before, Python {platform.python_version()}, pyarrow {pa.__version__}."
    )
    return int(options.strict and any(figure.held is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
