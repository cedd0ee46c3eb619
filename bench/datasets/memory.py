"""Bar 9, a program of its own: what a read of much more than memory's share holds at its peak.

Reads all rows with the given read-ahead, slower than they come, and prints the highest resident
size of this process. That is VmHWM and not `ru_maxrss`, which starts with the peak of whoever
started the process.
https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
"""

import json
import sys
import time
from pathlib import Path

from bench.datasets.data import PARTITIONS, Event
from bench.datasets.world import client_from_environment, config
from s4gateway.s3store import Store


def main() -> None:
    """Read one lane of a dataset to its end."""
    prefix, lane, octets = sys.argv[1], sys.argv[2], int(sys.argv[3])
    count = 0
    began = time.perf_counter()
    with Store.open(config(client_from_environment(), prefix), Event) as store:
        idle = _peak()
        stream = store.read_iter("*", read_ahead_partitions=PARTITIONS, read_ahead_bytes=octets)
        with stream:
            if lane == "rows":
                for _ in stream:
                    count += 1
            else:
                for table in stream.tables():
                    count += table.num_rows
                    time.sleep(0.05)
    took = time.perf_counter() - began
    json.dump({"rows": count, "peak": _peak(), "idle": idle, "seconds": took}, sys.stdout)


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
