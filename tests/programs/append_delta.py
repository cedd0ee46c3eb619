"""Appends to a Delta table, run by tests with the interpreter of `.venv-deltalake`.

The task is a JSON document on the first line of stdin; commits begin with the second line, so that
several of these programs begin together. The last line of stdout says what happened. A conflict of
Delta's own protocol is tried again and counted; any other error ends the program.
"""

import json
import sys

from answering import answer
from batches import rows
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError


def main() -> None:
    """Append as often as the task says."""
    task = json.loads(sys.stdin.readline())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    conflicts = 0
    for commit in range(task["commits"]):
        batch = rows(task["writer"], commit, task["rows"], task["filler"])
        while True:
            try:
                write_deltalake(task["uri"], batch, mode="append", storage_options=task["options"])
                break
            except CommitFailedError:
                conflicts += 1
    answer({"conflicts": conflicts})


if __name__ == "__main__":
    main()
