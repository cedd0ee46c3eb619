"""Keys at the edges of what S3 allows, side by side with the backend: same answers, same listing.

A key the backend refuses or folds gets the backend's own answer; whatever it is, no other object
may be read, replaced or deleted in its stead.
"""

import concurrent.futures
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from tests import clients, corpus, live
from tests.conftest import StartGateway
from tests.e2e import raw

pytestmark = pytest.mark.e2e

KEYS = {
    "plain": "plain",
    "equals": "a=b==",
    "colon": "year:2025/month:01",
    "at": "user@example.com",
    "dollar": "$HOME/$$",
    "plus": "a+b+c",
    "space": "a b  c",
    "outer-spaces": " a ",
    "percent-2f": "a%2Fb",
    "percent": "100%",
    "percent-encoded-percent": "a%252Fb",
    "ampersand": "a&b;c,d",
    "question": "what?versionId=1&acl",
    "hash": "a#b",
    "quotes": "\"double\" 'single' `back`",
    "markup": "<key>&amp;</key>]]>",
    "brackets": "[a]{b}(c)<d>",
    "pipe-caret": "a|b^c~d!e*f",
    "two-dots-in-name": "a..b/..c/d..",
    "dot-name": ".hidden/.also",
    "dots": ".../....",
    "deep": "/".join("abcdefghij"),
    "latin": "grüße/déjà",
    "composed": "\u00e9",
    "decomposed": "e\u0301",
    "cjk": "日本語/キー",
    "rtl": "שלום/مرحبا",
    "emoji": "📦/👩‍👩‍👧",
    "zero-width": "a\u200bb\ufeffc",
    "line-separator": "a\u2028b",
    "control": "a\x01b\x1fc",
    "tab-newline": "a\tb\nc\rd",
    "delete-character": "a\x7fb",
    "looks-like-sidecar": "x.s4index.txt",
    "looks-like-a-bucket": "bucket/bucket",
    "long-segments": "/".join(["s" * 200] * 5)[:1024],
    "1024-bytes": "/".join(["k" * 204] * 5),
    "1024-bytes-of-emoji": "/".join(["📦" * 63] * 4)[:256],
}
REFUSED_OR_FOLDED = {
    "dot": ".",
    "dot-dot": "..",
    "dot-segment": "a/./b",
    "dot-dot-segment": "a/../b",
    "escaping": "../../other",
    "leading-slash": "/a",
    "double-slash": "a//b",
    "many-slashes": "a////b//",
    "only-slashes": "//",
    "trailing-slash": "folder/",
    "backslash": "a\\b\\..\\c",
}


def _strict(key: str) -> str:
    return quote(key, safe="")


def _loose(key: str) -> str:
    return quote(key, safe="/-_.~!$&'()*,;=:@+")


@dataclass
class Seen:
    """What one endpoint showed of one key."""

    put: Any = None
    get: Any = None
    head: Any = None
    listed: Any = None
    deleted: Any = None
    after: Any = None
    bystanders: dict[str, Any] = field(default_factory=dict)


BYSTANDERS = ("b", "a", "a/b", "other", "c")


def _visit(endpoint: live.Endpoint, bucket: str, prefix: str, key: str, body: bytes) -> Seen:
    """Everything a client can do with one key, with neighbours that must not notice."""
    seen = Seen()
    for name in BYSTANDERS:
        if name != key and not key.startswith(f"{name}/") and not name.startswith(f"{key}/"):
            raw.ask(endpoint, "PUT", raw.path(bucket, f"{prefix}{name}"), None, name.encode())
            seen.bystanders[name] = None
    target = f"/{bucket}/{prefix}{quote(key, safe='/-_.~')}"
    seen.put = raw.ask(endpoint, "PUT", target, None, body).verdict
    got = raw.ask(endpoint, "GET", target)
    seen.get = (got.verdict, got.body == body)
    headed = raw.ask(endpoint, "HEAD", target)
    seen.head = (headed.status, headed.headers.get("etag") if headed.status == 200 else None)
    with contextlib.closing(clients.boto3_client(endpoint)) as client:
        page = client.list_objects_v2(Bucket=bucket, Prefix=prefix)
        contents = page.get("Contents", ())
        seen.listed = sorted(
            (each["Key"].replace(bucket, "BUCKET"), each["Size"], each["ETag"]) for each in contents
        )
    for name in seen.bystanders:
        seen.bystanders[name] = raw.ask(endpoint, "GET", raw.path(bucket, f"{prefix}{name}")).body
    seen.deleted = raw.ask(endpoint, "DELETE", target).verdict
    seen.after = raw.ask(endpoint, "GET", target).verdict
    return seen


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_stored_read_listed_and_deleted(name: str, gateway: live.Gateway, shared: str):
    key = KEYS[name]
    prefix = "" if name.startswith(("1024", "long")) else f"{name}/"
    body = corpus.text(3000, seed=len(key))
    seen = _visit(gateway, shared, prefix, key, body)
    etag = f'"{hashlib.md5(body).hexdigest()}"'
    assert seen.put == (200, None)
    assert seen.get == ((200, None), True)
    assert seen.head == (200, etag)
    assert (f"{prefix}{key}", 3000, etag) in seen.listed
    assert seen.deleted == (204, None)
    assert seen.after == (404, "NoSuchKey")
    assert all(found == name.encode() for name, found in seen.bystanders.items())


