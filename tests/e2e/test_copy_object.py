"""CopyObject: the copy is what the source was, to every client, and the bytes stay at the store."""

import asyncio
import contextlib
import gzip
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from botocore.exceptions import ClientError
from minio.commonconfig import CopySource

from s4gateway.backend import credentials
from s4gateway.backend.client import Endpoint, S3Backend
from s4gateway.backend.http import HttpClient
from s4gateway.gateway import keep_alive
from s4gateway.objects.copying import CopyOrder, ObjectCopier
from s4gateway.objects.opening import Source
from s4gateway.s3 import sigv4, xml
from s4gateway.wire import manifest
from tests import clients, corpus, live
from tests.conftest import StartGateway
from tests.e2e import meddler, metering, raw
from tests.e2e.meddler import Meddler
from tests.objects import world

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
FORMS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "empty": (b"", {}),
    "one-byte": (b"x", {"ContentType": "image/png"}),
    "text": (corpus.text(200_000, seed=1), {"ContentType": "text/plain; charset=utf-8"}),
    "frames": (corpus.log(9 * MIB, seed=2), {"CacheControl": "max-age=60"}),
    "noise": (corpus.noise(300_000, seed=3), {"ContentDisposition": 'attachment; filename="a b"'}),
    "gzip": (gzip.compress(corpus.text(90_000, seed=4)), {"ContentEncoding": "gzip"}),
}
METADATA = {"colour": "dark blue", "owner-id": "a/b=c"}
RESERVED = sorted(
    value
    for name, value in vars(manifest).items()
    if name.isupper() and isinstance(value, str) and value.startswith(manifest.RESERVED_PREFIX)
)


@pytest.fixture
def client(front: live.Gateway) -> Iterator[Any]:
    """A boto3 client of the gateway over http and over https."""
    with contextlib.closing(clients.boto3_client(front)) as made:
        yield made


def read(client: Any, bucket: str, key: str, **more: Any) -> bytes:
    with client.get_object(Bucket=bucket, Key=key, **more)["Body"] as body:
        data: bytes = body.read()
    return data


def shown(client: Any, bucket: str, key: str) -> dict[str, Any]:
    """What HEAD says, without what belongs to the answer and the moment."""
    head = client.head_object(Bucket=bucket, Key=key)
    unlike = {"ResponseMetadata", "LastModified", "VersionId", "Expiration"}
    return {name: value for name, value in head.items() if name not in unlike}


