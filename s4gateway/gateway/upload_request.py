"""What requests about one multipart upload have in common: which it is, and what is passed on."""

from typing import Final

from s4gateway.backend.multipart import Upload
from s4gateway.gateway.context import HeaderPairs, RequestContext
from s4gateway.s3.headers import OF_THE_REQUEST, Headers

CUSTOMER_KEY: Final = "x-amz-server-side-encryption-customer-algorithm"


def upload_of(context: RequestContext) -> Upload:
    """The upload a request is about."""
    return Upload(context.bucket, context.key, context.query["uploadId"])


def passed_on(headers: Headers, *more: str) -> HeaderPairs:
    """Headers of the client that go with every request about an upload."""
    return headers.named((*OF_THE_REQUEST, *more))
