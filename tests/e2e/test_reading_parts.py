"""Objects assembled from parts: one size and ETag everywhere, parts by number, their checksums.

The objects are laid into the store as they are stored, so that reading is tested by itself.
"""

import base64
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import botocore.exceptions
import pytest

from s4gateway.wire import keys
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.index import FrameIndex
from s4gateway.wire.tail import COMPOSITE
from tests import corpus, live
from tests.conftest import StartGateway
from tests.e2e import raw
from tests.objects.tailed import METADATA, Tailed, tailed

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024


def _crc32(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _composed(parts: list[bytes], **fields: Any) -> Tailed:
    sums = [_crc32(part) for part in parts]
    whole = f"{_text(_crc32(b''.join(sums)))}-{len(parts)}"
    checksum = ("crc32", whole, COMPOSITE)
    return tailed(parts, checksum=checksum, part_checksums=tuple(map(_text, sums)), **fields)


@dataclass(frozen=True, slots=True)
class Held:
    bucket: str
    key: str
    body: Tailed

    @property
    def target(self) -> str:
        return raw.path(self.bucket, self.key)

    @property
    def etag(self) -> str:
        return f'"{self.body.tail.etag}"'

    @property
    def where(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.key}


def _store(direct: Any, bucket: str, key: str, body: Tailed, pieces: list[bytes]) -> Held:
    """Complete an upload of these stored parts, then lay the sidecar beside it."""
    where = {"Bucket": bucket, "Key": key}
    upload = direct.create_multipart_upload(**where, Metadata=METADATA)["UploadId"]
    made = [
        {
            "PartNumber": number,
            "ETag": direct.upload_part(
                **where, UploadId=upload, PartNumber=number, Body=piece
            )["ETag"],
        }
        for number, piece in enumerate(pieces, 1)
    ]  # fmt: skip
    done = direct.complete_multipart_upload(
        **where, UploadId=upload, MultipartUpload={"Parts": made}
    )
    index = FrameIndex.from_entries(body.entries, total_padded=len(body.frames))
    bound = index.bind(done["ETag"].strip('"'), len(body.stored))
    direct.put_object(Bucket=bucket, Key=keys.sidecar_key(key), Body=bound.encode())
    return Held(bucket, key, body)


@pytest.fixture(scope="module")
def large(direct: Any, shared: str) -> Held:
    """Three parts: two that do not compress, and a short one behind which the tail stands."""
    parts = [corpus.noise(6 * MIB, 1), corpus.noise(5 * MIB + 17, 2), corpus.text(5000, 3)]
    body = _composed(parts, frame_size=MIB, numbers=(1, 2, 5), codecs=(CodecId.PASSTHROUGH,))
    cuts = [0]
    for start, _ in body.spans[1:]:
        cuts += [e.compressed_offset for e in body.entries if e.original_offset == start]
    pieces = [body.stored[a:b] for a, b in zip(cuts, [*cuts[1:], len(body.stored)], strict=True)]
    return _store(direct, shared, "large", body, pieces)


@pytest.fixture(scope="module")
def small(direct: Any, shared: str) -> Held:
    parts = [corpus.text(40_000, 4), b"", corpus.text(30_000, 5), corpus.text(7, 6)]
    body = _composed(parts, frame_size=9000, padding=100)
    return _store(direct, shared, "small", body, [body.stored])


@pytest.fixture(params=["large", "small"])
def held(request: pytest.FixtureRequest) -> Held:
    found: Held = request.getfixturevalue(request.param)
    return found


def test_size_and_etag_are_those_of_the_original_everywhere(
    gateway: live.Gateway, s3: Any, held: Held
):
    plain = held.body.plain
    size = str(len(plain))
    head = raw.ask(gateway, "HEAD", held.target)
    read = raw.ask(gateway, "GET", held.target)
    part = raw.ask(gateway, "GET", held.target, {"Range": "bytes=10-19"})
    same = raw.ask(gateway, "GET", held.target, {"If-None-Match": held.etag})
    assert [each.status for each in (head, read, part, same)] == [200, 200, 206, 304]
    assert {each.headers["etag"] for each in (head, read, part, same)} == {held.etag}
    assert head.headers["content-length"] == read.headers["content-length"] == size
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    assert (read.body, part.body) == (plain, plain[10:20])
    for answer in (head, read, part, same):
        assert not [name for name in answer.headers if "s4-" in name or "parts-count" in name]
    assert raw.ask(gateway, "GET", held.target, {"If-Match": held.etag}).status == 200
    assert raw.ask(gateway, "HEAD", held.target, {"If-Match": '"0"'}).status == 412
    for list_objects in (s3.list_objects, s3.list_objects_v2):
        (listed,) = list_objects(Bucket=held.bucket, Prefix=held.key)["Contents"]
        assert (listed["Key"], listed["ETag"], listed["Size"]) == (held.key, held.etag, len(plain))


def test_another_gateway_shows_the_same(
    start_gateway: StartGateway, gateway: live.Gateway, large: Held, small: Held
):
    with start_gateway() as other:
        for held in (large, small):
            span = {"Range": "bytes=-100"}
            for method, headers in (("HEAD", {}), ("GET", span), ("GET", {})):
                here = raw.ask(gateway, method, held.target, headers)
                there = raw.ask(other, method, held.target, headers)
                assert (here.status, here.body) == (there.status, there.body)
                assert here.headers["etag"] == there.headers["etag"] == held.etag
                assert here.headers["content-length"] == there.headers["content-length"]


def test_a_listing_alone_finds_size_and_etag(start_gateway: StartGateway, large: Held, small: Held):
    with start_gateway() as other:
        listed = raw.ask(other, "GET", f"/{large.bucket}?list-type=2")
        for held in (large, small):
            assert f"<Size>{len(held.body.plain)}</Size>".encode() in listed.body
            assert held.body.tail.etag.encode() in listed.body


def test_parts_are_the_clients_by_their_position(gateway: live.Gateway, held: Held):
    plain, spans = held.body.plain, held.body.spans
    for position, (start, end) in enumerate(spans, 1):
        for method in ("GET", "HEAD"):
            answer = raw.ask(gateway, method, f"{held.target}?partNumber={position}")
            if start == end:
                assert answer.status == 416
                assert answer.headers["content-range"] == f"bytes */{len(plain)}"
                continue
            assert answer.status == 206
            assert answer.headers["content-length"] == str(end - start)
            assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(plain)}"
            assert answer.headers["x-amz-mp-parts-count"] == str(len(spans))
            assert answer.headers["etag"] == held.etag
            assert answer.body == (plain[start:end] if method == "GET" else b"")


