from collections import Counter
from typing import Any

import botocore.loaders
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import operations, query
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers
from s4gateway.s3.operations import Operation

MODEL: dict[str, Any] = botocore.loaders.Loader().load_service_model("s3", "service-2")

# Names the model keeps for forms that have a newer one, or that only the host tells apart.
ALIASES = {
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "ListDirectoryBuckets": "ListBuckets",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
}
OURS = {"PostObject", "PreflightRequest"}

BASE = {
    Operation.GetObject,
    Operation.HeadObject,
    Operation.PutObject,
    Operation.CopyObject,
    Operation.DeleteObject,
    Operation.ListObjects,
    Operation.ListObjectsV2,
    Operation.CreateBucket,
    Operation.DeleteBucket,
    Operation.HeadBucket,
    Operation.PostObject,
    Operation.ListBuckets,
}


def identify(
    method: str, path: str, raw_query: str = "", headers: dict[str, str] | None = None
) -> Operation:
    bucket, _, key = path.removeprefix("/").partition("/")
    return operations.identify(
        method, bool(bucket), bool(key), query.parse_query(raw_query), Headers(headers or {})
    )


def refusal(
    method: str, path: str, raw_query: str = "", headers: dict[str, str] | None = None
) -> S3Error:
    with pytest.raises(S3Error) as caught:
        identify(method, path, raw_query, headers)
    return caught.value


def form_of(name: str) -> tuple[str, str, list[tuple[str, str]], dict[str, str]]:
    """Method, path, query and headers of an operation, as botocore's model has them."""
    model = MODEL["operations"][name]
    path, _, raw_query = model["http"]["requestUri"].partition("?")
    pairs = query.parse_query(raw_query)
    headers = {}
    shape = MODEL["shapes"].get(model.get("input", {}).get("shape"), {})
    for member in shape.get("required", []):
        where = shape["members"][member]
        if where.get("location") == "querystring":
            pairs.append((where["locationName"], "1"))
        elif where.get("location") == "header":
            headers[where["locationName"]] = "x"
    return model["http"]["method"], path, pairs, headers


@pytest.mark.parametrize("name", sorted(MODEL["operations"]))
@pytest.mark.parametrize("noise", ["", "x-id", "presigned"])
def test_every_operation_of_the_sdk_goes_by_its_own_name(name: str, noise: str):
    method, path, pairs, headers = form_of(name)
    if noise == "x-id":
        pairs.insert(0, ("x-id", name))
    elif noise == "presigned":
        pairs += [("X-Amz-Algorithm", "AWS4-HMAC-SHA256"), ("X-Amz-Security-Token", "")]
        pairs += [("X-Amz-Signature", "0"), ("AWSAccessKeyId", "a"), ("Expires", "1")]
    bucket, _, key = path.removeprefix("/").partition("/")
    found = operations.identify(method, bool(bucket), bool(key), pairs, Headers(headers))
    assert found == ALIASES.get(name, name)


def test_every_operation_known_is_one_of_the_sdk_or_ours():
    assert set(Operation) == (set(MODEL["operations"]) - set(ALIASES)) | OURS


def test_every_operation_stands_in_the_table_once():
    rows = Counter(row.operation for row in operations._ROWS)
    assert set(rows) == set(Operation)
    assert set(rows.values()) == {1}


@given(
    st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
    st.sampled_from(["/", "/b", "/b/k"]),
    st.sampled_from(sorted(operations.SUBRESOURCES)),
    st.lists(st.sampled_from(["x-id=1", "versionId=2", "prefix=a", "list-type=2", "partNumber=1"])),
    st.sampled_from([{}, {"x-amz-copy-source": "/b/k"}, {"content-type": "multipart/form-data"}]),
)
def test_a_subresource_never_reaches_a_plain_operation(
    method: str, path: str, name: str, noise: list[str], headers: dict[str, str]
):
    for form in (name, f"{name}=", f"{name}=x"):
        try:
            found = identify(method, path, "&".join([*noise, form]), headers)
        except S3Error as error:
            reached = error.status not in {400, 405}
        else:
            reached = found in BASE
        assert not reached


