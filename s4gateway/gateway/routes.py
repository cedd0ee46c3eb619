"""Operation -> handler, one table; what is not in it is forwarded.

Rule: an operation that would corrupt data if it were merely forwarded is refused by name. Adding an
operation means one line here, a handler, an end-to-end test and a row in s3-compatibility.md.
"""

from typing import Final

from s4gateway.gateway.context import Handler, Outcome, RequestContext
from s4gateway.gateway.handlers import delete, forward, get, head, listing, put
from s4gateway.s3.errors import S3Error
from s4gateway.s3.operations import Operation

# The stored bytes are not the client's bytes: passing these on would plant unframed parts inside
# framed objects, drop the manifest of copies, or run a query over compressed data.
REFUSED: Final = frozenset(
    {
        Operation.CreateMultipartUpload,
        Operation.UploadPart,
        Operation.UploadPartCopy,
        Operation.CompleteMultipartUpload,
        Operation.CopyObject,
        Operation.PostObject,
        Operation.SelectObjectContent,
        Operation.GetObjectAttributes,
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
    Operation.GetObject: get.get_object,
    Operation.HeadObject: head.head_object,
    Operation.DeleteObject: delete.delete_object,
    Operation.DeleteObjects: delete.delete_objects,
    Operation.DeleteBucket: delete.delete_bucket,
    Operation.ListObjects: listing.list_objects,
    Operation.ListObjectsV2: listing.list_objects,
    Operation.ListObjectVersions: listing.list_versions,
    **dict.fromkeys(REFUSED, _refuse),
}


def handler_for(operation: Operation) -> Handler:
    """Return the handler of an operation."""
    return ROUTES.get(operation, forward.forward)
