"""Rows whose Parquet file must be the same in every process."""

import random
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

SALES = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("n", pa.int64()),
        ("at", pa.timestamp("us", "UTC")),
    ]
)
_AT = datetime(2026, 3, 17, tzinfo=UTC)


def sales(count: int = 5000) -> list[dict[str, Any]]:
    rng = random.Random(3)
    return [
        {"id": f"{rng.random()}", "kind": rng.choice("abc"), "n": rng.randrange(9), "at": _AT}
        for _ in range(count)
    ]
