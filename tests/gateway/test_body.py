"""Request bodies: what the framing around a payload is taken to be."""

from collections.abc import MutableMapping
from typing import Any

import pytest

from s4gateway.gateway.body import RequestBody
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers

FRAMED = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
CHUNKED = {
    "transfer-encoding": "chunked",
    "content-encoding": "aws-chunked",
    "x-amz-decoded-content-length": "5",
    "x-amz-trailer": "x-amz-checksum-crc32",
}


def anonymous(headers: dict[str, str], body: bytes) -> RequestBody:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop()

    return RequestBody(receive, Headers(headers), None, 1000)


async def test_a_framed_body_of_an_anonymous_request_is_unframed_and_verified():
    mode = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}
    assert await anonymous(CHUNKED | mode, FRAMED).read() == b"hello"
    with pytest.raises(S3Error) as caught:
        await anonymous(CHUNKED | mode, FRAMED.replace(b"hello", b"hallo")).read()
    assert caught.value.code == "BadDigest"


def test_chunk_signatures_without_a_signature_to_continue_are_refused():
    mode = {"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"}
    with pytest.raises(S3Error) as caught:
        anonymous(CHUNKED | mode, FRAMED)
    assert caught.value.code == "InvalidRequest"


async def test_an_anonymous_body_without_a_declaration_is_taken_as_it_is():
    assert await anonymous({"content-length": "5"}, b"hello").read() == b"hello"
