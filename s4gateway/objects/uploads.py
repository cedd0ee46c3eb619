"""What the gateway keeps about a multipart upload, in the bucket, below `.s4mpu/<hex(id)>/`.

    create       how the upload began: its key, its token, the checksum it declared
    NNNNN        one object per part: facts as metadata, and either the part's frames (staged) or
                 the index of frames that already lie in the store's own part (direct)
    uniform      the length all parts have, where the store wants them equal

Rule: all state is in the bucket, so any instance may take the next request, and a part sent again
replaces the one before in one atomic PUT. What is read back is not trusted: every field is checked,
sizes are bounded. These requests carry the gateway's own identity, never the client's.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendProtocolError,
    Body,
    Head,
    HeaderList,
)
from s4gateway.objects import removal
from s4gateway.objects.errors import DamagedObject
from s4gateway.objects.fan_out import fan_out
from s4gateway.objects.part_facts import METADATA, PartFacts
from s4gateway.s3 import etag, query
from s4gateway.s3.checksums import ALGORITHMS
from s4gateway.s3.documents import ListedObject, ListPage
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys, tail
from s4gateway.wire.errors import SidecarError
from s4gateway.wire.index import FrameIndex

RECORD_LIMIT: Final = 64 * 1024  # bytes of a JSON record
INDEX_LIMIT: Final = 1024 * 1024  # bytes of a part's index; 5 GiB in frames of 4 MiB take 40 KiB
MAX_PART_NUMBER: Final = 10_000

# Compressed already: a store that compresses by content type leaves this one alone.
_STAGED_TYPE: Final = "application/zstd"
_JSON_TYPE: Final = "application/json"
_VERSION: Final = 1
_PAGE: Final = 1000
_ATTEMPTS: Final = 3  # at reading a part that is being sent again


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """How an upload began.

    `token` marks the object this upload makes, so that a repeated Complete knows its own work.
    `checksum_algorithm` is lower-case ("crc64nvme"), `checksum_type` COMPOSITE or FULL_OBJECT; both
    None when the client declared none. `encryption` are request headers that store staged parts
    under the same server-side encryption as the object. `ledger`: the object to come carries the
    ledger's mark.
    """

    upload_id: str
    key: str
    token: str
    checksum_algorithm: str | None = None
    checksum_type: str | None = None
    encryption: tuple[tuple[str, str], ...] = ()
    ledger: bool = False

    def encode(self) -> bytes:
        """The record as it is stored."""
        fields: dict[str, object] = {
            "v": _VERSION,
            "upload_id": self.upload_id,
            "key": self.key,
            "token": self.token,
            "checksum_algorithm": self.checksum_algorithm,
            "checksum_type": self.checksum_type,
            "encryption": dict(self.encryption),
        }
        if self.ledger:
            fields["ledger"] = True
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> "UploadRecord":
        """Read a record; raises DamagedObject for what is none."""
        fields = decode_json(data)
        algorithm, kind = fields.get("checksum_algorithm"), fields.get("checksum_type")
        encryption = fields.get("encryption", {})
        texts = [fields.get(name) for name in ("upload_id", "key", "token")]
        upload_id, key, token = texts
        if (
            not (isinstance(upload_id, str) and isinstance(key, str) and isinstance(token, str))
            or not tail.is_token(token)
            or not (algorithm is None or (isinstance(algorithm, str) and algorithm in ALGORITHMS))
            or not (kind is None or kind in (tail.COMPOSITE, tail.FULL_OBJECT))
            or not _is_encryption(encryption)
        ):
            msg = "the record of a multipart upload is malformed"
            raise DamagedObject(msg)
        ledger = fields.get("ledger") is True
        return cls(upload_id, key, token, algorithm, kind, tuple(encryption.items()), ledger)


def decode_json(data: bytes) -> dict[str, Any]:
    """A JSON object of the current version; raises DamagedObject for anything else."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        msg = "a record of a multipart upload is no JSON"
        raise DamagedObject(msg) from error
    if not isinstance(fields, dict) or fields.get("v") != _VERSION:
        msg = "a record of a multipart upload is of an unknown kind"
        raise DamagedObject(msg)
    return fields


def _is_encryption(headers: object) -> bool:
    return isinstance(headers, dict) and all(
        name.startswith("x-amz-server-side-encryption")
        and isinstance(value, str)
        and value.isprintable()
        for name, value in headers.items()
    )


@dataclass(frozen=True, slots=True)
class PartRef:
    """One part as a listing names it; `etag` is that of the record object, not of the part.

    `size` is in bytes of the record object, `modified` as the store wrote it (ISO 8601).
    """

    number: int
    key: str
    etag: str
    size: int
    modified: str


