"""Read one stored object, whole or a range of it, decoded and verified: the only way to read one.

    open_whole   one GET; classified by its metadata; small bodies are verified before anything is
                 returned, large ones frame by frame, the first before the caller sees the object
    open_range   sidecar (cached) -> plan -> one GET pinned with If-Match -> verify -> cut

Rule: every backend request after the first is pinned to the ETag the first one saw, so that no
answer is stitched from two versions. An object whose sidecar is missing or not to be trusted is
decoded from its start and cut; the result says so (`fallback`), because it is right but expensive.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Final, TypeVar

from s4gateway.backend.base import BackendAnswer, ObjectStream
from s4gateway.codecs import decoder
from s4gateway.codecs.base import CodecError
from s4gateway.codecs.encoder import MEDIUM_CHUNK
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects.attributes import (
    Attributes,
    ReadStored,
    describe,
    is_measured,
    measured,
)
from s4gateway.objects.cache import AttributeCache
from s4gateway.objects.coalescing import Coalescer
from s4gateway.objects.decoding import INLINE_ORIGINAL, FrameReader, as_object_error, in_steps
from s4gateway.objects.dictionary_store import DictionaryStore
from s4gateway.objects.encoding import SMALL_BODY, Workshop
from s4gateway.objects.errors import DamagedObject, UnreadableObject
from s4gateway.objects.frame_cache import FrameCache
from s4gateway.objects.opening import Content, Counter, OpenObject, Resource, Source, through
from s4gateway.objects.plaintext import first_verified, whole_plaintext
from s4gateway.objects.ranged import RangeReader
from s4gateway.objects.sidecar import Sidecars
from s4gateway.s3.errors import S3Error
from s4gateway.wire import frame as wire_frame
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.errors import WireError
from s4gateway.wire.index import FrameEntry, FrameIndex
from s4gateway.wire.manifest import Form, Manifest

_Result = TypeVar("_Result")
_ATTEMPTS: Final = 3  # versions to look at while a key is overwritten busily
_SHARE: Final = 1024 * 1024  # bytes a streamed read reserves before it knows its frames
_ONE_FRAME: Final = MEDIUM_CHUNK  # writers store objects up to this size as one frame
_OF_FRAMES: Final = (Form.FRAMED, Form.DICTIONARY)


class ObjectReader:
    """Opens stored objects over any Backend; shared by all requests of a process."""

    def __init__(
        self,
        workshop: Workshop,
        sidecars: Sidecars,
        attributes: AttributeCache,
        frames: FrameCache,
        dictionaries: DictionaryStore,
    ) -> None:
        self._workshop = workshop
        self._sidecars = sidecars
        self._attributes = attributes
        self._dictionaries = dictionaries
        self._ranges = RangeReader(workshop, frames, dictionaries)
        self._looks: Coalescer[Attributes] = Coalescer()

    async def attributes(self, source: Source) -> Attributes:
        """HEAD the object; raises BackendError.

        Readers of one object that come together share one HEAD, begun after the last of them came.
        """
        key = (source.backend, source.name, source.query, tuple(source.headers))
        return await self._looks.run(key, partial(self._look, source))

    async def _look(self, source: Source) -> Attributes:
        bucket, key = source.name

        async def look() -> Attributes:
            head = await source.backend.head(
                bucket, key, query=source.query, headers=source.headers
            )
            return await self._measured(describe(head), source, None)

        return await _settled(look)

    async def _measured(
        self, attributes: Attributes, source: Source, stored: bytes | None
    ) -> Attributes:
        """Complete `attributes` from the stored bytes, which are at hand or read as needed."""
        if not is_measured(attributes):
            read: ReadStored = partial(source.read, attributes.head.etag)
            if stored is not None:
                read = partial(_at_hand, stored)
            tails = self._attributes.tails
            attributes = await measured(attributes, source.name, read, self._sidecars, tails)
        if not source.query:
            head, cache = attributes.head, self._attributes
            if cache.lookup(source.name, head.etag, head.size) is None:
                known = attributes.known()
                if known is not None:
                    cache.remember(source.name, known)
        return attributes

    async def open_whole(self, source: Source, *, if_match: str | None = None) -> OpenObject:
        """Open the whole object, of backend ETag `if_match` when given.

        Raises BackendError, ObjectError, S3Error("SlowDown"): DictionaryError where the object
        needs a dictionary that is not to be had.
        """
        opening = partial(self._open_whole, source, if_match)
        return await (_settled(opening) if if_match is None else opening())

    async def _open_whole(self, source: Source, if_match: str | None) -> OpenObject:
        bucket, key = source.name
        stream = await source.backend.get(
            bucket, key, if_match=if_match, query=source.query, headers=source.headers
        )
        try:
            attributes = describe(stream.head)
            stored: bytes | None = None
            if not is_measured(attributes) and attributes.head.size <= SMALL_BODY:
                stored = await stream.read(SMALL_BODY)
            attributes = await self._measured(attributes, source, stored)
            dictionary = await self._dictionaries.needed_by(bucket, attributes.stored)
            return await self._open(stream, attributes, stored, dictionary)
        except BaseException:
            await stream.close()
            raise

    async def _open(
        self,
        stream: ObjectStream,
        attributes: Attributes,
        stored: bytes | None,
        dictionary: ZstdDict | None,
    ) -> OpenObject:
        form = attributes.stored.form
        manifest = attributes.stored.manifest
        counter = Counter()
        size = attributes.size
        if form is Form.FOREIGN:
            content: Content = through(stream, counter)
            return OpenObject(attributes, 0, size or 0, content, counter, None, (stream,))
        if form is Form.ENCRYPTED:
            msg = f"stored as {form.value}, which this gateway cannot open"
            raise UnreadableObject(msg)
        if size is None:
            msg = "neither metadata nor tail, sidecar or frames tell the object's size"
            raise DamagedObject(msg)
        _check_length(attributes)
        if attributes.head.size <= SMALL_BODY and size <= INLINE_ORIGINAL:
            if stored is None:
                stored = await stream.read(SMALL_BODY)
            counter.count = len(stored)
            content = self._decode_small(stored, attributes, size, dictionary)
            await stream.close()
            return OpenObject(attributes, 0, size, content, counter)
        reservation = self._workshop.budget.share(_SHARE)
        resources: tuple[Resource, ...] = (stream, reservation)
        try:
            pieces = counter.over(stream if stored is None else _once(stored))
            if form is Form.PASSTHROUGH:
                assert manifest is not None
                content = _verified(pieces, manifest)
            elif form is Form.UNFRAMED:
                assert manifest is not None
                content = self._payload(pieces, manifest)
            else:
                reader = FrameReader(self._workshop, reservation, dictionary=dictionary)
                crc = _expected_crc(attributes)
                frames = await first_verified(reader.frames(pieces, largest=size, wanted=size))
                content = whole_plaintext(frames, size, crc)
                resources = (frames, *resources)
        except BaseException:
            reservation.release()
            raise
        return OpenObject(attributes, 0, size, content, counter, None, resources)

    def _decode_small(
        self, stored: bytes, attributes: Attributes, size: int, dictionary: ZstdDict | None
    ) -> bytes:
        codecs = self._workshop.codecs
        manifest = attributes.stored.manifest
        try:
            if attributes.stored.form in _OF_FRAMES:
                pieces: list[bytes] = []
                room = size
                for _, header, payload in wire_frame.walk(stored):
                    room -= header.original_size
                    if room < 0:  # told before a few bytes become many
                        msg = f"frames claim more than the {size} bytes of the object"
                        raise DamagedObject(msg)
                    pieces += decoder.decode_frame(header, [payload], codecs, dictionary)
                plain = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            elif attributes.stored.form is Form.PASSTHROUGH:
                plain = stored
            else:
                assert manifest is not None
                plain = self._decode_payload(stored, manifest)
        except (WireError, CodecError) as error:
            raise as_object_error(error) from error
        if len(plain) != size or (manifest is not None and crc32c(plain) != manifest.crc32c):
            msg = f"decodes to {len(plain)} bytes, the manifest says {size}, or the CRC differs"
            raise DamagedObject(msg)
        return plain

    def _decode_payload(self, stored: bytes, manifest: Manifest) -> bytes:
        payload = self._payload_decoder(manifest)
        pieces = payload.feed(stored)
        payload.finish()
        return b"".join(pieces)

    def _payload_decoder(self, manifest: Manifest) -> decoder.PayloadDecoder:
        return decoder.PayloadDecoder(
            self._workshop.codecs.get(manifest.codec),
            manifest.original_size,
            manifest.compressed_size,
            manifest.crc32c,
        )

    async def _payload(
        self, pieces: AsyncIterator[bytes], manifest: Manifest
    ) -> AsyncGenerator[bytes, None]:
        """Decode an unframed body; its last piece is held back until the checksum is known."""
        executor, codec = self._workshop.lanes.codec, manifest.codec
        held: bytes | None = None
        try:
            payload = self._payload_decoder(manifest)
            async for piece in pieces:
                async with aclosing(in_steps(executor, codec, payload, piece)) as steps:
                    async for decoded in steps:
                        for plain in decoded:
                            if held is not None:
                                yield held
                            held = plain
            payload.finish()
        except CodecError as error:
            raise as_object_error(error) from error
        if held is not None:
            yield held

    async def open_range(
        self, source: Source, attributes: Attributes, start: int, end: int
    ) -> OpenObject:
        """Open original bytes [start, end) of the version that `attributes` describe.

        Raises BackendError (412 when the object has changed since), ObjectError, S3Error.
        """
        form = attributes.stored.form
        head = attributes.head
        if attributes.is_verbatim:
            _check_length(attributes)
            stream = await source.pinned(head.etag, start, end)
            counter = Counter()
            return OpenObject(
                attributes, start, end, through(stream, counter), counter, None, (stream,)
            )
        if form not in _OF_FRAMES:
            return await self._from_start(source, attributes, start, end, form.value)
        name, size = source.name, head.size
        guess = self._sidecars.known(name, head.etag) or _single_frame(attributes)
        if guess is not None:
            opened = await self._ranges.open(source, attributes, guess, (start, end))
            if opened is not None:
                return opened
        index = await self._sidecars.load(name, head.etag, size)
        if index is None:
            return await self._from_start(source, attributes, start, end, "no-index")
        opened = await self._ranges.open(source, attributes, index, (start, end))
        if opened is not None:
            return opened
        return await self._from_start(source, attributes, start, end, "index-mismatch")

    async def _from_start(
        self, source: Source, attributes: Attributes, start: int, end: int, why: str
    ) -> OpenObject:
        whole = await self.open_whole(source, if_match=attributes.head.etag)
        opened = whole.content
        content = opened[start:end] if isinstance(opened, bytes) else _cut(opened, start, end)
        return OpenObject(
            whole.attributes, start, end, content, whole.counter, why, whole.resources
        )


def _single_frame(attributes: Attributes) -> FrameIndex | None:
    """The index of an object too small for a second frame, which has no sidecar."""
    size, stored_size = attributes.size, attributes.head.size
    if attributes.stored.multipart or size is None or not 0 < size <= _ONE_FRAME:
        return None
    return FrameIndex.from_entries([FrameEntry(0, size, 0, stored_size)])


def _expected_crc(attributes: Attributes) -> int | None:
    """The CRC-32C of the whole original, when something tells it."""
    if attributes.stored.manifest is not None:
        return attributes.stored.manifest.crc32c
    return None if attributes.tail is None else attributes.tail.crc32c


async def _settled(read: Callable[[], Awaitable[_Result]]) -> _Result:
    """Do what takes several requests again when the object is overwritten in between."""
    for _ in range(_ATTEMPTS):
        try:
            return await read()
        except BackendAnswer as error:
            if error.status != 412:
                raise
    raise S3Error("ServiceUnavailable", headers={"Retry-After": "1"})


async def _once(stored: bytes) -> AsyncGenerator[bytes, None]:
    yield stored


async def _at_hand(stored: bytes, start: int, end: int) -> bytes:
    return stored[start:end]


def _check_length(attributes: Attributes) -> None:
    """Refuse a body stored as it came that has another length than its manifest says."""
    if attributes.is_verbatim and attributes.size != attributes.head.size:
        msg = f"{attributes.head.size} bytes are stored, the manifest says {attributes.size}"
        raise DamagedObject(msg)


async def _verified(
    pieces: AsyncIterator[bytes], manifest: Manifest
) -> AsyncGenerator[bytes, None]:
    """Yield a body stored as it came; its last piece is held back until the CRC is known."""
    held = b""
    length = crc = 0
    async for piece in pieces:
        length += len(piece)
        crc = crc32c(piece, crc)
        if held:
            yield held
        held = piece
    if length != manifest.original_size or crc != manifest.crc32c:
        msg = f"body of {length} bytes has CRC-32C {crc}, the manifest says {manifest.crc32c}"
        raise DamagedObject(msg)
    if held:
        yield held


async def _cut(
    content: AsyncGenerator[bytes | memoryview, None], start: int, end: int
) -> AsyncGenerator[bytes, None]:
    position = 0
    async with aclosing(content):
        async for piece in content:
            low, high = max(start - position, 0), min(end - position, len(piece))
            if low < high:
                yield bytes(piece[low:high])
            position += len(piece)
            if position >= end:
                return
