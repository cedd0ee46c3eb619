"""Bar 3, a program of its own: deduplication of 300,000 rows on one core, against a loop over rows.

Pins itself to one core before Arrow counts them, and counts CPU seconds, which on one core are the
wall time of a machine that does nothing else; prints JSON.
"""

import os

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import json  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402

import pyarrow as pa  # noqa: E402

from bench.datasets import data, plain  # noqa: E402
from bench.datasets.data import Sale  # noqa: E402
from bench.datasets.figures import cpu  # noqa: E402
from s4gateway.s3store.dedup import Dedup  # noqa: E402
from s4gateway.s3store.records import RecordSpec  # noqa: E402

ROWS = 300_000


def main() -> None:
    """Take turns, and tell the medians."""
    repetitions = int(sys.argv[1])
    pa.set_cpu_count(1)
    table = data.sales(1, ROWS)
    spec = RecordSpec(Sale)
    dedup = Dedup.of(spec, "sku", "version")
    assert dedup is not None
    found = dedup.apply(table, history=False)
    if found.to_pylist() != plain.latest_by_rows(table.to_pylist()):
        raise AssertionError("both sides kept other rows")
    ours, arrow, rows = [], [], []
    for repetition in range(repetitions):
        ours.append(cpu(lambda: dedup.apply(table, history=False)))
        arrow.append(cpu(lambda: plain.latest(table)))
        if repetition < 3:
            rows.append(cpu(lambda: plain.latest_by_rows(table.to_pylist())))
    sides = {"ours": ours, "arrow": arrow, "rows": rows, "kept": [found.num_rows]}
    json.dump({name: statistics.median(side) for name, side in sides.items()}, sys.stdout)


if __name__ == "__main__":
    main()
