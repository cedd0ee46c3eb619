"""Who is asking, and may they: signatures, presigned URLs, anonymous access, a key's own limits.

Rule: nothing is served to a request whose signature was not verified over the target and headers as
they arrived, unless the operator opened a bucket for anonymous reads or leaves anonymous requests
to the backend. Verification comes before the first byte of the body is read.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from s4gateway.gateway.client_keys import ClientKey, ClientKeys
from s4gateway.s3 import post_policy, presigned, sigv4
from s4gateway.s3.addressing import Address
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import RequestHead
from s4gateway.s3.operations import Operation, is_write
from s4gateway.s3.post_form import FormFields
from s4gateway.s3.post_policy import PostPolicy
from s4gateway.values import immutable

MAX_SKEW: Final = timedelta(minutes=15)

_ANONYMOUS_READS: Final = frozenset(
    {
        Operation.GetObject,
        Operation.HeadObject,
        Operation.ListObjects,
        Operation.ListObjectsV2,
        Operation.HeadBucket,
        Operation.GetBucketLocation,
    }
)

_LISTINGS: Final = frozenset(
    {
        Operation.ListObjects,
        Operation.ListObjectsV2,
        Operation.ListObjectVersions,
        Operation.ListMultipartUploads,
    }
)
_VISITS: Final = frozenset({Operation.HeadBucket, Operation.GetBucketLocation})


@immutable
class Caller:
    """Who sent a request; `key` is None for an anonymous one.

    `presigned` says that the signature came in the query. `unsigned` says that the backend is to
    decide about this request, which goes there without a signature.
    """

    key: ClientKey | None
    authenticated: sigv4.Authenticated | None = None
    presigned: bool = False
    unsigned: bool = False

    @property
    def access_key(self) -> str:
        """For logs."""
        return self.key.access_key if self.key is not None else "anonymous"


@dataclass(frozen=True, slots=True)
class AuthRules:
    """The operator's choices about authentication.

    `anonymous_backend`: unsigned requests are forwarded unsigned. `sigv2`: presigned URLs of
    Signature Version 2 are accepted. `region` is the one clients must sign for.
    """

    region: str | None
    sigv2: bool = True
    anonymous_backend: bool = False


def authenticate(
    head: RequestHead,
    address: Address,
    keys: ClientKeys,
    rules: AuthRules,
    now: datetime,
    virtual_bucket: str | None,
) -> Caller:
    """Verify a request's signature; raises S3Error as S3 names each fault.

    Whoever sends a form without a signature of the request counts as anonymous until the form's
    fields have been read and `authenticate_form` has settled it.
    """
    if "authorization" in head.headers:
        authenticated = sigv4.verify_header(
            head, keys.secret_of, now, skew=MAX_SKEW, region=rules.region
        )
        return Caller(keys.lookup(authenticated.access_key), authenticated)
    if head.method == "OPTIONS":  # a browser's preflight, also of a URL signed for another method
        return Caller(None, unsigned=True)
    if head.raw_query and presigned.is_presigned(head.query):
        authenticated = presigned.verify_query(
            head,
            keys.secret_of,
            now,
            region=rules.region,
            sigv2=rules.sigv2,
            virtual_bucket=virtual_bucket,
        )
        return Caller(keys.lookup(authenticated.access_key), authenticated, presigned=True)
    if _is_form(head, address):
        return Caller(None)
    return _anonymous(address, keys, rules)


def _is_form(head: RequestHead, address: Address) -> bool:
    """Whether who sends this may stand in its body.

    A wrong yes lets nobody in: nothing but a form is authorised for an anonymous POST.
    """
    return (
        head.method == "POST"
        and address.bucket is not None
        and address.key is None
        and not head.raw_query
        and head.headers.get("content-type", "").lower().startswith("multipart/form-data")
    )


def _anonymous(address: Address, keys: ClientKeys, rules: AuthRules) -> Caller:
    if address.bucket is not None and keys.is_open(address.bucket):
        return Caller(None)
    if rules.anonymous_backend:
        return Caller(None, unsigned=True)
    raise S3Error("AccessDenied")


def authenticate_form(
    fields: FormFields,
    address: Address,
    sender: Caller,
    keys: ClientKeys,
    rules: AuthRules,
    now: datetime,
) -> tuple[Caller, tuple[int, int] | None]:
    """Find out who answers for a form: the signer of its policy, its sender, or nobody.

    Returns the caller and the sizes the policy allows. Raises S3Error as S3 names each fault.
    """
    assert address.bucket is not None
    if not post_policy.is_signed(fields):
        return (sender if sender.key is not None else _anonymous(address, keys, rules)), None
    if sender.key is not None:
        raise S3Error(
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature "
            "query string parameter or the Authorization header should be specified",
            ArgumentName="Authorization",
        )
    access_key = post_policy.verify_signature(
        fields, keys.secret_of, region=rules.region, sigv2=rules.sigv2
    )
    policy = PostPolicy.parse(fields.require("policy"))
    policy.check(fields, address.bucket, now)
    return Caller(keys.lookup(access_key)), policy.sizes


def authorize(caller: Caller, operation: Operation, address: Address, prefix: str) -> None:
    """Hold a request against the limits of its key; raises AccessDenied.

    `prefix` is that of a listing. A form is authorised as the PutObject it is, when its key and its
    signer have been read.
    """
    if operation is Operation.PostObject:
        return
    key = caller.key
    if key is None:
        if not caller.unsigned and operation not in _ANONYMOUS_READS:
            raise S3Error("AccessDenied")
        return
    if key.read_only and is_write(operation):
        raise S3Error("AccessDenied", "This access key may only read.")
    if not _in_scope(key, operation, address, prefix):
        raise S3Error("AccessDenied", "This access key is limited to other buckets or prefixes.")


def _in_scope(key: ClientKey, operation: Operation, address: Address, prefix: str) -> bool:
    if address.bucket is not None and address.key is None:
        if operation in _LISTINGS:
            return key.may_list(address.bucket, prefix)
        if operation in _VISITS:
            return key.may_see(address.bucket)
    return key.may_reach(address.bucket, address.key)
