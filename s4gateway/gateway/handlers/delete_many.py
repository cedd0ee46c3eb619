"""DeleteObjects: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html.

Rule: each key has its own verdict. Reserved keys are refused one by one, what the backend refuses
keeps its error, and internal keys are never reported. What one document cannot say to every store
goes as a DeleteObject of its own: a key that XML has no characters for, and a condition, which is
about the ETag the client sees.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import BackendError, Body, Head
from s4gateway.gateway import faults, relay
from s4gateway.gateway.conditions import deletion_condition
from s4gateway.gateway.context import HeaderPairs, Outcome, RequestContext, Response
from s4gateway.objects.accounting import Deleted
from s4gateway.objects.cache import KnownObject
from s4gateway.objects.deletion import Deletion
from s4gateway.s3 import query, xml
from s4gateway.s3.checksums import CHECKSUM_PREFIX
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys

_MOST_KEYS: Final = 1000
_AT_ONCE: Final = 16  # single deletions of one request under way together
_NO_XML_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
# Conditions of directory buckets: a stored object has another size, and neither is ours to decide.
_REFUSED: Final = ("LastModifiedTime", "Size")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One `Object` of the request."""

    key: str
    version_id: str | None
    etag: str | None
    refused: str | None

    @property
    def stands_alone(self) -> bool:
        return self.etag is not None or _NO_XML_TEXT.search(self.key) is not None

    @property
    def version_query(self) -> str:
        return "" if self.version_id is None else f"versionId={query.quote(self.version_id)}"

    def failed(self, error: S3Error) -> xml.Element:
        """The `Error` that says so."""
        return _element(
            "Error",
            Key=self.key,
            VersionId=self.version_id,
            Code=error.code,
            Message=error.message,
        )

    def deleted(self, head: Head) -> xml.Element:
        """The `Deleted` that says what a DeleteObject has answered."""
        marker = head.headers.get("x-amz-delete-marker", "").lower() == "true"
        return _element(
            "Deleted",
            Key=self.key,
            VersionId=self.version_id,
            DeleteMarker="true" if marker else None,
            DeleteMarkerVersionId=head.version_id if marker else None,
        )


async def delete_objects(context: RequestContext) -> Outcome:
    """Delete up to a thousand objects or versions."""
    root = xml.parse(await context.read_document())
    _check_integrity(context)
    wanted = _parse(root)
    results: list[xml.Element] = []
    kept: list[_Wanted] = []
    for each in wanted:
        if keys.is_write_reserved(each.key):
            results.append(each.failed(S3Error("InvalidObjectName")))
        elif each.refused is not None:
            why = f"{each.refused} is no condition of this gateway's."
            results.append(each.failed(S3Error("NotImplemented", why)))
        else:
            kept.append(each)
    results += await _delete(context, kept)
    if (root.findtext("Quiet") or "").strip().lower() == "true":
        results = [each for each in results if each.tag != "Deleted"]
    document = xml.document("DeleteResult", "".join(map(xml.write, results)))
    return Outcome(Response(200, [("content-type", "application/xml")], document))


def _check_integrity(context: RequestContext) -> None:
    """S3 deletes nothing on the word of a document that nothing vouches for."""
    declared = context.body.declared
    vouched = declared.content_md5 is not None or declared.checksum is not None
    if not vouched and not any(each.startswith(CHECKSUM_PREFIX) for each in declared.trailers):
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5")


def _parse(root: xml.Element) -> list[_Wanted]:
    objects = list(root.findall("Object"))
    if root.tag != "Delete" or not 0 < len(objects) <= _MOST_KEYS:
        raise S3Error("MalformedXML")
    return [_wanted(each) for each in objects]


def _wanted(element: xml.Element) -> _Wanted:
    key = element.findtext("Key")
    if not key:
        raise S3Error("MalformedXML")
    refused = next((name for name in _REFUSED if element.find(name) is not None), None)
    version = element.findtext("VersionId") or None
    return _Wanted(key, version, element.findtext("ETag") or None, refused)


