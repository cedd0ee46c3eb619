"""Operation -> handler, one table; what is not in it is forwarded.

Rule: an operation that would corrupt data if it were merely forwarded is refused by name. Adding an
operation means one line here, a handler, an end-to-end test and a row in s3-compatibility.md.
"""

from typing import Final

from s4gateway.gateway import forwarding
from s4gateway.gateway.context import Handler, Outcome, RequestContext
from s4gateway.gateway.handlers import (
    attributes,
    buckets,
    complete,
    copy,
    delete,
    delete_many,
    get,
    head,
    listing,
    multipart,
    part,
    post,
    put,
)
from s4gateway.s3.errors import S3Error
from s4gateway.s3.operations import Operation

# The stored bytes are not the client's bytes: passing these on would plant unframed parts inside
# framed objects, drop the manifest of copies, or run a query over compressed data.
REFUSED: Final = frozenset(
    {
        Operation.SelectObjectContent,
        Operation.GetObjectTorrent,
        Operation.RenameObject,
        Operation.WriteGetObjectResponse,
    }
)


async def _refuse(context: RequestContext) -> Outcome:
    raise S3Error(
        "NotImplemented",
        f"{context.operation} is not implemented by this gateway: passing it on would damage or "
        "misreport compressed objects.",
    )


ROUTES: Final[dict[Operation, Handler]] = {
    Operation.PutObject: put.put_object,
    Operation.CreateMultipartUpload: multipart.create_multipart_upload,
    Operation.UploadPart: part.upload_part,
    Operation.UploadPartCopy: part.upload_part_copy,
    Operation.ListParts: multipart.list_parts,
    Operation.ListMultipartUploads: multipart.list_multipart_uploads,
    Operation.CompleteMultipartUpload: complete.complete_multipart_upload,
    Operation.AbortMultipartUpload: multipart.abort_multipart_upload,
    Operation.PostObject: post.post_object,
    Operation.CopyObject: copy.copy_object,
    Operation.GetObject: get.get_object,
    Operation.HeadObject: head.head_object,
    Operation.GetObjectAttributes: attributes.get_object_attributes,
    Operation.DeleteObject: delete.delete_object,
    Operation.DeleteObjects: delete_many.delete_objects,
    Operation.CreateBucket: buckets.change_bucket,
    Operation.DeleteBucket: delete.delete_bucket,
    Operation.PutBucketVersioning: buckets.change_bucket,
    Operation.ListObjects: listing.list_objects,
    Operation.ListObjectsV2: listing.list_objects,
    Operation.ListObjectVersions: listing.list_versions,
    **dict.fromkeys(REFUSED, _refuse),
}


def handler_for(operation: Operation) -> Handler:
    """Return the handler of an operation."""
    return ROUTES.get(operation, forwarding.forward)