def code(caught: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    said = caught.value.response
    return said["ResponseMetadata"]["HTTPStatusCode"], said["Error"]["Code"]


def stored_metadata(direct: Any, bucket: str, key: str) -> dict[str, str]:
    found: dict[str, str] = direct.head_object(Bucket=bucket, Key=key)["Metadata"]
    return found


def ours(entries: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in entries.items() if name.startswith("s4-")}


def check(client: Any, bucket: str, key: str, body: bytes) -> None:
    """Everything a client can see of a copy: whole, in ranges, by HEAD and in a listing."""
    etag = f'"{hashlib.md5(body).hexdigest()}"'
    assert read(client, bucket, key) == body
    head = client.head_object(Bucket=bucket, Key=key)
    assert (head["ContentLength"], head["ETag"]) == (len(body), etag)
    if body:
        middle = len(body) // 2
        ranged = read(client, bucket, key, Range=f"bytes={middle}-{len(body) + 5}")
        assert ranged == body[middle:]
    listed, *_ = client.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]
    assert (listed["Key"], listed["Size"], listed["ETag"]) == (key, len(body), etag)


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_is_what_its_source_was(
    form: str, client: Any, direct: Any, shared: str, make_bucket: Callable[..., str], key: str
):
    body, headers = FORMS[form]
    client.put_object(Bucket=shared, Key=key, Body=body, Metadata=METADATA, **headers)
    for bucket in (shared, make_bucket()):
        to = f"{key}.copy"
        answer = client.copy_object(
            Bucket=bucket, Key=to, CopySource={"Bucket": shared, "Key": key}
        )
        result = answer["CopyObjectResult"]
        assert result["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        assert abs(result["LastModified"] - datetime.now(UTC)) < timedelta(minutes=5)
        check(client, bucket, to, body)
        assert shown(client, bucket, to) == shown(client, shared, key)
        assert stored_metadata(direct, bucket, to) == stored_metadata(direct, shared, key)


@pytest.mark.parametrize("form", FORMS)
def test_metadata_are_replaced_and_the_object_stays_readable(
    form: str, client: Any, direct: Any, shared: str, key: str
):
    body, headers = FORMS[form]
    client.put_object(Bucket=shared, Key=key, Body=body, Metadata=METADATA, **headers)
    kept = ours(stored_metadata(direct, shared, key))
    assert kept or not body
    for to in (f"{key}.copy", key):
        client.copy_object(
            Bucket=shared,
            Key=to,
            CopySource={"Bucket": shared, "Key": key},
            MetadataDirective="REPLACE",
            Metadata={"shape": "round"},
            ContentLanguage="de",
        )
        check(client, shared, to, body)
        head = client.head_object(Bucket=shared, Key=to)
        assert head["Metadata"] == {"shape": "round"}
        assert head["ContentLanguage"] == "de"
        assert head["ContentType"] == "binary/octet-stream"
        for gone in ("CacheControl", "ContentDisposition", "ContentEncoding"):
            assert gone not in head
        assert stored_metadata(direct, shared, to) == {"shape": "round", **kept}


def test_ranges_of_a_copy_are_read_by_its_own_index(
    gateway: live.Gateway, s3: Any, direct: Any, shared: str, key: str
):
    body = FORMS["frames"][0]
    s3.put_object(Bucket=shared, Key=key, Body=body)
    source = {"Bucket": shared, "Key": key}
    s3.copy_object(Bucket=shared, Key=f"{key}.copy", CopySource=source)
    direct.head_object(Bucket=shared, Key=f"{key}.copy.s4index")
    s3.copy_object(Bucket=shared, Key=key, CopySource=source, MetadataDirective="REPLACE")
    before = metering.scrape(gateway)
    for name in (key, f"{key}.copy"):
        assert read(s3, shared, name, Range="bytes=5000000-5000999") == body[5000000:5001000]
    after = metering.scrape(gateway)
    fallbacks = [name for name in after if name.startswith("s4_range_fallback")]
    assert [after[name] for name in fallbacks] == [before.get(name, 0) for name in fallbacks]
    s3.put_object(Bucket=shared, Key=f"{key}.small", Body=b"small")
    s3.copy_object(Bucket=shared, Key=key, CopySource=f"{shared}/{key}.small")
    assert read(s3, shared, key, Range="bytes=1-") == b"mall"


def test_no_byte_of_a_copy_passes_the_gateway(
    gateway: live.Gateway, s3: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=corpus.noise(2 * MIB, seed=5))

    def gets() -> float:
        found = metering.scrape(gateway)
        return sum(
            value
            for name, value in found.items()
            if name.startswith("s4_backend_requests_total") and 'verb="get"' in name
        )

    before = gets()
    s3.copy_object(Bucket=shared, Key=f"{key}.copy", CopySource=f"{shared}/{key}")
    assert gets() == before


@pytest.mark.parametrize("directive", ["COPY", "REPLACE"])
@pytest.mark.parametrize("where", ["header", "mixed-case", "query"])
def test_no_reserved_entry_of_a_client_is_stored(
    where: str, directive: str, gateway: live.Gateway, s3: Any, direct: Any, shared: str, key: str
):
    body = FORMS["text"][0]
    s3.put_object(Bucket=shared, Key=key, Body=body)
    kept = ours(stored_metadata(direct, shared, key))
    forged = {f"x-amz-meta-{name}": "forged" for name in RESERVED} | {
        "x-amz-meta-s4-unheard-of": "forged",
        "x-amz-meta-s4ish": "kept",
    }
    headers = {"x-amz-copy-source": f"{shared}/{key}", "x-amz-metadata-directive": directive}
    for to in (f"{key}.copy", key):
        if to == key and directive == "COPY":
            continue
        target = raw.path(shared, to)
        if where == "query":
            pairs = [
                f"{name}={value.replace('/', '%2F')}" for name, value in (headers | forged).items()
            ]
            target = raw.presign(gateway, "PUT", target, query="&".join(pairs))
            request = raw.Request("PUT", target, {"Host": gateway.netloc, "Content-Length": "0"})
            answer = raw.exchange(gateway, request)
        else:
            sent = forged
            if where == "mixed-case":
                sent = {name.title(): value for name, value in forged.items()}
            answer = raw.ask(gateway, "PUT", target, headers | sent)
        assert answer.status == 200, answer
        check(s3, shared, to, body)
        found = stored_metadata(direct, shared, to)
        assert ours(found) == kept
        assert found.get("s4ish") == ("kept" if directive == "REPLACE" else None)


def test_metadata_of_a_copy_that_keeps_them_are_ignored(
    s3: Any, direct: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=b"a" * 5000, Metadata=METADATA, ContentType="a/b")
    s3.copy_object(
        Bucket=shared,
        Key=f"{key}.copy",
        CopySource=f"{shared}/{key}",
        Metadata={"shape": "round"},
        ContentType="c/d",
        CacheControl="no-store",
    )
    assert shown(s3, shared, f"{key}.copy") == shown(s3, shared, key)


@pytest.mark.parametrize("directive", [None, "COPY", "REPLACE"])
def test_tags_are_kept_or_replaced(
    directive: str | None, s3: Any, direct: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=b"tagged" * 900, Tagging="a=1&b=x%20y")
    more = {"TaggingDirective": directive} if directive else {}
    if directive == "REPLACE":
        more["Tagging"] = "c=%2B"
    s3.copy_object(Bucket=shared, Key=f"{key}.copy", CopySource=f"{shared}/{key}", **more)
    tags = direct.get_object_tagging(Bucket=shared, Key=f"{key}.copy")["TagSet"]
    found = {each["Key"]: each["Value"] for each in tags}
    assert found == ({"c": "+"} if directive == "REPLACE" else {"a": "1", "b": "x y"})
    assert read(s3, shared, f"{key}.copy") == b"tagged" * 900


@pytest.mark.parametrize("parts", [1, 2])
def test_objects_the_gateway_did_not_write_are_copied_as_they_are(
    parts: int, s3: Any, direct: Any, shared: str, key: str
):
    body = corpus.noise(parts * 5 * MIB, seed=6)
    upload = direct.create_multipart_upload(Bucket=shared, Key=key, Metadata=METADATA)["UploadId"]
    made = [
        {
            "PartNumber": number + 1,
            "ETag": direct.upload_part(
                Bucket=shared,
                Key=key,
                UploadId=upload,
                PartNumber=number + 1,
                Body=body[number * 5 * MIB :][: 5 * MIB],
            )["ETag"],
        }
        for number in range(parts)
    ]
    direct.complete_multipart_upload(
        Bucket=shared, Key=key, UploadId=upload, MultipartUpload={"Parts": made}
    )
    for directive in ("COPY", "REPLACE"):
        to = f"{key}.{directive}"
        answer = s3.copy_object(
            Bucket=shared, Key=to, CopySource=f"{shared}/{key}", MetadataDirective=directive
        )
        head = s3.head_object(Bucket=shared, Key=to)
        assert head["ETag"] == answer["CopyObjectResult"]["ETag"]
        assert head["Metadata"] == (METADATA if directive == "COPY" else {})
        assert read(s3, shared, to) == body
        assert ours(stored_metadata(direct, shared, to)) == {}


@pytest.mark.parametrize("directive", ["COPY", "REPLACE"])
def test_objects_sent_in_parts_keep_size_etag_and_parts(
    directive: str, client: Any, direct: Any, shared: str, key: str
):
    body = corpus.log(17 * MIB, seed=8) + corpus.noise(6 * MIB, seed=9)
    parts = [body[start : start + 8 * MIB] for start in range(0, len(body), 8 * MIB)]
    upload = client.create_multipart_upload(
        Bucket=shared, Key=key, Metadata=METADATA, ChecksumAlgorithm="CRC32"
    )["UploadId"]
    made = []
    for number, part in enumerate(parts, start=1):
        sent = client.upload_part(
            Bucket=shared,
            Key=key,
            UploadId=upload,
            PartNumber=number,
            Body=part,
            ChecksumAlgorithm="CRC32",
        )
        made.append(
            {"PartNumber": number, "ETag": sent["ETag"], "ChecksumCRC32": sent["ChecksumCRC32"]}
        )
    whole = client.complete_multipart_upload(
        Bucket=shared, Key=key, UploadId=upload, MultipartUpload={"Parts": made}
    )
    kept = ours(stored_metadata(direct, shared, key))
    for to in (f"{key}.copy", key) if directive == "REPLACE" else (f"{key}.copy",):
        answer = client.copy_object(
            Bucket=shared, Key=to, CopySource=f"{shared}/{key}", MetadataDirective=directive
        )
        assert answer["CopyObjectResult"]["ETag"] == whole["ETag"]
        assert answer["CopyObjectResult"]["ChecksumCRC32"] == whole["ChecksumCRC32"]
        head = client.head_object(Bucket=shared, Key=to)
        assert (head["ETag"], head["ContentLength"]) == (whole["ETag"], len(body))
        assert head["Metadata"] == (METADATA if directive == "COPY" else {})
        assert ours(stored_metadata(direct, shared, to)) == kept
        assert read(client, shared, to) == body
        assert read(client, shared, to, PartNumber=2) == parts[1]
        middle = slice(8 * MIB - 7, 8 * MIB + 7)
        ranged = read(client, shared, to, Range=f"bytes={middle.start}-{middle.stop - 1}")
        assert ranged == body[middle]


async def test_a_large_object_is_copied_in_parts_with_all_that_belongs_to_it(
    seaweedfs: live.Seaweedfs, s3: Any, direct: Any, shared: str, key: str
):
    body = corpus.log(6 * MIB, seed=10) + corpus.noise(13 * MIB, seed=11)
    name, to = f"{key} + a/b", f"{key} + c/d"
    s3.put_object(
        Bucket=shared,
        Key=name,
        Body=body,
        Metadata=METADATA,
        ContentType="a/b",
        CacheControl="no-store",
        Tagging="a=1&b=x%20y",
    )
    keys = credentials.Static(sigv4.Credentials(seaweedfs.access_key, seaweedfs.secret_key))
    store = S3Backend(Endpoint(seaweedfs.endpoint_url), keys, HttpClient())
    instance = world.Instance(store)
    try:
        source = Source(store, (shared, name))
        attributes = await instance.reader.attributes(source)
        copier = ObjectCopier(
            store,
            instance.sidecars,
            instance.attributes,
            instance.writer,
            instance.dictionaries,
            largest=5 * MIB,
            part_size=5 * MIB,
        )
        copied = await copier.copy(source, attributes, CopyOrder((shared, to)))
    finally:
        await instance.close()
        await store.close()
    assert copied.sidecar is True
    assert direct.head_object(Bucket=shared, Key=to)["ETag"] != f'"{attributes.head.etag}"'
    check(s3, shared, to, body)
    assert shown(s3, shared, to) == shown(s3, shared, name)
    assert read(direct, shared, to) == read(direct, shared, name)
    tags = [direct.get_object_tagging(Bucket=shared, Key=each)["TagSet"] for each in (name, to)]
    assert tags[0] == tags[1] != []
    assert "Uploads" not in direct.list_multipart_uploads(Bucket=shared)


def test_a_customers_keys_are_those_of_source_and_copy(s3: Any, shared: str, key: str):
    body, old, new = FORMS["text"][0], "k" * 32, "z" * 32
    with_old = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": old}
    with_new = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": new}
    s3.put_object(Bucket=shared, Key=key, Body=body, **with_old)
    source = {f"CopySource{name}": value for name, value in with_old.items()}

    def copy(to: str, **more: str) -> None:
        s3.copy_object(Bucket=shared, Key=f"{key}.{to}", CopySource=f"{shared}/{key}", **more)

    with pytest.raises(ClientError) as caught:
        copy("keyless")
    assert code(caught) == (400, "InvalidRequest")
    for directive in ("COPY", "REPLACE"):
        copy(f"plain-{directive}", MetadataDirective=directive, **source)
        assert read(s3, shared, f"{key}.plain-{directive}") == body
        copy(f"anew-{directive}", MetadataDirective=directive, **source, **with_new)
        assert read(s3, shared, f"{key}.anew-{directive}", **with_new) == body


# --- checksums


@pytest.mark.parametrize("asked", [None, "SHA1"])
def test_a_copy_shows_the_checksum_of_the_original_and_none_of_stored_bytes(
    asked: str | None, s3: Any, direct: Any, shared: str, key: str
):
    body = FORMS["text"][0]
    put = s3.put_object(Bucket=shared, Key=key, Body=body, ChecksumAlgorithm="SHA256")
    more = {"ChecksumAlgorithm": asked} if asked else {}
    answer = s3.copy_object(Bucket=shared, Key=f"{key}.copy", CopySource=f"{shared}/{key}", **more)
    result = answer["CopyObjectResult"]
    assert result["ChecksumSHA256"] == put["ChecksumSHA256"]
    assert result["ChecksumType"] == "FULL_OBJECT"
    assert "ChecksumSHA1" not in result
    for client, expected in ((s3, put["ChecksumSHA256"]), (direct, None)):
        head = client.head_object(Bucket=shared, Key=f"{key}.copy", ChecksumMode="ENABLED")
        assert head.get("ChecksumSHA256") == expected
        assert "ChecksumSHA1" not in head


def test_an_unknown_checksum_algorithm_is_refused(
    gateway: live.Gateway, s3: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=b"x")
    headers = {"x-amz-copy-source": f"{shared}/{key}", "x-amz-checksum-algorithm": "CRC31"}
    answer = raw.ask(gateway, "PUT", raw.path(shared, f"{key}.copy"), headers)
    assert answer.verdict == (400, "InvalidRequest")


# --- conditions

EARLIER = datetime(2001, 1, 1, tzinfo=UTC)
LATER = datetime.now(UTC) + timedelta(days=400)
YES, NO = "matching", '"0123456789abcdef0123456789abcdef"'
CONDITIONS: dict[str, tuple[dict[str, Any], int]] = {
    "if-match": ({"CopySourceIfMatch": YES}, 200),
    "if-match-any": ({"CopySourceIfMatch": "*"}, 200),
    "if-match-other": ({"CopySourceIfMatch": NO}, 412),
    "if-none-match": ({"CopySourceIfNoneMatch": YES}, 412),
    "if-none-match-any": ({"CopySourceIfNoneMatch": "*"}, 412),
    "if-none-match-other": ({"CopySourceIfNoneMatch": NO}, 200),
    "if-modified-since": ({"CopySourceIfModifiedSince": EARLIER}, 200),
    "if-unmodified-since": ({"CopySourceIfUnmodifiedSince": LATER}, 200),
    "if-unmodified-since-earlier": ({"CopySourceIfUnmodifiedSince": EARLIER}, 412),
    "match-beats-unmodified": (
        {"CopySourceIfMatch": YES, "CopySourceIfUnmodifiedSince": EARLIER},
        200,
    ),
    "none-match-beats-modified": (
        {"CopySourceIfNoneMatch": YES, "CopySourceIfModifiedSince": EARLIER},
        412,
    ),
}


@pytest.mark.parametrize("form", ["text", "noise", "foreign"])
@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_on_the_source_are_about_what_clients_see(
    name: str, form: str, client: Any, direct: Any, shared: str, key: str
):
    body = FORMS["text" if form == "foreign" else form][0]
    (direct if form == "foreign" else client).put_object(Bucket=shared, Key=key, Body=body)
    conditions, status = CONDITIONS[name]
    etag = f'"{hashlib.md5(body).hexdigest()}"'
    wanted = {each: etag if value is YES else value for each, value in conditions.items()}

    def copy() -> None:
        client.copy_object(Bucket=shared, Key=f"{key}.copy", CopySource=f"{shared}/{key}", **wanted)

    if status == 200:
        copy()
        assert read(client, shared, f"{key}.copy") == body
        return
    with pytest.raises(ClientError) as caught:
        copy()
    assert code(caught) == (412, "PreconditionFailed")
    assert "Contents" not in direct.list_objects_v2(Bucket=shared, Prefix=f"{key}.copy")


def test_not_modified_since_is_a_failed_condition(
    gateway: live.Gateway, s3: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=b"x" * 5000)
    modified = raw.ask(gateway, "HEAD", raw.path(shared, key)).headers["last-modified"]
    headers = {
        "x-amz-copy-source": f"{shared}/{key}",
        "x-amz-copy-source-if-modified-since": modified,
    }
    answer = raw.ask(gateway, "PUT", raw.path(shared, f"{key}.copy"), headers)
    assert answer.verdict == (412, "PreconditionFailed")


@pytest.mark.parametrize("conditions", [name for name, row in CONDITIONS.items() if row[1] == 200])
def test_a_missing_source_is_missing_whatever_the_conditions(
    conditions: str, s3: Any, shared: str, key: str
):
    wanted = {
        name: NO if value is YES else value for name, value in CONDITIONS[conditions][0].items()
    }
    with pytest.raises(ClientError) as caught:
        s3.copy_object(Bucket=shared, Key=f"{key}.copy", CopySource=f"{shared}/{key}", **wanted)
    assert code(caught) == (404, "NoSuchKey")


def test_conditions_on_the_destination_are_about_what_clients_see(
    client: Any, direct: Any, shared: str, key: str
):
    body, old = FORMS["text"][0], corpus.text(50_000, seed=7)
    client.put_object(Bucket=shared, Key=key, Body=body)
    to = f"{key}.copy"

    def copy(**conditions: str) -> tuple[int, str]:
        source = f"{shared}/{key}"
        try:
            client.copy_object(Bucket=shared, Key=to, CopySource=source, **conditions)
        except ClientError as error:
            said = error.response
            return said["ResponseMetadata"]["HTTPStatusCode"], said["Error"]["Code"]
        return 200, ""

    assert copy(IfMatch=NO) == (404, "NoSuchKey")
    assert copy(IfNoneMatch="*") == (200, "")
    assert copy(IfNoneMatch="*") == (412, "PreconditionFailed")
    etag = client.put_object(Bucket=shared, Key=to, Body=old)["ETag"]
    assert direct.head_object(Bucket=shared, Key=to)["ETag"] != etag
    assert copy(IfMatch=NO) == (412, "PreconditionFailed")
    assert read(client, shared, to) == old
    assert copy(IfMatch=etag) == (200, "")
    assert read(client, shared, to) == body


# --- onto itself


def test_a_copy_onto_itself_that_changes_nothing_gets_the_stores_answer(
    s3: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=b"x" * 5000)
    with pytest.raises(ClientError) as caught:
        s3.copy_object(Bucket=shared, Key=key, CopySource=f"{shared}/{key}")
    assert code(caught) == (400, "InvalidRequest")
    assert read(s3, shared, key) == b"x" * 5000


def test_metadata_are_changed_in_place_again_and_again(s3: Any, shared: str, key: str):
    body = FORMS["frames"][0]
    s3.put_object(Bucket=shared, Key=key, Body=body, Metadata=METADATA)
    for turn in range(4):
        s3.copy_object(
            Bucket=shared,
            Key=key,
            CopySource=f"{shared}/{key}",
            MetadataDirective="REPLACE",
            Metadata={"turn": str(turn)},
        )
        head = s3.head_object(Bucket=shared, Key=key)
        assert head["Metadata"] == {"turn": str(turn)}
    check(s3, shared, key, body)


# --- names

KEYS = (
    "a b  c",
    "a+b+c",
    "a%20b%2Fc%",
    "a%252Fb",
    "what?versionId=1&acl",
    "what?versionId=",
    "x?y#z",
    "grüße/日本語/📦",
    "/leading",
    "trailing/",
    "a&b;c,d=e:f@g$",
    "'single' \"double\"",
    "tab\tq",
    "arn:aws:s3:::bucket",
    "[a]{b}(c)<d>|^`\\",
)


# A directory and an unfinished escape to SeaweedFS, when they are what is copied.
REFUSED_BY_SEAWEEDFS = {"trailing/", KEYS[-1]}


@pytest.mark.parametrize("name", KEYS)
def test_every_key_is_copied_from_and_to(
    name: str, client: Any, direct: Any, shared: str, key: str
):
    body = (name * 500).encode()

    def copy(through: Any, folder: str) -> str:
        """The code of the error, empty for a copy that is what its source was."""
        names = [f"{key}/{folder}/{name}", f"{key}/{folder}.to/{name}"]
        through.put_object(Bucket=shared, Key=names[0], Body=body)
        source = {"Bucket": shared, "Key": names[0]}
        try:
            through.copy_object(Bucket=shared, Key=names[1], CopySource=source)
        except ClientError as error:
            refused: str = error.response["Error"]["Code"]
            return refused
        return "" if read(through, shared, names[1]) == body else "other bytes"

    said = copy(client, "gateway")
    assert said == copy(direct, "direct")
    assert not said or name in REFUSED_BY_SEAWEEDFS


def test_slashes_are_part_of_the_name_as_far_as_the_store_keeps_them(
    client: Any, direct: Any, shared: str, key: str
):
    name = f"{key}//deep//?"
    client.put_object(Bucket=shared, Key=name, Body=b"slashes" * 900)
    client.copy_object(Bucket=shared, Key=f"{key}.copy", CopySource={"Bucket": shared, "Key": name})
    assert read(client, shared, f"{key}.copy") == b"slashes" * 900


@pytest.mark.parametrize("lead", ["", "/"])
def test_the_source_may_begin_with_a_slash(
    lead: str, gateway: live.Gateway, s3: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=b"x" * 5000)
    headers = {"x-amz-copy-source": f"{lead}{shared}/{key}"}
    assert raw.ask(gateway, "PUT", raw.path(shared, f"{key}.copy"), headers).status == 200


def test_what_cannot_be_copied_says_why(
    gateway: live.Gateway, s3: Any, direct: Any, shared: str, key: str
):
    body = FORMS["frames"][0]
    s3.put_object(Bucket=shared, Key=key, Body=body)
    direct.put_object(Bucket=shared, Key=".s4dict/0123456789abcdef", Body=b"dictionary")
    missing = live.bucket_name()
    sources = {
        f"{shared}/{key}.gone": (404, "NoSuchKey"),
        f"{missing}/{key}": (404, "NoSuchBucket"),
        f"{shared}/{key}.s4index": (404, "NoSuchKey"),
        f"{shared}/.s4dict/0123456789abcdef": (404, "NoSuchKey"),
        f"{shared}/.s4mpu/00/create": (404, "NoSuchKey"),
        shared: (400, "InvalidArgument"),
        f"{shared}/": (400, "InvalidArgument"),
        f"{shared}/{key}?versionId=": (400, "InvalidArgument"),
        "arn:aws:s3:us-east-1:123456789012:accesspoint/a/object/b": (501, "NotImplemented"),
    }
    for source, expected in sources.items():
        answer = raw.ask(
            gateway, "PUT", raw.path(shared, f"{key}.copy"), {"x-amz-copy-source": source}
        )
        assert answer.verdict == expected, source
    for to in (f"{key}.s4index", ".s4dict/0123456789abcdef", ".s4mpu/00/create"):
        headers = {"x-amz-copy-source": f"{shared}/{key}"}
        answer = raw.ask(gateway, "PUT", raw.path(shared, to), headers)
        assert answer.verdict == (400, "InvalidObjectName"), to
    for name in ("metadata", "tagging"):
        headers = {"x-amz-copy-source": f"{shared}/{key}", f"x-amz-{name}-directive": "MERGE"}
        answer = raw.ask(gateway, "PUT", raw.path(shared, f"{key}.copy"), headers)
        assert answer.verdict == (400, "InvalidArgument")
    assert "Contents" not in direct.list_objects_v2(Bucket=shared, Prefix=f"{key}.copy")
    assert read(direct, shared, ".s4dict/0123456789abcdef") == b"dictionary"
    check(s3, shared, key, body)


def test_an_object_whose_dictionary_is_lost_is_not_copied_to_another_bucket(
    s3: Any, direct: Any, shared: str, make_bucket: Callable[..., str], key: str
):
    entries = {
        "s4-codec": "cpu-zstd-dict",
        "s4-original-size": "5000",
        "s4-compressed-size": "9",
        "s4-crc32c": "1",
        "s4-framed": "true",
        "s4-dict-id": "00112233445566aa",
    }
    direct.put_object(Bucket=shared, Key=key, Body=b"no frames", Metadata=entries)
    elsewhere = make_bucket()
    with pytest.raises(ClientError) as caught:
        s3.copy_object(Bucket=elsewhere, Key=key, CopySource=f"{shared}/{key}")
    assert code(caught) == (500, "InternalError")
    assert "00112233445566aa" in caught.value.response["Error"]["Message"]
    assert "Contents" not in direct.list_objects_v2(Bucket=elsewhere)
    s3.copy_object(
        Bucket=shared, Key=f"{key}.2", CopySource=f"{shared}/{key}", MetadataDirective="REPLACE"
    )
    assert stored_metadata(direct, shared, f"{key}.2") == entries


# --- versions


def test_versions_are_copied_with_their_own_manifest(
    client: Any, direct: Any, make_bucket: Callable[..., str]
):
    bucket = make_bucket()
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    bodies = [FORMS[form][0] for form in ("frames", "noise", "text")]
    versions = [
        client.put_object(Bucket=bucket, Key="k", Body=body)["VersionId"] for body in bodies
    ]
    for turn, (body, version) in enumerate(zip(bodies, versions, strict=True)):
        source = {"Bucket": bucket, "Key": "k", "VersionId": version}
        for directive in ("COPY", "REPLACE"):
            to = f"{turn}-{directive}"
            answer = client.copy_object(
                Bucket=bucket, Key=to, CopySource=source, MetadataDirective=directive
            )
            assert answer["CopySourceVersionId"] == version
            head = client.head_object(Bucket=bucket, Key=to)
            assert head["VersionId"] == answer["VersionId"]
            check(client, bucket, to, body)
    source = {"Bucket": bucket, "Key": "k", "VersionId": versions[0]}
    client.copy_object(Bucket=bucket, Key="k", CopySource=source)  # an old version restored
    check(client, bucket, "k", bodies[0])
    for body, version in zip(bodies, versions, strict=True):
        assert read(client, bucket, "k", VersionId=version) == body


def test_deleted_and_unknown_versions_are_missing(
    s3: Any, direct: Any, make_bucket: Callable[..., str]
):
    bucket = make_bucket()
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=bucket, Key="k", Body=FORMS["text"][0])["VersionId"]
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    unknown = "0" * len(version)
    for which, expected in (
        ({}, {(404, "NoSuchKey")}),
        ({"VersionId": unknown}, {(404, "NoSuchVersion")}),
        ({"VersionId": marker}, {(400, "InvalidRequest"), (404, "NoSuchKey")}),
    ):
        with pytest.raises(ClientError) as caught:
            s3.copy_object(
                Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k", **which}
            )
        assert code(caught) in expected
    s3.copy_object(
        Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "k", "VersionId": version}
    )
    check(s3, bucket, "k", FORMS["text"][0])


