"""ListObjects, ListObjectsV2 and ListObjectVersions without the gateway's own keys.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
"""

from dataclasses import replace
from typing import Final

from s4gateway.gateway.context import Outcome, RequestContext, Response
from s4gateway.objects.listing import PAGE_LIMIT, ListRequest, visible_page
from s4gateway.objects.version_listing import VersionRequest, visible_versions
from s4gateway.s3.documents import ListPage
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import OF_THE_REQUEST
from s4gateway.s3.operations import Operation

_XML: Final = [("content-type", "application/xml")]
_MAX_INT: Final = 2**31 - 1
_PASSED_ON: Final = frozenset({"fetch-owner", "allow-unordered", "expected-bucket-owner"})


async def list_objects(context: RequestContext) -> Outcome:
    """List the visible objects of a bucket with their logical sizes and ETags."""
    request = _parse(context)
    bucket = context.bucket
    headers = context.headers.named(OF_THE_REQUEST)

    async def fetch(raw_query: str) -> bytes:
        return await context.backend.list(bucket, raw_query, headers)

    page = await visible_page(request, fetch)
    services = context.services
    listed: tuple[int, int] | None = None
    if not services.config.physical_listings:
        contents, hits, misses = await services.sizer.sized(bucket, page.contents)
        page = replace(page, contents=contents)
        listed = (hits, misses)
    return Outcome(Response(200, _XML, _rendered(context, page)), listed=listed)


def _rendered(context: RequestContext, page: ListPage) -> bytes:
    return replace(
        page,
        name=context.bucket,
        delimiter=context.query.get("delimiter") or None,
        encoding_type=context.query.get("encoding-type"),
    ).serialize()


def _parse(context: RequestContext) -> ListRequest:
    parameters = context.query
    version = 2 if context.operation is Operation.ListObjectsV2 else 1
    _check_encoding(parameters)
    return ListRequest(
        version=version,
        prefix=parameters.get("prefix", ""),
        delimiter=parameters.get("delimiter", ""),
        max_keys=_max_keys(parameters.get("max-keys")),
        after=parameters.get("start-after" if version == 2 else "marker", ""),
        token=parameters.get("continuation-token") if version == 2 else None,
        others=_others(parameters),
    )


def _check_encoding(parameters: dict[str, str]) -> None:
    if parameters.get("encoding-type", "url") != "url":
        raise S3Error("InvalidArgument", "Invalid Encoding Method specified in Request")


def _others(parameters: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, parameters[name]) for name in _PASSED_ON if name in parameters)


def _max_keys(text: str | None) -> int:
    if text is None or text == "":
        return PAGE_LIMIT
    if not (text.isascii() and text.isdigit()) or int(text[:12]) > _MAX_INT:
        raise S3Error(
            "InvalidArgument",
            "Provided max-keys not an integer or within integer range",
            ArgumentName="max-keys",
            ArgumentValue=text,
        )
    return min(int(text), PAGE_LIMIT)


async def list_versions(context: RequestContext) -> Outcome:
    """List the visible versions and delete markers with their logical sizes and ETags."""
    parameters = context.query
    _check_encoding(parameters)
    request = VersionRequest(
        prefix=parameters.get("prefix", ""),
        delimiter=parameters.get("delimiter", ""),
        max_keys=_max_keys(parameters.get("max-keys")),
        key_marker=parameters.get("key-marker", ""),
        version_id_marker=parameters.get("version-id-marker", ""),
        others=_others(parameters),
    )
    bucket, services = context.bucket, context.services
    headers = context.headers.named(OF_THE_REQUEST)

    async def fetch(raw_query: str) -> bytes:
        return await context.backend.list(bucket, raw_query, headers)

    page = await visible_versions(request, fetch)
    listed: tuple[int, int] | None = None
    if not services.config.physical_listings:
        entries, hits, misses = await services.version_sizer.sized(bucket, page.entries)
        page = replace(page, entries=entries)
        listed = (hits, misses)
    shown = replace(
        page,
        name=bucket,
        delimiter=parameters.get("delimiter") or None,
        encoding_type=parameters.get("encoding-type"),
    )
    return Outcome(Response(200, _XML, shown.serialize()), listed=listed)
