"""A rewritten object into the place of the one it was made of, and of no other.

Rule: the store decides: the write carries the ETag that was read (If-Match) and is refused when
another version stands there. Where the store knows no such condition, the key is looked at right
before the write, and the report says so. A write whose answer was lost is looked for, not repeated
blindly: what it made is not taken for somebody else's.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

import base64

from s4gateway.backend.base import BackendAnswer, BackendError, Head
from s4gateway.backend.probe import ConditionalVerb
from s4gateway.objects.accounting import Swap
from s4gateway.objects.attributes import describe
from s4gateway.objects.cache import ObjectName
from s4gateway.objects.encoding import EncodedObject
from s4gateway.objects.footprint import Footprint
from s4gateway.objects.guarded import is_open, is_refused
from s4gateway.s3 import etag
from s4gateway.tools.objects import Objects
from s4gateway.tools.patience import Patience, is_passing
from s4gateway.tools.rewrite_kind import Failed, Looked, Outcome, Skipped, reading
from s4gateway.wire.manifest import Form


class Replacer:
    """Stores the rewritten objects of one run."""

    def __init__(self, objects: Objects, patience: Patience) -> None:
        self._objects = objects
        self._patience = patience
        self._conditions: dict[ConditionalVerb, bool] = {}

    @property
    def conditional(self) -> bool | None:
        """Whether the store decided all writes; None when nothing was written."""
        return all(self._conditions.values()) if self._conditions else None

    async def store(
        self, looked: Looked, encoded: EncodedObject, headers: list[tuple[str, str]]
    ) -> None:
        """Store it; raises Skipped when another version came first, and Failed."""
        writer, backend, name = self._objects.writer, self._objects.backend, looked.name
        in_parts, counted = writer.goes_in_parts(encoded), encoded.manifest.ledger
        verb = ConditionalVerb.COMPLETE if in_parts else ConditionalVerb.PUT
        pinned = await self._decides(verb, name[0])
        if pinned:
            headers = [*headers, ("if-match", etag.quote(looked.head.etag))]
        failed = 0
        while True:
            if not pinned:
                await self._look_again(looked)
            try:
                stored = await writer.store(backend, name, encoded, headers, counted=counted)
            except BackendError as error:
                failed += 1
                if await self._was_stored(looked, encoded, error, failed):
                    return
                if not await self._patience.wait(failed):
                    raise Failed("PutObject", str(error)) from error
                continue
            if stored.sidecar is False:
                raise Failed("PutObject(sidecar)", "the object is stored; run s4 repair-sidecar")
            return

    async def _was_stored(
        self, looked: Looked, encoded: EncodedObject, error: BackendError, failed: int
    ) -> bool:
        """Whether a write that failed was carried out after all.

        Raises Skipped where another write came first, Failed where trying again is of no use.
        """
        refused = is_refused(error)
        if not (refused or is_open(error) or is_passing(error)):
            raise Failed("PutObject", str(error)) from error
        if is_open(error) or failed > 1:
            with reading("HeadObject"):
                head = await self._objects.backend.head(*looked.name)
            if _is_made(head, looked, encoded):
                await self._settle(looked.name, encoded, head)
                return True
            refused = refused or head.etag != looked.head.etag
        if refused:
            missing = isinstance(error, BackendAnswer) and error.missing
            raise Skipped(Outcome.VANISHED if missing else Outcome.ETAG_RACED) from error
        return False

    async def _settle(self, name: ObjectName, encoded: EncodedObject, head: Head) -> None:
        """Bring the sidecar up to an object whose storing was not heard of, and count it."""
        made, index = encoded.manifest, encoded.index
        counted = made.ledger and not encoded.bare

        async def bring(swap: Swap) -> bool:
            swap.resumed(Footprint(made.original_size, head.size, accounted=counted))
            if index is None:
                await swap.drop_sidecar(name, None, as_known=False)
                return True
            return await swap.write_sidecar(name, index, head.etag, head.size) is not None

        if not await self._objects.writer.accounts.around(name, bring):
            raise Failed("PutObject(sidecar)", "the object is stored; run s4 repair-sidecar")

    async def _look_again(self, looked: Looked) -> None:
        """Raise Skipped unless the key still has the version that was read."""
        with reading("HeadObject(pre-put)"):
            head = await self._objects.backend.head(*looked.name)
        if head.etag != looked.head.etag:
            raise Skipped(Outcome.ETAG_RACED)

    async def _decides(self, verb: ConditionalVerb, bucket: str) -> bool:
        """Whether the store refuses a write whose condition does not hold."""
        known = self._conditions.get(verb)
        if known is None:
            try:
                known = await self._objects.conditional.honoured(verb, bucket)
            except BackendError:
                known = False
            self._conditions[verb] = known
        return known


def _is_made(head: Head, looked: Looked, encoded: EncodedObject) -> bool:
    if head.etag == looked.head.etag or head.size != encoded.stored_size:
        return False
    stored = describe(head).stored
    if not encoded.bare:
        return stored.manifest == encoded.manifest
    return stored.form is Form.FOREIGN and ("-" in head.etag or head.etag == _md5(encoded))


def _md5(encoded: EncodedObject) -> str:
    return base64.b64decode(encoded.body.md5 or "").hex()
