"""Writers that are born fast, because they are there to die: one is forked for each line read.

    python -m tests.s3store.mortal      # line 1: where the dataset is; then a Batch on each line

Each writer is a process of its own, tells its number with every request, and commits one batch. How
it ended is printed: 0 when `write` returned, LATE when it said that the commit came too late, else
what killed it.
"""

import dataclasses
import json
import os
import sys
import traceback
from typing import Any

from s4gateway.s3store import CommitAfterTimeoutError, MaterializedView, Store
from tests.s3store.program import client_with, config
from tests.s3store.world import Order, order

PID = "X-Writer-Pid"
LATE = 3
_BROKEN = 70


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows of one period, two for each customer."""

    period: str
    customers: tuple[str, ...]
    token: str | None = None
    optimistic: bool = False

    def rows(self) -> list[Order]:
        return [row for customer in self.customers for row in rows_of(self.period, customer)]


def rows_of(period: str, customer: str) -> list[Order]:
    """What a partition holds once it is committed."""
    skus = (f"{period}-{customer}-{number}" for number in range(2))
    return [order(sku, period=period, customer=customer) for sku in skus]


def _tell_pid(params: dict[str, Any], **_: Any) -> None:
    params["headers"][PID] = str(os.getpid())


def _write(client: Any, bucket: str, batch: Batch) -> int:
    view: MaterializedView[Order] = MaterializedView("by_sku", ("sku",))
    with Store.open(config(client, bucket), Order, views=[view]) as orders:
        try:
            orders.write(batch.rows(), token=batch.token, optimistic=batch.optimistic)
        except CommitAfterTimeoutError:
            return LATE
    return 0


def main() -> None:
    where = json.loads(sys.stdin.readline())
    client = client_with(where["url"], where["key"], where["secret"])
    client.meta.events.register("before-call.s3", _tell_pid)
    for line in sys.stdin:
        told = json.loads(line)
        batch = Batch(**told | {"customers": tuple(told["customers"])})
        writer = os.fork()
        if not writer:
            status = _BROKEN
            try:
                status = _write(client, where["bucket"], batch)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, ended = os.waitpid(writer, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(ended)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
