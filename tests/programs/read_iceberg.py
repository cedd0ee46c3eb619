"""Reads an Iceberg table whole, run by tests with the interpreter of `.venv-pyiceberg`.

Prints the number of snapshots, of rows and of different rows.
"""

import json
import sys

from answering import answer
from pyiceberg.catalog.sql import SqlCatalog


def main() -> None:
    """Read and print."""
    task = json.loads(sys.stdin.readline())
    table = SqlCatalog("tests", **task["options"]).load_table("tests.appended")
    found = table.scan(selected_fields=("writer", "commit", "row")).to_arrow().to_pydict()
    keys = set(zip(found["writer"], found["commit"], found["row"], strict=True))
    said = {
        "snapshots": len(table.snapshots()), "rows": len(found["row"]), "different": len(keys)
    }  # fmt: skip
    answer(said)


if __name__ == "__main__":
    main()
