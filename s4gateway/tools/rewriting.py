"""One object written again in its place: read, encoded, decoded and compared, and only then stored.

    look ── read and encode ── verify ── gather what goes with it ── store

Rule: nothing is replaced by what was not read back from the encoded bytes and compared, and nothing
is replaced but the version that was read: the store is asked to refuse the write when another one
stands there (If-Match), and where it knows no such condition the key is looked at right before.
What is to become of objects is a Kind's matter; a dry run does all of this but the writes.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from typing import Final

from s4gateway.backend.base import BackendAnswer
from s4gateway.codecs.dispatcher import SAMPLE_SIZE
from s4gateway.objects.attributes import Attributes, describe
from s4gateway.objects.cache import ObjectName
from s4gateway.objects.decoding import FrameReader, first_verified, whole_plaintext
from s4gateway.objects.encoding import DIGESTS, EncodedObject, ObjectEncoder
from s4gateway.objects.errors import ObjectError
from s4gateway.objects.opening import Content, Source
from s4gateway.s3.checksums import ALGORITHMS, Digests
from s4gateway.tools import carrying, unstamped
from s4gateway.tools.content_check import ContentCheck, Expected
from s4gateway.tools.objects import Objects
from s4gateway.tools.rewrite_kind import (
    PROBE,
    Failed,
    Kind,
    Looked,
    Outcome,
    Recipe,
    Rewritten,
    Skipped,
    reading,
)
from s4gateway.tools.rewrite_order import RewriteParams
from s4gateway.tools.rewrite_store import Replacer
from s4gateway.tools.walk import Listed
from s4gateway.wire.manifest import Form

_SHARE: Final = 1024 * 1024  # bytes a verification reserves before it knows its frames
_BATCH: Final = 1024 * 1024  # bytes digested at a time on a thread
_INLINE: Final = 64 * 1024  # bytes digested without a thread


class Rewriter:
    """Rewrites objects of one run, several at a time."""

    def __init__(self, objects: Objects, params: RewriteParams, kind: Kind) -> None:
        self._objects = objects
        self._params = params
        self._kind = kind
        self._acl_unknown = False
        self.replacer = Replacer(objects, params.patience)
        self.acl_unreadable = 0

    async def rewrite(self, listed: Listed) -> Rewritten:
        """Rewrite one object; raises Skipped, Failed. What may pass is tried again for a while."""
        attempts = 0
        while True:
            try:
                return await self._once(listed)
            except Failed as failure:
                attempts += 1
                if not failure.passing or not await self._params.patience.wait(attempts):
                    raise

    async def _once(self, listed: Listed) -> Rewritten:
        largest = self._params.max_body_bytes
        self._kind.check_listed(listed)
        if largest is not None and listed.size > largest:
            raise Skipped(Outcome.TOO_LARGE)
        looked = await self._look(listed)
        self._kind.check(looked)
        if carrying.is_locked(looked.head):
            raise Skipped(Outcome.LOCKED)
        if largest is not None and looked.head.size > largest:
            raise Skipped(Outcome.TOO_LARGE)
        source, encoded = await self._encode(looked)
        try:
            finished = self._kind.finish(looked, source, encoded)
            headers = await self._carried(looked)
            if self._params.execute:
                stamped = headers + self._kind.stamps(source)
                await self.replacer.store(looked, finished, stamped)
        finally:
            encoded.close()
        return Rewritten(looked.head.size, finished.stored_size, finished.manifest.codec.label)

    # --- reading

    async def _look(self, listed: Listed) -> Looked:
        name = (self._params.target.bucket, listed.key)
        span = (0, min(listed.size, SAMPLE_SIZE)) if listed.size else None
        with reading(PROBE):
            async with await self._objects.backend.get(*name, byte_range=span) as stream:
                start = await stream.read(SAMPLE_SIZE) if stream.head.size else b""
                head = stream.head
        if carrying.is_under_customer_key(head):
            raise Skipped(Outcome.ENCRYPTED)
        if not head.etag:
            raise Failed(PROBE, "the store tells no ETag, so nothing can be pinned")
        if carrying.lacks_metadata(head):
            raise Failed(PROBE, "it has metadata that no header can carry")
        return Looked(name, head, describe(head), start)

    async def _encode(self, looked: Looked) -> tuple[Attributes, EncodedObject]:
        """Read the very version that was looked at, encode it, and read the result again."""
        backend = self._objects.backend
        vouched = self._kind.vouches_for_frames and looked.attributes.stored.form is Form.FOREIGN
        store = unstamped.vouched(backend) if vouched else backend
        source = Source(store, looked.name, headers=[carrying.SHOW_CHECKSUM])
        with reading("GetObject"):
            opened = await self._objects.reader.open_whole(source, if_match=looked.head.etag)
            try:
                attributes = opened.attributes
                _check_source(attributes)
                if self._is_too_large(attributes):
                    raise Skipped(Outcome.TOO_LARGE)
                recipe = self._kind.recipe(attributes)
                encoded, digests = await self._encoded(attributes, opened.content, recipe)
            finally:
                await opened.aclose()
        try:
            await self._verify(encoded, digests)
        except BaseException:
            encoded.close()
            raise
        return attributes, encoded

    def _is_too_large(self, attributes: Attributes) -> bool:
        largest = self._params.max_body_bytes
        return largest is not None and (attributes.size or 0) > largest

    async def _encoded(
        self, source: Attributes, content: Content, recipe: Recipe
    ) -> tuple[EncodedObject, Digests]:
        workshop, declared = self._objects.workshop, _declared(source)
        digests = Digests((*DIGESTS, *(() if declared is None else declared[:1])))
        check = None if source.tail is None else ContentCheck(Expected.of_tail(source.tail))
        encoder = ObjectEncoder(
            workshop,
            recipe.dispatcher,
            digests,
            source.size,
            always_framed=bool(recipe.trailer),
        )
        loop = asyncio.get_running_loop()
        try:
            async for piece in _pieces(content):
                await encoder.feed(piece)
                if check is not None:
                    await loop.run_in_executor(workshop.lanes.digest, check.update, piece)
            encoded = await encoder.finish(trailer=recipe.trailer)
        finally:
            encoder.close()
        if problem := _problem(source, encoded, digests, check):
            encoded.close()
            raise Failed("GetObject(body)", problem)
        return encoded.with_checksum(declared), digests

    async def _verify(self, encoded: EncodedObject, digests: Digests) -> None:
        """Decode what is to be stored and compare it with what was read; raises Failed."""
        workshop, size = self._objects.workshop, encoded.manifest.original_size
        reservation = workshop.budget.share(_SHARE)
        try:
            content = _pieces(_chunks(encoded))
            if encoded.manifest.framed:
                reader = FrameReader(workshop, reservation)
                frames = reader.frames(content, largest=size)
                first = await first_verified(frames, reader, size)
                content = whole_plaintext(first, size, encoded.manifest.crc32c)
            length, found = await _digested(content, workshop.lanes.digest)
        except ObjectError as error:
            raise Failed("verify", str(error)) from error
        finally:
            reservation.release()
        same = all(found[each] == digests[each] for each in DIGESTS)
        if length != size or not same:
            raise Failed("verify", f"what was encoded decodes to {length} other bytes than {size}")

    # --- what goes with the bytes

    async def _carried(self, looked: Looked) -> list[tuple[str, str]]:
        headers = carrying.description(looked.head)
        if self._params.carry_tags:
            headers += await self._tags(looked.name)
        return headers + await self._grants(looked.name)

    async def _tags(self, name: ObjectName) -> list[tuple[str, str]]:
        try:
            with reading("GetObjectTagging"):
                return await carrying.tags(self._objects.backend, name)
        except Failed as failure:
            answer = failure.__cause__
            if isinstance(answer, BackendAnswer) and carrying.is_unsupported(answer):
                raise Skipped(Outcome.TAGS_UNREADABLE) from failure
            raise

    async def _grants(self, name: ObjectName) -> list[tuple[str, str]]:
        if self._acl_unknown:
            self.acl_unreadable += 1
            return []
        try:
            with reading("GetObjectAcl"):
                return await carrying.grants(self._objects.backend, name)
        except carrying.NotExpressible as error:
            raise Skipped(Outcome.ACL) from error
        except Failed as failure:
            answer = failure.__cause__
            if isinstance(answer, BackendAnswer) and carrying.is_unsupported(answer):
                self._acl_unknown = answer.code != "AccessDenied"
                self.acl_unreadable += 1
                return []
            raise


def _declared(source: Attributes) -> tuple[str, str] | None:
    """The checksum of the whole that a client declared: algorithm and base64 value."""
    if source.stored.form is Form.FOREIGN:
        return carrying.checksum(source.head)
    declared = None if source.stored.manifest is None else source.stored.manifest.checksum
    return declared if declared is not None and declared[0] in ALGORITHMS else None


def _problem(
    source: Attributes, encoded: EncodedObject, digests: Digests, check: ContentCheck | None
) -> str:
    """What is wrong with the bytes that were read; empty when nothing is."""
    if encoded.manifest.original_size != source.size:
        return f"{encoded.manifest.original_size} bytes were read, not {source.size}"
    if check is not None:
        return check.problem()
    declared = _declared(source)
    if declared is not None and _base64(digests[declared[0]]) != declared[1]:
        return f"its {declared[0]} is not {declared[1]}, which its client declared"
    known, found = source.stored.logical_etag, digests["md5"].hex()
    if known is not None and "-" not in known and known != found:
        return f"its MD5 is {found}, its metadata says {known}"
    return ""


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _check_source(source: Attributes) -> None:
    if source.stored.tail is not None and source.tail is None:
        raise Failed("GetObject", "the tail that its metadata names is missing or damaged")


async def _pieces(content: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    async for piece in content:
        yield piece


def _chunks(encoded: EncodedObject) -> bytes | AsyncIterator[bytes]:
    chunks = encoded.body.chunks
    return chunks if isinstance(chunks, bytes) else chunks()


async def _digested(content: AsyncIterator[bytes], executor: Executor) -> tuple[int, Digests]:
    """Length and digests of all of it, computed while more of it is made."""
    loop, digests = asyncio.get_running_loop(), Digests(DIGESTS)
    length = size = 0
    held: list[bytes] = []
    busy: asyncio.Future[None] | None = None

    def update(pieces: list[bytes]) -> None:
        for piece in pieces:
            digests.update(piece)

    async for piece in content:
        held.append(piece)
        length += len(piece)
        size += len(piece)
        if size >= _BATCH:
            if busy is not None:
                await busy
            busy = loop.run_in_executor(executor, update, held)
            held, size = [], 0
    if busy is not None:
        await busy
    if size > _INLINE:
        await loop.run_in_executor(executor, update, held)
    else:
        update(held)
    return length, digests
