"""How much a bucket would shrink: a sample of it, compressed as the gateway would, and projected.

Rule: nothing is written. What is measured goes through the same encoder that stores objects (codec
choice, frame sizes, headers, the sidecar of objects of several frames), so that the projection is
about the bytes a store would hold. Some objects of every kind are read, and then more of the kinds
that leave the total uncertain, until it is known closely enough or so many were read.
"""

import math
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer, BackendProtocolError, ObjectStream
from s4gateway.codecs import encoder as framing
from s4gateway.objects.encoding import DIGESTS, ObjectEncoder
from s4gateway.objects.fan_out import fan_out
from s4gateway.s3.checksums import Digests
from s4gateway.tools import estimate_report
from s4gateway.tools.estimate_report import Estimate, EstimateReport, Facts
from s4gateway.tools.objects import Objects, open_objects
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.projection import Projection
from s4gateway.tools.strata import Drawn, Strata, Stratum
from s4gateway.tools.walk import Listed, walk
from s4gateway.wire import envelope, frame, manifest
from s4gateway.wire.manifest import Form

_MORE: Final = 32  # objects of a kind that may be read for each that is read first
_CLOSE: Final = 0.015  # standard error of the total, as a share of it, at which enough was read
_SIDECAR_ENTRY: Final = 32  # bytes of an index for each frame (wire/index.py)
_SIDECAR_HEAD: Final = 96


async def estimate(
    backend: Backend, wanted: Estimate, progress: Progress = SILENT
) -> EstimateReport:
    """Estimate what `wanted.target` would take compressed; raises BackendError."""
    most = _MORE * wanted.samples_per_stratum
    strata = Strata(wanted.storage_class, wanted.seed, most + 1)  # one more, for its rank
    listed, truncated = 0, False
    async with aclosing(walk(backend, wanted.target, limit=wanted.max_list_keys + 1)) as listing:
        async for entry in listing:
            if listed == wanted.max_list_keys:
                truncated = True
                break
            listed += 1
            strata.add(entry)
    async with open_objects(backend, wanted.making) as objects:
        sampler = _Sampler(objects, wanted, progress)
        measured = [_Sampling(each, most) for each in strata.sorted()]
        await _measure(sampler, measured, wanted.samples_per_stratum)
    return estimate_report.report(wanted, [each.facts for each in measured], truncated=truncated)


async def _measure(sampler: "_Sampler", measured: "list[_Sampling]", count: int) -> None:
    """Read `count` objects of each kind, then more of the one the total depends on most."""
    projections: dict[str, Projection] = {}
    for each in measured:
        projections[each.name] = await each.read(sampler, count)
    while True:
        variance = sum(each.variance for each in projections.values())
        total = sum(each.stored for each in projections.values())
        left = [each for each in measured if each.drawn and projections[each.name].variance]
        if not left or math.sqrt(variance) <= _CLOSE * total:
            return
        worst = max(left, key=lambda each: projections[each.name].variance)
        projections[worst.name] = await worst.read(sampler, count)


class _Sampling:
    """One stratum, and what was read of it so far."""

    def __init__(self, stratum: Stratum, most: int) -> None:
        drawn = stratum.drawn
        self.name = stratum.name
        self.facts = Facts(stratum)
        self.drawn = drawn[:most]  # not looked at yet
        self._beyond = drawn[most].rank if len(drawn) > most else None

    async def read(self, sampler: "_Sampler", count: int) -> Projection:
        """Read and compress objects in the order they were drawn, until `count` more are sampled.

        An object that a gateway stored already stays as it is.
        """
        facts, wanted = self.facts, self.facts.sampled + count
        while self.drawn and facts.sampled < wanted:
            fewer = wanted - facts.sampled
            batch, self.drawn = self.drawn[:fewer], self.drawn[fewer:]
            for each, outcome in zip(batch, await sampler.read(batch), strict=True):
                if outcome is not None:
                    self._add(each.entry, outcome)
        facts.threshold = self.drawn[0].rank if self.drawn else self._beyond
        return facts.project()

    def _add(self, entry: Listed, outcome: "_Outcome") -> None:
        facts = self.facts
        facts.read += outcome.read
        if outcome.stored is None:
            facts.already += 1
            facts.sample.add(entry.size, entry.size)
            return
        facts.sampled += 1
        facts.codecs[outcome.codec] += 1
        facts.cut += outcome.read < entry.size
        facts.sample.add(entry.size, outcome.stored)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One object: bytes read, and bytes it would be stored in, None when it is stored already."""

    read: int
    stored: float | None
    codec: str = ""


class _Sampler:
    """Reads and compresses objects, some at once."""

    def __init__(self, objects: Objects, wanted: Estimate, progress: Progress) -> None:
        self._objects = objects
        self._wanted = wanted
        self._progress = progress

    async def read(self, batch: list[Drawn]) -> "list[_Outcome | None]":
        """What became of each; None for what cannot be read any more."""
        self._progress.found(len(batch))
        return await fan_out([each.entry for each in batch], self._one, self._wanted.concurrency)

    async def _one(self, entry: Listed) -> "_Outcome | None":
        most = self._wanted.max_sample_bytes
        cut = (0, most) if entry.size > most else None
        backend, bucket = self._objects.backend, self._wanted.target.bucket
        try:
            async with await backend.get(bucket, entry.key, byte_range=cut) as stream:
                return await _compressed(self._objects, self._wanted, entry.size, stream)
        except (BackendAnswer, BackendProtocolError):
            return None
        finally:
            self._progress.done(1)


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
