"""Bar 5: the HTTP requests each call makes, counted where boto3 sends them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import bench
from bench.datasets.data import Sale, sales
from bench.datasets.figures import Figure
from bench.datasets.world import BUCKET, Tomorrow, World, config
from s4gateway.s3store import (
    MaterializedView,
    MaterializedViewReader,
    S3Target,
    Store,
    ViewLookup,
    init_dataset_blocking,
)

_SKUS = 3
_OPERATIONS = {
    "PutObject": "PUT",
    "GetObject": "GET",
    "HeadObject": "HEAD",
    "ListObjectsV2": "LIST",
}


@dataclass(frozen=True, slots=True)
class _Sku:
    """A row of the view."""

    sku: str


class _Counted:
    """Counts the requests of a client from `start` on."""

    def __init__(self, client: Any) -> None:
        self._seen: Counter[str] = Counter()
        client.meta.events.register("before-send.s3", self._sent)

    def _sent(self, event_name: str, **_: Any) -> None:
        self._seen[_OPERATIONS[event_name.rpartition(".")[2]]] += 1

    def of(self, call: Callable[[], object]) -> dict[str, int]:
        """What one call sends."""
        self._seen.clear()
        call()
        return dict(self._seen)


def requests(world: World) -> list[Figure]:
    """Every line of the table of requests."""
    client = world.client()
    counted = _Counted(client)
    prefix = "counted"
    init_dataset_blocking(client, BUCKET, prefix)
    settings = config(client, prefix)
    later = config(client, prefix, clock=Tomorrow())
    opening = counted.of(lambda: S3Target.open_blocking(settings).close())
    rows = [Sale(**row) for row in sales(1, _SKUS, day="000").to_pylist()]
    view: MaterializedView[Sale] = MaterializedView("by-sku", ("sku",))
    key = "day=000"
    with (
        Store.open(settings, Sale, views=[view]) as viewed,
        Store.open(settings, Sale) as store,
        Store.open(later, Sale) as reader,
    ):
        kept: list[Any] = []
        checks: list[tuple[str, Callable[[], object], dict[str, int]]] = [
            ("write", lambda: kept.append(store.write_with_key(key, rows)), {"PUT": 3}),
            (
                f"write, {_SKUS} markers",
                lambda: viewed.write_with_key("day=001", rows),
                {"PUT": 3 + _SKUS},
            ),
            (
                "write, token",
                lambda: store.write_with_key(key, rows, token="t"),
                {"HEAD": 1, "PUT": 3},
            ),
            (
                "write, token committed",
                lambda: store.write_with_key(key, rows, token="t"),
                {"HEAD": 1},
            ),
            (
                "write, optimistic",
                lambda: store.write_with_key(key, rows, token="o", optimistic=True),
                {"PUT": 3},
            ),
            (
                "write, optimistic collision",
                lambda: store.write_with_key(key, rows, token="o", optimistic=True),
                {"PUT": 3, "HEAD": 1},
            ),
            ("lookup_commit", lambda: store.lookup_commit(key, "t"), {"HEAD": 1}),
            ("restamp_ref", lambda: store.restamp_ref(kept[0]), {"PUT": 1}),
            # 4 files with a row of their own and the one of the collision, whose token has two.
            ("read", lambda: store.read("*"), {"LIST": 1, "HEAD": 1, "GET": 4}),
            ("committed_files", lambda: store.committed_files("*"), {"LIST": 1, "HEAD": 1}),
            ("poll", lambda: kept.append(reader.poll()), {"LIST": 1, "HEAD": 4}),
            ("poll_records", reader.poll_records, {"LIST": 1, "HEAD": 4, "GET": 4}),
            (
                "read_entries_iter",
                lambda: list(reader.read_entries_iter(kept[-1].entries)),
                {"GET": 4},
            ),
            (
                "view lookup",
                lambda: MaterializedViewReader(
                    viewed.target, ViewLookup("by-sku", ("sku",), _Sku)
                ).lookup("*"),
                {"LIST": 1},
            ),
        ]
        wrong = []
        for name, call, expected in checks:
            found = counted.of(call)
            bench.progress(f"  {name}: {found}")
            if found != expected:
                wrong.append(f"{name} {found} instead of {expected}")
    if opening != {"GET": 2}:
        wrong.append(f"open {opening}")
    for line in wrong:
        bench.progress(f"  wrong: {line}")
    what = f"calls with other requests than documented, of {len(checks) + 1}"
    return [Figure(5, what, str(len(wrong)), "", len(wrong), 0)]
