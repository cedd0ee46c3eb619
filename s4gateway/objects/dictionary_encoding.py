"""A body that a shared dictionary may make smaller: encoded with it and without, in one frame.

Rule: the dictionary is tried only on what would be stored as zstd, and kept only where the object
becomes strictly smaller by it; an object where it loses shows no trace of the attempt. Both
encodings need the whole body, so it is held in memory, within the byte budget, and a body of more
than a few pages is coded on a codec thread. A part of an upload never comes here: the metadata of
the finished object, which alone could name a dictionary, is written before its first part is seen.
"""

import asyncio
from dataclasses import replace
from typing import Final

from s4gateway.backend.base import Body
from s4gateway.codecs import encoder as framing
from s4gateway.codecs.dispatcher import SAMPLE_SIZE, Dispatcher
from s4gateway.codecs.registry import Registry
from s4gateway.objects.budget import Reservation
from s4gateway.objects.dictionary_store import Choice
from s4gateway.objects.encoding import (
    SMALL_BODY,
    EncodedObject,
    Tried,
    Workshop,
    encode_small,
    manifest_of,
)
from s4gateway.s3.checksums import Digests
from s4gateway.wire.codec_id import CodecId

INLINE: Final = SMALL_BODY // 2  # coded twice inline, which costs what one larger body does


def encode_inline(
    data: bytes, digests: Digests, dispatcher: Dispatcher, codecs: Registry, choice: Choice
) -> EncodedObject:
    """Encode a body in memory on the calling thread; `digests` have seen it."""
    if not data or dispatcher.pick(data[:SAMPLE_SIZE]) is not CodecId.CPU_ZSTD:
        return encode_small(data, digests, dispatcher, codecs)
    trial = framing.try_dictionary(data, codecs.get(CodecId.CPU_ZSTD), choice.codec)
    size, codec = trial.frame.stored_size, trial.frame.header.codec
    shrinks = size < len(data)
    won = shrinks and codec is CodecId.CPU_ZSTD_DICT
    dict_id = choice.codec.dict_id
    tried = Tried(choice.label, dict_id, won, len(data), trial.with_dictionary, trial.without)
    if not shrinks:
        manifest = manifest_of(CodecId.PASSTHROUGH, digests, len(data), len(data), framed=False)
        return EncodedObject(Body.of(data), manifest, None, tried=tried)
    manifest = manifest_of(codec, digests, len(data), size, framed=True)
    if won:
        manifest = replace(manifest, dict_id=dict_id)
    body = Body.of(b"".join(trial.frame.pieces()))
    return EncodedObject(body, manifest, None, tried=tried)


async def encode_in_memory(
    workshop: Workshop,
    data: bytes,
    digests: Digests,
    dispatcher: Dispatcher,
    choice: Choice,
    memory: Reservation,
) -> EncodedObject:
    """Digest and encode a body on a codec thread; `memory` is what was reserved to receive it.

    The reservation grows for the time of the work and belongs to the result from then on. Raises
    S3Error("SlowDown"); `memory` is the caller's then.
    """

    def work() -> EncodedObject:
        digests.update(data)
        return encode_inline(data, digests, dispatcher, workshop.codecs, choice)

    await memory.grow(2 * len(data))
    loop = asyncio.get_running_loop()
    encoded = await loop.run_in_executor(workshop.lanes.codec, work)
    memory.shrink(memory.held - encoded.stored_size)
    return replace(encoded, memory=memory)
