"""Forms: what a client may write into one, cut into pieces in every way."""

import hashlib
import itertools
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.gateway.body import ClientGone, RequestBody
from s4gateway.gateway.form import FIELDS_LIMIT, Form
from s4gateway.s3.checksums import Digests
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers
from tests import forms

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
FIELDS = (("key", "user/${filename}"), ("acl", "private"), ("x-amz-meta-ü", "ä\r\n--b"))
FILE = b"the file\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n\r\n--\r\n" + bytes(range(256))


def request(
    pieces: Sequence[bytes], headers: dict[str, str] | None = None, *, ends: bool = True
) -> tuple[RequestBody, Headers]:
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    messages.append(
        {"type": "http.request", "body": b"", "more_body": False}
        if ends
        else {"type": "http.disconnect"}
    )
    messages.reverse()

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop()

    given_headers = {
        "content-type": f"multipart/form-data; boundary={BOUNDARY}",
        "content-length": str(sum(map(len, pieces))),
    } | (headers or {})
    kept = Headers({name: value for name, value in given_headers.items() if value})
    return RequestBody(receive, kept, None, 1 << 30), kept


async def read(
    pieces: Sequence[bytes],
    headers: dict[str, str] | None = None,
    sizes: tuple[int, int] | None = None,
    *,
    ends: bool = True,
) -> tuple[list[tuple[str, str | None]], bytes]:
    form = await Form.open(*request(pieces, headers, ends=ends))
    form.sizes = sizes
    bound = form.length
    data = b"".join([bytes(piece) async for piece in form.pieces()])
    assert bound is None or bound >= len(data)
    return [(name, form.fields.get(name)) for name in form.fields], data


async def code_of(pieces: Sequence[bytes], *arguments: Any, **more: Any) -> str:
    with pytest.raises(S3Error) as caught:
        await read(pieces, *arguments, **more)
    return caught.value.code


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def encode(file: bytes = FILE, **more: Any) -> bytes:
    return forms.encode(FIELDS, file, boundary=BOUNDARY, file_name="cat.png", **more)


EXPECTED = [("key", "user/cat.png"), ("acl", "private"), ("x-amz-meta-ü", "ä\r\n--b")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 39, 40, 41, 100, 1 << 20])
async def test_a_form_is_the_same_however_it_is_cut(size: int):
    assert await read(cut(encode(), size)) == (EXPECTED, FILE)