@pytest.mark.parametrize("size", [0, 3000])
@pytest.mark.parametrize("name", REFUSED_OR_FOLDED)
def test_a_key_the_backend_refuses_or_folds_gets_the_backends_answer(
    name: str,
    size: int,
    gateway: live.Gateway,
    seaweedfs: live.Seaweedfs,
    make_bucket: Callable[..., str],
):
    key = REFUSED_OR_FOLDED[name]
    # SeaweedFS treats folders with contents by stored size: noise is stored as it comes.
    body = corpus.noise(size, seed=len(key))
    through = _visit(gateway, make_bucket(), "", key, body)
    direct = _visit(seaweedfs, make_bucket(), "", key, body)
    if through.get[0] == (500, "InternalError"):
        # SeaweedFS gives a folder the metadata of the object it folds onto, without its body.
        assert direct.get == ((200, None), False)
        through.get, through.after = direct.get, direct.after
    assert through == direct


@pytest.mark.parametrize("name", ["1024-bytes", "1024-bytes-of-emoji"])
def test_a_longest_key_leaves_no_room_for_a_sidecar_and_still_serves_ranges(
    name: str, gateway: live.Gateway, shared: str
):
    key = KEYS[name]
    body = corpus.text(5_300_000, seed=9)
    target = raw.path(shared, key)
    assert raw.ask(gateway, "PUT", target, None, body).status == 200
    span = {"Range": "bytes=5000000-5000099"}
    assert raw.ask(gateway, "GET", target, span).body == body[5000000:5000100]
    assert raw.ask(gateway, "GET", target).body == body
    assert raw.ask(gateway, "DELETE", target).status == 204


@pytest.mark.parametrize("encode", [_strict, _loose], ids=["strict", "loose"])
@pytest.mark.parametrize("name", ["equals", "colon", "at", "dollar", "plus", "pipe-caret", "deep"])
def test_clients_that_encode_more_or_less_than_s3_does_reach_the_same_key(
    name: str, encode: Callable[[str], str], gateway: live.Gateway, shared: str
):
    key = f"spelling/{name}/{KEYS[name]}"
    assert raw.ask(gateway, "PUT", raw.path(shared, key), None, key.encode()).status == 200
    canonical = raw.plain(gateway, "GET", raw.path(shared, key))
    other = raw.Request("GET", f"/{shared}/{encode(key)}", canonical.headers)
    answer = raw.exchange(gateway, other)  # signed for the canonical spelling, sent in another
    assert (answer.status, answer.body) == (200, key.encode())
    as_sent = raw.ask(gateway, "GET", f"/{shared}/{encode(key)}")
    assert (as_sent.status, as_sent.body) == (200, key.encode())


def test_all_keys_together_are_listed_once_each_in_order_and_deleted_in_one_request(
    s3: Any, make_bucket: Callable[..., str]
):
    bucket = make_bucket()
    keys = [f"{name}/{key}" for name, key in KEYS.items() if name not in _LEFT_OUT]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b"x" * 500), keys))
    for verb in ("list_objects", "list_objects_v2"):
        for options in ({}, {"MaxKeys": 7}):
            pages = s3.get_paginator(verb).paginate(Bucket=bucket, **options)
            listed = [each for page in pages for each in page.get("Contents", ())]
            assert sorted(each["Key"] for each in listed) == sorted(keys), (verb, options)
            assert {each["Size"] for each in listed} == {500}
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
    assert sorted(each["Key"] for each in answer["Deleted"]) == sorted(keys)
    assert "Errors" not in answer
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