# --- who may

KEY_FILE = """
[keys.SCOPED]
secret = "scoped-secret-1"
buckets = ["{mine}", "{shared}/open/"]

[keys.READER]
secret = "reader-secret-1"
read-only = true

[keys.FULL]
secret = "full-secret-1"
"""


def test_what_a_client_may_not_read_it_may_not_copy(
    start_gateway: StartGateway, make_bucket: Callable[..., str], tmp_path: Path
):
    mine, shared = make_bucket(), make_bucket()
    file = tmp_path / "keys.toml"
    file.write_text(KEY_FILE.format(mine=mine, shared=shared))
    with start_gateway("--credentials", str(file)) as gateway:

        def attempt(name: str, source: str, to: str) -> tuple[int, str | None]:
            secret = f"{name.lower()}-secret-1"
            endpoint = live.Endpoint(gateway.endpoint_url, name, secret)
            headers = {"x-amz-copy-source": source}
            return raw.ask(endpoint, "PUT", to, headers).verdict

        full = live.Endpoint(gateway.endpoint_url, "FULL", "full-secret-1")
        for key in ("open/x", "closed/x"):
            assert raw.ask(full, "PUT", f"/{shared}/{key}", None, b"x" * 5000).status == 200
        denied, done = (403, "AccessDenied"), (200, None)
        assert attempt("SCOPED", f"{shared}/open/x", f"/{mine}/y") == done
        assert attempt("SCOPED", f"/{shared}/open%2Fx", f"/{shared}/open/y") == done
        assert attempt("SCOPED", f"{shared}/closed/x", f"/{mine}/z") == denied
        assert attempt("SCOPED", f"{shared}/closed%2Fx", f"/{mine}/z") == denied
        assert attempt("SCOPED", f"{shared}/closed/gone", f"/{mine}/z") == denied
        assert attempt("SCOPED", f"{shared}/open/x", f"/{shared}/closed/z") == denied
        assert attempt("READER", f"{shared}/open/x", f"/{mine}/z") == denied
        assert attempt("FULL", f"{shared}/closed/x", f"/{mine}/w") == done


