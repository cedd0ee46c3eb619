"""What is to be stored of an object that keeps its content: read, encoded, and proven to be it.

Rule: no bytes leave here that do not decode to what was read. Why that holds:

  1. Every frame is decoded from its very bytes and compared with the chunk it was made of, where it
     was made (codecs.proof). The CRC-32C of those bytes was taken before.
  2. The spool gives back bytes that have those CRC-32Cs, or an error (objects.checked_spool):
     whatever changes on the way to the store, be it one bit, ends the write before it is complete.
  3. All that is in the spool is read once, as frames, before anything is stored. The lengths and
     the CRC-32Cs in their headers add up to those of what was read, taken by another thread as it
     arrived: no frame is missing, repeated or out of place, and none was made of other bytes.
  4. What was read is what the store and the object's metadata say it is (tools.source_check).

A body that is stored as it came has one CRC-32C in place of those of its frames. On the wire it has
what every write has: its length, and its MD5 or a checksum for the store to compare.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace

from s4gateway.codecs import encoder as framing
from s4gateway.codecs.base import CodecError
from s4gateway.codecs.proof import Prover, Unproven
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.cache import ObjectName
from s4gateway.objects.checked_spool import CheckedSpool, DamagedSpool
from s4gateway.objects.encoding import EncodedObject, ObjectEncoder
from s4gateway.objects.opening import Content, Source
from s4gateway.objects.spool import Spool
from s4gateway.tools import carrying, unstamped
from s4gateway.tools.objects import Objects
from s4gateway.tools.rewrite_kind import Failed, Kind, Looked, Outcome, Recipe, Skipped, reading
from s4gateway.tools.rewrite_order import RewriteParams
from s4gateway.tools.source_check import SourceCheck
from s4gateway.wire.crc32c import combine
from s4gateway.wire.errors import WireError
from s4gateway.wire.manifest import Form
from s4gateway.wire.scanner import FrameScanner, FrameStart


class Encoder:
    """Encodes objects as a Kind wants them; `encode` is what a Rewriter makes of them.

    `unlike_etags` counts objects whose ETag is not the MD5 of what was read, twice.
    """

    def __init__(self, objects: Objects, params: RewriteParams, kind: Kind) -> None:
        shop = objects.workshop
        self._objects = objects
        self._workshop = replace(shop, frames=Prover(shop.codecs), spools=CheckedSpool)
        self._params = params
        self._kind = kind
        self._unlike: dict[ObjectName, str] = {}  # of objects to be read again: their MD5
        self.unlike_etags = 0

    async def encode(self, looked: Looked) -> tuple[Attributes, EncodedObject]:
        """Read the very version that was looked at, encode it, and verify the result."""
        before = self._unlike.pop(looked.name, None)
        backend = self._objects.backend
        vouched = self._kind.vouches_for_frames and looked.attributes.stored.form is Form.FOREIGN
        store = unstamped.vouched(backend) if vouched else backend
        source = Source(store, looked.name, headers=[carrying.SHOW_CHECKSUM])
        with reading("GetObject"):
            opened = await self._objects.reader.open_whole(source, if_match=looked.head.etag)
            try:
                attributes = opened.attributes
                self._check(attributes)
                recipe = self._kind.recipe(attributes)
                check = SourceCheck(attributes, md5=recipe.needs_md5)
                encoded = await self._encoded(attributes, opened.content, recipe, check)
            finally:
                await opened.aclose()
        try:
            self._compare(looked.name, check, encoded.manifest.original_size, before)
            await _verify(encoded)
        except BaseException:
            encoded.close()
            raise
        encoded = encoded.with_checksum(check.declared)
        if check.has_opaque_etag:
            encoded = replace(encoded, manifest=replace(encoded.manifest, opaque_etag=True))
        return attributes, encoded

    def _check(self, source: Attributes) -> None:
        if source.stored.tail is not None and source.tail is None:
            raise Failed("GetObject", "the tail that its metadata names is missing or damaged")
        largest = self._params.max_body_bytes
        if largest is not None and (source.size or 0) > largest:
            raise Skipped(Outcome.TOO_LARGE)

    async def _encoded(
        self, source: Attributes, content: Content, recipe: Recipe, check: SourceCheck
    ) -> EncodedObject:
        shop, digests = self._workshop, check.digests
        chunks = shop.budget.share(2 * framing.pick_chunk_size(source.size))  # until proven
        framed = bool(recipe.trailer)
        loop = asyncio.get_running_loop()
        try:
            encoder = ObjectEncoder(
                shop, recipe.dispatcher, digests, source.size, always_framed=framed
            )
            with closing(encoder):
                async for piece in _pieces(content):
                    await encoder.feed(piece)
                    if check.parts is not None:
                        await loop.run_in_executor(shop.lanes.digest, check.parts.update, piece)
                return await encoder.finish(trailer=recipe.trailer)
        except Unproven as error:
            raise Failed("verify", error.detail) from error
        except CodecError as error:
            raise Failed("compress", str(error)) from error
        finally:
            chunks.release()

    def _compare(self, name: ObjectName, check: SourceCheck, size: int, before: str | None) -> None:
        """Raise Failed unless the `size` bytes read are the object's.

        Where its ETag looks like an MD5 and is not theirs, it is read again: `before` is the MD5 of
        an earlier read, and two that agree are taken.
        """
        if problem := check.problem(size):
            raise Failed("GetObject(body)", problem)
        md5 = check.unlike_its_etag
        if md5 and md5 != before:
            self._unlike[name] = md5
            raise Failed("GetObject(body)", f"its MD5 is {md5}, its ETag is not", passing=True)
        self.unlike_etags += bool(md5)


async def _verify(encoded: EncodedObject) -> None:
    """Read what is to be stored and hold it against what was read; raises Failed."""
    manifest, spool = encoded.manifest, encoded.spool
    assert isinstance(spool, CheckedSpool)
    try:
        if manifest.framed:
            length, crc = await _summed(spool)
        else:
            length, crc = spool.length, spool.crc32c
    except (DamagedSpool, WireError) as error:
        raise Failed("verify", str(error)) from error
    size = manifest.original_size
    if (length, crc) != (size, manifest.crc32c):
        raise Failed("verify", f"what was encoded decodes to {length} other bytes than {size}")


async def _summed(spool: Spool) -> tuple[int, int]:
    """Length and CRC-32C of what the frames of a body hold, as their headers say."""
    scanner, crc = FrameScanner(), 0
    async for piece in spool.read():
        for event in scanner.feed(piece):
            if isinstance(event, FrameStart):
                crc = combine(crc, event.header.crc32c, event.header.original_size)
    scanner.close()
    return scanner.total_original, crc


async def _pieces(content: Content) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    async for piece in content:
        yield bytes(piece)