# Too long with a prefix; and no XML that SeaweedFS reads can name a control character.
_LEFT_OUT = {"long-segments", "1024-bytes", "1024-bytes-of-emoji", "control"}


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "DELETE"])
@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        ("k" * 1025, (400, "KeyTooLongError")),
        ("%C3%BC" * 513, (400, "KeyTooLongError")),
        ("%FF%FE", (400, "InvalidURI")),
        ("a%C3", (400, "InvalidURI")),
        ("%ED%A0%80", (400, "InvalidURI")),
        ("%C0%AF", (400, "InvalidURI")),
        ("a%zz", (400, "InvalidURI")),
        ("a%2", (400, "InvalidURI")),
        ("a%00b", (400, "InvalidObjectName")),
    ],
    ids=[
        "1025-bytes", "1026-bytes-of-umlauts", "no-utf8", "cut-utf8", "surrogate", "overlong",
        "broken-escape", "cut-escape", "nul",
    ],
)  # fmt: skip
def test_a_key_that_can_be_none_is_refused(
    path: str, verdict: tuple[int, str], method: str, gateway: live.Gateway, shared: str
):
    body = b"x" if method == "PUT" else None
    answer = raw.ask(gateway, method, f"/{shared}/{path}", None, body)
    assert answer.status == verdict[0]
    assert method == "HEAD" or answer.code == verdict[1]


@pytest.mark.parametrize(
    "key", ["x.s4index", "a/b.s4index", ".s4dict/0011223344556677", ".s4mpu/a/1"]
)
def test_the_gateways_own_keys_cannot_be_written_and_only_dictionaries_be_read(
    key: str, gateway: live.Gateway, direct: Any, shared: str
):
    target = raw.path(shared, key)
    assert raw.ask(gateway, "PUT", target, None, b"x").verdict == (400, "InvalidObjectName")
    direct.put_object(Bucket=shared, Key=key, Body=b"theirs")
    if key.startswith(".s4dict/"):  # a dictionary is what its readers need
        assert raw.ask(gateway, "GET", target).body == b"theirs"
    else:
        assert raw.ask(gateway, "GET", target).verdict == (404, "NoSuchKey")
        assert raw.ask(gateway, "HEAD", target).status == 404
    assert raw.ask(gateway, "DELETE", target).verdict == (400, "InvalidObjectName")
    assert direct.head_object(Bucket=shared, Key=key)["ContentLength"] == 6
    listed = raw.ask(gateway, "GET", f"/{shared}?list-type=2&prefix={quote(key[:6], safe='')}")
    assert key.encode() not in listed.body


@pytest.mark.parametrize("key", ["plain", "a b+c=d:e/ü", "deep/er/key"])
def test_virtual_host_style_reaches_the_same_objects_as_path_style(
    key: str, start_gateway: StartGateway, shared: str
):
    body = corpus.text(5000, seed=3)
    with start_gateway("--domain", "s3.example.test") as gateway:
        host = {"host": f"{shared}.s3.example.test"}
        plain_path = f"/{quote(key, safe='/-_.~')}"
        assert raw.ask(gateway, "PUT", plain_path, host, body).status == 200
        assert raw.ask(gateway, "GET", raw.path(shared, key)).body == body
        read = raw.ask(gateway, "GET", plain_path, {"host": f"{shared}.S3.Example.TEST:80"})
        assert (read.status, read.body) == (200, body)
        listed = raw.ask(gateway, "GET", "/?list-type=2", host)
        assert b"<Size>5000</Size>" in listed.body
        bare = raw.ask(gateway, "GET", "/", {"host": "s3.example.test"})
        assert b"ListAllMyBucketsResult" in bare.body
        # Signed for one bucket, sent to another: the host is part of the signature.
        moved = raw.plain(gateway, "GET", plain_path, host).with_headers(
            host="other.s3.example.test"
        )
        assert raw.exchange(gateway, moved).status in {403, 404}
        presigned = raw.Request("GET", _presigned_virtual(gateway, shared, key), host)
        assert raw.exchange(gateway, presigned).body == body
        assert raw.ask(gateway, "DELETE", plain_path, host).status == 204


def _presigned_virtual(gateway: live.Gateway, bucket: str, key: str) -> str:
    """SigV2, whose resource names the bucket that only the Host header has."""
    endpoint = live.Endpoint("http://s3.example.test", gateway.access_key, gateway.secret_key)
    style = {"addressing_style": "virtual"}
    with contextlib.closing(
        clients.boto3_client(endpoint, signature_version="s3", s3=style)
    ) as signer:
        url = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
    assert url.startswith(f"http://{bucket}.s3.example.test/")
    return raw.target_of(url)