def test_an_unsigned_copy_source_does_not_turn_a_signed_write_into_a_copy(
    gateway: live.Gateway, s3: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=b"secret")
    target = raw.presign(gateway, "PUT", raw.path(shared, f"{key}.copy"))
    headers = {
        "Host": gateway.netloc,
        "Content-Length": "0",
        "x-amz-copy-source": f"{shared}/{key}",
    }
    answer = raw.exchange(gateway, raw.Request("PUT", target, headers))
    assert answer.verdict == (403, "AccessDenied")


# --- stores that answer otherwise


@pytest.fixture(scope="module")
def meddling(seaweedfs: live.Seaweedfs) -> Iterator[Meddler]:
    with meddler.between(seaweedfs) as running:
        yield running


@pytest.fixture(scope="module")
def fronting(meddling: Meddler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Gateway]:
    """A gateway whose backend is the meddler."""
    with live.gateway(meddling.endpoint, tmp_path_factory.mktemp("fronting")) as running:
        yield running


def is_copy(request: Any) -> bool:
    return any(name.lower() == "x-amz-copy-source" for name, _ in request.fields)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("InternalError", (500, "InternalError")),
        ("SlowDown", (503, "SlowDown")),
        ("AccessDenied", (403, "AccessDenied")),
    ],
)
def test_an_error_under_200_reaches_the_client_as_an_error(
    stated: str,
    expected: tuple[int, str],
    meddling: Meddler,
    fronting: live.Gateway,
    s3: Any,
    shared: str,
    key: str,
):
    s3.put_object(Bucket=shared, Key=key, Body=b"x" * 5000)
    document = f"<Error><Code>{stated}</Code><Message>no</Message></Error>".encode()
    headers = {"x-amz-copy-source": f"{shared}/{key}"}
    with meddling.misbehaving(meddler.say(200, b" \n" * 50 + document), is_copy):
        answer = raw.ask(fronting, "PUT", raw.path(shared, f"{key}.copy"), headers)
    assert answer.verdict == expected


