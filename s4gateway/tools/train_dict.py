"""Train a dictionary from objects of a bucket, and publish it there if it is worth it.

    draw -> read and decode -> split -> train -> measure what was held out -> publish

Rule: what is published is what was measured. The dictionary learns from four fifths of the sample
and is judged on the rest, by the objects the gateway would store of them; one that does not pay is
not published unless forced. Publishing replaces nothing and changes no object: a dictionary is a
new object under the digest of its bytes, which nothing uses until a gateway is told to.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from s4gateway.backend.base import Backend
from s4gateway.codecs import training, zstd_dict
from s4gateway.objects import dictionaries
from s4gateway.objects.dict_map import DictMapping
from s4gateway.tools.dict_status import WARN_WIN_RATE
from s4gateway.tools.objects import Making, Objects, open_objects
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.sampling import Draw, Sampled, sample
from s4gateway.tools.target import Target

_HELD_OUT: Final = 5  # one in so many samples is kept from the trainer
_FRAGMENTS: Final = (
    "the dictionary holds fragments of the samples in plain text; whoever may read the bucket's "
    "objects may read it, so give no two tenants the same one"
)


@dataclass(frozen=True, slots=True)
class Options:
    """How to sample, train and judge; sizes in bytes, `zstd_level` that of the gateway."""

    draw: Draw = field(default_factory=Draw)
    min_samples: int = 8
    max_dict_bytes: int = training.DEFAULT_SIZE
    zstd_level: int = 3
    threads: int = 1
    force: bool = False
    dry_run: bool = False


class UnmappableTarget(training.TrainingError):
    """No gateway could be told to use a dictionary there."""


class NotEnoughSamples(training.TrainingError):
    """Too few objects that may serve as samples."""

    def __init__(self, target: Target, sampled: Sampled, minimum: int) -> None:
        self.bucket, self.prefix = target.bucket, target.prefix
        self.found, self.minimum = len(sampled.bodies), minimum
        text = (
            f"{target}: {self.found} of {sampled.listed} objects can serve as samples, at least "
            f"{minimum} are needed"
        )
        if reasons := ", ".join(f"{count} {why}" for why, count in sampled.reasons().items()):
            text += f"; not used: {reasons}"
        if sampled.problem is not None:
            text += f"; first unreadable: {sampled.problem}"
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What storing the objects held out takes, without and with the dictionary; sizes in bytes.

    Ratios are stored / original bytes; `win_rate` is the share stored with the dictionary.
    """

    objects: int
    wins: int
    win_rate: float
    original_bytes: int
    plain_bytes: int
    plain_ratio: float
    dict_bytes: int
    dict_ratio: float


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What was sampled, what it made, and what that is worth; sizes in bytes.

    `skipped` counts objects by reason; `decoded_samples` are those a gateway wrote. `refused` says
    why a dictionary that does not pay was not published.
    """

    bucket: str
    prefix: str
    listed_objects: int
    listing_truncated: bool
    skipped: Mapping[str, int]
    samples: int
    decoded_samples: int
    sample_bytes: int
    trained_on: int
    held_out: HeldOut
    dict_id: str
    dict_bytes: int
    published: bool
    already_there: bool
    refused: str | None
    flag: str
    map_line: str
    seed: int
    notes: tuple[str, ...]


async def run(
    backend: Backend, target: Target, options: Options, progress: Progress = SILENT
) -> TrainReport:
    """Sample, train, measure and publish.

    Raises TrainingError (NotEnoughSamples, UnmappableTarget and more), DictionaryError
    (DictionaryConflict when other bytes have the dictionary's id), BackendError.
    """
    training.check_size(options.max_dict_bytes)
    try:
        DictMapping.parse(f"{target.bucket}/{target.prefix}", "0" * zstd_dict.ID_LENGTH)
    except ValueError as error:
        raise UnmappableTarget(f"{str(target)!r} {error}") from error
    async with open_objects(backend, Making(options.threads, options.zstd_level)) as objects:
        sampled = await sample(objects, target, options.draw, progress)
        least = max(options.min_samples, training.MIN_SAMPLES + 1)
        if len(sampled.bodies) < least:
            raise NotEnoughSamples(target, sampled, least)
        dictionary, worth = await _train(objects, sampled.bodies, options)
    refused = None if options.force else _objection(worth)
    published = is_new = False
    if refused is None and not options.dry_run:
        _, is_new = await dictionaries.publish(backend, target.bucket, dictionary)
        published = True
    dict_id = dictionaries.fingerprint(dictionary)
    return TrainReport(
        bucket=target.bucket,
        prefix=target.prefix,
        listed_objects=sampled.listed,
        listing_truncated=sampled.truncated,
        skipped=sampled.reasons(),
        samples=len(sampled.bodies),
        decoded_samples=sampled.decoded,
        sample_bytes=sampled.size,
        trained_on=len(sampled.bodies) - worth.objects,
        held_out=_held_out(worth),
        dict_id=dict_id,
        dict_bytes=len(dictionary),
        published=published,
        already_there=published and not is_new,
        refused=refused,
        flag=flag(target, dict_id),
        map_line=map_line(target, dict_id),
        seed=options.draw.seed,
        notes=tuple(_notes(sampled, worth, len(dictionary))),
    )


async def _train(
    objects: Objects, bodies: list[bytes], options: Options
) -> tuple[bytes, training.Evaluation]:
    """A dictionary of most of the bodies, and what it is worth on the others."""
    count = len(bodies) // _HELD_OUT or 1
    learnt, unseen = bodies[:-count], bodies[-count:]
    loop, executor = asyncio.get_running_loop(), objects.workshop.lanes.codec
    dictionary = await loop.run_in_executor(
        executor, training.train, learnt, options.max_dict_bytes
    )
    measure = partial(training.evaluate, unseen, dictionary, options.zstd_level)
    return dictionary, await loop.run_in_executor(executor, measure)


def _held_out(worth: training.Evaluation) -> HeldOut:
    original = worth.original_bytes
    return HeldOut(
        objects=worth.objects,
        wins=worth.wins,
        win_rate=worth.win_rate,
        original_bytes=original,
        plain_bytes=worth.plain_bytes,
        plain_ratio=worth.plain_bytes / original,
        dict_bytes=worth.dict_bytes,
        dict_ratio=worth.dict_bytes / original,
    )


def _objection(worth: training.Evaluation) -> str | None:
    """Why a dictionary should not be published; None when it pays."""
    if not worth.loses(WARN_WIN_RATE):
        return None
    return (
        f"the dictionary does not pay: it wins on {worth.wins} of {worth.objects} objects it was "
        f"not trained on, which take {worth.dict_bytes} bytes with it and {worth.plain_bytes} "
        "without"
    )


def _notes(sampled: Sampled, worth: training.Evaluation, size: int) -> list[str]:
    saved = (worth.plain_bytes - worth.dict_bytes) / worth.objects
    notes = [f"measured on {worth.objects} objects it was not trained on; others may differ"]
    if saved > 0:
        notes.append(
            f"it saves {saved:.0f} bytes an object more than plain frames do, and so pays for its "
            f"own {size} bytes with the first {-int(-size // saved)} objects"
        )
    if len(sampled.bodies) < training.ADVISED_SAMPLES:
        notes.append(f"{len(sampled.bodies)} samples are few: some hundreds make a better one")
    if sampled.size < training.ADVISED_FACTOR * size:
        notes.append(
            f"the samples are only {sampled.size / size:.1f} times as large as the dictionary: "
            "more of them, or a smaller --max-dict-bytes, make one that fits better"
        )
    if sampled.truncated:
        notes.append(f"only the first {sampled.listed} keys were listed (--max-list-keys)")
    if sampled.problem is not None:
        notes.append(f"first object that could not be read: {sampled.problem}")
    return [*notes, _FRAGMENTS]


def flag(target: Target, dict_id: str) -> str:
    """Return the option that makes a gateway use the dictionary, quoted for a shell.

    >>> print(flag(Target("logs", "it's/"), "0123456789abcdef"))
    --zstd-dict 'logs/it'"'"'s/=0123456789abcdef'
    """
    mapping = f"{target.bucket}/{target.prefix}={dict_id}".replace("'", "'\"'\"'")
    return f"--zstd-dict '{mapping}'"


def map_line(target: Target, dict_id: str) -> str:
    r"""Return the line for `[mappings]` in the file of --zstd-dict-map.

    >>> print(map_line(Target("logs", 'a"b\x7f'), "0123456789abcdef"))
    "logs/a\"b\u007f" = "0123456789abcdef"
    """
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped and JSON does not.
    key = json.dumps(f"{target.bucket}/{target.prefix}", ensure_ascii=False)
    return f'{key} = "{dict_id}"'.replace("\x7f", "\\u007f")
