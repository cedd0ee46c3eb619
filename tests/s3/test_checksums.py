import base64
import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3.checksums import ALGORITHMS, Declared, Digests
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers

BODY = b"123456789"
# Check values of the CRC catalogue and the hashes of the same nine bytes.
KNOWN = {
    "crc32": "cbf43926",
    "crc32c": "e3069283",
    "crc64nvme": "ae8b14860a799888",
    "md5": "25f9e794323b453885f5181f1b624d0b",
    "sha1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    "sha256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    "sha512": hashlib.sha512(BODY).hexdigest(),
}


def b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def known(algorithm: str) -> str:
    return b64(bytes.fromhex(KNOWN[algorithm]))


def parse(**headers: str) -> Declared:
    return Declared.parse(Headers({name.replace("_", "-"): v for name, v in headers.items()}))


def refused(code: str, **headers: str) -> S3Error:
    with pytest.raises(S3Error) as caught:
        parse(**headers)
    assert caught.value.code == code
    return caught.value


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_gives_its_published_value(algorithm: str):
    digests = Digests([algorithm])
    digests.update(BODY)
    assert digests[algorithm].hex() == KNOWN[algorithm]
    assert len(digests[algorithm]) == ALGORITHMS[algorithm]


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_digests_do_not_depend_on_how_the_body_is_cut(pieces: list[bytes]):
    whole = b"".join(pieces)
    once, cut = Digests(ALGORITHMS), Digests(ALGORITHMS)
    once.update(whole)
    for index, piece in enumerate(pieces):
        cut.update([bytes, bytearray, memoryview][index % 3](piece))
    assert [once[name] for name in ALGORITHMS] == [cut[name] for name in ALGORITHMS]
    assert cut.size == len(whole)
    assert cut.crc("crc32") == zlib.crc32(whole)


def test_only_what_was_asked_for_is_computed():
    digests = Digests(["crc32c", "crc32c", "md5"])
    assert "crc32c" in digests
    assert "md5" in digests
    assert "sha256" not in digests
    with pytest.raises(KeyError):
        digests["sha256"]


def test_an_algorithm_nobody_knows_is_a_programming_error():
    with pytest.raises(KeyError):
        Digests(["xxhash3"])


def test_nothing_declared_needs_nothing():
    declared = parse(content_type="text/plain", x_amz_content_sha256="UNSIGNED-PAYLOAD")
    assert declared == Declared()
    assert declared.algorithms == ()
    assert declared.verify({}, {}) == {}


def test_headers_of_the_prefix_without_a_value_are_no_checksum():
    declared = parse(
        x_amz_checksum_mode="ENABLED", x_amz_checksum_algorithm="X", x_amz_checksum_type="Y"
    )
    assert declared == Declared()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_right_checksum_passes_and_is_returned(algorithm: str):
    declared = parse(**{f"x_amz_checksum_{algorithm}": known(algorithm)})
    assert declared.algorithms == (algorithm,)
    digests = Digests(declared.algorithms)
    digests.update(BODY)
    assert declared.verify(digests, {}) == {algorithm: known(algorithm)}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_wrong_checksum_is_a_bad_digest(algorithm: str):
    declared = parse(**{f"x_amz_checksum_{algorithm}": b64(bytes(ALGORITHMS[algorithm]))})
    digests = Digests(declared.algorithms)
    digests.update(BODY)
    with pytest.raises(S3Error) as caught:
        declared.verify(digests, {})
    assert caught.value.code == "BadDigest"
    assert caught.value.message == (
        f"The {algorithm.upper()} you specified did not match the calculated checksum."
    )


def test_everything_declared_is_computed_once():
    declared = parse(
        content_md5=known("md5"),
        x_amz_content_sha256=KNOWN["sha256"].upper(),
        x_amz_checksum_sha256=known("sha256"),
        x_amz_sdk_checksum_algorithm="SHA256",
    )
    assert sorted(declared.algorithms) == ["md5", "sha256"]
    digests = Digests(declared.algorithms)
    digests.update(BODY)
    assert declared.verify(digests, {}) == {"sha256": known("sha256")}