async def _delete(context: RequestContext, wanted: Sequence[_Wanted]) -> list[xml.Element]:
    """Delete, and let the sidecars follow; what the backend answers, under the client's keys."""
    attributes = context.services.attributes
    before = {each.key: attributes.last((context.bucket, each.key)) for each in wanted}
    for each in wanted:
        attributes.forget((context.bucket, each.key))
    named = {(each.key, each.version_id) for each in wanted if each.version_id is not None}
    results: list[xml.Element] = []

    async def send() -> Deleted:
        results.extend(await _send(context, wanted))
        done = [
            _deletion(context.bucket, each, named, before)
            for each in results
            if each.tag == "Deleted"
        ]
        refused = {each.findtext("Key") or "" for each in results if each.tag == "Error"}
        return Deleted(done, frozenset(refused))

    targets = [(each.key, each.version_query) for each in wanted]
    if targets:
        await context.services.writer.accounts.delete_many(context.bucket, targets, send)
    return results


async def _send(context: RequestContext, wanted: Sequence[_Wanted]) -> list[xml.Element]:
    together = [each for each in wanted if not each.stands_alone]
    results = await _delete_together(context, together) if together else []
    gate = asyncio.Semaphore(_AT_ONCE)
    alone = (each for each in wanted if each.stands_alone)
    return results + await asyncio.gather(*(_delete_alone(context, each, gate) for each in alone))


def _deletion(
    bucket: str,
    deleted: xml.Element,
    named: set[tuple[str, str]],
    before: dict[str, KnownObject | None],
) -> Deletion:
    key = deleted.findtext("Key") or ""
    marker = (deleted.findtext("DeleteMarker") or "").strip() == "true"
    version = deleted.findtext("VersionId")
    # SeaweedFS repeats a marker's id as the one it made, and without versions none at all.
    of_version = bool(version) or (
        (key, deleted.findtext("DeleteMarkerVersionId")) in named
        if marker
        else any(key == each for each, _ in named)
    )
    return Deletion((bucket, key), of_version, marker, marker or bool(version), before.get(key))


async def _delete_together(context: RequestContext, wanted: Sequence[_Wanted]) -> list[xml.Element]:
    """Send one document on, never quiet: only what was deleted loses its sidecar."""
    objects = [_element("Object", Key=each.key, VersionId=each.version_id) for each in wanted]
    document = xml.document("Delete", "".join(map(xml.write, objects)))
    md5 = base64.b64encode(hashlib.md5(document, usedforsecurity=False).digest()).decode()
    _, answer = await multipart.ask(
        context.backend,
        "POST",
        f"/{query.quote(context.bucket)}",
        "delete=",
        [*relay.delete_headers(context.headers), ("content-type", "application/xml")],
        Body.of(document, md5=md5),
    )
    root = relay.backend_document(answer)
    return [each for each in root.children if each.tag in {"Deleted", "Error"}]


async def _delete_alone(
    context: RequestContext, wanted: _Wanted, gate: asyncio.Semaphore
) -> xml.Element:
    version = wanted.version_query
    headers = relay.delete_headers(context.headers)
    async with gate:
        try:
            headers += await _condition(context, wanted, version)
            head = await context.backend.delete(
                context.bucket, wanted.key, query=version, headers=headers
            )
        except (S3Error, BackendError) as error:
            return wanted.failed(faults.translate(error, context.caller).s3)
    return wanted.deleted(head)


async def _condition(context: RequestContext, wanted: _Wanted, version: str) -> HeaderPairs:
    if wanted.etag is None:
        return []
    return await deletion_condition(context, wanted.key, version, wanted.etag)


def _element(tag: str, **children: str | None) -> xml.Element:
    found = [xml.Element(name, text) for name, text in children.items() if text is not None]
    return xml.Element(tag, children=found)
