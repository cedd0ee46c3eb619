"""CreateBucket and PutBucketVersioning: passed on, and what was known of the bucket is forgotten.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketVersioning.html
"""

from s4gateway.gateway import forwarding
from s4gateway.gateway.context import Outcome, RequestContext


async def change_bucket(context: RequestContext) -> Outcome:
    """Pass on a request after which writes may mean something else in this bucket."""
    try:
        return await forwarding.forward(context)
    finally:
        context.services.writer.accounts.forget(context.bucket)
