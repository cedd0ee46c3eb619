"""What requests about one multipart upload have in common: which it is, and what is passed on."""

from typing import Final

from s4gateway.backend.multipart import Upload
from s4gateway.gateway.context import HeaderPairs, RequestContext
from s4gateway.s3.headers import Headers

CUSTOMER_KEY: Final = "x-amz-server-side-encryption-customer-algorithm"

_PASSED_ON: Final = ("x-amz-expected-bucket-owner", "x-amz-request-payer")


def upload_of(context: RequestContext) -> Upload:
    """The upload a request is about."""
    return Upload(context.bucket, context.key, context.query["uploadId"])


def passed_on(headers: Headers, *more: str) -> HeaderPairs:
    """Headers of the client that go with every request about an upload."""
    found = [(name, headers.get(name)) for name in (*_PASSED_ON, *more)]
    return [(name, value) for name, value in found if value is not None]
