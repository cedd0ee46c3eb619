"""S3Error and the one table from error code to HTTP status and message.

A client decides by the code (retry, give up, refresh its clock), a person by the message, so both
are AWS's own words, and no other file picks a status. Extra XML elements of an error are keyword
fields under their AWS names, extra response headers travel in `headers`.
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from s4gateway.s3.escaping import escape


class Row(NamedTuple):
    """What a code means on the wire: HTTP status and the message when none is given."""

    status: int
    message: str


_INVALID_PART: Final = (
    "One or more of the specified parts could not be found. The part may not have been uploaded, "
    "or the specified entity tag may not match the part's entity tag."
)
_MALFORMED_XML: Final = (
    "The XML you provided was not well-formed or did not validate against our published schema"
)

_TABLE: Final[dict[str, Row]] = {
    # 3xx: answers rather than faults
    "NotModified": Row(304, "Not Modified"),
    "PermanentRedirect": Row(
        301,
        "The bucket you are attempting to access must be addressed using the specified endpoint. "
        "Please send all future requests to this endpoint.",
    ),
    "TemporaryRedirect": Row(
        307, "You are being redirected to the bucket while the Domain Name System (DNS) updates."
    ),
    # who asks
    "AccessDenied": Row(403, "Access Denied"),
    "AccountProblem": Row(403, "There is a problem with your account."),
    "AllAccessDisabled": Row(403, "All access to this object has been disabled"),
    "AuthorizationHeaderMalformed": Row(400, "The authorization header you provided is invalid."),
    "AuthorizationQueryParametersError": Row(
        400,
        "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
        "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
    ),
    "CredentialsNotSupported": Row(400, "This request does not support credentials."),
    "ExpiredToken": Row(400, "The provided token has expired."),
    "InvalidAccessKeyId": Row(
        403, "The AWS Access Key Id you provided does not exist in our records."
    ),
    "InvalidSecurity": Row(403, "The provided security credentials are not valid."),
    "InvalidToken": Row(400, "The provided token is malformed or otherwise invalid."),
    "MissingAuthenticationToken": Row(403, "The request was not signed."),
    "MissingSecurityHeader": Row(400, "Your request was missing a required header"),
    "NotSignedUp": Row(403, "Your account is not signed up for the Amazon S3 service."),
    "RequestTimeTooSkewed": Row(
        403, "The difference between the request time and the current time is too large."
    ),
    "SignatureDoesNotMatch": Row(
        403,
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method.",
    ),
    "TokenRefreshRequired": Row(400, "The provided token must be refreshed."),
    "UnauthorizedAccess": Row(403, "You are not authorized to perform this operation"),
    # the body and its integrity
    "BadDigest": Row(400, "The Content-MD5 you specified did not match what we received."),
    "EntityTooLarge": Row(400, "Your proposed upload exceeds the maximum allowed size"),
    "EntityTooSmall": Row(400, "Your proposed upload is smaller than the minimum allowed size"),
    "IncompleteBody": Row(
        400, "You did not provide the number of bytes specified by the Content-Length HTTP header"
    ),
    "IncorrectNumberOfFilesInPostRequest": Row(
        400, "POST requires exactly one file upload per request."
    ),
    "InvalidChunkSizeError": Row(
        403, "Only the last chunk is allowed to have a size less than 8192 bytes"
    ),
    "InvalidDigest": Row(400, "The Content-MD5 you specified was invalid."),
    "MalformedACLError": Row(400, _MALFORMED_XML),
    "MalformedPOSTRequest": Row(
        400, "The body of your POST request is not well-formed multipart/form-data."
    ),
    "MalformedPolicy": Row(400, "Policies must be valid JSON and the first byte must be '{'"),
    "MalformedTrailerError": Row(
        400, "The request contained trailing data that was not well-formed"
    ),
    "MalformedXML": Row(400, _MALFORMED_XML),
    "MaxMessageLengthExceeded": Row(400, "Your request was too big."),
    "MaxPostPreDataLengthExceededError": Row(
        400, "Your POST request fields preceding the upload file were too large."
    ),
    "MissingContentLength": Row(411, "You must provide the Content-Length HTTP header."),
    "MissingRequestBodyError": Row(400, "Request Body is empty"),
    "RequestBodyLengthMismatch": Row(
        400, "The request body does not have the length it announced."
    ),
    "RequestIsNotMultiPartContent": Row(
        412, "Bucket POST must be of the enclosure-type multipart/form-data."
    ),
    "RequestTimeout": Row(
        400,
        "Your socket connection to the server was not read from or written to within the timeout "
        "period. Idle connections will be closed.",
    ),
    "UnexpectedContent": Row(400, "This request does not support content"),
    "XAmzContentSHA256Mismatch": Row(
        400, "The provided 'x-amz-content-sha256' header does not match what was computed."
    ),
    # what is asked
    "IllegalLocationConstraintException": Row(
        400,
        "The unspecified location constraint is incompatible for the region specific endpoint "
        "this request was sent to.",
    ),
    "IllegalVersioningConfigurationException": Row(
        400, "The versioning configuration specified in the request is invalid."
    ),
    "InvalidArgument": Row(400, "Invalid Argument"),
    "InvalidBucketName": Row(400, "The specified bucket is not valid."),
    "InvalidBucketState": Row(
        409, "The request is not valid with the current state of the bucket."
    ),
    "InvalidEncryptionAlgorithmError": Row(
        400, "The encryption request you specified is not valid. The valid value is AES256."
    ),
    "InvalidLocationConstraint": Row(400, "The specified location-constraint is not valid"),
    "InvalidObjectName": Row(400, "The specified object name is not valid."),
    "InvalidObjectState": Row(403, "The operation is not valid for the object's storage class"),
    "InvalidPart": Row(400, _INVALID_PART),
    "InvalidPartNumber": Row(416, "The requested partnumber is not satisfiable"),
    "InvalidPartOrder": Row(
        400, "The list of parts was not in ascending order. Parts must be ordered by part number."
    ),
    "InvalidPolicyDocument": Row(
        400,
        "The content of the form does not meet the conditions specified in the policy document.",
    ),
    "InvalidRange": Row(416, "The requested range is not satisfiable"),
    "InvalidRequest": Row(400, "Invalid Request"),
    "InvalidStorageClass": Row(400, "The storage class you specified is not valid"),
    "InvalidTag": Row(400, "The tag provided was not a valid tag."),
    "InvalidURI": Row(400, "Couldn't parse the specified URI."),
    "KeyTooLongError": Row(400, "Your key is too long"),
    "MetadataTooLarge": Row(400, "Your metadata headers exceed the maximum allowed metadata size"),
    "MethodNotAllowed": Row(405, "The specified method is not allowed against this resource."),
    "NotImplemented": Row(
        501, "A header you provided implies functionality that is not implemented"
    ),
    "RequestHeaderSectionTooLarge": Row(
        400, "Your request header section exceeds the maximum allowed size."
    ),
    "TooManyBuckets": Row(400, "You have attempted to create more buckets than allowed"),
    "UserKeyMustBeSpecified": Row(400, "The bucket POST must contain the specified field name."),
    # server-side encryption
    "KMS.DisabledException": Row(
        400, "The request was rejected because the specified KMS key is not enabled."
    ),
    "KMS.NotFoundException": Row(400, "The specified KMS key does not exist."),
    "ServerSideEncryptionConfigurationNotFoundError": Row(
        404, "The server side encryption configuration was not found"
    ),
    # what is there
    "BucketAlreadyExists": Row(
        409,
        "The requested bucket name is not available. The bucket namespace is shared by all users "
        "of the system. Please select a different name and try again.",
    ),
    "BucketAlreadyOwnedByYou": Row(
        409, "Your previous request to create the named bucket succeeded and you already own it."
    ),
    "BucketNotEmpty": Row(409, "The bucket you tried to delete is not empty"),
    "ConditionalRequestConflict": Row(
        409,
        "The conditional request cannot succeed due to a conflicting operation against this "
        "resource.",
    ),
    "NoSuchBucket": Row(404, "The specified bucket does not exist"),
    "NoSuchBucketPolicy": Row(404, "The bucket policy does not exist"),
    "NoSuchCORSConfiguration": Row(404, "The CORS configuration does not exist"),
    "NoSuchKey": Row(404, "The specified key does not exist."),
    "NoSuchLifecycleConfiguration": Row(404, "The lifecycle configuration does not exist"),
    "NoSuchObjectLockConfiguration": Row(
        404, "The specified object does not have a ObjectLock configuration"
    ),
    "NoSuchPublicAccessBlockConfiguration": Row(
        404, "The public access block configuration was not found"
    ),
    "NoSuchTagSet": Row(404, "The TagSet does not exist"),
    "NoSuchUpload": Row(
        404,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have "
        "been aborted or completed.",
    ),
    "NoSuchVersion": Row(404, "The specified version does not exist."),
    "NoSuchWebsiteConfiguration": Row(
        404, "The specified bucket does not have a website configuration"
    ),
    "ObjectLockConfigurationNotFoundError": Row(
        404, "Object Lock configuration does not exist for this bucket"
    ),
    "OperationAborted": Row(
        409,
        "A conflicting conditional operation is currently in progress against this resource. "
        "Please try again.",
    ),
    "OwnershipControlsNotFoundError": Row(404, "The bucket ownership controls were not found"),
    "PreconditionFailed": Row(412, "At least one of the pre-conditions you specified did not hold"),
    "ReplicationConfigurationNotFoundError": Row(
        404, "The replication configuration was not found"
    ),
    "RestoreAlreadyInProgress": Row(409, "Object restore is already in progress"),
    # the service itself
    "BandwidthLimitExceeded": Row(503, "Bandwidth limit exceeded"),
    "InternalError": Row(500, "We encountered an internal error. Please try again."),
    "ServiceUnavailable": Row(503, "Service is unable to handle request."),
    "SlowDown": Row(503, "Please reduce your request rate."),
}

TABLE: Final[Mapping[str, Row]] = MappingProxyType(_TABLE)


class S3Error(Exception):
    """A refusal in S3's words; the one exception of this floor.

    `fields` become XML elements under their own names, in the order given. `headers` are response
    headers the refusal needs (Content-Range of a 416, Retry-After of a 503). `status` is given only
    when an answer of the backend is passed on under a code the table does not know; without it such
    a code is a KeyError, for then a name was misspelt here.

    >>> error = S3Error("NoSuchKey", Key="a.txt")
    >>> error.status, error.message
    (404, 'The specified key does not exist.')
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: object,
    ) -> None:
        row = _TABLE[code] if status is None else Row(status, _TABLE.get(code, Row(0, ""))[1])
        self.code = code
        self.status = row.status
        self.message = row.message if message is None else message
        self.headers: Mapping[str, str] = {} if headers is None else headers
        self.fields: Mapping[str, str] = {name: str(value) for name, value in fields.items()}
        super().__init__(code, self.message)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def render(error: S3Error, resource: str, request_id: str, host_id: str) -> bytes:
    """The XML body of an error answer.

    `resource` is the path asked for, as the client sent it; `request_id` and `host_id` are the
    values of the response's own `x-amz-request-id` and `x-amz-id-2`. A HEAD or a 304 carries no
    body: that is the sender's rule, not this document's.
    """
    elements = {"Code": error.code, "Message": error.message, **error.fields}
    elements |= {"Resource": resource, "RequestId": request_id, "HostId": host_id}
    inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in elements.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode(
        "utf-8", "replace"
    )
