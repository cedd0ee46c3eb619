"""The source of a copy: which object it is, whether this caller may read it, and how it is read.

Rule: what a client copies it must be allowed to GET. The gateway's own keys do not exist as
sources, dictionaries among them. What the request says about the source, under x-amz-copy-source-*
and x-amz-source-*, stands in requests for the source under the names a plain read has for it.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
"""

from typing import Final

from s4gateway.backend.base import BackendAnswer
from s4gateway.gateway import auth
from s4gateway.gateway.context import HeaderPairs, RequestContext
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.opening import Source
from s4gateway.s3 import copy_source
from s4gateway.s3.conditions import UNCONDITIONAL, ReadConditions, Verdict
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import OF_THE_REQUEST, Headers
from s4gateway.s3.operations import Operation
from s4gateway.wire import keys

_PREFIX: Final = "x-amz-copy-source-"
_CUSTOMER_KEY: Final = "server-side-encryption-customer-"
_OWNER: Final = "x-amz-source-expected-bucket-owner"


def open_for(context: RequestContext) -> Source:
    """The source that x-amz-copy-source names, to be read in the client's name.

    Raises S3Error: InvalidArgument, NoSuchKey for a reserved key, AccessDenied.
    """
    named = copy_source.parse(context.headers.get("x-amz-copy-source", ""))
    auth.authorize(context.caller, Operation.GetObject, named.address, "")
    if keys.is_hidden(named.key) and not context.services.config.allow_legacy_reserved_key_reads:
        raise S3Error("NoSuchKey", Key=named.key)
    headers = _read_headers(context.headers)
    return Source(context.backend, (named.bucket, named.key), named.query, headers)


def _read_headers(headers: Headers) -> HeaderPairs:
    kept: HeaderPairs = []
    for name, value in headers.items():
        if name.startswith(_PREFIX + _CUSTOMER_KEY):
            kept.append(("x-amz-" + name.removeprefix(_PREFIX), value))
        elif name == _OWNER:
            kept.append(("x-amz-expected-bucket-owner", value))
        elif name in OF_THE_REQUEST and name != "x-amz-expected-bucket-owner":
            kept.append((name, value))  # that names the owner of the destination
    return kept


def access_headers(headers: Headers) -> HeaderPairs:
    """What a request that lets the backend read the source says about reading it."""
    return [
        (name, value)
        for name, value in headers.items()
        if name.startswith(_PREFIX + _CUSTOMER_KEY) or name == _OWNER
    ]


async def look(context: RequestContext, source: Source) -> Attributes:
    """HEAD the source and hold it against the conditions on it; raises S3Error, BackendError.

    A failed condition is PreconditionFailed, whichever it is: a copy knows no 304.
    """
    attributes = await _existing(context, source)
    wanted = ReadConditions.parse(context.headers, _PREFIX)
    if wanted is UNCONDITIONAL:
        return attributes
    verdict = wanted.evaluate(attributes.etag, attributes.head.last_modified)
    if verdict is not Verdict.OK:
        raise S3Error("PreconditionFailed")
    return attributes


async def _existing(context: RequestContext, source: Source) -> Attributes:
    try:
        return await context.services.reader.attributes(source)
    except BackendAnswer as error:
        if error.status == 405:
            raise S3Error(
                "InvalidRequest",
                "The source of a copy request may not specifically refer to a delete marker by "
                "version id.",
            ) from error
        if error.status != 404:
            raise
    # An answer to HEAD has no body to say whether the key, the version or the bucket is missing.
    bucket, key = source.name
    stream = await source.backend.get(bucket, key, query=source.query, headers=source.headers)
    await stream.close()
    return await context.services.reader.attributes(source)  # it has just come into being