@pytest.mark.parametrize(
    ("method", "path", "raw_query", "headers", "expected"),
    [
        ("GET", "/b/k", "", {}, "GetObject"),
        ("GET", "/b/k", "versionId=1&partNumber=2&response-content-type=a", {}, "GetObject"),
        ("GET", "/b/k", "whatever", {}, "GetObject"),
        ("GET", "/b/k", "uploadId=u", {}, "ListParts"),
        ("GET", "/b/k", "attributes", {"x-amz-object-attributes": "ETag"}, "GetObjectAttributes"),
        ("HEAD", "/b/k", "partNumber=1", {}, "HeadObject"),
        ("PUT", "/b/k", "", {}, "PutObject"),
        ("PUT", "/b/k", "foo=bar", {}, "PutObject"),
        ("PUT", "/b/k", "x-id=", {}, "PutObject"),
        ("PUT", "/b/k", "&=", {}, "PutObject"),
        ("PUT", "/b/k", "response-expires=", {}, "PutObject"),
        ("PUT", "/b/k", "x-amz-copy-source=%2Fa%2Fb", {}, "CopyObject"),
        ("PUT", "/b/k", "x-id=CopyObject", {"x-amz-copy-source": "/a/b"}, "CopyObject"),
        ("PUT", "/b/k", "partNumber=1&uploadId=u", {}, "UploadPart"),
        ("PUT", "/b/k", "tagging", {"x-amz-copy-source": "/a/b"}, "PutObjectTagging"),
        ("PUT", "/b/k", "acl&acl", {}, "PutObjectAcl"),
        ("DELETE", "/b/k", "versionId=", {}, "DeleteObject"),
        ("DELETE", "/b/k", "uploadId=u", {}, "AbortMultipartUpload"),
        ("POST", "/b/k", "select&select-type=2", {}, "SelectObjectContent"),
        ("GET", "/b", "list-type=2&prefix=a", {}, "ListObjectsV2"),
        ("GET", "/b", "list-type=1", {}, "ListObjects"),
        ("GET", "/b", "prefix=&marker=&delimiter=%2F", {}, "ListObjects"),
        ("GET", "/b", "versions&prefix=a", {}, "ListObjectVersions"),
        ("GET", "/b", "inventory", {}, "ListBucketInventoryConfigurations"),
        ("GET", "/b", "inventory&id=i", {}, "GetBucketInventoryConfiguration"),
        ("HEAD", "/b", "list-type=2", {}, "HeadBucket"),
        ("POST", "/b", "", {"content-type": "Multipart/Form-Data; boundary=x"}, "PostObject"),
        ("OPTIONS", "/b/k", "", {}, "PreflightRequest"),
        ("OPTIONS", "/b", "uploads", {}, "PreflightRequest"),
        ("OPTIONS", "/", "", {}, "PreflightRequest"),
        ("GET", "/", "max-buckets=10", {}, "ListBuckets"),
    ],
)
def test_forms_seen_in_the_wild(
    method: str, path: str, raw_query: str, headers: dict[str, str], expected: str
):
    assert identify(method, path, raw_query, headers) is Operation(expected)


@pytest.mark.parametrize(
    ("method", "path", "raw_query", "code"),
    [
        ("POST", "/b/k", "", "MethodNotAllowed"),
        ("POST", "/", "", "MethodNotAllowed"),
        ("PUT", "/", "", "MethodNotAllowed"),
        ("PATCH", "/b/k", "", "MethodNotAllowed"),
        ("get", "/b/k", "", "MethodNotAllowed"),
        ("POST", "/b/k", "acl", "MethodNotAllowed"),
        ("HEAD", "/b/k", "tagging", "MethodNotAllowed"),
        ("GET", "/", "acl", "MethodNotAllowed"),
        ("DELETE", "/b/k", "acl", "MethodNotAllowed"),
        ("PUT", "/b", "location", "MethodNotAllowed"),
        ("GET", "/b/k", "uploads", "InvalidRequest"),
        ("GET", "/b/k", "versions", "InvalidRequest"),
        ("PUT", "/b/k", "versioning", "InvalidRequest"),
        ("POST", "/b", "uploads", "InvalidRequest"),
        ("GET", "/b", "legal-hold", "InvalidRequest"),
        ("GET", "/b/k", "acl&tagging", "InvalidArgument"),
        ("PUT", "/b/k", "uploadId=u", "InvalidArgument"),
        ("PUT", "/b/k", "partNumber=1", "InvalidArgument"),
        ("PUT", "/b/k", "append", "NotImplemented"),
        ("DELETE", "/b/k", "purge", "NotImplemented"),
        ("POST", "/b/k", "uploads&frobnicate=", "NotImplemented"),
        ("POST", "/b", "", "PreconditionFailed"),
    ],
)
def test_forms_that_are_none_are_refused(method: str, path: str, raw_query: str, code: str):
    assert refusal(method, path, raw_query).code == code


def test_a_refused_method_comes_with_those_allowed():
    error = refusal("PATCH", "/b/k")
    assert error.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PUT"
    assert error.fields == {"Method": "PATCH", "ResourceType": "OBJECT"}
    assert refusal("PATCH", "/b/k", "acl").headers["allow"] == "GET, OPTIONS, PUT"
    assert refusal("DELETE", "/b/k", "acl").fields["ResourceType"] == "ACL"


def test_a_conflict_names_both_subresources():
    assert "acl, tagging" in refusal("GET", "/b/k", "acl&tagging").message


@pytest.mark.parametrize(
    ("operation", "versioned", "action"),
    [
        ("GetObject", False, "s3:GetObject"),
        ("GetObject", True, "s3:GetObjectVersion"),
        ("HeadObject", True, "s3:GetObjectVersion"),
        ("DeleteObject", True, "s3:DeleteObjectVersion"),
        ("RestoreObject", True, "s3:RestoreObject"),
        ("UploadPart", False, "s3:PutObject"),
        ("ListObjectsV2", False, "s3:ListBucket"),
        ("DeleteBucketCors", False, "s3:PutBucketCORS"),
        ("WriteGetObjectResponse", False, "s3-object-lambda:WriteGetObjectResponse"),
        ("PreflightRequest", False, ""),
    ],
)
def test_policies_name_operations_by_their_iam_action(operation: str, versioned: bool, action: str):
    assert operations.iam_action(Operation(operation), versioned=versioned) == action


def test_every_operation_but_the_preflight_has_an_action():
    assert {each for each in Operation if not operations.IAM_ACTION[each]} == {
        Operation.PreflightRequest
    }


def test_an_operation_that_may_change_something_is_a_write():
    reads = {each for each in Operation if not operations.is_write(each)}
    named = {each for each in Operation if each.startswith(("Get", "Head", "List"))}
    assert reads == named | {Operation.SelectObjectContent, Operation.PreflightRequest}