def test_white_space_that_keeps_the_connection_alive_is_tolerated(
    meddling: Meddler, fronting: live.Gateway, s3: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=b"x" * 5000)

    def padded(answer: meddler.Answer) -> meddler.Answer:
        body = b" " * 3000 + answer.body
        return meddler.Answer(answer.head, body).with_field("Content-Length", str(len(body)))

    headers = {"x-amz-copy-source": f"{shared}/{key}"}
    with meddling.misbehaving(meddler.changed(padded), is_copy):
        answer = raw.ask(fronting, "PUT", raw.path(shared, f"{key}.copy"), headers)
    assert answer.status == 200
    assert read(s3, shared, f"{key}.copy") == b"x" * 5000


@pytest.mark.parametrize("busy", [False, True])
def test_a_source_overwritten_meanwhile_is_looked_at_again(
    busy: bool, meddling: Meddler, fronting: live.Gateway, s3: Any, shared: str, key: str
):
    first, second = FORMS["text"][0], FORMS["noise"][0]
    s3.put_object(Bucket=shared, Key=key, Body=first)
    turns = iter(range(100))

    async def overwrite(exchange: Any, ask: meddler.Ask) -> None:
        turn = next(turns)
        body = second + bytes([turn]) if busy else second
        s3.put_object(Bucket=shared, Key=key, Body=body)
        await exchange.send((await ask()).wire)

    rule = overwrite if busy else meddler.times(1, overwrite)
    headers = {"x-amz-copy-source": f"{shared}/{key}", "x-amz-metadata-directive": "REPLACE"}
    with meddling.misbehaving(rule, is_copy) as seen:
        answer = raw.ask(fronting, "PUT", raw.path(shared, f"{key}.copy"), headers)
    if busy:
        assert answer.verdict == (503, "ServiceUnavailable")
        assert len(seen) == 3
    else:
        assert answer.status == 200
        check(s3, shared, f"{key}.copy", second)