def test_a_part_that_is_not_there_is_not_satisfiable(gateway: live.Gateway, held: Held):
    beyond = len(held.body.spans) + 1
    for number in (beyond, 10_000):
        answer = raw.ask(gateway, "GET", f"{held.target}?partNumber={number}")
        assert answer.verdict == (416, "InvalidPartNumber")
        assert answer.field("ActualPartCount") == str(beyond - 1)
        assert answer.field("PartNumberRequested") == str(number)
        assert raw.ask(gateway, "HEAD", f"{held.target}?partNumber={number}").status == 416


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", "", "1" * 6000, "%D9%A1"])
def test_a_part_number_is_a_number_in_range(gateway: live.Gateway, small: Held, number: str):
    target = f"{small.target}?partNumber={number}"
    assert raw.ask(gateway, "GET", target).verdict == (400, "InvalidArgument")
    assert raw.ask(gateway, "HEAD", target).status == 400


def test_part_and_range_exclude_each_other(gateway: live.Gateway, small: Held):
    target = f"{small.target}?partNumber=1"
    answer = raw.ask(gateway, "GET", target, {"Range": "bytes=0-1"})
    assert answer.verdict == (400, "InvalidRequest")


def test_conditions_hold_for_parts(gateway: live.Gateway, small: Held):
    target = f"{small.target}?partNumber=1"
    assert raw.ask(gateway, "GET", target, {"If-None-Match": small.etag}).status == 304
    assert raw.ask(gateway, "GET", target, {"If-Match": small.etag}).status == 206
    assert raw.ask(gateway, "GET", target, {"If-Match": '"0"'}).status == 412