@given(file=st.binary(max_size=600), cuts=st.sets(st.integers(0, 1200), max_size=12))
async def test_a_file_comes_as_it_was_sent(file: bytes, cuts: set[int]):
    data = encode(file)
    edges = [0, *sorted(each for each in cuts if 0 < each < len(data)), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    assert await read(pieces) == (EXPECTED, file)


# What looks most like a boundary, so that every state of the search for one is met.
@given(
    st.lists(
        st.sampled_from([b"\r", b"\n", b"\r\n", b"--", b"-", BOUNDARY.encode(), b"x"]), max_size=12
    ),
    st.integers(1, 50),
)
async def test_what_looks_like_a_boundary_is_part_of_the_file(bits: list[bytes], size: int):
    file = b"".join(bits)
    if b"\r\n--" + BOUNDARY.encode() in b"\r\n" + file:
        return
    assert await read(cut(encode(file), size)) == (EXPECTED, file)


@given(data=st.binary(max_size=300), at=st.integers(0, 2000), size=st.integers(1, 200))
async def test_a_spoilt_form_is_refused_or_read_never_anything_else(
    data: bytes, at: int, size: int
):
    sound = encode()
    at %= len(sound)
    spoilt = sound[:at] + data + sound[at + len(data) :]
    try:
        await read(cut(spoilt, size))
    except S3Error as error:
        status = error.status
    else:
        status = 400
    assert status == 400


async def test_no_prefix_of_a_form_is_taken_for_a_form():
    data = encode()
    for end in range(len(data) - 2):  # the last line break may be missing
        assert await code_of([data[:end]]) == "MalformedPOSTRequest", end
    assert (await read([data[:-2]]))[1] == FILE


async def test_a_body_that_is_shorter_than_announced_is_refused():
    assert await code_of([encode()], {"content-length": "5000"}) == "IncompleteBody"
    with pytest.raises(ClientGone):
        await read([encode()], {"content-length": "5000"}, ends=False)
    with pytest.raises(ClientGone):
        await read([encode()[:50]], ends=False)


async def test_what_the_request_declares_of_the_whole_form_is_verified():
    data = encode()
    right, wrong = hashlib.sha256(data).hexdigest(), hashlib.sha256(data[1:]).hexdigest()
    assert (await read(cut(data, 100), {"x-amz-content-sha256": right}))[1] == FILE
    assert await code_of(cut(data, 100), {"x-amz-content-sha256": wrong}) == (
        "XAmzContentSHA256Mismatch"
    )


@pytest.mark.parametrize(
    ("content_type", "code"),
    [
        ("multipart/form-data", "MalformedPOSTRequest"),
        ("multipart/form-data; boundary=", "MalformedPOSTRequest"),
        ("multipart/form-data; boundary=" + "b" * 71, "MalformedPOSTRequest"),
        ("multipart/form-data; boundary=other", "MalformedPOSTRequest"),
        ("multipart/form-data; boundary*=UTF-8''" + BOUNDARY, "MalformedPOSTRequest"),
    ],
)
async def test_the_boundary_is_the_one_of_the_request(content_type: str, code: str):
    assert await code_of([encode()], {"content-type": content_type}) == code


async def test_a_boundary_may_be_quoted():
    quoted = f'Multipart/Form-Data; charset=utf-8; boundary="{BOUNDARY}"'
    assert await read([encode()], {"content-type": quoted}) == (EXPECTED, FILE)


async def test_a_form_of_unknown_length_is_read_and_a_request_without_a_body_is_not():
    unknown = {"content-length": "", "transfer-encoding": "chunked"}
    assert await read([encode()], unknown) == (EXPECTED, FILE)
    assert await code_of([], {"content-length": ""}) == "MissingContentLength"


class TestFields:
    async def test_what_stands_behind_the_file_is_read_and_ignored(self):
        behind = (("key", "other"), ("submit", "Upload"), ("success_action_status", "\udcff"))
        assert await read(cut(encode(behind=behind), 50)) == (EXPECTED, FILE)

    @pytest.mark.parametrize("where", ["before", "behind"])
    async def test_a_form_is_not_longer_than_20_kb_without_its_file(self, where: str):
        overhead = len(encode(b"", **{where: [("x-ignore-a", "")]}))
        room = FIELDS_LIMIT - overhead
        for size in (1000, 1 << 20):
            fits = encode(FILE * 300, **{where: [("x-ignore-a", "a" * room)]})
            assert await read(cut(fits, size)) == (EXPECTED, FILE * 300)
            long = encode(b"", **{where: [("x-ignore-a", "a" * (room + 1))]})
            assert await code_of(cut(long, size)) == "MaxPostPreDataLengthExceededError"

    async def test_an_epilogue_counts_and_a_preamble_is_a_line_break(self):
        line = b"\r\n" + b"a" * FIELDS_LIMIT
        assert await code_of(cut(encode() + line, 1000)) == "MaxPostPreDataLengthExceededError"
        assert await code_of(cut(line + encode(), 1000)) == "MalformedPOSTRequest"
        assert (await read([b"\r\n" + encode() + b"\r\nepilogue"]))[1] == FILE

    @pytest.mark.parametrize("name", ["file", "FILE", "File"])
    async def test_the_field_called_file_is_the_file_whatever_its_case(self, name: str):
        assert await read([encode(name=name)]) == (EXPECTED, FILE)

    async def test_a_field_may_have_a_file_name_and_a_file_none(self):
        data = forms.encode([("key", "k-${filename}")], b"x", boundary=BOUNDARY, file_name=None)
        named = data.replace(b'name="key"', b'name="key"; filename="key"')
        assert await read([named]) == ([("key", "k-")], b"x")

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ('"a.txt"', "a.txt"), ('"C:\\\\dir\\\\a.txt"', "a.txt"), ("a.txt", "a.txt"),
            ('"ü;b.txt"', "ü;b.txt"), ('"a\\"b"', 'a"b'), ('""', ""),
        ],
    )  # fmt: skip
    async def test_the_name_of_the_file(self, written: str, meant: str):
        data = encode().replace(b'filename="cat.png"', f"filename={written}".encode())
        assert (await read([data]))[0][0] == ("key", f"user/{meant}")


