"""Stored bytes back into the original without a store, a gateway or a network.

Rule: the same frame reader as everywhere, so no byte is handed on before the CRC-32C of its frame
has been checked, and memory does not depend on what headers claim. With the object's metadata the
metadata decides what the bytes are, as in the gateway; without it their beginning is a best guess,
and nothing can tell that whole frames are missing at the end unless a tail stands there.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from s4gateway.codecs import decoder
from s4gateway.codecs.base import CodecError
from s4gateway.codecs.registry import Registry
from s4gateway.codecs.zstd_dict import MAX_DICTIONARY_SIZE, ZstdDict
from s4gateway.objects.budget import ByteBudget
from s4gateway.objects.decoding import FrameReader, as_object_error, in_steps
from s4gateway.objects.encoding import Workshop
from s4gateway.objects.errors import DamagedObject, UnreadableObject
from s4gateway.objects.lanes import Lanes
from s4gateway.tools.content_check import ContentCheck, Expected
from s4gateway.tools.offline_input import OfflineError, StoredHead, StoredInput
from s4gateway.wire import envelope, frame, manifest
from s4gateway.wire.frame import MAX_FRAME_ORIGINAL
from s4gateway.wire.manifest import Form, Manifest, Stored
from s4gateway.wire.tail import Tail

MEMORY: Final = 256 * 1024 * 1024  # bytes of frames held at once; larger frames go through a file
_SHARE: Final = 1024 * 1024
_OF_FRAMES: Final = frozenset({Form.FRAMED, Form.DICTIONARY})
_BEGINS_FRAMES: Final = (frame.MAGIC, frame.PADDING_MAGIC)
_NEED_DICTIONARY: Final = "dictionary-missing"

Write = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class DecodeReport:
    """What was decoded; sizes in bytes. `compared` names what agreed beside the frames' CRCs."""

    form: str
    frames: int
    original_size: int
    stored_size: int
    compared: tuple[str, ...]
    notes: tuple[str, ...] = ()


async def decode(
    stored: StoredInput,
    write: Write,
    *,
    dictionary: ZstdDict | None = None,
    head: StoredHead | None = None,
    spool: Path | None = None,
) -> DecodeReport:
    """Decode a stored object and give its original to `write`, piece by piece.

    Raises OfflineError when the input is nothing that can be decoded, DamagedObject,
    UnreadableObject; what was written until then were sound frames.
    """
    kind = _kind(stored, head)
    _check_dictionary(kind, dictionary)
    lanes = Lanes()
    try:
        budget = ByteBudget(MEMORY)
        run = _Decoding(Workshop(lanes, budget, Registry(), spool), stored, kind, dictionary)
        report = await run.into(write)
    finally:
        lanes.close()
    _check_size(stored, head)
    return report


def _check_size(stored: StoredInput, head: StoredHead | None) -> None:
    if head is not None and head.size is not None and stored.size not in {None, head.size}:
        raise DamagedObject(f"{stored.size} bytes, the metadata is of an object of {head.size}")


def _kind(stored: StoredInput, head: StoredHead | None) -> Stored:
    """What the bytes are: by the metadata if there is any, else by how they begin."""
    begin = stored.peek(frame.MAGIC_SIZE)
    if head is None:
        if name := envelope.recognise(begin):
            raise OfflineError(f"the object is encrypted ({name}): its gateway key is needed")
        if begin and begin not in _BEGINS_FRAMES:
            raise OfflineError(
                f"no frame begins here: {begin!r}; an object stored as it came is its own "
                "original, and --metadata tells what else it may be"
            )
        return Stored(Form.FRAMED)
    _check_size(stored, head)
    kind = manifest.classify(head.metadata)
    if kind.form is Form.ENCRYPTED:
        raise OfflineError("the object is encrypted: its gateway key is needed")
    return kind


def _check_dictionary(kind: Stored, dictionary: ZstdDict | None) -> None:
    if kind.form is not Form.DICTIONARY:
        return
    if dictionary is None:
        raise OfflineError(f"the object needs the dictionary {kind.dict_id}: give it as --dict")
    if dictionary.dict_id != kind.dict_id:
        raise OfflineError(
            f"the object needs the dictionary {kind.dict_id}, --dict is {dictionary.dict_id}"
        )