def test_ranges_across_the_edges_of_parts(gateway: live.Gateway, held: Held):
    plain = held.body.plain
    for edge in {at for span in held.body.spans for at in span} - {0, len(plain)}:
        for start, beyond in ((edge - 1, edge), (edge, edge + 1), (edge - 7, edge + 9)):
            end = min(beyond, len(plain))
            for method in ("GET", "HEAD"):
                span = {"Range": f"bytes={start}-{end - 1}"}
                answer = raw.ask(gateway, method, held.target, span)
                assert answer.status == 206
                assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(plain)}"
                assert answer.headers["content-length"] == str(end - start)
                assert answer.body == (plain[start:end] if method == "GET" else b"")


def test_checksums_are_echoed_as_declared_and_parts_have_their_own(s3: Any, held: Held):
    assert held.body.tail.checksum is not None
    whole = held.body.tail.checksum[1]
    for ask in (s3.head_object, s3.get_object):
        found = ask(**held.where, ChecksumMode="ENABLED")
        assert (found["ChecksumCRC32"], found["ChecksumType"]) == (whole, "COMPOSITE")
    assert "ChecksumCRC32" not in s3.get_object(**held.where, Range="bytes=0-9")
    for position, (start, end) in enumerate(held.body.spans, 1):
        if start == end:
            continue
        found = s3.get_object(**held.where, PartNumber=position, ChecksumMode="ENABLED")
        assert found["ChecksumCRC32"] == _text(_crc32(held.body.plain[start:end]))
        assert found["Body"].read() == held.body.plain[start:end]  # boto3 verifies it


ATTRIBUTES = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]


