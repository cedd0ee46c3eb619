"""Copy one stored object as it is: its bytes by the store, its manifest with them.

Rule: the store copies what was looked at and nothing else: every request is pinned to the source's
backend ETag. The manifest goes along in every case, for without it the copied bytes could not be
read: the store keeps it with all other metadata, and where the client replaces these, the source's
`s4-*` entries are added to the client's own. The index is written anew, bound to the copy. What is
compressed with a dictionary needs it in its own bucket, so a copy to another bucket takes it there
first, by the same identity that may write the copy.

A source above `largest` stored bytes is copied range by range into a multipart upload, which
inherits nothing: its metadata and tags are read from the source and sent.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/CopyingObjectsMPUapi.html
"""

from collections.abc import Awaitable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import Backend, BackendAnswer, Head, HeaderList
from s4gateway.codecs.encoder import MEDIUM_CHUNK
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects import dictionaries
from s4gateway.objects.accounting import Swap, Write
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.cache import AttributeCache, KnownObject, ObjectName
from s4gateway.objects.dictionary_store import DictionaryStore
from s4gateway.objects.footprint import Found, of_attributes
from s4gateway.objects.opening import Source
from s4gateway.objects.part_copying import (
    PART_SIZE,
    PartCopier,
    UploadOrder,
    is_carried,
    parse_result,
    source_headers,
)
from s4gateway.objects.sidecar import Sidecars
from s4gateway.objects.writer import ObjectWriter
from s4gateway.s3.copying import CopyResult
from s4gateway.s3.headers import USER_METADATA_PREFIX
from s4gateway.wire import keys, manifest
from s4gateway.wire.index import FrameIndex
from s4gateway.wire.manifest import Form

LARGEST: Final = 5 * 1024**3  # stored bytes S3 copies in one request
_ONE_FRAME: Final = MEDIUM_CHUNK  # writers store objects up to this size as one frame
_DESCRIPTION: Final = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "expires",
    }
)
_TAGS: Final = "x-amz-tagging"
_CHANGES: Final = (
    "x-amz-server-side-encryption",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
)
_DEFAULT_TYPE: Final = ("content-type", "binary/octet-stream")


def is_description(name: str) -> bool:
    """Whether a header is metadata of an object, which a copy keeps or replaces as a whole."""
    return name in _DESCRIPTION or name.startswith(USER_METADATA_PREFIX)


@dataclass(frozen=True, slots=True)
class CopyOrder:
    """What a client wants of a copy, as request headers; `name` is where it goes.

    `settings` hold for the copy whatever becomes of its metadata (ACL, storage class, lock,
    encryption, tags). `access` says how the store may read the source. `description` replaces the
    source's metadata, None keeps them; `replace_tags` takes the tags of `settings` instead of the
    source's. `conditions` are about the backend's ETag of what is there. `checksum_algorithm` is
    for objects stored as they came.
    """

    name: ObjectName
    settings: HeaderList = ()
    access: HeaderList = ()
    description: HeaderList | None = None
    replace_tags: bool = False
    conditions: HeaderList = ()
    checksum_algorithm: str | None = None


@dataclass(frozen=True, slots=True)
class CopiedObject:
    """A finished copy: the head of the store's answer, and what clients see of the object.

    `sidecar` says whether an index was to be written and was.
    """

    head: Head
    result: CopyResult
    sidecar: bool | None


class ObjectCopier:
    """Copies stored objects; shared by all requests of a process.

    `backend` carries the gateway's own identity; the copy itself is made with that of the source.
    """

    def __init__(
        self,
        backend: Backend,
        sidecars: Sidecars,
        attributes: AttributeCache,
        writer: ObjectWriter,
        dictionaries: DictionaryStore,
        *,
        largest: int = LARGEST,
        part_size: int = PART_SIZE,
    ) -> None:
        self._backend = backend
        self._sidecars = sidecars
        self._attributes = attributes
        self._writer = writer
        self._dictionaries = dictionaries
        self._largest = largest
        self._parts = PartCopier(part_size)

    async def copy(self, source: Source, looked_at: Attributes, order: CopyOrder) -> CopiedObject:
        """Copy the version that `looked_at` describes.

        Raises BackendError, 412 when the source is another by now or a condition does not hold;
        DictionaryError when the copy could not be read where it goes.
        """
        await self._bring_dictionary(source, looked_at, order.name[0])
        index = await self._index(source, looked_at)
        call = partial(self._copy, source, looked_at, order, index)
        return await self._writer.accounts.around(order.name, call)

    async def _copy(
        self,
        source: Source,
        looked_at: Attributes,
        order: CopyOrder,
        index: FrameIndex | None,
        swap: Swap,
    ) -> CopiedObject:
        name, before = order.name, self._attributes.last(order.name)
        counted = looked_at.stored.ledger and bool(self._writer.accounts.mark(order.settings))
        made = replace(of_attributes(looked_at), accounted=counted)

        def send(_: HeaderList) -> Awaitable[tuple[Head, CopyResult]]:
            if looked_at.head.size > self._largest and not _changes_nothing(source, order):
                upload = _upload(order, looked_at, counted=counted)
                return self._parts.copy(source, looked_at, upload)
            return _copy_at_once(source, looked_at, order, counted=counted)

        def is_made(seen: Found | None) -> bool:
            return seen is not None and seen.footprint == made

        try:
            write = Write(send, is_made, asked=order.conditions, before=before)
            (head, result), _ = await swap.replace(write)
        except BaseException:
            self._attributes.forget(name)  # the store may or may not have made it
            raise
        swap.stored(head.version_id, made)
        known, versioned = _known(looked_at, result.etag), head.version_id is not None
        if known is not None:
            known = replace(known, accounted=counted)
        written = await self._writer.settle(swap, name, known, index, before, versioned=versioned)
        return CopiedObject(head, _as_seen(looked_at, result), written)

    async def _index(self, source: Source, looked_at: Attributes) -> FrameIndex | None:
        """The source's index, when it is one that its copy needs, too."""
        stored, size, head = looked_at.stored, looked_at.size, looked_at.head
        if stored.form is not Form.FRAMED or size is None:
            return None
        if not stored.multipart and size <= _ONE_FRAME:
            return None
        return await self._sidecars.load(source.name, head.etag, head.size)

    async def _bring_dictionary(self, source: Source, looked_at: Attributes, bucket: str) -> None:
        """See to it that `bucket` has the dictionary the object is read with."""
        dict_id = looked_at.stored.dict_id
        if dict_id is None or bucket == source.name[0]:
            return
        dictionary = await self._dictionaries.find(source.name[0], dict_id)
        if not await self._has(bucket, dictionary):
            await dictionaries.publish(source.backend, bucket, dictionary.data)

    async def _has(self, bucket: str, dictionary: ZstdDict) -> bool:
        """Whether these very bytes stand there, by what the store says of them."""
        try:
            head = await self._backend.head(bucket, keys.DICTIONARY_PREFIX + dictionary.dict_id)
        except BackendAnswer as error:
            if not error.missing:
                raise
            return False
        recorded = head.metadata.get(manifest.DICT_SHA256)
        return head.size == dictionary.size and recorded == dictionary.sha256


