"""HMAC-SHA-256, against the standard library and RFC 4231."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3.keyed_hash import hmac_sha256


@given(st.binary(max_size=64), st.binary(max_size=300))
def test_codes_are_those_of_the_standard_library(key: bytes, text: bytes):
    assert hmac_sha256(key, text) == hmac.new(key, text, hashlib.sha256).hexdigest()


def test_a_key_serves_many_texts():
    codes = [hmac_sha256(b"key", text) for text in (b"one", b"two", b"one")]
    assert codes[0] == codes[2] != codes[1]


def test_the_published_code():  # RFC 4231, test case 2
    code = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert hmac_sha256(b"Jefe", b"what do ya want for nothing?") == code


def test_a_key_longer_than_a_block_is_refused():
    with pytest.raises(ValueError, match="65 bytes"):
        hmac_sha256(bytes(65), b"")