def _attributes(client: Any, where: dict[str, str], **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.get_object_attributes(
        **where, **{"ObjectAttributes": ATTRIBUTES, **more}
    )
    found["status"] = found.pop("ResponseMetadata")["HTTPStatusCode"]
    return found


def test_attributes_of_an_object_from_parts(s3: Any, direct: Any, held: Held):
    found = _attributes(s3, held.where)
    assert found.pop("LastModified") == s3.head_object(**held.where)["LastModified"]
    tail = held.body.tail
    assert tail.checksum is not None
    numbers = [number for number, _ in tail.parts]
    parts = [
        {"PartNumber": number, "Size": size, "ChecksumCRC32": checksum}
        for (number, size), checksum in zip(tail.parts, tail.part_checksums, strict=True)
    ]
    assert found == {
        "status": 200,
        "ETag": tail.etag,
        "ObjectSize": tail.original_size,
        "StorageClass": "STANDARD",
        "Checksum": {
            "ChecksumCRC32": tail.checksum[1].partition("-")[0],
            "ChecksumType": "COMPOSITE",
        },
        "ObjectParts": {
            "TotalPartsCount": len(parts),
            "IsTruncated": False,
            "MaxParts": 1000,
            "PartNumberMarker": 0,
            "NextPartNumberMarker": numbers[-1],
            "Parts": parts,
        },
    }
    page = _attributes(s3, held.where, MaxParts=1, PartNumberMarker=1)["ObjectParts"]
    assert page["Parts"] == parts[1:2]
    assert (page["IsTruncated"], page["NextPartNumberMarker"]) == (True, numbers[1])
    only = _attributes(s3, held.where, ObjectAttributes=["ObjectSize"])
    assert (only.keys() - {"LastModified", "status"}) == {"ObjectSize"}


@pytest.mark.parametrize("make", [corpus.text, corpus.noise])
def test_attributes_of_an_object_written_at_once(
    s3: Any, shared: str, key: str, make: Callable[[int], bytes]
):
    body = make(300_000)
    where = {"Bucket": shared, "Key": key}
    s3.put_object(**where, Body=body, ChecksumAlgorithm="SHA256")
    found = _attributes(s3, where)
    assert found["ETag"] == hashlib.md5(body).hexdigest()
    assert found["ObjectSize"] == len(body)
    digest = _text(hashlib.sha256(body).digest())
    assert found["Checksum"] == {"ChecksumSHA256": digest, "ChecksumType": "FULL_OBJECT"}
    assert "ObjectParts" not in found


def test_attributes_of_objects_of_others(s3: Any, direct: Any, shared: str, key: str):
    where = {"Bucket": shared, "Key": key}
    direct.put_object(**where, Body=b"theirs")
    found = _attributes(s3, where)
    assert (found["ETag"], found["ObjectSize"]) == (hashlib.md5(b"theirs").hexdigest(), 6)
    assert (found["StorageClass"], "ObjectParts" in found) == ("STANDARD", False)
    checksum = direct.get_object(**where, ChecksumMode="ENABLED").get("ChecksumCRC32")
    assert found.get("Checksum", {"ChecksumCRC32": checksum})["ChecksumCRC32"] == checksum


def test_attributes_of_a_version(s3: Any, make_bucket: Callable[..., str]):
    where = {"Bucket": make_bucket(), "Key": "k"}
    s3.put_bucket_versioning(Bucket=where["Bucket"], VersioningConfiguration={"Status": "Enabled"})
    older = s3.put_object(**where, Body=b"1" * 5000)["VersionId"]
    newer = s3.put_object(**where, Body=b"22")["VersionId"]
    assert _attributes(s3, where)["VersionId"] == newer
    found = _attributes(s3, where, VersionId=older)
    assert (found["VersionId"], found["ObjectSize"]) == (older, 5000)
    s3.delete_object(**where)
    with pytest.raises(botocore.exceptions.ClientError, match="NoSuchKey"):
        _attributes(s3, where)


def test_attributes_that_cannot_be_told_are_refused(gateway: live.Gateway, small: Held):
    target = f"{small.target}?attributes"
    assert raw.ask(gateway, "GET", target).verdict == (400, "InvalidRequest")
    for headers in (
        {"x-amz-object-attributes": "Colour"},
        {"x-amz-object-attributes": "ETag", "x-amz-max-parts": "x"},
    ):
        assert raw.ask(gateway, "GET", target, headers).verdict == (400, "InvalidArgument")
    reserved = raw.path(small.bucket, "small.s4index") + "?attributes"
    wanted = {"x-amz-object-attributes": "ETag"}
    assert raw.ask(gateway, "GET", reserved, wanted).verdict == (404, "NoSuchKey")


def test_parts_of_objects_of_others_are_what_the_backend_says(
    gateway: live.Gateway, seaweedfs: live.Seaweedfs, s3: Any, direct: Any, shared: str, key: str
):
    where = {"Bucket": shared, "Key": key}
    upload = direct.create_multipart_upload(**where)["UploadId"]
    made = []
    for number, body in ((1, corpus.noise(5 * MIB, 8)), (3, corpus.text(1000, 9))):
        part = direct.upload_part(**where, UploadId=upload, PartNumber=number, Body=body)
        made.append({"PartNumber": number, "ETag": part["ETag"]})
    direct.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": made})
    target = raw.path(shared, key)
    compared = (
        "content-length", "content-range", "content-type", "etag", "last-modified",
        "x-amz-mp-parts-count",
    )  # fmt: skip
    for number in range(1, 5):
        for method in ("GET", "HEAD"):
            there = raw.ask(seaweedfs, method, f"{target}?partNumber={number}")
            here = raw.ask(gateway, method, f"{target}?partNumber={number}")
            assert here.verdict == there.verdict
            if there.status < 300:
                assert here.body == there.body
                assert [here.headers.get(n) for n in compared] == [
                    there.headers.get(n) for n in compared
                ]
    etag = direct.head_object(**where)["ETag"]
    part_one = f"{target}?partNumber=1"
    assert raw.ask(gateway, "GET", part_one, {"If-None-Match": etag}).status == 304
    assert raw.ask(gateway, "GET", part_one, {"If-Match": '"0"'}).status == 412
    assert _attributes(s3, where)["ObjectParts"] == {"TotalPartsCount": 2}
