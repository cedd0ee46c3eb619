"""Ranges of framed objects, read through an index.

    short ranges   frame by frame, from the cache of decoded frames or decoded now
    long ranges    one stream over the frames the plan names

Rule: an index is believed only as far as the frames agree with it: offset, stored and decoded size
of every frame it leads to are compared with the frame itself.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.budget import Reservation
from s4gateway.objects.decoding import DecodedFrame, FrameReader
from s4gateway.objects.dictionary_store import DictionaryStore
from s4gateway.objects.encoding import Workshop
from s4gateway.objects.errors import DamagedObject
from s4gateway.objects.frame_cache import FrameCache, FrameName
from s4gateway.objects.opening import Counter, OpenObject, Source
from s4gateway.objects.plaintext import first_verified, plaintext
from s4gateway.values import immutable
from s4gateway.wire import frame as wire_frame
from s4gateway.wire import plan as planning
from s4gateway.wire.index import FrameEntry, FrameIndex

_SHARE: Final = 1024 * 1024  # bytes a streamed read reserves before it knows its frames
# Ranges of at most so many bytes and frames are answered in one piece, from the frame cache.
_CACHED_RANGE: Final = 8 * 1024 * 1024
_CACHED_FRAMES: Final = 4
_CACHE_WORTHWHILE: Final = 128 * 1024  # bytes of plaintext below which decoding again is cheap


class RangeReader:
    """Opens ranges by index; shared by all requests of a process."""

    def __init__(
        self, workshop: Workshop, frames: FrameCache, dictionaries: DictionaryStore
    ) -> None:
        self._workshop = workshop
        self._frames = frames
        self._dictionaries = dictionaries
        self._decoding: dict[FrameName, asyncio.Future[None]] = {}

    async def open(
        self, source: Source, attributes: Attributes, index: FrameIndex, span: tuple[int, int]
    ) -> OpenObject | None:
        """Answer a range with the frames an index names; None when they are not as it says.

        The index may lie, and the object itself decides in the read from its start.
        """
        if index.total_original != attributes.size:
            return None
        plan = planning.plan(index, *span)
        if plan is None:
            return None
        try:
            if plan.take <= _CACHED_RANGE and _frame_count(plan) <= _CACHED_FRAMES:
                return await self._from_frames(source, attributes, index, plan, span)
            return await self._from_plan(source, attributes, index, plan, span)
        except DamagedObject:
            return None

    async def _from_plan(
        self,
        source: Source,
        attributes: Attributes,
        index: FrameIndex,
        plan: planning.RangePlan,
        span: tuple[int, int],
    ) -> OpenObject:
        """Stream the frames a plan names."""
        entries = [index[each] for each in range(plan.first_frame, plan.last_frame + 1)]
        stream = await source.pinned(attributes.head.etag, *_extent(entries))
        reservation: Reservation | None = None
        try:
            reservation = self._workshop.budget.share(_SHARE)
            counter = Counter()
            dictionary = await self._dictionary(source, attributes)
            reader = FrameReader(self._workshop, reservation, dictionary=dictionary)
            largest = max(entry.original_size for entry in entries)
            decoded = reader.frames(
                counter.over(stream),
                largest=largest,
                wanted=plan.skip + plan.take,
                offset=plan.fetch_start,
            )
            frames = await first_verified(_as_indexed(decoded, entries))
            content = plaintext(frames, plan.skip, plan.take)
        except BaseException:
            await stream.close()
            if reservation is not None:
                reservation.release()
            raise
        resources = (frames, stream, reservation)
        return OpenObject(attributes, *span, content, counter, None, resources)

    async def _from_frames(
        self,
        source: Source,
        attributes: Attributes,
        index: FrameIndex,
        plan: planning.RangePlan,
        span: tuple[int, int],
    ) -> OpenObject:
        """Answer a range over few frames, each from the frame cache or decoded now."""
        counter = Counter()
        reservation = self._workshop.budget.share(plan.take)
        read = _RangeRead(source, attributes, span, counter, reservation)
        try:
            pieces = await self._gather(read, index, plan)
        except BaseException:
            reservation.release()
            raise
        reservation.shrink(reservation.held - plan.take)
        return OpenObject(attributes, *span, b"".join(pieces), counter, None, (reservation,))

    async def _gather(
        self, read: "_RangeRead", index: FrameIndex, plan: planning.RangePlan
    ) -> list[bytes]:
        pieces: list[bytes] = []
        position = plan.first_frame
        while position <= plan.last_frame:
            data = await self._cached(read, index[position])
            if data is not None:
                pieces.append(data)
                position += 1
                continue
            last = position
            while last < plan.last_frame and read.frame_name(index[last + 1]) not in self._frames:
                last += 1
            run = [index[each] for each in range(position, last + 1)]
            pieces += await self._decode_run(read, run)
            position = last + 1
        return pieces

    async def _cached(self, read: "_RangeRead", entry: FrameEntry) -> bytes | None:
        name = read.frame_name(entry)
        return await self._frames.read(name, entry.original_size, *read.within(entry))

    async def _decode_run(self, read: "_RangeRead", run: list[FrameEntry]) -> list[bytes]:
        """Fetch neighbouring frames with one request; keep those that were used in part.

        A second reader of the same frame waits for the first one and then finds it in the cache.
        """
        names = [read.frame_name(entry) for entry in run]
        waiting = self._decoding.get(names[0])
        if len(run) == 1 and waiting is not None:
            await asyncio.wait([waiting])
            if (data := await self._cached(read, run[0])) is not None:
                return [data]
        mine: list[asyncio.Future[None]] = []
        for name in names:
            if name not in self._decoding:
                future = self._decoding[name] = asyncio.get_running_loop().create_future()
                mine.append(future)
        try:
            return await self._fetch_run(read, run)
        finally:
            for name in names:
                if self._decoding.get(name) in mine:
                    self._decoding.pop(name).set_result(None)

    async def _fetch_run(self, read: "_RangeRead", run: list[FrameEntry]) -> list[bytes]:
        extent = _extent(run)
        pieces: list[bytes] = []
        largest = max(entry.original_size for entry in run)
        entries = iter(run)
        dictionary = await self._dictionary(read.source, read.attributes)
        stream = await read.source.pinned(read.attributes.head.etag, *extent)
        try:
            start, end = read.span
            reader = FrameReader(
                self._workshop, read.reservation, beside=end - start, dictionary=dictionary
            )
            decoded = reader.frames(read.counter.over(stream), largest=largest, offset=extent[0])
            async with aclosing(_as_indexed(decoded, run)) as frames:
                async for frame in frames:
                    entry = next(entries)
                    try:
                        low, high = read.within(entry)
                        pieces.extend([piece async for piece in frame.plain.read(low, high)])
                        await self._keep(read.frame_name(entry), frame, high - low)
                    finally:
                        frame.close()
        finally:
            await stream.close()
        return pieces

    async def _dictionary(self, source: Source, attributes: Attributes) -> ZstdDict | None:
        return await self._dictionaries.needed_by(source.name[0], attributes.stored)

    async def _keep(self, name: FrameName, frame: DecodedFrame, used: int) -> None:
        size = frame.plain.length
        if used < size and size >= _CACHE_WORTHWHILE and frame.plain.in_memory:
            await self._frames.keep(name, frame.plain.pieces())


def _frame_count(plan: planning.RangePlan) -> int:
    return plan.last_frame - plan.first_frame + 1


@immutable
class _RangeRead:
    """A range being gathered: what is read, of which version, and what it holds meanwhile."""

    source: Source
    attributes: Attributes
    span: tuple[int, int]
    counter: Counter
    reservation: Reservation

    def frame_name(self, entry: FrameEntry) -> FrameName:
        bucket, key = self.source.name
        return bucket, key, self.attributes.head.etag, entry.compressed_offset

    def within(self, entry: FrameEntry) -> tuple[int, int]:
        """The part of a frame that belongs to the range."""
        start, end = self.span
        first = entry.original_offset
        return max(start - first, 0), min(end - first, entry.original_size)


def _extent(entries: list[FrameEntry]) -> tuple[int, int]:
    """Where neighbouring frames begin and end; DamagedObject when there is no room for them."""
    start = entries[0].compressed_offset
    end = entries[-1].compressed_offset + entries[-1].compressed_size
    if end - start < len(entries) * wire_frame.HEADER_SIZE:
        msg = f"the index names {len(entries)} frames in {end - start} bytes"
        raise DamagedObject(msg)
    return start, end


async def _as_indexed(
    frames: AsyncGenerator[DecodedFrame, None], entries: list[FrameEntry]
) -> AsyncGenerator[DecodedFrame, None]:
    """Yield the frames, which must be those of an index, no more and no fewer."""
    position = 0
    async with aclosing(frames):
        async for frame in frames:
            if position == len(entries) or not _matches(frame, entries[position]):
                frame.close()
                msg = "the index does not describe the frames"
                raise DamagedObject(msg)
            position += 1
            yield frame
    if position < len(entries):
        msg = "the index names frames that are not there"
        raise DamagedObject(msg)


def _matches(frame: DecodedFrame, entry: FrameEntry) -> bool:
    return (
        frame.offset == entry.compressed_offset
        and frame.header.stored_size == entry.compressed_size
        and frame.header.original_size == entry.original_size
    )
