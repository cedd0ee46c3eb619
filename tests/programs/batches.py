"""What the programs beside this file append: rows that say who wrote them."""

import random

import pyarrow as pa


def rows(writer: int, commit: int, count: int, filler: int) -> pa.Table:
    """`count` rows of one commit, each with `filler` bytes that no codec shrinks."""
    texts = [f"row {row} of commit {commit} by writer {writer}" for row in range(count)]
    source = random.Random(f"{writer}/{commit}")
    return pa.table(
        {
            "writer": pa.array([writer] * count, pa.int64()),
            "commit": pa.array([commit] * count, pa.int64()),
            "row": pa.array(range(count), pa.int64()),
            "text": pa.array(texts, pa.string()),
            "filler": pa.array([source.randbytes(filler) for _ in range(count)], pa.binary()),
        }
    )
