"""GetObject and HeadObject: ranges, conditions, objects of others, objects that change."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from s4gateway.codecs import decoder, registry
from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from tests import clients, corpus, live
from tests.e2e import raw

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stored:
    target: str
    body: bytes


FORMS = {
    "small": lambda: corpus.text(4_000, seed=1),
    "one-frame": lambda: corpus.text(700_000, seed=2),
    "many-frames": lambda: corpus.text(5_300_000, seed=3),
    "passthrough": lambda: corpus.noise(300_000, seed=4),
    "mixed": lambda: corpus.quiet_head(9_000_000, 4_500_000, seed=5),
}


@pytest.fixture(scope="module")
def stored(gateway: live.Gateway, shared: str) -> Callable[[str], Stored]:
    """An object of a form, stored once through the gateway; "foreign" ones at the backend."""
    made: dict[str, Stored] = {}

    def find(form: str) -> Stored:
        if form not in made:
            body = FORMS[form]()
            target = raw.path(shared, f"form/{form}")
            assert raw.ask(gateway, "PUT", target, None, body).status == 200
            made[form] = Stored(target, body)
        return made[form]

    return find


@pytest.fixture(scope="module")
def foreign(direct: Any, shared: str) -> Stored:
    body = corpus.text(200_000, seed=6)
    direct.put_object(Bucket=shared, Key="foreign", Body=body, Metadata={"theirs": "1"})
    return Stored(raw.path(shared, "foreign"), body)


# --- ranges


def _ranges(size: int) -> dict[str, tuple[int, int] | int | None]:
    """Range header -> (start, end exclusive), None for the whole object, or an error status."""
    last = size - 1
    return {
        "bytes=0-0": (0, 1),
        "bytes=0-": (0, size),
        f"bytes=0-{last}": (0, size),
        f"bytes=0-{size}": (0, size),
        f"bytes=0-{size + 10**9}": (0, size),
        f"bytes={last}-": (last, size),
        f"bytes={last}-{last}": (last, size),
        "bytes=-1": (last, size),
        "bytes=-100": (size - 100, size),
        f"bytes=-{size}": (0, size),
        f"bytes=-{size * 2}": (0, size),
        "bytes=1000-2000": (1000, 2001),
        f"bytes={size // 2}-{size // 2 + 999}": (size // 2, size // 2 + 1000),
        f"bytes={size}-": 416,
        f"bytes={size + 5}-{size + 9}": 416,
        "bytes=-0": 416,
        "bytes=9-3": None,
        "bytes=abc": None,
        "bytes=": None,
        "": None,
        "bytes=1": None,
        "bytes=--1": None,
        "bytes=1-2-3": None,
        "bytes=0-1,5-6": None,
        "lines=0-1": None,
        "0-1": None,
    }


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_range(
    form: str, method: str, gateway: live.Gateway, stored: Callable[[str], Stored]
):
    held = stored(form)
    size = len(held.body)
    etag = f'"{hashlib.md5(held.body).hexdigest()}"'
    for header, wanted in _ranges(size).items():
        answer = raw.ask(gateway, method, held.target, {"Range": header})
        if wanted == 416:
            assert answer.status == 416, header
            assert answer.headers["content-range"] == f"bytes */{size}"
            if method == "GET":
                assert answer.code == "InvalidRange"
                assert answer.field("ActualObjectSize") == str(size)
            continue
        assert isinstance(wanted, tuple | None)
        start, end = wanted or (0, size)
        assert answer.status == (206 if wanted else 200), header
        content_range = f"bytes {start}-{end - 1}/{size}" if wanted else None
        assert answer.headers.get("content-range") == content_range
        assert answer.headers["content-length"] == str(end - start)
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["etag"] == etag
        if method == "GET":
            assert answer.body == held.body[start:end], header


@pytest.mark.parametrize("form", ["many-frames", "mixed"])
def test_ranges_at_every_frame_edge(
    form: str, gateway: live.Gateway, direct: Any, shared: str, stored: Callable[[str], Stored]
):
    held = stored(form)
    with direct.get_object(Bucket=shared, Key=f"form/{form}")["Body"] as body:
        frames = list(frame.walk(body.read()))
    assert len(frames) > 1
    edges, position = [0], 0
    for _, header, _ in frames:
        position += header.original_size
        edges.append(position)
    assert position == len(held.body)
    for edge in edges:
        for start, end in (
            (edge - 1, edge + 1),
            (edge - 1, edge),
            (edge, edge + 1),
            (edge - 5, edge + MIB),
        ):
            if 0 <= start < len(held.body):
                span = {"Range": f"bytes={start}-{end - 1}"}
                assert raw.ask(gateway, "GET", held.target, span).body == held.body[start:end]


def test_ranges_of_an_empty_object(
    gateway: live.Gateway, seaweedfs: live.Seaweedfs, shared: str, key: str
):
    target = raw.path(shared, key)
    assert raw.ask(gateway, "PUT", target, None, b"").status == 200
    for header in ("bytes=0-", "bytes=0-0", "bytes=5-9"):
        answer = raw.ask(gateway, "GET", target, {"Range": header})
        assert answer.verdict == (416, "InvalidRange"), header
        assert answer.headers["content-range"] == "bytes */0"
    for header in ("bytes=-1", "bytes=-100"):
        answer = raw.ask(gateway, "GET", target, {"Range": header})
        assert answer.verdict == (416, "InvalidRange"), header
    for header in ("bytes=abc", "bytes=0-1,2-3"):
        answer = raw.ask(gateway, "GET", target, {"Range": header})
        assert (answer.status, answer.body) == (200, b"")
    whole = raw.ask(gateway, "GET", target)
    assert (whole.status, whole.body, whole.headers["content-length"]) == (200, b"", "0")


def test_two_range_headers_are_one_list_and_so_ignored(
    gateway: live.Gateway, stored: Callable[[str], Stored]
):
    held = stored("small")
    request = raw.plain(gateway, "GET", held.target)
    head = request.head[:-2] + b"Range: bytes=0-1\r\nRange: bytes=4-5\r\n\r\n"
    with raw.Connection(gateway) as connection:
        connection.send(head)
        answer = connection.answer()
    assert (answer.status, answer.body) == (200, held.body)


@pytest.mark.parametrize("form", ["small", "many-frames", "passthrough"])
def test_if_range(form: str, gateway: live.Gateway, stored: Callable[[str], Stored]):
    held = stored(form)
    head = raw.ask(gateway, "HEAD", held.target)
    modified = head.headers["last-modified"]
    earlier = "Wed, 21 Oct 2015 07:28:00 GMT"
    cases = {
        head.headers["etag"]: 206,
        modified: 206,
        '"other"': 200,
        earlier: 200,
        "nonsense": 200,
    }
    for value, status in cases.items():
        headers = {"Range": "bytes=10-19", "If-Range": value}
        answer = raw.ask(gateway, "GET", held.target, headers)
        wanted = held.body[10:20] if status == 206 else held.body
        assert (answer.status, answer.body) == (status, wanted), value
    weak = {"Range": "bytes=10-19", "If-Range": f"W/{head.headers['etag']}"}
    assert raw.ask(gateway, "GET", held.target, weak).status == 200


# --- conditions


def _conditions(etag: str, modified: datetime) -> dict[tuple[tuple[str, str], ...], int]:
    """Conditional headers -> status of a GET; RFC 9110 section 13.2.2, as S3 applies it."""
    past = format_datetime(modified - timedelta(days=1), usegmt=True)
    same = format_datetime(modified, usegmt=True)
    future = format_datetime(modified + timedelta(hours=1), usegmt=True)
    match, no_match = ("If-Match", etag), ("If-Match", '"0"')
    none, not_none = ("If-None-Match", etag), ("If-None-Match", '"0"')
    since, not_since = ("If-Modified-Since", past), ("If-Modified-Since", same)
    unmodified, is_modified = ("If-Unmodified-Since", future), ("If-Unmodified-Since", past)
    return {
        (match,): 200,
        (no_match,): 412,
        (("If-Match", "*"),): 200,
        (("If-Match", etag.strip('"')),): 200,
        (("If-Match", f'"0", {etag}'),): 200,
        (none,): 304,
        (not_none,): 200,
        (("If-None-Match", "*"),): 304,
        (("If-None-Match", f"W/{etag}"),): 304,
        (since,): 200,
        (not_since,): 304,
        (unmodified,): 200,
        (("If-Unmodified-Since", same),): 200,
        (is_modified,): 412,
        (match, is_modified): 200,
        (no_match, unmodified): 412,
        (none, since): 304,
        (not_none, not_since): 200,
        (match, none): 304,
        (("If-Modified-Since", "not a date"),): 200,
        (("If-Unmodified-Since", "not a date"),): 200,
    }


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("form", ["small", "many-frames", "passthrough", "foreign"])
def test_conditions_on_an_object_that_exists(
    form: str,
    method: str,
    gateway: live.Gateway,
    stored: Callable[[str], Stored],
    foreign: Stored,
):
    held = foreign if form == "foreign" else stored(form)
    head = raw.ask(gateway, "HEAD", held.target)
    etag = head.headers["etag"]
    modified = parsedate_to_datetime(head.headers["last-modified"])
    for headers, status in _conditions(etag, modified).items():
        answer = raw.ask(gateway, method, held.target, dict(headers))
        assert answer.status == status, headers
        if status == 304:
            assert answer.headers["etag"] == etag
            assert answer.body == b""
        if status == 412 and method == "GET":
            assert answer.code == "PreconditionFailed"
        if status == 200 and method == "GET":
            assert answer.body == held.body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions_on_a_key_that_is_missing(
    method: str, gateway: live.Gateway, shared: str, key: str
):
    for headers in _conditions('"0"', datetime.now(UTC)):
        answer = raw.ask(gateway, method, raw.path(shared, key), dict(headers))
        assert answer.status == 404, headers
        assert method == "HEAD" or answer.code == "NoSuchKey"


def test_a_condition_and_a_range_together(gateway: live.Gateway, stored: Callable[[str], Stored]):
    held = stored("many-frames")
    etag = raw.ask(gateway, "HEAD", held.target).headers["etag"]
    span = {"Range": "bytes=5000000-5000009"}
    read = raw.ask(gateway, "GET", held.target, span | {"If-Match": etag})
    assert (read.status, read.body) == (206, held.body[5000000:5000010])
    assert raw.ask(gateway, "GET", held.target, span | {"If-Match": '"0"'}).status == 412
    assert raw.ask(gateway, "GET", held.target, span | {"If-None-Match": etag}).status == 304


def test_part_one_of_a_single_put_is_the_whole_object(
    gateway: live.Gateway, stored: Callable[[str], Stored]
):
    held = stored("one-frame")
    read = raw.ask(gateway, "GET", f"{held.target}?partNumber=1")
    assert (read.status, read.body) == (206, held.body)
    head = raw.ask(gateway, "HEAD", f"{held.target}?partNumber=1")
    assert head.headers["content-length"] == str(len(held.body))
    assert raw.ask(gateway, "GET", f"{held.target}?partNumber=2").status == 416
    assert raw.ask(gateway, "GET", f"{held.target}?partNumber=0").verdict == (
        400,
        "InvalidArgument",
    )


# --- objects of others


def test_foreign_objects_pass_through_as_the_backend_shows_them(
    gateway: live.Gateway, seaweedfs: live.Seaweedfs, foreign: Stored
):
    for headers in (
        {},
        {"Range": "bytes=100-199"},
        {"Range": "bytes=-50"},
        {"Range": "bytes=9999999-"},
    ):
        through = raw.ask(gateway, "GET", foreign.target, headers)
        direct = raw.ask(seaweedfs, "GET", foreign.target, headers)
        assert through.verdict == direct.verdict
        if direct.status < 300:
            assert through.body == direct.body
            for name in (
                "etag",
                "content-length",
                "content-range",
                "content-type",
                "last-modified",
            ):
                assert through.headers.get(name) == direct.headers.get(name), name
            assert through.headers["x-amz-meta-theirs"] == "1"


def test_a_foreign_multipart_object_passes_through(
    gateway: live.Gateway, direct: Any, shared: str, key: str
):
    upload = direct.create_multipart_upload(Bucket=shared, Key=key)["UploadId"]
    bodies = [corpus.text(5 * MIB, seed=8), corpus.text(1000, seed=9)]
    parts = []
    for number, body in enumerate(bodies, 1):
        made = direct.upload_part(
            Bucket=shared, Key=key, UploadId=upload, PartNumber=number, Body=body
        )
        parts.append({"PartNumber": number, "ETag": made["ETag"]})
    direct.complete_multipart_upload(
        Bucket=shared, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
    )
    whole = b"".join(bodies)
    target = raw.path(shared, key)
    read = raw.ask(gateway, "GET", target)
    assert (read.body, read.headers["etag"]) == (
        whole, direct.head_object(Bucket=shared, Key=key)["ETag"],
    )  # fmt: skip
    edge = raw.ask(gateway, "GET", target, {"Range": f"bytes={5 * MIB - 5}-{5 * MIB + 4}"})
    assert (edge.status, edge.body) == (206, whole[5 * MIB - 5 : 5 * MIB + 5])


def test_objects_replaced_at_the_backend_between_requests_are_seen(
    gateway: live.Gateway, direct: Any, shared: str, key: str
):
    target = raw.path(shared, key)
    mine = corpus.text(3_000_000, seed=10)
    theirs = corpus.text(2_900_000, seed=11)
    span = {"Range": "bytes=2500000-2500099"}
    for turn in range(2):
        assert raw.ask(gateway, "PUT", target, None, mine).status == 200
        assert raw.ask(gateway, "GET", target, span).body == mine[2500000:2500100]
        assert _listed(gateway, shared, key) == (len(mine), hashlib.md5(mine).hexdigest())
        direct.put_object(Bucket=shared, Key=key, Body=theirs)
        assert raw.ask(gateway, "GET", target, span).body == theirs[2500000:2500100], turn
        assert raw.ask(gateway, "GET", target).body == theirs
        head = raw.ask(gateway, "HEAD", target)
        assert head.headers["etag"] == f'"{hashlib.md5(theirs).hexdigest()}"'
        assert _listed(gateway, shared, key) == (len(theirs), hashlib.md5(theirs).hexdigest())
    direct.delete_object(Bucket=shared, Key=key)
    assert raw.ask(gateway, "GET", target, span).verdict == (404, "NoSuchKey")


def _listed(endpoint: live.Endpoint, bucket: str, prefix: str) -> tuple[int, str]:
    client = clients.boto3_client(endpoint)
    (entry,) = client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    client.close()
    return entry["Size"], entry["ETag"].strip('"')


def test_another_gateway_shows_the_same(
    gateway: live.Gateway, gateway_https: live.Gateway, shared: str, stored: Callable[[str], Stored]
):
    for form in FORMS:
        held = stored(form)
        for headers in ({}, {"Range": "bytes=-1000"}):
            one, two = (
                raw.ask(each, "GET", held.target, headers) for each in (gateway, gateway_https)
            )
            assert one.body == two.body
            for name in (
                "etag",
                "content-length",
                "content-range",
                "content-type",
                "last-modified",
            ):
                assert one.headers.get(name) == two.headers.get(name)
        assert _listed(gateway, shared, f"form/{form}") == _listed(
            gateway_https, shared, f"form/{form}"
        )


# --- the bytes without the gateway


@pytest.mark.parametrize("form", [*FORMS])
def test_stored_objects_decode_with_the_stock_zstd_once_frame_headers_are_cut(
    form: str, direct: Any, shared: str, stored: Callable[[str], Stored], tmp_path: Path
):
    held = stored(form)
    with direct.get_object(Bucket=shared, Key=f"form/{form}")["Body"] as body:
        kept = body.read()
    if form == "passthrough":
        assert kept == held.body
        return
    assert len(kept) < len(held.body)
    plain: list[bytes] = []
    run: list[bytes] = []
    for _, header, payload in frame.walk(kept):
        if header.codec is CodecId.CPU_ZSTD:
            run.append(bytes(payload))
            continue
        assert header.codec is CodecId.PASSTHROUGH
        if run:
            plain.append(clients.zstd_decode(b"".join(run), tmp_path))
            run.clear()
        plain.append(bytes(payload))
    if run:
        plain.append(clients.zstd_decode(b"".join(run), tmp_path))
    assert b"".join(plain) == held.body


def test_stored_objects_decode_with_the_packages_own_codecs(
    direct: Any, shared: str, stored: Callable[[str], Stored]
):
    held = stored("many-frames")
    with direct.get_object(Bucket=shared, Key="form/many-frames")["Body"] as body:
        kept = body.read()
    pieces = [
        piece
        for _, header, payload in frame.walk(kept)
        for piece in decoder.decode_frame(header, [payload], registry.Registry())
    ]
    assert b"".join(pieces) == held.body
