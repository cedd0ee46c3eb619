"""A process with a ledger: `python -m tests.state.hammer PATH EVENTS SEED`.

It applies that many random events, eight at a time, and says of each, when it is settled, what it
added: a line `BUCKET ORIGINAL STORED`. Every event adds one object.
"""

import asyncio
import random
import sys
from pathlib import Path

from s4gateway.state.live_ledger import LiveLedger

AT_ONCE = 8


class Unseen:
    """Nobody looks at this process."""

    def flush_failed(self) -> None:
        sys.stderr.write("a flush failed\n")

    def load_failed(self, reason: str) -> None:
        sys.stderr.write(f"set aside: {reason}\n")


async def hammer(path: Path, events: int, seed: int) -> None:
    live = LiveLedger(path, Unseen())
    draw = random.Random(seed)
    left = iter(range(events))

    async def work() -> None:
        for _ in left:
            bucket = draw.choice("abc")
            original, stored = draw.randrange(10**6), draw.randrange(10**5)
            run = live.apply(bucket, original=original, stored=stored, objects=1)
            if draw.random() < 0.5:  # as a gateway does while the store works
                live.begin()
                await asyncio.sleep(draw.random() / 100)
            await live.settled(run)
            sys.stdout.write(f"{bucket} {original} {stored}\n")
            sys.stdout.flush()

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    await live.close()


if __name__ == "__main__":
    asyncio.run(hammer(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
