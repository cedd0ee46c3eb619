"""Gateway processes that share a store in memory, and uploads that any of them takes further."""

import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from s4gateway.backend import base, multipart
from s4gateway.backend.base import Backend, BackendUnavailable, Body
from s4gateway.backend.memory import MemoryBackend
from s4gateway.backend.multipart import Upload
from s4gateway.objects.accounting import Ledger
from s4gateway.objects.completion import Completer, Objects
from s4gateway.objects.completion_request import Completed, Wanted
from s4gateway.objects.encoding import DIGESTS, EncodedObject
from s4gateway.objects.part_facts import PartFacts
from s4gateway.objects.parts import PartTarget, PartWriter
from s4gateway.objects.uploads import MAX_PART_NUMBER, UploadRecord, Uploads
from s4gateway.s3 import etag
from s4gateway.s3.checksums import Digests
from s4gateway.s3.completion import ListedPart
from s4gateway.s3.errors import S3Error
from s4gateway.s3.multipart import InitiateResult
from s4gateway.wire import keys, manifest
from s4gateway.wire.codec_id import CodecId
from tests.backends import Call, CountingBackend
from tests.objects.world import BUCKET, Instance

KEY = "a/key"
_Answer = TypeVar("_Answer")
_ENCODED: dict[tuple[object, ...], tuple[EncodedObject, dict[str, str]]] = {}
TOKEN = "00112233445566aa"

Conditions = Sequence[tuple[str, str]]


@dataclass
class Process:
    """What one gateway process does with uploads over `backend`."""

    backend: Backend
    uniform: bool = False
    ledger: Ledger | None = None
    instance: Instance = field(init=False)

    def __post_init__(self) -> None:
        instance = self.instance = Instance(self.backend, ledger=self.ledger)
        self.uploads = Uploads(self.backend, uniform=self.uniform)
        self.parts = PartWriter(self.uploads, instance.workshop, instance.dispatcher)
        objects = Objects(instance.reader, instance.writer, instance.sidecars, instance.attributes)
        self.completer = Completer(instance.workshop, self.backend, self.uploads, objects)

    async def begin(
        self, key: str = KEY, algorithm: str | None = None, kind: str | None = None
    ) -> Upload:
        entries = manifest.multipart_metadata(CodecId.CPU_ZSTD, tail=TOKEN)
        headers = [(f"x-amz-meta-{name}", text) for name, text in entries.items()]
        marks = self.instance.writer.accounts.mark(headers)
        _, document = await multipart.create(self.backend, BUCKET, key, [*headers, *marks])
        upload_id = InitiateResult.parse(document).upload_id
        record = UploadRecord(upload_id, key, TOKEN, algorithm, kind, ledger=bool(marks))
        await self.uploads.begin(BUCKET, record)
        return Upload(BUCKET, key, upload_id)

    async def send(self, upload: Upload, number: int, body: bytes) -> PartFacts:
        record = await self.uploads.find(BUCKET, upload.key, upload.upload_id)
        assert record is not None
        target = await self.parts.target(upload, record, number, len(body))
        algorithm = record.checksum_algorithm
        encoded, checksums = await self._encode(target, body, algorithm)
        return (await self.parts.store(self.backend, target, encoded, checksums)).facts

    async def _encode(
        self, target: PartTarget, body: bytes, algorithm: str | None
    ) -> tuple[EncodedObject, dict[str, str]]:
        """Encode a body, once for all tests that send the same."""
        key = (body, target.part_size, target.number == MAX_PART_NUMBER, algorithm)
        if key not in _ENCODED:
            digests = Digests([*DIGESTS, *([] if algorithm is None else [algorithm])])
            encoded = await self.parts.encode(target, _pieces(body), len(body), digests)
            chunks = encoded.body.chunks
            data = chunks if isinstance(chunks, bytes) else b"".join([x async for x in chunks()])
            kept = replace(encoded, body=Body.of(data, md5=encoded.body.md5), spool=None)
            encoded.close()
            checksums = {} if algorithm is None else {algorithm: _base64(digests[algorithm])}
            _ENCODED[key] = kept, checksums
        return _ENCODED[key]

    async def complete(
        self, wanted: Wanted, conditions: Conditions = (), backend: Backend | None = None
    ) -> Completed:
        standing = await self.completer.find(wanted.upload)
        if standing is None:
            raise S3Error("NoSuchUpload")

        async def translate() -> base.HeaderList:
            return conditions

        return await self.completer.begin(backend or self.backend, wanted, standing, translate)

    async def close(self) -> None:
        await self.completer.close()
        await self.instance.close()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 700_000):
        yield body[start : start + 700_000]


def listed(*facts: PartFacts) -> tuple[ListedPart, ...]:
    return tuple(ListedPart(each.number, each.md5) for each in facts)


def wanted(upload: Upload, *facts: PartFacts, **options: object) -> Wanted:
    return Wanted(upload, listed(*facts), **options)  # type: ignore[arg-type]


def whole_etag(*bodies: bytes) -> str:
    return etag.composite(hashlib.md5(body).hexdigest() for body in bodies)


def records(store: MemoryBackend) -> list[str]:
    """Names of all records of all uploads."""
    return [
        key.rpartition("/")[2]
        for key in sorted(store.buckets[BUCKET])
        if key.startswith(keys.PARTS_PREFIX)
    ]


class StoppingBackend(CountingBackend):
    """A store that a process loses with its request number `at`, before or `after` it is done.

    From then on nothing reaches the store: to the store, the process has been killed there.
    """

    def __init__(self, inner: Backend, at: int, *, after: bool) -> None:
        super().__init__(inner)
        self._at = at
        self._after = after

    @property
    def reached(self) -> bool:
        return len(self.calls) >= self._at

    async def before(self, call: Call) -> None:
        await super().before(call)
        if len(self.calls) > self._at or (self.reached and not self._after):
            raise BackendUnavailable("killed")

    async def _answered(self, call: Awaitable[_Answer]) -> _Answer:
        answer = await call
        if self.reached:
            raise BackendUnavailable("killed")
        return answer

    async def put(
        self, bucket: str, key: str, body: base.Body, headers: base.HeaderList = ()
    ) -> base.Head:
        return await self._answered(super().put(bucket, key, body, headers))

    async def get(self, bucket: str, key: str, **options: Any) -> base.ObjectStream:
        return await self._answered(super().get(bucket, key, **options))

    async def head(self, bucket: str, key: str, **options: Any) -> base.Head:
        return await self._answered(super().head(bucket, key, **options))

    async def delete(self, bucket: str, key: str, **options: Any) -> base.Head:
        return await self._answered(super().delete(bucket, key, **options))

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> base.DeleteFailures:
        return await self._answered(super().delete_many(bucket, keys))

    async def list(self, bucket: str, raw_query: str, headers: base.HeaderList = ()) -> bytes:
        return await self._answered(super().list(bucket, raw_query, headers))

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        return await self._answered(super().forward(method, raw_path, raw_query, headers, body))
