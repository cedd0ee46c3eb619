"""The list of parts of CompleteMultipartUpload, and what the whole is called."""

import base64
import hashlib
import zlib

import pytest
from awscrt import checksums as crt
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import completion, etag, xml
from s4gateway.s3.completion import (
    COMPOSITE,
    FULL_OBJECT,
    Assembled,
    DeclaredWhole,
    ListedPart,
    parse_parts,
    parse_result,
)
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def document(*parts: str) -> bytes:
    inner = "".join(f"<Part>{part}</Part>" for part in parts)
    return f"<CompleteMultipartUpload {NAMESPACE}>{inner}</CompleteMultipartUpload>".encode()


def part(number: object, tag: str = "abc") -> str:
    return f"<PartNumber>{number}</PartNumber><ETag>{tag}</ETag>"


def refusal(data: bytes) -> str:
    with pytest.raises(S3Error) as caught:
        parse_parts(data)
    return caught.value.code


@pytest.mark.parametrize("tag", ['"abc"', "&quot;abc&quot;", "abc", " &#34;abc&#34;\n"])
def test_an_etag_may_be_quoted_or_not(tag: str):
    assert parse_parts(document(part(1, tag))) == (ListedPart(1, "abc"),)


def test_checksums_of_parts_are_kept_by_algorithm():
    text = "<ChecksumCRC32C>AAAAAA==</ChecksumCRC32C><ChecksumSHA256> b </ChecksumSHA256>"
    [found] = parse_parts(document(part(1) + text))
    assert found.checksums == (("crc32c", "AAAAAA=="), ("sha256", "b"))


def test_what_else_a_part_may_say_is_passed_over():
    [found] = parse_parts(document(part(1) + "<Size>5</Size>"))
    assert found == ListedPart(1, "abc")


def test_ten_thousand_parts_are_taken_and_not_one_more():
    most = [part(number) for number in range(1, 10_001)]
    assert len(parse_parts(document(*most))) == 10_000
    assert refusal(document(*most, part(10_001))) == "MalformedXML"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<CompleteMultipartUpload/>",
        b"<CompleteMultipartUpload><Part></CompleteMultipartUpload>",
        document().replace(b"CompleteMultipartUpload", b"Delete"),
        document("<ETag>abc</ETag>"),
        document("<PartNumber>1</PartNumber>"),
        document(part(1, "")),
        document(part("one")),
        document(part("-1")),
        document(part("1.0")),
        document(part("\N{ARABIC-INDIC DIGIT ONE}")),
        document(part(1) + "<ChecksumROT13>x</ChecksumROT13>"),
        b'<!DOCTYPE a [<!ENTITY b "c">]>' + document(part(1)),
    ],
)
def test_what_is_no_list_of_parts_is_malformed(data: bytes):
    assert refusal(data) == "MalformedXML"


@pytest.mark.parametrize("number", ["0", "10001", "999999999999999999999999"])
def test_a_number_no_part_can_have_is_an_invalid_part(number: str):
    assert refusal(document(part(number))) == "InvalidPart"


@pytest.mark.parametrize("numbers", [(2, 1), (1, 2, 1), (1, 3, 2)])
def test_parts_must_ascend(numbers: tuple[int, ...]):
    assert refusal(document(*map(part, numbers))) == "InvalidPartOrder"


def test_of_a_part_that_is_listed_twice_the_last_mention_counts():
    found = parse_parts(document(part(1), part(2, "b" * 32), part(2, "c" * 32), part(3)))
    assert [each.number for each in found] == [1, 2, 3]
    assert found[1].etag == "c" * 32


@given(st.lists(st.tuples(st.integers(1, 10_000), st.from_regex("[0-9a-f]{32}", fullmatch=True))))
def test_what_is_sent_to_a_store_is_read_as_it_was_meant(pairs: list[tuple[int, str]]):
    wanted = sorted(dict(pairs).items())
    if wanted:
        found = parse_parts(completion.parts_document(wanted))
        assert [(each.number, each.etag) for each in found] == wanted


def test_a_manifest_is_told_from_every_other():
    def digest(*parts: tuple[int, str]) -> str:
        return completion.manifest_digest(ListedPart(*each) for each in parts)

    assert digest((1, "a"), (2, "b")) == digest((1, "a"), (2, "b"))
    others = [digest((1, "a")), digest((1, "a"), (3, "b")), digest((1, "b"), (2, "a")), digest()]
    assert len({digest((1, "a"), (2, "b")), *others}) == 5


# --- checksums

CRCS = {
    "crc32": (zlib.crc32, 4),
    "crc32c": (crt.crc32c, 4),
    "crc64nvme": (crt.crc64nvme, 8),
}


def crc(algorithm: str, data: bytes) -> str:
    function, length = CRCS[algorithm]
    return base64.b64encode(function(data).to_bytes(length, "big")).decode()


@pytest.mark.parametrize("algorithm", sorted(CRCS))
@given(pieces=st.lists(st.binary(max_size=300), min_size=1, max_size=6))
def test_the_crc_of_the_whole_follows_from_those_of_the_parts(algorithm: str, pieces: list[bytes]):
    parts = [(crc(algorithm, piece), len(piece)) for piece in pieces]
    assert completion.combined_checksum(algorithm, parts) == crc(algorithm, b"".join(pieces))


