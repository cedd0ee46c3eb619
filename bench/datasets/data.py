"""The records of the measurements, and tables of them from a seeded generator."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from bench import corpus

ROWS = 36_000  # of `Sale`: a file of about 1 MB
PARTITIONS = 100
FILES = 2  # in each partition
NOW = datetime(2026, 3, 1, tzinfo=UTC)
_US = int(NOW.timestamp() * 1e6)
_SKUS = 25_000


@dataclass(slots=True)
class Sale:
    """A row with an entity, a version and numbers."""

    day: str
    sku: str
    version: int
    amount: float
    at: datetime


SALES = pa.schema(
    [
        pa.field("day", pa.string(), nullable=False),
        pa.field("sku", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("amount", pa.float64(), nullable=False),
        pa.field("at", pa.timestamp("us", "UTC"), nullable=False),
    ]
)

# What the narrow reads choose from: twenty columns of numbers that do not repeat.
WIDE = pa.schema([pa.field(f"c{n:02}", pa.float64(), nullable=False) for n in range(20)])
NARROW = ("c03", "c11")


@dataclass(slots=True)
class Event:
    """A row that is mostly text."""

    day: str
    id: int
    at: datetime
    text: str


def sales(seed: int, rows: int = ROWS, day: str = "") -> pa.Table:
    """Sales of one day, in the order they happened."""
    source = random.Random(seed)
    bits, below = source.getrandbits, source.random
    numbers = [bits(48) for _ in range(rows)]
    return pa.table(
        [
            pa.array([day] * rows),
            pa.array([f"sku-{number % _SKUS:08}" for number in numbers]),
            pa.array([number >> 18 for number in numbers]),
            pa.array([below() * 100 for _ in range(rows)]),
            pa.array([_US + i * 977 for i in range(rows)], SALES.field("at").type),
        ],
        schema=SALES,
    )


def of_day(table: pa.Table, day: str) -> pa.Table:
    """The same sales on another day."""
    return table.set_column(0, SALES.field("day"), pa.array([day] * table.num_rows))


def wide(seed: int, rows: int = 60_000) -> pa.Table:
    """A file's worth of `WIDE`."""
    below = random.Random(seed).random
    columns = [pa.array([below() for _ in range(rows)]) for _ in WIDE]
    return pa.table(columns, schema=WIDE)


def events(day: str, rows: int) -> pa.Table:
    """Log lines with a number and a time."""
    lines = corpus.log_text(rows * 400, seed=7).decode().splitlines()[:rows]
    return pa.table(
        {
            "day": [day] * rows,
            "id": pa.array(range(rows)),
            "at": pa.array([_US + i * 977 for i in range(rows)], pa.timestamp("us", "UTC")),
            "text": lines,
        }
    )
