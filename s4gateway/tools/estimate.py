"""How much a bucket would shrink: a sample of it, compressed as the gateway would, and projected.

Rule: nothing is written. What is measured goes through the same encoder that stores objects (codec
choice, frame sizes, headers, the sidecar of objects of several frames), so that the projection is
about the bytes a store would hold. What is concluded from a sample is said to be.

A stratum's ratio is the mean of its sample's ratios: objects are drawn in proportion to their size,
and such a mean is an unbiased estimate of stored bytes over original bytes (Hansen and Hurwitz,
1943). A stratum that was read whole is not estimated but summed up.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer, BackendProtocolError, ObjectStream
from s4gateway.codecs import encoder as framing
from s4gateway.objects.encoding import DIGESTS, ObjectEncoder
from s4gateway.s3.checksums import Digests
from s4gateway.tools.figures import DEFAULT_PRICE, GIB
from s4gateway.tools.objects import Making, Objects, open_objects
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.storage_classes import CLASSES, KIB, STANDARD, StorageClass
from s4gateway.tools.strata import Strata, Stratum
from s4gateway.tools.target import Target
from s4gateway.tools.walk import Listed, walk
from s4gateway.wire import envelope, frame, manifest
from s4gateway.wire.manifest import Form

_SPARE: Final = 4  # objects drawn for each sample wanted: some are compressed already, or gone
_BOUNDS: Final = (KIB, 4 * KIB, 16 * KIB, 64 * KIB, 128 * KIB)
_SMALL: Final = 16 * KIB  # average size below which objects of a kind gain by a dictionary
_MANY: Final = 100  # objects from which training one pays
_NO_GAIN: Final = 0.97
_SIDECAR_ENTRY: Final = 32  # bytes of an index for each frame (wire/index.py)
_SIDECAR_HEAD: Final = 96


@dataclass(frozen=True, slots=True)
class Estimate:
    """What to estimate and how closely; sizes in bytes.

    `max_sample_bytes` are read of an object at most, from its start. `part_size` models uploads in
    parts of that size, which decides how large frames are. `making` is how the gateway would
    compress.
    """

    target: Target
    making: Making
    max_list_keys: int = 100_000
    samples_per_stratum: int = 8
    max_sample_bytes: int = 8 * 1024 * 1024
    seed: int = 42
    price_per_gb_month: float = DEFAULT_PRICE
    storage_class: StorageClass = CLASSES[STANDARD]
    part_size: int | None = None
    concurrency: int = 8


@dataclass(frozen=True, slots=True)
class StratumEstimate:
    """One kind of objects; `ratio` is projected over present bytes, `codecs` counts the picks."""

    stratum: str
    objects: int
    bytes: int
    sampled: int
    already_s4: int
    sampled_bytes_read: int
    codecs: Mapping[str, int]
    ratio: float
    projected_bytes: int
    advice: str


@dataclass(frozen=True, slots=True)
class SizeBand:
    """Objects that would be stored in fewer bytes than `below`, None for all larger ones."""

    below: int | None
    objects: int
    projected_bytes: int


@dataclass(frozen=True, slots=True)
class EstimateReport:
    """The projection; money in USD a month for what is stored."""

    bucket: str
    prefix: str
    total_objects: int
    total_bytes: int
    listing_truncated: bool
    max_list_keys: int
    sampled_objects: int
    sampled_bytes_read: int
    sampled_fraction_of_total_bytes: float
    strata: tuple[StratumEstimate, ...]
    overall_ratio: float
    projected_total_bytes: int
    sizes_after: tuple[SizeBand, ...]
    storage_class: str
    billed_bytes: int
    projected_billed_bytes: int
    price_per_gb_month: float
    current_monthly_cost_usd: float
    projected_monthly_cost_usd: float
    seed: int
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Measured:
    """What the sample of a stratum came to; sizes in bytes, `stored` of whole objects projected."""

    ratios: list[float] = field(default_factory=list)
    already: int = 0
    read: int = 0
    cut: int = 0
    stored: int = 0
    codecs: Counter[str] = field(default_factory=Counter)

    def ratio(self) -> float:
        """Stored over present bytes; 1 where nothing was measured."""
        looked_at = len(self.ratios) + self.already
        return (sum(self.ratios) + self.already) / looked_at if looked_at else 1.0


async def estimate(
    backend: Backend, wanted: Estimate, progress: Progress = SILENT
) -> EstimateReport:
    """Estimate what `wanted.target` would take compressed; raises BackendError."""
    strata = Strata(wanted.storage_class, wanted.seed, _SPARE * wanted.samples_per_stratum)
    listed, truncated = 0, False
    async with aclosing(walk(backend, wanted.target, limit=wanted.max_list_keys + 1)) as listing:
        async for entry in listing:
            if listed == wanted.max_list_keys:
                truncated = True
                break
            listed += 1
            strata.add(entry)
    found = strata.sorted()
    progress.found(sum(min(wanted.samples_per_stratum, each.objects) for each in found))
    async with open_objects(backend, wanted.making) as objects:
        gate = asyncio.Semaphore(wanted.concurrency)
        measured = [await _measure(objects, wanted, each, gate, progress) for each in found]
    return _report(wanted, found, measured, truncated=truncated)


async def _measure(
    objects: Objects,
    wanted: Estimate,
    stratum: Stratum,
    gate: asyncio.Semaphore,
    progress: Progress,
) -> _Measured:
    """Read and compress objects of a stratum, in the order they were drawn, until there are enough.

    An object that a gateway stored already stays as it is.
    """
    result = _Measured()
    drawn = stratum.drawn
    while drawn and len(result.ratios) < wanted.samples_per_stratum:
        count = wanted.samples_per_stratum - len(result.ratios)
        batch, drawn = drawn[:count], drawn[count:]
        outcomes = await asyncio.gather(*(_sample(objects, wanted, each, gate) for each in batch))
        for entry, outcome in zip(batch, outcomes, strict=True):
            if outcome is None:
                continue
            result.read += outcome.read
            if outcome.stored is None:
                result.already += 1
                result.stored += entry.size
                continue
            progress.done(1)
            result.codecs[outcome.codec] += 1
            result.cut += outcome.read < entry.size
            result.ratios.append(outcome.stored / entry.size)
            result.stored += round(outcome.stored)
    return result


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One object: bytes read, and bytes it would be stored in, None when it is stored already."""

    read: int
    stored: float | None
    codec: str = ""


