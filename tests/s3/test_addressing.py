from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import addressing
from s4gateway.s3.addressing import SERVICE, Address
from s4gateway.s3.errors import S3Error

DOMAINS = ("example.com", "s3.example.com")
KEYS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=200
).filter(lambda key: len(key.encode()) <= 1024)


def refusal(raw_path: str, host: str = "localhost") -> str:
    with pytest.raises(S3Error) as caught:
        addressing.resolve(raw_path, host, DOMAINS)
    assert caught.value.status == 400
    return caught.value.code


@pytest.mark.parametrize(
    "key",
    [
        "k",
        "/k",
        "//k",
        "k/",
        ".",
        "..",
        "../x",
        "a/../b",
        "./x",
        "a//b",
        "a b",
        "a+b",
        "a%2Fb",
        "a=b:c@d$e&f",
        "(ü)😀~",
        "\x01\x1f\x7f",
    ],
)
def test_odd_keys_are_kept_as_they_are(key: str):
    raw = quote(key, safe="/")
    assert addressing.resolve(f"/bucket/{raw}", "h") == Address("bucket", key, "bucket", raw)


@given(KEYS)
def test_a_key_survives_every_way_of_encoding_it(key: str):
    everything = "".join(f"%{byte:02x}" for byte in key.encode())
    as_latin_1 = key.replace("%", "%25").encode().decode("latin-1")
    for raw in (quote(key, safe=""), quote(key, safe="/"), everything, as_latin_1):
        assert addressing.resolve(f"/bucket/{raw}", "h").key == key


@given(st.text(max_size=60))
def test_a_path_is_an_address_or_an_error_of_s3(path: str):
    try:
        key = addressing.resolve("/" + path, "localhost").key or ""
    except S3Error as error:
        outcome = error.status == 400
    else:
        outcome = len(key.encode()) <= addressing.MAX_KEY_BYTES
    assert outcome


def test_a_plus_in_a_path_is_a_plus():
    assert addressing.resolve("/bucket/a+b", "h").key == "a+b"


def test_escapes_are_resolved_once():
    assert addressing.resolve("/bucket/a%252Fb", "h").key == "a%2Fb"


@pytest.mark.parametrize("path", ["/bucket", "/bucket/"])
def test_a_path_of_one_segment_is_a_bucket(path: str):
    assert addressing.resolve(path, "h") == Address("bucket", None, "bucket", None)


def test_the_root_is_the_service():
    assert addressing.resolve("/", "h") is SERVICE


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("photos.s3.example.com", "photos"),
        ("photos.s3.example.com:8014", "photos"),
        ("Photos.S3.Example.COM.", "photos"),
        ("my.photos.s3.example.com", "my.photos"),
        ("photos.example.com", "photos"),
        ("s3.example.com", None),
        ("example.com:80", None),
        ("localhost", None),
        ("notexample.com", None),
        ("127.0.0.1:8014", None),
        ("[::1]:8014", None),
        ("[::1]", None),
        ("", None),
    ],
)
def test_the_bucket_in_front_of_a_domain(host: str, bucket: str | None):
    assert addressing.host_bucket(host, DOMAINS) == bucket


def test_without_domains_every_host_is_path_style():
    assert addressing.host_bucket("photos.s3.example.com", ()) is None


def test_virtual_hosts_leave_the_whole_path_to_the_key():
    host = "photos.s3.example.com"
    resolve = addressing.resolve
    assert resolve("/", host, DOMAINS) == Address("photos", None, "photos", None)
    assert resolve("//a/b%20c", host, DOMAINS) == Address("photos", "/a/b c", "photos", "/a/b%20c")


@pytest.mark.parametrize("bucket", ["abc", "a.b-c_d", "UPPER", "x" * 255, "%61bc"])
def test_every_name_s3_ever_allowed_is_a_bucket(bucket: str):
    assert addressing.resolve(f"/{bucket}/k", "h").raw_bucket == bucket


@pytest.mark.parametrize("bucket", ["ab", "x" * 256, "a$b", "%2E%2E", "a%2Fb", "%20abc", "b%C3%BC"])
def test_other_names_are_no_buckets(bucket: str):
    assert refusal(f"/{bucket}/k") == "InvalidBucketName"


@pytest.mark.parametrize("path", ["//k", "//", "///"])
def test_a_key_needs_a_bucket(path: str):
    assert refusal(path) == "InvalidBucketName"


def test_a_virtual_host_is_checked_like_any_bucket():
    assert refusal("/k", "a$b.s3.example.com") == "InvalidBucketName"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "*",
        "bucket/k",
        "/bucket/%FF",
        "/bucket/%C3",
        "/bucket/\xff",
        "/bucket/\u4e00",
        "/bucket/%zz",
        "/bucket/a%2",
        "/bucket/%",
        "/%FFabc/k",
    ],
)
def test_what_cannot_be_decoded_is_refused(path: str):
    assert refusal(path) == "InvalidURI"


def test_a_nul_ends_no_key():
    assert refusal("/bucket/a%00b") == "InvalidObjectName"


@pytest.mark.parametrize("key", ["x" * 1024, "%C3%BC" * 512, "%F0%9F%98%80" * 256])
def test_a_key_of_1024_bytes_is_the_longest(key: str):
    assert addressing.resolve(f"/bucket/{key}", "h").raw_key == key
    assert refusal(f"/bucket/{key}x") == "KeyTooLongError"