def _changes_nothing(source: Source, order: CopyOrder) -> bool:
    """Whether this would be a copy of an object onto itself as it is, which the store refuses."""
    if order.name != source.name or source.query or order.description is not None:
        return False
    return not any(name.startswith(_CHANGES) for name, _ in order.settings)


async def _copy_at_once(
    source: Source, looked_at: Attributes, order: CopyOrder, *, counted: bool
) -> tuple[Head, CopyResult]:
    """CopyObject; raises BackendError."""
    headers = [
        *source_headers(source, looked_at),
        *order.access,
        *order.settings,
        *order.conditions,
    ]
    if order.description is not None:
        headers.append(("x-amz-metadata-directive", "REPLACE"))
        headers += _replaced(order.description, looked_at, counted=counted)
    if order.replace_tags:
        headers.append(("x-amz-tagging-directive", "REPLACE"))
    if order.checksum_algorithm is not None and looked_at.stored.form is Form.FOREIGN:
        headers.append(("x-amz-checksum-algorithm", order.checksum_algorithm))
    path = multipart.object_path(*order.name)
    head, document = await multipart.ask(source.backend, "PUT", path, "", headers)
    return head, parse_result(document)


def _replaced(description: HeaderList, looked_at: Attributes, *, counted: bool) -> HeaderList:
    """The client's metadata, and the entries without which the body could not be read.

    The ledger's mark goes along only with what the ledger counts.
    """
    headers = list(description)
    if all(name != _DEFAULT_TYPE[0] for name, _ in headers):
        headers.append(_DEFAULT_TYPE)
    for name, value in looked_at.head.metadata.items():
        if name.startswith(manifest.RESERVED_PREFIX) and (counted or name != manifest.LEDGER):
            headers.append((USER_METADATA_PREFIX + name, value))
    return headers


def _upload(order: CopyOrder, looked_at: Attributes, *, counted: bool) -> UploadOrder:
    """The same as a multipart upload, which is told all that a copy takes over by itself."""
    settings = [each for each in order.settings if order.replace_tags or each[0] != _TAGS]
    if order.description is not None:
        description = _replaced(order.description, looked_at, counted=counted)
    else:
        headers = looked_at.head.headers.items()
        description = [each for each in headers if is_description(each[0])]
    return UploadOrder(
        name=order.name,
        create=[*settings, *description],
        access=order.access,
        always=[each for each in settings if is_carried(each[0])],
        conditions=order.conditions,
        copies_tags=not order.replace_tags,
    )


def _known(looked_at: Attributes, etag: str) -> KnownObject | None:
    """What is known about a copy of this backend ETag."""
    known = looked_at.known()
    if known is None:
        return None
    logical = _seen_etag(looked_at, etag)
    return replace(known, etag=etag, logical_etag=logical, indexed=False)


def _seen_etag(looked_at: Attributes, etag: str) -> str:
    """The ETag clients see of a copy of this backend ETag: the source's, if it has one of its own.

    What is derived from the backend's ETag is derived anew.
    """
    stored = looked_at.stored
    if stored.logical_etag is None and looked_at.etag == manifest.visible_etag(
        looked_at.head.etag, stored
    ):
        return manifest.visible_etag(etag, stored)
    return looked_at.etag


def _as_seen(looked_at: Attributes, result: CopyResult) -> CopyResult:
    """The result in terms of the original: no ETag and no checksum of compressed bytes."""
    seen = replace(result, etag=_seen_etag(looked_at, result.etag))
    if looked_at.stored.form is Form.FOREIGN:
        return seen
    if (checksum := looked_at.checksum) is None:
        return replace(seen, checksums=(), checksum_type=None)
    algorithm, value, kind = checksum
    return replace(seen, checksums=((algorithm, value),), checksum_type=kind)
