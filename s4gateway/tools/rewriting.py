"""One object written again in its place: read, made anew, verified, and only then stored.

    look ── make and verify ── gather what goes with it ── store

Rule: nothing is replaced by what was not verified against what was read, and nothing is replaced
but the version that was read: the store is asked to refuse the write when another one stands there
(If-Match), and where it knows no such condition the key is looked at right before. What is to
become of objects is a Gate's matter, what is made of them a Make's; a dry run does all of this but
the writes.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from s4gateway.backend.base import BackendAnswer
from s4gateway.codecs.dispatcher import SAMPLE_SIZE
from s4gateway.objects.attributes import describe
from s4gateway.objects.cache import ObjectName
from s4gateway.objects.checked_spool import DamagedSpool
from s4gateway.tools import carrying
from s4gateway.tools.objects import Objects
from s4gateway.tools.rewrite_kind import (
    PROBE,
    Failed,
    Gate,
    Looked,
    Make,
    Outcome,
    Rewritten,
    Skipped,
    reading,
)
from s4gateway.tools.rewrite_order import RewriteParams
from s4gateway.tools.rewrite_store import Replacer
from s4gateway.tools.walk import Listed


class Rewriter:
    """Replaces objects of one run that pass `gate` by what `make` makes of them."""

    def __init__(self, objects: Objects, params: RewriteParams, gate: Gate, make: Make) -> None:
        self._objects = objects
        self._params = params
        self._gate = gate
        self._make = make
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
        self._gate.check_listed(listed)
        if largest is not None and listed.size > largest:
            raise Skipped(Outcome.TOO_LARGE)
        looked = await self._look(listed)
        self._gate.check(looked)
        if carrying.is_locked(looked.head):
            raise Skipped(Outcome.LOCKED)
        if largest is not None and looked.head.size > largest:
            raise Skipped(Outcome.TOO_LARGE)
        source, encoded = await self._make(looked)
        try:
            finished = self._gate.finish(looked, source, encoded)
            headers = await self._carried(looked)
            if self._params.execute:
                stamped = headers + self._gate.stamps(source)
                await self.replacer.store(looked, finished, stamped)
        except DamagedSpool as error:
            raise Failed("verify", str(error)) from error
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
