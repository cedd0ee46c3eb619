"""Make a zstd dictionary from samples, and measure what it is worth on bodies it has not seen.

The trainer is libzstd's (fast COVER, ZDICT_optimizeTrainFromBuffer_fastCover): the same samples in
the same order give the same dictionary. Rule: a dictionary is judged on bodies it was not trained
on, by the frames the gateway would store, because a dictionary always fits its own samples.
https://facebook.github.io/zstd/zstd_manual.html and lib/zdict.h of zstd
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import zstandard

from s4gateway.codecs import base, encoder, zstd, zstd_dict
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.frame import HEADER_SIZE

DEFAULT_SIZE: Final = 112_640  # bytes; what the zstd program makes without being asked
MIN_SIZE: Final = 256  # ZDICT_DICTSIZE_MIN
MIN_SAMPLES: Final = 7  # three quarters of them, at least five, are what the trainer learns from

# zdict.h advises a few thousand samples and a hundred times the dictionary's size in all.
ADVISED_SAMPLES: Final = 100
ADVISED_FACTOR: Final = 10


class TrainingError(Exception):
    """No dictionary can be made of this.

    NotEnoughSamples       fewer samples than the trainer, or the caller, needs
    DictionarySizeError    a size no dictionary can have
    UntrainableSamples     the trainer found nothing to learn
    """


class NotEnoughSamples(TrainingError):
    """Too few samples that are not empty."""

    def __init__(self, found: int, minimum: int) -> None:
        super().__init__(f"{found} usable samples, at least {minimum} are needed")
        self.found = found
        self.minimum = minimum


class DictionarySizeError(TrainingError):
    """A dictionary is to be smaller than libzstd makes them, or larger than 1 MiB."""

    def __init__(self, requested: int) -> None:
        cap = zstd_dict.MAX_DICTIONARY_SIZE
        super().__init__(
            f"a dictionary of {requested} bytes: from {MIN_SIZE} to {cap} are possible"
        )
        self.requested = requested
        self.cap = cap


class UntrainableSamples(TrainingError):
    """What the samples share is too little: they are too small, or have nothing in common."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What storing some bodies takes, with and without a dictionary; sizes in bytes.

    `plain_bytes` and `dict_bytes` are stored objects, frame headers included, each the smallest of
    what the gateway may choose from; a win is a body stored with the dictionary.
    """

    objects: int
    wins: int
    original_bytes: int
    plain_bytes: int
    dict_bytes: int

    @property
    def win_rate(self) -> float:
        """Wins per object; 0.0 without objects."""
        return self.wins / self.objects if self.objects else 0.0

    def loses(self, least_win_rate: float) -> bool:
        """Whether the gateway would do better without the dictionary."""
        return self.win_rate < least_win_rate or self.dict_bytes >= self.plain_bytes


def check_size(size: int) -> None:
    """Raise DictionarySizeError for a size in bytes that no dictionary can have."""
    if not MIN_SIZE <= size <= zstd_dict.MAX_DICTIONARY_SIZE:
        raise DictionarySizeError(size)


def train(samples: Iterable[bytes], max_size: int = DEFAULT_SIZE) -> bytes:
    """Return a dictionary of at most `max_size` bytes; empty samples do not count.

    Raises NotEnoughSamples, DictionarySizeError, UntrainableSamples. Takes about a second of CPU
    for ten MB of samples.

    >>> shape = b'{"time": %d, "service": "checkout", "action": "login", "user": "u%d", "ok": true}'
    >>> events = [shape % (7919 * n, n) for n in range(100)]
    >>> dictionary = train(events[:80], max_size=1024)
    >>> len(dictionary) <= 1024, evaluate(events[80:], dictionary).wins
    (True, 20)
    """
    check_size(max_size)
    useful: list[bytes | bytearray | memoryview] = [sample for sample in samples if sample]
    if len(useful) < MIN_SAMPLES:
        raise NotEnoughSamples(len(useful), MIN_SAMPLES)
    try:
        dictionary = zstandard.train_dictionary(max_size, useful).as_bytes()
        zstd_dict.ZstdDict(dictionary)
    except (zstandard.ZstdError, base.CodecError) as error:
        total = sum(map(len, useful))
        raise UntrainableSamples(
            f"{len(useful)} samples of {total} bytes in all give no dictionary: {error}"
        ) from error
    return dictionary


def evaluate(
    bodies: Sequence[bytes], dictionary: bytes, level: int = zstd.DEFAULT_LEVEL
) -> Evaluation:
    """Measure one-frame objects of these bodies, with and without `dictionary`.

    Raises CodecError (dictionary-invalid).
    """
    plain, with_dictionary = zstd.Zstd(level), zstd_dict.ZstdDict(dictionary, level)
    wins = original = without = smallest = 0
    for body in bodies:
        size = len(body)
        trial = encoder.try_dictionary(body, plain, with_dictionary)
        stored = trial.frame.stored_size
        wins += trial.frame.header.codec is CodecId.CPU_ZSTD_DICT and stored < size
        original += size
        without += min(size, trial.without + HEADER_SIZE)
        smallest += min(size, stored)
    return Evaluation(len(bodies), wins, original, without, smallest)