class _Decoding:
    """One object being decoded."""

    def __init__(
        self,
        workshop: Workshop,
        stored: StoredInput,
        kind: Stored,
        dictionary: ZstdDict | None,
    ) -> None:
        self._workshop = workshop
        self._stored = stored
        self._kind = kind
        self._dictionary = dictionary
        self._frames = 0

    async def into(self, write: Write) -> DecodeReport:
        tail = self._tail()
        check = ContentCheck(_expected(self._kind, tail))
        length = 0
        async with aclosing(self._plain()) as plain:
            async for piece in plain:
                check.update(piece)
                write(piece)
                length += len(piece)
        if problem := check.problem():
            raise DamagedObject(problem)
        compared = check.compared
        if tail is None and self._kind.form is Form.FRAMED and (late := self._tail()) is not None:
            if late.original_size != length:
                raise DamagedObject(f"{length} bytes, the tail says {late.original_size}")
            compared = (*compared, *(() if "size" in compared else ("size",)))
        size = self._stored.size or 0
        notes = tuple(self._notes(compared))
        return DecodeReport(self._kind.form.value, self._frames, length, size, compared, notes)

    def _tail(self) -> Tail | None:
        """The tail, of a pipe only at its end; with metadata, none but the one it names."""
        kind = self._kind
        if kind.form is not Form.FRAMED or self._stored.size is None:
            return None
        tail = self._stored.tail()
        if kind.tail is None:
            return tail if kind == Stored(Form.FRAMED) else None
        if tail is None or tail.token != kind.tail:
            raise DamagedObject("the tail that the metadata names is not there, or is damaged")
        return tail

    def _notes(self, compared: tuple[str, ...]) -> list[str]:
        if self._kind.form is Form.FOREIGN:
            return ["the metadata is not a gateway's: the bytes are the original as they are"]
        if "size" not in compared:
            return ["nothing tells how large the original was: give --metadata to be sure"]
        return []

    async def _plain(self) -> AsyncGenerator[bytes, None]:
        kind, pieces = self._kind, self._stored.pieces()
        async with aclosing(pieces):
            if kind.form in _OF_FRAMES:
                content = self._from_frames(pieces)
            elif kind.form is Form.UNFRAMED:
                assert kind.manifest is not None
                content = self._from_payload(pieces, kind.manifest)
            else:
                content = pieces
            async with aclosing(content):
                async for piece in content:
                    yield piece

    async def _from_frames(self, pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        reservation = self._workshop.budget.share(_SHARE)
        reader = FrameReader(self._workshop, reservation, dictionary=self._dictionary)
        try:
            decoded = reader.frames(pieces, largest=MAX_FRAME_ORIGINAL, wanted=MAX_FRAME_ORIGINAL)
            async with aclosing(decoded) as frames:
                async for each in frames:
                    self._frames += 1
                    try:
                        async for piece in each.plain.read():
                            yield piece
                    finally:
                        each.close()
        except UnreadableObject as error:
            if str(error).startswith(_NEED_DICTIONARY) and self._dictionary is None:
                raise OfflineError(
                    f"frame {self._frames} needs the dictionary of its object (s4-dict-id): "
                    "give it as --dict"
                ) from error
            raise
        except DamagedObject as error:
            text = f"{error}; {self._frames} frames were written before"
            if self._dictionary is not None:
                text += f"; the dictionary is {self._dictionary.dict_id}"
            raise DamagedObject(text) from error
        finally:
            reservation.release()

    async def _from_payload(
        self, pieces: AsyncIterable[bytes], said: Manifest
    ) -> AsyncGenerator[bytes, None]:
        """Decode a body without frames; its checksum is known at the end only."""
        codec, executor = said.codec, self._workshop.lanes.codec
        try:
            payload = decoder.PayloadDecoder(
                self._workshop.codecs.get(codec),
                said.original_size,
                said.compressed_size,
                said.crc32c,
            )
            async for piece in pieces:
                async with aclosing(in_steps(executor, codec, payload, piece)) as steps:
                    async for decoded in steps:
                        for plain in decoded:
                            yield plain
            payload.finish()
        except CodecError as error:
            raise as_object_error(error) from error


def _expected(kind: Stored, tail: Tail | None) -> Expected:
    if tail is not None:
        return Expected.of_tail(tail)
    said = kind.manifest
    if said is None:
        return Expected(kind.logical_size, kind.logical_etag)
    checksum = None if said.checksum is None else (*said.checksum, "FULL_OBJECT")
    return Expected(said.original_size, kind.md5, checksum=checksum, crc32c=said.crc32c)


def load_dictionary(path: Path) -> ZstdDict:
    """Read a dictionary from a file; raises OfflineError."""
    try:
        with path.open("rb") as file:
            return ZstdDict(file.read(MAX_DICTIONARY_SIZE + 1))
    except OSError as error:
        raise OfflineError(f"{path}: {error.strerror}") from error
    except CodecError as error:
        raise OfflineError(f"{path}: {error}") from error