def test_a_wrong_content_md5_is_a_bad_digest_that_tells_both():
    declared = parse(content_md5=b64(bytes(16)))
    with pytest.raises(S3Error) as caught:
        declared.verify({"md5": bytes.fromhex(KNOWN["md5"])}, {})
    assert caught.value.code == "BadDigest"
    assert caught.value.fields["CalculatedDigest"] == known("md5")
    assert caught.value.fields["ExpectedDigest"] == b64(bytes(16))


def test_a_wrong_payload_hash_is_told_apart():
    declared = parse(x_amz_content_sha256="0" * 64)
    assert declared.algorithms == ("sha256",)
    with pytest.raises(S3Error) as caught:
        declared.verify({"sha256": bytes.fromhex(KNOWN["sha256"])}, {})
    assert caught.value.code == "XAmzContentSHA256Mismatch"
    assert caught.value.fields["S3ComputedContentSHA256"] == KNOWN["sha256"]


@pytest.mark.parametrize(
    "value", ["", "rL0Y20xC", "YWJyYWNhZGFicmE=", "not base64", "=" * 24, "é" * 24, "A" * 22 + "=A"]
)
def test_a_malformed_content_md5_is_an_invalid_digest(value: str):
    refused("InvalidDigest", content_md5=value)


@pytest.mark.parametrize("value", ["", "AAAA", "AAAAAA", "AAAAAA==AAAA", "!AAAAA==", "AAAAAA==\n="])
def test_a_malformed_checksum_is_a_bad_digest(value: str):
    error = refused("BadDigest", x_amz_checksum_crc32=value)
    assert error.message == "Value for x-amz-checksum-crc32 header is invalid."


def test_an_unknown_algorithm_is_refused_not_ignored():
    refused("InvalidRequest", x_amz_checksum_xxhash3="AAAAAAAAAAA=")


def test_two_checksums_are_refused():
    refused(
        "InvalidRequest",
        x_amz_checksum_crc32=known("crc32"),
        x_amz_checksum_sha1=known("sha1"),
    )
    refused(
        "InvalidRequest",
        x_amz_checksum_crc32=known("crc32"),
        x_amz_trailer="x-amz-checksum-crc32",
    )
    refused("InvalidRequest", x_amz_trailer="x-amz-checksum-crc32,x-amz-checksum-sha1")


@pytest.mark.parametrize("value", ["etag", "crc32", "x-amz-checksum-xxhash3", "x-amz-checksum-"])
def test_a_trailer_that_is_no_checksum_is_refused(value: str):
    refused("InvalidRequest", x_amz_trailer=value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_trailer_is_verified(algorithm: str):
    declared = parse(x_amz_trailer=f" X-Amz-Checksum-{algorithm},")
    name = f"x-amz-checksum-{algorithm}"
    assert declared.trailers == (name,)
    assert declared.algorithms == (algorithm,)
    digests = Digests(declared.algorithms)
    digests.update(BODY)
    assert declared.verify(digests, {name: known(algorithm)}) == {algorithm: known(algorithm)}
    for trailers, code in (
        ({}, "BadDigest"),
        ({name: b64(bytes(ALGORITHMS[algorithm]))}, "BadDigest"),
        ({name: "?"}, "BadDigest"),
    ):
        with pytest.raises(S3Error) as caught:
            declared.verify(digests, trailers)
        assert caught.value.code == code
    assert caught.value.message == f"Value for {name} trailing header is invalid."


def test_an_empty_trailer_header_announces_nothing():
    assert parse(x_amz_trailer="").trailers == ()


def test_the_algorithm_an_sdk_names_must_be_the_one_it_sent():
    sdk = "x_amz_sdk_checksum_algorithm"
    crc32 = {"x_amz_checksum_crc32": known("crc32")}
    assert parse(**{sdk: "crc32"}, **crc32).checksum is not None
    assert parse(**{sdk: ""}, **crc32).checksum is not None
    assert parse(**{sdk: "CRC32"}, x_amz_trailer="x-amz-checksum-crc32").trailers
    refused("InvalidRequest", **{sdk: "SHA1"}, **crc32)
    refused("InvalidRequest", **{sdk: "SHA1"}, x_amz_trailer="x-amz-checksum-crc32")
    refused("InvalidRequest", **{sdk: "CRC32"})


@pytest.mark.parametrize("value", ["0" * 63, "0" * 65, "g" * 64, "0 " * 32])
def test_a_payload_hash_that_is_none_declares_nothing(value: str):
    assert parse(x_amz_content_sha256=value).payload_sha256 is None
