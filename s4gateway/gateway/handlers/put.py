"""PutObject: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html."""

from s4gateway.gateway import storing
from s4gateway.gateway.context import Outcome, RequestContext
from s4gateway.s3.errors import S3Error


async def put_object(context: RequestContext) -> Outcome:
    """Store an object."""
    if context.body.length is None and "transfer-encoding" not in context.head.headers:
        raise S3Error("MissingContentLength")
    if "x-amz-write-offset-bytes" in context.headers:
        raise S3Error("NotImplemented", "Appending to an object is not implemented.")
    return await storing.store_object(context, context.body)
