"""Small JSON events of many shapes, and dictionaries trained on them.

Each vintage is a shape of its own: what one has in common with another is that it is JSON.
"""

import functools
import hashlib
import json
import random

import zstandard

_WORDS = [
    "invoice", "account", "checkout", "session", "carrier", "refund", "voucher", "warehouse",
    "parcel", "courier", "ledger", "payment", "shipment", "customer", "basket", "coupon",
    "delivery", "address", "currency", "retention", "gateway", "tenant",
]  # fmt: skip


def event(number: int, vintage: int = 0) -> bytes:
    """One event of 200 to 400 bytes; the same number gives the same event."""
    source = random.Random(f"{vintage}/{number}")
    shape = random.Random(f"shape {vintage}")
    fields: dict[str, object] = {"ts": f"2025-03-{number % 28 + 1:02}T10:{number % 60:02}:00Z"}
    for turn, word in enumerate(shape.sample(_WORDS, 8)):
        name = f"{word}_{shape.choice(_WORDS)}"
        if turn % 2:
            fields[name] = source.randrange(10**6)
        else:
            fields[name] = f"{shape.choice(_WORDS)}-{source.choice(_WORDS)}"
    return json.dumps(fields).encode()


def events(count: int, vintage: int = 0, start: int = 0) -> list[bytes]:
    return [event(number, vintage) for number in range(start, start + count)]


@functools.cache
def trained(vintage: int = 0, size: int = 4096) -> bytes:
    """A dictionary that makes events of its vintage several times smaller."""
    return zstandard.train_dictionary(size, events(400, vintage, start=10**6)).as_bytes()


def id_of(dictionary: bytes) -> str:
    return hashlib.sha256(dictionary).hexdigest()[:16]
