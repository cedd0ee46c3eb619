"""The answer to a copy, as stores write it and as clients read it."""

import pytest

from s4gateway.s3.copying import CopyResult
from s4gateway.s3.errors import S3Error

RESULT = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<CopyObjectResult>'
    b"<LastModified>2025-03-01T00:00:00.000Z</LastModified><ETag>&quot;abc&quot;</ETag>"
    b"<ChecksumType>FULL_OBJECT</ChecksumType><ChecksumCRC32C>4waSgw==</ChecksumCRC32C>"
    b"</CopyObjectResult>"
)


def test_a_result_is_read_with_its_checksum():
    result = CopyResult.parse(RESULT)
    assert result == CopyResult(
        "abc", "2025-03-01T00:00:00.000Z", (("crc32c", "4waSgw=="),), "FULL_OBJECT"
    )
    assert CopyResult.parse(result.serialize()) == result


@pytest.mark.parametrize("before", [b"", b"\n", b" \r\n\t" * 1000])
def test_white_space_that_kept_the_connection_alive_means_nothing(before: bytes):
    assert CopyResult.parse(before + RESULT + before).etag == "abc"
    declaration, rest = RESULT.split(b"\n", 1)
    assert CopyResult.parse(declaration + before + rest).etag == "abc"


@pytest.mark.parametrize("etag", [b"abc", b'"abc"', b"&quot;abc&quot;", b"&#34;abc&#34;"])
def test_the_etag_is_bare_however_it_is_written(etag: bytes):
    document = b"<CopyPartResult><ETag>" + etag + b"</ETag></CopyPartResult>"
    assert CopyResult.parse(document) == CopyResult("abc")


@pytest.mark.parametrize(
    ("code", "status"), [("SlowDown", 503), ("InternalError", 500), ("OfTheirOwn", 500)]
)
def test_an_error_under_200_is_an_error(code: str, status: int):
    document = f"  <Error><Code>{code}</Code><Message>why</Message></Error>".encode()
    with pytest.raises(S3Error) as caught:
        CopyResult.parse(document)
    assert (caught.value.code, caught.value.status, caught.value.message) == (code, status, "why")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"   ",
        b"<CopyObjectResult>",
        b"<CopyObjectResult/>",
        b"<CopyObjectResult><ETag> </ETag></CopyObjectResult>",
        b"<ListBucketResult><ETag>abc</ETag></ListBucketResult>",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><CopyObjectResult><ETag>&b;</ETag></CopyObjectResult>",
    ],
)
def test_what_is_no_result_is_refused(document: bytes):
    with pytest.raises(ValueError, match=r"."):
        CopyResult.parse(document)


def test_the_result_for_clients_quotes_the_etag():
    assert b"<ETag>&quot;abc&quot;</ETag>" in CopyResult("abc").serialize()