def test_the_crc_of_parts_beyond_four_gigabytes_is_combined():
    zeros = bytes(2**20)
    whole = 0
    for _ in range(2):
        whole = zlib.crc32(zeros, whole)
    parts = [(crc("crc32", zeros), len(zeros))] * 2
    assert (
        completion.combined_checksum("crc32", parts)
        == base64.b64encode(whole.to_bytes(4, "big")).decode()
    )
    assert completion.combined_checksum("crc64nvme", [("AAAAAAAAAAA=", 2**40)] * 3)


def test_a_composite_checksum_digests_the_digests_and_counts_them():
    digests = [hashlib.sha256(data).digest() for data in (b"one", b"two")]
    whole = base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode()
    values = [base64.b64encode(each).decode() for each in digests]
    assert completion.composite_checksum("sha256", values) == f"{whole}-2"


@pytest.mark.parametrize("value", ["no base64!", "AAAA AAAA"])
def test_a_checksum_that_is_no_base64_is_refused(value: str):
    with pytest.raises(ValueError, match="no base64"):
        completion.combined_checksum("crc32", [(value, 1)])
    with pytest.raises(ValueError, match="no base64"):
        completion.composite_checksum("crc32", [value])


def test_the_type_is_composite_but_for_the_crc_that_has_no_other():
    assert completion.default_type("crc64nvme") == FULL_OBJECT
    assert {completion.default_type(name) for name in ("crc32", "crc32c", "sha1")} == {COMPOSITE}


# --- what the headers say of the whole


def declared(**headers: str) -> DeclaredWhole:
    return DeclaredWhole.parse(
        Headers({name.replace("_", "-"): value for name, value in headers.items()})
    )


WHOLE = ("sha256", "value-2", COMPOSITE)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_amz_checksum_sha256": "value-2"},
        {"x_amz_checksum_sha256": "value"},
        {"x_amz_checksum_type": COMPOSITE, "x_amz_mp_object_size": "7"},
        {"x_amz_checksum_algorithm": "SHA256", "content_length": "9"},
    ],
)
def test_what_agrees_is_accepted(headers: dict[str, str]):
    declared(**headers).verify(WHOLE, 7)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x_amz_checksum_sha256": "bad"}, "BadDigest"),
        ({"x_amz_checksum_sha256": "value-3"}, "BadDigest"),
        ({"x_amz_checksum_crc32": "AAAAAA=="}, "InvalidRequest"),
        ({"x_amz_checksum_type": FULL_OBJECT}, "InvalidRequest"),
        ({"x_amz_mp_object_size": "8"}, "InvalidRequest"),
    ],
)
def test_what_does_not_agree_is_refused(headers: dict[str, str], code: str):
    with pytest.raises(S3Error) as caught:
        declared(**headers).verify(WHOLE, 7)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "headers",
    [
        {"x_amz_checksum_sha256": "a", "x_amz_checksum_crc32": "b"},
        {"x_amz_checksum_rot13": "a"},
        {"x_amz_checksum_type": "SOMETIMES"},
        {"x_amz_mp_object_size": "-1"},
        {"x_amz_mp_object_size": "9" * 20},
    ],
)
def test_headers_that_say_nothing_sensible_are_refused(headers: dict[str, str]):
    with pytest.raises(S3Error) as caught:
        declared(**headers)
    assert caught.value.code == "InvalidRequest"


def test_a_checksum_nobody_can_compare_is_refused():
    with pytest.raises(S3Error) as caught:
        declared(x_amz_checksum_crc32="AAAAAA==").verify(None, 0)
    assert caught.value.code == "InvalidRequest"
    declared().verify(None, 0)


# --- results


def test_the_result_names_the_object_its_etag_and_its_checksum():
    found = Assembled("http://h/b/k", "b", 'k"&<', "abc-2", ("crc64nvme", "AA==", FULL_OBJECT))
    root = xml.parse(found.serialize())
    assert root.tag == "CompleteMultipartUploadResult"
    assert [(each.tag, each.text) for each in root] == [
        ("Location", "http://h/b/k"),
        ("Bucket", "b"),
        ("Key", 'k"&<'),
        ("ETag", '"abc-2"'),
        ("ChecksumCRC64NVME", "AA=="),
        ("ChecksumType", FULL_OBJECT),
    ]
    assert parse_result(found.serialize()) == "abc-2"


def test_a_result_without_a_checksum_has_none():
    root = xml.parse(Assembled("l", "b", "k", "abc-2").serialize())
    assert [each.tag for each in root] == ["Location", "Bucket", "Key", "ETag"]


def test_an_answer_of_200_that_is_an_error_is_an_error():
    text = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
    with pytest.raises(S3Error) as caught:
        parse_result(b"  <?xml version='1.0'?>\n   " + text)
    assert (caught.value.code, caught.value.status, caught.value.message) == (
        "SlowDown",
        503,
        "later",
    )


def test_an_error_of_an_unknown_code_is_a_server_fault():
    with pytest.raises(S3Error) as caught:
        parse_result(b"<Error><Code>XMinioOdd</Code></Error>")
    assert (caught.value.code, caught.value.status) == ("XMinioOdd", 500)


@pytest.mark.parametrize(
    "data",
    [b"", b"   ", b"<html>", b"<a/>", b"<CompleteMultipartUploadResult/>"],
)
def test_an_answer_that_is_neither_is_no_result(data: bytes):
    with pytest.raises(ValueError, match=r".+"):
        parse_result(data)


def test_the_etag_of_the_whole_is_that_of_s3():
    md5s = [hashlib.md5(data).hexdigest() for data in (b"a", b"b", b"c")]
    whole = hashlib.md5(b"".join(map(bytes.fromhex, md5s))).hexdigest()
    assert etag.composite(md5s) == f"{whole}-3"
