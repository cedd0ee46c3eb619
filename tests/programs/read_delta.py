"""Reads a Delta table whole, run by tests with the interpreter of `.venv-deltalake`.

Prints version, number of rows and of different rows; with "maintain", after the small files have
been merged, a checkpoint written and what is no longer needed removed.
"""

import json
import sys

from answering import answer
from deltalake import DeltaTable


def main() -> None:
    """Read and print."""
    task = json.loads(sys.stdin.readline())
    table = DeltaTable(task["uri"], storage_options=task["options"])
    if task.get("maintain"):
        table.optimize.compact()
        table.create_checkpoint()
        table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        table = DeltaTable(task["uri"], storage_options=task["options"])
    found = table.to_pyarrow_table().to_pydict()
    keys = set(zip(found["writer"], found["commit"], found["row"], strict=True))
    said = {"version": table.version(), "rows": len(found["row"]), "different": len(keys)}
    answer(said)


if __name__ == "__main__":
    main()
