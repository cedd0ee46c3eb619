import ast
import http
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import s4gateway
from s4gateway.s3 import errors
from s4gateway.s3.errors import S3Error

SOURCES = Path(s4gateway.__file__).parent

# Status by code as AWS documents it; the rows a client's behaviour hangs on.
AWS_STATUS = {
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "AuthorizationQueryParametersError": 400,
    "BadDigest": 400,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "ConditionalRequestConflict": 409,
    "EntityTooLarge": 400,
    "IncompleteBody": 400,
    "InternalError": 500,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "InvalidBucketName": 400,
    "InvalidDigest": 400,
    "InvalidObjectName": 400,
    "InvalidObjectState": 403,
    "InvalidPart": 400,
    "InvalidPartNumber": 416,
    "InvalidRange": 416,
    "InvalidRequest": 400,
    "InvalidURI": 400,
    "KeyTooLongError": 400,
    "MalformedTrailerError": 400,
    "MalformedXML": 400,
    "MetadataTooLarge": 400,
    "MethodNotAllowed": 405,
    "MissingContentLength": 411,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "NoSuchVersion": 404,
    "NotImplemented": 501,
    "NotModified": 304,
    "PreconditionFailed": 412,
    "RequestBodyLengthMismatch": 400,
    "RequestTimeTooSkewed": 403,
    "RequestTimeout": 400,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 503,
    "XAmzContentSHA256Mismatch": 400,
}


def codes_raised() -> set[str]:
    """Every code given as a literal to S3Error anywhere in the package, without a status."""
    found = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).split(".")[-1] == "S3Error"
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and not any(keyword.arg == "status" for keyword in node.keywords)
            ):
                found.add(node.args[0].value)
    return found


def test_codes_have_the_status_of_aws():
    assert {code: errors.TABLE[code].status for code in AWS_STATUS} == AWS_STATUS


def test_every_row_is_a_status_of_http_and_a_sentence():
    for code, row in errors.TABLE.items():
        assert http.HTTPStatus(row.status) >= 300, code
        assert row.message.strip() == row.message != "", code


def test_every_code_the_package_raises_stands_in_the_table():
    raised = codes_raised()
    assert "InvalidRange" in raised
    assert raised <= set(errors.TABLE)


def test_an_error_says_what_the_table_says():
    error = S3Error("NoSuchKey", Key="a")
    assert (error.code, error.status) == ("NoSuchKey", 404)
    assert error.message == "The specified key does not exist."
    assert (dict(error.fields), dict(error.headers)) == ({"Key": "a"}, {})
    assert str(error) == "NoSuchKey: The specified key does not exist."


def test_a_message_and_headers_of_ones_own():
    error = S3Error("SlowDown", "Later.", headers={"retry-after": "1"})
    assert (error.message, dict(error.headers)) == ("Later.", {"retry-after": "1"})


def test_a_misspelt_code_is_loud():
    with pytest.raises(KeyError):
        S3Error("NoSuchKye")


def test_a_backends_own_code_is_passed_on_with_its_status():
    assert S3Error("XMinioStorageFull", "Full.", status=507).status == 507
    assert S3Error("XMinioStorageFull", status=507).message == ""
    assert S3Error("NoSuchKey", status=410).message == "The specified key does not exist."


def test_an_error_document_names_what_a_support_case_needs():
    error = S3Error("InvalidRange", RangeRequested="bytes=9-", ActualObjectSize=3)
    document = errors.render(error, "/b/a b&c\x01", "REQ", "HOST")
    assert document.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<Error>')
    assert b"<Resource>/b/a b&amp;c&#x1;</Resource>" in document
    root = ET.fromstring(re.sub(b"&#x1;", b"", document))  # noqa: S314
    assert [child.tag for child in root] == [
        "Code",
        "Message",
        "RangeRequested",
        "ActualObjectSize",
        "Resource",
        "RequestId",
        "HostId",
    ]
    assert root.findtext("ActualObjectSize") == "3"
    assert (root.findtext("RequestId"), root.findtext("HostId")) == ("REQ", "HOST")


def test_a_lone_surrogate_does_not_keep_an_error_from_being_sent():
    assert b"<Resource>?</Resource>" in errors.render(S3Error("NoSuchKey"), "\udcff", "", "")
