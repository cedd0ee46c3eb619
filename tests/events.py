"""Small JSON events of two shapes: a dictionary of one helps its own shape and not the other."""

import json
import random

from tests import corpus

_ACTIONS = ("login", "logout", "purchase", "refund", "view", "search")


def orders(count: int, seed: int = 0) -> list[bytes]:
    """Events of a shop, 300 to 500 bytes each, no two alike."""
    source = random.Random(f"orders {seed}")
    return [
        json.dumps(
            {
                "event_id": f"{source.getrandbits(64):016x}",
                "occurred_at": f"2026-03-{1 + number % 28:02}T10:{number % 60:02}:00.000Z",
                "service": "checkout",
                "region": "eu-central-1",
                "action": source.choice(_ACTIONS),
                "customer": {"id": source.randrange(10**6), "segment": "retail", "locale": "de-DE"},
                "basket": {
                    "currency": "EUR",
                    "total_cents": source.randrange(10**5),
                    "lines": source.randrange(1, 9),
                    "payment_method": "invoice",
                },
                "trace": {"sampled": bool(number % 2), "span": f"{source.getrandbits(32):08x}"},
            }
        ).encode()
        for number in range(count)
    ]


def strangers(count: int, seed: int = 0) -> list[bytes]:
    """Text that zstd shrinks and no dictionary of orders helps with: each line once or twice."""
    source = random.Random(f"strangers {seed}")
    found = []
    for _ in range(count):
        line = "".join(source.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=400))
        found.append(f"{line}\n{line}\n".encode())
    return found


def prose(count: int, size: int = 600, seed: int = 1) -> list[bytes]:
    """Pieces of installed text."""
    text = corpus.text(count * size, seed)
    return [text[start : start + size] for start in range(0, len(text), size)]
