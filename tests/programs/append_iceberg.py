"""Appends to an Iceberg table, run by tests with the interpreter of `.venv-pyiceberg`.

The catalogue is an SQLite file the writers share; data, manifests and metadata lie in the bucket.
The task is a JSON document on the first line of stdin; commits begin with the second line, so that
several of these programs begin together. The last line of stdout says what happened. A conflict of
Iceberg's own protocol is tried again and counted; any other error ends the program.
"""

import json
import sys

from answering import answer
from batches import rows
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException

TABLE = "tests.appended"


def main() -> None:
    """Append as often as the task says; with no commits, make the table."""
    task = json.loads(sys.stdin.readline())
    catalog = SqlCatalog("tests", **task["options"])
    if not task["commits"]:
        catalog.create_namespace("tests")
        catalog.create_table(TABLE, rows(0, 0, 0, 0).schema)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    conflicts = 0
    for commit in range(task["commits"]):
        batch = rows(task["writer"], commit, task["rows"], task["filler"])
        while True:
            try:
                catalog.load_table(TABLE).append(batch)
                break
            except CommitFailedException:
                conflicts += 1
    answer({"conflicts": conflicts})


if __name__ == "__main__":
    main()
