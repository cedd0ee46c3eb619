"""Bar 12: the same dataset through the gateway and straight in its store."""

from bench import servers
from bench.datasets import data
from bench.datasets.data import Sale
from bench.datasets.figures import Figure, paired
from bench.datasets.world import BUCKET, Tomorrow, World, config
from s4gateway.s3store import Store, init_dataset_blocking

_SMALL = 50  # partitions of a few rows
_LARGE = 24  # files of several MB
_ROWS = 300_000


def gateway(world: World) -> list[Figure]:
    """Small requests one after the other, many at a time, and large files."""
    with servers.gateway(world.folder, world.store) as server:
        stores = {}
        for name, where in (("direct", world.store), ("gateway", server)):
            client = world.client(where)
            prefix = f"through-{name}"
            init_dataset_blocking(client, BUCKET, prefix)
            stores[name] = Store.open(config(client, prefix, clock=Tomorrow()), Sale)
        try:
            return _measured(world, stores["gateway"], stores["direct"])
        finally:
            for store in stores.values():
                store.close()


def _measured(world: World, through: Store[Sale], direct: Store[Sale]) -> list[Figure]:
    rows = [Sale(**row) for row in data.sales(1, 10, day="000").to_pylist()]
    large = data.sales(1, _ROWS)
    for store in (through, direct):
        for number in range(_SMALL):
            store.write_with_key(f"day={number:03}", rows, token="t")
        for number in range(_LARGE):
            store.write_with_key(f"day=9{number:02}", large)
    some = [f"day={number:03}" for number in range(_SMALL)]
    for pattern in (some, "day=9*"):
        if not through.read_table(pattern).equals(direct.read_table(pattern)):
            raise AssertionError("the gateway gave other rows")

    def lookups(store: Store[Sale]) -> None:
        for key in some:
            store.lookup_commit(key, "t")

    def writes(store: Store[Sale]) -> None:
        for key in some[:20]:
            store.write_with_key(key, rows)

    figures = []
    for what, call in (
        ("20 small writes, one after the other", writes),
        (f"{_SMALL} `lookup_commit`, one after the other", lookups),
        (f"`poll` of {_SMALL} entries", lambda store: store.poll(max_entries=_SMALL)),
    ):
        pairs = paired(
            what, world.repetitions, lambda call=call: call(through), lambda call=call: call(direct)
        )
        figures.append(pairs.figure(12, f"{what}: gateway / direct", 1.25))
    pairs = paired(
        "large files",
        world.repetitions,
        lambda: through.read_table("day=9*"),
        lambda: direct.read_table("day=9*"),
    )
    faster = pairs.faster(12, f"`read_table` of {_LARGE} large files: throughput / direct", 0.8)
    return [*figures, faster]