@pytest.mark.parametrize("fails", [False, True])
def test_a_long_copy_is_answered_at_once_and_told_at_its_end(
    fails: bool, meddling: Meddler, fronting: live.Gateway, s3: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=b"x" * 5000)

    async def late(exchange: Any, ask: meddler.Ask) -> None:
        answer = await ask()
        await asyncio.sleep(keep_alive.PATIENCE + 1)
        if fails:
            await exchange.answer(403, b"<Error><Code>AccessDenied</Code></Error>", {})
        else:
            await exchange.send(answer.wire)

    headers = {"x-amz-copy-source": f"{shared}/{key}"}
    with meddling.misbehaving(late, is_copy):
        answer = raw.ask(fronting, "PUT", raw.path(shared, f"{key}.copy"), headers)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/xml")
    root = xml.parse(answer.body)
    if fails:
        assert (root.tag, root.findtext("Code")) == ("Error", "AccessDenied")
        assert root.findtext("RequestId") == answer.headers["x-amz-request-id"]
    else:
        etag = hashlib.md5(b"x" * 5000).hexdigest()
        assert (root.tag, root.findtext("ETag")) == ("CopyObjectResult", f'"{etag}"')


def test_a_client_that_leaves_ends_its_copy(
    meddling: Meddler, fronting: live.Gateway, s3: Any, shared: str, key: str
):
    s3.put_object(Bucket=shared, Key=key, Body=b"x" * 5000)
    headers = {"x-amz-copy-source": f"{shared}/{key}"}
    request = raw.plain(fronting, "PUT", raw.path(shared, f"{key}.copy"), headers)
    with meddling.misbehaving(meddler.stall, is_copy) as seen:
        for is_late in (False, True):
            with raw.Connection(fronting) as connection:
                connection.send(request.wire)
                if is_late:  # the head comes while the copy is still under way
                    assert connection.socket.recv(9) == b"HTTP/1.1 "
                else:
                    while not seen:
                        time.sleep(0.01)
                connection.reset()
            metering.settled(fronting)


