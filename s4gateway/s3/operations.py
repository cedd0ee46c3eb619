"""Which S3 operation a request is: method, sub-resource and a few headers, nothing else.

One row of the table is one operation, with its IAM action. A sub-resource (`?acl`, `?tagging`, ...)
decides the operation before anything else: whoever asks for one can never reach an object's own
bytes, and a form S3 does not know is refused here. Parameters that are not sub-resources (`x-id`,
`response-*`, signatures) decide nothing.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers

Query = Sequence[tuple[str, str]]


class Level(IntEnum):
    """What an operation acts on."""

    SERVICE = 0
    BUCKET = 1
    OBJECT = 2


class Operation(StrEnum):
    """Every S3 operation under AWS's name.

    PostObject is the browser's form upload, PreflightRequest the OPTIONS of CORS; AWS's API model
    has neither.
    """

    AbortMultipartUpload = "AbortMultipartUpload"
    CompleteMultipartUpload = "CompleteMultipartUpload"
    CopyObject = "CopyObject"
    CreateBucket = "CreateBucket"
    CreateBucketMetadataConfiguration = "CreateBucketMetadataConfiguration"
    CreateBucketMetadataTableConfiguration = "CreateBucketMetadataTableConfiguration"
    CreateMultipartUpload = "CreateMultipartUpload"
    CreateSession = "CreateSession"
    DeleteBucket = "DeleteBucket"
    DeleteBucketAnalyticsConfiguration = "DeleteBucketAnalyticsConfiguration"
    DeleteBucketCors = "DeleteBucketCors"
    DeleteBucketEncryption = "DeleteBucketEncryption"
    DeleteBucketIntelligentTieringConfiguration = "DeleteBucketIntelligentTieringConfiguration"
    DeleteBucketInventoryConfiguration = "DeleteBucketInventoryConfiguration"
    DeleteBucketLifecycle = "DeleteBucketLifecycle"
    DeleteBucketMetadataConfiguration = "DeleteBucketMetadataConfiguration"
    DeleteBucketMetadataTableConfiguration = "DeleteBucketMetadataTableConfiguration"
    DeleteBucketMetricsConfiguration = "DeleteBucketMetricsConfiguration"
    DeleteBucketOwnershipControls = "DeleteBucketOwnershipControls"
    DeleteBucketPolicy = "DeleteBucketPolicy"
    DeleteBucketReplication = "DeleteBucketReplication"
    DeleteBucketTagging = "DeleteBucketTagging"
    DeleteBucketWebsite = "DeleteBucketWebsite"
    DeleteObject = "DeleteObject"
    DeleteObjectAnnotation = "DeleteObjectAnnotation"
    DeleteObjectTagging = "DeleteObjectTagging"
    DeleteObjects = "DeleteObjects"
    DeletePublicAccessBlock = "DeletePublicAccessBlock"
    GetBucketAbac = "GetBucketAbac"
    GetBucketAccelerateConfiguration = "GetBucketAccelerateConfiguration"
    GetBucketAcl = "GetBucketAcl"
    GetBucketAnalyticsConfiguration = "GetBucketAnalyticsConfiguration"
    GetBucketCors = "GetBucketCors"
    GetBucketEncryption = "GetBucketEncryption"
    GetBucketIntelligentTieringConfiguration = "GetBucketIntelligentTieringConfiguration"
    GetBucketInventoryConfiguration = "GetBucketInventoryConfiguration"
    GetBucketLifecycleConfiguration = "GetBucketLifecycleConfiguration"
    GetBucketLocation = "GetBucketLocation"
    GetBucketLogging = "GetBucketLogging"
    GetBucketMetadataConfiguration = "GetBucketMetadataConfiguration"
    GetBucketMetadataTableConfiguration = "GetBucketMetadataTableConfiguration"
    GetBucketMetricsConfiguration = "GetBucketMetricsConfiguration"
    GetBucketNotificationConfiguration = "GetBucketNotificationConfiguration"
    GetBucketOwnershipControls = "GetBucketOwnershipControls"
    GetBucketPolicy = "GetBucketPolicy"
    GetBucketPolicyStatus = "GetBucketPolicyStatus"
    GetBucketReplication = "GetBucketReplication"
    GetBucketRequestPayment = "GetBucketRequestPayment"
    GetBucketTagging = "GetBucketTagging"
    GetBucketVersioning = "GetBucketVersioning"
    GetBucketWebsite = "GetBucketWebsite"
    GetObject = "GetObject"
    GetObjectAcl = "GetObjectAcl"
    GetObjectAnnotation = "GetObjectAnnotation"
    GetObjectAttributes = "GetObjectAttributes"
    GetObjectLegalHold = "GetObjectLegalHold"
    GetObjectLockConfiguration = "GetObjectLockConfiguration"
    GetObjectRetention = "GetObjectRetention"
    GetObjectTagging = "GetObjectTagging"
    GetObjectTorrent = "GetObjectTorrent"
    GetPublicAccessBlock = "GetPublicAccessBlock"
    HeadBucket = "HeadBucket"
    HeadObject = "HeadObject"
    ListBucketAnalyticsConfigurations = "ListBucketAnalyticsConfigurations"
    ListBucketIntelligentTieringConfigurations = "ListBucketIntelligentTieringConfigurations"
    ListBucketInventoryConfigurations = "ListBucketInventoryConfigurations"
    ListBucketMetricsConfigurations = "ListBucketMetricsConfigurations"
    ListBuckets = "ListBuckets"
    ListMultipartUploads = "ListMultipartUploads"
    ListObjectAnnotations = "ListObjectAnnotations"
    ListObjectVersions = "ListObjectVersions"
    ListObjects = "ListObjects"
    ListObjectsV2 = "ListObjectsV2"
    ListParts = "ListParts"
    PostObject = "PostObject"
    PreflightRequest = "PreflightRequest"
    PutBucketAbac = "PutBucketAbac"
    PutBucketAccelerateConfiguration = "PutBucketAccelerateConfiguration"
    PutBucketAcl = "PutBucketAcl"
    PutBucketAnalyticsConfiguration = "PutBucketAnalyticsConfiguration"
    PutBucketCors = "PutBucketCors"
    PutBucketEncryption = "PutBucketEncryption"
    PutBucketIntelligentTieringConfiguration = "PutBucketIntelligentTieringConfiguration"
    PutBucketInventoryConfiguration = "PutBucketInventoryConfiguration"
    PutBucketLifecycleConfiguration = "PutBucketLifecycleConfiguration"
    PutBucketLogging = "PutBucketLogging"
    PutBucketMetricsConfiguration = "PutBucketMetricsConfiguration"
    PutBucketNotificationConfiguration = "PutBucketNotificationConfiguration"
    PutBucketOwnershipControls = "PutBucketOwnershipControls"
    PutBucketPolicy = "PutBucketPolicy"
    PutBucketReplication = "PutBucketReplication"
    PutBucketRequestPayment = "PutBucketRequestPayment"
    PutBucketTagging = "PutBucketTagging"
    PutBucketVersioning = "PutBucketVersioning"
    PutBucketWebsite = "PutBucketWebsite"
    PutObject = "PutObject"
    PutObjectAcl = "PutObjectAcl"
    PutObjectAnnotation = "PutObjectAnnotation"
    PutObjectLegalHold = "PutObjectLegalHold"
    PutObjectLockConfiguration = "PutObjectLockConfiguration"
    PutObjectRetention = "PutObjectRetention"
    PutObjectTagging = "PutObjectTagging"
    PutPublicAccessBlock = "PutPublicAccessBlock"
    RenameObject = "RenameObject"
    RestoreObject = "RestoreObject"
    SelectObjectContent = "SelectObjectContent"
    UpdateBucketMetadataAnnotationTableConfiguration = (
        "UpdateBucketMetadataAnnotationTableConfiguration"
    )
    UpdateBucketMetadataInventoryTableConfiguration = (
        "UpdateBucketMetadataInventoryTableConfiguration"
    )
    UpdateBucketMetadataJournalTableConfiguration = "UpdateBucketMetadataJournalTableConfiguration"
    UpdateObjectEncryption = "UpdateObjectEncryption"
    UploadPart = "UploadPart"
    UploadPartCopy = "UploadPartCopy"
    WriteGetObjectResponse = "WriteGetObjectResponse"

    # Looked up in tables on every request; an Enum's own hash is a function in Python.
    __hash__ = str.__hash__


# Level, method, sub-resource, operation, IAM action ("=": named like the operation; namespace `s3:`
# unless it says otherwise). Operations that share a form are told apart by _REFINED.
_TABLE: Final = """
service GET     -                       ListBuckets                                      ListAllMyBuckets
bucket  DELETE  -                       DeleteBucket                                     =
bucket  GET     -                       ListObjects                                      ListBucket
bucket  GET     -                       ListObjectsV2                                    ListBucket
bucket  HEAD    -                       HeadBucket                                       ListBucket
bucket  POST    -                       PostObject                                       PutObject
bucket  POST    -                       WriteGetObjectResponse                           s3-object-lambda:WriteGetObjectResponse
bucket  PUT     -                       CreateBucket                                     =
bucket  GET     abac                    GetBucketAbac                                    GetBucketABAC
bucket  PUT     abac                    PutBucketAbac                                    PutBucketABAC
bucket  GET     accelerate              GetBucketAccelerateConfiguration                 GetAccelerateConfiguration
bucket  PUT     accelerate              PutBucketAccelerateConfiguration                 PutAccelerateConfiguration
bucket  GET     acl                     GetBucketAcl                                     =
bucket  PUT     acl                     PutBucketAcl                                     =
bucket  DELETE  analytics               DeleteBucketAnalyticsConfiguration               PutAnalyticsConfiguration
bucket  GET     analytics               GetBucketAnalyticsConfiguration                  GetAnalyticsConfiguration
bucket  GET     analytics               ListBucketAnalyticsConfigurations                GetAnalyticsConfiguration
bucket  PUT     analytics               PutBucketAnalyticsConfiguration                  PutAnalyticsConfiguration
bucket  DELETE  cors                    DeleteBucketCors                                 PutBucketCORS
bucket  GET     cors                    GetBucketCors                                    GetBucketCORS
bucket  PUT     cors                    PutBucketCors                                    PutBucketCORS
bucket  POST    delete                  DeleteObjects                                    DeleteObject
bucket  DELETE  encryption              DeleteBucketEncryption                           PutEncryptionConfiguration
bucket  GET     encryption              GetBucketEncryption                              GetEncryptionConfiguration
bucket  PUT     encryption              PutBucketEncryption                              PutEncryptionConfiguration
bucket  DELETE  intelligent-tiering     DeleteBucketIntelligentTieringConfiguration      PutIntelligentTieringConfiguration
bucket  GET     intelligent-tiering     GetBucketIntelligentTieringConfiguration         GetIntelligentTieringConfiguration
bucket  GET     intelligent-tiering     ListBucketIntelligentTieringConfigurations       GetIntelligentTieringConfiguration
bucket  PUT     intelligent-tiering     PutBucketIntelligentTieringConfiguration         PutIntelligentTieringConfiguration
bucket  DELETE  inventory               DeleteBucketInventoryConfiguration               PutInventoryConfiguration
bucket  GET     inventory               GetBucketInventoryConfiguration                  GetInventoryConfiguration
bucket  GET     inventory               ListBucketInventoryConfigurations                GetInventoryConfiguration
bucket  PUT     inventory               PutBucketInventoryConfiguration                  PutInventoryConfiguration
bucket  DELETE  lifecycle               DeleteBucketLifecycle                            PutLifecycleConfiguration
bucket  GET     lifecycle               GetBucketLifecycleConfiguration                  GetLifecycleConfiguration
bucket  PUT     lifecycle               PutBucketLifecycleConfiguration                  PutLifecycleConfiguration
bucket  GET     location                GetBucketLocation                                =
bucket  GET     logging                 GetBucketLogging                                 =
bucket  PUT     logging                 PutBucketLogging                                 =
bucket  PUT     metadataAnnotationTable UpdateBucketMetadataAnnotationTableConfiguration =
bucket  DELETE  metadataConfiguration   DeleteBucketMetadataConfiguration                DeleteBucketMetadataTableConfiguration
bucket  GET     metadataConfiguration   GetBucketMetadataConfiguration                   GetBucketMetadataTableConfiguration
bucket  POST    metadataConfiguration   CreateBucketMetadataConfiguration                CreateBucketMetadataTableConfiguration
bucket  PUT     metadataInventoryTable  UpdateBucketMetadataInventoryTableConfiguration  =
bucket  PUT     metadataJournalTable    UpdateBucketMetadataJournalTableConfiguration    =
bucket  DELETE  metadataTable           DeleteBucketMetadataTableConfiguration           =
bucket  GET     metadataTable           GetBucketMetadataTableConfiguration              =
bucket  POST    metadataTable           CreateBucketMetadataTableConfiguration           =
bucket  DELETE  metrics                 DeleteBucketMetricsConfiguration                 PutMetricsConfiguration
bucket  GET     metrics                 GetBucketMetricsConfiguration                    GetMetricsConfiguration
bucket  GET     metrics                 ListBucketMetricsConfigurations                  GetMetricsConfiguration
bucket  PUT     metrics                 PutBucketMetricsConfiguration                    PutMetricsConfiguration
bucket  GET     notification            GetBucketNotificationConfiguration               GetBucketNotification
bucket  PUT     notification            PutBucketNotificationConfiguration               PutBucketNotification
bucket  GET     object-lock             GetObjectLockConfiguration                       GetBucketObjectLockConfiguration
bucket  PUT     object-lock             PutObjectLockConfiguration                       PutBucketObjectLockConfiguration
bucket  DELETE  ownershipControls       DeleteBucketOwnershipControls                    PutBucketOwnershipControls
bucket  GET     ownershipControls       GetBucketOwnershipControls                       =
bucket  PUT     ownershipControls       PutBucketOwnershipControls                       =
bucket  DELETE  policy                  DeleteBucketPolicy                               =
bucket  GET     policy                  GetBucketPolicy                                  =
bucket  PUT     policy                  PutBucketPolicy                                  =
bucket  GET     policyStatus            GetBucketPolicyStatus                            =
bucket  DELETE  publicAccessBlock       DeletePublicAccessBlock                          PutBucketPublicAccessBlock
bucket  GET     publicAccessBlock       GetPublicAccessBlock                             GetBucketPublicAccessBlock
bucket  PUT     publicAccessBlock       PutPublicAccessBlock                             PutBucketPublicAccessBlock
bucket  DELETE  replication             DeleteBucketReplication                          PutReplicationConfiguration
bucket  GET     replication             GetBucketReplication                             GetReplicationConfiguration
bucket  PUT     replication             PutBucketReplication                             PutReplicationConfiguration
bucket  GET     requestPayment          GetBucketRequestPayment                          =
bucket  PUT     requestPayment          PutBucketRequestPayment                          =
bucket  GET     session                 CreateSession                                    s3express:CreateSession
bucket  DELETE  tagging                 DeleteBucketTagging                              PutBucketTagging
bucket  GET     tagging                 GetBucketTagging                                 =
bucket  PUT     tagging                 PutBucketTagging                                 =
bucket  GET     uploads                 ListMultipartUploads                             ListBucketMultipartUploads
bucket  GET     versioning              GetBucketVersioning                              =
bucket  PUT     versioning              PutBucketVersioning                              =
bucket  GET     versions                ListObjectVersions                               ListBucketVersions
bucket  DELETE  website                 DeleteBucketWebsite                              =
bucket  GET     website                 GetBucketWebsite                                 =
bucket  PUT     website                 PutBucketWebsite                                 =
object  DELETE  -                       DeleteObject                                     =
object  GET     -                       GetObject                                        =
object  HEAD    -                       HeadObject                                       GetObject
object  OPTIONS -                       PreflightRequest                                 -
object  PUT     -                       CopyObject                                       PutObject
object  PUT     -                       PutObject                                        =
object  GET     acl                     GetObjectAcl                                     =
object  PUT     acl                     PutObjectAcl                                     =
object  DELETE  annotation              DeleteObjectAnnotation                           =
object  GET     annotation              GetObjectAnnotation                              =
object  GET     annotation              ListObjectAnnotations                            =
object  PUT     annotation              PutObjectAnnotation                              =
object  GET     attributes              GetObjectAttributes                              =
object  PUT     encryption              UpdateObjectEncryption                           =
object  GET     legal-hold              GetObjectLegalHold                               =
object  PUT     legal-hold              PutObjectLegalHold                               =
object  PUT     renameObject            RenameObject                                     PutObject
object  POST    restore                 RestoreObject                                    =
object  GET     retention               GetObjectRetention                               =
object  PUT     retention               PutObjectRetention                               =
object  POST    select                  SelectObjectContent                              GetObject
object  DELETE  tagging                 DeleteObjectTagging                              =
object  GET     tagging                 GetObjectTagging                                 =
object  PUT     tagging                 PutObjectTagging                                 =
object  GET     torrent                 GetObjectTorrent                                 =
object  DELETE  uploadId                AbortMultipartUpload                             =
object  GET     uploadId                ListParts                                        ListMultipartUploadParts
object  POST    uploadId                CompleteMultipartUpload                          PutObject
object  PUT     uploadId                UploadPart                                       PutObject
object  PUT     uploadId                UploadPartCopy                                   PutObject
object  POST    uploads                 CreateMultipartUpload                            PutObject
"""  # noqa: E501 - one row, one line


class _Row(NamedTuple):
    level: Level
    method: str
    subresource: str
    operation: Operation
    action: str

    @classmethod
    def parse(cls, line: str) -> _Row:
        level, method, subresource, name, action = line.split()
        if action != "-" and ":" not in action:
            action = f"s3:{name if action == '=' else action}"
        return cls(
            Level[level.upper()],
            method,
            subresource.strip("-"),
            Operation(name),
            action.strip("-"),
        )


_ROWS: Final = [_Row.parse(line) for line in _TABLE.strip().splitlines()]

IAM_ACTION: Final[Mapping[Operation, str]] = {row.operation: row.action for row in _ROWS}

_VERSIONED_ACTION: Final = {
    "s3:DeleteObject": "s3:DeleteObjectVersion",
    "s3:DeleteObjectTagging": "s3:DeleteObjectVersionTagging",
    "s3:GetObject": "s3:GetObjectVersion",
    "s3:GetObjectAcl": "s3:GetObjectVersionAcl",
    "s3:GetObjectAttributes": "s3:GetObjectVersionAttributes",
    "s3:GetObjectTagging": "s3:GetObjectVersionTagging",
    "s3:GetObjectTorrent": "s3:GetObjectVersionTorrent",
    "s3:PutObjectAcl": "s3:PutObjectVersionAcl",
    "s3:PutObjectTagging": "s3:PutObjectVersionTagging",
}

_READS: Final = {row.operation for row in _ROWS if row.method in {"GET", "HEAD", "OPTIONS"}} - {
    Operation.CreateSession
} | {Operation.SelectObjectContent}


def iam_action(operation: Operation, *, versioned: bool = False) -> str:
    """The action a policy names for an operation; `versioned` when the request has a versionId.

    >>> iam_action(Operation.HeadObject, versioned=True)
    's3:GetObjectVersion'
    """
    action = IAM_ACTION[operation]
    return _VERSIONED_ACTION.get(action, action) if versioned else action


def is_write(operation: Operation) -> bool:
    """Whether the operation may change anything, or mints credentials that could."""
    return operation not in _READS


SUBRESOURCES: Final = frozenset(row.subresource for row in _ROWS) - {""}

# Not sub-resources even when they come without a value, on requests that change something.
_PARAMETERS: Final = frozenset(
    {"", "awsaccesskeyid", "expires", "partnumber", "select-type", "signature", "versionid", "x-id"}
)
_CHANGING: Final = frozenset({"PUT", "POST", "DELETE"})

Refine = Callable[[Query, Headers], Operation]


def _has(query: Query, wanted: str) -> bool:
    for name, _ in query:  # noqa: SIM110 - a generator costs more than the loop, on every request
        if name == wanted:
            return True
    return False


def _copies(query: Query, headers: Headers) -> bool:
    # Presigned URLs carry headers as parameters of the same name.
    return "x-amz-copy-source" in headers or "x-amz-copy-source" in [
        name.lower() for name, _ in query
    ]


def _no_query_string(parameter: str) -> S3Error:
    return S3Error(
        "InvalidArgument",
        "This operation does not accept a query-string.",
        ArgumentName="ResourceType",
        ArgumentValue=parameter,
    )


def _put_object(query: Query, headers: Headers) -> Operation:
    if query:
        if _has(query, "partNumber"):
            raise _no_query_string("partNumber")
        return Operation.CopyObject if _copies(query, headers) else Operation.PutObject
    return Operation.CopyObject if "x-amz-copy-source" in headers else Operation.PutObject


def _put_part(query: Query, headers: Headers) -> Operation:
    if not _has(query, "partNumber"):
        raise _no_query_string("uploadId")
    return Operation.UploadPartCopy if _copies(query, headers) else Operation.UploadPart


def _list_objects(query: Query, _: Headers) -> Operation:
    return Operation.ListObjectsV2 if ("list-type", "2") in query else Operation.ListObjects


def _post_bucket(_: Query, headers: Headers) -> Operation:
    if "x-amz-request-route" in headers:
        return Operation.WriteGetObjectResponse
    if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise S3Error(
            "PreconditionFailed",
            Condition="Bucket POST must be of the enclosure-type multipart/form-data",
        )
    return Operation.PostObject


def _by_parameter(parameter: str, present: Operation, absent: Operation) -> Refine:
    def refine(query: Query, _: Headers) -> Operation:
        return present if _has(query, parameter) else absent

    return refine


# Forms that several operations share, and what tells them apart.
_REFINED: Final[dict[tuple[str, Level, str], Refine]] = {
    ("PUT", Level.OBJECT, ""): _put_object,
    ("PUT", Level.OBJECT, "uploadId"): _put_part,
    ("GET", Level.BUCKET, ""): _list_objects,
    ("POST", Level.BUCKET, ""): _post_bucket,
    ("GET", Level.OBJECT, "annotation"): _by_parameter(
        "annotationName", Operation.GetObjectAnnotation, Operation.ListObjectAnnotations
    ),
    ("GET", Level.BUCKET, "analytics"): _by_parameter(
        "id",
        Operation.GetBucketAnalyticsConfiguration,
        Operation.ListBucketAnalyticsConfigurations,
    ),
    ("GET", Level.BUCKET, "intelligent-tiering"): _by_parameter(
        "id",
        Operation.GetBucketIntelligentTieringConfiguration,
        Operation.ListBucketIntelligentTieringConfigurations,
    ),
    ("GET", Level.BUCKET, "inventory"): _by_parameter(
        "id",
        Operation.GetBucketInventoryConfiguration,
        Operation.ListBucketInventoryConfigurations,
    ),
    ("GET", Level.BUCKET, "metrics"): _by_parameter(
        "id", Operation.GetBucketMetricsConfiguration, Operation.ListBucketMetricsConfigurations
    ),
}

# The level is a plain int in the keys: it is made anew for each request.
_FORMS: Final[dict[tuple[str, int, str], tuple[Operation, Refine | None]]] = {
    (row.method, int(row.level), row.subresource): (
        row.operation,
        _REFINED.get((row.method, row.level, row.subresource)),
    )
    for row in _ROWS
}


def _subresource(method: str, query: Query) -> str:
    """The one sub-resource a query names; "" for none."""
    found = ""
    for name, value in query:
        if name in SUBRESOURCES:
            if found and name != found:
                raise S3Error(
                    "InvalidArgument",
                    f"Conflicting query string parameters: {found}, {name}",
                    ArgumentName="ResourceType",
                    ArgumentValue=found,
                )
            found = name
        elif not value and method in _CHANGING:
            _refuse_unknown(name)
    return found


def _refuse_unknown(name: str) -> None:
    # A name without a value on a changing request is a sub-resource somebody else has invented;
    # taken for a plain PUT or DELETE it would overwrite or remove the object.
    folded = name.lower()
    if folded not in _PARAMETERS and not folded.startswith(("x-amz-", "response-")):
        raise S3Error(
            "NotImplemented",
            "A query parameter you provided implies functionality that is not implemented",
            Parameter=name,
        )


def _refusal(method: str, level: int, subresource: str) -> S3Error:
    if subresource and level == Level.OBJECT and (method, 1, subresource) in _FORMS:
        return S3Error(
            "InvalidRequest",
            f"Key is not expected for the {method} method ?{subresource} subresource",
        )
    if subresource and level == Level.BUCKET and (method, 2, subresource) in _FORMS:
        return S3Error("InvalidRequest", "A key must be specified")
    allowed = {"OPTIONS"} | {form[0] for form in _FORMS if form[1:] == (level, subresource)}
    return S3Error(
        "MethodNotAllowed",
        headers={"allow": ", ".join(sorted(allowed))},
        Method=method,
        ResourceType=(subresource or Level(level).name).upper(),
    )


def identify(
    method: str, has_bucket: bool, has_key: bool, query: Query, headers: Headers
) -> Operation:
    """The operation a request asks for.

    `query` is decoded. Raises MethodNotAllowed, NotImplemented, InvalidRequest, InvalidArgument or
    PreconditionFailed for forms that are none, as AWS does.

    >>> identify("PUT", True, True, [("tagging", "")], Headers())
    <Operation.PutObjectTagging: 'PutObjectTagging'>
    """
    level = 2 if has_key else 1 if has_bucket else 0
    if method == "OPTIONS":
        return Operation.PreflightRequest  # browsers ask about every form
    subresource = _subresource(method, query) if query else ""
    form = _FORMS.get((method, level, subresource))
    if form is None:
        raise _refusal(method, level, subresource)
    operation, refine = form
    return operation if refine is None else refine(query, headers)