async def _sample(
    objects: Objects, wanted: Estimate, entry: Listed, gate: asyncio.Semaphore
) -> _Outcome | None:
    """Compress one object, or its beginning; None when it cannot be read any more."""
    bucket = wanted.target.bucket
    cut = (0, wanted.max_sample_bytes) if entry.size > wanted.max_sample_bytes else None
    async with gate:
        try:
            stream = await objects.backend.get(bucket, entry.key, byte_range=cut)
            async with stream:
                return await _compressed(objects, wanted, entry.size, stream)
        except (BackendAnswer, BackendProtocolError):
            return None


async def _compressed(
    objects: Objects, wanted: Estimate, size: int, stream: ObjectStream
) -> _Outcome:
    if manifest.classify(stream.head.metadata).form is not Form.FOREIGN:
        return _Outcome(0, None)
    unit = size if wanted.part_size is None else min(size, wanted.part_size)
    encoder = ObjectEncoder(objects.workshop, objects.dispatcher, Digests(DIGESTS), unit)
    read = 0
    try:
        async for piece in stream:
            if not read and _is_stored_form(piece):
                return _Outcome(len(piece), None)
            read += len(piece)
            await encoder.feed(piece)
        encoded = await encoder.finish()
    finally:
        encoder.close()
    with_encoded = encoded.stored_size / read * size if read else float(size)
    label = encoded.manifest.codec.label
    encoded.close()
    frames = -(-size // framing.pick_chunk_size(unit))
    if encoded.manifest.framed and frames > 1:
        with_encoded += _SIDECAR_HEAD + _SIDECAR_ENTRY * frames
    return _Outcome(read, with_encoded, label)


def _is_stored_form(piece: bytes) -> bool:
    """Frames or an envelope without the metadata that would say how to read them."""
    magics = (frame.MAGIC, frame.PADDING_MAGIC)
    return piece.startswith(magics) or envelope.recognise(piece) is not None


def _report(
    wanted: Estimate,
    strata: Sequence[Stratum],
    measured: Sequence[_Measured],
    *,
    truncated: bool,
) -> EstimateReport:
    rows = tuple(_row(each, facts) for each, facts in zip(strata, measured, strict=True))
    total, projected = sum(row.bytes for row in rows), sum(row.projected_bytes for row in rows)
    bands, billed_after = _after(strata, rows, wanted.storage_class)
    billed = sum(each.billed for each in strata)
    read = sum(row.sampled_bytes_read for row in rows)
    return EstimateReport(
        bucket=wanted.target.bucket,
        prefix=wanted.target.prefix,
        total_objects=sum(row.objects for row in rows),
        total_bytes=total,
        listing_truncated=truncated,
        max_list_keys=wanted.max_list_keys,
        sampled_objects=sum(row.sampled for row in rows),
        sampled_bytes_read=read,
        sampled_fraction_of_total_bytes=read / total if total else 0.0,
        strata=rows,
        overall_ratio=projected / total if total else 1.0,
        projected_total_bytes=projected,
        sizes_after=bands,
        storage_class=wanted.storage_class.name,
        billed_bytes=billed,
        projected_billed_bytes=billed_after,
        price_per_gb_month=wanted.price_per_gb_month,
        current_monthly_cost_usd=billed / GIB * wanted.price_per_gb_month,
        projected_monthly_cost_usd=billed_after / GIB * wanted.price_per_gb_month,
        seed=wanted.seed,
        notes=_notes(wanted, rows, sum(each.cut for each in measured), truncated=truncated),
    )


def _row(stratum: Stratum, facts: _Measured) -> StratumEstimate:
    whole = len(facts.ratios) + facts.already == stratum.objects
    projected = facts.stored if whole else round(stratum.size * facts.ratio())
    ratio = projected / stratum.size if stratum.size else 1.0
    return StratumEstimate(
        stratum.name,
        stratum.objects,
        stratum.size,
        len(facts.ratios),
        facts.already,
        facts.read,
        dict(facts.codecs.most_common()),
        ratio,
        projected,
        _advice(stratum, facts, ratio),
    )


def _advice(stratum: Stratum, facts: _Measured, ratio: float) -> str:
    """What to do about a stratum: compress, dictionary, leave, or look closer."""
    if not facts.ratios:
        return "leave" if facts.already or not stratum.size else "unknown"
    if ratio >= _NO_GAIN:
        return "leave"
    small = stratum.size / stratum.objects < _SMALL
    return "dictionary" if small and stratum.objects >= _MANY else "compress"


def _after(
    strata: Sequence[Stratum], rows: Sequence[StratumEstimate], storage: StorageClass
) -> tuple[tuple[SizeBand, ...], int]:
    """Sizes after compression, from those before; and what they are on the bill."""
    objects, sizes = Counter[int | None](), Counter[int | None]()
    billed = 0
    for stratum, row in zip(strata, rows, strict=True):
        for each in stratum.classes.values():
            size = round(each.size / each.objects * row.ratio)
            below = next((bound for bound in _BOUNDS if size < bound), None)
            objects[below] += each.objects
            sizes[below] += round(each.size * row.ratio)
            billed += each.objects * storage.billed(size)
    bounds: tuple[int | None, ...] = (*_BOUNDS, None)
    return tuple(SizeBand(each, objects[each], sizes[each]) for each in bounds), billed


def _notes(
    wanted: Estimate, rows: Sequence[StratumEstimate], cut: int, *, truncated: bool
) -> tuple[str, ...]:
    drawn = (
        "extrapolated from objects drawn in proportion to their size; the same bucket and seed"
        f" ({wanted.seed}) give the same figures, more --samples-per-stratum better ones"
    )
    notes = ["storage only: requests, traffic and the gateway's own machine cost extra", drawn]
    if not rows:
        return (f"no objects were found under {wanted.target}", *notes)
    if cut:
        notes.append(
            f"of {cut} large objects only the first {wanted.max_sample_bytes} bytes were read"
        )
    blind = [row.stratum for row in rows if row.bytes and not row.sampled and not row.already_s4]
    if blind:
        notes.append(f"nothing could be read of {', '.join(blind)}: counted as not compressible")
    if already := sum(row.already_s4 for row in rows):
        notes.append(
            f"{already} objects drawn are stored by a gateway already: counted as they are"
        )
    if truncated:
        notes.append(f"the listing was cut after {wanted.max_list_keys} keys (--max-list-keys)")
    if any(row.advice == "dictionary" for row in rows):
        notes.append("small objects of one kind compress better with a dictionary: s4 train-dict")
    if not wanted.storage_class.verbatim:
        notes.append(
            f"billed as {wanted.storage_class.name}: sizes after compression are averages of size"
            " classes, and a sidecar of a large object is billed as an object of its own"
        )
    return tuple(notes)