class Uploads:
    """Reads and writes the records of uploads with the gateway's own identity."""

    def __init__(self, backend: Backend, *, uniform: bool = False) -> None:
        self.backend = backend
        self.uniform = uniform
        self._part_sizes: dict[tuple[str, str], int] = {}

    async def begin(self, bucket: str, record: UploadRecord) -> None:
        """Store the record of an upload that has just begun; raises BackendError."""
        await self._put_json(bucket, keys.create_key(record.upload_id), record.encode())

    async def find(self, bucket: str, key: str, upload_id: str) -> UploadRecord | None:
        """Return the record; None for an upload that has none, which is the backend's own.

        Raises NoSuchUpload when the upload is for another key, DamagedObject, BackendError.
        """
        data = await self.read(bucket, upload_id, keys.create_key(upload_id))
        if data is None:
            return None
        record = UploadRecord.decode(data)
        if record.upload_id != upload_id:
            msg = "the record of a multipart upload names another one"
            raise DamagedObject(msg)
        if record.key != key:
            raise S3Error("NoSuchUpload", UploadId=upload_id)
        return record

    async def read(self, bucket: str, upload_id: str, name: str) -> bytes | None:
        """Return a small record of an upload, by its key; None when it is not there."""
        if not is_storable(upload_id):
            return None
        try:
            async with await self.backend.get(bucket, name) as stream:
                return await stream.read(RECORD_LIMIT)
        except BackendAnswer as error:
            if error.missing:
                return None
            raise

    async def _put_json(self, bucket: str, key: str, data: bytes, headers: HeaderList = ()) -> Head:
        fields = [("content-type", _JSON_TYPE), *headers]
        return await self.backend.put(bucket, key, Body.of(data, md5=_md5(data)), fields)

    async def store_part(
        self,
        bucket: str,
        record: UploadRecord,
        facts: PartFacts,
        body: Body,
        headers: HeaderList = (),
    ) -> Head:
        """PUT the object of one part: its frames when staged, else its index; raises BackendError.

        It replaces what was sent before under the same number.
        """
        fields = [("content-type", _STAGED_TYPE), (METADATA, facts.encode()), *headers]
        fields += record.encryption if facts.staged else ()
        key = keys.part_key(record.upload_id, facts.number)
        return await self.backend.put(bucket, key, body, fields)

    async def parts(
        self, bucket: str, upload_id: str, after: int = 0, limit: int | None = None
    ) -> list[PartRef]:
        """Parts by number, those above `after`, `limit` of them at most; costs listings only."""
        prefix = keys.upload_prefix(upload_id)
        found: list[PartRef] = []
        behind = keys.part_key(upload_id, after)
        while limit is None or len(found) < limit:
            count = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page = await self._list(bucket, prefix, behind, count)
            refs = [ref for each in page.contents if (ref := _part_ref(each, prefix)) is not None]
            found += refs
            # Numbers sort before names: the first name ends the parts.
            if not page.is_truncated or len(refs) < len(page.contents) or not page.contents:
                break
            behind = page.contents[-1].key
        return found

    async def _list(self, bucket: str, prefix: str, behind: str, count: int) -> ListPage:
        pairs = [
            ("encoding-type", "url"),
            ("list-type", "2"),
            ("max-keys", str(count)),
            ("prefix", prefix),
            ("start-after", behind),
        ]
        return ListPage.parse(await self.backend.list(bucket, query.format_query(pairs)))

    async def described(
        self, bucket: str, upload_id: str, after: int, limit: int, concurrency: int
    ) -> list[tuple[PartRef, PartFacts]]:
        """Parts with their facts, `concurrency` requests at a time; raises BackendError.

        A part that is sent again meanwhile is told as it is now.
        """

        async def describe(ref: PartRef) -> tuple[PartRef, PartFacts] | None:
            for _ in range(_ATTEMPTS):
                try:
                    return ref, await self.facts(bucket, ref)
                except BackendAnswer as error:
                    if error.status not in {404, 412}:
                        raise
                again = await self.parts(bucket, upload_id, ref.number - 1, 1)
                if not again or again[0].number != ref.number:
                    return None
                ref = again[0]
            raise S3Error("ServiceUnavailable", headers={"Retry-After": "1"})

        refs = await self.parts(bucket, upload_id, after, limit)
        found = await fan_out(refs, describe, concurrency)
        return [each for each in found if each is not None]

    async def facts(self, bucket: str, ref: PartRef) -> PartFacts:
        """HEAD a part; raises BackendError (412 or 404 when it was replaced or removed since)."""
        pin = [("if-match", etag.quote(ref.etag))]
        head = await self.backend.head(bucket, ref.key, headers=pin)
        return self.facts_of(head, ref)

    def facts_of(self, head: Head, ref: PartRef) -> PartFacts:
        """Read the facts in the head of a GET or HEAD of a part; raises DamagedObject."""
        if head.etag != ref.etag:
            msg = f"the store answered with {head.etag or 'none'} for a part of ETag {ref.etag}"
            raise BackendProtocolError(msg)
        facts = PartFacts.decode(head.metadata.get(METADATA.removeprefix("x-amz-meta-"), ""))
        if facts.number != ref.number or (facts.staged and facts.stored_size != head.size):
            msg = f"the record of part {ref.number} describes something else"
            raise DamagedObject(msg)
        return facts

    async def load(self, bucket: str, ref: PartRef) -> tuple[PartFacts, FrameIndex]:
        """Return facts and index of a direct part; raises BackendError, DamagedObject."""
        async with await self.backend.get(bucket, ref.key, if_match=ref.etag) as stream:
            facts = self.facts_of(stream.head, ref)
            if facts.staged:
                msg = f"part {ref.number} is staged and has no index"
                raise DamagedObject(msg)
            data = await stream.read(INDEX_LIMIT)
        try:
            index = FrameIndex.decode(data)
        except SidecarError as error:
            msg = f"the index of part {ref.number} is malformed: {error}"
            raise DamagedObject(msg) from error
        if not _describes(index, facts):
            msg = f"the index of part {ref.number} does not fit its size"
            raise DamagedObject(msg)
        return facts, index

    async def remove(self, bucket: str, upload_id: str, keep: Sequence[str] = ()) -> bool:
        """Delete what is kept about an upload but the keys in `keep`; whether all of it went.

        Parts go before the record that names the upload, so that what a crash leaves behind can
        still be told from a live upload. Every version goes where the bucket keeps them.
        """
        if not is_storable(upload_id):
            return True
        self._part_sizes.pop((bucket, upload_id), None)
        prefix, create = keys.upload_prefix(upload_id), keys.create_key(upload_id)
        return await removal.remove(self.backend, bucket, prefix, keep, last=create)

    async def part_size(self, bucket: str, upload_id: str) -> int | None:
        """The length of part number 1, once its sending began; only with uniform parts."""
        known = self._part_sizes.get((bucket, upload_id))
        if known is not None:
            return known
        data = await self.read(bucket, upload_id, uniform_key(upload_id))
        if data is None:
            return None
        size = decode_json(data).get("part_size")
        if type(size) is not int or not 0 < size <= 5 * 1024**3:
            msg = "the part size of a multipart upload is malformed"
            raise DamagedObject(msg)
        self._remember_size(bucket, upload_id, size)
        return size

    async def fix_part_size(self, bucket: str, upload_id: str, size: int) -> None:
        """Fix the length of parts, unless it is fixed already; raises BackendError."""
        data = json.dumps({"v": _VERSION, "part_size": size}, separators=(",", ":")).encode()
        key = uniform_key(upload_id)
        try:
            await self._put_json(bucket, key, data, [("if-none-match", "*")])
        except BackendAnswer as error:
            if error.status in {409, 412}:
                return
            if error.status not in {400, 405, 501}:
                raise
            # The store knows no conditions: the last to write is right, and nobody remembers.
            if await self.part_size(bucket, upload_id) is None:
                await self._put_json(bucket, key, data)
            return
        self._remember_size(bucket, upload_id, size)

    def _remember_size(self, bucket: str, upload_id: str, size: int) -> None:
        if len(self._part_sizes) >= _PAGE:
            del self._part_sizes[next(iter(self._part_sizes))]
        self._part_sizes[bucket, upload_id] = size