class TestRefusals:
    @pytest.mark.parametrize("files", [0, 2])
    async def test_a_form_has_one_file(self, files: int):
        data = forms.encode(FIELDS, *[b"x"] * files, boundary=BOUNDARY)
        for size in (10, 1 << 20):
            assert await code_of(cut(data, size)) == "IncorrectNumberOfFilesInPostRequest"

    async def test_a_form_without_any_part_has_no_file(self):
        assert await code_of([f"--{BOUNDARY}--\r\n".encode()]) == (
            "IncorrectNumberOfFilesInPostRequest"
        )

    @pytest.mark.parametrize(
        ("sound", "spoilt"),
        [
            (b'form-data; name="acl"', b'attachment; name="acl"'),
            (b'form-data; name="acl"', b"form-data"),
            (b'form-data; name="acl"', b'form-data; name=""'),
            (b'form-data; name="acl"', b"form-data; name*=UTF-8''acl"),
            (b"Content-Disposition", b"Content-Type"),
            (b"Content-Disposition", b"Content Disposition"),
            (b"Content-Disposition:", b"Content-Disposition: form-data\r\nContent-Disposition:"),
            (b'"cat.png"', b'"\xff"'),
            (b"private", b"\xff"),
            (b'"acl"', b'"\xff"'),
        ],
    )
    async def test_parts_that_are_none_are_refused(self, sound: bytes, spoilt: bytes):
        data = encode()
        assert sound in data
        assert await code_of([data.replace(sound, spoilt)]) == "MalformedPOSTRequest"

    @pytest.mark.parametrize("lines", [9, 40])
    async def test_a_part_has_few_headers(self, lines: int):
        many = b"A: b\r\n" * lines + b"Content-Disposition"
        data = encode().replace(b"Content-Disposition", many)
        assert await code_of([data]) == "MalformedPOSTRequest"

    async def test_a_field_stands_once(self):
        assert await code_of([encode(before=[("Key", "other")])]) == "InvalidArgument"


class TestSizes:
    @pytest.mark.parametrize("size", [1, 1 << 20])
    async def test_both_bounds_are_inclusive(self, size: int):
        for bounds in ((10, 10), (0, 10), (10, 1 << 62)):
            assert (await read(cut(encode(b"0123456789"), size), sizes=bounds))[1] == b"0123456789"
        pieces = cut(encode(b"0123456789"), size)
        assert await code_of(pieces, sizes=(0, 9)) == "EntityTooLarge"
        assert await code_of(pieces, sizes=(11, 20)) == "EntityTooSmall"

    async def test_a_file_that_is_too_large_is_not_read_to_its_end(self):
        body, headers = request(cut(encode(bytes(10_000)), 1000))
        form = await Form.open(body, headers)
        form.sizes = (0, 2000)
        with pytest.raises(S3Error, match="EntityTooLarge"):
            async for _ in form.pieces():
                pass
        assert body.received < 5000


async def test_what_is_declared_of_the_file_is_verified_against_the_file_alone():
    form = await Form.open(*request(cut(encode(b"hello"), 20)))
    form.declared = form.declared.parse(Headers({"content-md5": "XUFAKrxLKna5cZ2REBfFkg=="}))
    digests = Digests(form.declared.algorithms)
    async for piece in form.pieces():
        digests.update(piece)
    assert form.verify(digests) == {}
    digests.update(b"!")
    with pytest.raises(S3Error, match="BadDigest"):
        form.verify(digests)