# --- programs


@pytest.fixture(params=["http", "https"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[live.Gateway, Path]:
    """A gateway, and scratch space for a program that uses it."""
    name = "gateway" if request.param == "http" else "gateway_https"
    return request.getfixturevalue(name), tmp_path


def test_awscli_copies_and_moves(folder: tuple[live.Gateway, Path], s3: Any, shared: str, key: str):
    aws = clients.AwsCli(*folder)
    body = FORMS["text"][0]
    s3.put_object(
        Bucket=shared, Key=f"{key}/a b+c", Body=body, Metadata=METADATA, ContentType="a/b"
    )
    there = f"s3://{shared}/{key}"
    aws.command("s3", "cp", f"{there}/a b+c", f"{there}/copied")
    assert s3.head_object(Bucket=shared, Key=f"{key}/copied")["Metadata"] == METADATA
    check(s3, shared, f"{key}/copied", body)
    aws.command("s3", "mv", f"{there}/copied", f"{there}/moved")
    check(s3, shared, f"{key}/moved", body)
    aws.command(
        "s3", "cp", f"{there}/moved", f"{there}/moved",
        "--metadata-directive", "REPLACE", "--metadata", "shape=round", "--content-type", "c/d",
    )  # fmt: skip
    head = s3.head_object(Bucket=shared, Key=f"{key}/moved")
    assert (head["Metadata"], head["ContentType"]) == ({"shape": "round"}, "c/d")
    aws.command("s3", "mv", "--recursive", there, f"{there}.to")
    assert "Contents" not in s3.list_objects_v2(Bucket=shared, Prefix=f"{key}/")
    check(s3, shared, f"{key}.to/a b+c", body)
    check(s3, shared, f"{key}.to/moved", body)


def test_rclone_touches_copies_and_moves(
    folder: tuple[live.Gateway, Path], s3: Any, shared: str, key: str
):
    rclone = clients.Rclone(*folder)
    body = FORMS["frames"][0]
    rclone.put(shared, key, body, "text/plain", {"colour": "blue"})
    there = f"live:{shared}/{key}"
    rclone.command("touch", "--timestamp=2020-02-03T04:05:06", there)
    entry = json.loads(rclone.command("lsjson", "--stat", there))
    assert entry["ModTime"].startswith("2020-02-03T04:05:06")
    assert s3.head_object(Bucket=shared, Key=key)["ContentType"] == "text/plain"
    check(s3, shared, key, body)
    rclone.command("copyto", there, f"{there} + copy")
    check(s3, shared, f"{key} + copy", body)
    rclone.command("moveto", f"{there} + copy", f"{there}.moved")
    check(s3, shared, f"{key}.moved", body)


def test_s3cmd_modifies_copies_and_moves(
    folder: tuple[live.Gateway, Path], s3: Any, shared: str, key: str
):
    s3cmd = clients.S3cmd(*folder)
    body = FORMS["text"][0]
    s3cmd.put(shared, key, body, "text/plain")
    there = f"s3://{shared}/{key}"
    s3cmd.command("modify", "--add-header=Cache-Control: max-age=7", there)
    assert s3.head_object(Bucket=shared, Key=key)["CacheControl"] == "max-age=7"
    check(s3, shared, key, body)
    s3cmd.command("cp", there, f"{there} + copy")
    check(s3, shared, f"{key} + copy", body)
    s3cmd.command("mv", f"{there} + copy", f"{there}.moved")
    check(s3, shared, f"{key}.moved", body)
    assert s3cmd.stat(shared, f"{key}.moved").etag == hashlib.md5(body).hexdigest()


def test_minio_and_obstore_copy(folder: tuple[live.Gateway, Path], s3: Any, shared: str, key: str):
    body = FORMS["text"][0]
    s3.put_object(Bucket=shared, Key=key, Body=body)
    minio = clients.Minio(*folder)
    try:
        minio.client.copy_object(shared, f"{key} + minio", CopySource(shared, key))
    finally:
        minio.close()
    check(s3, shared, f"{key} + minio", body)
    obstore.copy(clients.Obstore(*folder)._store(shared), key, f"{key}.obstore")
    check(s3, shared, f"{key}.obstore", body)


def test_many_copies_at_once_all_arrive(client: Any, shared: str, key: str):
    body = FORMS["frames"][0]
    client.put_object(Bucket=shared, Key=key, Body=body)

    def copy(turn: int) -> None:
        client.copy_object(Bucket=shared, Key=f"{key}.{turn}", CopySource=f"{shared}/{key}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(copy, range(64)))
    for turn in (0, 31, 63):
        assert read(client, shared, f"{key}.{turn}", Range="bytes=-999") == body[-999:]