def uniform_key(upload_id: str) -> str:
    """Return the key of the object that fixes the length of an upload's parts."""
    return keys.upload_prefix(upload_id) + "uniform"


def is_storable(upload_id: str) -> bool:
    """Whether records of this upload can have keys: S3 allows them 1,024 bytes.

    >>> is_storable("a" * 100), is_storable("a" * 600), is_storable("")
    (True, False, False)
    """
    return bool(upload_id) and len(keys.completion_key(upload_id)) <= 1024


def _part_ref(entry: ListedObject, prefix: str) -> PartRef | None:
    name = entry.key.removeprefix(prefix)
    if not (len(name) == 5 and name.isascii() and name.isdigit() and entry.etag):
        return None
    number = int(name)
    if not 1 <= number <= MAX_PART_NUMBER:
        return None
    return PartRef(number, entry.key, entry.etag, entry.size, entry.last_modified or "")


def _describes(index: FrameIndex, facts: PartFacts) -> bool:
    if not len(index) or index.sse is not None or not index.is_contiguous:
        return False
    last = index[len(index) - 1]
    return (
        index[0].compressed_offset == 0
        and index.total_original == facts.size
        and index.total_padded == facts.stored_size
        and last.compressed_offset + last.compressed_size <= facts.stored_size
    )


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
