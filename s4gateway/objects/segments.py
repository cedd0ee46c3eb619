"""Which parts the store is asked to assemble: the plan of a CompleteMultipartUpload.

    client   1 staged  2 staged  3 staged | 4 direct | 5 staged      | tail
    store    1 ------ run ------ 2        | 4        | 5 ---- run ----------

Rule: what the store holds as a part of its own stays as it is. Staged parts that stand beside each
other are one run of bytes, cut anew into parts the store accepts: at least 5 MiB each, or exactly
as long as all others where it wants them equal; only the last part of the object may be shorter. A
run that cannot be cut so is padded. The numbers are free ones of the same stretch, the run's own
first, so the order of bytes is that of the client's numbers. The tail ends the object.

Pure: facts in, plan out. https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from s4gateway.objects.part_facts import PartFacts
from s4gateway.s3.completion import MOST_PARTS, SMALLEST_PART
from s4gateway.s3.errors import S3Error
from s4gateway.wire.frame import PADDING_HEADER_SIZE

PADDING: Final = -1  # a slice of the padding frame of its segment's run
TAIL: Final = -2  # a slice of the tail
TARGET: Final = 8 * 1024 * 1024  # bytes of a part made of staged ones: enough for few requests
_UNIFORM: Final = 8 * 1024 * 1024  # the same where equal parts are wanted and no length is given


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes [start, end) of a staged part, named by its position, or of PADDING or TAIL."""

    source: int
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of the object as the store is to have it, and its number there.

    `direct` is the position of a part the store has already; otherwise `slices` are to be sent.
    `padding` is the size in bytes of the padding frame that PADDING slices are taken from.
    """

    number: int
    direct: int | None = None
    slices: tuple[Slice, ...] = ()
    padding: int = 0

    @property
    def size(self) -> int:
        """Bytes to be sent."""
        return sum(each.size for each in self.slices)


def plan(parts: Sequence[PartFacts], tail: int, *, uniform: bool = False) -> tuple[Segment, ...]:
    """Plan an object of these parts, in order of their numbers, and a tail of `tail` bytes.

    `uniform` makes all segments but the last equal. Raises S3Error, InvalidPart, when they cannot
    be made equal, or no number is left for what must be sent.

    >>> facts = [PartFacts(n, "0" * 32, 9, 9, "0" * 32) for n in (2, 5)]
    >>> [segment] = plan(facts, 50)
    >>> segment.number, [(each.source, each.size) for each in segment.slices]
    (2, [(0, 9), (1, 9), (-2, 50)])
    """
    unit = _unit(parts, tail) if uniform else None
    segments: list[Segment] = []
    run: list[int] = []
    below = 0  # the number of the last direct part
    for position, part in enumerate(parts):
        if part.staged:
            run.append(position)
            continue
        if run:
            segments += _Run(parts, run, below, part.number).cut(None, unit)
            run = []
        segments.append(Segment(part.number, position))
        below = part.number
    segments += _Run(parts, run, below, MOST_PARTS + 1).cut(tail, unit)
    return tuple(segments)


def _unit(parts: Sequence[PartFacts], tail: int) -> int:
    """The length all segments but the last are to have."""
    lengths = {part.stored_size for part in parts if not part.staged}
    if len(lengths) > 1:
        raise _unequal()
    if lengths:
        return lengths.pop()
    room = MOST_PARTS + 1 - parts[0].number
    total = sum(part.stored_size for part in parts) + tail
    return max(_UNIFORM, -(-total // room))


class _Run:
    """Staged parts beside each other, above number `below` and below number `above`."""

    def __init__(
        self, parts: Sequence[PartFacts], positions: list[int], below: int, above: int
    ) -> None:
        self._numbers = [parts[position].number for position in positions]
        self._slices = [Slice(each, 0, parts[each].stored_size) for each in positions]
        self._size = sum(each.size for each in self._slices)
        self._below, self._above = below, above

    def cut(self, tail: int | None, unit: int | None) -> list[Segment]:
        """Cut into segments; `tail` is given for the run that ends the object, perhaps empty."""
        padding = 0
        if tail is None:
            padding = self._missing(unit)
            if padding:
                self._slices.append(Slice(PADDING, 0, padding))
        else:
            self._slices.append(Slice(TAIL, 0, tail))
        pieces = _whole(self._slices) if unit is None else _equal(self._slices, unit)
        return [
            Segment(number, None, tuple(piece), padding)
            for number, piece in zip(self._choose(len(pieces)), pieces, strict=True)
        ]

    def _missing(self, unit: int | None) -> int:
        """Bytes of the padding frame that makes the run acceptable before another part."""
        if unit is None:
            missing = SMALLEST_PART - self._size
            return max(missing, PADDING_HEADER_SIZE) if missing > 0 else 0
        missing = -self._size % unit
        return missing if not missing or missing >= PADDING_HEADER_SIZE else missing + unit

    def _choose(self, count: int) -> list[int]:
        """The lowest of the run's own numbers, and others only when these are too few."""
        if count <= len(self._numbers):
            return self._numbers[:count]
        own = set(self._numbers)
        free = (number for number in range(self._below + 1, self._above) if number not in own)
        chosen = own.union(itertools.islice(free, count - len(own)))
        if len(chosen) < count:
            raise _unequal()
        return sorted(chosen)


def _whole(slices: list[Slice]) -> list[list[Slice]]:
    """Gather slices, each kept whole, into pieces of about TARGET bytes.

    No piece is below the store's minimum unless all of it is; padding and tail begin none.
    """
    pieces: list[list[Slice]] = [[]]
    size = 0
    for each in slices:
        full = size >= TARGET or (size >= SMALLEST_PART and each.size >= TARGET)
        if full and each.source >= 0:
            pieces.append([])
            size = 0
        pieces[-1].append(each)
        size += each.size
    if size < SMALLEST_PART and len(pieces) > 1:
        last = pieces.pop()
        pieces[-1] += last
    return pieces


def _equal(slices: list[Slice], unit: int) -> list[list[Slice]]:
    """Cut slices wherever a piece has `unit` bytes; the last piece has what is left."""
    pieces: list[list[Slice]] = [[]]
    room = unit
    for each in slices:
        start = each.start
        while start < each.end:
            if not room:
                pieces.append([])
                room = unit
            end = min(each.end, start + room)
            pieces[-1].append(Slice(each.source, start, end))
            room -= end - start
            start = end
    return pieces


def _unequal() -> S3Error:
    return S3Error("InvalidPart", "All non-trailing parts must have the same length.")
